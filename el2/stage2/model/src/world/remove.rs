//! Unmap, begin and end: what is gone was reported once, and its dirty bits went to one answer.

use super::judge::Warrant;
use super::{Bits, Parked, World};
use crate::space::Leaf;
use crate::walker::{bits, pages};
use verdigris_stage2::{Outcome, Removed};

/// A table that was linked before a call: its level, the first page of its span, its address.
pub(super) type Linked = (u32, u64, u64);

/// A call that takes away, and how far it came.
struct Removal {
    start: u64,
    end: u64,
    /// Where the call began, and how far it says that it came.
    from: u64,
    reached: u64,
    sink: Bits,
    linked: Vec<Linked>,
}

impl Removal {
    /// Returns where the call stops taking leaves: where its answer is full.
    fn take_end(&self) -> u64 {
        let window = if self.sink.capacity == 0 { u64::MAX } else { self.sink.capacity };
        self.end.min(self.from.saturating_add(window))
    }

    /// Tells whether a leaf goes as a whole.
    fn takes(&self, first: u64, leaf: &Leaf) -> bool {
        self.start <= first && first + leaf.pages() <= self.take_end()
    }

    /// Tells whether a page's dirty bit belongs into the answer.
    fn answers(&self, page: u64) -> bool {
        (self.from..self.reached).contains(&page)
    }
}

impl World {
    /// Unmaps a range, or goes on where an earlier call stopped.
    pub(super) fn unmap(&mut self) {
        let (start, count) = match self.unfinished.pop() {
            Some(range) => range,
            None => self.range(),
        };
        self.unmap_range(start, count);
    }

    fn unmap_range(&mut self, start: u64, count: u64) {
        let range = self.engine_range(start, count);
        let mut sink = self.sink();
        let linked = self.linked_tables(start, start + count);
        self.note("unmap", start, count, sink.capacity);
        let outcome = self.call(|machine| machine.vm().unmap(machine, range, &mut sink));
        self.contract.publish(start, start + count);
        let done = self.check_removal(outcome, (start, count, 0), sink, linked);
        if done < count && !self.choices.one_in(4) {
            self.unfinished.push((start + done, count - done));
        }
    }

    /// Begins an invalidation, resumes one, or ends one.
    pub(super) fn invalidate(&mut self) {
        let standing = self.contract.marks.len() as u64;
        // Now and then they pile up, to more than have a slot each.
        let begins = match self.steps / 256 % 8 {
            7 => standing == 0 || standing < 20 && !self.choices.one_in(4),
            _ => self.choices.below(standing + 2) < 2 && standing < 18,
        };
        if begins {
            let (start, count) = self.range();
            self.contract.raise(start, start + count);
            self.begin(standing as usize, false);
        } else {
            let index = self.choices.below(standing) as usize;
            if self.choices.one_in(3) { self.begin(index, true) } else { self.end(index) }
        }
    }

    fn begin(&mut self, index: usize, resume: bool) {
        let mark = self.contract.marks[index];
        let count = mark.end - mark.start;
        let (range, mut sink) = (self.engine_range(mark.start, count), self.sink());
        let linked = self.linked_tables(mark.start, mark.end);
        self.note(if resume { "resume" } else { "begin" }, mark.start, count, mark.done);
        let outcome = self.call(|machine| {
            machine.vm().invalidate_begin(machine, range, resume, mark.done, &mut sink)
        });
        let done = self.check_removal(outcome, (mark.start, count, mark.done), sink, linked);
        self.contract.marks[index].done = done;
    }

    fn end(&mut self, index: usize) {
        let mark = self.contract.marks[index];
        let count = mark.end - mark.start;
        let (range, mut sink) = (self.engine_range(mark.start, count), self.sink());
        let linked = self.linked_tables(mark.start, mark.end);
        self.note("end", mark.start, count, mark.done);
        let outcome =
            self.call(|machine| machine.vm().invalidate_end(machine, range, mark.done, &mut sink));
        let done = self.check_removal(outcome, (mark.start, count, mark.done), sink, linked);
        self.contract.marks[index].done = done;
        if done == count {
            let mark = self.contract.lower(index);
            self.contract.publish(mark.start, mark.end);
        }
    }

    /// Unmaps all there is, however often it takes.
    pub(super) fn unmap_everything(&mut self) {
        while !self.contract.marks.is_empty() {
            self.machine.record.borrow_mut().clear();
            self.machine.interrupt_after(None);
            self.end(0);
            self.conclude();
        }
        self.machine.record.borrow_mut().clear();
        self.machine.interrupt_after(None);
        self.machine.shares.refuse_after(None);
        self.unfinished.clear();
        let (range, mut sink) = (self.engine_range(0, self.page_count()), Bits::new(0));
        let linked = self.linked_tables(0, self.page_count());
        let outcome = self.call(|machine| machine.vm().unmap(machine, range, &mut sink));
        self.contract.publish(0, self.page_count());
        let done = self.check_removal(outcome, (0, self.page_count(), 0), sink, linked);
        assert_eq!(done, self.page_count(), "nothing stops it");
        self.adopt_orphans(0, u64::MAX);
        self.owed.clear();
        self.conclude();
    }

    fn sink(&mut self) -> Bits {
        Bits::new(self.choices.pick(&[0, 0, 0, 64, 100, 1024, 32768]))
    }

    /// Lists the tables whose span lies in a range.
    pub(super) fn linked_tables(&self, start: u64, end: u64) -> Vec<Linked> {
        let mut linked: Vec<Linked> = Vec::new();
        let mut page = start.next_multiple_of(pages(2));
        while page + pages(2) <= end {
            let walk = self.machine.walk(page);
            for level in self.machine.regime.start_level() + 1..4 {
                let (table, span) = (walk.tables[level as usize], pages(level - 1));
                let first = page & !(span - 1);
                if table != 0 && first >= start && first + span <= end && first == page {
                    linked.push((level, first, table));
                }
            }
            page = (page & !(pages(walk.level.min(2)) - 1)) + pages(walk.level.min(2));
        }
        linked
    }

    /// Checks what a call took away; returns the pages of its range that are done.
    fn check_removal(
        &mut self,
        outcome: Outcome,
        (start, count, done): (u64, u64, u64),
        sink: Bits,
        linked: Vec<Linked>,
    ) -> u64 {
        assert_eq!(outcome.error, None);
        let (from, reached) = (start + done, start + outcome.pages);
        let removal = Removal { start, end: start + count, from, reached, sink, linked };
        self.check_progress(&removal);
        self.absorb_writes();
        let removed = std::mem::take(&mut self.machine.record.borrow_mut().removed);
        let warrant = self.warrant_removal(&removal, &removed);
        let mut dirty: Vec<(u64, u64)> = Vec::new();
        for leaf in &removed {
            self.take_report(&removal, leaf, &mut dirty);
        }
        self.check_rest(&removal);
        self.check_bits(&removal, &dirty);
        self.judge(warrant);
        self.machine.record.borrow_mut().removed = removed;
        self.touch(start, start + count);
        outcome.pages
    }

    fn check_progress(&self, removal: &Removal) {
        let &Removal { end, from, reached, ref sink, .. } = removal;
        assert!(from <= reached && reached <= end, "from {from:#x} to {reached:#x}");
        let interrupted = self.machine.record.borrow().interrupted;
        let full = sink.capacity != 0 && end - from > sink.capacity;
        assert!(reached == end || interrupted || full, "stopped without a reason");
        assert!(reached > from || from == end || interrupted, "a call without progress");
    }

    /// Tells what a removal may have invalidated: leaves of its own, and tables that it unlinked.
    fn warrant_removal(&self, removal: &Removal, removed: &[Removed]) -> Warrant {
        let mut warrant = Warrant::none();
        for report in removed {
            let (first, level) = (report.ipa.0 / 4096, report.level as u32);
            // What is between break and make is always invalidated.
            if first < removal.start || first + pages(level) > removal.take_end() {
                warrant.leaf(first, level);
            }
        }
        self.warrant_removed(&mut warrant, removed);
        self.warrant_unlinked(&mut warrant, &removal.linked);
        warrant
    }

    /// Adds the tables that aren't linked any more where they were.
    pub(super) fn warrant_unlinked(&self, warrant: &mut Warrant, linked: &[Linked]) {
        let ranges = self.machine.settings.config.tlb_range;
        for &(level, first, table) in linked {
            if self.machine.walk(first).tables[level as usize] != table {
                let span = pages(level - 1);
                warrant.spans.push((first, first + span));
                warrant.all |= !ranges || span > 1 << 21;
            }
        }
    }

    /// Takes a leaf that was reported out of the model.
    fn take_report(&mut self, removal: &Removal, report: &Removed, dirty: &mut Vec<(u64, u64)>) {
        let (first, level) = (report.ipa.0 / 4096, report.level as u32);
        let is_it = |leaf: &Leaf| (leaf.level, leaf.pa) == (level, report.pa.0);
        let mapped = self.space.at(first).filter(|(at, leaf)| *at == first && is_it(leaf));
        let is_exact = mapped.is_some_and(|(_, leaf)| self.is_report_of(&leaf, false, report));
        // Where the same page was mapped anew meanwhile, they differ by their flags, or not at all.
        // One that may have any flags is taken last: it may be any of those that are left.
        let is_here = |it: &Parked, unsure: bool| {
            it.first == first && is_it(&it.leaf) && self.is_report_of(&it.leaf, unsure, report)
        };
        let may_differ = !is_exact || self.mixed_up.contains(&first);
        let find = |wanted: &dyn Fn(&Parked) -> bool| self.parked.iter().position(wanted);
        let parked = find(&|it| !it.is_unsure && is_here(it, false))
            .or_else(|| find(&|it| is_here(it, false)))
            .or_else(|| find(&|it| it.is_unsure && may_differ && is_here(it, true)));
        let leaf = if let Some(index) = parked {
            self.parked.swap_remove(index).leaf
        } else {
            let (_, leaf) = mapped.unwrap_or_else(|| panic!("{report:x?} was never there"));
            self.check_report(first, &leaf, report);
            self.take_mapped(removal, first, leaf, report.old.raw());
            leaf
        };
        if report.old.raw() & (bits::WRITE | bits::NOTED) != 0 {
            dirty.push((first, first + leaf.pages()));
        }
    }

    /// Checks that the descriptor that was reported is the model's.
    pub(super) fn check_report(&self, first: u64, leaf: &Leaf, report: &Removed) {
        let unsure = self.is_disturbed(first, leaf) || self.mixed_up.contains(&first);
        let is_it = self.is_report_of(leaf, unsure, report);
        assert!(is_it, "page {first:#x}: {report:x?} was {leaf:x?}");
    }

    fn is_report_of(&self, leaf: &Leaf, is_unsure: bool, report: &Removed) -> bool {
        let unsure = if is_unsure { bits::AF | bits::WRITE } else { 0 };
        (report.old.raw() ^ leaf.raw(&self.machine.settings)) & !unsure == 0
    }

    /// Takes a leaf out of the model; of a block that reaches past the range the rest may stay, as parts.
    fn take_mapped(&mut self, removal: &Removal, first: u64, leaf: Leaf, raw: u64) {
        let last = first + leaf.pages();
        if removal.takes(first, &leaf) {
            self.space.remove(first);
            return;
        }
        let next = leaf.level + 1;
        let rest = if first < removal.start { first } else { last - 1 };
        if self.machine.walk(rest).level <= leaf.level {
            self.check_dropped(removal, first, &leaf);
            self.space.remove(first);
            return;
        }
        self.space.split(first, next);
        let inside: Vec<_> = self
            .space
            .overlapping(removal.start.max(first), removal.take_end().min(last))
            .filter(|(at, part)| removal.takes(*at, part))
            .collect();
        inside.iter().for_each(|(at, _)| _ = self.space.remove(*at));
        // The parts have the flags that the block had when it was taken.
        self.space.change(first, last, |part| {
            part.young = raw & bits::AF != 0;
            part.writable = part.granted && raw & bits::WRITE != 0;
        });
    }

    /// Checks that a block had a reason to go whole, and keeps its dirty pages as orphans.
    fn check_dropped(&mut self, removal: &Removal, first: u64, leaf: &Leaf) {
        let last = first + leaf.pages();
        let marked = self.contract.marks.iter().any(|mark| {
            let own = (mark.start, mark.end) == (removal.start, removal.end);
            !own && mark.start < last && first < mark.end
        });
        let lacking =
            self.machine.record.borrow().out_of_pages || self.machine.shares.was_refused();
        // Who has no slot of its own for a mark makes nothing under it.
        let reason = marked || lacking || self.contract.is_crowded();
        assert!(reason, "page {first:#x}: a block was dropped without a reason");
        // What the answer can carry is in it.
        let asked = if removal.sink.capacity == 0 { removal.start } else { removal.from };
        self.orphan(first, last.min(asked));
        self.orphan(first.max(removal.take_end()), last);
    }

    /// Keeps pages that have to come back as dirty; whatever lies between two of them may.
    pub(super) fn orphan(&mut self, start: u64, end: u64) {
        if start < end {
            self.orphans.push((start, end));
            let hull = self.orphan_hull.unwrap_or((start, end));
            self.orphan_hull = Some((hull.0.min(start), hull.1.max(end)));
        }
    }

    /// Checks what is left of the leaves in the range: untouched, or out of the tables and not reported yet.
    fn check_rest(&mut self, removal: &Removal) {
        let rest: Vec<_> = self.space.overlapping(removal.start, removal.end).collect();
        for (first, leaf) in rest {
            let last = first + leaf.pages();
            let inside = removal.start <= first && last <= removal.end;
            let done = first < removal.reached && last > removal.from;
            assert!(!(inside && done), "page {first:#x} is done, and {leaf:x?} was not reported");
            if !inside || self.machine.walk(first).is_leaf() {
                continue;
            }
            assert!(self.machine.record.borrow().interrupted || removal.sink.capacity != 0);
            self.space.remove(first);
            let is_unsure = self.is_disturbed(first, &leaf);
            if is_unsure {
                self.mixed_up.insert(first);
            }
            self.parked.push(Parked { first, leaf, is_unsure });
        }
        let overdue = self.parked.iter().find(|it| removal.answers(it.first));
        assert_eq!(overdue, None, "done, and not reported");
    }

    /// Checks the dirty bits of an answer, and that each was one's to give.
    fn check_bits(&mut self, removal: &Removal, dirty: &[(u64, u64)]) {
        let Removal { from, reached, ref sink, .. } = *removal;
        if sink.capacity == 0 {
            // Nobody wants to know.
            for &(first, last) in dirty {
                self.forget(first.max(removal.start), last.min(removal.end));
            }
            return;
        }
        let mut expected = vec![0u64; sink.words.len().max((reached - from).div_ceil(64) as usize)];
        for &(first, last) in dirty {
            // The host said that these were done.
            self.orphan(first.max(removal.start), last.min(from));
            for page in first.max(from)..last.min(reached) {
                expected[((page - from) / 64) as usize] |= 1 << ((page - from) % 64);
            }
            self.forget(first.max(from), last.min(reached));
        }
        let got = sink.words.iter().copied().chain(std::iter::repeat(0)).take(expected.len());
        assert!(got.eq(expected.iter().copied()), "dirty: {:x?}, not {expected:x?}", sink.words);
    }

    /// Strikes pages off the list of writes that somebody has to be told of.
    pub(super) fn forget(&mut self, start: u64, end: u64) {
        if start < end && self.owed.range(start..end).next().is_some() {
            self.owed.retain(|page| !(start..end).contains(page));
        }
    }

    /// Strikes orphans of a range off, which an answer has reported.
    pub(super) fn adopt_orphans(&mut self, start: u64, end: u64) {
        let rest = |&(first, last): &(u64, u64)| {
            [(first, last.min(start)), (first.max(end), last)].into_iter().filter(|it| it.0 < it.1)
        };
        self.orphans = self.orphans.iter().flat_map(rest).collect();
        if self.orphan_hull.is_some_and(|hull| start <= hull.0 && hull.1 <= end) {
            self.orphan_hull = None;
        }
    }

    fn page_count(&self) -> u64 {
        1 << (self.machine.settings.ipa_bits - 12)
    }
}
