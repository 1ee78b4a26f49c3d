//! Decodes `ESR_EL2`: why a host or a guest came to EL2.
//!
//! The one invariant: every value of the register decodes to exactly one [`Trap`], and none panics.
//! A class that this firmware has no name for becomes [`Trap::Other`]: a syndrome comes from a CPU
//! that may be newer than this code, and what it means then is for the caller's policy, not for a
//! decoder. Fields are those of the Arm ARM (DDI 0487), section D24.2.40 `ESR_EL2`.

mod abort;
#[cfg(test)]
mod tests;

pub use abort::{Abort, Access, FaultStatus, Load, hpfar_to_ipa};

use crate::sysreg::Encoding;

/// A value of `ESR_EL2`, copied from the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Syndrome(pub u64);

impl Syndrome {
    /// Returns the exception class, EC.
    pub const fn class(self) -> u8 {
        (self.0 >> 26 & 0x3f) as u8
    }

    /// Tells whether the instruction was 32 bits long, IL.
    pub const fn is_32_bit_instruction(self) -> bool {
        self.bit(25)
    }

    /// Returns the instruction-specific syndrome, ISS.
    pub const fn iss(self) -> u32 {
        (self.0 & 0x1ff_ffff) as u32
    }

    /// Returns the immediate of the instruction, of the classes HVC, SMC and SVC.
    pub const fn immediate(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    pub(super) const fn bit(self, number: u32) -> bool {
        self.0 >> number & 1 != 0
    }

    pub(super) const fn field(self, shift: u32, bits: u32) -> u8 {
        (self.0 >> shift & ((1 << bits) - 1)) as u8
    }
}

/// Which instruction waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wait {
    /// WFI, for an interrupt.
    Wfi = 0,
    /// WFE, for an event.
    Wfe = 1,
    /// WFIT, for an interrupt or a time.
    Wfit = 2,
    /// WFET, for an event or a time.
    Wfet = 3,
}

/// A trapped MSR, MRS or system instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemAccess {
    /// The register or instruction.
    pub encoding: Encoding,
    /// The general-purpose register; 31 is the zero register.
    pub register: u8,
    /// Whether it was a read (MRS, SYSL).
    pub read: bool,
}

/// Why the CPU took an exception to EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// An UNDEFINED instruction, or another unknown reason.
    Unknown,
    /// A trapped wait.
    Wait(Wait),
    /// A trapped FP or SIMD instruction.
    Fp,
    /// A trapped SVE instruction or register.
    Sve,
    /// A trapped SME instruction or register.
    Sme,
    /// A trapped pointer-authentication instruction.
    PointerAuth,
    /// LD64B, ST64B and their kind, or another instruction that shares their class.
    OtherInstruction,
    /// A branch-target exception.
    BranchTarget,
    /// An illegal execution state.
    IllegalState,
    /// SVC.
    Svc(u16),
    /// HVC: the saved address is already past it.
    Hvc(u16),
    /// SMC: the saved address is the instruction's own.
    Smc(u16),
    /// MSR, MRS or a system instruction.
    System(SystemAccess),
    /// MSRR, MRRS or a 128-bit system instruction.
    System128(SystemAccess),
    /// ERET and its kind.
    Eret,
    /// An instruction from AArch32, of that class.
    Aarch32(u8),
    /// A stage-2 or external fault of an instruction fetch or a data access, below EL2.
    Abort(Abort),
    /// The same, of EL2 itself.
    OwnAbort(Abort),
    /// An SError.
    SError,
    /// Any other class.
    Other(u8),
}

impl Trap {
    /// Decodes a syndrome.
    pub const fn decode(syndrome: Syndrome) -> Self {
        let immediate = syndrome.immediate();
        match syndrome.class() {
            0x00 => Self::Unknown,
            0x01 => Self::Wait(wait(syndrome)),
            0x07 => Self::Fp,
            0x09 => Self::PointerAuth,
            0x0a => Self::OtherInstruction,
            0x0d => Self::BranchTarget,
            0x0e => Self::IllegalState,
            0x14 => Self::System128(system_access(syndrome)),
            0x15 => Self::Svc(immediate),
            0x16 => Self::Hvc(immediate),
            0x17 => Self::Smc(immediate),
            0x18 => Self::System(system_access(syndrome)),
            0x19 => Self::Sve,
            0x1a => Self::Eret,
            0x1d => Self::Sme,
            0x20 | 0x24 => Self::Abort(Abort::decode(syndrome)),
            0x21 | 0x25 => Self::OwnAbort(Abort::decode(syndrome)),
            0x2f => Self::SError,
            class @ (0x03..=0x06 | 0x08 | 0x0c | 0x11..=0x13 | 0x28 | 0x38 | 0x3a) => {
                Self::Aarch32(class)
            }
            class => Self::Other(class),
        }
    }
}

/// Reads TI, which tells WFI, WFE, WFIT and WFET apart.
const fn wait(syndrome: Syndrome) -> Wait {
    match syndrome.field(0, 2) {
        0 => Wait::Wfi,
        1 => Wait::Wfe,
        2 => Wait::Wfit,
        _ => Wait::Wfet,
    }
}

/// Reads the encoding, register and direction of a system access.
const fn system_access(syndrome: Syndrome) -> SystemAccess {
    SystemAccess {
        encoding: Encoding::new(
            syndrome.field(20, 2),
            syndrome.field(14, 3),
            syndrome.field(10, 4),
            syndrome.field(1, 4),
            syndrome.field(17, 3),
        ),
        register: syndrome.field(5, 5),
        read: syndrome.bit(0),
    }
}
