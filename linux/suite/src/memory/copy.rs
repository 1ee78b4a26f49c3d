//! The copy that a live migration makes, and its comparison with the source.

use std::ops::Range;
use std::sync::atomic::Ordering;

use verdigris_guest::{control, ledger};

use super::{Memory, VERSIONS, WORDS};
use crate::bits::Bits;
use crate::pages::Pages;

impl Memory {
    /// Copies what was written in a range: as harvesting tells now, or other calls have told before.
    /// Tells whether harvesting told of any.
    pub fn harvest_and_copy(&self, pages: Range<usize>, to: Bits) -> bool {
        let count = pages.len() as u64;
        let dirty = self.guest.harvest_to(Self::ipa(pages.start), count, to);
        self.note_dirty(pages.start, &dirty);
        pages.for_each(|page| self.copy_if_dirty(page));
        dirty.contains(&true)
    }

    fn copy_if_dirty(&self, page: usize) {
        let slot = self.slot(page);
        if !slot.dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        let _frame_stays = self.lock(&self.slot(self.leader(page)).moving);
        // Whoever copies next reads later: a copy never becomes older.
        let mut copy = self.lock(&slot.copy);
        *copy = self.read_frame(self.frame(page));
    }

    /// Makes the last round of a migration, once nothing runs any more, and compares every byte.
    pub fn finish(&self, buffer: &Pages) {
        self.harvest_and_copy(0..self.page_count(), Bits::Buffer(buffer));
        let (ipa, count) = (Self::ipa(0), self.page_count() as u64);
        let late = self.guest.unmap_dirty(ipa, count, Bits::Buffer(buffer));
        let late = late.iter().filter(|dirty| **dirty).count();
        assert_eq!(late, 0, "pages that nobody wrote since they were harvested");
        self.check_vcpus();
        for page in 0..self.page_count() {
            self.check_page(page);
        }
        let free = self.lock(&self.free_frames);
        free.iter().for_each(|&frame| self.assert_poisoned(frame));
    }

    /// Fails if a vCPU found something wrong.
    pub fn check_vcpus(&self) {
        for vcpu in 0..self.guest.cpus().len() {
            let word = |word| self.guest.control(vcpu, word);
            let (address, value) = (word(control::WRONG_ADDRESS), word(control::WRONG_VALUE));
            let wrong = word(control::WRONG);
            assert_eq!(wrong, 0, "vCPU {vcpu} found {value:#x} at {address:#x}, and more");
        }
    }

    fn check_page(&self, page: usize) {
        let version = self.versions.read(page / WORDS, page % WORDS);
        let content = self.read_frame(self.frame(page));
        for (word, &value) in content.iter().enumerate() {
            let address = Self::ipa(page) + word as u64 * 8;
            let expected = ledger::content(address, version);
            assert_eq!(value, expected, "page {page}, word {word}, version {version}");
        }
        let copy = self.lock(&self.slot(page).copy);
        assert!(*copy == content, "the copy of page {page} is older than version {version}");
    }

    /// Returns the arguments of the payload's program for one vCPU.
    pub fn arguments(&self, vcpu: usize) -> [u64; 5] {
        let count = self.guest.cpus().len() as u64;
        [Self::ipa(0), self.page_count() as u64, VERSIONS, vcpu as u64, count]
    }
}
