//! Where a call's answer of one bit a page goes: registers x2 to x17, or a page of the host's.

use verdigris_abi::{AGE_BUFFER_PAGES, AGE_REGISTER_PAGES, Status};
use verdigris_core::call::{BitSink, Registers};
use verdigris_stage2::DirtySink;

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

/// Puts a word where the caller wants it.
#[inline]
pub fn put(page: &mut Option<HostPage>, x: &mut Registers, index: usize, word: u64) {
    match page {
        Some(page) => page.write(index, word),
        None => x[FIRST + index] = word,
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
