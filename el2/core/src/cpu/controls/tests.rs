//! Expected values are spelled bit by bit from the Arm ARM, chapter D24.2.

use crate::cpu::tests::*;
use crate::cpu::{Controls, Features, Fixed, IdRegisters, Selection};

fn host(id: &IdRegisters) -> Controls {
    Controls::host(id, &Selection::new(id, Features::ALL).unwrap())
}

fn guest(id: &IdRegisters) -> Controls {
    Controls::guest(id, &Selection::new(id, Features::ALL).unwrap())
}

/// VM, TSC, RW.
const HCR_HOST: u64 = 1 << 0 | 1 << 19 | 1 << 31;
const API_APK: u64 = 1 << 40 | 1 << 41;
const FWB: u64 = 1 << 46;
const FIEN: u64 = 1 << 47;
const EN_SCXT: u64 = 1 << 53;
const ATA: u64 = 1 << 56;

#[test]
fn host_hcr_gives_what_each_part_has() {
    for (name, id, more) in [
        ("Cortex-A57", A57, 0),
        ("Neoverse N1", N1, 0),
        ("Neoverse V1", V1, API_APK | FWB | FIEN),
        ("Cortex-A710", A710, API_APK | FWB | FIEN | EN_SCXT | ATA),
        ("QEMU max", MAX, API_APK | FWB | FIEN | EN_SCXT),
        ("QEMU max, mte=on", MAX_MTE, API_APK | FWB | FIEN | EN_SCXT | ATA),
    ] {
        assert_eq!(host(&id).hcr, HCR_HOST | more, "{name}");
    }
}

#[test]
fn forced_write_back_is_the_same_for_both_worlds() {
    for forced_write_back in [true, false] {
        let mask = Features { forced_write_back, ..Features::ALL };
        let selection = Selection::new(&MAX, mask).unwrap();
        let bit = u64::from(forced_write_back) << 46;
        assert_eq!(Controls::host(&MAX, &selection).hcr & 1 << 46, bit);
        assert_eq!(Controls::guest(&MAX, &selection).hcr & 1 << 46, bit);
    }
}

#[test]
fn guest_hcr_traps_what_is_not_switched() {
    // VM, SWIO, FMO, IMO, AMO, FB, BSU = 1, TWI, TWE, TID3, TSC, TIDCP, TACR, TSW, RW.
    let always = 1 << 0
        | 1 << 1
        | 1 << 3
        | 1 << 4
        | 1 << 5
        | 1 << 9
        | 1 << 10
        | 1 << 13
        | 1 << 14
        | 1 << 18
        | 1 << 19
        | 1 << 20
        | 1 << 21
        | 1 << 22
        | 1 << 31;
    let (tlor, terr, tea) = (1 << 35, 1 << 36, 1 << 37);
    assert_eq!(guest(&A57).hcr, always);
    assert_eq!(guest(&N1).hcr, always | tlor | terr | tea);
    assert_eq!(guest(&MAX).hcr, always | tlor | terr | tea | API_APK | FWB);
    assert_eq!(guest(&MAX_MTE).hcr, always | tlor | terr | tea | API_APK | FWB, "ATA stays clear");
}

#[test]
fn cptr_depends_on_vectors() {
    // Bits 13, 12, 9, 8 and 7:0 are RES1 without SVE and SME; 12 and 8 are their traps.
    assert_eq!(host(&A57).cptr, 0x33ff);
    assert_eq!(host(&V1).cptr, 0x32ff);
    assert_eq!(host(&MAX).cptr, 0x22ff);
    // TTA is bit 20, TFP bit 10, TAM bit 30.
    assert_eq!(guest(&A57).cptr, 0x33ff | 1 << 20 | 1 << 10);
    assert_eq!(guest(&MAX).cptr, 0x33ff | 1 << 20 | 1 << 10);
    assert_eq!(guest(&V1).cptr, 0x33ff | 1 << 20 | 1 << 10 | 1 << 30);
}

#[test]
fn mdcr_leaves_the_host_its_counters() {
    // Six counters; HPMD with PMUv3p1; HCCD with PMUv3p5.
    assert_eq!(host(&A57).mdcr, 6);
    assert_eq!(host(&N1).mdcr, 6 | 1 << 17 | 1 << 12 | 1 << 13);
    assert_eq!(host(&MAX).mdcr, 6 | 1 << 17 | 1 << 23);
    assert_eq!(host(&A710).mdcr, 20 | 1 << 17 | 1 << 23 | 0b11 << 24);
    let no_pmu = IdRegisters { dfr0: A57.dfr0 | 0xf00, ..A57 };
    assert_eq!(host(&no_pmu).mdcr, 0);
}

#[test]
fn a_reserved_counter_is_taken_from_both_worlds() {
    let reserved = |id: &IdRegisters| {
        let selection = Selection::new(id, Features::ALL).unwrap().reserving_counter(true);
        let (host, guest) = (Controls::host(id, &selection), Controls::guest(id, &selection));
        (host.mdcr & 0xff, guest.mdcr & 0x9f)
    };
    // HPME is bit 7.
    assert_eq!(reserved(&MAX), (5 | 1 << 7, 5 | 1 << 7));
    let one = IdRegisters { pmcr: 1 << 11, ..MAX };
    assert_eq!(reserved(&one), (1, 1), "the last counter stays the host's");
}

#[test]
fn guest_mdcr_traps_debug_counters_and_buffers() {
    // TPMCR, TPM, TDA, TDOSA, TDRA.
    let always = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11;
    assert_eq!(guest(&A57).mdcr, 6 | always);
    // HPMD and TPMS.
    assert_eq!(guest(&N1).mdcr, 6 | always | 1 << 17 | 1 << 14);
    // HPMD, HCCD and TDCC.
    assert_eq!(guest(&MAX).mdcr, 6 | always | 1 << 17 | 1 << 23 | 1 << 27);
    // HPMD, HCCD and TTRF; E2TB is 0.
    assert_eq!(guest(&A710).mdcr, 20 | always | 1 << 17 | 1 << 23 | 1 << 19);
}

#[test]
fn timers_are_the_hosts_but_for_the_counter() {
    assert_eq!((host(&MAX).cnthctl, guest(&MAX).cnthctl), (3, 1));
}

#[test]
fn registers_exist_with_their_features_only() {
    let a57 = host(&A57);
    assert_eq!((a57.hcrx, a57.fine, a57.fine2, a57.mpam2), (None, None, None, None));
    let bare = IdRegisters { pfr0: 0x2222, ..A57 };
    assert_eq!((host(&bare).icc_sre, host(&bare).ich_hcr), (None, None));
    assert_eq!((a57.icc_sre, a57.ich_hcr), (Some(0xf), Some(0)));
    let guest = guest(&A57);
    // TC, TALL0, TALL1, TDIR; Enable (bit 3) clear.
    assert_eq!((guest.icc_sre, guest.ich_hcr), (Some(0x7), Some(0x5c00)));
    assert!(host(&A710).mpam2.is_some() && host(&V1).fine.is_none());
}

#[test]
fn max_gets_the_values_that_ran() {
    let max = host(&MAX);
    // MSCEn.
    assert_eq!(max.hcrx, Some(0x800));
    let fine = max.fine.unwrap();
    // nSMPRI_EL1 and nTPIDR2_EL0: of all that fine-grained traps gate, this part has SME.
    assert_eq!((fine.hfgrtr, fine.hfgwtr), (0b11 << 54, 0b11 << 54));
    assert_eq!((fine.hfgitr, fine.hdfgrtr, fine.hdfgwtr, fine.hafgrtr), (0, 0, 0, None));
    let fixed = Fixed::new(&MAX);
    // LEN, FA64 (31); EZT0 (30) comes with SME2.
    assert_eq!((fixed.zcr, fixed.smcr), (Some(0x1ff), Some(0x8000_01ff)));
    assert_eq!(Fixed::new(&EVERYTHING).smcr, Some(0xc000_01ff));
    assert_eq!((fixed.vpidr, fixed.vmpidr), (0x000f_0510, 0x8000_0000));
    assert_eq!((fixed.trfcr, fixed.brbcr, fixed.pmscr, max.mpamhcr), (None, None, None, None));
}

#[test]
fn a_part_with_everything_loses_nothing() {
    let all = host(&EVERYTHING);
    let fine = all.fine.unwrap();
    // Bit 51 is RES0; 48, 49 and everything below 50 trap when set.
    assert_eq!((fine.hfgrtr, fine.hfgwtr), (0xfff4 << 48, 0xfff4 << 48));
    assert_eq!(fine.hfgitr, 0xf80 << 48);
    assert_eq!((fine.hdfgrtr, fine.hdfgwtr), (0x78 << 56, 0x70 << 56));
    assert_eq!(fine.hafgrtr, Some(0));
    let more = all.fine2.unwrap();
    assert_eq!((more.hfgrtr2, more.hfgwtr2), (0x7fff, 0x7ffd));
    assert_eq!(more.hfgitr2, 1 << 1);
    // Bit 21 is no bit of the read register; 6, 17 and 18 none of the write register.
    assert_eq!(more.hdfgrtr2, 0x1df_ffff);
    assert_eq!(more.hdfgwtr2, 0x1f9_ffbf);
    // EnAS0, EnALS, EnASR, MSCEn, TCR2En, SCTLR2En, PTTWI, D128En, EnIDCP128, GCSEn, EnFPM, PACMEn,
    // SRMASKEn.
    assert_eq!(all.hcrx, Some(0x05e3_c807));
    // MPAMEN and EnMPAMSM.
    assert_eq!((all.mpam2, all.mpamhcr), (Some(1 << 63 | 1 << 50), Some(0)));
    // nTRAP_MPAMBWIDR_EL1, nTRAP_MPAMBW0_EL1, nTRAP_MPAMBW1_EL1, nTRAP_MPAMBWSM_EL1.
    assert_eq!(all.mpambw2, Some(1 << 52 | 1 << 51 | 1 << 50 | 1 << 49));
    // Bits 20:16 and 7:0; 20:17, 6, 5, 2 and 0; 10:0 (Linux, booting.rst).
    assert_eq!(all.gicv5, Some([0x1f_00ff, 0x1e_0065, 0x7ff]));
}

#[test]
fn a_part_with_everything_has_its_newer_enables() {
    // EnSPM (15), EBWE (43), EnSTEPOP (50).
    let enables = |id: &IdRegisters| host(id).mdcr & (1 << 15 | 1 << 43 | 1 << 50);
    assert_eq!(enables(&EVERYTHING), 1 << 15 | 1 << 43 | 1 << 50);
    assert_eq!(enables(&N1), 0);
}

#[test]
fn records_of_errors_are_the_hosts_from_version_1_1_on() {
    // RAS (31:28) and RAS_frac (15:12), which tells the early form of v1.1; FIEN (47).
    let fien = |ras: u64, frac: u64| {
        let pfr0 = N1.pfr0 & !(0xf << 28) | ras << 28;
        let id = IdRegisters { pfr0, pfr1: N1.pfr1 & !(0xf << 12) | frac << 12, ..N1 };
        host(&id).hcr >> 47 & 1
    };
    for (ras, frac, has) in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1), (2, 0, 1), (3, 0, 1)] {
        assert_eq!(fien(ras, frac), has, "{ras}.{frac}");
    }
}

#[test]
fn a_guest_on_a_part_with_everything_gets_no_more() {
    let all = guest(&EVERYTHING);
    let fine = all.fine.unwrap();
    // CPPRCTX (50).
    assert_eq!((fine.hfgrtr, fine.hfgwtr, fine.hfgitr), (0, 0, 1 << 50));
    assert_eq!((fine.hdfgrtr, fine.hdfgwtr), (0, 0));
    let more = all.fine2.unwrap();
    assert_eq!((more.hfgrtr2, more.hfgwtr2, more.hfgitr2), (0, 0, 0));
    assert_eq!((more.hdfgrtr2, more.hdfgwtr2), (0, 0));
    // MSCEn and TALLINT.
    assert_eq!(all.hcrx, Some(1 << 11 | 1 << 6));
    // MPAMEN, TIDR, TRAPMPAM0EL1, TRAPMPAM1EL1.
    assert_eq!(all.mpam2, Some(1 << 63 | 1 << 58 | 1 << 49 | 1 << 48));
    // TRAP_MPAMIDR_EL1.
    assert_eq!(all.mpamhcr, Some(1 << 31));
    assert_eq!((all.mpambw2, all.gicv5), (Some(0), Some([0; 3])));
    // E2PB, EnSPM, E2TB, EBWE and EnSTEPOP are 0.
    assert_eq!(all.mdcr & (0b11 << 12 | 1 << 15 | 0b11 << 24 | 1 << 43 | 1 << 50), 0);
}

#[test]
fn a_buffer_of_el3_is_left_alone() {
    // PA (4) and PCT = 1 (7:6).
    assert_eq!(Fixed::new(&N1).pmscr, Some(0x50));
    let kept = IdRegisters { pmbidr: 1 << 4, ..N1 };
    assert_eq!(Fixed::new(&kept).pmscr, None);
    // E2PB (13:12) and E2TB (25:24) give buffers to EL1 that are ours to give.
    assert_eq!((host(&N1).mdcr & 0b11 << 12, host(&kept).mdcr & 0b11 << 12), (0b11 << 12, 0));
    let kept = IdRegisters { trbidr: 1 << 4, ..A710 };
    assert_eq!((host(&A710).mdcr & 0b11 << 24, host(&kept).mdcr & 0b11 << 24), (0b11 << 24, 0));
    assert!(A710.has_own_trbe() && !kept.has_own_trbe());
}

#[test]
fn cpp_rctx_is_stepped_over_where_it_can_be() {
    // Bit 50 of HFGITR_EL2; FEAT_FGT is ID_AA64MMFR0_EL1.FGT (59:56).
    let traps = |id: &IdRegisters| {
        let bit = |controls: Controls| controls.fine.map(|fine| fine.hfgitr >> 50 & 1);
        (bit(host(id)), bit(guest(id)))
    };
    let v3 = IdRegisters { mmfr0: MAX.mmfr0, ..V3 };
    assert_eq!(traps(&v3), (Some(1), Some(1)));
    assert_eq!(traps(&MAX), (Some(0), Some(1)));
    assert_eq!(traps(&N2), (None, None), "no fine-grained traps: EL3 has to see to it");
}

#[test]
fn only_invasive_debug_of_the_non_secure_state_reaches_el2() {
    // NSID (1:0): 0b00 not there, 0b10 disabled, 0b11 enabled. NSNID (3:2), SID (5:4), SNID (7:6).
    for (status, halts) in [(0x00, false), (0xaa, false), (0xab, true), (0xff, true), (0xfe, false)]
    {
        assert_eq!(crate::cpu::lets_el2_be_halted(status), halts, "{status:#x}");
    }
}
