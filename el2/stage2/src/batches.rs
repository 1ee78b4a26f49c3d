//! Gone, but not yet finished.
//!
//! A call that finds an entry already invalid (or already read-only) may be looking at another CPU's
//! work whose invalidation is still under way. If it returned now, its caller would believe the page
//! clean. So each batch that takes something away counts itself begun before its first store and done
//! after its last barrier, for which it holds a [`Counted`]; a call that would return without an invalidation of its own over such entries
//! compares the two, and invalidates its own range if a batch is under way.
//!
//! The reader's order is what makes the comparison safe: entries, `dmb ishld`, `done`, then `begun`. A
//! batch whose store it saw is counted in `begun`, because that store is a release; and `done` is read
//! first, so a batch that finishes in between makes them differ rather than agree.

use crate::sync::{AtomicU64, Ordering, Weakness, barrier, fence, weakened};

/// The counters of one VM.
pub struct Batches {
    begun: AtomicU64,
    done: AtomicU64,
}

impl Batches {
    /// Makes the counters of a new VM.
    pub fn new() -> Self {
        Self { begun: AtomicU64::new(0), done: AtomicU64::new(0) }
    }

    /// Counts a batch before its first store.
    pub fn begin(&self) -> Counted<'_> {
        // Relaxed: the store that takes something away is a release, and comes later.
        self.begun.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    /// Tells whether a batch besides the caller's own is under way, after its entries were exchanged.
    pub fn others_under_way(&self, _own: &Counted<'_>) -> bool {
        fence(Ordering::Acquire);
        let done = self.done.load(Ordering::Acquire);
        self.begun.load(Ordering::Acquire) - done > 1
    }

    /// Tells, after entries were found gone, whether their invalidation may still be under way.
    pub fn under_way(&self) -> bool {
        if weakened(Weakness::TrustGone) {
            return false;
        }
        barrier(Ordering::Acquire, Weakness::FoundBarrier);
        if weakened(Weakness::GoneReadsSwapped) {
            let begun = self.begun.load(Ordering::Acquire);
            return begun != self.done.load(Ordering::Acquire);
        }
        let done = self.done.load(Ordering::Acquire);
        self.begun.load(Ordering::Acquire) != done
    }
}

/// A batch that is under way. Dropping it counts the batch done, which is after its last barrier.
///
/// [`Stage2::flush`](crate::Stage2) asks for it, so the compiler refuses an invalidation after the count.
#[must_use = "a batch is under way until its invalidation is complete"]
pub struct Counted<'a>(&'a Batches);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.done.fetch_add(1, Ordering::Release);
    }
}

impl Default for Batches {
    fn default() -> Self {
        Self::new()
    }
}
