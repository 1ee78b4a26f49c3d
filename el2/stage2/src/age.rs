//! Ageing: one bit a page, many pages a call.
//!
//! Nothing here takes part in the contract: an access flag that is cleared on an entry that goes away at
//! the same moment is lost with it, and ageing is advice. But a cleared flag in memory ends the proof
//! that old means absent from TLBs, so a pass counts itself in the epoch, from before the first flag
//! that it clears to after the last. A call that finds nothing young counts no pass.

use crate::descriptor::{AF, Level};
use crate::entry::{Entry, verdigris_test_and_clear_young, verdigris_test_and_clear_young_of_8};
use crate::gather::Gathered;
use crate::hardware::Env;
use crate::range::{Outcome, Range};
use crate::scan::{Look, WordSink};
use crate::stage2::Stage2;
use crate::sweep::{Age, Swept, WORD, sweep_sparse, test_young, test_young_word};
use verdigris_abi::{Ipa, Stat};

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
        sink: impl WordSink,
    ) -> Outcome {
        let young = if flush == AgeFlush::Young { Gathered::new() } else { Gathered::counting() };
        let (is_begun, is_dense) = (false, false);
        let mut pass = Pass { stage2: self, is_begun, is_dense, visited: 0, young };
        let pages = self.scan(env, range, &mut pass, sink);
        env.count(Stat::Ages, 1);
        env.count(Stat::LeavesVisited, pass.visited);
        env.count(Stat::LeavesYoung, pass.young.leaves());
        pass.finish(env, flush);
        Outcome::done(pages)
    }

    /// Tests access flags as [`Self::age`] does, and changes nothing.
    pub fn test_age<E: Env>(&self, env: &E, range: Range, sink: impl WordSink) -> Outcome {
        env.count(Stat::AgeTests, 1);
        Outcome::done(self.scan(env, range, &mut Test, sink))
    }
}

/// Reads flags and changes nothing.
struct Test;

impl Look for Test {
    const IS_EXACT: bool = false;
    const WANTED: u64 = AF;

    #[inline(always)]
    fn word<E: Env>(&mut self, env: &E, word: &[Entry; WORD], _: Ipa, _: Level) -> u64 {
        test_young_word(env, word)
    }

    fn part<E: Env>(&mut self, _: &E, entries: &[Entry], _: Ipa, _: Level) -> u64 {
        test_young(entries)
    }

    fn pass_blocks(&mut self, _: u64) {}
}

/// One pass that clears flags.
struct Pass<'a> {
    stage2: &'a Stage2,
    is_begun: bool,
    /// The last 64 entries were all young.
    is_dense: bool,
    visited: u64,
    young: Gathered,
}

impl Pass<'_> {
    /// Begins the pass in the epoch, before the first flag that is cleared.
    #[inline(always)]
    fn begin(&mut self) {
        if !self.is_begun {
            self.is_begun = true;
            self.stage2.epoch.begin_pass();
        }
    }

    /// Ends the pass in the epoch, and then invalidates as was asked.
    fn finish<E: Env>(&self, env: &E, flush: AgeFlush) {
        if self.is_begun {
            self.stage2.epoch.end_pass(env);
        }
        match flush {
            AgeFlush::None => {}
            AgeFlush::Young => self.young.flush(env, self.stage2),
            // What earlier passes left cached counts too: only the epoch knows of it.
            AgeFlush::All => self.stage2.flush_epoch(env),
        }
    }
}

impl Look for Pass<'_> {
    const IS_EXACT: bool = false;
    const WANTED: u64 = AF;

    #[inline(always)]
    fn word<E: Env>(&mut self, env: &E, word: &[Entry; WORD], first: Ipa, level: Level) -> u64 {
        self.visited += WORD as u64;
        let hit = if self.is_dense {
            let hit = verdigris_test_and_clear_young(word);
            self.is_dense = hit == u64::MAX;
            hit
        } else {
            let clear = |group: &_| {
                self.begin();
                verdigris_test_and_clear_young_of_8(group)
            };
            let hit = sweep_sparse::<Age, E>(env, word, clear).hit;
            if hit == u64::MAX {
                self.is_dense = true;
            }
            hit
        };
        self.young.add(first, level, Swept::young(hit))
    }

    fn part<E: Env>(&mut self, _: &E, entries: &[Entry], first: Ipa, level: Level) -> u64 {
        self.visited += entries.len() as u64;
        if entries[0].peek() & AF == 0 && test_young(entries) == 0 {
            return 0;
        }
        self.begin();
        let hit = verdigris_test_and_clear_young(entries);
        self.young.add(first, level, Swept::young(hit))
    }

    fn pass_blocks(&mut self, count: u64) {
        self.visited += count;
    }
}
