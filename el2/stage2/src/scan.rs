//! Scan: the way of ageing, harvest and write-protection through a range, a word of 64 pages at a time.
//!
//! A table is walked to once, and its entries are looked at in stretches of up to 64, as far as one word of
//! the answer reaches. That the table may be unlinked meanwhile does no harm to ageing, which is advice. A
//! look that must not miss anything is *exact*: it waits where another CPU is between break and make
//! (that CPU waits for nobody), and after each stretch makes sure that the table is still linked. If so,
//! whoever takes the leaves out of it later finds them as they were left here. If not, the stretch is
//! looked at again from the root: what was in the table may stand elsewhere by now, in the block that a
//! collapse made.
//!
//! A block counts as each of its pages: it is looked at once, and answers for all that the call asks of it,
//! interrupts or not, since what the look has cleared is known to this call alone.

use crate::descriptor::{Kind, Level};
use crate::entry::Entry;
use crate::hardware::Env;
use crate::memory::TablePage;
use crate::range::Range;
use crate::stage2::Stage2;
use crate::sweep::WORD;
use crate::sync::{Ordering, Weakness, barrier, pause, weakened};
use crate::walk::{self, Position};
use core::slice;
use verdigris_abi::{Ipa, PAGE_SIZE};

/// What a scan does to what it comes by.
pub(crate) trait Look {
    /// Whether a leaf that is there all the time must not be missed.
    const IS_EXACT: bool;
    /// What an exact look leaves in no leaf.
    const TAKES: u64 = 0;

    /// Looks at 64 entries of a last-level table; bit n of the answer is entry n. `first` is what the first
    /// of them translates.
    fn word<E: Env>(&mut self, env: &E, word: &[Entry; WORD], first: Ipa) -> u64;

    /// Looks at fewer entries, or at one that is a block.
    fn part<E: Env>(&mut self, env: &E, entries: &[Entry], first: Ipa, level: Level) -> u64;

    /// Looks at a block, which translates `span`, and of which the call is still to answer for the part
    /// in `range`.
    fn block<E: Env>(&mut self, env: &E, at: &Position<'_>, span: Range, _range: Range) -> bool {
        self.part(env, slice::from_ref(at.entry()), span.ipa(), at.level) != 0
    }

    /// Takes note of pages that nothing translates.
    fn pass_hole(&mut self) {}

    /// Returns what else is to be said of up to 64 pages that were just looked at.
    fn also(&mut self, _pages: Range) -> u64 {
        0
    }
}

/// Takes the answer, word by word.
pub(crate) trait Sink {
    /// Whether anybody reads the words. If not, a hole is passed in one step.
    const IS_READ: bool;

    fn put(&mut self, index: usize, word: u64);
}

impl<F: FnMut(usize, u64)> Sink for F {
    const IS_READ: bool = true;

    fn put(&mut self, index: usize, word: u64) {
        self(index, word);
    }
}

/// For calls that answer without bits.
pub(crate) struct NoBits;

impl Sink for NoBits {
    const IS_READ: bool = false;

    fn put(&mut self, _: usize, _: u64) {}
}

/// A call's way through its range.
struct Scan<'a, L, S> {
    range: Range,
    /// The next page.
    page: u64,
    /// The bits of the word that the next page is in, as far as they are known.
    word: u64,
    is_stopped: bool,
    look: &'a mut L,
    sink: S,
}

impl Stage2 {
    /// Scans a range; returns the pages done: whole words, or all.
    pub(crate) fn scan<E: Env, L: Look, S: Sink>(
        &self,
        env: &E,
        range: Range,
        look: &mut L,
        sink: S,
    ) -> u64 {
        let page = range.start;
        let mut scan = Scan { range, page, word: 0, is_stopped: false, look, sink };
        while scan.page < range.end && !scan.is_stopped {
            let at = walk::find_down_to(env, self.root, Ipa::from_page(scan.page), Level::L2);
            let span = Range::span(scan.page, at.level);
            match at.old.kind(at.level) {
                Kind::Table(child) => scan.table(env, &at, child),
                Kind::Leaf(_) => scan.block(env, &at, span),
                Kind::Busy if L::IS_EXACT => pause(),
                Kind::Busy | Kind::Invalid => scan.hole(env, span),
            }
        }
        scan.finish()
    }
}

impl<L: Look, S: Sink> Scan<'_, L, S> {
    /// Looks at the entries of a last-level table, as far as the range and interrupts let it.
    fn table<E: Env>(&mut self, env: &E, at: &Position<'_>, child: TablePage) {
        let end = self.range.end.min(Range::span(self.page, Level::L2).end);
        let index = Level::L3.index(self.page * PAGE_SIZE);
        let entries = &env.table(child)[index..][..(end - self.page) as usize];
        // As far as the word reaches that the last table has begun.
        let (head, rest) = entries.split_at(entries.len().min(self.left_in_word() as usize % 64));
        let (words, tail) = rest.as_chunks::<WORD>();
        let _ = (head.is_empty() || self.part(env, at, head))
            && self.words(env, at, words)
            && (tail.is_empty() || self.part(env, at, tail));
    }

    /// Looks at whole words; tells whether to go on.
    #[inline(always)]
    fn words<E: Env>(&mut self, env: &E, at: &Position<'_>, words: &[[Entry; WORD]]) -> bool {
        for word in words {
            self.word |= self.look.word(env, word, Ipa::from_page(self.page));
            if !self.settle(env, at, WORD as u64) {
                return false;
            }
        }
        true
    }

    /// Looks at less than a word; tells whether to go on.
    #[inline(never)]
    fn part<E: Env>(&mut self, env: &E, at: &Position<'_>, entries: &[Entry]) -> bool {
        let bits = self.look.part(env, entries, Ipa::from_page(self.page), Level::L3);
        self.word |= bits << self.bit();
        self.settle(env, at, entries.len() as u64)
    }

    /// Moves past entries that were looked at, if that counts; tells whether to go on.
    #[inline(always)]
    fn settle<E: Env>(&mut self, env: &E, at: &Position<'_>, count: u64) -> bool {
        if L::IS_EXACT && !is_unchanged(at) {
            return false;
        }
        self.is_stopped = self.advance(count) && env.interrupt_pending();
        !self.is_stopped
    }

    /// Looks at a block, unless it gives way to something else.
    fn block<E: Env>(&mut self, env: &E, at: &Position<'_>, span: Range) {
        // Of a block that was a table a moment ago, the pages before are answered for already.
        let asked = Range { start: self.page, ..self.range };
        let bit = self.look.block(env, at, span, asked);
        if L::IS_EXACT && !bit && !self.is_passed(at) {
            return;
        }
        let end = self.range.end.min(span.end);
        if !S::IS_READ {
            self.page = end;
        }
        while self.page < end {
            let count = self.left_in_word().min(end - self.page);
            self.word |= if bit { ones(count) << self.bit() } else { 0 };
            self.advance(count);
        }
        // Progress ends with a word, save where nobody reads them.
        let may_stop = self.bit() == 0 || !S::IS_READ;
        self.is_stopped = may_stop && env.interrupt_pending();
    }

    /// Tells whether nothing is left to do where a look found nothing to take. It may have seen a table that
    /// stood there for a moment, and by now the block stands there again, as it was.
    fn is_passed(&self, at: &Position<'_>) -> bool {
        let now = at.entry().read();
        let is_taken = now.raw() & L::TAKES == 0 || weakened(Weakness::TrustLeaf);
        now.leaf_address(at.level).is_some() && is_taken
    }

    /// Passes what translates nothing.
    fn hole<E: Env>(&mut self, env: &E, span: Range) {
        self.look.pass_hole();
        let end = self.range.end.min(span.end);
        if !S::IS_READ {
            self.page = end;
            self.is_stopped = env.interrupt_pending();
        }
        while self.page < end && !self.is_stopped {
            let count = self.left_in_word().min(end - self.page);
            self.is_stopped = self.advance(count) && env.interrupt_pending();
        }
    }

    /// Returns the bit of the next page in its word.
    #[inline(always)]
    const fn bit(&self) -> u32 {
        (self.page - self.range.start) as u32 % 64
    }

    const fn left_in_word(&self) -> u64 {
        64 - self.bit() as u64
    }

    /// Moves on, within a word; tells whether that is complete, and so handed out.
    #[inline(always)]
    fn advance(&mut self, count: u64) -> bool {
        self.page += count;
        let is_complete = self.bit() == 0;
        if is_complete {
            self.hand_out(64);
        }
        is_complete
    }

    /// Hands out the word of the last `count` pages.
    #[inline(always)]
    fn hand_out(&mut self, count: u64) {
        let pages = Range { start: self.page - count, end: self.page };
        let word = self.word | self.look.also(pages);
        self.word = 0;
        self.sink.put(((pages.start - self.range.start) / 64) as usize, word);
    }

    /// Hands the last word out; returns the pages done.
    fn finish(mut self) -> u64 {
        if self.bit() != 0 {
            self.hand_out(u64::from(self.bit()));
        }
        self.page - self.range.start
    }
}

/// Returns a word with the lowest `count` bits set; `count` is 1 to 64.
pub(crate) const fn ones(count: u64) -> u64 {
    u64::MAX >> (64 - count)
}

/// Tells whether the entry that led to a table still does, after entries of the table were read.
fn is_unchanged(at: &Position<'_>) -> bool {
    barrier(Ordering::Acquire, Weakness::FoundBarrier);
    at.entry().read() == at.old || weakened(Weakness::TrustLink)
}
