//! What Linux may do to a guest's memory at any time without changing a byte of it.

use std::cell::{Cell, RefCell};
use std::path::Path;

use super::cgroup::Group;
use super::counters::{Counters, number, write};
use super::region::Region;
use super::sys::{self, BLOCK, COLLAPSE, PAGE};

/// One kind of disturbance.
pub struct Kind {
    /// What reports call it.
    pub name: &'static str,
    run: fn(&Disturber, &Region, usize),
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    Kind { name: "page out", run: page_out },
    Kind { name: "make cold", run: make_cold },
    Kind { name: "change protection", run: change_protection },
    Kind { name: "collapse", run: collapse },
    Kind { name: "split", run: split },
    Kind { name: "fork", run: fork },
    Kind { name: "merge", run: merge },
    Kind { name: "compact", run: compact },
    Kind { name: "migrate", run: migrate },
    Kind { name: "reclaim", run: reclaim },
];

/// What disturbances need.
pub struct Disturber {
    group: Group,
    state: Cell<u64>,
    /// Kinds that are to come before any of them comes again.
    deck: RefCell<Vec<usize>>,
    before: Counters,
    scans: u64,
    /// Whether there was memory that is merged, which shared memory never is.
    merges: Cell<bool>,
}

/// Passes of the scanner for pages to merge.
const SCANS: &str = "/sys/kernel/mm/ksm/full_scans";
/// Counters that prove that each mechanism ran, and by how much they must grow.
const PROOFS: &[&str] = &[
    "thp_split_pmd",
    "pgdeactivate",
    "pgmigrate_success",
    "thp_collapse_alloc",
    "compact_isolated",
];

impl Disturber {
    /// Makes one with a cgroup of a name.
    pub fn new(name: &str, seed: u64) -> Self {
        write("/sys/kernel/mm/ksm/sleep_millisecs", "5");
        write("/sys/kernel/mm/ksm/run", "1");
        let group = Group::join(name);
        let (before, scans) = (Counters::host(), number(SCANS));
        let (state, deck, merges) = (Cell::new(seed), RefCell::default(), Cell::new(false));
        Self { group, state, deck, before, scans, merges }
    }

    /// Returns a number below `limit`, at random.
    pub fn random(&self, limit: usize) -> usize {
        let next = verdigris_guest::scramble(self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        self.state.set(next);
        (next % limit as u64) as usize
    }

    /// Does one of a kind to some block of a region, or one at random, of those whose turn hasn't come yet.
    pub fn disturb(&self, region: &Region, kind: Option<usize>) {
        let kind = &KINDS[kind.unwrap_or_else(|| self.draw())];
        let block = self.random(region.bytes().div_ceil(BLOCK));
        println!("{}, block {block}", kind.name);
        self.merges.set(self.merges.get() || region.file().is_none());
        (kind.run)(self, region, block);
    }

    /// Draws a kind: of as many disturbances as there are kinds, each is of another.
    fn draw(&self) -> usize {
        let mut deck = self.deck.borrow_mut();
        if deck.is_empty() {
            deck.extend(0..KINDS.len());
        }
        let index = self.random(deck.len());
        deck.swap_remove(index)
    }

    /// Tells how far the counters have come, and returns what must have run and hasn't.
    pub fn missing(&self) -> Vec<&'static str> {
        let now = Counters::host();
        let mut counts = vec![
            ("pages out", now.swapped_out_since(&self.before)),
            ("pages in", now.swapped_in_since(&self.before)),
        ];
        if self.merges.get() {
            counts.push(("full_scans", number(SCANS) - self.scans));
        }
        counts.extend(PROOFS.iter().map(|name| (*name, now.since(&self.before, name))));
        println!("{counts:?}");
        counts.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    /// Fails if what must have run hasn't.
    pub fn prove(&self) {
        assert_eq!(self.missing(), [""; 0], "counters that haven't grown");
    }
}

impl Drop for Disturber {
    fn drop(&mut self) {
        _ = std::fs::write("/sys/kernel/mm/ksm/run", "2");
        _ = std::fs::write("/sys/kernel/mm/ksm/run", "0");
    }
}

fn block(region: &Region, index: usize) -> std::ops::Range<usize> {
    index * BLOCK..((index + 1) * BLOCK).min(region.bytes())
}

fn page_out(_: &Disturber, region: &Region, index: usize) {
    region.advise(block(region, index), libc::MADV_PAGEOUT).expect("advice");
}

fn make_cold(_: &Disturber, region: &Region, index: usize) {
    region.advise(block(region, index), libc::MADV_COLD).expect("advice");
}

/// Rights that the guest needs stay; those that it doesn't come and go.
fn change_protection(_: &Disturber, region: &Region, index: usize) {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    region.protect(block(region, index), rights | libc::PROT_EXEC).expect("protection");
    region.protect(block(region, index), rights).expect("protection");
}

fn collapse(_: &Disturber, region: &Region, index: usize) {
    _ = region.advise(block(region, index), libc::MADV_HUGEPAGE);
    // There may be no memory for it, or a page in use in a way that forbids it.
    _ = region.advise(block(region, index), COLLAPSE);
}

/// What isn't huge is made so first, where there is memory: else there would seldom be anything to split.
fn split(disturber: &Disturber, region: &Region, index: usize) {
    collapse(disturber, region, index);
    let part = block(region, index);
    let (start, end) = (region.address(part.start), region.address(part.end));
    let command = format!("{},{start:#x},{end:#x},0", std::process::id());
    _ = std::fs::write("/sys/kernel/debug/split_huge_pages", command);
}

fn fork(_: &Disturber, _: &Region, _: usize) {
    let process = sys::fork(|| 0).expect("a child");
    assert_eq!(sys::wait_for(process).expect("a child"), 0);
}

fn merge(disturber: &Disturber, region: &Region, index: usize) {
    let advice = [libc::MADV_MERGEABLE, libc::MADV_UNMERGEABLE][disturber.random(4) / 3];
    _ = region.advise(block(region, index), advice);
}

fn compact(_: &Disturber, _: &Region, _: usize) {
    write("/proc/sys/vm/compact_memory", "1");
}

fn migrate(disturber: &Disturber, region: &Region, index: usize) {
    if !Path::new("/sys/devices/system/node/node1").exists() {
        return;
    }
    let part = block(region, index);
    // Some neighbours: each page costs broadcasts.
    let first = disturber.random(part.len() / PAGE) * PAGE + part.start;
    let pages = (first..part.end).step_by(PAGE).take(32);
    let addresses: Vec<_> = pages.map(|at| region.address(at)).collect();
    sys::move_pages(&addresses, disturber.random(2) as i32).expect("nodes");
}

fn reclaim(disturber: &Disturber, _: &Region, _: usize) {
    _ = disturber.group.try_set("memory.reclaim", "512K");
}
