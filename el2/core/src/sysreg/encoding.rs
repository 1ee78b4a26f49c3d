//! The name that the instruction set gives a system register.

use core::fmt;

use verdigris_abi::reg;

/// op0, op1, CRn, CRm and op2 of a system register or instruction (Arm ARM, section C5.3).
///
/// Packed as the low half of a register identifier of the hypercall interface, so that the order of
/// values is the order of the registers in the manual's tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Encoding(u16);

impl Encoding {
    /// Packs the five numbers; bits beyond the width of each are dropped.
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        let high = (op0 as u16 & 3) << 14 | (op1 as u16 & 7) << 11;
        Self(high | (crn as u16 & 15) << 7 | (crm as u16 & 15) << 3 | (op2 as u16 & 7))
    }

    /// Finds the encoding in an identifier of the hypercall interface; `None` for another class.
    pub const fn from_id(id: u64) -> Option<Self> {
        if id & !0xffff == reg::REG_SYS { Some(Self(id as u16)) } else { None }
    }

    /// Returns the identifier that the hypercall interface uses.
    pub const fn id(self) -> u64 {
        reg::REG_SYS | self.0 as u64
    }

    /// Returns the packed number, op0 in bits 15:14.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Returns the encoding with more bits set.
    pub(crate) const fn with(self, bits: u16) -> Self {
        Self(self.0 | bits)
    }

    /// Returns op0.
    pub const fn op0(self) -> u8 {
        (self.0 >> 14) as u8
    }

    /// Returns op1.
    pub const fn op1(self) -> u8 {
        (self.0 >> 11 & 7) as u8
    }

    /// Returns CRn.
    pub const fn crn(self) -> u8 {
        (self.0 >> 7 & 15) as u8
    }

    /// Returns CRm.
    pub const fn crm(self) -> u8 {
        (self.0 >> 3 & 15) as u8
    }

    /// Returns op2.
    pub const fn op2(self) -> u8 {
        (self.0 & 7) as u8
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op0, op1, crn, crm, op2) =
            (self.op0(), self.op1(), self.crn(), self.crm(), self.op2());
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
