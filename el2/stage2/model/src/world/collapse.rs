//! Collapse: what was translated is, by one leaf, with the histories of all that it was made from.

use super::judge::Warrant;
use super::map::Asked;
use super::{HOT, Window, World, memory_of};
use crate::space::Leaf;
use crate::walker::{bits, pages};
use verdigris_abi::flags::{MAP_OLD, PROT_READ, PROT_WRITE};
use verdigris_stage2::{Error, Level, Outcome};

impl World {
    /// Makes blocks of full tables, or fills a table for the next time.
    pub(super) fn collapse(&mut self) {
        let level = if self.choices.one_in(16) { 1 } else { 2 };
        let (start, count) = self.blocks(level);
        let is_full = self.whole(start, level).is_some_and(|(parts, _)| parts > 1);
        if is_full || self.choices.one_in(3) {
            self.collapse_range(start, count, level);
        } else {
            self.fill(start, level);
        }
    }

    /// Maps all parts of a block.
    fn fill(&mut self, start: u64, level: u32) {
        let flags = self.choices.pick(&[PROT_READ, PROT_READ | PROT_WRITE]);
        let flags = flags | self.choices.pick(&[0, MAP_OLD]);
        let (pages, sequence) = (pages(level), self.contract.number());
        let pa = memory_of(start, 0);
        self.map_asked(Asked { start, pages, level: level + 1, pa, flags, sequence });
        self.filled = Some(start);
    }

    fn collapse_range(&mut self, start: u64, count: u64, level: u32) {
        self.watch_part(start, count);
        let range = self.engine_range(start, count);
        let name = if level == 1 { Level::L1 } else { Level::L2 };
        self.note("collapse", start, count, u64::from(level));
        let outcome = self.call(|machine| machine.vm().collapse(machine, range, name));
        assert!(self.machine.record.borrow().removed.is_empty(), "no mapping is dropped");
        let mut warrant = Warrant::none();
        for first in (start..start + outcome.pages).step_by(pages(level) as usize) {
            self.expect_block(first, level, &mut warrant);
        }
        self.check_collapse_stop(start, count, level, outcome);
        self.judge(warrant);
        self.touch(start, start + count);
    }

    /// Looks at an address of the range from now on, as often as not.
    fn watch_part(&mut self, start: u64, count: u64) {
        let (slot, page) = (self.choices.below(HOT as u64), start + self.choices.below(count));
        let is_inside = |it: &Window| (it.start..it.start + it.pages).contains(&page);
        if self.choices.one_in(2) && self.windows.iter().any(is_inside) {
            self.machine.tlb.borrow_mut().watch(slot as usize, page * 4096);
            self.machine.fill();
            self.look_at_hot();
        }
    }

    /// Chooses whole blocks, if it can a table that is full.
    fn blocks(&mut self, level: u32) -> (u64, u64) {
        let size = pages(level);
        let mut start = self.filled.take().unwrap_or_else(|| self.range().0) & !(size - 1);
        for _ in 0..8 {
            if self.whole(start, level).is_some_and(|(parts, _)| parts > 1) {
                break;
            }
            start = self.range().0 & !(size - 1);
        }
        let count = size * if self.choices.one_in(4) { 2 } else { 1 };
        (start, count.min((1 << (self.machine.settings.ipa_bits - 12)) - start))
    }

    /// Returns the one leaf that translates what the leaves of its span do, and how many they are; `None` if
    /// there is no such leaf, or they aren't of the next level.
    fn whole(&self, first: u64, level: u32) -> Option<(u64, Leaf)> {
        let parts = self.space.overlapping(first, first + pages(level));
        let mut block: Option<Leaf> = None;
        let mut count = 0;
        for (page, leaf) in parts {
            if leaf.level <= level {
                return Some((1, leaf));
            }
            let whole = block.get_or_insert(Leaf { level, ..leaf });
            let aligned = whole.pa.is_multiple_of(pages(level) * 4096);
            let in_place = leaf.pa == whole.pa + (page - first) * 4096;
            let alike = (leaf.granted, leaf.exec) == (whole.granted, whole.exec);
            if !(leaf.level == level + 1 && aligned && in_place && alike) {
                return None;
            }
            whole.young |= leaf.young;
            whole.writable |= leaf.writable;
            whole.noted |= leaf.noted;
            count += 1;
        }
        block.filter(|_| count == 512).map(|block| (count, block))
    }

    /// Puts the block into the model that a call has passed.
    fn expect_block(&mut self, first: u64, level: u32, warrant: &mut Warrant) {
        let end = first + pages(level);
        let whole = self.whole(first, level);
        let (parts, block) = whole.unwrap_or_else(|| panic!("page {first:#x}: no block"));
        if parts == 1 {
            return;
        }
        let refused = self.contract.must_refuse(first, end, self.contract.number());
        assert!(!refused, "page {first:#x}: a block was made under an invalidation");
        let pages: Vec<u64> = self.space.overlapping(first, end).map(|(page, _)| page).collect();
        pages.iter().for_each(|&page| _ = self.space.remove(page));
        self.space.insert(first, block);
        warrant.spans.push((first, end));
        warrant.all |= !self.machine.settings.config.tlb_range;
        // What the hardware set meanwhile comes on top, and nothing clears it but an age.
        let raw = self.machine.walk(first).raw;
        assert!(raw & bits::WRITE != 0 || !block.writable, "page {first:#x} was dirty");
        let aged = self.machine.record.borrow().aged;
        assert!(raw & bits::AF != 0 || !block.young || aged, "page {first:#x} was young");
    }

    /// Checks that a collapse had a reason to stop where it did.
    fn check_collapse_stop(&self, start: u64, count: u64, level: u32, outcome: Outcome) {
        assert!(outcome.pages.is_multiple_of(pages(level)), "{outcome:?}");
        let Some(error) = outcome.error else {
            return self.check_interrupted(outcome.pages, count);
        };
        let first = start + outcome.pages;
        let end = first + pages(level);
        let reason = match error {
            Error::Exists => self.whole(first, level).is_none(),
            Error::Retry => {
                let now = self.contract.number();
                self.contract.is_crowded() || self.contract.may_refuse(first, end, now)
            }
            error => self.may_fail(error, level),
        };
        assert!(reason, "collapse had no reason for {error:?} at page {first:#x}");
    }
}
