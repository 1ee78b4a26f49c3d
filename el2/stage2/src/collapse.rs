//! Collapse: a full table becomes the one block that translates the same.
//!
//! Always by break, invalidate, make, also where the CPU could do without the break. The block must have
//! the last access flags and dirty state of its parts, and the walker may set them up to the invalidation:
//! a block that stood there before would have missed some. In order:
//! 1. look, with nothing raised: a table that isn't full of parts of one block is [`Error::Exists`];
//! 2. take the block's share, raise a quiet mark over its span, wait for the gates: from here on nothing is
//!    linked or mapped in the table, and what is broken there was before;
//! 3. look again, then exchange the table for BUSY, and invalidate its span with the level unknown;
//! 4. *freeze* the leaves, by an exchange each: nobody else changes them any more, and what the exchange
//!    returned is what the block is made from (flags of any part are flags of the block);
//! 5. in a gate, make the block, if no invalidation is under way or has ended since step 3.
//!
//! A frozen entry is BUSY and remembers its leaf. So a write-protection or a harvest that had walked to
//! the table before waits, as it waits for BUSY above: it may not pass by a leaf that comes again. If the
//! parts are found to differ by now (a write-protection was faster), they are thawed and the table is
//! linked again, as it was. If an invalidation came between, nothing may be made: the entry becomes
//! invalid, the leaves are reported as unmapped, and dirty ones are orphans ([`crate::dirty`]), before the
//! entry is invalid. That is progress, as it is for set: the guest faults the rest in again.
//!
//! The mark is lowered without a number. Nothing was taken from the host, so what it looked up before is
//! still good; a map that was refused under the mark goes through when it is tried again. Where no slot is
//! free for the mark, the call is refused. Of two that collapse the same table, the exchange lets one on.
//!
//! One table is the unit of work: up to 512 leaves lie between two looks at pending interrupts.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::flush::{self, Span};
use crate::hardware::{Env, Removed};
use crate::memory::{Table, TablePage};
use crate::range::{Outcome, Range};
use crate::stage2::{Stage2, count_retry};
use crate::sync::{Weakness, pause, weakened};
use crate::walk::{self, Position};
use core::iter::once;
use verdigris_abi::{Error, Ipa, Pa, Stat};

/// What became of a table that was to be collapsed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The block stands in its place.
    Made,
    /// An invalidation came between: nothing is mapped there.
    Dropped,
    /// The table stands as it did.
    Kept(Error),
    /// The same, for an interrupt.
    Interrupted,
}

impl Stage2 {
    /// Makes blocks of `level` from full tables of leaves of the next level; blocks that are there already,
    /// or larger ones, are passed.
    ///
    /// Errors: [`Error::Invalid`], [`Error::NotSupported`]; [`Error::Exists`] for what can't be one block;
    /// [`Error::Retry`] while an invalidation is in the way; [`Error::NotOwner`], [`Error::Limit`].
    pub fn collapse<E: Env>(&self, env: &E, range: Range, level: Level) -> Outcome {
        if let Err(error) = self.check_collapse(range, level) {
            return Outcome::stopped(0, error);
        }
        self.limbo.reap(env);
        let mut page = range.start;
        while page < range.end {
            match self.collapse_block(env, Range::span(page, level), level) {
                Fate::Made | Fate::Dropped => page += level.pages(),
                Fate::Interrupted => break,
                Fate::Kept(error) => {
                    count_retry(env, Some(error));
                    return Outcome::stopped(page - range.start, error);
                }
            }
            if env.interrupt_pending() {
                break;
            }
        }
        Outcome::done(page - range.start)
    }

    fn check_collapse(&self, range: Range, level: Level) -> Result<(), Error> {
        let whole = range.start.is_multiple_of(level.pages())
            && range.page_count().is_multiple_of(level.pages());
        if level == Level::L3 || !whole { Err(Error::Invalid) } else { self.check_level(level) }
    }

    /// Collapses what translates the span of one block.
    fn collapse_block<E: Env>(&self, env: &E, span: Range, level: Level) -> Fate {
        loop {
            let at = walk::find_down_to(env, self.root, span.ipa(), level);
            match at.old.kind(at.level) {
                Kind::Leaf(_) => return Fate::Made,
                Kind::Invalid => return Fate::Kept(Error::Exists),
                // Its maker waits for nobody.
                Kind::Busy => pause(),
                Kind::Table(child) => {
                    let table = env.table(child);
                    return self.collapse_table(env, &Full { at, child, table, span, level });
                }
            }
        }
    }

    /// Collapses a table under a mark of its own, with the block's share taken.
    fn collapse_table<E: Env>(&self, env: &E, full: &Full<'_>) -> Fate {
        let Some(pa) = full.block().and_then(|block| block.leaf_address(full.level)) else {
            return Fate::Kept(Error::Exists);
        };
        if let Err(error) = env.acquire(pa, full.level) {
            return Fate::Kept(error);
        }
        let fate = match self.contract.raise_quiet(full.span) {
            Some(hold) => {
                let fate = self.collapse_under(env, full, pa);
                self.contract.withdraw(hold);
                fate
            }
            None => Fate::Kept(Error::Retry),
        };
        if fate != Fate::Made {
            env.release(pa, full.level);
        }
        fate
    }

    fn collapse_under<E: Env>(&self, env: &E, full: &Full<'_>, pa: Pa) -> Fate {
        if !weakened(Weakness::CollapseWithoutWait) && !self.contract.wait(env) {
            return Fate::Interrupted;
        }
        let sampled = self.contract.sample();
        if !self.may_make(env, full, sampled, |_| {}) {
            return Fate::Kept(Error::Retry);
        }
        let before = full.block();
        if before.and_then(|block| block.leaf_address(full.level)) != Some(pa) {
            return Fate::Kept(Error::Exists);
        }
        if !self.break_table(env, full) {
            return Fate::Kept(Error::Retry);
        }
        let block = match weakened(Weakness::CollapseFromBefore) {
            true => full.freeze().and(before),
            false if weakened(Weakness::CollapseWithoutFreeze) => full.block(),
            false => full.freeze(),
        };
        match block.filter(|block| block.leaf_address(full.level) == Some(pa)) {
            Some(block) => self.make_block(env, full, block, sampled),
            None => self.link_again(env, full, sampled),
        }
    }

    /// Breaks the table off; `false` if another CPU was faster.
    fn break_table<E: Env>(&self, env: &E, full: &Full<'_>) -> bool {
        let batch = self.batches.begin();
        let broken = full.at.entry().exchange(full.at.old, broken()).is_ok();
        if broken {
            self.flush(env, &batch, once(Span::range(full.span)));
        }
        drop(batch);
        broken
    }

    /// Makes the block where the table was broken off, or gives up its leaves.
    fn make_block<E: Env>(
        &self,
        env: &E,
        full: &Full<'_>,
        block: Descriptor,
        sampled: u64,
    ) -> Fate {
        let made = self.may_make(env, full, sampled, |entry| {
            let _ = entry.exchange(broken(), block);
        });
        if !made {
            return self.give_up(env, full);
        }
        flush::publish(env);
        for (index, entry) in full.table.iter().enumerate() {
            entry.replace(Descriptor::INVALID);
            let part = block.part(full.level, index).leaf_address(full.next());
            env.release(part.expect("a part is a leaf"), full.next());
        }
        self.limbo.retire(env, full.child);
        env.count(Stat::BlocksCollapsed, 1);
        Fate::Made
    }

    /// Links the table again, whose leaves have come to differ, or gives them up.
    fn link_again<E: Env>(&self, env: &E, full: &Full<'_>, sampled: u64) -> Fate {
        full.thaw();
        let linked = self.may_make(env, full, sampled, |entry| {
            let _ = entry.exchange(broken(), full.at.old);
        });
        if !linked {
            return self.give_up(env, full);
        }
        flush::publish(env);
        Fate::Kept(Error::Retry)
    }

    /// Leaves nothing where the table was broken off: its leaves are unmapped.
    fn give_up<E: Env>(&self, env: &E, full: &Full<'_>) -> Fate {
        self.orphans.add(full.dirty());
        let _ = full.at.entry().exchange(broken(), Descriptor::INVALID);
        for index in 0..full.table.len() {
            if let Some(leaf) = full.take(index) {
                env.count(Stat::FlushesDone, 1);
                self.report(env, &leaf);
            }
        }
        self.limbo.retire(env, full.child);
        Fate::Dropped
    }

    /// Does something to the broken entry inside a gate, if nothing refuses that it becomes valid.
    fn may_make<E: Env>(
        &self,
        env: &E,
        full: &Full<'_>,
        sampled: u64,
        make: impl FnOnce(&crate::Entry),
    ) -> bool {
        let inside = self.contract.enter(env);
        let may = self.contract.check(&inside, full.span, sampled).lets_make()
            || weakened(Weakness::CollapseUnasked);
        if may {
            make(full.at.entry());
        }
        may
    }
}

/// A table that may be full of the parts of one block.
struct Full<'a> {
    /// The entry that leads to it.
    at: Position<'a>,
    child: TablePage,
    table: &'a Table,
    span: Range,
    /// The level of the block.
    level: Level,
}

impl Full<'_> {
    fn next(&self) -> Level {
        self.level.next().expect("pages are no blocks")
    }

    /// Returns the block that the leaves are the parts of now; `None` if they are of none.
    fn block(&self) -> Option<Descriptor> {
        merge(self.next(), self.table.iter().map(|entry| Some(entry.read())))
    }

    /// Freezes all leaves; returns the block that they amount to, if they are the parts of one.
    fn freeze(&self) -> Option<Descriptor> {
        let frozen =
            |entry: &crate::Entry| entry.update_leaf(self.next(), |old| Some(old.frozen())).ok();
        // To the last, whatever the first ones were.
        let mut leaves = self.table.iter().map(frozen);
        let block = merge(self.next(), &mut leaves);
        leaves.for_each(drop);
        block
    }

    /// Makes leaves of what was frozen.
    fn thaw(&self) {
        for entry in self.table {
            let old = entry.read();
            if let Some(leaf) = old.thawed() {
                let _ = entry.exchange(old, leaf);
            }
        }
    }

    /// Returns a hull of the pages whose leaves, frozen or not, are dirty.
    fn dirty(&self) -> Range {
        let none = Range { start: self.span.start, end: self.span.start };
        let dirty = |&index: &usize| {
            let now = self.table[index].read();
            now.thawed().unwrap_or(now).is_dirty()
        };
        let pages = |index: usize| self.pages(index);
        (0..self.table.len()).filter(dirty).map(pages).reduce(Range::hull).unwrap_or(none)
    }

    fn pages(&self, index: usize) -> Range {
        Range::span(self.span.start + index as u64 * self.next().pages(), self.next())
    }

    /// Takes a leaf away for good, frozen or not; `None` where none stands.
    fn take(&self, index: usize) -> Option<Removed> {
        let entry = &self.table[index];
        let now = entry.read();
        let old = match now.thawed() {
            Some(leaf) => entry.exchange(now, Descriptor::INVALID).ok().map(|()| leaf),
            None => entry.take_leaf(self.next(), Descriptor::INVALID),
        }?;
        let pa = old.leaf_address(self.next())?;
        Some(Removed { ipa: Ipa::from_page(self.pages(index).start), pa, level: self.next(), old })
    }
}

/// Returns what stands in the entry between break and make.
fn broken() -> Descriptor {
    if weakened(Weakness::CollapseByInvalid) { Descriptor::INVALID } else { Descriptor::BUSY }
}

/// Returns the block that all leaves of a table are the parts of: with the access flag and the dirty state
/// of any, and all else the same. Stops at the first that isn't a part.
fn merge(level: Level, mut leaves: impl Iterator<Item = Option<Descriptor>>) -> Option<Descriptor> {
    let is_leaf = |leaf: &Descriptor| leaf.leaf_address(level).is_some();
    let mut block = leaves.next()?.filter(is_leaf)?.whole(level)?;
    let above = level.above()?;
    for (leaf, index) in leaves.zip(1..) {
        let leaf = leaf.filter(is_leaf)?;
        if !leaf.is_same_but_history(block.part(above, index)) {
            return None;
        }
        block = block.with_history_of(leaf);
    }
    Some(block)
}
