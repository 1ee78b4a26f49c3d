//! The host's values: nothing trapped but the calls that the firmware answers.

use super::{
    Controls, FineTraps, FineTraps2, cptr_res1, gates, hcr_common, mdcr_common, open, when,
};
use crate::cpu::{Errata, IdRegisters, Selection};

pub(super) fn controls(id: &IdRegisters, selection: &Selection) -> Controls {
    Controls {
        hcr: hcr(id, selection),
        hcrx: id.has_hcx().then(|| open(gates::HCRX, id)),
        // TCPAC, TAM, TTA, TSM, TFP and TZ clear: floating point, vectors and trace are the host's.
        cptr: cptr_res1(id),
        mdcr: mdcr(id, selection),
        // EL1PCTEN and EL1PCEN: the host uses the physical timer, the virtual one is for guests.
        // ECV, EL1TVT and EL1TVCT stay clear: no offset, no trap.
        cnthctl: 0b11,
        fine: id.has_fgt().then(|| fine(id)),
        fine2: id.has_fgt2().then(|| fine2(id)),
        mpam2: id.has_mpam().then(|| mpam2(id)),
        mpamhcr: id.has_mpam_virtualization().then_some(0),
        // nTRAP_MPAMBWIDR_EL1 (52) to nTRAP_MPAMBWSM_EL1 (49); ENABLED (62) clear: no limit on EL2 itself.
        mpambw2: id.has_mpam_bandwidth().then_some(0b1111 << 49),
        // What Linux's boot protocol asks for of a kernel at EL1: nothing traps.
        gicv5: id.has_gicv5().then_some([0x1f_00ff, 0x1e_0065, 0x7ff]),
        // SRE, DFB, DIB and Enable: the host programs the interrupt controller itself.
        icc_sre: id.has_gic_registers().then_some(0xf),
        ich_hcr: id.has_gic_registers().then_some(0),
    }
}

/// AMO, IMO and FMO stay clear: interrupts and SErrors are the host's, and wait while EL2 runs.
const fn hcr(id: &IdRegisters, selection: &Selection) -> u64 {
    const FIEN: u64 = 1 << 47;
    const EN_SCXT: u64 = 1 << 53;
    const ATA: u64 = 1 << 56;
    hcr_common(id, selection)
        | when(id.has_ras_v1p1(), FIEN)
        | when(id.has_scxtnum(), EN_SCXT)
        | when(id.has_mte2(), ATA)
}

/// E2PB (13:12) and E2TB (25:24) at 3 give the profiling and trace buffers to EL1, unless EL3 keeps them. EnSPM (15), EBWE
/// (43) and EnSTEPOP (50) are enables.
const fn mdcr(id: &IdRegisters, selection: &Selection) -> u64 {
    mdcr_common(id, selection)
        | when(id.has_own_spe(), 0b11 << 12)
        | when(id.has_own_trbe(), 0b11 << 24)
        | when(id.has_spmu(), 1 << 15)
        | when(id.has_debug_v8p9(), 1 << 43)
        | when(id.has_step2(), 1 << 50)
}

fn fine(id: &IdRegisters) -> FineTraps {
    FineTraps {
        hfgrtr: open(gates::HFGRTR, id),
        hfgwtr: open(gates::HFGRTR, id),
        // Stepped over where it is known to do harm (CVE-2025-0647).
        hfgitr: open(gates::HFGITR, id)
            | when(Errata::of(id.midr).cpp_holds_tlbi, FineTraps::CPP_RCTX),
        hdfgrtr: open(gates::HDFGRTR, id),
        hdfgwtr: open(gates::HDFGWTR, id),
        // Every bit of this one traps when it is set.
        hafgrtr: id.has_amu().then_some(0),
    }
}

fn fine2(id: &IdRegisters) -> FineTraps2 {
    let debug = open(gates::HDFGRTR2, id);
    let general = open(gates::HFGRTR2, id);
    FineTraps2 {
        hfgrtr2: general,
        hfgwtr2: general & !gates::HFGWTR2_ABSENT,
        hfgitr2: open(gates::HFGITR2, id),
        hdfgrtr2: debug,
        hdfgwtr2: debug & !gates::HDFGWTR2_ABSENT | open(gates::HDFGWTR2_MORE, id),
    }
}

/// MPAMEN (63), which EL1 can't set while there is an EL2, and EnMPAMSM (50). TRAPMPAM1EL1,
/// TRAPMPAM0EL1 and TIDR stay clear; EL2 itself runs in partition 0.
const fn mpam2(id: &IdRegisters) -> u64 {
    1 << 63 | when(id.has_sme(), 1 << 50)
}
