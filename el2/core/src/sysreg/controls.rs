//! The fields of EL2 registers that make a guest's accesses trap, by the Arm ARM's names and bits.

use super::row::Control;

const fn one(register: &'static str, field: &'static str, bit: u8) -> Control {
    Control { register, field, bit, set: true, optional: false }
}

/// A field that lets accesses pass when it is 1, and traps at 0.
const fn zero(register: &'static str, field: &'static str, bit: u8) -> Control {
    Control { register, field, bit, set: false, optional: false }
}

pub const TID3: Control = one("HCR_EL2", "TID3", 18);
pub const TIDCP: Control = one("HCR_EL2", "TIDCP", 20);
pub const TACR: Control = one("HCR_EL2", "TACR", 21);
pub const TSW: Control = one("HCR_EL2", "TSW", 22);
pub const TLOR: Control = one("HCR_EL2", "TLOR", 35);
pub const TERR: Control = one("HCR_EL2", "TERR", 36);
pub const FIEN: Control = zero("HCR_EL2", "FIEN", 47);
pub const EN_SCXT: Control = zero("HCR_EL2", "EnSCXT", 53);
pub const ATA: Control = zero("HCR_EL2", "ATA", 56);

pub const TZ: Control = one("CPTR_EL2", "TZ", 8);
pub const TSM: Control = one("CPTR_EL2", "TSM", 12);
pub const TTA: Control = one("CPTR_EL2", "TTA", 20);
pub const TAM: Control = one("CPTR_EL2", "TAM", 30);

pub const TPM: Control = one("MDCR_EL2", "TPM", 6);
pub const TDA: Control = one("MDCR_EL2", "TDA", 9);
pub const TDOSA: Control = one("MDCR_EL2", "TDOSA", 10);
pub const TDRA: Control = one("MDCR_EL2", "TDRA", 11);
pub const E2PB: Control = zero("MDCR_EL2", "E2PB", 12);
pub const TPMS: Control = one("MDCR_EL2", "TPMS", 14);
pub const EN_SPM: Control = zero("MDCR_EL2", "EnSPM", 15);
pub const TTRF: Control = one("MDCR_EL2", "TTRF", 19);
pub const E2TB: Control = zero("MDCR_EL2", "E2TB", 24);
pub const EN_STEPOP: Control = zero("MDCR_EL2", "EnSTEPOP", 50);

pub const EL1PCEN: Control = zero("CNTHCTL_EL2", "EL1PCEN", 1);

pub const TC: Control = one("ICH_HCR_EL2", "TC", 10);
pub const TALL0: Control = one("ICH_HCR_EL2", "TALL0", 11);
pub const TALL1: Control = one("ICH_HCR_EL2", "TALL1", 12);
pub const TDIR: Control = one("ICH_HCR_EL2", "TDIR", 14);
/// Traps writes of SGI registers: with IMO set, nothing else is needed.
pub const IMO: Control = one("HCR_EL2", "IMO", 4);
/// May be fixed at 1 where the GIC knows no other mode: then the register behind it is fixed too.
pub const SRE_ENABLE: Control =
    Control { register: "ICC_SRE_EL2", field: "Enable", bit: 3, set: false, optional: true };

/// Traps only what sets the mask: reading it and clearing it work, and touch no more than PSTATE.
pub const TALLINT: Control =
    Control { register: "HCRX_EL2", field: "TALLINT", bit: 6, set: true, optional: true };
pub const TCR2_EN: Control = zero("HCRX_EL2", "TCR2En", 14);
pub const SCTLR2_EN: Control = zero("HCRX_EL2", "SCTLR2En", 15);
/// Clear, guarded stacks are off at EL1 and EL0, whatever their registers hold.
pub const GCS_EN: Control = zero("HCRX_EL2", "GCSEn", 22);
pub const EN_FPM: Control = zero("HCRX_EL2", "EnFPM", 23);

pub const N_ACCDATA: Control = zero("HFGRTR_EL2", "nACCDATA_EL1", 50);
pub const N_GCS_EL0: Control = zero("HFGRTR_EL2", "nGCS_EL0", 52);
pub const N_GCS_EL1: Control = zero("HFGRTR_EL2", "nGCS_EL1", 53);
pub const N_SMPRI: Control = zero("HFGRTR_EL2", "nSMPRI_EL1", 54);
pub const N_TPIDR2: Control = zero("HFGRTR_EL2", "nTPIDR2_EL0", 55);
pub const N_RCWMASK: Control = zero("HFGRTR_EL2", "nRCWMASK_EL1", 56);
pub const N_PIRE0: Control = zero("HFGRTR_EL2", "nPIRE0_EL1", 57);
pub const N_PIR: Control = zero("HFGRTR_EL2", "nPIR_EL1", 58);
pub const N_POR_EL0: Control = zero("HFGRTR_EL2", "nPOR_EL0", 59);
pub const N_POR_EL1: Control = zero("HFGRTR_EL2", "nPOR_EL1", 60);
pub const N_S2POR: Control = zero("HFGRTR_EL2", "nS2POR_EL1", 61);
pub const N_MAIR2: Control = zero("HFGRTR_EL2", "nMAIR2_EL1", 62);
pub const N_AMAIR2: Control = zero("HFGRTR_EL2", "nAMAIR2_EL1", 63);

/// Only where there are fine-grained traps: without them it works, and EL3 has to see to what it does.
pub const CPP_RCTX: Control =
    Control { register: "HFGITR_EL2", field: "CPPRCTX", bit: 50, set: true, optional: true };
pub const N_BRBINJ: Control = zero("HFGITR_EL2", "nBRBINJ", 55);
pub const N_BRBIALL: Control = zero("HFGITR_EL2", "nBRBIALL", 56);
pub const N_GCSPUSHM: Control = zero("HFGITR_EL2", "nGCSPUSHM_EL1", 57);
pub const N_GCSEPP: Control = zero("HFGITR_EL2", "nGCSEPP", 59);

pub const N_BRBIDR: Control = zero("HDFGRTR_EL2", "nBRBIDR", 59);
pub const N_BRBCTL: Control = zero("HDFGRTR_EL2", "nBRBCTL", 60);
pub const N_BRBDATA: Control = zero("HDFGRTR_EL2", "nBRBDATA", 61);

pub const N_PFAR: Control = zero("HFGRTR2_EL2", "nPFAR_EL1", 0);
pub const N_RCWSMASK: Control = zero("HFGRTR2_EL2", "nRCWSMASK_EL1", 2);

pub const N_MDSELR: Control = zero("HDFGRTR2_EL2", "nMDSELR_EL1", 5);
pub const N_PMSSDATA: Control = zero("HDFGRTR2_EL2", "nPMSSDATA", 6);
pub const N_PMSSCR: Control = zero("HDFGRTR2_EL2", "nPMSSCR_EL1", 7);
pub const N_TRCITECR: Control = zero("HDFGRTR2_EL2", "nTRCITECR_EL1", 20);

pub const TRAP_MPAM1: Control = one("MPAM2_EL2", "TRAPMPAM1EL1", 48);
pub const TRAP_MPAM0: Control = one("MPAM2_EL2", "TRAPMPAM0EL1", 49);
/// Not on every CPU with partitions: without it (and without MPAM2_EL2.TIDR) a constant is read.
pub const TRAP_MPAMIDR: Control = Control {
    register: "MPAMHCR_EL2",
    field: "TRAP_MPAMIDR_EL1",
    bit: 31,
    set: true,
    optional: true,
};
pub const EN_MPAMSM: Control = zero("MPAM2_EL2", "EnMPAMSM", 50);

pub const N_MPAMBWSM: Control = zero("MPAMBW2_EL2", "nTRAP_MPAMBWSM_EL1", 49);
pub const N_MPAMBW1: Control = zero("MPAMBW2_EL2", "nTRAP_MPAMBW1_EL1", 50);
pub const N_MPAMBW0: Control = zero("MPAMBW2_EL2", "nTRAP_MPAMBW0_EL1", 51);
pub const N_MPAMBWIDR: Control = zero("MPAMBW2_EL2", "nTRAP_MPAMBWIDR_EL1", 52);
