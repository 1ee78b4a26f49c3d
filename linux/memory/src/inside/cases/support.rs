//! What many tests begin with.

use std::ops::Range;
use std::sync::Arc;

use verdigris_guest::program;

use crate::inside::guest::Guest;
use crate::inside::ledger::Ledger;
use crate::inside::region::Kind;
use crate::inside::sys::PAGE;
use crate::inside::vcpu::Vcpu;

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

    /// Lets the guest compare a part with what FILL wrote.
    pub fn check(&mut self, part: Range<usize>, seed: u64) {
        let start = self.guest.page_address(0) + part.start as u64;
        let found = self.hand.program(program::CHECK, &[start, part.len() as u64, seed]);
        assert_eq!(found[1], 0, "wrong doublewords, the first at {:#x}", found[2]);
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

/// Splits a part into two halves, at a page.
pub fn halves(part: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = part.start + part.len() / 2 / PAGE * PAGE;
    (part.start..middle, middle..part.end)
}
