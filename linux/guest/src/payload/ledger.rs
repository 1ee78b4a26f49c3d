//! Pages that are checked and written all the time, and a ledger of what each should hold.
//!
//! Memory that the host takes away, moves, copies and gives back must still hold what was last written. A
//! page can't know that it is old: so each page's version stands in the ledger, which is never taken
//! away, and the page's content follows from its address and its version.

use verdigris_guest::{control, ledger, scramble};

use super::memory::{read, write};

const PAGE_BYTES: u64 = 4096;
const WORD_BYTES: u64 = 8;

/// Where a vCPU's pages, ledger and control page are.
struct Owner {
    ipa: u64,
    versions: u64,
    control: u64,
    index: u64,
    count: u64,
}

fn is_stopped(control: u64) -> bool {
    read(control + control::STOP as u64 * WORD_BYTES) != 0
}

impl Owner {
    /// Notes a doubleword that isn't what it should be; address and value of the first are kept.
    fn complain(&self, address: u64, value: u64) {
        let word = |index: usize| self.control + index as u64 * WORD_BYTES;
        let wrong = read(word(control::WRONG));
        if wrong == 0 {
            write(word(control::WRONG_ADDRESS), address);
            write(word(control::WRONG_VALUE), value);
        }
        write(word(control::WRONG), wrong + 1);
    }

    /// Checks all of a page, and writes its next version if it `writes`.
    fn visit(&self, page: u64, writes: bool) {
        let (start, version_at) = (self.ipa + page * PAGE_BYTES, self.versions + page * WORD_BYTES);
        let version = read(version_at);
        let mut address = start;
        while address < start + PAGE_BYTES {
            let value = read(address);
            if value != ledger::content(address, version) {
                self.complain(address, value);
            }
            if writes {
                write(address, ledger::content(address, version + 1));
            }
            address += WORD_BYTES;
        }
        if writes {
            write(version_at, version + 1);
        }
    }

    /// Visits some neighbours among its pages; some of them only to read.
    fn round(&self, own_pages: u64, state: u64) {
        // The same neighbours for several rounds: so some pages are hot, and most are cold.
        let mut step = 0;
        while step < ledger::VISITS {
            let own = (state + step) % own_pages;
            self.visit(own * self.count + self.index, state >> 32 >> step & 1 == 1);
            step += 1;
        }
    }
}

/// Visits pages of its own until the suite says stop.
pub fn run(ipa: u64, pages: u64, versions: u64, index: u64, count: u64, control: u64) {
    let owner = Owner { ipa, versions, control, index, count };
    let own_pages = (pages - index).div_ceil(count);
    let mut rounds = 0;
    while !is_stopped(control) {
        let seed = (rounds / ledger::SAME_ROUNDS) << 8 | index;
        let writes = scramble(rounds) << 32;
        owner.round(own_pages, (scramble(seed) & 0xffff_ffff) | writes);
        rounds += 1;
        write(control + control::ROUNDS as u64 * WORD_BYTES, rounds);
    }
}
