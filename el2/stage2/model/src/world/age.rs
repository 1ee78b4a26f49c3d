//! Ageing: one bit a page, of the very flags that were there.

use super::World;
use super::judge::{Proof, Warrant};
use verdigris_stage2::{AgeFlush, Outcome};

impl World {
    /// Tests and clears access flags.
    pub(super) fn age(&mut self) {
        let (start, count) = self.range();
        let range = self.engine_range(start, count);
        let flush = self.choices.pick(&[
            AgeFlush::None,
            AgeFlush::None,
            AgeFlush::Young,
            AgeFlush::Young,
            AgeFlush::All,
        ]);
        let mut words = Vec::new();
        self.note("age", start, count, flush as u64);
        let outcome = self.call(|machine| {
            machine.vm().age(machine, range, flush, |index, word| put(&mut words, index, word))
        });
        let young = self.check_ages(start, count, outcome, &words);
        let warrant = self.warrant_age(flush, start, outcome.pages, young);
        self.space.change(start, start + outcome.pages, |leaf| leaf.young = false);
        self.judge(warrant);
        self.touch(start, start + count);
    }

    /// Tests access flags; nothing changes.
    pub(super) fn test_age(&mut self) {
        let (start, count) = self.range();
        let range = self.engine_range(start, count);
        let mut words = Vec::new();
        self.note("test_age", start, count, 0);
        let outcome = self.call(|machine| {
            machine.vm().test_age(machine, range, |index, word| put(&mut words, index, word))
        });
        self.check_ages(start, count, outcome, &words);
        self.judge(Warrant::none());
        self.touch(start, start + count);
    }

    /// Invalidates everything, if that proves something.
    pub(super) fn flush(&mut self) {
        self.note("flush", 0, 0, 0);
        self.call(|machine| machine.vm().flush_all(machine));
        let warrant = Warrant { all: true, ..Warrant::none() };
        self.judge(warrant);
    }

    /// Checks words of access flags against the model; tells whether any is set.
    fn check_ages(&self, start: u64, count: u64, outcome: Outcome, words: &[u64]) -> bool {
        assert_eq!(outcome.error, None);
        let done = outcome.pages;
        let interrupted = self.machine.record.borrow().interrupted;
        assert!(
            done == count || interrupted && done.is_multiple_of(64) && done != 0 && done < count
        );
        assert_eq!(words.len() as u64, done.div_ceil(64));
        let mut expected = vec![0; words.len()];
        let mut unsure = vec![0; words.len()];
        for (first, leaf) in self.space.overlapping(start, start + done) {
            let into = match (leaf.young, self.is_disturbed(first, &leaf)) {
                (_, true) => &mut unsure,
                (true, _) => &mut expected,
                (false, _) => continue,
            };
            let end = (first + leaf.pages()).min(start + done) - start;
            set_bits(into, first.saturating_sub(start), end);
        }
        for (index, word) in words.iter().enumerate() {
            let wrong = (word ^ expected[index]) & !unsure[index];
            assert_eq!(wrong, 0, "page {:#x}: young {word:#x}", start + index as u64 * 64);
        }
        words.iter().any(|word| *word != 0)
    }

    /// Tells what a pass may have invalidated, and takes note of what it cleared.
    fn warrant_age(&mut self, flush: AgeFlush, start: u64, done: u64, any: bool) -> Warrant {
        if any {
            self.proof = Proof::No;
        }
        let mut warrant = Warrant::none();
        match flush {
            AgeFlush::None => {}
            AgeFlush::Young => {
                warrant.is_gathered = true;
                for (first, leaf) in self.space.overlapping(start, start + done) {
                    if leaf.young || self.is_disturbed(first, &leaf) {
                        warrant.leaf(first, leaf.level);
                    }
                }
            }
            AgeFlush::All => {
                warrant.all = self.proof != Proof::Yes || self.machine.record.borrow().aged;
                let must = self.proof == Proof::No;
                assert!(!must || self.whole_invalidations() == 1, "what was aged is still cached");
            }
        }
        warrant
    }
}

/// Takes a word of an answer; they come in order.
pub(super) fn put(words: &mut Vec<u64>, index: usize, word: u64) {
    assert_eq!(index, words.len(), "words come in order");
    words.push(word);
}

/// Sets bits `[from, to)`.
pub(super) fn set_bits(words: &mut [u64], from: u64, to: u64) {
    let mut at = from;
    while at < to {
        let (word, shift) = ((at / 64) as usize, at % 64);
        let count = (to - at).min(64 - shift);
        words[word] |= (u64::MAX >> (64 - count)) << shift;
        at += count;
    }
}
