//! Attribute sets of leaves, named by purpose.
//!
//! Stage 2 combines its memory type with the one that the VM's own stage 1 asked for, and the
//! encoding of MemAttr (bits 5:2) depends on HCR_EL2.FWB: without it a plain memory type that can only
//! weaken stage 1's (Arm ARM DDI 0487, D8.6), with it a rule (D8.6, FEAT_S2FWB). So a set knows both.

use crate::descriptor::{AF, Descriptor, Level};
use verdigris_abi::{Pa, flags};

/// MemAttr without FEAT_S2FWB: Normal, outer and inner write-back.
const NORMAL_WRITE_BACK: u64 = 0b1111;
/// MemAttr under HCR_EL2.FWB: Normal write-back, whatever stage 1 says.
const FORCE_WRITE_BACK: u64 = 0b0110;
/// MemAttr under HCR_EL2.FWB: what stage 1 says.
const KEEP_STAGE1: u64 = 0b0111;

const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const NO_EXECUTE: u64 = 1 << 54;
/// Dirty bit modifier (D8.5.3): with VTCR_EL2.HD the walker itself notes the first write.
const DBM: u64 = 1 << 51;
/// Software bit: the host allows writing.
const GRANTED: u64 = 1 << 55;

/// The attributes of a leaf: memory type, shareability, permissions, access flag, software bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    plain: u64,
    forced: u64,
}

impl Attributes {
    /// Memory of the host: it may do anything with it, and is never aged (AF stays set).
    ///
    /// With forced write-back the host still chooses its own attributes: it maps buffers of
    /// non-coherent devices uncached.
    pub const HOST_RAM: Self =
        Self::new(NORMAL_WRITE_BACK, KEEP_STAGE1, READ | WRITE | INNER_SHAREABLE | GRANTED | AF);

    /// Everything else that the host may reach: devices, and holes that answer with an abort.
    ///
    /// Stage 1 alone says what is Device (with the host's MMU off, everything is, D8.2): stage 2 can
    /// only weaken that, and Device here would take the write-combining of a frame buffer away. Not
    /// executable, so that no speculative fetch reaches a device.
    pub const HOST_DEVICE: Self = Self::HOST_RAM.with(NO_EXECUTE);

    /// What the host finds where memory isn't its own: zeroes to read. Under forced write-back also where the
    /// host asks for another memory type, so that it reads what the caches hold.
    pub const HOST_ZEROES: Self =
        Self::new(NORMAL_WRITE_BACK, FORCE_WRITE_BACK, READ | INNER_SHAREABLE | NO_EXECUTE | AF);

    /// Memory of a guest, read-only, not executable, young: what [`Self::guest`] starts from.
    pub const GUEST_RAM: Self =
        Self::new(NORMAL_WRITE_BACK, FORCE_WRITE_BACK, READ | INNER_SHAREABLE | NO_EXECUTE | AF);

    const fn new(plain: u64, forced: u64, rest: u64) -> Self {
        Self { plain: plain << 2 | rest, forced: forced << 2 | rest }
    }

    /// Makes guest memory from the `PROT_` flags, `MAP_OLD` and `MAP_CLEAN` of a call.
    ///
    /// Clean means that the next write is logged: granted, and not writable yet.
    pub const fn guest(flags: u64) -> Self {
        let mut set = Self::GUEST_RAM;
        if flags & flags::PROT_WRITE != 0 {
            set = set.with(if flags & flags::MAP_CLEAN != 0 { GRANTED } else { WRITE | GRANTED });
        }
        if flags & flags::PROT_EXEC != 0 {
            set = set.without(NO_EXECUTE);
        }
        if flags & flags::MAP_OLD != 0 {
            set = set.without(AF);
        }
        set
    }

    /// Tells whether instruction fetches are allowed.
    pub const fn is_executable(self) -> bool {
        self.plain & NO_EXECUTE == 0
    }

    const fn with(self, bits: u64) -> Self {
        Self { plain: self.plain | bits, forced: self.forced | bits }
    }

    const fn without(self, bits: u64) -> Self {
        Self { plain: self.plain & !bits, forced: self.forced & !bits }
    }

    /// Makes the leaf that maps `pa` at `level`; `fwb` is the value of HCR_EL2.FWB, `hd` of VTCR_EL2.HD.
    ///
    /// DBM goes with the host's grant: a leaf has both or neither. Panics if the address isn't aligned
    /// to the size of the leaf.
    pub fn leaf(self, pa: Pa, level: Level, fwb: bool, hd: bool) -> Descriptor {
        let bits = if fwb { self.forced } else { self.plain };
        let modifier = if hd && bits & GRANTED != 0 { DBM } else { 0 };
        Descriptor::leaf(pa, level, bits | modifier)
    }
}
