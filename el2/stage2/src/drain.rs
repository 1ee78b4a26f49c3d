//! Drain: the leaves of a table that is unlinked and invalidated, reported 64 at a time.
//!
//! A last-level table has up to 512 leaves, and each may have to be cleaned from the caches: too many
//! between two looks at interrupts. But once unlinked, the table can't be found again by a walk. So a
//! call that an interrupt stops in the middle *parks* the table, in a list of the VM; and each call that
//! takes something away first goes on with what is parked, whoever left it there. The call's progress
//! stays before the leaves that are left: what it reports as done has given its shares back.
//!
//! List and position stand in the table itself, in its first two entries, whose leaves are taken by
//! then. Both are page addresses: bit 0 and bit 10 are clear, and they read as old, invalid entries.

use crate::descriptor::{Descriptor, Level};
use crate::hardware::{Env, Removed};
use crate::limbo::List;
use crate::memory::{TableMemory, TablePage};
use crate::range::Range;
use crate::stage2::{BATCH, Stage2};
use crate::sync::Lock;
use verdigris_abi::Ipa;

/// Tables whose leaves are yet to be reported.
pub struct Parked {
    lock: Lock,
    list: List,
}

/// A table on its way out, and what its next leaf translates.
pub(crate) struct Drain {
    table: TablePage,
    next: Ipa,
}

impl Parked {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self { lock: Lock::new(), list: List::new() }
    }

    /// Tells whether nothing is parked.
    pub fn is_empty(&self) -> bool {
        let _held = self.lock.lock();
        self.list.is_empty()
    }

    fn push<M: TableMemory>(&self, memory: &M, drain: &Drain) {
        let _held = self.lock.lock();
        memory.table(drain.table)[1].replace(Descriptor::link(drain.next.0));
        self.list.push(memory, drain.table);
    }

    fn pop<M: TableMemory>(&self, memory: &M) -> Option<Drain> {
        let _held = self.lock.lock();
        let table = self.list.pop(memory)?;
        let next = Ipa(memory.table(table)[1].read().raw());
        Some(Drain { table, next })
    }
}

impl Default for Parked {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Begins at the first leaf of a last-level table; `start` is what that leaf translates.
    pub(crate) const fn new(table: TablePage, start: Ipa) -> Self {
        Self { table, next: start }
    }

    /// Returns the pages whose leaves are yet to be reported; not asked once the last one is.
    const fn left(&self) -> Range {
        Range { start: self.next.page(), end: Range::span(self.next.page(), Level::L2).end }
    }
}

impl Stage2 {
    /// Goes on with every table that an earlier call parked; what is left of one, if an interrupt came
    /// first.
    pub(crate) fn drain_parked<E: Env>(&self, env: &E) -> Option<Range> {
        core::iter::from_fn(|| self.parked.pop(env)).find_map(|drain| self.drain(env, drain))
    }

    /// Reports the leaves of a table and retires it. If an interrupt comes first, the table is parked,
    /// and the pages whose leaves are yet to be reported are returned. At least one batch is done.
    pub(crate) fn drain<E: Env>(&self, env: &E, mut drain: Drain) -> Option<Range> {
        while !self.drain_batch(env, &mut drain) {
            if env.interrupt_pending() {
                self.parked.push(env, &drain);
                return Some(drain.left());
            }
        }
        self.limbo.retire(env, drain.table);
        None
    }

    /// Takes and reports up to 64 leaves; tells whether they were the last.
    ///
    /// By exchange, as everywhere: a call that overlaps may have found the table before it was
    /// unlinked, and each leaf is to be reported once.
    fn drain_batch<E: Env>(&self, env: &E, drain: &mut Drain) -> bool {
        let level = Level::L3;
        let rest = &env.table(drain.table)[level.index(drain.next.0)..];
        let batch = &rest[..rest.len().min(BATCH as usize)];
        for entry in batch {
            let ipa = drain.next;
            drain.next = Ipa(ipa.0 + level.bytes());
            if !entry.read().is_valid() {
                continue;
            }
            if let Some(old) = entry.take_leaf(level, Descriptor::INVALID) {
                let pa = old.leaf_address(level).expect("a leaf was taken");
                self.report(env, &Removed { ipa, pa, level, old });
            }
        }
        batch.len() == rest.len()
    }
}
