//! Limbo: tables that are unlinked, and wait until no CPU can still be walking them in software.
//!
//! The hardware's walks are over when the invalidation is complete. A CPU inside EL2 may still hold a
//! reference, though; but none outlives its stay. So a table is free once every CPU that was inside when
//! a snapshot was taken has left since. Nobody waits for that: a later call looks again.
//!
//! There are two lists, linked through the pages themselves: tables that still have no snapshot, and
//! tables that one snapshot covers. So the memory is bounded, whatever the number of tables.
//!
//! A link stands in the table's first entry. Other CPUs may still read it there: it is a page address,
//! so bit 0 is clear, and it reads as an invalid entry. Nobody overwrites it, because an entry that can
//! be reached changes only by an exchange from what was read (see [`crate::entry`]).

use crate::contract::CPUS;
use crate::descriptor::Descriptor;
use crate::hardware::{Cpus, Env};
use crate::memory::{TableMemory, TablePage};
use crate::sync::{AtomicU64, Lock, Ordering, Weakness, fence, weakened};
use verdigris_abi::Pa;

/// Most pages that one call gives back, so that no call is long for another's sake.
const MAX_FREED: usize = 64;

/// A list of unlinked tables; only read and written under its owner's lock.
pub(crate) struct List(AtomicU64);

impl List {
    /// The end of a list: no page address, and an invalid entry.
    const END: u64 = 1 << 1;

    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Self::END))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::END
    }

    pub(crate) fn push<M: TableMemory>(&self, memory: &M, page: TablePage) {
        let next = self.0.load(Ordering::Relaxed);
        memory.table(page)[0].replace(Descriptor::link(next));
        self.0.store(page.pa().0, Ordering::Relaxed);
    }

    pub(crate) fn pop<M: TableMemory>(&self, memory: &M) -> Option<TablePage> {
        let first = self.0.load(Ordering::Relaxed);
        let page = (first != Self::END).then(|| TablePage::linked(Pa(first)))?;
        self.0.store(memory.table(page)[0].read().raw(), Ordering::Relaxed);
        Some(page)
    }
}

/// The retired tables of one VM.
pub struct Limbo {
    lock: Lock,
    /// Tables that no snapshot covers yet.
    fresh: List,
    /// Tables that were retired before the snapshot.
    waiting: List,
    snapshot: [AtomicU64; CPUS],
}

impl Limbo {
    /// Makes an empty limbo.
    pub fn new() -> Self {
        Self {
            lock: Lock::new(),
            fresh: List::new(),
            waiting: List::new(),
            snapshot: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Retires a table that is unlinked, with the invalidation of its span complete.
    pub fn retire<M: TableMemory>(&self, memory: &M, page: TablePage) {
        let _held = self.lock.lock();
        self.fresh.push(memory, page);
    }

    /// Gives back tables that nobody can hold any more; tells whether none is left.
    ///
    /// The calling CPU counts like any other: what it retires in this stay comes free in a later one.
    pub fn reap<E: Env>(&self, env: &E) -> bool {
        let Some(_held) = self.lock.try_lock() else {
            // Somebody else is at it.
            return false;
        };
        if !self.waiting.is_empty() && self.has_passed(env) {
            for page in core::iter::from_fn(|| self.waiting.pop(env)).take(MAX_FREED) {
                env.free(page);
            }
        }
        if self.waiting.is_empty() && !self.fresh.is_empty() {
            self.take_snapshot(env);
        }
        self.waiting.is_empty() && self.fresh.is_empty()
    }

    /// Takes the snapshot that covers all fresh tables: unlinked, invalidated, `dsb ish`, now this.
    fn take_snapshot<C: Cpus>(&self, cpus: &C) {
        self.waiting.0.store(self.fresh.0.load(Ordering::Relaxed), Ordering::Relaxed);
        self.fresh.0.store(List::END, Ordering::Relaxed);
        // Another CPU may have unlinked; the order of its store and these loads is this CPU's to keep.
        fence(Ordering::SeqCst);
        for cpu in 0..cpus.cpu_count() {
            self.snapshot[cpu].store(cpus.presence(cpu), Ordering::Relaxed);
        }
    }

    /// Tells whether each CPU was outside at the snapshot, or has left since.
    fn has_passed<C: Cpus>(&self, cpus: &C) -> bool {
        weakened(Weakness::FreeAtOnce)
            || (0..cpus.cpu_count()).all(|cpu| {
                let then = self.snapshot[cpu].load(Ordering::Relaxed);
                then.is_multiple_of(2) || cpus.presence(cpu) != then
            })
    }
}

impl Default for Limbo {
    fn default() -> Self {
        Self::new()
    }
}
