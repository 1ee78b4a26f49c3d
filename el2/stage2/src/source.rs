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

/// A page of a list: its address, and in the bits below that its `PROT_` flags, `MAP_OLD`, `MAP_CLEAN`.
///
/// A value of this type is well-formed, so that a list can be looked at as a whole before any of it is
/// mapped. One that is 0 leaves its place alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ListEntry(u64);

impl ListEntry {
    /// Leaves its place alone.
    pub const NONE: Self = Self(0);

    /// Reads an entry. [`Error::Invalid`]: an unknown flag, no permission to read, clean without the
    /// permission to write, or an address that stage 2 can't lead to.
    pub const fn new(bits: u64) -> Result<Self, Error> {
        const REQUIRED: u64 = flags::PROT_READ;
        const KNOWN: u64 =
            REQUIRED | flags::PROT_WRITE | flags::PROT_EXEC | flags::MAP_OLD | flags::MAP_CLEAN;
        let flags = bits & (PAGE_SIZE - 1);
        let logs_nothing = flags & flags::MAP_CLEAN != 0 && flags & flags::PROT_WRITE == 0;
        let good = flags & !KNOWN == 0 && flags & REQUIRED != 0 && !logs_nothing && bits < 1 << 48;
        if bits == 0 || good { Ok(Self(bits)) } else { Err(Error::Invalid) }
    }
}

impl Source for &[ListEntry] {
    #[inline(always)]
    fn leaf(&self, index: u64) -> Option<Wanted> {
        let bits = self[index as usize].0;
        let flags = bits & (PAGE_SIZE - 1);
        let wanted = Wanted { pa: Pa(bits - flags), attributes: Attributes::guest(flags) };
        (bits != 0).then_some(wanted)
    }
}
