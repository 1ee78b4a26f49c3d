//! Harvest: every page that was written is told of, once it is copied nothing written later is missed.

use super::World;
use super::age::{put, set_bits};
use super::judge::Warrant;
use crate::space::Leaf;
use crate::walker::bits;
use verdigris_stage2::Outcome;

impl World {
    /// Asks which pages were written, and makes them clean.
    pub(super) fn harvest(&mut self) {
        let (start, count) = self.range();
        let range = self.engine_range(start, count);
        let mut words = Vec::new();
        self.note("harvest", start, count, 0);
        let outcome = self.call(|machine| {
            machine.vm().harvest(machine, range, |index, word| put(&mut words, index, word))
        });
        assert_eq!(outcome.error, None);
        self.check_interrupted(outcome.pages, count);
        let warrant = self.warrant_harvest(start, outcome.pages);
        self.orphan_parts(start, start + outcome.pages);
        self.check_dirty(start, outcome, &words);
        self.harvest_model(start, start + outcome.pages, &words);
        self.judge(warrant);
        self.touch(start, start + count);
    }

    fn warrant_harvest(&self, start: u64, done: u64) -> Warrant {
        let mut warrant = Warrant { is_gathered: true, ..Warrant::none() };
        for (first, leaf) in self.space.overlapping(start, start + done) {
            let unsure = self.is_disturbed(first, &leaf);
            let young = (!unsure).then_some(leaf.young);
            // What is only noted loses a bit of the software's, of which no TLB knows.
            if leaf.writable || unsure {
                self.warrant_change(&mut warrant, first, leaf.level, young);
            }
        }
        warrant
    }

    /// Checks the answer, page by page: what is dirty, what was written, what the orphans may add.
    fn check_dirty(&self, start: u64, outcome: Outcome, words: &[u64]) {
        let done = outcome.pages;
        assert_eq!(words.len() as u64, done.div_ceil(64));
        let (mut must, mut may) = (vec![0; words.len()], vec![0; words.len()]);
        for (first, leaf) in self.space.overlapping(start, start + done) {
            let (from, to) =
                (first.saturating_sub(start), (first + leaf.pages() - start).min(done));
            if self.is_disturbed(first, &leaf) {
                set_bits(&mut may, from, to);
            } else if leaf.is_dirty() {
                set_bits(&mut must, from, to);
            }
        }
        if let Some((from, to)) = self.orphan_hull {
            set_bits(&mut may, from.max(start) - start, to.min(start + done).saturating_sub(start));
        }
        for &(from, to) in &self.orphans {
            for page in self.owed.range(from.max(start)..to.min(start + done).max(from.max(start)))
            {
                // It may be that a parked table has it, and an unmap is going to tell.
                if self.parked.iter().all(|it| it.first != *page) {
                    set_bits(&mut must, page - start, page - start + 1);
                }
            }
        }
        for (index, word) in words.iter().enumerate() {
            let page = start + index as u64 * 64;
            assert_eq!(must[index] & !word, 0, "page {page:#x}: {word:#x} leaves writes out");
            let wrong = word & !must[index] & !may[index];
            assert_eq!(wrong, 0, "page {page:#x}: {word:#x} has what nobody wrote");
        }
    }

    /// Makes orphans of what of dirty blocks lies outside of the range: they are cleaned as a whole.
    fn orphan_parts(&mut self, start: u64, end: u64) {
        let is_part = |first: u64, leaf: &Leaf| first < start || first + leaf.pages() > end;
        let blocks: Vec<_> = self
            .space
            .overlapping(start, end)
            .filter(|(first, leaf)| is_part(*first, leaf))
            .collect();
        for (first, leaf) in blocks {
            let unsure = self.is_disturbed(first, &leaf);
            let still_dirty = self.machine.walk(first).raw & (bits::WRITE | bits::NOTED) != 0;
            if leaf.is_dirty() || unsure {
                self.orphan(first, start);
                self.orphan(end, first + leaf.pages());
            }
            if unsure && still_dirty {
                // Maybe it was written after the call had passed; then the leaf alone knows.
                self.orphans.retain(|it| it.0 < first || it.1 > first + leaf.pages());
            }
        }
    }

    fn harvest_model(&mut self, start: u64, end: u64, words: &[u64]) {
        self.absorb_writes();
        self.adopt_orphans(start, end);
        self.space.change(start, end, |leaf| (leaf.writable, leaf.noted) = (false, false));
        // What waits in a parked table is told of by the unmap that reports it.
        let told = |page: &u64| {
            let index = page.wrapping_sub(start);
            (start..end).contains(page) && words[(index / 64) as usize] >> (index % 64) & 1 == 1
        };
        self.owed.retain(|page| !told(page));
    }
}
