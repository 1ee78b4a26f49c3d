//! The sequence number, and the ranges of the last invalidations that ended.
//!
//! With the ranges an invalidation elsewhere costs a fault nothing. The memory is bounded: a number from
//! before what it holds is refused in vain, never accepted wrongly. Each slot carries the number that it
//! belongs to, before and after its range is read, so that a slot overwritten meanwhile is noticed.

use crate::range::Range;
use crate::sync::{AtomicU64, Ordering, Weakness, barrier, order};

/// Remembered invalidations.
const SLOTS: u64 = if cfg!(loom) { 2 } else { 64 };

struct Past {
    number: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
}

/// What is remembered about a range since some number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// No invalidation of it.
    Nothing,
    /// An invalidation of it.
    Overlap,
    /// Too much has ended since.
    Unknown,
}

pub(super) struct History {
    last: AtomicU64,
    slots: [Past; SLOTS as usize],
}

impl History {
    pub(super) fn new() -> Self {
        let past = |_| Past {
            number: AtomicU64::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
        };
        Self { last: AtomicU64::new(0), slots: core::array::from_fn(past) }
    }

    pub(super) fn sample(&self) -> u64 {
        self.last.load(order(Ordering::Acquire, Weakness::SampleRelaxed))
    }

    /// Remembers a range under a new number, and then publishes the number. Under the lock.
    pub(super) fn publish(&self, range: Range) {
        let number = self.last.load(Ordering::Relaxed) + 1;
        let slot = &self.slots[(number % SLOTS) as usize];
        slot.number.store(0, Ordering::Relaxed);
        // A reader that sees the new range sees that the old number is gone.
        barrier(Ordering::Release, Weakness::HistoryWriterBarrier);
        slot.start.store(range.start, Ordering::Relaxed);
        slot.end.store(range.end, Ordering::Relaxed);
        slot.number.store(number, Ordering::Release);
        self.last.store(number, Ordering::Release);
    }

    /// Tells what is known of invalidations of `range` after number `sampled`, up to `now`.
    pub(super) fn since(&self, range: Range, sampled: u64, now: u64) -> Memory {
        if sampled > now {
            // Nobody was given that number.
            return Memory::Overlap;
        }
        let mut memory = if now - sampled > SLOTS { Memory::Unknown } else { Memory::Nothing };
        let oldest = now.saturating_sub(SLOTS).max(sampled);
        for number in oldest + 1..=now {
            match self.range_of(number) {
                Some(past) if past.overlaps(range) => return Memory::Overlap,
                Some(_) => {}
                None => memory = Memory::Unknown,
            }
        }
        memory
    }

    /// Returns the range that a number belongs to; `None` if its slot was overwritten.
    fn range_of(&self, number: u64) -> Option<Range> {
        let slot = &self.slots[(number % SLOTS) as usize];
        let before = slot.number.load(Ordering::Acquire);
        let start = slot.start.load(Ordering::Relaxed);
        let end = slot.end.load(Ordering::Relaxed);
        barrier(Ordering::Acquire, Weakness::HistoryReaderBarrier);
        let after = slot.number.load(Ordering::Relaxed);
        (before == number && after == number).then_some(Range { start, end })
    }
}
