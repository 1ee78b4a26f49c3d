//! Which part a CPU is, from MIDR_EL1 (Arm ARM, D24.2).
//!
//! Part numbers are from the Technical Reference Manuals of the parts, section "MIDR_EL1".

/// The implementer code of Arm Limited.
pub(super) const ARM: u8 = 0x41;
/// The implementer code of Ampere.
pub(super) const AMPERE: u8 = 0xc0;
/// The implementer code of Qualcomm.
pub(super) const QUALCOMM: u8 = 0x51;
/// The implementer code of Microsoft.
pub(super) const MICROSOFT: u8 = 0x6d;

/// MIDR_EL1 taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Midr {
    /// Who made it.
    pub implementer: u8,
    /// What it is, in the implementer's own numbering.
    pub part: u16,
    /// The "rX" of the revision, in bits 7:4, and the "pY", in bits 3:0: `0x21` is r2p1.
    pub revision: u8,
}

impl Midr {
    /// Takes a value of MIDR_EL1 apart.
    pub const fn new(value: u64) -> Self {
        Self {
            implementer: (value >> 24 & 0xff) as u8,
            part: (value >> 4 & 0xfff) as u16,
            revision: (value >> 16 & 0xf0 | value & 0xf) as u8,
        }
    }

    /// Tells whether it is this part, in any revision.
    pub(super) const fn is(self, implementer: u8, part: u16) -> bool {
        self.implementer == implementer && self.part == part
    }
}
