//! A VMID together with the generation in which it is valid, in one word.

/// Bits of a VMID in a tag: as many as the widest VMID has (FEAT_VMID16).
const VMID_BITS: u32 = 16;

/// A generation (bits 63 to 16) and a VMID of it (bits 15 to 0).
///
/// Generations count from 1 and never come again, so a tag names the same VM for ever. VMID 0 is the
/// host's. So a CPU's slot reads "in this generation, this runs here" in one word: a VMID, or the
/// host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(pub(super) u64);

impl Tag {
    /// The tag of a VM that never ran: no generation has number 0.
    pub(super) const NONE: Self = Self(0);

    /// What is added to a tag to move it to the next generation.
    pub(super) const GENERATION_STEP: u64 = 1 << VMID_BITS;

    /// Makes a tag.
    pub(super) const fn new(generation: u64, vmid: u16) -> Self {
        assert!(generation < 1 << (u64::BITS - VMID_BITS), "out of generations");
        Self(generation << VMID_BITS | vmid as u64)
    }

    /// Returns the generation.
    pub(super) const fn generation(self) -> u64 {
        self.0 >> VMID_BITS
    }

    /// Returns the VMID.
    pub(super) const fn vmid(self) -> u16 {
        self.0 as u16
    }

    /// Returns the host's tag of the same generation.
    pub(super) const fn host(self) -> Self {
        Self::new(self.generation(), 0)
    }
}
