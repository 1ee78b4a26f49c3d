//! What the engine's calls cost, in instructions of EL2, and what they invalidate.
//!
//! The firmware counts its own instructions in an event counter that it keeps from the host (its option
//! `counter=on`) and tells them as a statistic: so neither the host's nor the guest's are in a figure, and
//! nothing has to be subtracted but the cost of asking. A figure is a line, `figure NAME VALUE`, or
//! `absent NAME REASON` where the machine can't have it; what it should be is for the reader to say.

mod flushes;
mod leaves;
mod meter;
mod single;

use std::process::ExitCode;

use verdigris_abi::flags;

use crate::firmware::Features;
use crate::guest::{DATA, Guest};
use crate::pages::Pages;
use crate::sys;
use crate::vm::{IPA_BITS, RW, Vm};
use meter::Meter;

/// log2 of the pages of a block.
const BLOCK_ORDER: u32 = 9;
const BLOCK_PAGES: u64 = 1 << BLOCK_ORDER;
/// Pages of the largest range: 1 GiB.
const MOST_PAGES: u64 = 1 << 18;
/// Enough for a GiB in pages.
const TABLE_PAGES: usize = 640;

/// A guest with a GiB of its own, every page another one.
struct Bench {
    meter: Meter,
    guest: Guest,
    memory: Pages,
    buffer: Pages,
}

/// What the leaves of a range are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Page,
    Block,
}

impl Leaf {
    const fn pages(self) -> u64 {
        match self {
            Self::Page => 1,
            Self::Block => BLOCK_PAGES,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Block => "block",
        }
    }

    const fn flag(self) -> u64 {
        match self {
            Self::Page => 0,
            Self::Block => flags::MAP_BLOCK_2M,
        }
    }
}

/// Measures everything, and prints a line for each figure.
pub fn run() -> ExitCode {
    _ = sys::run_on(sys::cpus()[0]);
    let Some(meter) = Meter::new() else {
        eprintln!("the firmware doesn't count instructions: it needs counter=on, and QEMU -icount");
        return ExitCode::FAILURE;
    };
    println!("settings {}", settings());
    let bench = Bench::new(meter);
    bench.single_calls();
    bench.leaves();
    bench.flushes();
    ExitCode::SUCCESS
}

fn settings() -> String {
    const NAMES: [(u64, &str); 8] = [
        (flags::FEATURE_HW_ACCESS_FLAG, "ha"),
        (flags::FEATURE_HW_DIRTY, "hd"),
        (flags::FEATURE_TTL, "ttl"),
        (flags::FEATURE_TLB_RANGE, "tlbirange"),
        (flags::FEATURE_FORCED_WRITE_BACK, "fwb"),
        (flags::FEATURE_BBM2, "bbm2"),
        (flags::FEATURE_FLUSH_EPOCH, "epoch"),
        (flags::FEATURE_REPEAT_TLBI, "repeat"),
    ];
    let features = Features::read();
    let state = |&(bit, name): &(u64, &str)| {
        format!("{name}={}", if features.has(bit) { "on" } else { "off" })
    };
    NAMES.iter().map(state).collect::<Vec<_>>().join(" ")
}

fn figure(name: &str, value: f64) {
    println!("figure {name} {value:.3}");
}

fn absent(name: &str, reason: &str) {
    println!("absent {name} {reason}");
}

impl Bench {
    fn new(meter: Meter) -> Self {
        let vm = Vm::bare(IPA_BITS).expect("a VM can be created");
        vm.donate(TABLE_PAGES);
        let guest = Guest::inside(vm, 1);
        let memory = Pages::chunks(BLOCK_ORDER, (MOST_PAGES / BLOCK_PAGES) as usize);
        Self { meter, guest, memory, buffer: Pages::single(1) }
    }

    /// Maps a range: young, writable, and so counted as dirty.
    fn map(&self, leaf: Leaf, page_count: u64, sequence: u64) {
        self.map_into(&self.guest, leaf, page_count, sequence);
    }

    fn map_into(&self, vm: &Vm, leaf: Leaf, page_count: u64, sequence: u64) {
        let blocks = self.memory.ranges().take((page_count / BLOCK_PAGES) as usize);
        for (block, (address, count)) in blocks.enumerate() {
            let ipa = DATA + (block as u64) * (BLOCK_PAGES << 12);
            let flags = RW | leaf.flag();
            vm.map(ipa, address, count as u64, flags, sequence).expect("a fresh range");
        }
    }

    /// Unmaps a range, and returns a sequence number that is good for it afterwards.
    fn unmap(&self, page_count: u64) -> u64 {
        self.guest.unmap(DATA, page_count).expect("a good range");
        self.guest.sequence(0)
    }

    fn map_anew(&self, leaf: Leaf, page_count: u64) {
        let sequence = self.unmap(page_count);
        self.map(leaf, page_count, sequence);
    }
}
