//! Dirty bits that leave with their pages.
//!
//! The leaf itself is the dirty log, so whoever takes a leaf away holds the last word on its page. That
//! word goes to the caller, through a [`DirtySink`]: one bit a page, by what the exchange returned. Each
//! bit is returned by exactly one call, and only together with the progress that covers its page: a call
//! takes no leaf whose bits its answer can't carry.
//!
//! A few bits have no answer to go to: of a dirty block that had to be dropped whole, the pages outside
//! of what the caller asked about; of leaves that were to be made again and could not be. Those are
//! [`Orphans`]: the VM keeps the smallest range that covers them, and harvest returns it as dirty, also
//! where nothing is mapped any more. So a write is reported, perhaps twice, and never lost.

use crate::range::Range;
use crate::sync::{AtomicU64, Lock, Ordering};

/// Where the final dirty bits of a call go.
pub trait DirtySink {
    /// Returns how many pages' bits it takes, from the call's first page on; 0 if none are wanted.
    ///
    /// That first page is the start of the range, or what was `done` of it before. A call that wants
    /// bits goes no further than this in one go.
    fn capacity(&self) -> u64;

    /// Takes bits: bit n belongs to page `first + n` of the call. A page may come more than once: its
    /// bits add up.
    fn dirty(&mut self, first: u64, bits: u64);
}

/// The sink of a call that wants no dirty bits.
#[derive(Clone, Copy, Debug)]
pub struct NoDirty;

impl DirtySink for NoDirty {
    fn capacity(&self) -> u64 {
        0
    }

    fn dirty(&mut self, _: u64, _: u64) {}
}

/// The pages whose dirty bits no answer could carry, as a hull.
///
/// The lock is held for a few stores; nobody waits for anything else meanwhile.
pub struct Orphans {
    lock: Lock,
    /// Empty if `start` isn't below `end`.
    start: AtomicU64,
    end: AtomicU64,
}

impl Orphans {
    /// Makes the orphans of a new VM: none.
    pub fn new() -> Self {
        Self { lock: Lock::new(), start: AtomicU64::new(0), end: AtomicU64::new(0) }
    }

    /// Adds pages that were dirty when they went.
    pub fn add(&self, range: Range) {
        if range.start >= range.end {
            return;
        }
        let _held = self.lock.lock();
        let hull = self.hull();
        self.store(if hull.start < hull.end { hull.hull(range) } else { range });
    }

    /// Returns the pages of `range` to report as dirty, for a caller that is about to answer for all of
    /// it. They are forgotten where that leaves a hull: at its ends.
    ///
    /// One that grows at this moment loses nothing: what is cut away is in the answer, and the writes
    /// behind it came before that.
    pub fn take(&self, range: Range) -> Option<Range> {
        if self.is_empty() {
            return None;
        }
        let _held = self.lock.lock();
        let hull = self.hull();
        let part = Range { start: hull.start.max(range.start), end: hull.end.min(range.end) };
        if part.start >= part.end {
            return None;
        }
        if part.start == hull.start {
            self.store(Range { start: part.end, end: hull.end });
        } else if part.end == hull.end {
            self.store(Range { start: hull.start, end: part.start });
        }
        Some(part)
    }

    /// Tells whether there are none.
    ///
    /// Relaxed: an orphan that the caller has to know of was added before its call began.
    pub fn is_empty(&self) -> bool {
        let hull = self.hull();
        hull.start >= hull.end
    }

    fn hull(&self) -> Range {
        let start = self.start.load(Ordering::Relaxed);
        Range { start, end: self.end.load(Ordering::Relaxed) }
    }

    fn store(&self, range: Range) {
        self.start.store(range.start, Ordering::Relaxed);
        self.end.store(range.end, Ordering::Relaxed);
    }
}

impl Default for Orphans {
    fn default() -> Self {
        Self::new()
    }
}
