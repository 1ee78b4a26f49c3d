//! The guest's faults: a page is mapped where the host's own table says it is.

use std::sync::atomic::Ordering;

use verdigris_abi::{Error, flags};

use super::{BLOCK_PAGES, Memory, Random};
use crate::guest::DATA;
use crate::vcpu::Fault;
use crate::vm::{RO, RW};

/// Table pages that are donated when there are none.
const MORE_TABLES: usize = 2;

/// One leaf to be mapped.
struct Leaf {
    page: usize,
    page_count: usize,
    flags: u64,
}

impl Memory {
    /// Answers a fault, with one of the leaves that a host may choose. The guest tries again, whatever came of it.
    pub fn resolve(&self, fault: &Fault, random: &mut Random) {
        self.sequence.fetch_max(fault.sequence, Ordering::AcqRel);
        let page = usize::try_from((fault.page() - DATA) >> 12).expect("an IPA of the memory");
        assert!(page < self.page_count(), "a fault elsewhere: {fault:x?}");
        let leaf = self.choose(page, fault, random);
        let _mapping = self.lock(&self.slot(self.leader(page)).mapping);
        let address = self.frames.address(self.frame(leaf.page));
        let (ipa, count) = (Self::ipa(leaf.page), leaf.page_count as u64);
        match self.guest.map(ipa, address, count, leaf.flags, fault.sequence) {
            // Another page, or one of another size, came first; or an invalidation is under way.
            Ok(()) | Err(Error::Retry | Error::Exists) => {}
            Err(Error::NoMemory) => self.find_tables(random),
            Err(error) => panic!("page {page} can't be mapped: {error}"),
        }
    }

    fn choose(&self, page: usize, fault: &Fault, random: &mut Random) -> Leaf {
        let permissions = match random.below(4) {
            0 if !fault.is(flags::FAULT_WRITE) => RO,
            1 => RW | flags::MAP_OLD,
            2 => RW | flags::MAP_CLEAN,
            _ => RW,
        };
        let is_block = page >= self.loose_count() && random.below(2) == 0;
        if is_block {
            let flags = permissions | flags::MAP_BLOCK_2M;
            return Leaf { page: self.leader(page), page_count: BLOCK_PAGES, flags };
        }
        Leaf { page, page_count: 1, flags: permissions }
    }

    /// Maps pages of one leader that aren't there, all with the same rights, as far as that can be done now. The
    /// caller holds the lock for mapping.
    pub fn fill(&self, first: usize, page_count: usize) {
        let sequence = self.sequence();
        let address = self.frames.address(self.frame(first));
        match self.guest.map(Self::ipa(first), address, page_count as u64, RW, sequence) {
            // A block is there; it was invalidated since; no table page.
            Ok(()) | Err(Error::Exists | Error::Retry | Error::NoMemory) => {}
            Err(error) => panic!("{page_count} pages from {first} can't be mapped: {error}"),
        }
    }

    /// Maps what is missing of a block.
    pub fn fill_block(&self, first: usize) {
        let _mapping = self.lock(&self.slot(first).mapping);
        self.fill(first, BLOCK_PAGES);
    }

    /// Makes table pages free: out of the VM's empty tables, or new ones.
    fn find_tables(&self, random: &mut Random) {
        if random.below(2) == 0 {
            self.guest.reclaim_tables(DATA, self.page_count() as u64).expect("a good range");
        } else {
            self.guest.donate(MORE_TABLES);
        }
    }
}
