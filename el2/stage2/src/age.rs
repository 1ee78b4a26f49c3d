//! Ageing: one bit a page, many pages a call.
//!
//! A call works on whole stretches of a last-level table, up to 64 entries at a time, and walks down
//! only from one stretch to the next. A block counts as each of its pages: its flag is read (and
//! cleared) once, when the first of its pages comes up, and stands for all that the call asks about.
//!
//! Nothing here takes part in the contract: an access flag that is cleared on an entry that goes away at
//! the same moment is lost with it, and ageing is advice. But a cleared flag in memory ends the proof
//! that old means absent from TLBs, so a pass counts itself in the epoch, from before the first flag
//! that it clears to after the last. A call that finds nothing young counts no pass.

use crate::descriptor::{Kind, Level, TABLE_ENTRIES};
use crate::entry::{Entry, test_young, verdigris_test_and_clear_young};
use crate::flush::MAX_TARGETED;
use crate::hardware::Env;
use crate::leaves::Mask;
use crate::range::{Outcome, Range};
use crate::stage2::Stage2;
use crate::walk;
use verdigris_abi::{Ipa, PAGE_SIZE, Stat};

/// What to invalidate after access flags were cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgeFlush {
    /// Nothing: touches through cached translations stay unseen for now.
    None,
    /// What was found young.
    Young,
    /// The whole VM, once, unless no flag was cleared since the last such invalidation.
    All,
}

/// Looks at up to 64 entries of one table; bit n is entry n.
trait Look {
    fn look(&mut self, entries: &[Entry], first: Ipa, level: Level) -> u64;
}

/// A block whose flag was read: it answers for pages up to `end`.
#[derive(Clone, Copy)]
struct Block {
    end: u64,
    young: bool,
}

impl Stage2 {
    /// Tests and clears access flags; `sink` gets the number of each word of 64 bits, and the word.
    ///
    /// Bit n % 64 of word n / 64 belongs to page n of the range; words come in order. The invalidation
    /// is complete when this returns, for the pages done.
    pub fn age<E: Env>(
        &self,
        env: &E,
        range: Range,
        flush: AgeFlush,
        sink: impl FnMut(usize, u64),
    ) -> Outcome {
        let mut pass = Pass::new(self);
        let pages = self.scan(env, range, &mut pass, sink);
        env.count(Stat::Ages, 1);
        env.count(Stat::LeavesVisited, pass.visited);
        env.count(Stat::LeavesYoung, pass.young);
        pass.finish(env, flush);
        Outcome::done(pages)
    }

    /// Tests access flags as [`Self::age`] does, and changes nothing.
    pub fn test_age<E: Env>(&self, env: &E, range: Range, sink: impl FnMut(usize, u64)) -> Outcome {
        env.count(Stat::AgeTests, 1);
        Outcome::done(self.scan(env, range, &mut Test, sink))
    }

    /// Scans a range word by word; returns the pages done.
    fn scan<E: Env>(
        &self,
        env: &E,
        range: Range,
        look: &mut impl Look,
        mut sink: impl FnMut(usize, u64),
    ) -> u64 {
        let mut block = None;
        let mut done = 0;
        while done < range.page_count() {
            let count = (range.page_count() - done).min(64);
            let bits = self.scan_word(env, range.start + done, count, look, &mut block);
            sink((done / 64) as usize, bits);
            done += count;
            // A block's flag is cleared by now: its other pages are answered by this same call.
            let in_block = block.is_some_and(|block: Block| range.start + done < block.end);
            if !in_block && env.interrupt_pending() {
                break;
            }
        }
        done
    }

    /// Scans up to 64 pages, stretch by stretch.
    fn scan_word<E: Env>(
        &self,
        env: &E,
        page: u64,
        count: u64,
        look: &mut impl Look,
        block: &mut Option<Block>,
    ) -> u64 {
        let (mut bits, mut done) = (0, 0);
        while done < count {
            let (pages, young) = self.scan_stretch(env, page + done, count - done, look, block);
            bits |= young << done;
            done += pages;
        }
        bits
    }

    /// Scans pages of one table, of one block, or of one hole; returns how many, and their bits.
    fn scan_stretch<E: Env>(
        &self,
        env: &E,
        page: u64,
        count: u64,
        look: &mut impl Look,
        block: &mut Option<Block>,
    ) -> (u64, u64) {
        if let Some(Block { end, young }) = block.filter(|block| page < block.end) {
            let pages = count.min(end - page);
            return (pages, if young { ones(pages) } else { 0 });
        }
        let ipa = Ipa(page * PAGE_SIZE);
        let at = walk::find(env, self.root, ipa);
        if at.level == Level::L3 {
            let pages = count.min((TABLE_ENTRIES - at.index) as u64);
            return (pages, look.look(at.entries(pages), ipa, at.level));
        }
        let span = Range::span(page, at.level);
        match at.old.kind(at.level) {
            Kind::Leaf(_) => {
                let young = look.look(at.entries(1), span.ipa(), at.level) != 0;
                *block = Some(Block { end: span.end, young });
                self.scan_stretch(env, page, count, look, block)
            }
            _ => (count.min(span.end - page), 0),
        }
    }
}

/// Returns a word with the lowest `count` bits set; `count` is 1 to 64.
const fn ones(count: u64) -> u64 {
    u64::MAX >> (64 - count)
}

/// Reads flags and changes nothing.
struct Test;

impl Look for Test {
    fn look(&mut self, entries: &[Entry], _: Ipa, _: Level) -> u64 {
        test_young(entries)
    }
}

/// Most stretches whose young leaves are remembered; with more the whole VMID is invalidated.
const STRETCHES: usize = 32;

/// One pass that clears flags.
struct Pass<'a> {
    stage2: &'a Stage2,
    begun: bool,
    visited: u64,
    young: u64,
    stretches: [Mask; STRETCHES],
    stretch_count: usize,
}

impl<'a> Pass<'a> {
    fn new(stage2: &'a Stage2) -> Self {
        let stretches = [Mask::new(Ipa(0), Level::L3); STRETCHES];
        Self { stage2, begun: false, visited: 0, young: 0, stretches, stretch_count: 0 }
    }

    /// Ends the pass in the epoch, and then invalidates as was asked.
    fn finish<E: Env>(self, env: &E, flush: AgeFlush) {
        if self.begun {
            self.stage2.epoch.end_pass(env);
        }
        let few = self.stretch_count <= STRETCHES && self.young <= MAX_TARGETED;
        match flush {
            AgeFlush::None => {}
            AgeFlush::Young if !self.begun => {}
            AgeFlush::Young if few => {
                let stretches = self.stretches[..self.stretch_count].iter();
                self.stage2.flush(env, stretches.flat_map(|mask| mask.spans()));
            }
            AgeFlush::Young => self.stage2.flush_all(env),
            // What earlier passes left cached counts too: only the epoch knows of it.
            AgeFlush::All if self.stage2.epoch.proves_absence() => {}
            AgeFlush::All => self.stage2.flush_all(env),
        }
    }

    /// Remembers the young leaves of a stretch for a targeted invalidation.
    fn remember(&mut self, first: Ipa, level: Level, bits: u64) {
        if let Some(slot) = self.stretches.get_mut(self.stretch_count) {
            *slot = Mask { start: first, level, bits };
        }
        self.stretch_count += 1;
    }
}

impl Look for Pass<'_> {
    fn look(&mut self, entries: &[Entry], first: Ipa, level: Level) -> u64 {
        self.visited += entries.len() as u64;
        if !self.begun {
            if test_young(entries) == 0 {
                return 0;
            }
            self.begun = true;
            self.stage2.epoch.begin_pass();
        }
        let young = verdigris_test_and_clear_young(entries);
        if young != 0 {
            self.young += u64::from(young.count_ones());
            self.remember(first, level, young);
        }
        young
    }
}
