//! The contract with the host: no map gets past an invalidation that is unfinished or came later.
//!
//! The host takes pages away at any time, while other CPUs map pages for faults whose answer was
//! looked up before. Three things keep them apart, without a lock that both take:
//! - **marks**: the ranges of invalidations that have begun and not ended, each held by the call that is
//!   at work under it, or standing until the host's next;
//! - **sequence**: a number that each end increases, with a bounded memory of the ranges;
//! - **gates**: a counter for each CPU, odd while it makes entries valid.
//!
//! Two pairs of accesses carry the proof. *Counter and mark*: map makes its counter odd and then reads
//! the marks; begin raises its mark and then reads the counters, a full barrier between in both. So
//! either map sees the mark and gives up, or begin sees the odd counter, waits, and finds what map
//! installed. *Sequence and mark*: end publishes and then lowers; map reads the marks and then the
//! sequence. So a map that sees no mark any more sees the number that refuses it.
//!
//! Calls that take nothing from the host (collapse, reclaim) raise *quiet* marks. They keep maps out of a
//! table that is about to go, as begin does, and are lowered without a number. What was broken before one
//! was raised may be made under it: such a table is left alone. So no mapping is dropped for their sake.
//!
//! The number in an exit is sampled before the host looks at its page tables; what the host saw after
//! that sample is at least as new as every invalidation that the number counts.
//!
//! The writers of marks and history are serialised by a lock held for a few stores; nobody waits for
//! anything else while holding it, and map doesn't take it.

mod gate;
mod history;
mod marks;

pub(crate) use gate::CPUS;
pub use gate::{Gates, Passage};
use history::{History, Memory};
use marks::{Marks, Overlap};

use crate::hardware::Cpus;
use crate::range::Range;
use crate::sync::{Lock, Ordering, Weakness, barrier, fence, weakened};

/// Whether a map may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No invalidation of the range since the number was taken.
    Clear,
    /// An invalidation of the range is in progress, or ended since.
    Refused,
    /// Refused only because more invalidations ended since than are remembered.
    Forgotten,
    /// Not now: a call that changes the shape of the tables there is at work, and done soon.
    Paused,
}

impl Verdict {
    /// Tells whether what the caller broke may be made again, if it broke it in a gate with a clear verdict.
    ///
    /// A quiet mark may have been raised since. Whoever did waited for that gate, found the broken entry,
    /// and leaves its table alone.
    pub fn lets_make(self) -> bool {
        self == Self::Clear || self == Self::Paused && !weakened(Weakness::QuietIsLoud)
    }
}

/// A call's hold on the mark that it works under: nobody else can lower it meanwhile.
#[must_use]
#[derive(Debug)]
pub struct Hold(usize);

impl Hold {
    /// Comes between the mark and the counters: raised here, or by another CPU that may not have come
    /// to its own barrier yet.
    fn new(slot: usize) -> Self {
        barrier(Ordering::SeqCst, Weakness::BeginBarrier);
        Self(slot)
    }
}

/// Marks, sequence and gates of one VM.
pub struct Contract {
    lock: Lock,
    marks: Marks,
    history: History,
    gates: Gates,
}

impl Contract {
    /// Makes the contract of a new VM: nothing begun, sequence number 0.
    pub fn new() -> Self {
        Self {
            lock: Lock::new(),
            marks: Marks::new(),
            history: History::new(),
            gates: Gates::new(),
        }
    }

    /// Returns the sequence number for an exit, by load-acquire: before the host looks.
    pub fn sample(&self) -> u64 {
        self.history.sample()
    }

    /// Raises a mark over the range, held by the call: from here on map is refused there.
    ///
    /// Maps already under way may still go through until [`Self::wait`] returned `true`.
    pub fn raise(&self, range: Range) -> Hold {
        let slot = {
            let _held = self.lock.lock();
            self.marks.raise(range)
        };
        Hold::new(slot)
    }

    /// Takes hold of the mark of an earlier begin; `None` if none for that range stands.
    pub fn take(&self, range: Range) -> Option<Hold> {
        let slot = {
            let _held = self.lock.lock();
            self.marks.take(range)
        };
        slot.map(Hold::new)
    }

    /// Leaves a mark standing, for a later call to take.
    pub fn leave(&self, hold: Hold) {
        let _held = self.lock.lock();
        self.marks.leave(hold.0);
    }

    /// Waits until no other CPU is in a gate that it entered before; `false` if an interrupt came first.
    ///
    /// Every call waits anew. That costs one load a CPU, and nothing that the caller claims to have
    /// done before has to be believed.
    pub fn wait<C: Cpus>(&self, cpus: &C) -> bool {
        self.gates.wait(cpus)
    }

    /// Publishes a new sequence number for the range, and only then lowers its mark.
    pub fn lower(&self, range: Range, hold: Hold) {
        let _held = self.lock.lock();
        if weakened(Weakness::EndStoresSwapped) {
            self.marks.lower(hold.0);
            return self.history.publish(range);
        }
        self.history.publish(range);
        fence(Ordering::SeqCst);
        self.marks.lower(hold.0);
    }

    /// Raises a quiet mark over the range: map is refused there, and what is between break and make isn't.
    ///
    /// For a call that takes nothing from the host and needs that nothing is linked or mapped in a table
    /// that it found, once [`Self::wait`] returned `true`. `None` while all slots are taken.
    pub fn raise_quiet(&self, range: Range) -> Option<Hold> {
        let slot = {
            let _held = self.lock.lock();
            self.marks.raise_quiet(range)
        };
        slot.map(Hold::new)
    }

    /// Lowers a quiet mark. What the host looked up before is as good as it was: no number is published.
    pub fn withdraw(&self, hold: Hold) {
        let _held = self.lock.lock();
        self.marks.lower(hold.0);
    }

    /// Enters the calling CPU's gate: until the passage is dropped it may make entries valid, and must
    /// take no lock, wait for no other CPU and call no other firmware.
    pub fn enter<C: Cpus>(&self, cpus: &C) -> Passage<'_> {
        self.gates.enter(cpus.this_cpu())
    }

    /// Tells, inside a gate, whether entries of `range` may be made valid, or broken to be made again, for a
    /// number sampled before.
    pub fn check(&self, inside: &Passage<'_>, range: Range, sampled: u64) -> Verdict {
        self.check_but(inside, range, sampled, None)
    }

    /// Tells the same to a call that holds a mark over the range itself, which doesn't count.
    ///
    /// The hull is never one call's own: who holds that is refused.
    pub fn check_under(
        &self,
        inside: &Passage<'_>,
        range: Range,
        sampled: u64,
        own: &Hold,
    ) -> Verdict {
        if marks::is_hull(own.0) {
            return Verdict::Refused;
        }
        self.check_but(inside, range, sampled, Some(own.0))
    }

    fn check_but(
        &self,
        _inside: &Passage<'_>,
        range: Range,
        sampled: u64,
        own: Option<usize>,
    ) -> Verdict {
        if weakened(Weakness::MapUnasked) {
            return Verdict::Clear;
        }
        let early = weakened(Weakness::MapReadsSwapped).then(|| self.history.sample());
        let overlap = self.marks.overlap(range, own);
        if overlap == Overlap::Loud {
            return Verdict::Refused;
        }
        let now = early.unwrap_or_else(|| self.history.sample());
        match self.history.since(range, sampled, now) {
            Memory::Nothing if overlap == Overlap::Quiet => Verdict::Paused,
            Memory::Nothing => Verdict::Clear,
            Memory::Overlap => Verdict::Refused,
            Memory::Unknown => Verdict::Forgotten,
        }
    }
}

impl Default for Contract {
    fn default() -> Self {
        Self::new()
    }
}
