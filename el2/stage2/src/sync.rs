//! Atomics: those of `core`, or loom's in a build with `--cfg loom`.
//!
//! A fence here is a hardware barrier too: on AArch64 `fence(SeqCst)` is `dmb ish` and
//! `fence(Acquire)` is `dmb ishld`. So the barriers of the protocols between CPUs are language-level
//! fences, which loom can check; only what orders the *walker* and TLB invalidations (DSB, ISB, TLBI)
//! goes through the [`crate::hardware::Tlb`] trait.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Tells the CPU (or loom's scheduler) that this thread waits for another.
pub fn pause() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
