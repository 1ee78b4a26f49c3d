//! The flush epoch: proof that no TLB holds a leaf whose access flag is clear.
//!
//! The architecture keeps entries with AF=0 out of TLBs (Arm ARM DDI 0487, D8.5.1), but one whose AF was
//! *just cleared* may still be there from before. Three counters tell the two apart: passes that clear
//! access flags count `begun` before their first store and `ended` after their last; an invalidation of
//! the whole VMID that read `ended` before it began moves `flushed` there. While `flushed == begun`,
//! old in memory means absent from every TLB. An invalidation already under way when a flag was cleared
//! proves nothing, however late it completes: its `ended` was read too early.
//!
//! A remover decides by the value that its exchange *returned*, and reads `begun` after that exchange. A
//! batch may hold both kinds of leaves: with a proof the young ones are named and the old ones left out.
//! Without one, a single invalidation of the whole VMID serves all and renews the proof, so that after a
//! pass without a flush the first batch pays for all that follow; unless a pass is under way, when no
//! invalidation proves anything and the leaves are named as ever.
//!
//! The objection: Linux left invalidations out by the access flag once, and gave it up. Its ageing issued
//! the invalidation and didn't wait for it. Here `flushed` moves after the last DSB, and loom is shown
//! what happens otherwise.

use crate::batches::Counted;
use crate::hardware::{Env, Tlb};
use crate::leaves::Mask;
use crate::stage2::Stage2;
use crate::sync::{AtomicU64, Ordering, Weakness, barrier, weakened};
use verdigris_abi::Stat;

/// The counters of one VM.
pub struct Epoch {
    begun: AtomicU64,
    ended: AtomicU64,
    flushed: AtomicU64,
}

/// What an invalidation of the whole VMID will have proved once it is complete.
#[derive(Clone, Copy, Debug)]
pub struct Proof(u64);

impl Epoch {
    /// Makes the epoch of a new VM: nothing ever aged, nothing to flush.
    pub fn new() -> Self {
        Self { begun: AtomicU64::new(0), ended: AtomicU64::new(0), flushed: AtomicU64::new(0) }
    }

    /// Begins a pass that is about to clear its first access flag.
    pub fn begin_pass(&self) {
        if weakened(Weakness::AgeUncounted) {
            return;
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        // A remover that takes one of the leaves as this pass left it reads this count, or a later one.
        barrier(Ordering::SeqCst, Weakness::PassBarrier);
    }

    /// Ends a pass after its last store, also one that returns early.
    pub fn end_pass<T: Tlb>(&self, tlb: &T) {
        if weakened(Weakness::AgeUncounted) {
            return;
        }
        if weakened(Weakness::EndRelaxed) {
            self.ended.fetch_add(1, Ordering::Relaxed);
            return;
        }
        tlb.dsb_ishst();
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// Notes, *before* the barrier that precedes an invalidation of the whole VMID, what it will prove.
    pub fn before_flush(&self) -> Proof {
        Proof(self.ended.load(Ordering::Acquire))
    }

    /// Takes note that an invalidation of the whole VMID is complete.
    pub fn flushed(&self, proof: Proof) {
        self.flushed.fetch_max(proof.0, Ordering::AcqRel);
    }

    /// Tells whether an invalidation of the whole VMID that begins now would prove anything: not while a
    /// pass is under way.
    pub fn can_be_proved(&self) -> bool {
        let begun = self.begun.load(Ordering::Relaxed);
        self.ended.load(Ordering::Relaxed) == begun
    }

    /// Tells whether a leaf that a remover's exchange just returned old is in no TLB.
    ///
    /// To be asked after that exchange, never before: the exchange itself may be relaxed.
    pub fn proves_absence(&self) -> bool {
        if weakened(Weakness::OldIsAbsent) || weakened(Weakness::ProofIgnored) {
            return weakened(Weakness::OldIsAbsent);
        }
        barrier(Ordering::Acquire, Weakness::FoundBarrier);
        let begun = self.begun.load(Ordering::Acquire);
        self.flushed.load(Ordering::Acquire) == begun
    }
}

impl Stage2 {
    /// Invalidates the whole VM once, so that from here on old means absent; not at all if the epoch
    /// proves that already.
    pub fn flush_epoch<E: Env>(&self, env: &E) {
        if !self.epoch.proves_absence() {
            self.flush_all(env);
        }
    }

    /// Invalidates what one batch took away, or took the permission to write from; complete when it
    /// returns.
    ///
    /// Of `all`, the leaves in `young` had their access flag set in the value that the exchange
    /// *returned*. The others are old, and left out where the epoch proves them absent from every TLB.
    pub(crate) fn flush_taken<E: Env>(&self, env: &E, own: &Counted<'_>, all: Mask, young: u64) {
        let old = all.bits & !young;
        let proven = self.config.skip && old != 0 && self.epoch.proves_absence();
        let left_out = if proven { old } else { 0 };
        let left_out = if weakened(Weakness::YoungIsAbsent) { left_out | young } else { left_out };
        let named = Mask { bits: all.bits & !left_out, ..all };
        if named.bits == 0 {
            // What was taken is gone for every walk that begins after this.
            env.dsb_ish();
        } else if self.config.skip && old & named.bits != 0 && self.epoch.can_be_proved() {
            self.flush_all(env);
        } else {
            self.flush(env, own, named.spans());
        }
        env.count(Stat::FlushesSkipped, u64::from(left_out.count_ones()));
        env.count(Stat::FlushesDone, named.count());
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}
