//! Answers that have one bit a page: in registers, or in a page of the host's.
//!
//! Every call that asks something of each page of a range answers alike: progress in `x1`, and bit n % 64
//! of word n / 64 for page n of the call. Words are `x2` to `x17`, or lie in the buffer.

use verdigris_abi::{AGE_BUFFER_PAGES, AGE_REGISTER_PAGES, Status};

use crate::pages::Pages;
use crate::raw::Registers;

/// Where the bits of a call go.
#[derive(Clone, Copy)]
pub enum Bits<'pages> {
    /// To `x2` and up.
    Registers,
    /// To a page of the host's.
    Buffer(&'pages Pages),
}

impl Bits<'_> {
    /// Returns the most pages that one call answers for.
    pub fn limit(self) -> u64 {
        match self {
            Self::Registers => AGE_REGISTER_PAGES,
            Self::Buffer(_) => AGE_BUFFER_PAGES,
        }
    }

    /// Returns the flag that asks for a buffer, where there is one.
    pub fn flag(self, flag: u64) -> u64 {
        match self {
            Self::Registers => 0,
            Self::Buffer(_) => flag,
        }
    }

    /// Returns the argument that names the buffer.
    pub fn address(self) -> u64 {
        match self {
            Self::Registers => 0,
            Self::Buffer(pages) => pages.address(0),
        }
    }

    /// Reads the bits of an answer's first `count` pages.
    pub fn read(self, reply: &Registers, count: u64) -> Vec<bool> {
        let word = |index: usize| match self {
            Self::Registers => reply.0[2 + index],
            Self::Buffer(pages) => pages.read(0, index),
        };
        (0..count as usize).map(|page| word(page / 64) >> (page % 64) & 1 == 1).collect()
    }

    /// Makes calls until all of a range is answered for: `call(pages done, pages wanted)`.
    pub fn collect(
        self,
        page_count: u64,
        mut call: impl FnMut(u64, u64) -> Registers,
    ) -> Status<Vec<bool>> {
        let mut bits: Vec<bool> = Vec::new();
        while (bits.len() as u64) < page_count {
            let done = bits.len() as u64;
            let wanted = (page_count - done).min(self.limit());
            let reply = call(done, wanted);
            reply.status()?;
            let progress = reply.0[1];
            assert!(progress <= wanted, "more done than asked");
            bits.extend(self.read(&reply, progress));
        }
        Ok(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_in_the_order_of_pages() {
        let mut reply = Registers([0; 18]);
        (reply.0[2], reply.0[3]) = (1 << 63 | 1, 2);
        let bits = Bits::Registers.read(&reply, 130);
        let set: Vec<_> = (0..130).filter(|&page| bits[page]).collect();
        assert_eq!(set, [0, 63, 65]);
    }

    #[test]
    fn calls_go_on_where_the_last_one_ended() {
        let mut calls = Vec::new();
        let bits = Bits::Registers.collect(2000, |done, wanted| {
            calls.push((done, wanted));
            let mut reply = Registers([0; 18]);
            (reply.0[1], reply.0[2]) = (wanted.min(700), 1);
            reply
        });
        let bits = bits.expect("no error");
        assert_eq!(calls, [(0, 1024), (700, 1024), (1400, 600)]);
        let set: Vec<_> = (0..2000).filter(|&page| bits[page]).collect();
        assert_eq!(set, [0, 700, 1400]);
    }
}
