//! Moving pages, in the two ways that Linux has.
//!
//! *With an invalidation around it* (migration, compaction): from begin on the page can't be mapped, so
//! nobody needs a lock; a map that was prepared before is refused by its number. *By replacing it* (merging,
//! copy on write): the page stays readable, write-protected, and SET puts the other one there; whoever
//! would allow a write meanwhile has to wait, by a lock of the host's.

use std::sync::atomic::Ordering;

use verdigris_abi::Error;

use super::{BLOCK_PAGES, Memory, POISON, Random, WORDS};
use crate::bits::Bits;
use crate::pages::Pages;
use crate::vm::RW;

impl Memory {
    /// Moves a loose page under an invalidation; tells whether there was a frame to move it to.
    pub fn move_page(&self, page: usize) -> bool {
        let slot = self.slot(page);
        let _moving = self.lock(&slot.moving);
        let Some(new) = self.take_frame() else { return false };
        let old = self.frame(page);
        let dirty = self.guest.begin_dirty(Self::ipa(page), 1, Bits::Registers);
        self.note_dirty(page, &dirty);
        let content = self.read_frame(old);
        self.write_frame(new, &content);
        slot.frame.store(new, Ordering::Release);
        self.guest.invalidate_end(Self::ipa(page), 1, 1).expect("a mark of ours");
        self.retire_frame(old, &content);
        true
    }

    /// Moves a loose page by replacing it; tells whether SET put the other one there.
    pub fn replace_page(&self, page: usize) -> bool {
        let slot = self.slot(page);
        let _moving = self.lock(&slot.moving);
        let _mapping = self.lock(&slot.mapping);
        let Some(new) = self.take_frame() else { return false };
        let (old, ipa) = (self.frame(page), Self::ipa(page));
        let sequence = self.sequence();
        self.fill(page, 1);
        self.guest.write_protect(ipa, 1).expect("a good range");
        let content = self.read_frame(old);
        self.write_frame(new, &content);
        slot.frame.store(new, Ordering::Release);
        let result = self.guest.set(ipa, self.frames.address(new), RW, sequence);
        let dirty = match result {
            Ok(dirty) => vec![dirty],
            // Invalidated since, or no table page: then it goes, and is faulted in again.
            Err(Error::Retry | Error::NoMemory) => self.guest.unmap_dirty(ipa, 1, Bits::Registers),
            Err(error) => panic!("page {page} can't be replaced: {error}"),
        };
        self.note_dirty(page, &dirty);
        self.retire_frame(old, &content);
        result.is_ok()
    }

    /// Moves a block under an invalidation; tells whether there was a place to move it to.
    pub fn move_block(&self, page: usize, buffer: &Pages) -> bool {
        let first = self.leader(page);
        let _moving = self.lock(&self.slot(first).moving);
        let Some(new) = self.lock(&self.free_blocks).pop() else { return false };
        let (old, ipa, count) = (self.frame(first), Self::ipa(first), BLOCK_PAGES as u64);
        let dirty = self.guest.begin_dirty(ipa, count, Bits::Buffer(buffer));
        self.note_dirty(first, &dirty);
        for page in 0..BLOCK_PAGES {
            let content = self.read_frame(old + page);
            self.write_frame(new + page, &content);
            self.slot(first + page).frame.store(new + page, Ordering::Release);
            (0..WORDS).for_each(|word| self.frames.write(old + page, word, POISON));
        }
        self.guest.invalidate_end(ipa, count, count).expect("a mark of ours");
        (old..old + BLOCK_PAGES).for_each(|frame| self.assert_poisoned(frame));
        self.lock(&self.free_blocks).push(old);
        true
    }

    fn take_frame(&self) -> Option<usize> {
        let frame = self.lock(&self.free_frames).pop()?;
        self.assert_poisoned(frame);
        Some(frame)
    }

    /// Poisons a frame that a page has left, and keeps it for others.
    fn retire_frame(&self, frame: usize, content: &[u64]) {
        assert_eq!(self.read_frame(frame), content, "written after it had been taken away");
        self.poison(frame);
        // The oldest goes next: the longer a frame lies there, the more would show.
        self.lock(&self.free_frames).insert(0, frame);
    }

    /// Chooses a loose page.
    pub fn any_loose(&self, random: &mut Random) -> usize {
        random.below(self.loose_count())
    }

    /// Chooses a page of a block.
    pub fn any_of_a_block(&self, random: &mut Random) -> usize {
        self.loose_count() + random.below(self.page_count() - self.loose_count())
    }
}
