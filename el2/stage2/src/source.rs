//! What map puts behind addresses that follow each other: consecutive memory, or a page of a list each.
//!
//! Map itself is the same for both: batches, shares, tables, gate and progress know indices alone. A list
//! may leave places out. They count as done, and stay as they are.

use crate::attributes::Attributes;
use crate::descriptor::Level;
use verdigris_abi::{Error, PAGE_SIZE, Pa, flags};

/// What one leaf is to be.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) pa: Pa,
    pub(crate) attributes: Attributes,
}

/// What the leaves of a request are to be, by their number.
pub(crate) trait Source: Copy {
    /// Returns what a leaf is to be; `None` where the request leaves its place alone.
    fn leaf(&self, index: u64) -> Option<Wanted>;
}

/// Consecutive memory, in leaves of one size.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) pa: Pa,
    pub(crate) level: Level,
    pub(crate) attributes: Attributes,
}

impl Source for Run {
    #[inline(always)]
    fn leaf(&self, index: u64) -> Option<Wanted> {
        let pa = Pa(self.pa.0 + index * self.level.bytes());
        Some(Wanted { pa, attributes: self.attributes })
    }
}

/// A list of pages: for each its address, and in the bits below that its `PROT_` flags, `MAP_OLD`,
/// `MAP_CLEAN`. An entry of 0 leaves its place alone.
///
/// A value of this type is well-formed, so that a list is looked at as a whole before any of it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a>(&'a [u64]);

impl<'a> List<'a> {
    /// Reads a list. [`Error::Invalid`]: an entry has an unknown flag, no permission to read, is clean
    /// without the permission to write, or an address that stage 2 can't lead to.
    pub fn new(entries: &'a [u64]) -> Result<Self, Error> {
        let good = entries.iter().all(|&bits| bits == 0 || is_good(bits));
        if good { Ok(Self(entries)) } else { Err(Error::Invalid) }
    }

    pub(crate) const fn len(self) -> u64 {
        self.0.len() as u64
    }
}

const fn is_good(bits: u64) -> bool {
    const REQUIRED: u64 = flags::PROT_READ;
    const KNOWN: u64 =
        REQUIRED | flags::PROT_WRITE | flags::PROT_EXEC | flags::MAP_OLD | flags::MAP_CLEAN;
    let flags = bits & (PAGE_SIZE - 1);
    let logs_nothing = flags & flags::MAP_CLEAN != 0 && flags & flags::PROT_WRITE == 0;
    flags & !KNOWN == 0 && flags & REQUIRED != 0 && !logs_nothing && bits < 1 << 48
}

impl Source for List<'_> {
    #[inline(always)]
    fn leaf(&self, index: u64) -> Option<Wanted> {
        let bits = self.0[index as usize];
        let flags = bits & (PAGE_SIZE - 1);
        let wanted = Wanted { pa: Pa(bits - flags), attributes: Attributes::guest(flags) };
        (bits != 0).then_some(wanted)
    }
}
