//! Split: a block that reaches past a range loses the part inside, and keeps the rest as a table.
//!
//! Break, invalidate, make. Between break and make the entry is [`Descriptor::BUSY`], so that faults on
//! the rest are retried and not taken to the host. The make half makes an invalid entry valid, so it
//! stands in a gate like any map, against the number that was sampled *before* the break: if another
//! invalidation of the rest began since, the rest stays unmapped, and the guest faults it in again.
//!
//! Without a free table page (or share) the whole block goes: an invalidation never fails.

use crate::contract::Verdict;
use crate::descriptor::{Descriptor, Level};
use crate::flush::{self, Span};
use crate::hardware::{Env, Removed};
use crate::memory::TablePage;
use crate::range::Range;
use crate::stage2::Stage2;
use crate::walk::Position;
use core::iter::once;
use verdigris_abi::{Pa, Stat};

impl Stage2 {
    /// Takes the part of a block that is inside `range` away.
    ///
    /// `span` is what the block translates. Parts that are themselves blocks and reach past the range
    /// stay whole for now: the caller comes by again.
    pub(crate) fn split<E: Env>(&self, env: &E, at: &Position<'_>, range: Range, span: Range) {
        let sampled = self.contract.sample();
        let table = self.alloc(env);
        self.batches.begin();
        let taken = at.entry().take_leaf(at.level, Descriptor::BUSY);
        if taken.is_some() {
            self.flush(env, once(Span::leaf(span.ipa(), at.level)));
        }
        self.batches.finish();
        let Some(old) = taken else {
            // Another CPU was faster: look again.
            return table.into_iter().for_each(|page| env.free(page));
        };
        let split = Split { range, span, level: at.level, old };
        let made = table.is_some_and(|page| self.make(env, at, &split, sampled, page));
        if !made {
            let _ = at.entry().exchange(Descriptor::BUSY, Descriptor::INVALID);
            env.count(Stat::BlocksDropped, 1);
        }
        let pa = old.leaf_address(at.level).expect("a leaf was taken");
        self.report(env, &Removed { ipa: span.ipa(), pa, level: at.level, old });
    }

    /// Links the table of what stays; `false`, with everything given back, if that may not be.
    fn make<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        split: &Split,
        sampled: u64,
        page: TablePage,
    ) -> bool {
        let made = split.share(env) && {
            split.fill(env, page);
            let linked = self.link_split(env, at, split, sampled, page);
            if !linked {
                split.unshare(env, split.parts());
            }
            linked
        };
        if made {
            flush::publish(env);
        } else {
            env.free(page);
        }
        made
    }

    fn link_split<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        split: &Split,
        sampled: u64,
        page: TablePage,
    ) -> bool {
        let inside = self.contract.enter(env);
        split
            .rest()
            .into_iter()
            .flatten()
            .all(|rest| self.contract.check(&inside, rest, sampled) == Verdict::Clear)
            && at.entry().exchange(Descriptor::BUSY, Descriptor::table(page)).is_ok()
    }
}

/// A block that was taken away to be split.
struct Split {
    range: Range,
    span: Range,
    level: Level,
    old: Descriptor,
}

impl Split {
    fn next(&self) -> Level {
        self.level.next().expect("pages are not split")
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

    fn part(&self, index: usize) -> Descriptor {
        self.old.part(self.level, index)
    }

    fn pa(&self, index: usize) -> Pa {
        self.part(index).leaf_address(self.next()).expect("a part is a leaf")
    }

    /// Takes a share for each part that stays: all of them, or none.
    fn share<E: Env>(&self, env: &E) -> bool {
        for index in self.parts().filter(|&index| self.keeps(index)) {
            if env.acquire(self.pa(index), self.next()).is_err() {
                self.unshare(env, 0..index);
                return false;
            }
        }
        true
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
            table[index].replace(self.part(index));
        }
    }
}
