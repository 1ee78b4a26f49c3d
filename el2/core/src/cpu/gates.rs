//! Bits that stand for a feature each: set where the CPU has the feature.
//!
//! The fine-grained trap registers mix two polarities. Bits whose name begins with `n` trap when they
//! are *clear*, so a register left at zero takes features away; the others trap when they are set. The
//! tables hold only the former. What is not in them belongs to no feature that is known here, is RES0
//! on a CPU without it, and stays 0.

use super::IdRegisters;

/// The number of a bit, and when to set it.
pub(super) type Gate = (u32, fn(&IdRegisters) -> bool);

/// Returns the bits whose feature the CPU has.
pub(super) fn open(gates: &[Gate], id: &IdRegisters) -> u64 {
    gates.iter().filter(|(_, has)| has(id)).fold(0, |bits, (bit, _)| bits | 1 << bit)
}

type Id = IdRegisters;

/// HCRX_EL2 (Arm ARM, D24.2): what is undefined or trapped at EL1 and EL0 unless its bit is set.
///
/// SMPME (5) is no such bit: with it clear the host's streaming priorities are the physical ones.
pub(super) const HCRX: &[Gate] = &[
    (0, Id::has_ls64_accdata), // EnAS0
    (1, Id::has_ls64),         // EnALS
    (2, Id::has_ls64_v),       // EnASR
    (11, Id::has_mops),        // MSCEn
    (14, Id::has_tcr2),        // TCR2En
    (15, Id::has_sctlr2),      // SCTLR2En
    (16, Id::has_the),         // PTTWI
    (17, Id::has_d128),        // D128En
    (21, Id::has_sysreg128),   // EnIDCP128
    (22, Id::has_gcs),         // GCSEn
    (23, Id::has_fpmr),        // EnFPM
    (24, Id::has_pacm),        // PACMEn
    (26, Id::has_srmask),      // SRMASKEn
];

/// HFGRTR_EL2 and HFGWTR_EL2 (D24.2, D24.2).
pub(super) const HFGRTR: &[Gate] = &[
    (50, Id::has_ls64_accdata), // nACCDATA_EL1
    (52, Id::has_gcs),          // nGCS_EL0
    (53, Id::has_gcs),          // nGCS_EL1
    (54, Id::has_sme),          // nSMPRI_EL1
    (55, Id::has_sme),          // nTPIDR2_EL0
    (56, Id::has_the),          // nRCWMASK_EL1
    (57, Id::has_s1pie),        // nPIRE0_EL1
    (58, Id::has_s1pie),        // nPIR_EL1
    (59, Id::has_s1poe),        // nPOR_EL0
    (60, Id::has_s1poe),        // nPOR_EL1
    (61, Id::has_s2poe),        // nS2POR_EL1
    (62, Id::has_aie),          // nMAIR2_EL1
    (63, Id::has_aie),          // nAMAIR2_EL1
];

/// HFGITR_EL2 (D24.2). Bits 53 and 54 beside these trap when set.
pub(super) const HFGITR: &[Gate] = &[
    (55, Id::has_brbe), // nBRBINJ
    (56, Id::has_brbe), // nBRBIALL
    (57, Id::has_gcs),  // nGCSPUSHM_EL1
    (58, Id::has_gcs),  // nGCSSTR_EL1
    (59, Id::has_gcs),  // nGCSEPP
];

/// HDFGRTR_EL2 (D24.2).
pub(super) const HDFGRTR: &[Gate] = &[
    (59, Id::has_brbe),     // nBRBIDR
    (60, Id::has_brbe),     // nBRBCTL
    (61, Id::has_brbe),     // nBRBDATA
    (62, Id::has_spe_v1p2), // nPMSNEVFR_EL1
];

/// HDFGWTR_EL2 (D24.2). BRBIDR0_EL1 can't be written, so bit 59 is RES0 here.
pub(super) const HDFGWTR: &[Gate] = &[
    (60, Id::has_brbe),     // nBRBCTL
    (61, Id::has_brbe),     // nBRBDATA
    (62, Id::has_spe_v1p2), // nPMSNEVFR_EL1
];

/// HFGRTR2_EL2 (D24.2).
pub(super) const HFGRTR2: &[Gate] = &[
    (0, Id::has_pfar),    // nPFAR_EL1
    (1, Id::has_ras_v2),  // nERXGSR_EL1
    (2, Id::has_the),     // nRCWSMASK_EL1
    (3, Id::has_srmask),  // nCPACRMASK_EL1
    (4, Id::has_srmask),  // nSCTLRMASK_EL1
    (5, Id::has_srmask),  // nSCTLR2MASK_EL1
    (6, Id::has_srmask),  // nTCRMASK_EL1
    (7, Id::has_srmask),  // nTCR2MASK_EL1
    (8, Id::has_srmask),  // nCPACRALIAS_EL1
    (9, Id::has_srmask),  // nSCTLRALIAS_EL1
    (10, Id::has_srmask), // nSCTLR2ALIAS_EL1
    (11, Id::has_srmask), // nTCRALIAS_EL1
    (12, Id::has_srmask), // nTCR2ALIAS_EL1
    (13, Id::has_srmask), // nACTLRMASK_EL1
    (14, Id::has_srmask), // nACTLRALIAS_EL1
];

/// HFGWTR2_EL2 (D24.2): as HFGRTR2_EL2, but ERXGSR_EL1 can't be written.
pub(super) const HFGWTR2_ABSENT: u64 = 1 << 1;

/// HFGITR2_EL2 (D24.2).
pub(super) const HFGITR2: &[Gate] = &[
    (1, Id::has_pops), // nDCCIVAPS
];

/// HDFGRTR2_EL2 (D24.2).
pub(super) const HDFGRTR2: &[Gate] = &[
    (0, has_pmecr),                   // nPMECR_EL1
    (1, Id::has_sebep),               // nPMIAR_EL1
    (2, Id::has_instruction_counter), // nPMICNTR_EL0
    (3, Id::has_instruction_counter), // nPMICFILTR_EL0
    (4, has_pmu_v3p9),                // nPMUACR_EL1
    (5, Id::has_debug_v8p9),          // nMDSELR_EL1
    (6, Id::has_pmu_snapshots),       // nPMSSDATA
    (7, Id::has_pmu_snapshots),       // nPMSSCR_EL1
    (8, Id::has_spmu),                // nSPMEVCNTRn_EL0
    (9, Id::has_spmu),                // nSPMEVTYPERn_EL0
    (10, Id::has_spmu),               // nSPMSELR_EL0
    (11, Id::has_spmu),               // nSPMCNTEN
    (12, Id::has_spmu),               // nSPMINTEN
    (13, Id::has_spmu),               // nSPMOVS
    (14, Id::has_spmu),               // nSPMCR_EL0
    (15, Id::has_spmu),               // nSPMACCESSR_EL1
    (16, Id::has_spmu),               // nSPMSCR_EL1
    (17, Id::has_spmu),               // nSPMID
    (18, Id::has_spmu),               // nSPMDEVAFF_EL1
    (19, Id::has_spe),                // nPMSDSFR_EL1
    (20, Id::has_ite),                // nTRCITECR_EL1
    (22, Id::has_trbe),               // nTRBMPAM_EL1
    (23, Id::has_step2),              // nMDSTEPOP_EL1
    (24, Id::has_spe),                // nPMBMAR_EL1
];

/// HDFGWTR2_EL2 (D24.2): as HDFGRTR2_EL2, but what can't be written has no bit.
pub(super) const HDFGWTR2_ABSENT: u64 = 1 << 6 | 1 << 17 | 1 << 18;
/// The bit of HDFGWTR2_EL2 that HDFGRTR2_EL2 has not: PMZR_EL0 can't be read.
pub(super) const HDFGWTR2_MORE: &[Gate] = &[
    (21, has_pmu_v3p9), // nPMZR_EL0
];

fn has_pmu_v3p9(id: &IdRegisters) -> bool {
    id.has_pmu_version(9)
}

fn has_pmecr(id: &IdRegisters) -> bool {
    id.has_ebep() || id.has_pmu_snapshots()
}
