//! Gates: a counter for each CPU, odd while that CPU makes entries of this VM valid.
//!
//! Only its own CPU writes a counter, and EL2 isn't preempted, so plain loads and stores do. They are a
//! cache line each: a CPU that maps writes nothing that another CPU's map touches.

use crate::hardware::Cpus;
use crate::sync::{AtomicU64, Ordering, Weakness, barrier, order, pause};

/// Most CPUs.
#[cfg(not(loom))]
pub(crate) const CPUS: usize = verdigris_abi::MAX_CPUS as usize;
#[cfg(loom)]
pub(crate) const CPUS: usize = 3;

#[repr(align(64))]
struct Counter(AtomicU64);

/// The map counters of one VM.
pub struct Gates([Counter; CPUS]);

impl Gates {
    pub(super) fn new() -> Self {
        Self(core::array::from_fn(|_| Counter(AtomicU64::new(0))))
    }

    pub(super) fn enter(&self, cpu: usize) -> Passage<'_> {
        let counter = &self.0[cpu].0;
        let odd = counter.load(Ordering::Relaxed) + 1;
        assert!(odd % 2 == 1, "a gate is entered once");
        counter.store(odd, Ordering::Relaxed);
        barrier(Ordering::SeqCst, Weakness::MapBarrier);
        Passage { counter, odd }
    }

    /// Waits while another CPU's counter is odd and unchanged since it was first read.
    pub(super) fn wait<C: Cpus>(&self, cpus: &C) -> bool {
        let others = (0..cpus.cpu_count()).filter(|&cpu| cpu != cpus.this_cpu());
        for counter in others.map(|cpu| &self.0[cpu].0) {
            let read = || counter.load(order(Ordering::Acquire, Weakness::WaitRelaxed));
            let first = read();
            while first % 2 == 1 && read() == first {
                if cpus.interrupt_pending() {
                    return false;
                }
                pause();
            }
        }
        true
    }
}

/// The passage of a CPU through its gate; dropping it makes the counter even, by store-release.
pub struct Passage<'a> {
    counter: &'a AtomicU64,
    odd: u64,
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.counter.store(self.odd + 1, order(Ordering::Release, Weakness::GateRelaxed));
    }
}
