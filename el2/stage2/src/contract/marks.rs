//! Marks: the ranges of unfinished invalidations, written under the contract's lock, read without.
//!
//! One slot is kept for the hull: a range that finds no other slot free joins it, and the hull goes with
//! the last end. There is *one* hull, so that an end that matches no slot of its own can only belong to
//! it; with two, an end could lower a mark that another begin still needs.
//!
//! A reader may catch a slot half-written. That never hides a mark that was raised before it looked:
//! - raising stores the end last into an empty slot; a reader that misses either half came before the
//!   raiser's barrier, and the raiser's wait covers it;
//! - the hull only grows while it stands, so any mix of old and new bounds covers the old hull;
//! - a slot is emptied only after the sequence number was published, and every store here is a release:
//!   a reader that sees anything newer than a mark sees the number that refuses it.

use crate::range::Range;
use crate::sync::{AtomicU64, Ordering};

/// Slots besides the hull.
#[cfg(not(loom))]
const PLAIN: usize = verdigris_abi::MAX_MARKS as usize;
#[cfg(loom)]
const PLAIN: usize = 1;
/// The slot of the hull.
const HULL: usize = PLAIN;

/// A slot: empty if `start` isn't below `end`.
struct Mark {
    start: AtomicU64,
    end: AtomicU64,
    /// Begins that it stands for; only read and written under the lock.
    begins: AtomicU64,
}

impl Mark {
    fn new() -> Self {
        Self { start: AtomicU64::new(u64::MAX), end: AtomicU64::new(0), begins: AtomicU64::new(0) }
    }

    fn range(&self) -> Range {
        let start = self.start.load(Ordering::Acquire);
        Range { start, end: self.end.load(Ordering::Acquire) }
    }

    fn begins(&self) -> u64 {
        self.begins.load(Ordering::Relaxed)
    }

    fn store(&self, range: Range, begins: u64) {
        self.begins.store(begins, Ordering::Relaxed);
        self.start.store(range.start, Ordering::Release);
        self.end.store(range.end, Ordering::Release);
    }
}

pub(super) struct Marks([Mark; PLAIN + 1]);

impl Marks {
    pub(super) fn new() -> Self {
        Self(core::array::from_fn(|_| Mark::new()))
    }

    /// Raises a mark, in a slot of its own or in the hull. Under the lock.
    pub(super) fn raise(&self, range: Range) {
        if let Some(slot) = self.0[..PLAIN].iter().find(|slot| slot.begins() == 0) {
            return slot.store(range, 1);
        }
        let hull = &self.0[HULL];
        match hull.begins() {
            0 => hull.store(range, 1),
            begins => hull.store(range.hull(hull.range()), begins + 1),
        }
    }

    /// Finds the slot that stands for a begin of that range. Under the lock.
    pub(super) fn find(&self, range: Range) -> Option<usize> {
        let stands = |slot: &Mark| slot.begins() != 0;
        let own = self.0[..PLAIN].iter().position(|slot| stands(slot) && slot.range() == range);
        let hull = &self.0[HULL];
        own.or_else(|| (stands(hull) && hull.range().covers(range)).then_some(HULL))
    }

    /// Takes one begin from a slot, and empties it with the last. Under the lock.
    pub(super) fn lower(&self, slot: usize) {
        let mark = &self.0[slot];
        match mark.begins() {
            1 => mark.store(Range { start: u64::MAX, end: 0 }, 0),
            begins => mark.begins.store(begins - 1, Ordering::Relaxed),
        }
    }

    /// Tells whether a mark overlaps the range. Without the lock.
    pub(super) fn overlap(&self, range: Range) -> bool {
        self.0.iter().any(|slot| {
            let mark = slot.range();
            mark.start < mark.end && mark.overlaps(range)
        })
    }
}
