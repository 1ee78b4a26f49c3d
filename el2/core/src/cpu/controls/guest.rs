//! A guest's values: whatever the world switch does not save and restore is trapped.
//!
//! Guests have no SVE, SME, memory tagging, performance monitors, activity monitors, profiling, trace,
//! branch records, 64-byte atomics or resource partitioning. The trap of each has to hold on a CPU with
//! the feature; on one without it the bit is RES0, and most of those are left clear.

use super::{Controls, FineTraps, FineTraps2, cptr_res1, hcr_common, mdcr_common, when};
use crate::cpu::{IdRegisters, Selection};

pub(super) fn controls(id: &IdRegisters, selection: &Selection) -> Controls {
    Controls {
        hcr: hcr(id, selection),
        hcrx: id.has_hcx().then(|| hcrx(id)),
        cptr: cptr(id),
        mdcr: mdcr(id, selection),
        // EL1PCTEN alone: the physical counter can be read, the physical timer traps.
        cnthctl: 0b01,
        fine: id.has_fgt().then(|| fine(id)),
        // All bits clear: what FEAT_FGT2 can trap by a negative bit is trapped.
        fine2: id.has_fgt2().then_some(NO_MORE),
        mpam2: id.has_mpam().then(|| mpam2(id)),
        // TRAP_MPAMIDR_EL1: where there is no such control, MPAMIDR_EL1 shows a constant.
        mpamhcr: id.has_mpam_virtualization().then_some(1 << 31),
        // All traps.
        mpambw2: id.has_mpam_bandwidth().then_some(0),
        gicv5: id.has_gicv5().then_some([0; 3]),
        // SRE, DFB and DIB without Enable: ICC_SRE_EL1 traps.
        icc_sre: id.has_gic_registers().then_some(0x7),
        // TC (10), TALL0 (11), TALL1 (12), TDIR (14): all of the CPU interface traps.
        ich_hcr: id.has_gic_registers().then_some(1 << 10 | 1 << 11 | 1 << 12 | 1 << 14),
    }
}

/// Bits of HCR_EL2 (Arm ARM, D24.2) that every guest has.
const HCR_TRAPS: u64 = SWIO | MASKS | FB | BSU_IS | WAITS | TID3 | TIDCP | TACR | TSW;
/// Set/way invalidation also cleans.
const SWIO: u64 = 1 << 1;
/// FMO, IMO and AMO: physical interrupts and SErrors end the run; those of the guest are virtual.
const MASKS: u64 = 0b111 << 3;
/// A guest's local TLB and instruction cache maintenance reaches every CPU that its vCPU was on.
const FB: u64 = 1 << 9;
/// Its barriers are inner-shareable at least, for the same reason.
const BSU_IS: u64 = 0b01 << 10;
/// TWI and TWE.
const WAITS: u64 = 0b11 << 13;
/// Reads of the ID registers, which are emulated.
const TID3: u64 = 1 << 18;
/// Registers that an implementation defines for itself.
const TIDCP: u64 = 1 << 20;
/// ACTLR_EL1.
const TACR: u64 = 1 << 21;
/// Cache maintenance by set and way.
const TSW: u64 = 1 << 22;

/// TLOR (35), TERR (36), TEA (37): LORegions, error records and synchronous external aborts come to
/// EL2. FIEN, EnSCXT, ATA, AMVOFFEN and the bits of nested virtualization stay clear, as do TGE and
/// E2H.
const fn hcr(id: &IdRegisters, selection: &Selection) -> u64 {
    hcr_common(id, selection)
        | HCR_TRAPS
        | when(id.has_lor(), 1 << 35)
        | when(id.has_ras(), 0b11 << 36)
}

/// MSCEn (11): memory copy instructions hold their state in general registers. TALLINT (6) traps the
/// mask of non-maskable interrupts. All other enables stay clear: TCR2_EL1, SCTLR2_EL1, guarded control
/// stacks, 64-byte and 128-bit accesses, FPMR are not offered.
const fn hcrx(id: &IdRegisters) -> u64 {
    when(id.has_mops(), 1 << 11) | when(id.has_nmi(), 1 << 6)
}

/// TZ (8), TFP (10), TSM (12), TTA (20), TAM (30). Where there is no SVE or SME, the bit is RES1.
const fn cptr(id: &IdRegisters) -> u64 {
    cptr_res1(id) | Controls::CPTR_TFP | 1 << 8 | 1 << 12 | 1 << 20 | when(id.has_amu(), 1 << 30)
}

/// TPMCR (5), TPM (6), TDA (9), TDOSA (10), TDRA (11); TPMS (14) and TTRF (19) with their features;
/// TDCC (27), the debug communication channel, came with FEAT_FGT. E2PB and E2TB at 0 keep the
/// profiling and trace buffers from EL1, and stop them while it runs. TDE stays clear: debug
/// exceptions are the guest's.
const fn mdcr(id: &IdRegisters, selection: &Selection) -> u64 {
    mdcr_common(id, selection)
        | Controls::MDCR_TDA
        | 0b11 << 5
        | 0b11 << 10
        | when(id.has_spe(), 1 << 14)
        | when(id.has_trace_filter(), 1 << 19)
        | when(id.has_fgt(), 1 << 27)
}

/// All clear but CPPRCTX: the negative bits trap what they name, and what the other positive ones name is trapped
/// by the coarse controls above, or switched, or harmless. CPP RCTX can keep invalidations of other CPUs from
/// taking effect (CVE-2025-0647), on parts that are known and perhaps on others.
const fn fine(id: &IdRegisters) -> FineTraps {
    FineTraps {
        hfgrtr: 0,
        hfgwtr: 0,
        hfgitr: FineTraps::CPP_RCTX,
        hdfgrtr: 0,
        hdfgwtr: 0,
        hafgrtr: if id.has_amu() { Some(0) } else { None },
    }
}

const NO_MORE: FineTraps2 =
    FineTraps2 { hfgrtr2: 0, hfgwtr2: 0, hfgitr2: 0, hdfgrtr2: 0, hdfgwtr2: 0 };

/// TRAPMPAM1EL1 (48), TRAPMPAM0EL1 (49) and, where MPAMIDR_EL1.HAS_TIDR (58), TIDR (58). MPAMEN (63)
/// stays as the host has it: a guest runs in the partition that the host gave the thread.
const fn mpam2(id: &IdRegisters) -> u64 {
    1 << 63 | 0b11 << 48 | when(id.mpamidr >> 58 & 1 == 1, 1 << 58)
}
