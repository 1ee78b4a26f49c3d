//! Where a call's answer of one bit a page goes: registers x2 to x17, or a page of the host's.
#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::ops::Range;

use verdigris_abi::{AGE_BUFFER_PAGES, AGE_REGISTER_PAGES, Status};
use verdigris_core::call::{BitSink, Registers};
use verdigris_stage2::{DirtySink, WordSink};

use super::memory::HostPage;

/// The first register with bits.
const FIRST: usize = 2;
/// Words of bits that registers hold.
const REGISTER_WORDS: usize = AGE_REGISTER_PAGES as usize / 64;

/// Takes a page for words that don't go to registers.
pub fn buffer(sink: BitSink) -> Status<Option<HostPage>> {
    match sink {
        BitSink::Registers => Ok(None),
        BitSink::Buffer(page) => HostPage::take(page).map(Some),
    }
}

/// The words of an answer, wherever they lie: to ask for each where that is would cost as much as looking at
/// several leaves.
pub struct Words<'a> {
    base: *mut u64,
    count: usize,
    /// Zeroes are there already. A page is zeroed by lines; a block of which nothing is to be said has eight words.
    is_zeroed: bool,
    _held: PhantomData<&'a mut u64>,
}

impl<'a> Words<'a> {
    /// Makes the words of a page, or else of the registers, for an answer about so many pages.
    #[inline]
    pub fn new(page: &'a mut Option<HostPage>, x: &'a mut Registers, page_count: u64) -> Self {
        let count = page_count.div_ceil(64) as usize;
        let (base, most) = match page {
            Some(page) => (page.zeroed(count).cast(), HostPage::WORDS),
            None => (x[FIRST..].as_mut_ptr(), REGISTER_WORDS),
        };
        assert!(count <= most, "an answer has no more words than the call has pages");
        Self { base, count, is_zeroed: page.is_some(), _held: PhantomData }
    }
}

impl WordSink for Words<'_> {
    #[inline]
    fn put(&mut self, index: usize, word: u64) {
        assert!(index < self.count, "an answer has no more words than the call has pages");
        // SAFETY: one of `count` words at `base`, which are those of the page or of the registers that
        // are borrowed for as long as this value lives. The host may write a page of its own meanwhile, so
        // the store is volatile, and no reference to the word is made.
        unsafe { self.base.add(index).write_volatile(word) };
    }

    #[inline]
    fn fill(&mut self, indices: Range<usize>, word: u64) {
        if word == 0 && self.is_zeroed {
            return;
        }
        assert!(indices.start <= indices.end && indices.end <= self.count, "as for one word");
        let mut index = indices.start;
        // A block of 2 MiB has eight.
        while indices.end - index >= 8 {
            for index in index..index + 8 {
                // SAFETY: as in `put`.
                unsafe { self.base.add(index).write_volatile(word) };
            }
            index += 8;
        }
        (index..indices.end).for_each(|index| self.put(index, word));
    }
}

/// Final dirty bits of a call that takes pages away.
pub enum Dirty {
    /// The caller didn't ask for them.
    Unwanted,
    /// They are kept until the call's outcome is known: with an error, registers stay as they were.
    Registers([u64; REGISTER_WORDS]),
    /// They are written as they come.
    Buffer {
        /// Where to.
        page: HostPage,
        /// How many words the call can reach.
        word_count: usize,
        /// Whether these are zeroed: bits come in no order, and are added to what is there.
        is_zeroed: bool,
    },
}

impl Dirty {
    /// Prepares for a call on so many pages.
    pub fn new(sink: Option<BitSink>, page_count: u64) -> Status<Self> {
        Ok(match sink {
            None => Self::Unwanted,
            Some(BitSink::Registers) => Self::Registers([0; REGISTER_WORDS]),
            Some(BitSink::Buffer(page)) => Self::Buffer {
                page: HostPage::take(page)?,
                word_count: page_count.min(AGE_BUFFER_PAGES).div_ceil(64) as usize,
                is_zeroed: false,
            },
        })
    }

    /// Puts what belongs to so many pages done where the caller finds it.
    pub fn finish(self, page_count: u64, x: &mut Registers) {
        let count = page_count.div_ceil(64) as usize;
        match self {
            Self::Registers(words) => x[FIRST..FIRST + count].copy_from_slice(&words[..count]),
            // No bit came: all that was done is clean. A call that was refused has written nothing.
            Self::Buffer { mut page, is_zeroed: false, .. } => zero(&mut page, count),
            Self::Unwanted | Self::Buffer { .. } => {}
        }
    }

    fn add(&mut self, index: u64, bits: u64) {
        match self {
            Self::Unwanted => {}
            Self::Registers(words) => words[index as usize] |= bits,
            Self::Buffer { page, word_count, is_zeroed } => {
                if !*is_zeroed {
                    zero(page, *word_count);
                    *is_zeroed = true;
                }
                page.set_bits(index as usize, bits);
            }
        }
    }
}

fn zero(page: &mut HostPage, word_count: usize) {
    (0..word_count).for_each(|index| page.write(index, 0));
}

impl DirtySink for Dirty {
    fn capacity(&self) -> u64 {
        match self {
            Self::Unwanted => 0,
            Self::Registers(_) => AGE_REGISTER_PAGES,
            Self::Buffer { .. } => AGE_BUFFER_PAGES,
        }
    }

    fn dirty(&mut self, first: u64, bits: u64) {
        let (index, shift) = (first / 64, first % 64);
        // Most pages are clean, and a word that has no bit may lie past what the answer holds.
        for (index, bits) in [(index, bits << shift), (index + 1, bits >> 1 >> (63 - shift))] {
            if bits != 0 {
                self.add(index, bits);
            }
        }
    }
}
