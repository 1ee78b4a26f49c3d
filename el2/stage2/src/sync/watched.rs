//! loom's atomic, with reads that loom can be made to watch.
//!
//! loom tries two orders of accesses only where it sees that they can differ, and for that it remembers the
//! *last* access to an atomic. Where a CPU reads a value and then changes it, its own read hides what another
//! CPU read before, and the order of that read and the change is never tried the other way round. So each
//! scenario runs twice. Once as it is: a read may return any value that its ordering lets it return. And once
//! with every read of an entry a read-modify-write that changes nothing: each returns the last value, and is an
//! access that loom doesn't overlook.
//!
//! For what is never stored to, as entries aren't: a read-modify-write that loom orders before a store at the
//! same moment would undo the store.

use core::cell::Cell;
use loom::sync::atomic::{self, Ordering};

std::thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Chooses whether reads are watched from now on, on this thread. loom runs its threads on one.
pub fn watch_reads(watched: bool) {
    WATCHED.set(watched);
}

/// An atomic of the model.
#[derive(Debug)]
pub struct WatchedU64(atomic::AtomicU64);

#[expect(missing_docs, reason = "as the standard library's")]
impl WatchedU64 {
    pub fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub fn load(&self, order: Ordering) -> u64 {
        if WATCHED.get() { self.0.fetch_or(0, order) } else { self.0.load(order) }
    }

    pub fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }

    pub fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.0.swap(value, order)
    }

    pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_and(value, order)
    }

    pub fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange(old, new, success, failure)
    }

    /// Changes the value in one step; `Err` with it if `change` wants nothing.
    pub fn update(&self, mut change: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        let mut old = self.0.fetch_or(0, Ordering::AcqRel);
        loop {
            let new = change(old).ok_or(old)?;
            match self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(old),
                Err(now) => old = now,
            }
        }
    }
}
