//! Unmap, invalidate begin and end: takes a range away, completely before the caller is told.
//!
//! Each call raises its mark (or takes one that stands), waits for the gates, and then strips the range, a
//! step at a time: up to 64 leaves of one table, or one last-level table that lies wholly inside the
//! range, or one block that reaches past it. A step's invalidation is complete before its leaves are
//! reported, and before progress moves past them.
//!
//! A table wholly inside is unlinked first: one exchange and one invalidation of its span, level
//! unknown, since walk caches hold tables. Only then its leaves are taken (see [`crate::drain`]). The mark
//! and the wait make sure that no map is about to install into it.
//!
//! Single leaves are invalidated as the flush epoch allows: those whose access flag was clear in the value
//! that the exchange returned, not at all where it proves them absent. Tables always are.
//!
//! A call that wants dirty bits works in a *window*: as many pages as its answer has bits for. A table or
//! block that ends past the window is left for the next call; where that would be no progress, it is
//! taken apart at the window's end.

use crate::contract::Hold;
use crate::descriptor::{Descriptor, Kind, Level};
use crate::dirty::{DirtySink, Orphans};
use crate::entry::Entry;
use crate::hardware::{Counters, Env, Removed};
use crate::leaves::{Mask, Taken};
use crate::memory::{Table, TableMemory, TablePage};
use crate::range::{Outcome, Range};
use crate::stage2::Stage2;
use crate::sweep::GROUP;
use crate::sync::{Ordering, Weakness, fence, weakened};
use crate::walk::{self, Position};
use core::iter::once;
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Stat};

use crate::flush::Span;

/// A call's way through its range.
pub(crate) struct Strip<'a, S> {
    /// What the mark covers, and what tables must be inside of.
    range: Range,
    /// What of it this call takes leaves from.
    pub(crate) window: Range,
    /// The next page.
    pub(crate) page: u64,
    /// Something was found gone that this call didn't invalidate.
    found_gone: bool,
    /// An interrupt is pending, or the answer is full.
    pub(crate) is_stopped: bool,
    dirty: &'a mut S,
    /// The mark that the call works under.
    hold: &'a Hold,
    counts: Counts,
}

/// What a call has done so far, for the statistics: they are brought up to date at its end.
#[derive(Default)]
struct Counts {
    leaves: u64,
    pages: u64,
    /// Leaves that were invalidated by what was done for a table or block around them.
    flushed: u64,
    dirty: u64,
}

/// How an entry's span lies to a call's range and window.
enum Fit {
    /// Inside: it may go at once.
    Whole,
    /// Only a part may go.
    Part,
    /// For the next call.
    Later,
}

impl Stage2 {
    /// Unmaps a range: begin and end in one. Progress may be 0.
    ///
    /// The final dirty bits of the pages done go to `dirty`, by their distance from `range.start`.
    pub fn unmap<E: Env>(&self, env: &E, range: Range, dirty: &mut impl DirtySink) -> Outcome {
        let hold = self.contract.raise(range);
        let reached = self.strip(env, range, range.start, &hold, dirty);
        self.contract.lower(range, hold);
        Outcome::done(reached - range.start)
    }

    /// Begins an invalidation: marks the whole range, then unmaps. Never fails with good arguments.
    ///
    /// `done` pages of the range are unmapped already, by the caller's word. With `resume` the mark
    /// stands from an earlier call; [`Error::NoEntry`] if it doesn't. Bit 0 for `dirty` is page `done`.
    pub fn invalidate_begin<E: Env>(
        &self,
        env: &E,
        range: Range,
        resume: bool,
        done: u64,
        dirty: &mut impl DirtySink,
    ) -> Outcome {
        if done > range.page_count() {
            return Outcome::stopped(0, Error::Invalid);
        }
        let hold =
            if resume { self.contract.take(range) } else { Some(self.contract.raise(range)) };
        let Some(hold) = hold else {
            return Outcome::stopped(0, Error::NoEntry);
        };
        let reached = self.strip(env, range, range.start + done, &hold, dirty);
        self.contract.leave(hold);
        Outcome::done(reached - range.start)
    }

    /// Ends an invalidation: unmaps what begin left, publishes a number, lowers the mark.
    ///
    /// While it returns less than the whole range the mark stands, and it is to be called again. Bit 0
    /// for `dirty` is page `done`.
    pub fn invalidate_end<E: Env>(
        &self,
        env: &E,
        range: Range,
        done: u64,
        dirty: &mut impl DirtySink,
    ) -> Outcome {
        if done > range.page_count() {
            return Outcome::stopped(0, Error::Invalid);
        }
        let Some(hold) = self.contract.take(range) else {
            return Outcome::stopped(0, Error::NoEntry);
        };
        let reached = self.strip(env, range, range.start + done, &hold, dirty);
        if reached == range.end {
            self.contract.lower(range, hold);
        } else {
            self.contract.leave(hold);
        }
        Outcome::done(reached - range.start)
    }

    /// Unmaps from `page` on, under the range's mark; returns the page that it reached.
    ///
    /// That is past `page`, however soon an interrupt comes, save where another CPU stands in a gate.
    fn strip<E: Env>(
        &self,
        env: &E,
        range: Range,
        page: u64,
        hold: &Hold,
        dirty: &mut impl DirtySink,
    ) -> u64 {
        self.limbo.reap(env);
        if page == range.end || !self.contract.wait(env) {
            return page;
        }
        let mut strip = Strip::new(range, page, hold, dirty);
        while strip.page < strip.window.end && !strip.is_stopped {
            self.strip_step(env, &mut strip);
            // A step that only split a block, or that lost a race, has done no page yet. Few follow on
            // each other: under the mark nothing new comes into the range.
            strip.is_stopped |= strip.page > page && env.interrupt_pending();
        }
        // Tables may be empty now that the search for them has passed.
        self.search.restart();
        strip.publish_counts(env);
        let reached = strip.page.min(strip.window.end);
        if strip.found_gone && reached > page {
            self.finish_others(env, Range { start: page, end: reached });
        }
        reached
    }

    /// Does one step: at most one batch, one table or one block.
    fn strip_step<E: Env>(&self, env: &E, strip: &mut Strip<impl DirtySink>) {
        let before = strip.page;
        let at = walk::find_down_to(env, self.root, Ipa::from_page(before), Level::L2);
        let span = Range::span(before, at.level);
        match (at.old.kind(at.level), strip.fit(span)) {
            (Kind::Invalid | Kind::Busy, _) => {
                strip.found_gone = true;
                self.pass(env, strip, span.end, true);
            }
            (_, Fit::Later) => strip.is_stopped = true,
            (Kind::Table(child), Fit::Whole) => {
                if self.unlink(env, &at, span) {
                    self.drain(env, strip, child, span);
                }
            }
            (Kind::Table(child), Fit::Part) => self.strip_pages(env, strip, child),
            (Kind::Leaf(_), Fit::Whole) => self.strip_leaves(env, strip, &at),
            (Kind::Leaf(_), Fit::Part) => self.strip_block(env, strip, &at, span),
        }
        if strip.page > before {
            self.unlink_above(env, strip);
        }
    }

    /// Takes up to 64 pages out of a last-level table that reaches past the range or the window.
    fn strip_pages<E: Env>(&self, env: &E, strip: &mut Strip<impl DirtySink>, child: TablePage) {
        let (table, level) = (env.table(child), Level::L3);
        let index = level.index(strip.page * PAGE_SIZE);
        let old = table[index].read();
        self.strip_leaves(env, strip, &Position { table, index, level, old });
    }

    /// Takes up to 64 leaves away, as far as they lie inside the window and no table comes between.
    ///
    /// Whole leaves: the host may name progress that ends inside a block.
    fn strip_leaves<E: Env>(&self, env: &E, strip: &mut Strip<impl DirtySink>, at: &Position<'_>) {
        let first = Range::span(strip.page, at.level);
        let limit = (strip.window.end - first.start) / at.level.pages();
        let entries = at.entries(limit.min(self.batch_leaves(at.level)));
        let mut taken = Taken::new(first.ipa(), at.level);
        let batch = self.batches.begin();
        let early = weakened(Weakness::ProofBeforeExchange) && self.epoch.proves_absence();
        let passed = taken.take(entries);
        strip.found_gone |= taken.mask.count() < passed;
        if taken.mask.bits != 0 {
            let left_out = if early { !taken.young } else { 0 };
            let bits = taken.mask.bits & !left_out;
            self.flush_taken(env, &batch, Mask { bits, ..taken.mask }, taken.young);
        }
        drop(batch);
        strip.count_taken(taken.mask.count(), at.level.pages(), 0);
        self.settle_taken(env, &taken);
        if weakened(Weakness::ReportedTwice) {
            self.settle_taken(env, &taken);
        }
        strip.note_leaves(&self.orphans, Mask { bits: taken.dirty, ..taken.mask });
        let end = first.start + passed * at.level.pages();
        if end > strip.page {
            self.pass(env, strip, end, false);
        }
    }

    /// Takes the part inside out of a block that reaches past the range or the window, and moves past it:
    /// what the answer says is never ahead of the progress.
    fn strip_block<E: Env>(
        &self,
        env: &E,
        strip: &mut Strip<impl DirtySink>,
        at: &Position<'_>,
        span: Range,
    ) {
        let inside = strip.first_hole(at.level);
        let Some((block, gone)) = self.split(env, at, inside, span, strip.hold) else {
            return;
        };
        strip.count_taken(1, gone.page_count(), 1);
        if block.old.is_dirty() && gone.page_count() != 0 {
            strip.counts.dirty += 1;
            strip.note(&self.orphans, gone);
        }
        self.settle(env, block.level, once(block));
        if gone.start <= strip.page && strip.page < gone.end {
            self.pass(env, strip, gone.end.min(strip.window.end), false);
        }
    }

    /// Reports a leaf that was unmapped and whose invalidation is complete.
    pub(crate) fn report<E: Env>(&self, env: &E, leaf: &Removed) {
        env.count(Stat::LeavesUnmapped, 1);
        env.count(Stat::PagesMapped, leaf.level.pages().wrapping_neg());
        self.settle(env, leaf.level, once(*leaf));
    }

    /// Gives back the memory behind leaves of a batch.
    fn settle_taken<E: Env>(&self, env: &E, taken: &Taken) {
        // A loop for each level, as for taking them.
        match taken.mask.level {
            Level::L3 => self.settle(env, Level::L3, taken.removed(Level::L3)),
            Level::L2 => self.settle(env, Level::L2, taken.removed(Level::L2)),
            level => self.settle(env, level, taken.removed(level)),
        }
    }

    /// Gives back the memory behind leaves that are gone, with their invalidation complete.
    #[inline(always)]
    pub(crate) fn settle<E: Env>(
        &self,
        env: &E,
        level: Level,
        leaves: impl Iterator<Item = Removed>,
    ) {
        let (mut batch, fwb) = (env.batch(level), self.config.fwb);
        for leaf in leaves {
            if !fwb {
                env.clean_invalidate(leaf.pa, level.bytes());
            }
            env.removed(&mut batch, &leaf);
        }
    }

    /// Unlinks a table inside the range, and invalidates its span; `false` if it is gone.
    pub(crate) fn unlink<E: Env>(&self, env: &E, at: &Position<'_>, span: Range) -> bool {
        let batch = self.batches.begin();
        let unlinked = at.entry().exchange(at.old, Descriptor::INVALID).is_ok();
        if unlinked && !weakened(Weakness::UnlinkUnflushed) {
            let guessed = weakened(Weakness::UnlinkNamesLevel).then_some(Level::L3);
            self.flush(env, &batch, once(Span { level: guessed, ..Span::range(span) }));
        }
        drop(batch);
        unlinked
    }

    /// Unlinks the tables above, once the way through the range has left their spans behind.
    fn unlink_above<E: Env>(&self, env: &E, strip: &Strip<impl DirtySink>) {
        // The first page of all has nothing before it.
        let Some(last) = strip.page.checked_sub(1) else {
            return;
        };
        let start = self.root.geometry().start_level();
        for level in [Level::L1, Level::L0].into_iter().filter(|&level| level >= start) {
            if !strip.page.is_multiple_of(level.pages()) {
                return;
            }
            let span = Range::span(last, level);
            let at = walk::find_down_to(env, self.root, span.ipa(), level);
            let Kind::Table(child) = at.old.kind(at.level) else {
                continue;
            };
            // Who is between break and make here may have dirty bits to tell of, which a harvest waits for.
            let empty = || is_empty(env, env.table(child));
            if strip.range.covers(span) && empty() && self.unlink(env, &at, span) {
                self.limbo.retire(env, child);
            }
        }
    }
}

/// Tells whether nothing stands in a table, not even what is about to be made; where nothing comes any more.
fn is_empty<M: TableMemory>(memory: &M, table: &Table) -> bool {
    let (groups, rest) = table.as_chunks();
    let any = |group: &[Entry; GROUP]| memory.any_bits(group) != 0;
    let empty =
        !groups.iter().any(any) && rest.iter().all(|entry| entry.read() == Descriptor::INVALID);
    // The groups are read in no order: what those who emptied them did before comes before what follows.
    fence(Ordering::Acquire);
    empty
}

impl<'a, S: DirtySink> Strip<'a, S> {
    fn new(range: Range, page: u64, hold: &'a Hold, dirty: &'a mut S) -> Self {
        let window = match dirty.capacity() {
            0 => Range { start: page, end: range.end },
            capacity => Range { start: page, end: range.end.min(page.saturating_add(capacity)) },
        };
        Self {
            range,
            window,
            page,
            found_gone: false,
            is_stopped: false,
            dirty,
            hold,
            counts: Counts::default(),
        }
    }

    fn fit(&self, span: Range) -> Fit {
        let is_inside = self.range.covers(span);
        let answer_ends_first = self.window.end < span.end.min(self.range.end);
        match (is_inside, answer_ends_first) {
            (true, false) => Fit::Whole,
            (true, true) if self.page > self.window.start => Fit::Later,
            _ => Fit::Part,
        }
    }

    /// Tells whether the caller asked for dirty bits.
    pub(crate) fn wants_bits(&self) -> bool {
        self.dirty.capacity() != 0
    }

    /// Returns what to take out of a block of `level` at the next page: all of it that may go, or nothing
    /// yet where the first part is itself a block of which something stays.
    fn first_hole(&self, level: Level) -> Range {
        let all = Range { start: self.range.start, end: self.window.end };
        let first = Range::span(self.page, level.next().unwrap_or(level));
        if all.start > first.start { Range { end: all.end.min(first.end), ..all } } else { all }
    }

    /// Counts leaves that are gone, of so many pages each, and how many of them need no word more.
    pub(crate) fn count_taken(&mut self, leaves: u64, pages_each: u64, flushed: u64) {
        self.counts.leaves += leaves;
        self.counts.pages += leaves * pages_each;
        self.counts.flushed += flushed;
    }

    fn publish_counts<C: Counters>(&self, counters: &C) {
        let Counts { leaves, pages, flushed, dirty } = self.counts;
        counters.count(Stat::LeavesUnmapped, leaves);
        counters.count(Stat::PagesMapped, pages.wrapping_neg());
        counters.count(Stat::FlushesDone, flushed);
        counters.count(Stat::LeavesDirty, dirty);
    }

    /// Reports leaves that are gone and were dirty.
    pub(crate) fn note_leaves(&mut self, orphans: &Orphans, dirty: Mask) {
        if dirty.bits == 0 || weakened(Weakness::DirtyDropped) {
            return;
        }
        self.counts.dirty += dirty.count();
        let start = dirty.start.page();
        if dirty.level == Level::L3 && self.window.start <= start {
            // Most: a word as it is. Nobody takes it where no bits are wanted.
            return self.dirty.dirty(start - self.window.start, dirty.bits);
        }
        if self.dirty.capacity() == 0 && self.range.covers(dirty.hull()) {
            return;
        }
        for index in dirty.indices() {
            self.note(orphans, Range::span(dirty.ipa(index).page(), dirty.level));
        }
    }

    /// Reports pages that are gone and were dirty: in the answer, or as orphans where they have no bit
    /// in it although nobody said that none are wanted.
    fn note(&mut self, orphans: &Orphans, pages: Range) {
        let wanted = self.wants_bits();
        let asked = if wanted { self.window } else { self.range };
        orphans.add(Range { start: pages.start, end: pages.end.min(asked.start) });
        orphans.add(Range { start: pages.start.max(asked.end), end: pages.end });
        let mut page = pages.start.max(asked.start);
        let end = pages.end.min(asked.end);
        while wanted && page < end {
            let count = (end - page).min(64);
            self.dirty.dirty(page - self.window.start, u64::MAX >> (64 - count));
            page += count;
        }
    }
}
