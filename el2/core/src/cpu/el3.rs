//! What EL3 may keep for itself, although the CPU has it.
//!
//! ID registers say what a CPU has, not what EL3 lets others use of it: a bit of EL3's turns each access
//! below into a trap there. No register tells which. So the firmware tries the first register of each group once on
//! each CPU (`access.rs`), and what fails counts as not there: [`Group::hide`] takes it out of the ID registers
//! that all else follows from. A trap is answered by an UNDEFINED instruction at EL2 where EL3 is TF-A of 2.11 or
//! later; an older one stops the machine, and then the last line of `log=debug` names the group.
//!
//! What a hidden group leaves to the host is the host's: it reads the CPU's own ID registers.

use super::IdRegisters;

/// Registers of EL2 behind one bit of EL3's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// ICC_SRE_EL2 and ICH_HCR_EL2: the system registers of a GICv3, which may also stay off.
    GicRegisters,
    /// HFGRTR_EL2 and its kin.
    FineTraps,
    /// HFGRTR2_EL2 and its kin.
    FineTraps2,
    /// HCRX_EL2.
    Hcrx,
    /// TCR2_EL2, and TCR2_EL1.
    Tcr2,
    /// SCTLR2_EL2, and SCTLR2_EL1.
    Sctlr2,
    /// GCSCR_EL2, and all of guarded control stacks.
    Gcs,
    /// ZCR_EL2, and all of SVE.
    Sve,
    /// SMCR_EL2, and all of SME.
    Sme,
    /// MPAM2_EL2, and all of resource partitions.
    Mpam,
    /// MPAMBW2_EL2, and all limits of bandwidth.
    Bandwidth,
    /// ICH_HFGRTR_EL2 and its kin, and all of the interface of a GICv5.
    Gicv5,
    /// BRBCR_EL2, and all branch records.
    Branches,
    /// TRFCR_EL2 and TRFCR_EL1.
    TraceFilter,
}

impl Group {
    /// All of them, in the order in which they are tried. MPAMIDR_EL1 can be read after the one before the last.
    pub const ALL: [Self; 14] = [
        Self::GicRegisters,
        Self::FineTraps,
        Self::FineTraps2,
        Self::Hcrx,
        Self::Tcr2,
        Self::Sctlr2,
        Self::Gcs,
        Self::Sve,
        Self::Sme,
        Self::Branches,
        Self::TraceFilter,
        Self::Gicv5,
        Self::Mpam,
        Self::Bandwidth,
    ];

    /// Tells whether the CPU has it, so that there is something to try.
    pub const fn is_present(self, id: &IdRegisters) -> bool {
        match self {
            Self::GicRegisters => id.has_gic_registers(),
            Self::FineTraps => id.has_fgt(),
            Self::FineTraps2 => id.has_fgt2(),
            Self::Hcrx => id.has_hcx(),
            Self::Tcr2 => id.has_tcr2(),
            Self::Sctlr2 => id.has_sctlr2(),
            Self::Gcs => id.has_gcs(),
            Self::Sve => id.has_sve(),
            Self::Sme => id.has_sme(),
            Self::Mpam => id.has_mpam(),
            Self::Bandwidth => id.has_mpam_bandwidth(),
            Self::Gicv5 => id.has_gicv5(),
            Self::Branches => id.has_brbe(),
            Self::TraceFilter => id.has_trace_filter(),
        }
    }

    /// Takes it out of the ID registers: the fields that bring it read as on a CPU without it.
    pub const fn hide(self, id: &mut IdRegisters) {
        match self {
            Self::GicRegisters => id.pfr0 &= !(0xf << 24),
            Self::FineTraps => id.mmfr0 &= !(0xf << 56),
            Self::FineTraps2 => id.mmfr0 = id.mmfr0 & !(0xf << 56) | 1 << 56,
            Self::Hcrx => id.mmfr1 &= !(0xf << 40),
            Self::Tcr2 => id.mmfr3 &= !0xf,
            Self::Sctlr2 => id.mmfr3 &= !(0xf << 4),
            Self::Gcs => id.pfr1 &= !(0xf << 44),
            Self::Sve => id.pfr0 &= !(0xf << 32),
            Self::Sme => id.pfr1 &= !(0xf << 24),
            Self::Mpam => {
                id.pfr0 &= !(0xf << 40);
                id.pfr1 &= !(0xf << 16);
            }
            Self::Bandwidth => id.mpamidr &= !(1 << 56),
            Self::Gicv5 => id.pfr2 &= !(0xf << 12),
            Self::Branches => id.dfr0 &= !(0xf << 52),
            Self::TraceFilter => id.dfr0 &= !(0xf << 40),
        }
    }

    /// Names the bit of EL3 that has to allow it, and TF-A's build option for that.
    pub const fn key(self) -> &'static str {
        match self {
            Self::GicRegisters => "ICC_SRE_EL3.SRE and ICC_SRE_EL3.Enable (TF-A: USE_GIC_DRIVER)",
            Self::FineTraps => "SCR_EL3.FGTEn (TF-A: ENABLE_FEAT_FGT)",
            Self::FineTraps2 => "SCR_EL3.FGTEn2 (TF-A: ENABLE_FEAT_FGT2)",
            Self::Hcrx => "SCR_EL3.HXEn (TF-A: ENABLE_FEAT_HCX)",
            Self::Tcr2 => "SCR_EL3.TCR2En (TF-A: ENABLE_FEAT_TCR2)",
            Self::Sctlr2 => "SCR_EL3.SCTLR2En (TF-A: ENABLE_FEAT_SCTLR2)",
            Self::Gcs => "SCR_EL3.GCSEn (TF-A: ENABLE_FEAT_GCS)",
            Self::Sve => "CPTR_EL3.EZ (TF-A: ENABLE_SVE_FOR_NS)",
            Self::Sme => "CPTR_EL3.ESM (TF-A: ENABLE_SME_FOR_NS)",
            Self::Mpam => "MPAM3_EL3.TRAPLOWER (TF-A: ENABLE_FEAT_MPAM)",
            Self::Bandwidth => "MPAMBW3_EL3.nTRAPLOWER (TF-A: ENABLE_FEAT_MPAM_PE_BW_CTRL)",
            // The architecture has no such bit; an EL3 of a GICv3 may still not have made the interface work.
            Self::Gicv5 => "ICC_CR0_EL3.LINK (TF-A: ENABLE_FEAT_GCIE)",
            Self::Branches => "MDCR_EL3.SBRBE (TF-A: ENABLE_BRBE_FOR_NS)",
            Self::TraceFilter => "MDCR_EL3.TTRF (TF-A: ENABLE_TRF_FOR_NS)",
        }
    }
}
