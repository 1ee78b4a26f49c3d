//! Lists of pages: each is mapped as a map of it alone would, and a hole is no page.

use super::World;
use super::judge::Warrant;
use super::map::{Asked, BATCH};
use verdigris_abi::MAP_LIST_PAGES;
use verdigris_stage2::{Error, Ipa, List, MapList, Outcome};

impl World {
    /// Maps a list of pages.
    pub(super) fn map_list(&mut self) {
        let (start, count) = self.range();
        let sequence = self.sampled();
        let asked: Vec<_> = (start..start + count.min(MAP_LIST_PAGES))
            .map(|page| self.ask_for_one(page, sequence))
            .collect();
        let pages: Vec<_> = asked.iter().map(entry).collect();
        let list = List::new(&pages).expect("good addresses and flags");
        let request = MapList { ipa: Ipa(start * 4096), pages: list, sequence };
        self.note("map list", start, pages.len() as u64, sequence);
        let outcome = self.call(|machine| machine.vm().map_list(machine, &request));
        let mut warrant = Warrant::none();
        for one in asked.iter().take(outcome.pages as usize).flatten() {
            self.expect_mapped(one, one.start, &mut warrant);
        }
        self.check_list_stop(&asked, start, outcome, sequence);
        self.judge(warrant);
        self.touch(start, start + pages.len() as u64);
    }

    /// Chooses what a list says of a page.
    fn ask_for_one(&mut self, page: u64, sequence: u64) -> Option<Asked> {
        if self.choices.one_in(4) {
            return None;
        }
        let (pa, flags) = self.memory_and_flags(page);
        Some(Asked { start: page, pages: 1, level: 3, pa, flags, sequence })
    }

    /// Checks that the call had a reason to stop where it did.
    fn check_list_stop(
        &self,
        asked: &[Option<Asked>],
        start: u64,
        outcome: Outcome,
        sequence: u64,
    ) {
        let (done, all) = (outcome.pages as usize, asked.len());
        assert!(done <= all, "{outcome:?}");
        let Some(error) = outcome.error else {
            let interrupted = self.machine.record.borrow().interrupted;
            assert!(done == all || interrupted, "stopped without a reason: {outcome:?}");
            return;
        };
        // What the batch lacks as a whole is told at its start, which may be a hole.
        let next = asked[done..].iter().take(BATCH as usize).flatten().next();
        let next = next.expect("holes alone need nothing that could fail");
        let batch_end = start + all.min(done + BATCH as usize) as u64;
        let reason = match error {
            Error::Retry => self.may_retry(start + done as u64, batch_end, sequence),
            Error::Exists => self.is_in_the_way(next, next.start),
            error => self.may_fail(error, 3),
        };
        assert!(reason, "a list had no reason for {error:?} at page {:#x}", next.start);
    }
}

fn entry(asked: &Option<Asked>) -> u64 {
    asked.map_or(0, |asked| asked.pa | asked.flags)
}
