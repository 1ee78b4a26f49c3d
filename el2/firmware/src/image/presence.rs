//! Which CPUs are inside EL2 and may hold references into tables: one counter each, odd inside.
//!
//! A table that is unlinked is given back once every CPU that was inside then has left since (see
//! `verdigris_stage2::limbo`). So a CPU goes inside *before* it reads the first entry, and leaves when
//! it holds nothing any more: before ERET, and before any call to EL3 that can block.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use verdigris_abi::MAX_CPUS;

/// A counter, alone in its cache line.
#[repr(align(64))]
struct Counter(AtomicU64);

static COUNTERS: [Counter; MAX_CPUS as usize] =
    [const { Counter(AtomicU64::new(0)) }; MAX_CPUS as usize];

/// A stay inside EL2; it ends when this is dropped.
pub struct Stay(&'static AtomicU64);

impl Stay {
    /// Begins a stay of the CPU with that index, which asks for itself.
    pub fn begin(cpu: usize) -> Self {
        let counter = &COUNTERS[cpu].0;
        let odd = counter.load(Ordering::Relaxed) + 1;
        assert!(odd % 2 == 1, "a stay inside EL2 is not nested");
        counter.store(odd, Ordering::Relaxed);
        // `dmb ish`: nothing of a table is read before others can see the odd value.
        fence(Ordering::SeqCst);
        Self(counter)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let even = self.0.load(Ordering::Relaxed) + 1;
        self.0.store(even, Ordering::Release);
    }
}

/// Reads a CPU's counter, by load-acquire.
pub fn of(cpu: usize) -> u64 {
    COUNTERS[cpu].0.load(Ordering::Acquire)
}
