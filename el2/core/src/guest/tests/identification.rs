//! What a guest reads from ID registers.

use super::*;
use crate::sysreg::Encoding;

/// A part of the future: every field of every register is 14.
const FUTURE: u64 = 0xeeee_eeee_eeee_eeee;

fn future() -> IdRegisters {
    IdRegisters {
        pfr0: FUTURE,
        pfr1: FUTURE,
        pfr2: FUTURE,
        zfr0: FUTURE,
        smfr0: FUTURE,
        fpfr0: FUTURE,
        dfr0: FUTURE,
        dfr1: FUTURE,
        dfr2: FUTURE,
        isar0: FUTURE,
        isar1: FUTURE,
        isar2: FUTURE,
        isar3: FUTURE,
        mmfr0: FUTURE,
        mmfr1: FUTURE,
        mmfr2: FUTURE,
        mmfr3: FUTURE,
        mmfr4: FUTURE,
        ..IdRegisters::default()
    }
}

fn read(raw: &IdRegisters, crm: u8, op2: u8, ipa_bits: u8) -> u64 {
    id::value(Encoding::new(3, 0, 0, crm, op2), raw, ipa_bits)
}

#[test]
fn unlisted_registers_are_zero() {
    let listed = [(4, 0), (4, 1), (5, 0), (6, 0), (6, 1), (6, 2), (6, 3)];
    let listed = |crm, op2| listed.contains(&(crm, op2)) || crm == 7 && op2 < 4;
    for crm in 1..8 {
        for op2 in 0..8 {
            let value = read(&future(), crm, op2, 48);
            assert_eq!(value != 0, listed(crm, op2), "CRm {crm}, op2 {op2}");
        }
    }
}

#[test]
fn features_that_are_not_offered_are_zero() {
    let field = |crm, op2, shift: u32| read(&future(), crm, op2, 48) >> shift & 0xf;
    // GIC, RAS, SVE, SEL2, MPAM, AMU, RME.
    for shift in [24, 28, 32, 36, 40, 44, 52] {
        assert_eq!(field(4, 0, shift), 0, "PFR0[{shift}]");
    }
    // MTE, RAS_frac, MPAM_frac, SME, RNDR_trap, NMI, MTE_frac, GCS, THE, MTEX, DF2, PFAR.
    for shift in [8, 12, 16, 24, 28, 36, 40, 44, 48, 52, 56, 60] {
        assert_eq!(field(4, 1, shift), 0, "PFR1[{shift}]");
    }
    // TraceVer, PMUVer, PMSVer, TraceFilt, TraceBuffer, MTPMU, BRBE, ExtTrcBuff, HPMN0.
    for shift in [4, 8, 32, 40, 44, 48, 52, 56, 60] {
        assert_eq!(field(5, 0, shift), 0, "DFR0[{shift}]");
    }
    // TME; LS64; SYSREG_128, SYSINSTR_128.
    assert_eq!((field(6, 0, 24), field(6, 1, 60)), (0, 0));
    assert_eq!((field(6, 2, 32), field(6, 2, 36)), (0, 0));
    // FGT; VMIDBits, VH, LO, SpecSEI, XNX, HCX; IESB, NV, FWB, EVT.
    assert_eq!(field(7, 0, 56), 0);
    for shift in [4, 8, 16, 24, 28, 40] {
        assert_eq!(field(7, 1, shift), 0, "MMFR1[{shift}]");
    }
    for shift in [12, 24, 40, 56] {
        assert_eq!(field(7, 2, shift), 0, "MMFR2[{shift}]");
    }
    assert_eq!(read(&future(), 7, 3, 48), 1 << 60);
}

#[test]
fn fixed_and_signed_fields() {
    // AArch64 only at EL1 and EL0; FP and AdvSIMD absent (15) stay absent.
    let bare = IdRegisters { pfr0: 0x00ff_2222, ..IdRegisters::default() };
    assert_eq!(read(&bare, 4, 0, 48), 0x00ff_0011);
    // No double lock; Armv8.2 debug at most.
    let debug = IdRegisters { dfr0: 0x1030_5b0b, ..IdRegisters::default() };
    assert_eq!(read(&debug, 5, 0, 48), 0xf0_1030_5008);
    // 4 KiB and 64 KiB granules absent (15) or there (0).
    let granules = IdRegisters { mmfr0: 0xff00_0000, ..IdRegisters::default() };
    assert_eq!(read(&granules, 7, 0, 48), 0xff00_0000);
}

#[test]
fn physical_addresses_are_no_wider_than_the_vm() {
    let range =
        |raw, ipa_bits| read(&IdRegisters { mmfr0: raw, ..IdRegisters::default() }, 7, 0, ipa_bits);
    // 48 bits is 5, 44 is 4, 42 is 3, 40 is 2, 36 is 1, 32 is 0.
    assert_eq!((range(5, 48), range(5, 47), range(5, 40)), (5, 4, 2));
    assert_eq!((range(5, 39), range(5, 32), range(5, 33)), (1, 0, 0));
    assert_eq!((range(2, 48), range(6, 48)), (2, 5));
}
