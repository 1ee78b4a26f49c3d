//! What a row of the register tables says.

use super::Encoding;
use crate::guest::{DebugSlot, Slot};

/// A register or system instruction, and what becomes of a guest's access to it.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// Its name in the Arm ARM, with `<n>` for an array.
    pub name: &'static str,
    /// Its encoding; of an array, that of its first.
    pub encoding: Encoding,
    /// The bits of the packed encoding that vary within an array.
    pub varies: u16,
    /// Which directions the architecture defines at EL1.
    pub direction: Direction,
    /// The feature that brings it; empty for Armv8.0.
    pub needs: &'static str,
    /// What becomes of an access.
    pub fate: Fate,
}

/// Which accesses exist at EL1; the others are UNDEFINED and don't trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// MRS and MSR.
    ReadWrite,
    /// MRS only.
    ReadOnly,
    /// MSR, or a system instruction, only.
    WriteOnly,
}

/// Which of the three tables a register is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The guest has its own, in the CPU while it runs.
    Switched(Place),
    /// The access comes to EL2.
    Trapped(Control, Emulation),
    /// The access reaches the CPU's own, which shows or changes nothing of the host's, because ...
    Invisible(&'static str),
}

/// Where the value of a switched register is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In that slot.
    Slot(Slot),
    /// Nowhere of its own: it is another view of that slot.
    View(Slot),
    /// With the general-purpose registers.
    SpEl0,
    /// A field of PSTATE, saved by the exception itself.
    Pstate,
    /// With the FP/SIMD registers, switched at first use.
    Fp,
}

/// What EL2 does with a trapped access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulation {
    /// The guest takes an exception: the instruction is UNDEFINED.
    Undefined,
    /// A read returns the masked ID register.
    Id,
    /// A read returns zero, a write is stepped over.
    ZeroIgnore,
    /// The context holds the value; the CPU gets it when debugging is on.
    Debug(DebugSlot),
    /// The OS lock of the context.
    OsLock,
    /// The status of that lock.
    OsLockStatus,
}

/// The field of an EL2 register that makes an access trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The EL2 register.
    pub register: &'static str,
    /// The name of the field.
    pub field: &'static str,
    /// Its lowest bit.
    pub bit: u8,
    /// Whether that bit is 1, else 0.
    pub set: bool,
    /// Whether an access may get past it, harmlessly.
    pub optional: bool,
}

/// What the guest sees of an access, for a test that tries them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// An exception for an UNDEFINED instruction.
    Undefined,
    /// The access works.
    Works,
    /// It works on a CPU that has what is named, else it is UNDEFINED.
    WorksIf(&'static str),
    /// Either is right.
    Either,
}

impl Register {
    pub(super) const fn new(
        name: &'static str,
        [op0, op1, crn, crm, op2]: [u8; 5],
        direction: Direction,
        fate: Fate,
    ) -> Self {
        let encoding = Encoding::new(op0, op1, crn, crm, op2);
        Self { name, encoding, varies: 0, direction, needs: "", fate }
    }

    /// Names the feature that brings the register.
    pub(super) const fn needs(self, needs: &'static str) -> Self {
        Self { needs, ..self }
    }

    /// Makes the row an array whose encodings vary in those bits: CRn, CRm, op2.
    pub(super) const fn each(self, crn: u16, crm: u16, op2: u16) -> Self {
        Self { varies: crn << 7 | crm << 3 | op2, ..self }
    }

    /// Tells whether the row covers an encoding.
    pub const fn covers(&self, encoding: Encoding) -> bool {
        encoding.bits() & !self.varies == self.encoding.bits()
    }

    /// Tells whether the architecture has that access at EL1.
    pub const fn allows(&self, read: bool) -> bool {
        match self.direction {
            Direction::ReadWrite => true,
            Direction::ReadOnly => read,
            Direction::WriteOnly => !read,
        }
    }

    /// Tells what a guest sees of an access at EL1.
    pub const fn expect(&self, read: bool) -> Expect {
        match self.fate {
            Fate::Trapped(control, Emulation::Undefined) if control.optional => Expect::Either,
            Fate::Trapped(_, Emulation::Undefined) => Expect::Undefined,
            _ if !self.allows(read) => Expect::Undefined,
            _ if self.needs.is_empty() => Expect::Works,
            _ => Expect::WorksIf(self.needs),
        }
    }
}
