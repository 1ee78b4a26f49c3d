//! Registers of which a guest has its own: the world switch saves and restores them.

use super::row::{Direction, Fate, Place, Register};
use crate::guest::Slot;

const fn rw(name: &'static str, encoding: [u8; 5], place: Place) -> Register {
    Register::new(name, encoding, Direction::ReadWrite, Fate::Switched(place))
}

const fn ro(name: &'static str, encoding: [u8; 5], place: Place) -> Register {
    Register::new(name, encoding, Direction::ReadOnly, Fate::Switched(place))
}

const fn slot(name: &'static str, encoding: [u8; 5], slot: Slot) -> Register {
    rw(name, encoding, Place::Slot(slot))
}

const fn key(name: &'static str, encoding: [u8; 5], slot: Slot) -> Register {
    rw(name, encoding, Place::Slot(slot)).needs("FEAT_PAuth")
}

const fn pstate(name: &'static str, encoding: [u8; 5]) -> Register {
    rw(name, encoding, Place::Pstate)
}

/// The registers that are switched.
pub const SWITCHED: &[Register] = &[
    slot("SCTLR_EL1", [3, 0, 1, 0, 0], Slot::Sctlr),
    slot("CPACR_EL1", [3, 0, 1, 0, 2], Slot::Cpacr),
    slot("TTBR0_EL1", [3, 0, 2, 0, 0], Slot::Ttbr0),
    slot("TTBR1_EL1", [3, 0, 2, 0, 1], Slot::Ttbr1),
    slot("TCR_EL1", [3, 0, 2, 0, 2], Slot::Tcr),
    slot("SPSR_EL1", [3, 0, 4, 0, 0], Slot::Spsr),
    slot("ELR_EL1", [3, 0, 4, 0, 1], Slot::Elr),
    rw("SP_EL0", [3, 0, 4, 1, 0], Place::SpEl0),
    slot("AFSR0_EL1", [3, 0, 5, 1, 0], Slot::Afsr0),
    slot("AFSR1_EL1", [3, 0, 5, 1, 1], Slot::Afsr1),
    slot("ESR_EL1", [3, 0, 5, 2, 0], Slot::Esr),
    slot("FAR_EL1", [3, 0, 6, 0, 0], Slot::Far),
    slot("PAR_EL1", [3, 0, 7, 4, 0], Slot::Par),
    slot("MAIR_EL1", [3, 0, 10, 2, 0], Slot::Mair),
    slot("AMAIR_EL1", [3, 0, 10, 3, 0], Slot::Amair),
    slot("VBAR_EL1", [3, 0, 12, 0, 0], Slot::Vbar),
    slot("CONTEXTIDR_EL1", [3, 0, 13, 0, 1], Slot::Contextidr),
    slot("TPIDR_EL1", [3, 0, 13, 0, 4], Slot::TpidrEl1),
    slot("TPIDR_EL0", [3, 3, 13, 0, 2], Slot::TpidrEl0),
    slot("TPIDRRO_EL0", [3, 3, 13, 0, 3], Slot::TpidrroEl0),
    slot("CSSELR_EL1", [3, 2, 0, 0, 0], Slot::Csselr),
    slot("CNTKCTL_EL1", [3, 0, 14, 1, 0], Slot::Cntkctl),
    slot("CNTV_CTL_EL0", [3, 3, 14, 3, 1], Slot::CntvCtl),
    slot("CNTV_CVAL_EL0", [3, 3, 14, 3, 2], Slot::CntvCval),
    rw("CNTV_TVAL_EL0", [3, 3, 14, 3, 0], Place::View(Slot::CntvCval)),
    ro("CNTVCT_EL0", [3, 3, 14, 0, 2], Place::View(Slot::Cntvoff)),
    ro("CNTVCTSS_EL0", [3, 3, 14, 0, 6], Place::View(Slot::Cntvoff)).needs("FEAT_ECV"),
    // Reads at EL1 return what EL2 wrote to VPIDR_EL2 and VMPIDR_EL2.
    ro("MIDR_EL1", [3, 0, 0, 0, 0], Place::Slot(Slot::Vpidr)),
    ro("MPIDR_EL1", [3, 0, 0, 0, 5], Place::Slot(Slot::Vmpidr)),
    // With HCR_EL2.AMO set, accesses at EL1 reach VDISR_EL2.
    slot("DISR_EL1", [3, 0, 12, 1, 1], Slot::Vdisr).needs("FEAT_RAS"),
    key("APIAKeyLo_EL1", [3, 0, 2, 1, 0], Slot::ApiaLo),
    key("APIAKeyHi_EL1", [3, 0, 2, 1, 1], Slot::ApiaHi),
    key("APIBKeyLo_EL1", [3, 0, 2, 1, 2], Slot::ApibLo),
    key("APIBKeyHi_EL1", [3, 0, 2, 1, 3], Slot::ApibHi),
    key("APDAKeyLo_EL1", [3, 0, 2, 2, 0], Slot::ApdaLo),
    key("APDAKeyHi_EL1", [3, 0, 2, 2, 1], Slot::ApdaHi),
    key("APDBKeyLo_EL1", [3, 0, 2, 2, 2], Slot::ApdbLo),
    key("APDBKeyHi_EL1", [3, 0, 2, 2, 3], Slot::ApdbHi),
    key("APGAKeyLo_EL1", [3, 0, 2, 3, 0], Slot::ApgaLo),
    key("APGAKeyHi_EL1", [3, 0, 2, 3, 1], Slot::ApgaHi),
    rw("FPCR", [3, 3, 4, 4, 0], Place::Fp),
    rw("FPSR", [3, 3, 4, 4, 1], Place::Fp),
    pstate("NZCV", [3, 3, 4, 2, 0]),
    pstate("DAIF", [3, 3, 4, 2, 1]),
    pstate("SPSel", [3, 0, 4, 2, 0]),
    ro("CurrentEL", [3, 0, 4, 2, 2], Place::Pstate),
    pstate("PAN", [3, 0, 4, 2, 3]).needs("FEAT_PAN"),
    pstate("UAO", [3, 0, 4, 2, 4]).needs("FEAT_UAO"),
    pstate("PM", [3, 0, 4, 3, 1]).needs("FEAT_EBEP"),
    pstate("DIT", [3, 3, 4, 2, 5]).needs("FEAT_DIT"),
    pstate("SSBS", [3, 3, 4, 2, 6]).needs("FEAT_SSBS2"),
    pstate("TCO", [3, 3, 4, 2, 7]).needs("FEAT_MTE"),
];
