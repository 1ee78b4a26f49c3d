//! Names for the fields of ID registers that the firmware asks about.
//!
//! A field is four bits wide and grows with what the CPU has (Arm ARM, D24.1.4), so nearly every
//! question is "at least". The few that are signed, or where the top value means "none", are spelled
//! out below the table.

use super::IdRegisters;

/// Extracts the four-bit field whose lowest bit is `lsb`.
pub(super) const fn nibble(register: u64, lsb: u32) -> u64 {
    register >> lsb & 0xf
}

macro_rules! at_least {
    ($( #[doc = $doc:literal] $name:ident: $register:ident[$lsb:literal] >= $least:literal; )*) => {
        impl IdRegisters { $(
            #[doc = concat!("Tells whether the CPU has ", $doc, ".")]
            pub const fn $name(&self) -> bool {
                nibble(self.$register, $lsb) >= $least
            }
        )* }
    };
}

at_least! {
    /// AArch64 at EL2
    has_el2: pfr0[8] >= 1;
    /// the system registers of GICv3 or later
    has_gic_registers: pfr0[24] >= 1;
    /// FEAT_RAS
    has_ras: pfr0[28] >= 1;
    /// FEAT_RASv2
    has_ras_v2: pfr0[28] >= 3;
    /// FEAT_SVE
    has_sve: pfr0[32] >= 1;
    /// FEAT_AMUv1
    has_amu: pfr0[44] >= 1;

    /// FEAT_SSBS
    has_ssbs: pfr1[4] >= 1;
    /// FEAT_MTE2: tags in memory, not only the instructions
    has_mte2: pfr1[8] >= 2;
    /// FEAT_SME
    has_sme: pfr1[24] >= 1;
    /// FEAT_SME2
    has_sme2: pfr1[24] >= 2;
    /// FEAT_NMI
    has_nmi: pfr1[36] >= 1;
    /// FEAT_GCS
    has_gcs: pfr1[44] >= 1;
    /// FEAT_THE
    has_the: pfr1[48] >= 1;
    /// FEAT_PFAR
    has_pfar: pfr1[60] >= 1;
    /// FEAT_GCIE: the CPU interface of a GICv5
    has_gicv5: pfr2[12] >= 1;
    /// FEAT_FPMR
    has_fpmr: pfr2[32] >= 1;

    /// FEAT_Debugv8p9
    has_debug_v8p9: dfr0[0] >= 0xb;
    /// FEAT_PMUv3_SS
    has_pmu_snapshots: dfr0[16] >= 1;
    /// FEAT_SPE
    has_spe: dfr0[32] >= 1;
    /// FEAT_SPEv1p2
    has_spe_v1p2: dfr0[32] >= 3;
    /// FEAT_TRF
    has_trace_filter: dfr0[40] >= 1;
    /// FEAT_TRBE
    has_trbe: dfr0[44] >= 1;
    /// FEAT_BRBE
    has_brbe: dfr0[52] >= 1;
    /// FEAT_SPMU
    has_spmu: dfr1[32] >= 1;
    /// FEAT_PMUv3_ICNTR
    has_instruction_counter: dfr1[36] >= 1;
    /// FEAT_SEBEP
    has_sebep: dfr0[24] >= 1;
    /// FEAT_ITE
    has_ite: dfr1[44] >= 1;
    /// FEAT_EBEP
    has_ebep: dfr1[48] >= 1;
    /// FEAT_STEP2
    has_step2: dfr2[0] >= 1;

    /// FEAT_TLBIOS
    has_tlbi_os: isar0[56] >= 1;
    /// FEAT_TLBIRANGE
    has_tlbi_range: isar0[56] >= 2;
    /// FEAT_RNG
    has_rng: isar0[60] >= 1;
    /// FEAT_XS
    has_xs: isar1[56] >= 1;
    /// FEAT_LS64
    has_ls64: isar1[60] >= 1;
    /// FEAT_LS64_V
    has_ls64_v: isar1[60] >= 2;
    /// FEAT_LS64_ACCDATA
    has_ls64_accdata: isar1[60] >= 3;
    /// FEAT_WFxT
    has_wfxt: isar2[0] >= 2;
    /// FEAT_MOPS
    has_mops: isar2[16] >= 1;
    /// FEAT_SYSREG128
    has_sysreg128: isar2[32] >= 1;
    /// FEAT_PAuth_LR with its own control of PSTATE.PACM
    has_pacm: isar3[12] >= 1;

    /// FEAT_ExS
    has_exs: mmfr0[44] >= 1;
    /// FEAT_FGT
    has_fgt: mmfr0[56] >= 1;
    /// FEAT_FGT2
    has_fgt2: mmfr0[56] >= 2;
    /// FEAT_ECV
    has_ecv: mmfr0[60] >= 1;
    /// FEAT_ECV_POFF
    has_ecv_poff: mmfr0[60] >= 2;
    /// hardware access flags (FEAT_HAFDBS)
    has_hardware_access_flag: mmfr1[0] >= 1;
    /// hardware dirty state (FEAT_HAFDBS)
    has_hardware_dirty_state: mmfr1[0] >= 2;
    /// FEAT_LOR
    has_lor: mmfr1[16] >= 1;
    /// FEAT_XNX
    has_xnx: mmfr1[28] >= 1;
    /// FEAT_HCX
    has_hcx: mmfr1[40] >= 1;
    /// FEAT_S2FWB
    has_forced_write_back: mmfr2[40] >= 1;
    /// FEAT_TTL
    has_ttl: mmfr2[48] >= 1;
    /// FEAT_EVT
    has_evt: mmfr2[56] >= 1;
    /// FEAT_TCR2
    has_tcr2: mmfr3[0] >= 1;
    /// FEAT_SCTLR2
    has_sctlr2: mmfr3[4] >= 1;
    /// FEAT_S1PIE
    has_s1pie: mmfr3[8] >= 1;
    /// FEAT_S1POE
    has_s1poe: mmfr3[16] >= 1;
    /// FEAT_S2POE
    has_s2poe: mmfr3[20] >= 1;
    /// FEAT_AIE
    has_aie: mmfr3[24] >= 1;
    /// FEAT_D128
    has_d128: mmfr3[32] >= 1;
    /// FEAT_PoPS
    has_pops: mmfr4[0] >= 1;
    /// FEAT_SRMASK
    has_srmask: mmfr4[44] >= 1;
}

impl IdRegisters {
    /// Tells whether the CPU has PMUv3. The top value means a PMU of another kind.
    pub const fn has_pmu(&self) -> bool {
        matches!(nibble(self.dfr0, 8), 1..=0xe)
    }

    /// Tells whether the CPU has PMUv3 of at least version `least` of the field PMUVer.
    pub const fn has_pmu_version(&self, least: u64) -> bool {
        self.has_pmu() && nibble(self.dfr0, 8) >= least
    }

    /// Tells whether the CPU has FEAT_SPE and EL3 leaves the buffer to us: PMBIDR_EL1.P (4) is set where it
    /// belongs to a higher exception level, and every other register of it then traps there.
    pub const fn has_own_spe(&self) -> bool {
        self.has_spe() && self.pmbidr >> 4 & 1 == 0
    }

    /// Tells whether the CPU has FEAT_TRBE and EL3 leaves the buffer to us: TRBIDR_EL1.P (4), likewise.
    pub const fn has_own_trbe(&self) -> bool {
        self.has_trbe() && self.trbidr >> 4 & 1 == 0
    }

    /// Tells whether the CPU has FEAT_MTPMU. All ones means that it has not.
    pub const fn has_mtpmu(&self) -> bool {
        nibble(self.dfr0, 48) == 1
    }

    /// Tells whether the CPU has FEAT_MPAM, of any version: 0.1 shows in the fraction alone.
    pub const fn has_mpam(&self) -> bool {
        nibble(self.pfr0, 40) >= 1 || nibble(self.pfr1, 16) >= 1
    }

    /// Tells whether the CPU has MPAMHCR_EL2 (MPAMIDR_EL1.HAS_HCR).
    pub const fn has_mpam_virtualization(&self) -> bool {
        self.has_mpam() && self.mpamidr >> 17 & 1 == 1
    }

    /// Tells whether the CPU has FEAT_MPAM_PE_BW_CTRL (MPAMIDR_EL1.HAS_BW_CTRL).
    pub const fn has_mpam_bandwidth(&self) -> bool {
        self.has_mpam() && self.mpamidr >> 56 & 1 == 1
    }

    /// Tells whether the CPU has FEAT_RASv1p1, which an early form shows in the fraction.
    pub const fn has_ras_v1p1(&self) -> bool {
        let ras = nibble(self.pfr0, 28);
        ras >= 2 || ras == 1 && nibble(self.pfr1, 12) >= 1
    }

    /// Tells whether the CPU has SCXTNUM_ELx (FEAT_CSV2_2 or FEAT_CSV2_1p2).
    pub const fn has_scxtnum(&self) -> bool {
        let csv2 = nibble(self.pfr0, 56);
        csv2 >= 2 || csv2 == 1 && nibble(self.pfr1, 32) >= 2
    }

    /// Tells whether the CPU has pointer authentication of addresses, of any algorithm.
    pub const fn has_pauth(&self) -> bool {
        nibble(self.isar1, 4) | nibble(self.isar1, 8) | nibble(self.isar2, 12) != 0
    }

    /// Tells whether all of A64 can be executed in streaming mode (FEAT_SME_FA64), a one-bit field.
    pub const fn has_sme_fa64(&self) -> bool {
        self.has_sme() && self.smfr0 >> 63 & 1 == 1
    }

    /// Tells whether HCR_EL2.E2H can be 0: the signed field E2H0 is negative where it cannot.
    pub const fn allows_e2h_clear(&self) -> bool {
        nibble(self.mmfr4, 24) < 8
    }

    /// Tells whether 4 KiB tables work at stage 1; the signed field TGran4 is negative where not.
    pub const fn has_4k_stage1(&self) -> bool {
        nibble(self.mmfr0, 28) < 8
    }

    /// Tells whether 4 KiB tables work at stage 2. TGran4_2 refers to TGran4 where it is zero.
    pub const fn has_4k_stage2(&self) -> bool {
        match nibble(self.mmfr0, 40) {
            0 => self.has_4k_stage1(),
            1 => false,
            _ => true,
        }
    }

    /// Returns the width of a VMID in bits, 8 or 16.
    pub const fn vmid_bits(&self) -> u32 {
        if nibble(self.mmfr1, 4) == 2 { 16 } else { 8 }
    }

    /// Returns the level of FEAT_BBM, 0 to 2.
    pub const fn bbm_level(&self) -> u32 {
        let level = nibble(self.mmfr2, 52);
        if level > 2 { 2 } else { level as u32 }
    }

    /// Returns the field PARange, capped at 48 bits: more needs descriptors of another format.
    pub const fn pa_range(&self) -> u64 {
        let range = nibble(self.mmfr0, 0);
        if range > 5 { 5 } else { range }
    }

    /// Returns the width of a physical address in bits, at most 48.
    pub const fn pa_bits(&self) -> u32 {
        [32, 36, 40, 42, 44, 48][self.pa_range() as usize]
    }

    /// Returns how many event counters the PMU has (PMCR_EL0.N); zero without one.
    pub const fn event_counters(&self) -> u64 {
        if self.has_pmu() { self.pmcr >> 11 & 0x1f } else { 0 }
    }

    /// Returns the size of the smallest line of the CPU's data caches (CTR_EL0.DminLine, log2 of words).
    pub const fn data_line_bytes(&self) -> u64 {
        4 << (self.ctr >> 16 & 0xf)
    }
}
