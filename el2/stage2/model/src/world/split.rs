//! Split by call: what was translated is, by smaller leaves.

use super::World;
use super::judge::Warrant;
use crate::walker::{bits, pages};
use verdigris_stage2::{Error, Level, Outcome};

impl World {
    /// Splits the blocks of a range.
    pub(super) fn split(&mut self) {
        let (start, count) = self.range();
        let range = self.engine_range(start, count);
        let level = self.choices.pick(&[Level::L3, Level::L3, Level::L2]);
        self.note("split", start, count, level as u64);
        let outcome = self.call(|machine| machine.vm().split_range(machine, range, level));
        self.check_split_stop(start, count, level as u32, outcome);
        let mut warrant = Warrant::none();
        self.split_model(start, start + count, level as u32, &mut warrant);
        let whole = |(_, leaf): (u64, crate::space::Leaf)| leaf.level >= level as u32;
        let done = self.space.overlapping(start, start + outcome.pages).all(whole);
        assert!(done, "a block is left that was to be split");
        assert!(self.machine.record.borrow().removed.is_empty(), "nothing is taken away");
        self.judge(warrant);
        self.touch(start & !(pages(2) - 1), start + count);
    }

    fn check_split_stop(&self, start: u64, count: u64, level: u32, outcome: Outcome) {
        let Some(error) = outcome.error else {
            return self.check_interrupted(outcome.pages, count);
        };
        let block = self.space.at(start + outcome.pages);
        let reason = match (error, block) {
            (Error::Invalid, _) => level < self.machine.regime.start_level(),
            (Error::Retry, Some((first, leaf))) => {
                let now = self.contract.number();
                self.may_retry(first, first + leaf.pages(), now)
            }
            (error, _) => self.may_fail(error, level),
        };
        assert!(reason, "split had no reason for {error:?}: {outcome:?}, {block:x?}");
    }

    /// Splits in the model what the walker finds split: it translates the same either way.
    fn split_model(&mut self, start: u64, end: u64, level: u32, warrant: &mut Warrant) {
        let blocks: Vec<_> = self.space.overlapping(start, end).collect();
        for (first, leaf) in blocks.into_iter().filter(|(_, leaf)| leaf.level < level) {
            let probe = first.max(start);
            if self.machine.walk(probe).level == leaf.level {
                continue;
            }
            let unsure = self.is_disturbed(first, &leaf);
            self.space.split(first, leaf.level + 1);
            warrant.leaf(first, leaf.level);
            self.split_model(start.max(first), end.min(first + leaf.pages()), level, warrant);
            if unsure {
                self.adopt_parts(first, first + leaf.pages());
            }
        }
    }

    /// Takes over the flags of parts whose block was changed by the hardware before it was split.
    fn adopt_parts(&mut self, first: u64, last: u64) {
        let parts: Vec<_> = self.space.overlapping(first, last).collect();
        for (page, part) in parts {
            let raw = self.machine.walk(page).raw;
            let leaf = self.space.leaf_mut(page).expect("it is there");
            leaf.young = raw & bits::AF != 0;
            leaf.writable = part.granted && raw & bits::WRITE != 0;
            assert!(leaf.writable || !part.writable, "page {page:#x} was dirty");
        }
    }
}
