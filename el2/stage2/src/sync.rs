//! Atomics: those of `core`, or loom's in a build with `--cfg loom`.
//!
//! A fence here is a hardware barrier too: on AArch64 `fence(SeqCst)` is `dmb ish` and
//! `fence(Acquire)` is `dmb ishld`. So the barriers of the protocols between CPUs are language-level
//! fences, which loom can check; only what orders the *walker* and TLB invalidations (DSB, ISB, TLBI)
//! goes through the [`crate::hardware::Tlb`] trait.
//!
//! A protocol that can't fail its test proves nothing. So the places that loom and the model rely on ask
//! `weakened` whether to leave a barrier out, to swap two accesses, to skip an invalidation. Outside of
//! loom and of the feature `weakness` the answer is a constant, and the compiler removes the question.

/// An atomic that is changed by read-modify-write alone; see the module `watched`.
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::AtomicU64 as WatchedU64;
#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use watched::{WatchedU64, watch_reads};

#[cfg(loom)]
mod watched;

/// Tells the CPU (or loom's scheduler) that this thread waits for another.
pub fn pause() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// A mistake that a test makes on purpose, to show that it would be found: the first ones under loom, where
/// CPUs interleave; the last ones against the model, where TLBs are lazy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// Map leaves out the barrier between making its counter odd and reading the marks.
    MapBarrier,
    /// Begin leaves out the barrier between raising its mark and reading the counters.
    BeginBarrier,
    /// Map reads the sequence number before the marks.
    MapReadsSwapped,
    /// End lowers its mark before it publishes the sequence number.
    EndStoresSwapped,
    /// The first end of several that share the hull empties it.
    HullGoesEarly,
    /// What clears bits of leaves (ageing, harvest, draining) loads and stores instead of exchanging.
    ClearByStore,
    /// Write-protection stores instead of exchanging.
    ProtectByStore,
    /// An exchange of an entry is a load, a comparison and a store.
    ExchangeByStore,
    /// An exchange of an entry publishes nothing.
    ExchangeRelaxed,
    /// Reading an entry orders nothing.
    ReadRelaxed,
    /// A CPU leaves its gate without a release.
    GateRelaxed,
    /// Begin looks at the gates without an acquire.
    WaitRelaxed,
    /// The number in an exit is read without an acquire.
    SampleRelaxed,
    /// The history writes a range without a barrier after it took the slot's number away.
    HistoryWriterBarrier,
    /// The history reads a slot's number again without a barrier after the range.
    HistoryReaderBarrier,
    /// A lock is let go without a release.
    LockRelaxed,
    /// An access-flag fault stores the flag instead of exchanging it.
    YoungByStore,
    /// A call that finds an entry gone trusts that its invalidation is complete.
    TrustGone,
    /// The same call reads the batches begun before those done.
    GoneReadsSwapped,
    /// Harvest and write-protection answer before the invalidation.
    AnswerEarly,
    /// Harvest and write-protection pass by what is between break and make.
    PassBusy,
    /// Harvest and write-protection trust that the table they looked at is still linked.
    TrustLink,
    /// They trust that a leaf which stands at the end of a look was there all the time.
    TrustLeaf,
    /// What a call found in entries orders nothing that it reads afterwards: the link, batches, the epoch.
    FoundBarrier,
    /// Harvest remembers the rest of a block after it has cleaned it.
    OrphansLate,
    /// A remover trusts that a leaf with a clear access flag is in no TLB.
    OldIsAbsent,
    /// A remover asks for the proof before its exchange.
    ProofBeforeExchange,
    /// A pass leaves out the barrier between its count and its first cleared flag.
    PassBarrier,
    /// A pass ends without a barrier.
    EndRelaxed,
    /// A flush notes how far it proves absence after it was issued, and not before.
    ProofReadLate,
    /// A flush is taken for done before it is complete: the mistake that Linux once made.
    FlushNotAwaited,
    /// A retired table is freed without a look at who was inside EL2.
    FreeAtOnce,
    /// A CPU comes into EL2 without a barrier before it reads a table.
    PresenceBarrier,
    /// Reclaim unlinks a table without a wait for maps under way.
    ReclaimWithoutWait,
    /// Collapse breaks a table off without a wait for maps under way.
    CollapseWithoutWait,
    /// Collapse breaks a table off by an invalid entry, which a fault takes to the host.
    CollapseByInvalid,
    /// Collapse makes the block of the leaves as they were before it broke the table off.
    CollapseFromBefore,
    /// Collapse makes the block whatever was begun or ended meanwhile.
    CollapseUnasked,
    /// A fault that finds nothing doesn't look whether it looked in a table that is gone.
    FaultLooksOnce,
    /// An exact look that finds nothing above the last level doesn't ask whether its table is gone.
    ScanLooksOnce,
    /// A quiet mark drops what was broken before it was raised.
    QuietIsLoud,
    /// Collapse reads the leaves and leaves them as they are.
    CollapseWithoutFreeze,
    /// A split without a break puts its table in place of whatever the block has become.
    SplitByStore,
    /// A split makes what stays of a block whatever was begun or ended meanwhile.
    SplitUnasked,
    /// An invalidation of leaves leaves out those whose access flag was set.
    YoungIsAbsent,
    /// A table is unlinked without an invalidation.
    UnlinkUnflushed,
    /// The invalidation of a table that was unlinked names the level of its leaves.
    UnlinkNamesLevel,
    /// Entries combined with stage 1 are left in the TLBs.
    CombinedStay,
    /// The invalidation that an erratum asks for twice is issued once.
    NoRepeat,
    /// A permission that was added leaves this CPU's TLB as it is.
    RelaxUnflushed,
    /// A harvest answers before its invalidation.
    HarvestUnflushed,
    /// Set makes the new leaf without an invalidation of the old one.
    SetUnflushed,
    /// Ageing isn't counted in the epoch.
    AgeUncounted,
    /// What the epoch proves is invalidated all the same.
    ProofIgnored,
    /// Map doesn't look at the invalidations that are under way or have ended.
    MapUnasked,
    /// Unmap drops final dirty bits.
    DirtyDropped,
    /// The parts of a block that is split are old.
    SplitForgets,
    /// An unmap returns as done what an interrupt kept it from.
    InterruptIsDone,
    /// A leaf that is unmapped is reported twice.
    ReportedTwice,
}

#[cfg(any(loom, feature = "weakness"))]
std::thread_local! {
    static ACTIVE: core::cell::Cell<Option<Weakness>> = const { core::cell::Cell::new(None) };
}

/// Chooses the mistake that code on this thread makes from now on. loom runs its threads on one.
#[cfg(any(loom, feature = "weakness"))]
pub fn weaken(weakness: Option<Weakness>) {
    ACTIVE.set(weakness);
}

/// Tells whether a test asked for that mistake.
#[cfg(any(loom, feature = "weakness"))]
pub fn weakened(weakness: Weakness) -> bool {
    ACTIVE.get() == Some(weakness)
}

/// Tells whether a test asked for that mistake: never, outside of such tests.
#[cfg(not(any(loom, feature = "weakness")))]
#[inline(always)]
pub(crate) const fn weakened(_: Weakness) -> bool {
    false
}

/// Returns the order of an access, or none at all if a loom test asked for that mistake.
#[inline(always)]
pub(crate) fn order(order: Ordering, weakness: Weakness) -> Ordering {
    if weakened(weakness) { Ordering::Relaxed } else { order }
}

/// Is a barrier, unless a loom test asked for that mistake.
#[inline(always)]
pub(crate) fn barrier(order: Ordering, weakness: Weakness) {
    if !weakened(weakness) {
        fence(order);
    }
}

/// A spin lock for a few stores at a time, given in the order in which it is asked for.
///
/// EL2 runs with exceptions masked and holds it for no call, so a holder is always under way, and each CPU waits
/// for at most one turn of every other: a lock that is free for all could pass one CPU by for ever, with its
/// interrupts masked. It protects data that is atomic for its readers; so it guards nothing in the sense of the
/// language.
pub struct Lock {
    /// The ticket that the next one draws.
    next: AtomicU32,
    /// Whose turn it is. The holder alone writes it.
    serving: AtomicU32,
}

impl Lock {
    /// Makes a lock that nobody holds.
    pub fn new() -> Self {
        Self { next: AtomicU32::new(0), serving: AtomicU32::new(0) }
    }

    /// Takes the lock if nobody holds it, or waits for it.
    pub fn try_lock(&self) -> Option<Held<'_>> {
        // A value that is out of date is behind `next`, which never comes back to it.
        let turn = self.serving.load(Ordering::Acquire);
        let after = turn.wrapping_add(1);
        let taken = self.next.compare_exchange(turn, after, Ordering::Relaxed, Ordering::Relaxed);
        taken.ok().map(|_| Held { lock: self, after })
    }

    /// Waits for the lock and takes it.
    pub fn lock(&self) -> Held<'_> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        while self.serving.load(Ordering::Acquire) != ticket {
            pause();
        }
        Held { lock: self, after: ticket.wrapping_add(1) }
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self::new()
    }
}

/// The proof that a [`Lock`] is held; dropping it lets go.
pub struct Held<'a> {
    lock: &'a Lock,
    /// Whose turn is next.
    after: u32,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.lock.serving.store(self.after, order(Ordering::Release, Weakness::LockRelaxed));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    extern crate std;
    use std::sync::Mutex;
    use std::vec::Vec;

    /// Whoever held it last comes after all who wait.
    #[test]
    fn a_lock_is_given_in_the_order_in_which_it_is_asked_for() {
        let (lock, order) = (Lock::new(), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            let held = lock.lock();
            for waiting in 1..=3 {
                let (lock, order) = (&lock, &order);
                scope.spawn(move || {
                    let _held = lock.lock();
                    order.lock().unwrap().push(waiting);
                });
                while lock.next.load(Ordering::Relaxed) != waiting + 1 {
                    std::thread::yield_now();
                }
            }
            assert!(lock.try_lock().is_none());
            drop(held);
            let _held = lock.lock();
            order.lock().unwrap().push(4);
        });
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4]);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn tickets_wrap_round() {
        let start = u32::MAX;
        let lock = Lock { next: AtomicU32::new(start), serving: AtomicU32::new(start) };
        drop(lock.lock());
        drop(lock.try_lock().unwrap());
        assert_eq!(lock.serving.load(Ordering::Relaxed), 1);
    }
}
