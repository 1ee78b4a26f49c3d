//! Registers that are written once on each CPU, before the host or a guest runs on it.
//!
//! Most reset to values that the architecture leaves unknown. The set is complete for what the
//! architecture defines and EL2 is affected by; ACTLR_EL2 and HACR_EL2 are left as earlier firmware made them,
//! because what they hold is defined by the implementation. SCXTNUM_EL2 is left too: EL2 makes no use of it, and
//! each access is a trap to EL3 unless SCR_EL3.EnSCXT is set, which TF-A does only where a platform asks for it.

use super::when;
use crate::cpu::IdRegisters;

/// SCTLR_EL1 with which the host starts: MMU and caches off, RES1 bits as in Armv8.0 (Arm ARM, D24.2).
pub const HOST_ENTRY_SCTLR_EL1: u64 = 0x30d0_0800;
/// SPSR_EL2 with which the host starts: EL1h, with debug exceptions, SError, IRQ and FIQ masked.
pub const HOST_ENTRY_SPSR: u64 = 0x3c5;

/// The registers that host and guests share a value of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// VPIDR_EL2: what EL1 reads as MIDR_EL1.
    pub vpidr: u64,
    /// VMPIDR_EL2 of the host: what EL1 reads as MPIDR_EL1.
    pub vmpidr: u64,
    /// HSTR_EL2: no coprocessor register of AArch32 EL0 traps.
    pub hstr: u64,
    /// CNTVOFF_EL2 of the host. It reads time by the virtual counter, so this is always 0.
    pub cntvoff: u64,
    /// ZCR_EL2, with FEAT_SVE; needs CPTR_EL2.TZ = 0 at the time of the write.
    pub zcr: Option<u64>,
    /// SMCR_EL2, with FEAT_SME; needs CPTR_EL2.TSM = 0 at the time of the write.
    pub smcr: Option<u64>,
    /// TRFCR_EL2, with FEAT_TRF: no trace of EL2.
    pub trfcr: Option<u64>,
    /// BRBCR_EL2, with FEAT_BRBE: no records of EL2.
    pub brbcr: Option<u64>,
    /// PMSCR_EL2, with FEAT_SPE, unless the buffer belongs to EL3.
    pub pmscr: Option<u64>,
    /// TCR2_EL2, with FEAT_TCR2: EL2's own walks are those of Armv8.0.
    pub tcr2: Option<u64>,
    /// SCTLR2_EL2, with FEAT_SCTLR2.
    pub sctlr2: Option<u64>,
    /// GCSCR_EL2, with FEAT_GCS: EL2 has no guarded control stack.
    pub gcscr: Option<u64>,
}

impl Fixed {
    /// Returns the values for one CPU.
    pub fn new(id: &IdRegisters) -> Self {
        // CC (3) and MPRED (4): cycle counts and mispredictions are recorded only if EL2 agrees.
        const BRBCR_ALLOW: u64 = 1 << 3 | 1 << 4;
        // PA (4) and PCT (7:6) = 1: samples of EL1 may have physical addresses and timestamps.
        const PMSCR_ALLOW: u64 = 1 << 4 | 0b01 << 6;
        Self {
            vpidr: id.midr,
            vmpidr: id.mpidr,
            hstr: 0,
            cntvoff: 0,
            zcr: id.has_sve().then_some(LONGEST),
            smcr: id.has_sme().then(|| smcr(id)),
            trfcr: id.has_trace_filter().then_some(0),
            brbcr: id.has_brbe().then_some(BRBCR_ALLOW),
            pmscr: id.has_own_spe().then_some(PMSCR_ALLOW),
            tcr2: id.has_tcr2().then_some(0),
            sctlr2: id.has_sctlr2().then_some(0),
            gcscr: id.has_gcs().then_some(0),
        }
    }
}

/// LEN (3:0) and the bits above it that future lengths may use: as long as the CPU can.
const LONGEST: u64 = 0x1ff;

/// FA64 (31) and EZT0 (30) are enables of their own.
const fn smcr(id: &IdRegisters) -> u64 {
    LONGEST | when(id.has_sme_fa64(), 1 << 31) | when(id.has_sme2(), 1 << 30)
}
