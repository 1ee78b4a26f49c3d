//! Marks: the ranges of unfinished invalidations, written under the contract's lock, read without.
//!
//! One slot is kept for the hull: a range that finds no other slot free joins it, and the hull goes with
//! the last end. There is *one* hull, so that an end that matches no slot of its own can only belong to
//! it; with two, an end could lower a mark that another begin still needs.
//!
//! A mark is either *held*, by a call that is at work under it, or *standing*, for the host to come back
//! to. Only a standing mark is found: whatever the host ends on another CPU, the mark of a call in
//! progress is its own, and an unmap's never stands. The hull may be both, and counts each.
//!
//! A mark is *loud*, or *quiet*: that of a call that takes nothing from the host, and only wants no tables and
//! leaves made under its hands. The hull is always loud; a quiet mark has a slot of its own, or isn't raised.
//!
//! A reader may catch a slot half-written. That never hides a mark that was raised before it looked:
//! - raising stores the end last into an empty slot; a reader that misses either half came before the
//!   raiser's barrier, and the raiser's wait covers it;
//! - the hull only grows while it stands, so any mix of old and new bounds covers the old hull;
//! - a slot is emptied only after the sequence number was published, and every store here is a release:
//!   a reader that sees anything newer than a mark sees the number that refuses it;
//! - a quiet mark goes without a number. A reader that sees it gone sees what the call made of the tables,
//!   by the same release.

use crate::range::Range;
use crate::sync::{AtomicU64, Ordering, Weakness, weakened};

/// Slots besides the hull.
#[cfg(not(loom))]
const PLAIN: usize = verdigris_abi::MAX_MARKS as usize;
#[cfg(loom)]
const PLAIN: usize = 1;
/// The slot of the hull.
const HULL: usize = PLAIN;

/// In the end of a mark: it is quiet. Beyond all page numbers.
const QUIET: u64 = 1 << 63;

/// A slot: empty if `start` isn't below `end`.
struct Mark {
    start: AtomicU64,
    /// With [`QUIET`], so that a reader sees both or neither.
    end: AtomicU64,
    /// Begins that wait for the host; only read and written under the lock.
    standing: AtomicU64,
    /// Calls at work under it; only read and written under the lock.
    held: AtomicU64,
}

impl Mark {
    fn new() -> Self {
        Self {
            start: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(0),
            standing: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    fn range(&self) -> Range {
        self.look().0
    }

    /// Returns the range, and whether the mark is quiet.
    fn look(&self) -> (Range, bool) {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Acquire);
        (Range { start, end: end & !QUIET }, end & QUIET != 0)
    }

    fn is_standing(&self) -> bool {
        self.standing.load(Ordering::Relaxed) != 0
    }

    fn is_free(&self) -> bool {
        !self.is_standing() && self.held.load(Ordering::Relaxed) == 0
    }

    fn store(&self, range: Range) {
        self.start.store(range.start, Ordering::Release);
        self.end.store(range.end, Ordering::Release);
    }
}

pub(super) struct Marks([Mark; PLAIN + 1]);

impl Marks {
    pub(super) fn new() -> Self {
        Self(core::array::from_fn(|_| Mark::new()))
    }

    /// Raises a mark, held, in a slot of its own or in the hull. Under the lock.
    pub(super) fn raise(&self, range: Range) -> usize {
        let slot = self.0[..PLAIN].iter().position(Mark::is_free).unwrap_or(HULL);
        let mark = &self.0[slot];
        let range = if mark.is_free() { range } else { range.hull(mark.range()) };
        add(&mark.held);
        mark.store(range);
        slot
    }

    /// Raises a quiet mark in a slot of its own; `None` if all are taken. Under the lock.
    pub(super) fn raise_quiet(&self, range: Range) -> Option<usize> {
        let slot = self.0[..PLAIN].iter().position(Mark::is_free)?;
        let mark = &self.0[slot];
        add(&mark.held);
        mark.store(Range { start: range.start, end: range.end | QUIET });
        Some(slot)
    }

    /// Takes hold of a begin of that range that stands. Under the lock.
    pub(super) fn take(&self, range: Range) -> Option<usize> {
        let own = |slot: &Mark| slot.is_standing() && slot.range() == range;
        let hull = &self.0[HULL];
        let in_hull = || (hull.is_standing() && hull.range().covers(range)).then_some(HULL);
        let slot = self.0[..PLAIN].iter().position(own).or_else(in_hull)?;
        subtract(&self.0[slot].standing);
        add(&self.0[slot].held);
        Some(slot)
    }

    /// Leaves a mark that was held standing. Under the lock.
    pub(super) fn leave(&self, slot: usize) {
        add(&self.0[slot].standing);
        subtract(&self.0[slot].held);
    }

    /// Lowers a mark that was held; the slot is emptied with the last of either kind. Under the lock.
    pub(super) fn lower(&self, slot: usize) {
        let mark = &self.0[slot];
        subtract(&mark.held);
        if mark.is_free() || weakened(Weakness::HullGoesEarly) {
            mark.store(Range { start: u64::MAX, end: 0 });
        }
    }

    /// Tells which marks overlap the range, other than the one in slot `own`. Without the lock.
    pub(super) fn overlap(&self, range: Range, own: Option<usize>) -> Overlap {
        let mut overlap = Overlap::None;
        for (index, slot) in self.0.iter().enumerate() {
            let (mark, quiet) = slot.look();
            if mark.start < mark.end && mark.overlaps(range) && Some(index) != own {
                if !quiet {
                    return Overlap::Loud;
                }
                overlap = Overlap::Quiet;
            }
        }
        overlap
    }
}

/// Tells whether a slot is the hull, which is never one call's own.
pub(super) const fn is_hull(slot: usize) -> bool {
    slot == HULL
}

/// What marks lie over a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    None,
    /// Quiet ones alone.
    Quiet,
    /// A loud one, at least.
    Loud,
}

/// Counts one more, under the lock.
fn add(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Counts one less, under the lock.
fn subtract(count: &AtomicU64) {
    let less = count.load(Ordering::Relaxed).checked_sub(1);
    count.store(less.expect("what is counted down was counted up"), Ordering::Relaxed);
}
