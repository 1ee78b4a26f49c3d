//! The shape of a stage-2 tree: start level, concatenated root pages, and the VTCR_EL2 fields.
//!
//! Stage 2 may begin at a level whose table is up to 16 pages, concatenated (Arm ARM DDI 0487, D8.2, "Concatenated translation tables"): this
//! saves a level, which every walk of the guest pays up to 5 times. The choice is a pure function of
//! the IPA size and of what the CPU's physical addresses allow.

use crate::descriptor::{INDEX_BITS, Level};
use verdigris_abi::{Error, Ipa, PAGE_SHIFT, PAGE_SIZE};

/// Most root pages that can be concatenated.
const MAX_ROOT_PAGES_LOG2: u32 = 4;

/// The shape of one stage-2 tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    ipa_bits: u32,
    start: Level,
}

impl Geometry {
    /// Chooses the tree with the fewest levels for an IPA size of 32 to 48 bits.
    ///
    /// `pa_bits` is the physical address size of the CPUs: an IPA size beyond it would make every
    /// walk fault (D8.2, the IPA size), and so is refused.
    pub const fn new(ipa_bits: u32, pa_bits: u32) -> Result<Self, Error> {
        if ipa_bits < 32 || ipa_bits > 48 || ipa_bits > pa_bits {
            return Err(Error::Invalid);
        }
        let start = if fits(ipa_bits, Level::L2) {
            Level::L2
        } else if fits(ipa_bits, Level::L1) {
            Level::L1
        } else {
            Level::L0
        };
        Ok(Self { ipa_bits, start })
    }

    /// Makes a tree of the model's size: two levels of two entries, 16 KiB of IPA.
    #[cfg(loom)]
    pub const fn tiny() -> Self {
        Self { ipa_bits: PAGE_SHIFT + 2 * INDEX_BITS, start: Level::L2 }
    }

    /// Makes the same with three levels.
    #[cfg(loom)]
    pub const fn tiny_of_3() -> Self {
        Self { ipa_bits: PAGE_SHIFT + 3 * INDEX_BITS, start: Level::L1 }
    }

    /// Returns the size of the IPA space in bits.
    pub const fn ipa_bits(self) -> u32 {
        self.ipa_bits
    }

    /// Returns the size of the IPA space in bytes.
    pub const fn ipa_bytes(self) -> u64 {
        1 << self.ipa_bits
    }

    /// Returns the level that walks begin at.
    pub const fn start_level(self) -> Level {
        self.start
    }

    /// Returns the number of root pages: 1 to 16.
    pub const fn root_pages(self) -> u64 {
        let single = self.start.shift() + INDEX_BITS;
        1 << self.ipa_bits.saturating_sub(single)
    }

    /// Returns the alignment in bytes that the root needs: its own size.
    pub const fn root_alignment(self) -> u64 {
        self.root_pages() * PAGE_SIZE
    }

    /// Returns VTCR_EL2.T0SZ.
    pub const fn t0sz(self) -> u64 {
        64 - self.ipa_bits as u64
    }

    /// Returns VTCR_EL2.SL0 (the value of the field) for the 4 KiB granule.
    pub const fn sl0(self) -> u64 {
        match self.start {
            Level::L0 => 2,
            Level::L1 => 1,
            Level::L2 | Level::L3 => 0,
        }
    }

    /// Tells whether a leaf can stand at that level.
    pub const fn has_leaves_at(self, level: Level) -> bool {
        level as u8 >= self.start as u8 && level as u8 >= Level::L1 as u8
    }

    /// Tells whether `[start, start + bytes)` is inside the IPA space, without overflow.
    pub const fn contains(self, start: Ipa, bytes: u64) -> bool {
        match start.0.checked_add(bytes) {
            Some(end) => end <= self.ipa_bytes(),
            None => false,
        }
    }

    /// Returns the number of the root page that an IPA's walk begins in.
    pub(crate) const fn root_page(self, ipa: Ipa) -> u64 {
        ipa.0 >> (self.start.shift() + INDEX_BITS)
    }
}

/// Tells whether up to 16 concatenated tables of that level span the IPA space.
const fn fits(ipa_bits: u32, level: Level) -> bool {
    ipa_bits <= level.shift() + INDEX_BITS + MAX_ROOT_PAGES_LOG2
}

const _: () = assert!(PAGE_SHIFT == 12, "the tables are those of the 4 KiB granule");
