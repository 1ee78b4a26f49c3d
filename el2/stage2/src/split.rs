//! Split: a block becomes a table of what it translated, whole or with a hole.
//!
//! Two callers: an invalidation that ends inside a block keeps the rest as a table; and a call splits the
//! blocks of a range before there is need ([`Stage2::split_range`]). The table is filled from the very
//! value that the entry was exchanged from, so access flag, dirty state and software bits carry over.
//!
//! **Break, invalidate, make** is the rule. Between break and make the entry is [`Descriptor::BUSY`], so
//! that faults on the rest are retried and not taken to the host. The make half makes an invalid entry
//! valid, so it stands in a gate like any map, against the number that was sampled *before* the break:
//! if another invalidation of the rest began since, the rest stays unmapped, and the guest faults it in
//! again.
//!
//! **With FEAT_BBM level 2** ([`crate::Config::bbm2`]) the table takes the block's place by one exchange,
//! and the invalidation comes after it (Arm ARM DDI 0487, D8.16.2): nothing is gone for a moment. A walker
//! that updates the block meanwhile makes the exchange fail, and the table is filled anew; one that comes
//! later updates the table's entries. What a TLB still holds of the block translates the same addresses
//! with the same permissions, until the invalidation is complete. The exchange stands in the gate all the
//! same, since it links a table: whoever takes tables away under a mark relies on that none comes after.
//!
//! Without a free table page (or share) an invalidation takes the whole block: it never fails. A call
//! fails, and has changed nothing.

use crate::contract::{Hold, Passage, Verdict};
use crate::descriptor::{Descriptor, Kind, Level};
use crate::flush::{self, Span};
use crate::hardware::{Env, Removed};
use crate::memory::TablePage;
use crate::range::{Outcome, Range};
use crate::stage2::{Stage2, count_retry, permit};
use crate::sync::{Weakness, pause, weakened};
use crate::walk::{self, Position};
use core::iter::once;
use verdigris_abi::{Error, Ipa, Pa, Stat};

/// How often a table is filled for a block that others age meanwhile.
const EXCHANGES: u32 = 4;

/// What became of a block that was to be split.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// A table stands in its place.
    Split,
    /// It is gone.
    Dropped,
    /// Another CPU was faster, or is at work there and done soon: look again.
    Raced,
    /// It is as it was: an invalidation of what would stay is under way.
    Refused,
}

impl Stage2 {
    /// Makes leaves of `level` of all larger blocks in a range, and of what of them reaches past it.
    ///
    /// Everything stays mapped as it was. Errors: [`Error::Invalid`] for a level without leaves;
    /// [`Error::NoMemory`], [`Error::Limit`]; [`Error::Retry`] while a block's span is being invalidated, or
    /// a table page is on its way to the pool.
    pub fn split_range<E: Env>(&self, env: &E, range: Range, level: Level) -> Outcome {
        if !self.root.geometry().has_leaves_at(level) {
            return Outcome::stopped(0, Error::Invalid);
        }
        self.limbo.reap(env);
        let mut page = range.start;
        while page < range.end && !(page > range.start && env.interrupt_pending()) {
            match self.split_step(env, page, level) {
                Ok(next) => page = next,
                Err(error) => {
                    count_retry(env, Some(error));
                    return Outcome::stopped(page - range.start, error);
                }
            }
        }
        Outcome::done(page.min(range.end) - range.start)
    }

    /// Does one step: an entry above `level` that has no block is passed, a block is split and stays.
    fn split_step<E: Env>(&self, env: &E, page: u64, level: Level) -> Result<u64, Error> {
        let above = level.above().unwrap_or(level);
        let at = walk::find_down_to(env, self.root, Ipa::from_page(page), above);
        let span = Range::span(page, at.level);
        match at.old.kind(at.level) {
            Kind::Leaf(_) if at.level < level => self.split_whole(env, &at, span).map(|()| page),
            // Its maker waits for nobody, so this wait is short: look again.
            Kind::Busy => {
                pause();
                Ok(page)
            }
            _ => Ok(span.end),
        }
    }

    /// Splits a block that stays mapped as a whole.
    fn split_whole<E: Env>(&self, env: &E, at: &Position<'_>, span: Range) -> Result<(), Error> {
        let nothing = Range { start: span.start, end: span.start };
        let mut split = Split { range: nothing, span, level: at.level, old: at.old, own: None };
        self.permit_split(env, &split)?;
        let page = self.alloc(env).ok_or_else(|| self.out_of_tables(env))?;
        split.share(env).inspect_err(|_| env.free(page))?;
        match self.replace_block(env, at, &mut split, Some(page)) {
            Fate::Split => env.release(split.block().pa, split.level),
            Fate::Dropped => self.report(env, &split.block()),
            Fate::Raced => {}
            Fate::Refused => return Err(Error::Retry),
        }
        Ok(())
    }

    /// Refuses a call on a block that is being invalidated, so that the make half isn't sure to fail.
    fn permit_split<E: Env>(&self, env: &E, split: &Split<'_>) -> Result<(), Error> {
        let inside = self.contract.enter(env);
        permit(env, self.contract.check(&inside, split.span, self.contract.sample()))
    }

    /// Takes the part of a block that is inside `range` away, or all of it where that can't be; returns the
    /// block, for the caller to settle, and the pages that are not mapped any more. `None` if another CPU
    /// was faster.
    ///
    /// `span` is what the block translates. Parts that are themselves blocks and reach past the range
    /// stay whole for now: the caller comes by again. So may what lies past `range` under the caller's
    /// `own` mark, which doesn't count against it: that call takes it away before its mark goes.
    pub(crate) fn split<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        range: Range,
        span: Range,
        own: &Hold,
    ) -> Option<(Removed, Range)> {
        let mut split = Split { range, span, level: at.level, old: at.old, own: Some(own) };
        let shared = |&page: &TablePage| split.share(env).inspect_err(|_| env.free(page)).is_ok();
        let page = self.alloc(env).filter(shared);
        let mut fate = self.replace_block(env, at, &mut split, page);
        if fate == Fate::Refused {
            fate = self.replace_block(env, at, &mut split, None);
        }
        match fate {
            Fate::Split => Some((split.block(), split.hole())),
            Fate::Dropped => Some((split.block(), span)),
            Fate::Raced | Fate::Refused => None,
        }
    }

    /// Puts the table in the block's place, with all shares for it taken; or nothing, without a page.
    ///
    /// Where the table isn't needed after all, page and shares are given back. `split.old` is the block
    /// as it was when it went.
    fn replace_block<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        split: &mut Split<'_>,
        page: Option<TablePage>,
    ) -> Fate {
        let sampled = self.contract.sample();
        let direct = page.filter(|_| self.config.bbm2);
        let batch = self.batches.begin();
        let exchanged =
            direct.and_then(|page| self.exchange_block(env, at, split, sampled, page).transpose());
        let direct = exchanged.is_some();
        let taken = match (exchanged, page) {
            (Some(exchanged), _) => exchanged,
            (None, Some(_)) => self.break_block(env, at, split, sampled),
            (None, None) => split.take(at),
        };
        if taken.is_ok() {
            self.flush(env, &batch, once(Span::leaf(split.span.ipa(), split.level)));
        }
        drop(batch);
        let linked = |page| direct || self.link_table(env, at, split, sampled, page);
        let fate = match taken {
            Err(fate) => fate,
            Ok(()) if page.is_some_and(linked) => Fate::Split,
            Ok(()) => self.drop_block(at, split),
        };
        self.conclude_split(env, split, page, fate);
        fate
    }

    /// Breaks the block, if what stays of it may be made again.
    ///
    /// In a gate: whoever takes tables away under a quiet mark waits for it, and then sees the broken entry.
    fn break_block<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        split: &mut Split<'_>,
        sampled: u64,
    ) -> Result<(), Fate> {
        let inside = self.contract.enter(env);
        self.permit_rest(&inside, split, sampled)?;
        split.take(at)
    }

    /// Exchanges the block for the table, filled from what the block is at that moment. `None` after a few
    /// exchanges that failed, since others age the block as fast as it is touched: the caller breaks it instead,
    /// and each try of that is a few instructions, not a table.
    fn exchange_block<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        split: &mut Split<'_>,
        sampled: u64,
        page: TablePage,
    ) -> Result<Option<()>, Fate> {
        for _ in 0..EXCHANGES {
            split.fill(env, page);
            let inside = self.contract.enter(env);
            self.permit_rest(&inside, split, sampled)?;
            if weakened(Weakness::SplitByStore) {
                at.entry().replace(Descriptor::table(page));
                return Ok(Some(()));
            }
            match at.entry().exchange(split.old, Descriptor::table(page)) {
                Ok(()) => return Ok(Some(())),
                Err(now) if split.is_block(now) => split.old = now,
                Err(_) => return Err(Fate::Raced),
            }
        }
        Ok(None)
    }

    /// Links the table of what stays where the block was broken; `false` if that may not be.
    fn link_table<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        split: &Split<'_>,
        sampled: u64,
        page: TablePage,
    ) -> bool {
        split.fill(env, page);
        let inside = self.contract.enter(env);
        let may = self.rest(&inside, split, sampled).all(Verdict::lets_make);
        let linked = (may || weakened(Weakness::SplitUnasked))
            && at.entry().exchange(Descriptor::BUSY, Descriptor::table(page)).is_ok();
        drop(inside);
        if linked {
            flush::publish(env);
        }
        linked
    }

    /// Leaves nothing where the block was broken. What is dirty and that nobody asked for is an orphan,
    /// before a harvest can find the entry invalid.
    fn drop_block(&self, at: &Position<'_>, split: &Split<'_>) -> Fate {
        if split.old.is_dirty() {
            split.rest().into_iter().flatten().for_each(|rest| self.orphans.add(rest));
        }
        let _ = at.entry().exchange(Descriptor::BUSY, Descriptor::INVALID);
        Fate::Dropped
    }

    /// Tells, inside a gate, whether what of the block is to stay may be broken, or linked as a table.
    fn permit_rest(
        &self,
        inside: &Passage<'_>,
        split: &Split<'_>,
        sampled: u64,
    ) -> Result<(), Fate> {
        let refused = |verdict| match verdict {
            _ if weakened(Weakness::SplitUnasked) => None,
            Verdict::Clear => None,
            Verdict::Paused => Some(Fate::Raced),
            Verdict::Refused | Verdict::Forgotten => Some(Fate::Refused),
        };
        self.rest(inside, split, sampled).find_map(refused).map_or(Ok(()), Err)
    }

    /// Returns the verdict on each part of the block that is to stay.
    fn rest(
        &self,
        inside: &Passage<'_>,
        split: &Split<'_>,
        sampled: u64,
    ) -> impl Iterator<Item = Verdict> {
        split.rest().into_iter().flatten().map(move |rest| match split.own {
            Some(own) => self.contract.check_under(inside, rest, sampled, own),
            None => self.contract.check(inside, rest, sampled),
        })
    }

    /// Counts what happened, and gives back what wasn't used.
    fn conclude_split<E: Env>(
        &self,
        env: &E,
        split: &Split<'_>,
        page: Option<TablePage>,
        fate: Fate,
    ) {
        match fate {
            Fate::Split => env.count(Stat::BlocksSplit, 1),
            Fate::Dropped => env.count(Stat::BlocksDropped, 1),
            Fate::Raced | Fate::Refused => {}
        }
        if let Some(page) = page.filter(|_| fate != Fate::Split) {
            split.unshare(env, split.parts());
            env.free(page);
        }
    }
}

/// A block that is to be split, and what of it goes.
struct Split<'a> {
    /// What goes, if a whole part lies in it.
    range: Range,
    span: Range,
    level: Level,
    old: Descriptor,
    /// The mark of the call that splits, if it holds one.
    own: Option<&'a Hold>,
}

impl Split<'_> {
    fn next(&self) -> Level {
        self.level.next().expect("pages are not split")
    }

    /// Returns the block, for the report that it is gone.
    fn block(&self) -> Removed {
        let pa = self.old.leaf_address(self.level).expect("only leaves are split");
        Removed { ipa: self.span.ipa(), pa, level: self.level, old: self.old }
    }

    /// Tells whether a leaf is the block that the shares were taken for.
    fn is_block(&self, now: Descriptor) -> bool {
        now.leaf_address(self.level) == self.old.leaf_address(self.level)
    }

    /// Breaks the block, and remembers it as it is at that moment.
    fn take(&mut self, at: &Position<'_>) -> Result<(), Fate> {
        let busy = |now| self.is_block(now).then_some(Descriptor::BUSY);
        self.old = at.entry().update_leaf(self.level, busy).map_err(|_| Fate::Raced)?;
        Ok(())
    }

    /// Returns what of the block's span is before and after the range.
    fn rest(&self) -> [Option<Range>; 2] {
        let before = Range { start: self.span.start, end: self.range.start };
        let after = Range { start: self.range.end, end: self.span.end };
        [before, after].map(|rest| (rest.start < rest.end).then_some(rest))
    }

    /// Returns the indices of all parts.
    fn parts(&self) -> core::ops::Range<usize> {
        0..(self.span.page_count() / self.next().pages()) as usize
    }

    /// Tells whether a part stays, at least for now.
    fn keeps(&self, index: usize) -> bool {
        let start = self.span.start + index as u64 * self.next().pages();
        !self.range.covers(Range::span(start, self.next()))
    }

    /// Returns the pages of the parts that don't stay.
    fn hole(&self) -> Range {
        let part = self.next().pages();
        let start = self.range.start.max(self.span.start).next_multiple_of(part);
        let end = self.range.end.min(self.span.end) / part * part;
        Range { start, end: end.max(start) }
    }

    fn part(&self, index: usize) -> Descriptor {
        self.old.part(self.level, index)
    }

    fn pa(&self, index: usize) -> Pa {
        self.part(index).leaf_address(self.next()).expect("a part is a leaf")
    }

    /// Takes a share for each part that stays: all of them, or none.
    fn share<E: Env>(&self, env: &E) -> Result<(), Error> {
        for index in self.parts().filter(|&index| self.keeps(index)) {
            if let Err(error) = env.acquire(self.pa(index), self.next()) {
                self.unshare(env, 0..index);
                return Err(error);
            }
        }
        Ok(())
    }

    fn unshare<E: Env>(&self, env: &E, parts: core::ops::Range<usize>) {
        for index in parts.filter(|&index| self.keeps(index)) {
            env.release(self.pa(index), self.next());
        }
    }

    /// Fills a table that nobody reaches yet; access flag, dirty state and software bits carry over.
    fn fill<E: Env>(&self, env: &E, page: TablePage) {
        let table = env.table(page);
        for index in self.parts().filter(|&index| self.keeps(index)) {
            let part = self.part(index);
            let forgets = weakened(Weakness::SplitForgets);
            table[index].replace(if forgets { part.with_young(false) } else { part });
        }
    }
}
