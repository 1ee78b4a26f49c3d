//! Write-protect: no write gets through any more, and what was written stays known.

use super::World;
use super::judge::Warrant;

impl World {
    /// Takes the permission to write from a range.
    pub(super) fn protect(&mut self) {
        let (start, count) = self.range();
        let range = self.engine_range(start, count);
        self.note("protect", start, count, 0);
        let outcome = self.call(|machine| machine.vm().write_protect(machine, range));
        assert_eq!(outcome.error, None);
        self.check_interrupted(outcome.pages, count);
        let mut warrant = Warrant { is_gathered: true, ..Warrant::none() };
        let end = start + outcome.pages;
        // Without DBM in its descriptor, what is clean loses a bit of the software's alone.
        let modifier = self.machine.settings.config.hd;
        for (first, leaf) in self.space.overlapping(start, end) {
            let unsure = self.is_disturbed(first, &leaf);
            if leaf.granted && (leaf.writable || modifier || unsure) {
                let young = (!unsure).then_some(leaf.young);
                self.warrant_change(&mut warrant, first, leaf.level, young);
            }
        }
        self.protect_model(start, end);
        self.judge(warrant);
        self.touch(start, start + count);
    }

    fn protect_model(&mut self, start: u64, end: u64) {
        let unsure: Vec<_> = self
            .space
            .overlapping(start, end)
            .filter(|(first, leaf)| self.is_disturbed(*first, leaf))
            .map(|(first, leaf)| (first, leaf.granted))
            .collect();
        self.space.change(start, end, |leaf| {
            leaf.noted |= leaf.writable;
            (leaf.granted, leaf.writable) = (false, false);
        });
        // It may have been written at the last moment.
        for (first, granted) in unsure {
            let noted = self.machine.walk(first).raw & crate::walker::bits::NOTED != 0;
            let leaf = self.space.leaf_mut(first).expect("it is there");
            assert!(noted || !leaf.noted, "page {first:#x} was dirty");
            leaf.noted |= noted && granted;
        }
    }

    /// Checks that a call that may stop at an interrupt had one.
    pub(super) fn check_interrupted(&self, done: u64, count: u64) {
        let interrupted = self.machine.record.borrow().interrupted;
        assert!(done == count || interrupted && done < count, "stopped without a reason");
    }
}
