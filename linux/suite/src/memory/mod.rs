//! A guest's memory as a host keeps it: pages that are taken away, moved, copied and given back while the
//! guest checks and writes them.
//!
//! This is what a Linux does with the memory behind a guest, by the firmware's contract: a fault is
//! answered with the sequence number of its exit; whoever moves a page begins, copies, changes its own
//! table, ends. What the guest finds wrong, what differs in the copy and what was written to a page
//! after it had been taken away is the firmware's fault, or this module's.
//!
//! The pages are of two kinds. *Loose* ones lie anywhere and move one by one. *Blocks* are 2 MiB of
//! consecutive pages that move as a whole, so they can be mapped, split and collapsed as blocks.

mod copy;
mod faults;
mod moves;
mod operations;
mod run;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use verdigris_guest::scramble;

use crate::guest::{DATA, Guest};
use crate::pages::{PAGE, Pages};
use crate::vm::{IPA_BITS, RW, Vm};

pub use operations::{ALL, Operation, named};
pub use run::{Duty, Limits, Report, run};

/// Pages of a block, and their log2.
pub const BLOCK_PAGES: usize = 1 << BLOCK_ORDER;
const BLOCK_ORDER: u32 = 9;
/// IPA of the ledger.
const VERSIONS: u64 = 0x5000_0000;
/// What a page holds that nobody should use.
const POISON: u64 = 0xdead_dead_dead_dead;
/// Words of a page.
const WORDS: usize = PAGE / 8;
/// Frames that loose pages can move to.
const SPARE_FRAMES: usize = BLOCK_PAGES;
/// Blocks that blocks can move to.
const SPARE_BLOCKS: usize = 1;

/// How much memory of which kind, and who writes it.
#[derive(Clone, Copy)]
pub struct Size {
    /// Loose pages, in units of a block.
    pub loose_blocks: usize,
    /// Blocks.
    pub blocks: usize,
    /// vCPUs.
    pub vcpus: usize,
    /// Table pages to begin with: few, so that they run out.
    pub table_pages: usize,
}

/// One page of the guest.
struct Slot {
    /// The frame that holds it.
    frame: AtomicUsize,
    /// Held while it moves, and while it is copied: its frame stays.
    moving: Mutex<()>,
    /// Held while it is mapped, and while it moves without an invalidation around it.
    mapping: Mutex<()>,
    /// It was written since it was copied.
    dirty: AtomicBool,
    /// The copy that a migration would have sent.
    copy: Mutex<Vec<u64>>,
}

/// A guest and all that it has.
pub struct Memory {
    guest: Guest,
    size: Size,
    slots: Vec<Slot>,
    frames: Pages,
    versions: Pages,
    free_frames: Mutex<Vec<usize>>,
    free_blocks: Mutex<Vec<usize>>,
    /// The latest sequence number that any exit told.
    sequence: AtomicU64,
}

/// Random numbers, the same for the same seed.
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(scramble(seed))
    }

    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// Returns a number below another.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 32) as usize % limit
    }
}

impl Memory {
    /// Makes a guest whose memory is all zero and mapped nowhere yet.
    pub fn new(size: Size) -> Self {
        let vm = Vm::bare(IPA_BITS).expect("a VM can be created");
        vm.donate(size.table_pages);
        let guest = Guest::inside(vm, size.vcpus);
        let loose = size.loose_blocks * BLOCK_PAGES;
        let page_count = loose + size.blocks * BLOCK_PAGES;
        let frame_blocks = page_count / BLOCK_PAGES + SPARE_FRAMES / BLOCK_PAGES + SPARE_BLOCKS;
        let frames = Pages::chunks(BLOCK_ORDER, frame_blocks);
        let versions = Pages::single((page_count * 8).div_ceil(PAGE));
        guest.map_pages(VERSIONS, &versions, RW);
        let slots = (0..page_count).map(|page| Slot::new(first_frame(page, loose))).collect();
        let memory = Self {
            guest,
            size,
            slots,
            frames,
            versions,
            free_frames: Mutex::default(),
            free_blocks: Mutex::new(
                (0..SPARE_BLOCKS).map(|n| page_count + n * BLOCK_PAGES).collect(),
            ),
            sequence: AtomicU64::new(0),
        };
        let spare = page_count + SPARE_BLOCKS * BLOCK_PAGES;
        (page_count..spare + SPARE_FRAMES).for_each(|frame| memory.poison(frame));
        memory.lock(&memory.free_frames).extend(spare..spare + SPARE_FRAMES);
        memory
    }

    /// Returns the guest.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Gives up the guest and the pages that it was lent, in the order in which they may go.
    pub fn into_parts(self) -> (Guest, [Pages; 2]) {
        (self.guest, [self.frames, self.versions])
    }

    /// Returns how many pages there are.
    pub fn page_count(&self) -> usize {
        self.slots.len()
    }

    /// Returns how many of them are loose.
    fn loose_count(&self) -> usize {
        self.size.loose_blocks * BLOCK_PAGES
    }

    /// Returns the page whose locks stand for a page: its own, or the first of its block.
    fn leader(&self, page: usize) -> usize {
        if page < self.loose_count() { page } else { page & !(BLOCK_PAGES - 1) }
    }

    fn slot(&self, page: usize) -> &Slot {
        &self.slots[page]
    }

    fn frame(&self, page: usize) -> usize {
        self.slots[page].frame.load(Ordering::Acquire)
    }

    fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// Returns the IPA of a page.
    fn ipa(page: usize) -> u64 {
        DATA + (page * PAGE) as u64
    }

    fn poison(&self, frame: usize) {
        (0..WORDS).for_each(|word| self.frames.write(frame, word, POISON));
    }

    /// Fails if somebody wrote to a frame that nobody has.
    fn assert_poisoned(&self, frame: usize) {
        let touched = (0..WORDS).find(|&word| self.frames.read(frame, word) != POISON);
        assert_eq!(touched, None, "a free frame was written: a translation outlived its removal");
    }

    fn read_frame(&self, frame: usize) -> Vec<u64> {
        (0..WORDS).map(|word| self.frames.read(frame, word)).collect()
    }

    fn write_frame(&self, frame: usize, content: &[u64]) {
        content.iter().enumerate().for_each(|(word, &value)| self.frames.write(frame, word, value));
    }

    /// Notes pages that some call said were written.
    fn note_dirty(&self, first: usize, bits: &[bool]) {
        for (page, _) in bits.iter().enumerate().filter(|(_, dirty)| **dirty) {
            self.slots[first + page].dirty.store(true, Ordering::Release);
        }
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().expect("no thread panicked with it")
    }
}

impl Slot {
    fn new(frame: usize) -> Self {
        Self {
            frame: AtomicUsize::new(frame),
            moving: Mutex::default(),
            mapping: Mutex::default(),
            dirty: AtomicBool::new(false),
            copy: Mutex::new(vec![0; WORDS]),
        }
    }
}

/// Loose pages begin in scattered frames, so that no two neighbours lie beside each other.
fn first_frame(page: usize, loose: usize) -> usize {
    const ODD: usize = 0x5555_5555;
    if page < loose && loose.is_power_of_two() {
        page.wrapping_mul(ODD) & (loose - 1)
    } else {
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_pages_are_scattered_and_blocks_are_not() {
        let mut frames: Vec<_> = (0..2048).map(|page| first_frame(page, 1024)).collect();
        assert!((0..1023).all(|page| frames[page + 1] != frames[page] + 1));
        assert_eq!(frames[1024..], (1024..2048).collect::<Vec<_>>());
        frames.sort_unstable();
        assert_eq!(frames, (0..2048).collect::<Vec<_>>(), "two pages in one frame");
    }
}
