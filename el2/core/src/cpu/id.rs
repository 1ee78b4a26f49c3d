//! The raw ID registers of one CPU.

/// The ID registers of one CPU, as read at EL2.
///
/// Every register whose encoding is op0 = 3, op1 = 0, CRn = 0, CRm = 4 to 7 can be read on every
/// Armv8 CPU: what a CPU does not have reads as zero (Arm ARM, D24.1). The last five fields are no
/// such registers and exist only with a feature; they stay zero on a CPU without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdRegisters {
    /// MIDR_EL1.
    pub midr: u64,
    /// REVIDR_EL1.
    pub revidr: u64,
    /// MPIDR_EL1.
    pub mpidr: u64,
    /// CTR_EL0.
    pub ctr: u64,
    /// DCZID_EL0.
    pub dczid: u64,
    /// CLIDR_EL1.
    pub clidr: u64,
    /// AIDR_EL1.
    pub aidr: u64,
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64PFR1_EL1.
    pub pfr1: u64,
    /// ID_AA64PFR2_EL1.
    pub pfr2: u64,
    /// ID_AA64ZFR0_EL1.
    pub zfr0: u64,
    /// ID_AA64SMFR0_EL1.
    pub smfr0: u64,
    /// ID_AA64FPFR0_EL1.
    pub fpfr0: u64,
    /// ID_AA64DFR0_EL1.
    pub dfr0: u64,
    /// ID_AA64DFR1_EL1.
    pub dfr1: u64,
    /// ID_AA64DFR2_EL1.
    pub dfr2: u64,
    /// ID_AA64ISAR0_EL1.
    pub isar0: u64,
    /// ID_AA64ISAR1_EL1.
    pub isar1: u64,
    /// ID_AA64ISAR2_EL1.
    pub isar2: u64,
    /// ID_AA64ISAR3_EL1.
    pub isar3: u64,
    /// ID_AA64MMFR0_EL1.
    pub mmfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
    /// ID_AA64MMFR2_EL1.
    pub mmfr2: u64,
    /// ID_AA64MMFR3_EL1.
    pub mmfr3: u64,
    /// ID_AA64MMFR4_EL1.
    pub mmfr4: u64,
    /// PMCR_EL0, where [`has_pmu`](Self::has_pmu).
    pub pmcr: u64,
    /// MPAMIDR_EL1, where [`has_mpam`](Self::has_mpam).
    pub mpamidr: u64,
    /// PMBIDR_EL1, where [`has_spe`](Self::has_spe).
    pub pmbidr: u64,
    /// TRBIDR_EL1, where [`has_trbe`](Self::has_trbe).
    pub trbidr: u64,
    /// SMIDR_EL1, where [`has_sme`](Self::has_sme).
    pub smidr: u64,
}
