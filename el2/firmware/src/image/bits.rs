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
    Buffer(HostPage),
}

impl Dirty {
    /// Prepares for a call on so many pages.
    pub fn new(sink: Option<BitSink>, page_count: u64) -> Status<Self> {
        Ok(match sink {
            None => Self::Unwanted,
            Some(BitSink::Registers) => Self::Registers([0; REGISTER_WORDS]),
            Some(BitSink::Buffer(page)) => {
                let mut page = HostPage::take(page)?;
                // Bits come in no order, and are added to what is there.
                let words = page_count.min(AGE_BUFFER_PAGES).div_ceil(64);
                (0..words as usize).for_each(|index| page.write(index, 0));
                Self::Buffer(page)
            }
        })
    }

    /// Returns what the registers are to hold, for so many pages done.
    pub fn finish(self, page_count: u64, x: &mut Registers) {
        if let Self::Registers(words) = self {
            let count = page_count.div_ceil(64) as usize;
            x[FIRST..FIRST + count].copy_from_slice(&words[..count]);
        }
    }

    fn add(&mut self, index: u64, bits: u64) {
        match self {
            Self::Unwanted => {}
            Self::Registers(words) => words[index as usize] |= bits,
            Self::Buffer(page) => page.set_bits(index as usize, bits),
        }
    }
}

impl DirtySink for Dirty {
    fn capacity(&self) -> u64 {
        match self {
            Self::Unwanted => 0,
            Self::Registers(_) => AGE_REGISTER_PAGES,
            Self::Buffer(_) => AGE_BUFFER_PAGES,
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
