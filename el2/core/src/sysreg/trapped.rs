//! Registers whose access by a guest comes to EL2: what isn't offered, and what EL2 keeps for the guest.
//!
//! A row names one control that is enough to trap it. A register that a CPU lacks is UNDEFINED without
//! a trap, and looks the same to the guest.

use super::controls::*;
use super::row::{Control, Direction, Emulation, Fate, Register};
use crate::guest::DebugSlot;

const fn rw(name: &'static str, encoding: [u8; 5], control: Control, how: Emulation) -> Register {
    Register::new(name, encoding, Direction::ReadWrite, Fate::Trapped(control, how))
}

const fn ro(name: &'static str, encoding: [u8; 5], control: Control, how: Emulation) -> Register {
    Register::new(name, encoding, Direction::ReadOnly, Fate::Trapped(control, how))
}

const fn wo(name: &'static str, encoding: [u8; 5], control: Control, how: Emulation) -> Register {
    Register::new(name, encoding, Direction::WriteOnly, Fate::Trapped(control, how))
}

/// A register that isn't offered: reading and writing are UNDEFINED.
const fn no(name: &'static str, encoding: [u8; 5], control: Control) -> Register {
    rw(name, encoding, control, Emulation::Undefined)
}

const fn debug(name: &'static str, encoding: [u8; 5], slot: DebugSlot) -> Register {
    rw(name, encoding, TDA, Emulation::Debug(slot))
}

const ID: Emulation = Emulation::Id;
const ZERO: Emulation = Emulation::ZeroIgnore;

/// All sixteen values of CRm, all eight of op2.
const CRM: u16 = 15;
const OP2: u16 = 7;

/// The registers that trap.
pub const TRAPPED: &[Register] = &[
    // Identification. Encodings without a name read as zero, as on a CPU without the feature.
    ro("ID_*_EL1, MVFR<n>_EL1 (CRm 1)", [3, 0, 0, 1, 0], TID3, ID).each(0, 0, OP2),
    ro("ID_*_EL1, MVFR<n>_EL1 (CRm 2, 3)", [3, 0, 0, 2, 0], TID3, ID).each(0, 1, OP2),
    ro("ID_AA64*_EL1 (CRm 4 to 7)", [3, 0, 0, 4, 0], TID3, ID).each(0, 3, OP2),
    // Auxiliary and implementation-defined.
    rw("ACTLR_EL1", [3, 0, 1, 0, 1], TACR, ZERO),
    no("implementation-defined (CRn 11)", [3, 0, 11, 0, 0], TIDCP).each(0, CRM, OP2),
    no("implementation-defined (CRn 11)", [3, 1, 11, 0, 0], TIDCP).each(0, CRM, OP2),
    no("implementation-defined (CRn 11)", [3, 2, 11, 0, 0], TIDCP).each(0, CRM, OP2),
    no("implementation-defined (CRn 11)", [3, 3, 11, 0, 0], TIDCP).each(0, CRM, OP2),
    no("implementation-defined (CRn 15)", [3, 0, 15, 0, 0], TIDCP).each(0, CRM, OP2),
    no("implementation-defined (CRn 15)", [3, 1, 15, 0, 0], TIDCP).each(0, CRM, OP2),
    no("implementation-defined (CRn 15)", [3, 2, 15, 0, 0], TIDCP).each(0, CRM, OP2),
    no("implementation-defined (CRn 15)", [3, 3, 15, 0, 0], TIDCP).each(0, CRM, OP2),
    // Self-hosted debug: the context has a set of its own, which is in the CPU while MDSCR_EL1.MDE
    // is 1 and the OS lock is off. The channel to an external debugger, and the lock, are the host's.
    debug("MDSCR_EL1", [2, 0, 0, 2, 2], DebugSlot::Mdscr),
    debug("DBGBVR<n>_EL1", [2, 0, 0, 0, 4], DebugSlot::BreakpointValue).each(0, CRM, 0),
    debug("DBGBCR<n>_EL1", [2, 0, 0, 0, 5], DebugSlot::BreakpointControl).each(0, CRM, 0),
    debug("DBGWVR<n>_EL1", [2, 0, 0, 0, 6], DebugSlot::WatchpointValue).each(0, CRM, 0),
    debug("DBGWCR<n>_EL1", [2, 0, 0, 0, 7], DebugSlot::WatchpointControl).each(0, CRM, 0),
    rw("OSDTRRX_EL1", [2, 0, 0, 0, 2], TDA, ZERO),
    rw("MDCCINT_EL1", [2, 0, 0, 2, 0], TDA, ZERO),
    rw("OSDTRTX_EL1", [2, 0, 0, 3, 2], TDA, ZERO),
    rw("OSECCR_EL1", [2, 0, 0, 6, 2], TDA, ZERO),
    rw("DBGCLAIMSET_EL1", [2, 0, 7, 8, 6], TDA, ZERO),
    rw("DBGCLAIMCLR_EL1", [2, 0, 7, 9, 6], TDA, ZERO),
    ro("DBGAUTHSTATUS_EL1", [2, 0, 7, 14, 6], TDA, ZERO),
    ro("MDCCSR_EL0", [2, 3, 0, 1, 0], TDA, ZERO),
    rw("DBGDTR_EL0", [2, 3, 0, 4, 0], TDA, ZERO),
    rw("DBGDTRRX_EL0, DBGDTRTX_EL0", [2, 3, 0, 5, 0], TDA, ZERO),
    ro("MDRAR_EL1", [2, 0, 1, 0, 0], TDRA, ZERO),
    wo("OSLAR_EL1", [2, 0, 1, 0, 4], TDOSA, Emulation::OsLock),
    ro("OSLSR_EL1", [2, 0, 1, 1, 4], TDOSA, Emulation::OsLockStatus),
    rw("OSDLR_EL1", [2, 0, 1, 3, 4], TDOSA, ZERO),
    rw("DBGPRCR_EL1", [2, 0, 1, 4, 4], TDOSA, ZERO),
    no("MDSELR_EL1", [2, 0, 0, 4, 2], N_MDSELR).needs("FEAT_Debugv8p9"),
    no("MDSTEPOP_EL1", [2, 0, 0, 5, 2], EN_STEPOP).needs("FEAT_STEP2"),
    // Trace.
    no("TRC*", [2, 1, 0, 0, 0], TTA).each(7, CRM, OP2).needs("FEAT_ETMv4"),
    no("TRFCR_EL1", [3, 0, 1, 2, 1], TTRF).needs("FEAT_TRF"),
    no("TRCITECR_EL1", [3, 0, 1, 2, 3], N_TRCITECR).needs("FEAT_ITE"),
    no("TRBLIMITR_EL1, TRBPTR_EL1, TRBBASER_EL1, TRBSR_EL1", [3, 0, 9, 11, 0], E2TB)
        .each(0, 0, 3)
        .needs("FEAT_TRBE"),
    no("TRBMAR_EL1, TRBMPAM_EL1", [3, 0, 9, 11, 4], E2TB).each(0, 0, 1).needs("FEAT_TRBE"),
    no("TRBTRG_EL1", [3, 0, 9, 11, 6], E2TB).needs("FEAT_TRBE"),
    no("BRBINF<n>_EL1, BRBSRC<n>_EL1, BRBTGT<n>_EL1", [2, 1, 8, 0, 0], N_BRBDATA)
        .each(0, CRM, OP2)
        .needs("FEAT_BRBE"),
    no("BRBCR_EL1", [2, 1, 9, 0, 0], N_BRBCTL).needs("FEAT_BRBE"),
    no("BRBFCR_EL1", [2, 1, 9, 0, 1], N_BRBCTL).needs("FEAT_BRBE"),
    no("BRBTS_EL1", [2, 1, 9, 0, 2], N_BRBDATA).needs("FEAT_BRBE"),
    no("BRBINFINJ_EL1", [2, 1, 9, 1, 0], N_BRBDATA).needs("FEAT_BRBE"),
    no("BRBSRCINJ_EL1", [2, 1, 9, 1, 1], N_BRBDATA).needs("FEAT_BRBE"),
    no("BRBTGTINJ_EL1", [2, 1, 9, 1, 2], N_BRBDATA).needs("FEAT_BRBE"),
    no("BRBIDR0_EL1", [2, 1, 9, 2, 0], N_BRBIDR).needs("FEAT_BRBE"),
    // Performance monitors, profiling, activity monitors.
    no("PMSCR_EL1 to PMSIDR_EL1", [3, 0, 9, 9, 0], TPMS).each(0, 0, OP2).needs("FEAT_SPE"),
    no("PMBLIMITR_EL1", [3, 0, 9, 10, 0], E2PB).needs("FEAT_SPE"),
    no("PMBPTR_EL1", [3, 0, 9, 10, 1], E2PB).needs("FEAT_SPE"),
    no("PMBSR_EL1", [3, 0, 9, 10, 3], E2PB).needs("FEAT_SPE"),
    no("PMSDSFR_EL1", [3, 0, 9, 10, 4], TPMS).needs("FEAT_SPE_FDS"),
    no("PMBMAR_EL1", [3, 0, 9, 10, 5], E2PB).needs("FEAT_SPE_nVM"),
    no("PMINTENSET_EL1", [3, 0, 9, 14, 1], TPM).needs("FEAT_PMUv3"),
    no("PMINTENCLR_EL1", [3, 0, 9, 14, 2], TPM).needs("FEAT_PMUv3"),
    no("PMUACR_EL1", [3, 0, 9, 14, 4], TPM).needs("FEAT_PMUv3p9"),
    no("PMECR_EL1", [3, 0, 9, 14, 5], TPM).needs("FEAT_PMUv3_SS"),
    no("PMMIR_EL1", [3, 0, 9, 14, 6], TPM).needs("FEAT_PMUv3p4"),
    no("PMIAR_EL1", [3, 0, 9, 14, 7], TPM).needs("FEAT_SEBEP"),
    no("PMCR_EL0 to PMCEID1_EL0", [3, 3, 9, 12, 0], TPM).each(0, 0, OP2).needs("FEAT_PMUv3"),
    no("PMCCNTR_EL0", [3, 3, 9, 13, 0], TPM).needs("FEAT_PMUv3"),
    no("PMXEVTYPER_EL0", [3, 3, 9, 13, 1], TPM).needs("FEAT_PMUv3"),
    no("PMXEVCNTR_EL0", [3, 3, 9, 13, 2], TPM).needs("FEAT_PMUv3"),
    no("PMZR_EL0", [3, 3, 9, 13, 4], TPM).needs("FEAT_PMUv3p9"),
    no("PMUSERENR_EL0", [3, 3, 9, 14, 0], TPM).needs("FEAT_PMUv3"),
    no("PMOVSSET_EL0", [3, 3, 9, 14, 3], TPM).needs("FEAT_PMUv3"),
    no("PMEVCNTR<n>_EL0", [3, 3, 14, 8, 0], TPM).each(0, 3, OP2).needs("FEAT_PMUv3"),
    no("PMEVTYPER<n>_EL0, PMCCFILTR_EL0", [3, 3, 14, 12, 0], TPM)
        .each(0, 3, OP2)
        .needs("FEAT_PMUv3"),
    no("PMICNTR_EL0", [3, 3, 9, 4, 0], TPM).needs("FEAT_PMUv3_ICNTR"),
    no("PMICFILTR_EL0", [3, 3, 9, 6, 0], TPM).needs("FEAT_PMUv3_ICNTR"),
    no("PMSSCR_EL1", [3, 0, 9, 13, 3], N_PMSSCR).needs("FEAT_PMUv3_SS"),
    no("PMEVCNTSVR<n>_EL1, PMCCNTSVR_EL1", [2, 0, 14, 8, 0], N_PMSSDATA)
        .each(0, 3, OP2)
        .needs("FEAT_PMUv3_SS"),
    no("PMICNTSVR_EL1", [2, 0, 14, 12, 0], N_PMSSDATA).needs("FEAT_PMUv3_SS"),
    no("SPMCGCR<n>_EL1, SPMACCESSR_EL1, SPMCFGR_EL1", [2, 0, 9, 13, 0], EN_SPM)
        .each(0, 0, OP2)
        .needs("FEAT_SPMU"),
    no("SPMINTENSET_EL1", [2, 0, 9, 14, 1], EN_SPM).needs("FEAT_SPMU"),
    no("SPMINTENCLR_EL1", [2, 0, 9, 14, 2], EN_SPM).needs("FEAT_SPMU"),
    no("SPMCR_EL0 to SPMSELR_EL0", [2, 3, 9, 12, 0], EN_SPM).each(0, 0, OP2).needs("FEAT_SPMU"),
    no("SPMOVSSET_EL0", [2, 3, 9, 14, 3], EN_SPM).needs("FEAT_SPMU"),
    no("SPMEV*<n>_EL0", [2, 3, 14, 0, 0], EN_SPM).each(0, 7, OP2).needs("FEAT_SPMU"),
    no("AMCR_EL0 to AMCG1IDR_EL0", [3, 3, 13, 2, 0], TAM).each(0, 0, OP2).needs("FEAT_AMUv1"),
    no("AMCNTENCLR1_EL0", [3, 3, 13, 3, 0], TAM).needs("FEAT_AMUv1"),
    no("AMCNTENSET1_EL0", [3, 3, 13, 3, 1], TAM).needs("FEAT_AMUv1"),
    no("AMEVCNTR0<n>_EL0", [3, 3, 13, 4, 0], TAM).each(0, 1, OP2).needs("FEAT_AMUv1"),
    no("AMEVTYPER0<n>_EL0", [3, 3, 13, 6, 0], TAM).each(0, 1, OP2).needs("FEAT_AMUv1"),
    no("AMEVCNTR1<n>_EL0", [3, 3, 13, 12, 0], TAM).each(0, 1, OP2).needs("FEAT_AMUv1"),
    no("AMEVTYPER1<n>_EL0", [3, 3, 13, 14, 0], TAM).each(0, 1, OP2).needs("FEAT_AMUv1"),
    // Timer: the physical one is the host's.
    no("CNTP_TVAL_EL0", [3, 3, 14, 2, 0], EL1PCEN),
    no("CNTP_CTL_EL0", [3, 3, 14, 2, 1], EL1PCEN),
    no("CNTP_CVAL_EL0", [3, 3, 14, 2, 2], EL1PCEN),
    // Interrupt controller: guests have none yet.
    no("ICC_PMR_EL1", [3, 0, 4, 6, 0], TC).needs("FEAT_GICv3"),
    no("ICC_IAR0_EL1", [3, 0, 12, 8, 0], TALL0).needs("FEAT_GICv3"),
    no("ICC_EOIR0_EL1", [3, 0, 12, 8, 1], TALL0).needs("FEAT_GICv3"),
    no("ICC_HPPIR0_EL1", [3, 0, 12, 8, 2], TALL0).needs("FEAT_GICv3"),
    no("ICC_BPR0_EL1", [3, 0, 12, 8, 3], TALL0).needs("FEAT_GICv3"),
    no("ICC_AP0R<n>_EL1", [3, 0, 12, 8, 4], TALL0).each(0, 0, 3).needs("FEAT_GICv3"),
    no("ICC_AP1R<n>_EL1", [3, 0, 12, 9, 0], TALL1).each(0, 0, 3).needs("FEAT_GICv3"),
    no("ICC_NMIAR1_EL1", [3, 0, 12, 9, 5], TALL1).needs("FEAT_GICv3_NMI"),
    no("ICC_DIR_EL1", [3, 0, 12, 11, 1], TDIR).needs("FEAT_GICv3"),
    no("ICC_RPR_EL1", [3, 0, 12, 11, 3], TC).needs("FEAT_GICv3"),
    no("ICC_SGI1R_EL1", [3, 0, 12, 11, 5], IMO).needs("FEAT_GICv3"),
    no("ICC_ASGI1R_EL1", [3, 0, 12, 11, 6], IMO).needs("FEAT_GICv3"),
    no("ICC_SGI0R_EL1", [3, 0, 12, 11, 7], IMO).needs("FEAT_GICv3"),
    no("ICC_IAR1_EL1", [3, 0, 12, 12, 0], TALL1).needs("FEAT_GICv3"),
    no("ICC_EOIR1_EL1", [3, 0, 12, 12, 1], TALL1).needs("FEAT_GICv3"),
    no("ICC_HPPIR1_EL1", [3, 0, 12, 12, 2], TALL1).needs("FEAT_GICv3"),
    no("ICC_BPR1_EL1", [3, 0, 12, 12, 3], TALL1).needs("FEAT_GICv3"),
    no("ICC_CTLR_EL1", [3, 0, 12, 12, 4], TC).needs("FEAT_GICv3"),
    no("ICC_SRE_EL1", [3, 0, 12, 12, 5], SRE_ENABLE).needs("FEAT_GICv3"),
    no("ICC_IGRPEN0_EL1", [3, 0, 12, 12, 6], TALL0).needs("FEAT_GICv3"),
    no("ICC_IGRPEN1_EL1", [3, 0, 12, 12, 7], TALL1).needs("FEAT_GICv3"),
    no("ALLINT", [3, 0, 4, 3, 0], TALLINT).needs("FEAT_NMI"),
    // Errors, partitions, limited-order regions.
    no("ERRIDR_EL1", [3, 0, 5, 3, 0], TERR).needs("FEAT_RAS"),
    no("ERRSELR_EL1", [3, 0, 5, 3, 1], TERR).needs("FEAT_RAS"),
    no("ERXGSR_EL1", [3, 0, 5, 3, 2], TERR).needs("FEAT_RASv2"),
    no("ERXFR_EL1", [3, 0, 5, 4, 0], TERR).needs("FEAT_RAS"),
    no("ERXCTLR_EL1", [3, 0, 5, 4, 1], TERR).needs("FEAT_RAS"),
    no("ERXSTATUS_EL1", [3, 0, 5, 4, 2], TERR).needs("FEAT_RAS"),
    no("ERXADDR_EL1", [3, 0, 5, 4, 3], TERR).needs("FEAT_RAS"),
    no("ERXPFGF_EL1", [3, 0, 5, 4, 4], FIEN).needs("FEAT_RASv1p1"),
    no("ERXPFGCTL_EL1", [3, 0, 5, 4, 5], FIEN).needs("FEAT_RASv1p1"),
    no("ERXPFGCDN_EL1", [3, 0, 5, 4, 6], FIEN).needs("FEAT_RASv1p1"),
    no("ERXMISC<n>_EL1", [3, 0, 5, 5, 0], TERR).each(0, 0, 3).needs("FEAT_RAS"),
    no("PFAR_EL1", [3, 0, 6, 0, 5], N_PFAR).needs("FEAT_PFAR"),
    no("LORSA_EL1", [3, 0, 10, 4, 0], TLOR).needs("FEAT_LOR"),
    no("LOREA_EL1", [3, 0, 10, 4, 1], TLOR).needs("FEAT_LOR"),
    no("LORN_EL1", [3, 0, 10, 4, 2], TLOR).needs("FEAT_LOR"),
    no("LORC_EL1", [3, 0, 10, 4, 3], TLOR).needs("FEAT_LOR"),
    no("LORID_EL1", [3, 0, 10, 4, 7], TLOR).needs("FEAT_LOR"),
    no("MPAMIDR_EL1", [3, 0, 10, 4, 4], TRAP_MPAMIDR).needs("FEAT_MPAM"),
    no("MPAM1_EL1", [3, 0, 10, 5, 0], TRAP_MPAM1).needs("FEAT_MPAM"),
    no("MPAM0_EL1", [3, 0, 10, 5, 1], TRAP_MPAM0).needs("FEAT_MPAM"),
    no("MPAMSM_EL1", [3, 0, 10, 5, 3], EN_MPAMSM).needs("FEAT_MPAM with FEAT_SME"),
    no("MPAMBWIDR_EL1", [3, 0, 10, 4, 5], N_MPAMBWIDR).needs("FEAT_MPAM_PE_BW_CTRL"),
    no("MPAMBW1_EL1", [3, 0, 10, 5, 4], N_MPAMBW1).needs("FEAT_MPAM_PE_BW_CTRL"),
    no("MPAMBW0_EL1", [3, 0, 10, 5, 5], N_MPAMBW0).needs("FEAT_MPAM_PE_BW_CTRL"),
    no("MPAMBWSM_EL1", [3, 0, 10, 5, 7], N_MPAMBWSM).needs("FEAT_MPAM_PE_BW_CTRL"),
    // Vectors and matrices.
    no("ZCR_EL1", [3, 0, 1, 2, 0], TZ).needs("FEAT_SVE"),
    no("SMPRI_EL1", [3, 0, 1, 2, 4], N_SMPRI).needs("FEAT_SME"),
    no("SMCR_EL1", [3, 0, 1, 2, 6], TSM).needs("FEAT_SME"),
    no("SVCR", [3, 3, 4, 2, 2], TSM).needs("FEAT_SME"),
    no("TPIDR2_EL0", [3, 3, 13, 0, 5], N_TPIDR2).needs("FEAT_SME"),
    no("FPMR", [3, 3, 4, 4, 2], EN_FPM).needs("FEAT_FPMR"),
    // Tags, guarded stacks, indirect permissions, and other memory features.
    no("RGSR_EL1", [3, 0, 1, 0, 5], ATA).needs("FEAT_MTE2"),
    no("GCR_EL1", [3, 0, 1, 0, 6], ATA).needs("FEAT_MTE2"),
    no("TFSR_EL1", [3, 0, 5, 6, 0], ATA).needs("FEAT_MTE2"),
    no("TFSRE0_EL1", [3, 0, 5, 6, 1], ATA).needs("FEAT_MTE2"),
    no("GCSCR_EL1", [3, 0, 2, 5, 0], N_GCS_EL1).needs("FEAT_GCS"),
    no("GCSPR_EL1", [3, 0, 2, 5, 1], N_GCS_EL1).needs("FEAT_GCS"),
    no("GCSCRE0_EL1", [3, 0, 2, 5, 2], N_GCS_EL0).needs("FEAT_GCS"),
    no("GCSPR_EL0", [3, 3, 2, 5, 1], N_GCS_EL0).needs("FEAT_GCS"),
    no("SCTLR2_EL1", [3, 0, 1, 0, 3], SCTLR2_EN).needs("FEAT_SCTLR2"),
    no("TCR2_EL1", [3, 0, 2, 0, 3], TCR2_EN).needs("FEAT_TCR2"),
    no("MAIR2_EL1", [3, 0, 10, 2, 1], N_MAIR2).needs("FEAT_AIE"),
    no("AMAIR2_EL1", [3, 0, 10, 3, 1], N_AMAIR2).needs("FEAT_AIE"),
    no("PIRE0_EL1", [3, 0, 10, 2, 2], N_PIRE0).needs("FEAT_S1PIE"),
    no("PIR_EL1", [3, 0, 10, 2, 3], N_PIR).needs("FEAT_S1PIE"),
    no("POR_EL1", [3, 0, 10, 2, 4], N_POR_EL1).needs("FEAT_S1POE"),
    no("POR_EL0", [3, 3, 10, 2, 4], N_POR_EL0).needs("FEAT_S1POE"),
    no("S2POR_EL1", [3, 0, 10, 2, 5], N_S2POR).needs("FEAT_S2POE"),
    no("RCWMASK_EL1", [3, 0, 13, 0, 6], N_RCWMASK).needs("FEAT_THE"),
    no("RCWSMASK_EL1", [3, 0, 13, 0, 3], N_RCWSMASK).needs("FEAT_THE"),
    no("ACCDATA_EL1", [3, 0, 13, 0, 5], N_ACCDATA).needs("FEAT_LS64_ACCDATA"),
    no("SCXTNUM_EL1", [3, 0, 13, 0, 7], EN_SCXT).needs("FEAT_CSV2_2"),
    no("SCXTNUM_EL0", [3, 3, 13, 0, 7], EN_SCXT).needs("FEAT_CSV2_2"),
];
