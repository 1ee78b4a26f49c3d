//! Map: what is mapped is what was asked for, and never what the contract forbids.

use super::judge::Warrant;
use super::{World, memory_of};
use crate::space::Leaf;
use crate::walker::pages;
use verdigris_abi::flags::{MAP_CLEAN, MAP_OLD, PROT_EXEC, PROT_READ, PROT_WRITE};
use verdigris_stage2::{Attributes, Error, Ipa, Level, Map, Outcome, Pa};

/// Leaves of one batch: what the contract is asked about together.
pub(super) const BATCH: u64 = 64;

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) start: u64,
    pub(super) pages: u64,
    pub(super) level: u32,
    pub(super) pa: u64,
    pub(super) flags: u64,
    pub(super) sequence: u64,
}

impl Asked {
    /// Returns the leaf at a page, as it is where nothing was.
    pub(super) const fn leaf(&self, page: u64) -> Leaf {
        let write = self.flags & PROT_WRITE != 0;
        Leaf {
            level: self.level,
            pa: self.pa + (page - self.start) * 4096,
            granted: write,
            writable: write && self.flags & MAP_CLEAN == 0,
            noted: false,
            exec: self.flags & PROT_EXEC != 0,
            young: self.flags & MAP_OLD == 0,
        }
    }

    pub(super) const fn level(&self) -> Level {
        match self.level {
            1 => Level::L1,
            2 => Level::L2,
            _ => Level::L3,
        }
    }
}

impl World {
    /// Chooses what to ask for.
    pub(super) fn ask(&mut self) -> Asked {
        let (mut start, mut count) = self.range();
        let level = match self.choices.below(256) {
            0..=1 => 1,
            2..=40 => 2,
            _ => 3,
        };
        let size = pages(level);
        if level != 3 {
            start &= !(size - 1);
            count = size * if self.choices.one_in(8) { 2 } else { 1 };
            count = count.min((1 << (self.machine.settings.ipa_bits - 12)) - start);
        }
        let (pa, flags) = self.memory_and_flags(start);
        Asked { start, pages: count, level, pa, flags, sequence: self.sampled() }
    }

    /// Chooses what stands behind a page, and what the guest may do with it.
    pub(super) fn memory_and_flags(&mut self, page: u64) -> (u64, u64) {
        let mut flags = PROT_READ;
        for (flag, one_in) in [(PROT_EXEC, 2), (MAP_OLD, 3)] {
            flags |= if self.choices.one_in(one_in) { flag } else { 0 };
        }
        flags |= self.choices.pick(&[0, PROT_WRITE, PROT_WRITE, PROT_WRITE | MAP_CLEAN]);
        let variant = if self.choices.one_in(6) { self.choices.below(3) } else { 0 };
        (memory_of(page, variant), flags)
    }

    /// Chooses a sequence number: mostly the one of now.
    pub(super) fn sampled(&mut self) -> u64 {
        let now = self.contract.number();
        let ago = if self.choices.one_in(12) { self.choices.below(80) } else { 0 };
        now.saturating_sub(ago)
    }

    /// Maps a range.
    pub(super) fn map(&mut self) {
        let asked = self.ask();
        self.map_asked(asked);
    }

    pub(super) fn map_asked(&mut self, asked: Asked) {
        let request = Map {
            ipa: Ipa(asked.start * 4096),
            pa: Pa(asked.pa),
            page_count: asked.pages,
            level: asked.level(),
            attributes: Attributes::guest(asked.flags),
            sequence: asked.sequence,
        };
        self.note("map", asked.start, asked.pages, u64::from(asked.level));
        let outcome = self.call(|machine| machine.vm().map(machine, &request));
        let mut warrant = Warrant::none();
        for page in (asked.start..asked.start + outcome.pages).step_by(pages(asked.level) as usize)
        {
            self.expect_mapped(&asked, page, &mut warrant);
        }
        self.check_stop(&asked, outcome);
        self.judge(warrant);
        self.touch(asked.start, asked.start + asked.pages);
    }

    /// Puts a leaf into the model, or adds permissions to the one that is there.
    pub(super) fn expect_mapped(&mut self, asked: &Asked, page: u64, warrant: &mut Warrant) {
        let new = asked.leaf(page);
        let end = page + new.pages();
        let refused = self.contract.must_refuse(page, end, asked.sequence);
        assert!(!refused, "page {page:#x} was mapped past an invalidation");
        let there = self.space.overlapping(page, end).next();
        let Some((first, old)) = there else {
            return self.space.insert(page, new);
        };
        let same = (first, old.level, old.pa) == (page, new.level, new.pa);
        assert!(same, "page {page:#x} was mapped over {old:x?}");
        let leaf = self.space.leaf_mut(first).expect("it is there");
        leaf.granted |= new.granted;
        // What was granted before waits for its first write.
        leaf.writable |= new.writable && !old.granted;
        leaf.exec |= new.exec;
        if *leaf != old {
            warrant.local.push(page);
        }
    }

    /// Checks that a map had a reason to stop where it did.
    fn check_stop(&self, asked: &Asked, outcome: Outcome) {
        let size = pages(asked.level);
        let (page, end) = (asked.start + outcome.pages, asked.start + asked.pages);
        assert!(outcome.pages.is_multiple_of(size) && page <= end, "{outcome:?}");
        let Some(error) = outcome.error else {
            let interrupted = self.machine.record.borrow().interrupted;
            assert!(page == end || interrupted, "map stopped without a reason: {outcome:?}");
            return;
        };
        let batch_end = end.min(page + BATCH * size);
        let reason = match error {
            Error::Retry => self.may_retry(page, batch_end, asked.sequence),
            Error::Exists => self.is_in_the_way(asked, page),
            error => self.may_fail(error, asked.level),
        };
        assert!(reason, "map had no reason for {error:?} at page {page:#x}");
    }

    /// Tells whether a call may be refused with RETRY: by the contract, or because a table that it counted
    /// on was given back for want of another.
    pub(super) fn may_retry(&self, start: u64, end: u64, sampled: u64) -> bool {
        let out_of_pages = self.machine.record.borrow().out_of_pages;
        out_of_pages || self.contract.may_refuse(start, end, sampled)
    }

    /// Tells whether something else than what was asked for stands at a page.
    pub(super) fn is_in_the_way(&self, asked: &Asked, page: u64) -> bool {
        let walk = self.machine.walk(page);
        let other = self.space.overlapping(page, page + pages(asked.level)).next();
        // A table is in the way of a block, even if it is empty.
        walk.level > asked.level
            || other.is_some_and(|(_, leaf)| {
                (leaf.level, leaf.pa) != (asked.level, asked.leaf(page).pa)
            })
    }

    /// Tells whether something happened that a call reports as this error.
    pub(super) fn may_fail(&self, error: Error, level: u32) -> bool {
        match error {
            Error::NoMemory => self.machine.record.borrow().out_of_pages,
            Error::NotOwner | Error::Limit => self.machine.shares.was_refused(),
            Error::Invalid => level < self.machine.regime.start_level(),
            Error::NotSupported => level == 1 && !self.machine.settings.config.fwb,
            _ => false,
        }
    }
}
