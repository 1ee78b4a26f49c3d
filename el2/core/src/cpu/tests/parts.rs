//! Real CPUs as data.
//!
//! ID registers are those of the Technical Reference Manuals. Where a manual is not public, the
//! registers of a part of the same generation stand in and only MIDR_EL1 is the part's own; the
//! comment says so.

use crate::cpu::IdRegisters;

const ZERO: IdRegisters = IdRegisters {
    midr: 0,
    revidr: 0,
    mpidr: 0x8000_0000,
    ctr: 0x8444_c004,
    dczid: 0,
    clidr: 0,
    aidr: 0,
    pfr0: 0,
    pfr1: 0,
    pfr2: 0,
    zfr0: 0,
    smfr0: 0,
    fpfr0: 0,
    dfr0: 0,
    dfr1: 0,
    dfr2: 0,
    isar0: 0,
    isar1: 0,
    isar2: 0,
    isar3: 0,
    mmfr0: 0,
    mmfr1: 0,
    mmfr2: 0,
    mmfr3: 0,
    mmfr4: 0,
    pmcr: 0,
    mpamidr: 0,
    pmbidr: 0,
    trbidr: 0,
    smidr: 0,
};

/// Cortex-A57 r1p0.
pub const A57: IdRegisters = IdRegisters {
    midr: 0x411f_d070,
    pfr0: 0x0100_2222,
    dfr0: 0x1030_5106,
    isar0: 0x0001_1120,
    mmfr0: 0x0000_1124,
    pmcr: 0x4101_3000,
    ..ZERO
};

/// Cortex-A53 r0p4.
pub const A53: IdRegisters = IdRegisters { midr: 0x410f_d034, mmfr0: 0x0000_1122, ..A57 };

/// Cortex-A72 r0p3.
pub const A72: IdRegisters = IdRegisters { midr: 0x410f_d083, ..A57 };

/// Cortex-A55 r2p0.
pub const A55: IdRegisters = IdRegisters {
    midr: 0x412f_d050,
    pfr0: 0x1111_2222,
    pfr1: 0x10,
    dfr0: 0x1030_5408,
    isar0: 0x0000_1000_1021_1120,
    isar1: 0x0010_0001,
    mmfr0: 0x0010_1122,
    mmfr1: 0x1021_2122,
    mmfr2: 0x1011,
    pmcr: 0x410b_3000,
    ..ZERO
};

/// Cortex-A76 r4p1.
pub const A76: IdRegisters = IdRegisters { midr: 0x414f_d0b1, pfr0: 0x1100_0000_1111_1112, ..A55 };

/// Neoverse N1 r4p1.
pub const N1: IdRegisters = IdRegisters {
    midr: 0x414f_d0c1,
    pfr1: 0x20,
    dfr0: 0x0001_1030_5408,
    mmfr0: 0x0010_1125,
    pmcr: 0x410c_3000,
    ..A76
};

/// Neoverse V1 r1p2.
pub const V1: IdRegisters = IdRegisters {
    midr: 0x411f_d402,
    ctr: 0xb444_c004,
    pfr0: 0x1101_1101_2111_1112,
    pfr1: 0x20,
    zfr0: 0x0000_1000_0010_0000,
    dfr0: 0x0000_01f2_1030_5519,
    isar0: 0x1011_1111_1021_2120,
    isar1: 0x0011_0000_0121_1032,
    mmfr0: 0x0010_1125,
    mmfr1: 0x1021_2122,
    mmfr2: 0x0220_0111_0210_1011,
    pmcr: 0x4121_3000,
    ..ZERO
};

/// Cortex-A710 r2p1, with MPAMIDR_EL1 as its manual has it.
pub const A710: IdRegisters = IdRegisters {
    midr: 0x412f_d471,
    ctr: 0x0000_0004_9444_c004,
    pfr0: 0x1201_1111_2111_1112,
    pfr1: 0x0221,
    zfr0: 0x0000_1101_0011_0021,
    dfr0: 0x0000_11f0_1030_5619,
    isar0: 0x0221_1111_1021_2120,
    isar1: 0x0010_1111_0121_1052,
    mmfr0: 0x0000_0222_0010_1122,
    mmfr1: 0x1021_2122,
    mmfr2: 0x1221_0111_1010_1011,
    pmcr: 0xa000,
    mpamidr: 0x0000_0001_0006_003f,
    ..ZERO
};

/// Neoverse N2 r0p3, with MPAMIDR_EL1 as its manual has it.
pub const N2: IdRegisters = IdRegisters {
    midr: 0x410f_d493,
    ctr: 0x0000_0004_b444_c004,
    dfr0: 0x0000_11f2_1030_5619,
    isar0: 0x1221_1111_1021_2120,
    isar1: 0x0011_1111_0121_1052,
    mmfr0: 0x0000_0222_0010_1125,
    mmfr2: 0x1221_0111_1210_1011,
    pmcr: 0x3000,
    mpamidr: 0x0000_0001_001e_01ff,
    ..A710
};

/// Cortex-X2 r2p1: of one design with Cortex-A710.
pub const X2: IdRegisters = IdRegisters { midr: 0x412f_d481, ..A710 };
/// Cortex-A510 r0p2; registers of Cortex-A710.
pub const A510_R0P2: IdRegisters = IdRegisters { midr: 0x410f_d462, ..A710 };
/// Cortex-A510 r1p3; registers of Cortex-A710.
pub const A510_R1P3: IdRegisters = IdRegisters { midr: 0x411f_d463, ..A710 };
/// Cortex-X3 r1p1; registers of Neoverse N2.
pub const X3: IdRegisters = IdRegisters { midr: 0x411f_d4e1, ..N2 };
/// Cortex-X925 r0p1; registers of Neoverse N2.
pub const X925: IdRegisters = IdRegisters { midr: 0x410f_d851, ..N2 };
/// Neoverse V2 r0p1; registers of Neoverse N2.
pub const V2: IdRegisters = IdRegisters { midr: 0x410f_d4f1, ..N2 };
/// Neoverse V3 r0p1; registers of Neoverse N2, but FEAT_HAFT.
pub const V3: IdRegisters = IdRegisters { midr: 0x410f_d841, mmfr1: 0x1021_2123, ..N2 };
/// Cortex-A720 r0p1; registers of Neoverse N2.
pub const A720: IdRegisters = IdRegisters { midr: 0x410f_d811, ..N2 };
/// AmpereOne (AC03); registers of Neoverse N2.
pub const AC03: IdRegisters = IdRegisters { midr: 0xc00f_ac30, ..N2 };
/// AmpereOne X (AC04); registers of Neoverse N2.
pub const AC04: IdRegisters = IdRegisters { midr: 0xc00f_ac40, ..N2 };
/// Apple M1 (Firestorm); registers of Neoverse N1, 36 bits of address.
pub const M1: IdRegisters = IdRegisters { midr: 0x611f_0231, mmfr0: 0x0010_1121, ..N1 };

/// QEMU 10.0's `max` with `pauth-impdef=on`, on a machine without memory for tags.
pub const MAX: IdRegisters = IdRegisters {
    midr: 0x000f_0510,
    ctr: 0xb444_c004,
    pfr0: 0x1301_0001_2111_0222,
    pfr1: 0x0000_0010_0100_0121,
    smfr0: 0x80f1_00fd_0000_0000,
    dfr0: 0x1000_0000_1030_560a,
    isar0: 0x1221_1111_1031_1120,
    isar1: 0x0111_2111_1021_1502,
    isar2: 0x0010_0000_0011_0012,
    mmfr0: 0x2100_0323_1020_1126,
    mmfr1: 0x0110_1120_1031_2122,
    mmfr2: 0x1221_0111_1201_1011,
    mmfr3: 0x1000_0000_0000_0000,
    pmcr: 0x4101_3000,
    ..ZERO
};

/// The same with `mte=on`.
pub const MAX_MTE: IdRegisters = IdRegisters { pfr1: 0x0000_0010_0100_0321, ..MAX };

/// A CPU with every feature of which a control register knows: all fields at 1 or more.
pub const EVERYTHING: IdRegisters = IdRegisters {
    midr: 0x410f_fff0,
    pfr0: 0x1311_1111_3111_1111,
    pfr1: 0x1111_1111_1211_1311,
    pfr2: 0x0000_0001_1111_1111,
    smfr0: 0x8000_0000_0000_0000,
    dfr0: 0x1111_1113_1111_191b,
    dfr1: 0x1111_1111_1111_1111,
    dfr2: 0x1111_1111,
    isar0: 0x1211_1111_1111_1111,
    isar1: 0x3111_1111_1111_1111,
    isar2: 0x1111_1111_1111_1112,
    isar3: 0x1111_1111_1111_1111,
    mmfr0: 0x2211_1222_1111_1116,
    mmfr1: 0x1111_1111_1111_1124,
    mmfr2: 0x1221_1111_1111_1111,
    mmfr3: 0x1111_1111_1111_1111,
    mmfr4: 0x1111_1111_1111_1111,
    pmcr: 31 << 11,
    mpamidr: 1 << 17 | 1 << 58 | 1 << 56,
    ..ZERO
};
