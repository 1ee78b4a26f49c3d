//! Comparison: what the walker finds is what the model says, bit by bit, and nothing is lost.

use super::judge::Proof;
use super::{Parked, World};
use crate::space::Leaf;
use crate::walker::{bits, pages};
use verdigris_stage2::Stat;

impl World {
    /// Checks everything that holds between two calls, over what the last operation may have touched.
    pub(super) fn conclude(&mut self) {
        self.adopt_disturbed();
        self.absorb_writes();
        self.owe_again();
        if self.machine.record.borrow().aged && self.proof == Proof::Yes {
            self.proof = Proof::Unknown;
        }
        self.check_refused();
        self.machine.fill();
        if let Some(vmid) = self.machine.vmids.current() {
            self.machine.tlb.borrow().check(&self.machine.memory, vmid);
        }
        let (start, end) = self.touched;
        self.compare(start, end);
        self.check_owed(start, end);
        let held = self.machine.shares.held();
        let leaves = self.space.leaves().len() + self.parked.len();
        assert_eq!(held, leaves as u64, "one share for each leaf");
        assert_eq!(self.machine.vm().sequence(), self.contract.number(), "one number for each end");
        let repeated = self.machine.record.borrow().repeats;
        assert!(repeated == 0 || self.machine.settings.config.repeat, "repeated without need");
    }

    /// Checks that no access went to the host in the middle of a call that was allowed before and after it.
    fn check_refused(&self) {
        let record = self.machine.record.borrow();
        for &(slot, access) in &record.refused {
            let page = self.machine.tlb.borrow().hot().nth(slot).expect("a hot address") / 4096;
            let after = self.space.at(page).map(|(_, leaf)| leaf);
            let denied = [self.before[slot], after]
                .iter()
                .any(|leaf| leaf.is_none_or(|leaf| !leaf.allows(access)));
            assert!(denied, "page {page:#x}: {access:?} of {after:x?} went to the host");
        }
    }

    /// Takes over what the guest wrote. Where that was in the middle of a call, an operation that answers
    /// for it does this first; the write is still owed if the leaf is dirty again when the call is over.
    pub(super) fn absorb_writes(&mut self) {
        let mut record = self.machine.record.borrow_mut();
        self.owed.extend(&record.written);
        self.answered.append(&mut record.written);
    }

    /// Takes back into account what was written after the answer for it was settled.
    fn owe_again(&mut self) {
        let answered = std::mem::take(&mut self.answered);
        for &page in &answered {
            if self.space.at(page).is_some_and(|(_, leaf)| leaf.is_dirty()) {
                self.owed.insert(page);
            }
        }
        self.answered = answered;
        self.answered.clear();
    }

    /// Takes over flags that hardware or other CPUs changed in the middle of the call.
    fn adopt_disturbed(&mut self) {
        let disturbed = std::mem::take(&mut self.machine.record.borrow_mut().disturbed);
        for &page in &disturbed {
            if let Some((first, leaf)) = self.space.at(page) {
                let raw = self.machine.walk(page).raw;
                let leaf_now = self.space.leaf_mut(first).expect("it is there");
                leaf_now.young = raw & bits::AF != 0;
                leaf_now.writable = leaf.granted && raw & bits::WRITE != 0;
                self.compare(first, first + leaf.pages());
            }
        }
        self.machine.record.borrow_mut().disturbed = disturbed;
    }

    /// Compares a range, widened to whole leaves, with what the walker finds.
    pub(super) fn compare(&self, start: u64, end: u64) {
        let end = end.min(1 << (self.machine.settings.ipa_bits - 12));
        let mut expected = self.space.overlapping(start, end).peekable();
        let mut page = start;
        while page < end {
            let walk = self.machine.walk(page);
            let span_start = page & !(pages(walk.level) - 1);
            let span_end = span_start + pages(walk.level);
            if walk.is_leaf() {
                let expected = expected.next();
                self.compare_leaf(span_start, walk.level, walk.raw, expected);
            } else {
                assert_eq!(walk.raw, 0, "page {page:#x}: an entry that translates nothing");
                let leaf = expected.peek().filter(|leaf| leaf.0 < span_end);
                assert_eq!(leaf, None, "page {page:#x} is not mapped");
            }
            page = span_end;
        }
    }

    fn compare_leaf(&self, first: u64, level: u32, raw: u64, expected: Option<(u64, Leaf)>) {
        let found = Some((first, level, raw));
        let settings = &self.machine.settings;
        let expected = expected.map(|(at, leaf)| (at, leaf.level, leaf.raw(settings)));
        assert!(found == expected, "found {found:x?}, expected {expected:x?}");
    }

    /// Checks that each page of a range that was written, and not reported, still is going to be.
    fn check_owed(&self, start: u64, end: u64) {
        for &page in self.owed.range(start..end) {
            let leaf = self.space.at(page);
            let in_leaf = leaf.is_some_and(|(_, leaf)| leaf.is_dirty());
            let orphan = self.orphans.iter().any(|it| (it.0..it.1).contains(&page));
            let holds = |it: &Parked| (it.leaf.is_dirty() || it.is_unsure) && it.first == page;
            let kept = in_leaf || orphan || self.parked.iter().any(holds);
            assert!(kept, "page {page:#x} was written, which nobody is told: {leaf:x?}");
        }
    }

    /// Compares all of the tree with all of the model, and accounts for every table page and share.
    pub fn look_at_everything(&mut self) {
        // Others act while CPUs leave EL2.
        let reaped = self.reap();
        self.conclude();
        let (mut expected, mut tables) = (self.space.leaves(), 0);
        self.machine.regime.visit(
            &self.machine.memory,
            |first, level, raw| self.compare_leaf(first, level, raw, expected.next()),
            |_, _| tables += 1,
        );
        assert_eq!(expected.next(), None, "a leaf is lost");
        drop(expected);
        self.check_owed(0, u64::MAX);
        for (_, leaf) in self.space.leaves() {
            assert_ne!(self.machine.shares.count(leaf.pa, leaf.level), 0, "a leaf without a share");
        }
        let parked = self.parked.iter().map(|it| it.leaf);
        let leaves = self.space.leaves().map(|(_, leaf)| leaf).chain(parked);
        let mapped: u64 = leaves.map(|leaf| leaf.pages()).sum();
        assert_eq!(self.machine.stat(Stat::PagesMapped), mapped, "pages are counted");
        let allocated = self.machine.memory.allocated();
        assert!(tables <= allocated, "a table that is linked was given back");
        // While a call's rest is parked, its table may wait with it.
        if reaped {
            assert_eq!(self.machine.memory.allocated(), tables, "a table is lost");
        }
    }

    /// Lets every CPU leave EL2 until all retired tables are back; tells whether they are.
    fn reap(&mut self) -> bool {
        self.machine.leave_el2();
        (0..16).any(|_| self.call(|machine| machine.vm().reap(machine)))
    }

    /// Unmaps everything; then nothing may be left of anything.
    pub fn finish(&mut self) {
        self.look_at_everything();
        self.unmap_everything();
        self.look_at_everything();
        assert!(self.space.is_empty() && self.parked.is_empty());
        assert!(self.reap(), "retired tables are never given back");
        assert_eq!(self.machine.memory.allocated(), 0, "all tables are back");
        assert_eq!(self.machine.shares.held(), 0, "all shares are back");
        assert!(self.owed.is_empty(), "all writes were reported: {:x?}", self.owed);
    }
}
