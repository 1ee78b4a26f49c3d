//! Harvest: which pages were written, one bit each; and their next write is noted again.
//!
//! The leaf is the log ([`crate::descriptor`]): a dirty leaf loses the permission to write and keeps the
//! host's grant. Its next write makes it dirty again, by a fault that EL2 answers itself or by the walker.
//! The order makes a copy safe: first clean, then the invalidation, then the answer, then the caller
//! copies. A write that comes before the invalidation is in the copy; one that comes after it marks the
//! leaf. So a leaf that another call has just cleaned counts for this call's end too: it waits for that
//! invalidation, or does it itself.
//!
//! A dirty block is cleaned as a whole, whatever part of it the call asks about. The rest goes to the VM's
//! orphans, *before* the block is cleaned, and a later harvest returns it; a block that was clean then is
//! left alone, and looked at again if it is written now. Splitting the block here would say no more of
//! where it was written, and might find no table page. Who logs the writes of a VM does better to split
//! its blocks first.

use crate::descriptor::{DIRTY, Level};
use crate::entry::Entry;
use crate::gather::Gathered;
use crate::hardware::Env;
use crate::range::{Outcome, Range};
use crate::scan::{Look, WordSink, ones};
use crate::stage2::Stage2;
use crate::sweep::{Harvest, WORD, sweep_all, sweep_word};
use crate::sync::{Weakness, weakened};
use crate::walk::Position;
use verdigris_abi::{Ipa, Stat};

impl Stage2 {
    /// Tells which pages are dirty and makes them clean; `sink` gets words as [`Self::age`] gives them.
    ///
    /// Complete when this returns, for the pages done: a later write is told of by a later harvest, or by
    /// the unmap that takes the page away.
    pub fn harvest<E: Env>(&self, env: &E, range: Range, sink: impl WordSink) -> Outcome {
        let changed = Gathered::new();
        let mut harvesting =
            Harvesting { stage2: self, found_clean: false, changed, is_dense: false };
        let batch = self.batches.begin();
        let pages = self.scan(env, range, &mut harvesting, sink);
        if !weakened(Weakness::HarvestUnflushed) {
            harvesting.changed.flush_changed(env, self, &batch);
        }
        drop(batch);
        if harvesting.found_clean {
            self.finish_others(env, Range { start: range.start, end: range.start + pages });
        }
        env.count(Stat::Harvests, 1);
        env.count(Stat::LeavesDirty, harvesting.changed.leaves());
        Outcome::done(pages)
    }
}

struct Harvesting<'a> {
    stage2: &'a Stage2,
    /// Something came by that was not made clean here, or was noted dirty when another call took the
    /// permission to write, whose invalidation may be under way.
    found_clean: bool,
    changed: Gathered,
    /// The last 64 entries were all dirty.
    is_dense: bool,
}

impl Look for Harvesting<'_> {
    const IS_EXACT: bool = true;
    const WANTED: u64 = DIRTY;

    #[inline(always)]
    fn word<E: Env>(&mut self, env: &E, word: &[Entry; WORD], first: Ipa, level: Level) -> u64 {
        let swept = sweep_word::<Harvest, E>(env, word, self.is_dense);
        self.is_dense = swept.changed() == u64::MAX;
        self.found_clean |= !self.is_dense;
        self.changed.add(first, level, swept)
    }

    fn part<E: Env>(&mut self, _: &E, entries: &[Entry], first: Ipa, level: Level) -> u64 {
        let swept = sweep_all::<Harvest>(entries);
        self.found_clean |= swept.changed() != ones(entries.len() as u64);
        self.changed.add(first, level, swept)
    }

    fn block<E: Env>(&mut self, env: &E, at: &Position<'_>, span: Range, range: Range) -> bool {
        if !at.entry().read().is_dirty() {
            self.found_clean = true;
            return false;
        }
        let remember = || span.without(range).map(|rest| self.stage2.orphans.add(rest));
        let is_late = weakened(Weakness::OrphansLate);
        if !is_late {
            remember();
        }
        let bit = self.part(env, at.entries(1), span.ipa(), at.level) != 0;
        if is_late {
            remember();
        }
        bit
    }

    fn put_off(&mut self, span: Range) {
        self.stage2.orphans.add(span);
    }

    fn pass_blocks(&mut self, _: u64) {
        self.found_clean = true;
    }

    fn pass_hole(&mut self) {
        self.found_clean = true;
    }

    fn says_more(&self) -> bool {
        !self.stage2.orphans.is_empty()
    }

    fn also(&mut self, pages: Range) -> u64 {
        match self.stage2.orphans.take(pages) {
            Some(part) => ones(part.page_count()) << (part.start - pages.start),
            None => 0,
        }
    }
}
