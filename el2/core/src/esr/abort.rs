//! Instruction and data aborts taken to EL2, and the address that stage 2 could not translate.

use verdigris_abi::Ipa;

use super::Syndrome;

/// What went wrong: DFSC or IFSC. Levels are -2 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultStatus {
    /// An address that is too large for its field.
    AddressSize(i8),
    /// An invalid entry.
    Translation(i8),
    /// An entry whose access flag is clear.
    AccessFlag(i8),
    /// A valid entry that forbids it.
    Permission(i8),
    /// A synchronous external abort.
    External,
    /// A synchronous external abort on a walk.
    ExternalOnWalk(i8),
    /// A parity or ECC error, on a walk or not.
    Parity,
    /// An unaligned address.
    Alignment,
    /// Two entries of a TLB match.
    TlbConflict,
    /// The memory can't do the walker's own atomic update.
    UnsupportedUpdate,
    /// The memory can't do the exclusive or atomic access.
    UnsupportedExclusive,
    /// A granule protection fault.
    GranuleProtection,
    /// A tag check fault.
    TagCheck,
    /// Any other code.
    Other(u8),
}

impl FaultStatus {
    /// Decodes the six bits of DFSC or IFSC.
    pub const fn decode(code: u8) -> Self {
        let level = (code & 3) as i8;
        match code {
            0x00..=0x03 => Self::AddressSize(level),
            0x29 => Self::AddressSize(-1),
            0x2c => Self::AddressSize(-2),
            0x04..=0x07 => Self::Translation(level),
            0x2b => Self::Translation(-1),
            0x2a => Self::Translation(-2),
            0x08..=0x0b => Self::AccessFlag(level),
            0x0c..=0x0f => Self::Permission(level),
            0x10 => Self::External,
            0x11 => Self::TagCheck,
            0x12 => Self::ExternalOnWalk(-2),
            0x13 => Self::ExternalOnWalk(-1),
            0x14..=0x17 => Self::ExternalOnWalk(level),
            0x18 | 0x1b..=0x1f => Self::Parity,
            0x21 => Self::Alignment,
            0x22..=0x28 => Self::GranuleProtection,
            0x30 => Self::TlbConflict,
            0x31 => Self::UnsupportedUpdate,
            0x35 => Self::UnsupportedExclusive,
            code => Self::Other(code),
        }
    }
}

/// What an access wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To fetch an instruction.
    Execute,
}

/// The load or store that the syndrome describes (ISV is 1): one general-purpose register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// log2 of the number of bytes, SAS.
    pub size_log2: u8,
    /// Whether a loaded value is sign-extended, SSE.
    pub sign_extend: bool,
    /// The register, SRT; 31 is the zero register.
    pub register: u8,
    /// Whether the register is 64 bits wide, SF.
    pub is_64_bit: bool,
}

/// A fault of an instruction fetch or a data access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// What went wrong.
    pub status: FaultStatus,
    /// Whether it was an instruction fetch.
    pub instruction: bool,
    /// Whether stage 2 failed for a walk of stage 1, S1PTW.
    pub table_walk: bool,
    /// Whether a cache-maintenance or address-translation instruction failed, CM.
    pub cache_maintenance: bool,
    /// Whether FAR_EL2 holds the virtual address (FnV is 0).
    pub address_valid: bool,
    /// The raw direction, WnR: 1 for *every* cache maintenance. See [`Abort::access`].
    pub write_bit: bool,
    /// The load or store, where the syndrome tells.
    pub load: Option<Load>,
}

impl Abort {
    /// Decodes the ISS of classes 0x20, 0x21, 0x24 and 0x25.
    pub const fn decode(syndrome: Syndrome) -> Self {
        Self::with_status(FaultStatus::decode(syndrome.field(0, 6)), syndrome)
    }

    /// Decodes the rest, where the status is known.
    #[inline]
    pub const fn with_status(status: FaultStatus, syndrome: Syndrome) -> Self {
        let instruction = syndrome.class() & 0x3e == 0x20;
        Self {
            status,
            instruction,
            table_walk: syndrome.bit(7),
            cache_maintenance: !instruction && syndrome.bit(8),
            address_valid: !syndrome.bit(10),
            write_bit: !instruction && syndrome.bit(6),
            load: if instruction { None } else { load(syndrome) },
        }
    }

    /// Tells what permission the access needs at stage 2.
    ///
    /// WnR alone doesn't: on a walk of stage 1 it speaks of the access that caused the walk, while
    /// the walker itself reads descriptors, and writes only to set its own access or dirty bits,
    /// which an entry without write permission answers by a *permission* fault. Cache maintenance
    /// always shows WnR as 1; it needs no more than reading, but for invalidation without cleaning,
    /// which a read-only entry answers by a permission fault.
    #[inline]
    pub const fn access(&self) -> Access {
        let permission = matches!(self.status, FaultStatus::Permission(_));
        if self.table_walk || self.cache_maintenance {
            return if permission { Access::Write } else { Access::Read };
        }
        match (self.instruction, self.write_bit) {
            (true, _) => Access::Execute,
            (false, true) => Access::Write,
            (false, false) => Access::Read,
        }
    }

    /// Tells whether HPFAR_EL2 holds the faulting IPA (section D24.2.63).
    ///
    /// A permission fault writes it only for a walk of stage 1. Where it isn't valid, the caller
    /// translates FAR_EL2 by an AT instruction, and when that fails, runs the guest again.
    #[inline]
    pub const fn is_hpfar_valid(&self) -> bool {
        match self.status {
            FaultStatus::Translation(_)
            | FaultStatus::AccessFlag(_)
            | FaultStatus::AddressSize(_) => true,
            FaultStatus::Permission(_) => self.table_walk,
            _ => false,
        }
    }

    /// Tells whether stage 2 could not translate the address, so that a table decides what to do.
    pub const fn is_stage2(&self) -> bool {
        matches!(
            self.status,
            FaultStatus::Translation(_)
                | FaultStatus::AccessFlag(_)
                | FaultStatus::AddressSize(_)
                | FaultStatus::Permission(_)
        )
    }

    /// Returns the faulting IPA, from values of HPFAR_EL2 (valid) and FAR_EL2.
    ///
    /// The offset in the page is the virtual address's own; for a walk of stage 1 it is unknown, and
    /// the page's first address is returned.
    pub const fn ipa(&self, hpfar: u64, far: u64) -> Ipa {
        let page = hpfar_to_ipa(hpfar);
        if self.table_walk { page } else { Ipa(page.0 | far & 0xfff) }
    }
}

/// Returns the page that HPFAR_EL2 names: FIPA, bits 47:4, holds bits 55:12 of the IPA.
pub const fn hpfar_to_ipa(hpfar: u64) -> Ipa {
    Ipa((hpfar & 0xffff_ffff_fff0) << 8)
}

/// Reads SAS, SSE, SRT and SF, which mean something only when ISV is 1.
const fn load(syndrome: Syndrome) -> Option<Load> {
    if !syndrome.bit(24) {
        return None;
    }
    Some(Load {
        size_log2: syndrome.field(22, 2),
        sign_extend: syndrome.bit(21),
        register: syndrome.field(16, 5),
        is_64_bit: syndrome.bit(15),
    })
}
