//! Gives an exception to EL1: what the CPU itself would have written, had it taken one there.
//!
//! The same function serves a guest (an access that it may not make) and the host (a page that it
//! gave away): it is pure, from the interrupted state to the values of the registers to write. It
//! follows `AArch64.TakeException` of the Arm ARM (DDI 0487, section J1.1) for a target of EL1.
//!
//! The one invariant: whatever the interrupted state holds, the new PSTATE is EL1h in AArch64 with
//! interrupts masked. It is built from nothing, and takes from the old state only the fields that
//! the architecture keeps: so no bit of a hostile or newer PSTATE slips through.

#[cfg(test)]
mod tests;

use crate::cpu::IdRegisters;
use crate::esr::Abort;

/// Fields of PSTATE whose value after an exception depends on the CPU.
///
/// A missing feature makes its bit RES0 in SPSR_EL2, so that nothing may be set there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PstateFeatures {
    /// FEAT_PAN: the bit is set unless SCTLR_EL1.SPAN says otherwise.
    pub pan: bool,
    /// FEAT_SSBS: the bit becomes SCTLR_EL1.DSSBS.
    pub ssbs: bool,
    /// FEAT_MTE2: TCO is set.
    pub mte: bool,
    /// FEAT_NMI: ALLINT becomes the inverse of SCTLR_EL1.SPINTMASK.
    pub nmi: bool,
    /// FEAT_EBEP: PM is set.
    pub ebep: bool,
    /// GCSCR_EL1.EXLOCKEN (FEAT_GCS): EXLOCK is set by an exception from EL1 itself.
    pub exlock: bool,
}

impl PstateFeatures {
    /// Reads the features from a CPU's ID registers.
    ///
    /// `exlock` is no feature but a setting: with FEAT_GCS the caller sets it from GCSCR_EL1 (bit 6).
    pub const fn of(id: &IdRegisters) -> Self {
        Self {
            pan: id.mmfr1 >> 20 & 0xf >= 1,
            ssbs: id.has_ssbs(),
            mte: id.has_mte2(),
            nmi: id.has_nmi(),
            ebep: id.has_ebep(),
            exlock: false,
        }
    }
}

/// The state that an exception interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The address to return to, as for ELR_EL1.
    pub pc: u64,
    /// PSTATE, in the layout of SPSR_EL2.
    pub pstate: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// SCTLR2_EL1, 0 where it doesn't exist.
    pub sctlr2: u64,
    /// VBAR_EL1.
    pub vbar: u64,
}

/// What to write so that EL1 finds itself in its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The new PC.
    pub pc: u64,
    /// The new PSTATE, in the layout of SPSR_EL2.
    pub pstate: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the exception writes it.
    pub far: Option<u64>,
}

/// What kind of abort EL1 gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCause {
    /// A synchronous external abort of the access itself.
    External,
    /// The same, of a read that a walk of the tables made.
    ///
    /// Stage 2 doesn't say which level of stage 1 it served; 3 is one that every granule has.
    ExternalOnWalk,
    /// An alignment fault.
    Alignment,
    /// An unsupported exclusive or atomic access.
    UnsupportedExclusive,
    /// A permission fault at level 3, with S1PTW set: no stage 1 of EL1 sets that bit (RES0 there), so it
    /// tells who reads the report that stage 2 was it.
    Denied,
}

/// A synchronous exception for EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// The instruction is UNDEFINED.
    Undefined,
    /// An access failed.
    Abort {
        /// Why.
        cause: AbortCause,
        /// Whether it was an instruction fetch.
        instruction: bool,
        /// Whether it was a write.
        write: bool,
        /// Whether a cache-maintenance instruction made it.
        cache_maintenance: bool,
        /// The virtual address, where it is known.
        address: Option<u64>,
    },
}

impl Exception {
    /// Tells EL1 of an access that failed for that cause. `far` is FAR_EL2.
    pub const fn abort(abort: &Abort, cause: AbortCause, far: u64) -> Self {
        Self::Abort {
            cause,
            instruction: abort.instruction,
            write: abort.write_bit,
            cache_maintenance: abort.cache_maintenance,
            address: if abort.address_valid { Some(far) } else { None },
        }
    }

    /// Answers an access that stage 2 doesn't let through by an external abort: one of EL0, or a guest's to
    /// an address behind which the host has nothing.
    pub const fn external_abort(abort: &Abort, far: u64) -> Self {
        let cause =
            if abort.table_walk { AbortCause::ExternalOnWalk } else { AbortCause::External };
        Self::abort(abort, cause, far)
    }

    /// Tells the host of an access that its stage 2 doesn't let through; `pstate` is that of the access.
    ///
    /// Linux never looks at its exception tables for an external abort (`do_sea()`), so the kernel gets
    /// others. For an address of its own half a permission fault, which ends in a fix-up or in an oops that
    /// names the address. Not a translation fault: Linux finds by AT that the address is mapped, calls it
    /// spurious and tries again, for ever (since 42f91093b043; pKVM patches that). For an address of the user
    /// half a permission fault would be tried again for ever too, since the page table has the permission;
    /// an alignment fault goes straight to the tables, so that `copy_to_user()` fails.
    pub const fn denied_to_host(abort: &Abort, pstate: u64, far: u64) -> Self {
        let by_kernel = is_el1(pstate) && abort.is_stage2();
        if !by_kernel || abort.table_walk || !abort.address_valid {
            return Self::external_abort(abort, far);
        }
        // Bit 55 chooses between TTBR0_EL1 and TTBR1_EL1 (Arm ARM D8.2.4).
        match (far >> 55 & 1 != 0, abort.instruction) {
            (true, _) => Self::abort(abort, AbortCause::Denied, far),
            (false, true) => Self::external_abort(abort, far),
            (false, false) => Self::abort(abort, AbortCause::Alignment, far),
        }
    }
}

const PSTATE_MODE_EL1H: u64 = 0b0_0101;
const PSTATE_DAIF: u64 = 0b1111 << 6;
const PSTATE_SSBS: u64 = 1 << 12;
const PSTATE_ALLINT: u64 = 1 << 13;
const PSTATE_PAN: u64 = 1 << 22;
const PSTATE_DIT: u64 = 1 << 24;
const PSTATE_TCO: u64 = 1 << 25;
const PSTATE_NZCV: u64 = 0b1111 << 28;
const PSTATE_PM: u64 = 1 << 32;
const PSTATE_EXLOCK: u64 = 1 << 34;

const SCTLR_SPAN: u64 = 1 << 23;
const SCTLR_DSSBS: u64 = 1 << 44;
const SCTLR_SPINTMASK: u64 = 1 << 62;
const SCTLR2_EASE: u64 = 1 << 5;

const VECTOR_SERROR: u64 = 0x180;

const ESR_CLASS_SHIFT: u32 = 26;
const ESR_IL: u64 = 1 << 25;
const ESR_FNV: u64 = 1 << 10;
const ESR_CM: u64 = 1 << 8;
const ESR_S1PTW: u64 = 1 << 7;
const ESR_WNR: u64 = 1 << 6;

/// Computes what an exception makes of EL1.
pub const fn enter(from: &Interrupted, exception: Exception, features: PstateFeatures) -> Entry {
    let same_level = is_el1(from.pstate);
    Entry {
        pc: (from.vbar & !0x7ff).wrapping_add(vector(from, exception)),
        pstate: pstate(from, features),
        elr: from.pc,
        spsr: from.pstate,
        esr: syndrome(exception, same_level),
        far: match exception {
            Exception::Abort { address, .. } => address,
            Exception::Undefined => None,
        },
    }
}

/// Tells whether a PSTATE is AArch64 EL1; all that isn't is a lower level, seen from there.
const fn is_el1(pstate: u64) -> bool {
    pstate & 0b1_1100 == 0b0_0100
}

/// Returns the offset of the vector: table D1-7, by where the exception comes from.
///
/// An external abort takes the SError's vector where EL1 asked for that (FEAT_DoubleFault2).
const fn vector(from: &Interrupted, exception: Exception) -> u64 {
    let is_aarch32 = from.pstate & 0b1_0000 != 0;
    let uses_sp_elx = from.pstate & 1 != 0;
    let group = match (is_el1(from.pstate), uses_sp_elx, is_aarch32) {
        (true, false, _) => 0x000,
        (true, true, _) => 0x200,
        (false, _, false) => 0x400,
        (false, _, true) => 0x600,
    };
    let external = matches!(
        exception,
        Exception::Abort { cause: AbortCause::External | AbortCause::ExternalOnWalk, .. }
    );
    if external && from.sctlr2 & SCTLR2_EASE != 0 { group + VECTOR_SERROR } else { group }
}

/// Returns the PSTATE in which EL1 starts to handle the exception.
const fn pstate(from: &Interrupted, features: PstateFeatures) -> u64 {
    let mut new = PSTATE_MODE_EL1H | PSTATE_DAIF;
    new |= from.pstate & (PSTATE_NZCV | PSTATE_DIT | PSTATE_PAN);
    if features.pan && from.sctlr & SCTLR_SPAN == 0 {
        new |= PSTATE_PAN;
    }
    if features.ssbs && from.sctlr & SCTLR_DSSBS != 0 {
        new |= PSTATE_SSBS;
    }
    if features.nmi && from.sctlr & SCTLR_SPINTMASK == 0 {
        new |= PSTATE_ALLINT;
    }
    if features.mte {
        new |= PSTATE_TCO;
    }
    if features.ebep {
        new |= PSTATE_PM;
    }
    if features.exlock && is_el1(from.pstate) {
        new |= PSTATE_EXLOCK;
    }
    new
}

/// Returns ESR_EL1. IL is 1 for each exception here: an unknown reason, and aborts without ISV.
const fn syndrome(exception: Exception, same_level: bool) -> u64 {
    match exception {
        Exception::Undefined => ESR_IL,
        Exception::Abort { cause, instruction, write, cache_maintenance, address } => {
            let class = if instruction { 0x20 } else { 0x24 } + same_level as u64;
            let mut esr = class << ESR_CLASS_SHIFT | ESR_IL | fault_status(cause);
            if address.is_none() {
                esr |= ESR_FNV;
            }
            if !instruction && (write || cache_maintenance) {
                esr |= ESR_WNR;
            }
            if !instruction && cache_maintenance {
                esr |= ESR_CM;
            }
            esr
        }
    }
}

const fn fault_status(cause: AbortCause) -> u64 {
    match cause {
        AbortCause::External => 0x10,
        AbortCause::ExternalOnWalk => 0x17,
        AbortCause::Alignment => 0x21,
        AbortCause::UnsupportedExclusive => 0x35,
        AbortCause::Denied => 0x0f | ESR_S1PTW,
    }
}
