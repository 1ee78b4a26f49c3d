//! Unmap, invalidate begin and end: takes a range away, completely before the caller is told.
//!
//! Each call raises its mark (or takes one that stands), waits for the gates, and then strips the range, a
//! step at a time: up to 64 leaves of one table, or one last-level table that lies wholly inside the
//! range, or one block that reaches past it. A step's invalidation is complete before its leaves are
//! reported, and before progress moves past them.
//!
//! A table wholly inside is unlinked first: one exchange and one invalidation of its span, level
//! unknown, since walk caches hold tables. Only then its leaves are taken, still by exchange: another
//! call that overlaps may be at the same leaves, and each leaf must be reported once. The mark and the
//! wait make sure that no map is about to install into it.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::dirty::DirtySink;
use crate::drain::Drain;
use crate::flush::Span;
use crate::hardware::{Env, Removed};
use crate::leaves::Taken;
use crate::memory::TablePage;
use crate::range::{Outcome, Range};
use crate::stage2::Stage2;
use crate::walk::{self, Position};
use core::iter::once;
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Stat};

/// A call's way through its range.
struct Strip {
    /// What the mark covers, and what tables must be inside of.
    range: Range,
    /// The next page.
    page: u64,
    /// Something was found gone that this call didn't invalidate.
    found_gone: bool,
    /// An interrupt came while a table's leaves were reported: the rest of it is parked.
    is_parked: bool,
}

impl Stage2 {
    /// Unmaps a range: begin and end in one. Progress may be 0.
    pub fn unmap<E: Env>(&self, env: &E, range: Range, dirty: &mut impl DirtySink) -> Outcome {
        let _ = dirty.capacity();
        let hold = self.contract.raise(range);
        let reached = self.strip(env, range, range.start);
        self.contract.lower(range, hold);
        Outcome::done(reached - range.start)
    }

    /// Begins an invalidation: marks the whole range, then unmaps. Never fails with good arguments.
    ///
    /// `done` pages of the range are unmapped already, by the caller's word. With `resume` the mark
    /// stands from an earlier call; [`Error::NoEntry`] if it doesn't.
    pub fn invalidate_begin<E: Env>(
        &self,
        env: &E,
        range: Range,
        resume: bool,
        done: u64,
        dirty: &mut impl DirtySink,
    ) -> Outcome {
        let _ = dirty.capacity();
        if done > range.page_count() {
            return Outcome::stopped(0, Error::Invalid);
        }
        let hold =
            if resume { self.contract.take(range) } else { Some(self.contract.raise(range)) };
        let Some(hold) = hold else {
            return Outcome::stopped(0, Error::NoEntry);
        };
        let reached = self.strip(env, range, range.start + done);
        self.contract.leave(hold);
        Outcome::done(reached - range.start)
    }

    /// Ends an invalidation: unmaps what begin left, publishes a number, lowers the mark.
    ///
    /// While it returns less than the whole range the mark stands, and it is to be called again.
    pub fn invalidate_end<E: Env>(
        &self,
        env: &E,
        range: Range,
        done: u64,
        dirty: &mut impl DirtySink,
    ) -> Outcome {
        let _ = dirty.capacity();
        if done > range.page_count() {
            return Outcome::stopped(0, Error::Invalid);
        }
        let Some(hold) = self.contract.take(range) else {
            return Outcome::stopped(0, Error::NoEntry);
        };
        let reached = self.strip(env, range, range.start + done);
        if reached == range.end {
            self.contract.lower(range, hold);
        } else {
            self.contract.leave(hold);
        }
        Outcome::done(reached - range.start)
    }

    /// Unmaps from `page` on, under the range's mark; returns the page that it reached.
    ///
    /// That is past `page`, however soon an interrupt comes, save where another CPU stands in a gate or
    /// a table that another call left parked has to be gone on with.
    fn strip<E: Env>(&self, env: &E, range: Range, page: u64) -> u64 {
        self.limbo.reap(env);
        if page == range.end || !self.contract.wait(env) {
            return page;
        }
        if let Some(left) = self.drain_parked(env) {
            return self.reach_parked(env, range, page, left);
        }
        let mut strip = Strip { range, page, found_gone: false, is_parked: false };
        loop {
            self.strip_step(env, &mut strip);
            // A step that only split a block, or that lost a race, has done no page yet. Few follow on
            // each other: under the mark nothing new comes into the range.
            let may_stop = strip.page > page && env.interrupt_pending();
            if strip.page >= range.end || strip.is_parked || may_stop {
                break;
            }
        }
        let reached = strip.page.min(range.end);
        if strip.found_gone && reached > page {
            self.finish_others(env, Range { start: page, end: reached });
        }
        reached
    }

    /// Returns how far an earlier call's table, parked again, is reported: that much of it is done, if
    /// the way through the range has come to it and nothing was mapped in its place since.
    fn reach_parked<E: Env>(&self, env: &E, range: Range, page: u64, left: Range) -> u64 {
        let at = walk::find_down_to(env, self.root, Ipa::from_page(page), Level::L2);
        let is_gone = matches!(at.old.kind(at.level), Kind::Invalid | Kind::Busy);
        if !is_gone || page >= left.start || !Range::span(page, Level::L2).covers(left) {
            return page;
        }
        let reached = left.start.min(range.end);
        self.finish_others(env, Range { start: page, end: reached });
        reached
    }

    /// Does one step: at most one batch, one table or one block.
    fn strip_step<E: Env>(&self, env: &E, strip: &mut Strip) {
        let before = strip.page;
        let at = walk::find_down_to(env, self.root, Ipa::from_page(before), Level::L2);
        let span = Range::span(before, at.level);
        let inside = strip.range.covers(span);
        match at.old.kind(at.level) {
            Kind::Invalid | Kind::Busy => {
                strip.found_gone = true;
                strip.page = span.end;
            }
            Kind::Table(child) if inside => {
                if self.unlink(env, &at, span) {
                    let left = self.drain(env, Drain::new(child, span.ipa()));
                    strip.is_parked = left.is_some();
                    strip.page = before.max(left.map_or(span.end, |left| left.start));
                }
            }
            Kind::Table(child) => self.strip_pages(env, strip, child),
            Kind::Leaf(_) if inside => self.strip_leaves(env, strip, &at),
            Kind::Leaf(_) => self.split(env, &at, strip.range, span),
        }
        if strip.page > before {
            self.unlink_above(env, strip);
        }
    }

    /// Takes up to 64 pages out of a last-level table that reaches past the range.
    fn strip_pages<E: Env>(&self, env: &E, strip: &mut Strip, child: TablePage) {
        let (table, level) = (env.table(child), Level::L3);
        let index = level.index(strip.page * PAGE_SIZE);
        let old = table[index].read();
        self.strip_leaves(env, strip, &Position { table, index, level, old });
    }

    /// Takes up to 64 leaves away, as far as they lie inside the range and no table comes between.
    ///
    /// Whole leaves: the host may name progress that ends inside a block.
    fn strip_leaves<E: Env>(&self, env: &E, strip: &mut Strip, at: &Position<'_>) {
        let mut span = Range::span(strip.page, at.level);
        let limit = (strip.range.end - span.start) / at.level.pages();
        let mut taken = Taken::new(span.ipa(), at.level);
        self.batches.begin();
        for (index, entry) in at.entries(limit.min(self.batch_leaves(at.level))).iter().enumerate()
        {
            match entry.take_leaf(at.level, Descriptor::INVALID) {
                Some(old) => taken.push(index, old),
                None if matches!(entry.read().kind(at.level), Kind::Table(_)) => break,
                None => strip.found_gone = true,
            }
            strip.page = span.end;
            span = Range::span(span.end, at.level);
        }
        if taken.mask.bits != 0 {
            self.flush_taken(env, taken.mask, taken.young);
        }
        self.batches.finish();
        for leaf in taken.removed() {
            self.report(env, &leaf);
        }
    }

    /// Reports a leaf that was unmapped and whose invalidation is complete.
    pub(crate) fn report<E: Env>(&self, env: &E, leaf: &Removed) {
        env.count(Stat::LeavesUnmapped, 1);
        self.settle(env, leaf);
    }

    /// Gives back the memory behind a leaf that is gone, with its invalidation complete.
    pub(crate) fn settle<E: Env>(&self, env: &E, leaf: &Removed) {
        if !self.config.fwb {
            env.clean_invalidate(leaf.pa, leaf.level.bytes());
        }
        env.removed(leaf);
    }

    /// Unlinks a table inside the range, and invalidates its span; `false` if it is gone.
    fn unlink<E: Env>(&self, env: &E, at: &Position<'_>, span: Range) -> bool {
        self.batches.begin();
        let unlinked = at.entry().exchange(at.old, Descriptor::INVALID).is_ok();
        if unlinked {
            self.flush(env, once(Span::range(span)));
        }
        self.batches.finish();
        unlinked
    }

    /// Unlinks the tables above, once the way through the range has left their spans behind.
    fn unlink_above<E: Env>(&self, env: &E, strip: &Strip) {
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
            let empty = || env.table(child).iter().all(|entry| !entry.read().is_valid());
            if strip.range.covers(span) && empty() && self.unlink(env, &at, span) {
                self.limbo.retire(env, child);
            }
        }
    }
}
