//! Reclaim of tables: the empty ones go, all others stay, and nothing is translated otherwise.

use super::World;
use super::judge::Warrant;
use super::remove::Linked;
use crate::walker::pages;
use verdigris_stage2::Error;

impl World {
    /// Gives back the empty tables of a range.
    pub(super) fn reclaim(&mut self) {
        let (mut start, mut count) = self.range();
        if self.choices.one_in(3) {
            let window = self.choices.pick(&self.windows);
            (start, count) = (window.start, window.pages);
        }
        let range = self.engine_range(start, count);
        let linked = self.tables_over(start, start + count);
        self.note("reclaim", start, count, linked.len() as u64);
        let outcome = self.call(|machine| machine.vm().reclaim_tables(machine, range));
        match outcome.error {
            None => self.check_interrupted(outcome.pages, count),
            Some(Error::Retry) => assert!(self.contract.is_crowded(), "there was a slot"),
            Some(error) => panic!("reclaim had no reason for {error:?}"),
        }
        let mut warrant = Warrant::none();
        self.warrant_unlinked(&mut warrant, &linked);
        for &(level, first, table) in &linked {
            let span_end = first + pages(level - 1);
            let is_linked = self.machine.walk(first).tables[level as usize] == table;
            let is_passed = outcome.pages == count || level == 3 && first < start + outcome.pages;
            let in_use = self.space.overlapping(first, span_end).next().is_some();
            assert!(is_linked || !in_use, "table {table:#x} of page {first:#x} was in use");
            let kept = is_linked && is_passed && outcome.error.is_none();
            assert!(!kept || !self.is_zero(table), "table {table:#x} of page {first:#x} is empty");
        }
        self.judge(warrant);
        self.touch(start, start + count);
    }

    /// Lists the tables whose span has a page of a range.
    fn tables_over(&self, start: u64, end: u64) -> Vec<Linked> {
        let mut linked: Vec<Linked> = Vec::new();
        let mut page = start;
        while page < end {
            let walk = self.machine.walk(page);
            for level in self.machine.regime.start_level() + 1..4 {
                let first = page & !(pages(level - 1) - 1);
                let table = (level, first, walk.tables[level as usize]);
                if table.2 != 0 && !linked.contains(&table) {
                    linked.push(table);
                }
            }
            page = (page | (pages(walk.level.min(2)) - 1)) + 1;
        }
        linked
    }

    fn is_zero(&self, table: u64) -> bool {
        (0..512).all(|index| self.machine.memory.load(table + index * 8) == 0)
    }
}
