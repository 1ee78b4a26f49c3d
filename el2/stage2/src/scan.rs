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

use crate::descriptor::{Kind, Level, NO_BLOCK};
use crate::entry::Entry;
use crate::hardware::Env;
use crate::memory::{Root, TablePage};
use crate::range::Range;
use crate::stage2::Stage2;
use crate::sweep::{GROUP, WORD};
use crate::sync::{Ordering, Weakness, barrier, pause, weakened};
use crate::walk::{self, Position};
use verdigris_abi::{Ipa, PAGE_SIZE};

/// What a scan does to what it comes by.
pub(crate) trait Look {
    /// Whether a leaf that is there all the time must not be missed.
    const IS_EXACT: bool;
    /// Bits of which a leaf has one if the look is about it, and none any more once an exact look is past it.
    const WANTED: u64;

    /// Looks at 64 entries of a table; bit n of the answer is entry n. `first` is what the first of them
    /// translates.
    fn word<E: Env>(&mut self, env: &E, word: &[Entry; WORD], first: Ipa, level: Level) -> u64;

    /// Looks at fewer entries, or at blocks.
    fn part<E: Env>(&mut self, env: &E, entries: &[Entry], first: Ipa, level: Level) -> u64;

    /// Looks at a block, which translates `span`, and of which the call is still to answer for the part
    /// in `range`.
    fn block<E: Env>(&mut self, env: &E, at: &Position<'_>, span: Range, _range: Range) -> bool {
        self.part(env, at.entries(1), span.ipa(), at.level) != 0
    }

    /// Takes note that the call doesn't say now what it found in the block with this span.
    fn put_off(&mut self, _span: Range) {}

    /// Takes note of blocks without a wanted bit.
    fn pass_blocks(&mut self, count: u64);

    /// Takes note of pages that nothing translates.
    fn pass_hole(&mut self) {}

    /// Tells whether [`Look::also`] may have something to say.
    fn says_more(&self) -> bool {
        false
    }

    /// Returns what else is to be said of up to 64 pages that were just looked at.
    fn also(&mut self, _pages: Range) -> u64 {
        0
    }
}

/// Takes an answer of one bit a page: bit n % 64 of word n / 64 belongs to page n of the call's range.
pub trait WordSink {
    /// Whether anybody reads the words. If not, a hole is passed in one step.
    const IS_READ: bool = true;

    /// Takes a word. Words come in order.
    fn put(&mut self, index: usize, word: u64);

    /// Takes the same word several times.
    #[inline(always)]
    fn fill(&mut self, indices: core::ops::Range<usize>, word: u64) {
        indices.for_each(|index| self.put(index, word));
    }
}

impl<F: FnMut(usize, u64)> WordSink for F {
    fn put(&mut self, index: usize, word: u64) {
        self(index, word);
    }
}

/// For calls that answer without bits.
pub(crate) struct NoBits;

impl WordSink for NoBits {
    const IS_READ: bool = false;

    fn put(&mut self, _: usize, _: u64) {}
}

/// A call's way through its range.
struct Scan<'a, L, S> {
    root: Root,
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
    pub(crate) fn scan<E: Env, L: Look, S: WordSink>(
        &self,
        env: &E,
        range: Range,
        look: &mut L,
        sink: S,
    ) -> u64 {
        let page = range.start;
        let mut scan =
            Scan { root: self.root, range, page, word: 0, is_stopped: false, look, sink };
        while scan.page < range.end && !scan.is_stopped {
            let at = walk::find_down_to(env, self.root, Ipa::from_page(scan.page), Level::L2);
            match at.old.kind(at.level) {
                Kind::Table(child) => scan.table(env, &at, child),
                Kind::Leaf(_) => scan.blocks(env, &at),
                Kind::Busy if L::IS_EXACT => pause(),
                // A collapse leaves a table behind in which nothing is valid any more.
                Kind::Invalid if L::IS_EXACT && !scan.is_linked(env, &at) => pause(),
                Kind::Busy | Kind::Invalid => scan.hole(env, Range::span(scan.page, at.level)),
            }
        }
        scan.finish()
    }
}

impl<L: Look, S: WordSink> Scan<'_, L, S> {
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
            self.word |= self.look.word(env, word, Ipa::from_page(self.page), Level::L3);
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

    /// Looks at up to 64 blocks that follow each other, or at one of which the call asks about a part.
    fn blocks<E: Env>(&mut self, env: &E, at: &Position<'_>) {
        let (page, first) = (self.page, Range::span(self.page, at.level));
        // Of a block that was a table a moment ago, the pages before are answered for already.
        let asked = Range { start: page, ..self.range };
        if asked.covers(first) {
            let limit = asked.page_count() >> first.page_count().trailing_zeros();
            self.whole_blocks(env, at, at.entries(limit.min(WORD as u64)));
        } else {
            self.part_of_block(env, at, first, asked);
        }
        // Progress ends with a word, save where nobody reads them.
        let may_stop = self.page != page && (self.bit() == 0 || !S::IS_READ);
        self.is_stopped = may_stop && env.interrupt_pending();
    }

    /// Looks at blocks, and at holes between them, up to what is neither.
    fn whole_blocks<E: Env>(&mut self, env: &E, at: &Position<'_>, entries: &[Entry]) {
        let (entries, any) = blocks_at_start(env, entries);
        if entries.is_empty() {
            return;
        }
        let first = Ipa::from_page(self.page);
        let mut bits = match entries.first_chunk::<WORD>() {
            _ if any & L::WANTED == 0 => {
                self.look.pass_blocks(entries.len() as u64);
                0
            }
            Some(word) if !is_dense::<L>(word) => self.look.word(env, word, first, at.level),
            _ => self.look.part(env, entries, first, at.level),
        };
        let count = if L::IS_EXACT {
            self.settle_blocks(env, at, entries, &mut bits)
        } else {
            entries.len()
        };
        self.answer(at.level, count as u64, bits);
        if count < entries.len() {
            self.put_off(bits >> count, at.level);
        }
    }

    /// Looks at a block of which the call asks about a part.
    fn part_of_block<E: Env>(&mut self, env: &E, at: &Position<'_>, span: Range, asked: Range) {
        let is_hit = self.look.block(env, at, span, asked);
        if !L::IS_EXACT || is_hit || self.is_passed(at) {
            self.pass(asked.end.min(span.end), is_hit);
        }
    }

    /// Returns how many blocks, from the first on, an exact look can answer for: it has changed them, or they
    /// are without what is wanted, in a table that still is a part of the tree.
    ///
    /// A block may have been split and collapsed while it was looked at, and so have what is wanted: it is
    /// looked at again here.
    fn settle_blocks<E: Env>(
        &mut self,
        env: &E,
        at: &Position<'_>,
        entries: &[Entry],
        bits: &mut u64,
    ) -> usize {
        if *bits == ones(entries.len() as u64) {
            return entries.len();
        }
        let mut count = 0;
        while count < entries.len() {
            let rest = *bits >> count;
            count += match entries[count..].first_chunk::<GROUP>() {
                Some(group)
                    if rest & ones(GROUP as u64) == 0 && !is_any_left::<L, E>(env, group) =>
                {
                    GROUP
                }
                _ if rest & 1 != 0 => 1,
                _ => match entries[count].peek() {
                    now if now & NO_BLOCK != 0 => break,
                    now if now & L::WANTED == 0 || weakened(Weakness::TrustLeaf) => 1,
                    _ => {
                        let first = Ipa::from_page(self.page + count as u64 * at.level.pages());
                        let bit = self.look.part(env, &entries[count..=count], first, at.level);
                        *bits |= bit << count;
                        0
                    }
                },
            };
        }
        if self.is_linked(env, at) { count } else { 0 }
    }

    /// Tells whether the next page still is translated by the table that an earlier walk ended in, after
    /// entries of it were read.
    fn is_linked<E: Env>(&self, env: &E, at: &Position<'_>) -> bool {
        barrier(Ordering::Acquire, Weakness::FoundBarrier);
        let now = walk::find_down_to(env, self.root, Ipa::from_page(self.page), Level::L2);
        core::ptr::eq(now.entry(), at.entry()) || weakened(Weakness::ScanLooksOnce)
    }

    /// Answers for the pages of blocks that follow each other, each run of equal bits in one go.
    fn answer(&mut self, level: Level, count: u64, bits: u64) {
        let mut index = 0;
        while index < count {
            let rest = bits >> index;
            let is_set = rest & 1 != 0;
            let run = if is_set { rest.trailing_ones() } else { rest.trailing_zeros() };
            let run = u64::from(run).min(count - index);
            self.pass(self.page + run * level.pages(), is_set);
            index += run;
        }
    }

    /// Puts off what was found in blocks from the next page on: one of them has changed since, and all are
    /// looked at again.
    #[cold]
    fn put_off(&mut self, bits: u64, level: Level) {
        for index in (0..u64::from(u64::BITS)).filter(|index| bits >> index & 1 != 0) {
            self.look.put_off(Range::span(self.page + index * level.pages(), level));
        }
    }

    /// Passes pages that share one bit, interrupts or not.
    fn pass(&mut self, end: u64, is_set: bool) {
        if !S::IS_READ {
            self.page = end;
        }
        while self.page < end {
            let words = (end - self.page) / WORD as u64;
            if self.bit() == 0 && words != 0 && !self.look.says_more() {
                let first = ((self.page - self.range.start) / WORD as u64) as usize;
                self.sink.fill(first..first + words as usize, if is_set { u64::MAX } else { 0 });
                self.page += words * WORD as u64;
                continue;
            }
            let count = self.left_in_word().min(end - self.page);
            self.word |= if is_set { ones(count) << self.bit() } else { 0 };
            self.advance(count);
        }
    }

    /// Tells whether nothing is left to do where a look found nothing to take. It may have seen a table that
    /// stood there for a moment, and by now the block stands there again, as it was.
    fn is_passed(&self, at: &Position<'_>) -> bool {
        let now = at.entry().read();
        let is_taken = now.raw() & L::WANTED == 0 || weakened(Weakness::TrustLeaf);
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

/// Returns the entries before the first that is a table or between break and make, and each bit that any of
/// them has.
#[inline(always)]
fn blocks_at_start<'e, E: Env>(env: &E, entries: &'e [Entry]) -> (&'e [Entry], u64) {
    let (groups, _) = entries.as_chunks::<GROUP>();
    let (mut any, mut count) = (0, 0);
    for group in groups {
        let here = env.any_bits(group);
        if here & NO_BLOCK != 0 {
            break;
        }
        (any, count) = (any | here, count + GROUP);
    }
    for entry in &entries[count..] {
        let here = entry.peek();
        if here & NO_BLOCK != 0 {
            break;
        }
        (any, count) = (any | here, count + 1);
    }
    (&entries[..count], any)
}

/// Guesses whether most blocks have what is wanted.
fn is_dense<L: Look>(word: &[Entry; WORD]) -> bool {
    word[0].peek() & word[WORD - 1].peek() & L::WANTED != 0
}

/// Tells whether one of eight entries has what is wanted, or is no block any more.
#[inline(always)]
fn is_any_left<L: Look, E: Env>(env: &E, group: &[Entry; GROUP]) -> bool {
    env.any_bits(group) & (L::WANTED | NO_BLOCK) != 0
}
