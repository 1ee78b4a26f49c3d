//! What many tests begin with.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use verdigris_guest::{pattern, program};

use super::beside::{self, End, Job, LINE_BYTES, Work};
use crate::inside::guest::{DATA, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::{BLOCK, PAGE};
use crate::inside::vcpu::{Exit, Vcpu};

/// vCPUs that keep the ledger.
pub const PLAYERS: usize = 2;
/// The number of the vCPU that does what the test says.
pub const HAND: usize = 3;

/// A guest whose first half of the data is under the ledger, while the test does as it likes with the second.
pub struct Scene {
    /// The guest.
    pub guest: Arc<Guest>,
    /// The ledger.
    pub ledger: Ledger,
    /// The vCPU for programs of the test.
    pub hand: Vcpu,
    half_pages: usize,
}

impl Scene {
    /// Makes a scene with data of a kind; each half has so many pages.
    pub fn new(kind: Kind, half_pages: usize) -> Self {
        Self::on(Guest::new(kind, 2 * half_pages * PAGE))
    }

    /// Makes a scene with data of a kind that has blocks, if it is to: two of them in each half, or else so many pages.
    pub fn with_blocks(kind: Kind, half_pages: usize) -> Self {
        if kind != Kind::Blocks {
            return Self::new(kind, half_pages);
        }
        let guest = Guest::new(kind, 4 * BLOCK);
        touch_blocks(&guest.data, &guest.data.all());
        Self::on(guest)
    }

    /// Makes a scene of a guest.
    pub fn on(guest: Guest) -> Self {
        let half_pages = guest.data.pages() / 2;
        let guest = Arc::new(guest);
        let hand = guest.vcpu(HAND);
        // One of the two: the test's own vCPU is the other.
        let ledger = Ledger::start_on(&guest, 1, half_pages);
        Self { guest, ledger, hand, half_pages }
    }

    /// The part under the ledger, in bytes.
    pub fn ledger_part(&self) -> Range<usize> {
        0..self.half_pages * PAGE
    }

    /// The test's own part, in bytes.
    pub fn part(&self) -> Range<usize> {
        self.half_pages * PAGE..2 * self.half_pages * PAGE
    }

    /// Fills a part of the data by the guest, with a pattern that a seed makes.
    pub fn fill(&mut self, part: Range<usize>, seed: u64) {
        let start = self.guest.page_address(0) + part.start as u64;
        self.hand.program(program::FILL, &[start, part.len() as u64, seed]);
    }

    /// Compares a part with what FILL wrote, by the guest, and then by the host: a guest that still has another
    /// page than the host agrees with itself.
    pub fn check(&mut self, part: Range<usize>, seed: u64) {
        let start = self.guest.page_address(0) + part.start as u64;
        let found = self.hand.program(program::CHECK, &[start, part.len() as u64, seed]);
        assert_eq!(found[1], 0, "wrong doublewords, the first at {:#x}", found[2]);
        for at in part.step_by(8) {
            assert_eq!(self.guest.data.read(at), filled(at, seed), "at {at:#x}, for the host");
        }
    }

    /// Compares a part with what should be, by offset: each doubleword for the host, one of each [`LINE_BYTES`] for the guest.
    pub fn compare(&mut self, part: &Range<usize>, expected: impl Fn(usize) -> u64) {
        let seen = self.look_once(Job::look_at_lines(&addresses(part)));
        for (at, seen) in part.clone().step_by(LINE_BYTES).zip(seen) {
            assert_eq!(seen, expected(at), "at {at:#x}, for the guest");
        }
        for at in part.clone().step_by(8) {
            assert_eq!(self.guest.data.read(at), expected(at), "at {at:#x}, for the host");
        }
    }

    /// Has the test's vCPU look at places once; returns what it saw.
    pub fn look_once(&mut self, job: Job) -> Vec<u64> {
        beside::look_once(&self.guest, &mut self.hand, job)
    }

    /// Has the test's vCPU look at the first doublewords of pages while `act` acts; compares what it sees before and after with what
    /// should be, by offset from the first page.
    pub fn watch(
        &mut self,
        addresses: &Range<u64>,
        before: impl Fn(usize) -> u64,
        act: impl FnOnce(&Guest),
        after: impl Fn(usize) -> u64,
    ) {
        let seen = beside::watch(&self.guest, &mut self.hand, Job::look(addresses), act);
        for (page, (first, last)) in seen.before.into_iter().zip(seen.after).enumerate() {
            let at = page * PAGE;
            assert_eq!(first, before(at), "at {at:#x} of {addresses:x?}, at first");
            assert_eq!(last, after(at), "at {at:#x} of {addresses:x?}, afterwards");
        }
    }

    /// Takes one page at a time, by `take`, under a vCPU that looks at nothing else, and must see 0 at once. Often: whenever
    /// the vCPU happens to leave the guest at that moment, nothing is shown.
    pub fn watch_pages_go(&mut self, take: impl Fn(&Guest, Range<usize>)) {
        const TIMES: usize = 24;
        for round in 0..TIMES {
            let start = self.part().start + round * PAGE;
            let page = start..start + PAGE;
            self.fill(page.clone(), 7);
            self.watch(
                &addresses(&page),
                |_| filled(start, 7),
                |guest| take(guest, page.clone()),
                |_| 0,
            );
        }
    }

    /// Has the test's vCPU do a job while `act` acts.
    pub fn beside(&mut self, job: Job, act: impl FnOnce(&Work)) -> End {
        beside::run(&self.guest, &mut self.hand, job, act)
    }

    /// Has the test's vCPU do a job until `take` takes its memory away; see [`beside::run_until_taken`].
    pub fn until_taken(&mut self, job: Job, take: impl FnOnce(&Guest)) -> Exit {
        beside::run_until_taken(&self.guest, &mut self.hand, job, take)
    }

    /// Ends what [`Scene::until_taken`] left in its midst, once there is memory again.
    pub fn drain(&mut self) {
        beside::drain(&mut self.hand);
    }

    /// Lets the guest read a doubleword.
    pub fn read(&mut self, offset: usize) -> u64 {
        let address = self.guest.page_address(0) + offset as u64;
        self.hand.program(program::READ, &[address])[1]
    }

    /// Lets the guest write a doubleword.
    pub fn write(&mut self, offset: usize, value: u64) {
        let address = self.guest.page_address(0) + offset as u64;
        self.hand.program(program::WRITE, &[address, value]);
    }

    /// Lets the ledger go on for a while, then stops it and checks every byte of its half.
    pub fn finish(self) {
        self.ledger.wait(10);
        self.ledger.finish();
    }
}

/// What FILL with a seed leaves at an offset of the data.
pub fn filled(offset: usize, seed: u64) -> u64 {
    pattern(DATA + offset as u64, seed)
}

/// Where a part of the data is for the guest.
pub fn addresses(part: &Range<usize>) -> Range<u64> {
    DATA + part.start as u64..DATA + part.end as u64
}

/// Splits a part into two halves, at a page.
pub fn halves(part: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = part.start + part.len() / 2 / PAGE * PAGE;
    (part.start..middle, middle..part.end)
}

/// What of a part is taken away in some round, counted from 1: half of it, then one page at a time. Half of it comes in
/// blocks, where there are any. A page goes in a moment, before the next tick could empty a vCPU's TLB; and its invalidation in the host's own
/// tables has no other effect, while QEMU empties a TLB for a range of many pages.
pub fn taken(part: &Range<usize>, round: u64) -> Range<usize> {
    if round == 1 {
        return halves(part).0;
    }
    let start = part.start + round as usize * PAGE;
    start..start + PAGE
}

/// Touches each block of a part by the host, so that it is one: where the guest reads first, Linux has the huge page of
/// zeros, and breaks it up at the first write.
pub fn touch_blocks(data: &Region, part: &Range<usize>) {
    part.clone().step_by(BLOCK).for_each(|at| data.write(at, 0));
}

/// Tells whether the driver of Verdigris answers, or Linux's own KVM.
pub fn is_verdigris() -> bool {
    Path::new("/sys/module/verdigris").exists()
}

/// Counts of a VM's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Mapped by a fault.
    pub mapped: u64,
    /// Made of pages.
    pub collapsed: u64,
    /// Made to pages.
    pub split: u64,
}

impl Blocks {
    /// Reads them; none on Linux's own KVM, which doesn't count them.
    pub fn of(guest: &Guest) -> Option<Self> {
        let values = is_verdigris().then(|| guest.vm.statistics())?;
        let [mapped, collapsed, split] =
            ["blocks_mapped", "fw_blocks_collapsed", "fw_blocks_split"].map(|name| values[name]);
        Some(Self { mapped, collapsed, split })
    }
}

/// Expects that at least so many blocks were mapped since `before`.
pub fn expect_blocks_mapped(guest: &Guest, before: Option<Blocks>, least: u64) {
    let (Some(before), Some(now)) = (before, Blocks::of(guest)) else { return };
    assert!(now.mapped >= before.mapped + least, "{before:?} before, {now:?} now");
}
