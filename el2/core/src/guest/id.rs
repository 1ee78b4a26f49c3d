//! The ID registers that a guest reads: what the CPU has, less what guests aren't offered.
//!
//! The one invariant: a field that isn't listed reads as zero, and a listed one never above the value
//! that is listed. So a feature of a later architecture stays hidden until someone has thought about
//! its registers, and what a guest is told is no more than what the register tables hold for.
//!
//! The AArch32 registers read as zero: guests are told that EL0 has AArch64 only (a CPU with AArch32 at
//! EL0 has no control that takes it away; a guest that enters it all the same harms only itself).

use crate::cpu::IdRegisters;
use crate::sysreg::Encoding;

/// How a four-bit field is passed on.
#[derive(Clone, Copy)]
enum Rule {
    /// The smaller of what the CPU has and this.
    AtMost(u8),
    /// As before, where 15 stands for "not there" and stays.
    SignedAtMost(u8),
    /// That value, whatever the CPU has.
    Fixed(u8),
}

use Rule::{AtMost, Fixed, SignedAtMost};

/// The lowest bit of a field, and its rule.
type Field = (u8, Rule);

const ID_AA64PFR0: &[Field] = &[
    (0, Fixed(1)),         // EL0: AArch64 only
    (4, Fixed(1)),         // EL1: AArch64 only
    (16, SignedAtMost(1)), // FP: FEAT_FP16
    (20, SignedAtMost(1)), // AdvSIMD: FEAT_FP16
    (48, AtMost(1)),       // DIT
    (56, AtMost(1)),       // CSV2: from 2 on it brings SCXTNUM_ELx
    (60, AtMost(1)),       // CSV3
];

const ID_AA64PFR1: &[Field] = &[
    (0, AtMost(1)),  // BT
    (4, AtMost(2)),  // SSBS
    (32, AtMost(1)), // CSV2_frac: 2 brings SCXTNUM_ELx
];

const ID_AA64DFR0: &[Field] = &[
    (0, AtMost(8)),   // DebugVer: FEAT_Debugv8p2
    (12, AtMost(15)), // BRPs
    (20, AtMost(15)), // WRPs
    (28, AtMost(15)), // CTX_CMPs
    (36, Fixed(15)),  // DoubleLock: not there, so OSDLR_EL1 is RAZ/WI
];

const ID_AA64ISAR0: &[Field] = &[
    (4, AtMost(2)),  // AES, PMULL
    (8, AtMost(1)),  // SHA1
    (12, AtMost(2)), // SHA2
    (16, AtMost(1)), // CRC32
    (20, AtMost(3)), // Atomic: FEAT_LSE, FEAT_LSE128
    (28, AtMost(1)), // RDM
    (32, AtMost(1)), // SHA3
    (36, AtMost(1)), // SM3
    (40, AtMost(1)), // SM4
    (44, AtMost(1)), // DP
    (48, AtMost(1)), // FHM
    (52, AtMost(2)), // TS: FEAT_FlagM2
    (56, AtMost(2)), // TLB: FEAT_TLBIRANGE
    (60, AtMost(1)), // RNDR
];

/// SPECRES (40) is hidden: CPP RCTX does nothing where it can be trapped, and no guest may rely on it.
const ID_AA64ISAR1: &[Field] = &[
    (0, AtMost(2)),  // DPB
    (4, AtMost(5)),  // APA
    (8, AtMost(5)),  // API
    (12, AtMost(1)), // JSCVT
    (16, AtMost(1)), // FCMA
    (20, AtMost(3)), // LRCPC
    (24, AtMost(1)), // GPA
    (28, AtMost(1)), // GPI
    (32, AtMost(1)), // FRINTTS
    (36, AtMost(1)), // SB
    (44, AtMost(2)), // BF16
    (48, AtMost(1)), // DGH
    (52, AtMost(1)), // I8MM
    (56, AtMost(1)), // XS
];

const ID_AA64ISAR2: &[Field] = &[
    (0, AtMost(2)),  // WFxT
    (4, AtMost(1)),  // RPRES
    (8, AtMost(1)),  // GPA3
    (12, AtMost(5)), // APA3
    (16, AtMost(1)), // MOPS
    (20, AtMost(1)), // BC
    (24, AtMost(1)), // PAC_frac
    (28, AtMost(1)), // CLRBHB
    (48, AtMost(1)), // RPRFM
    (52, AtMost(1)), // CSSC
    (56, AtMost(1)), // LUT
    (60, AtMost(1)), // ATS1A
];

const ID_AA64ISAR3: &[Field] = &[
    (4, AtMost(1)), // FAMINMAX
];

/// PARange is narrowed to the VM's, see [`value`]. Mixed endianness isn't offered: the firmware hands
/// the value of a store on as the register holds it. The granules of stage 2 (43:32) don't concern a
/// guest, and read as those of stage 1 do.
const ID_AA64MMFR0: &[Field] = &[
    (0, AtMost(6)),        // PARange
    (4, AtMost(2)),        // ASIDBits
    (20, AtMost(2)),       // TGran16
    (24, SignedAtMost(0)), // TGran64
    (28, SignedAtMost(1)), // TGran4
    (44, AtMost(1)),       // ExS
    (60, AtMost(1)),       // ECV: the counters without a barrier
];

const ID_AA64MMFR1: &[Field] = &[
    (0, AtMost(2)),  // HAFDBS
    (12, AtMost(2)), // HPDS
    (20, AtMost(3)), // PAN
    (36, AtMost(3)), // ETS
    (44, AtMost(1)), // AFP
    (48, AtMost(1)), // nTLBPA
    (52, AtMost(1)), // TIDCP1
    (60, AtMost(1)), // ECBHB
];

const ID_AA64MMFR2: &[Field] = &[
    (0, AtMost(1)),  // CnP
    (4, AtMost(1)),  // UAO
    (8, AtMost(1)),  // LSM
    (16, AtMost(1)), // VARange
    (20, AtMost(1)), // CCIDX
    (28, AtMost(1)), // ST
    (32, AtMost(1)), // AT: FEAT_LSE2
    (36, AtMost(1)), // IDS
    (48, AtMost(1)), // TTL
    (52, AtMost(2)), // BBM
    (60, AtMost(1)), // E0PD
];

const ID_AA64MMFR3: &[Field] = &[
    (60, AtMost(1)), // Spec_FPACC
];

/// Returns what a guest reads from an ID register: op0 = 3, op1 = 0, CRn = 0.
///
/// `ipa_bits` is the width of the VM's intermediate physical addresses, which to a guest are physical.
pub fn value(encoding: Encoding, raw: &IdRegisters, ipa_bits: u8) -> u64 {
    match (encoding.crm(), encoding.op2()) {
        (4, 0) => masked(raw.pfr0, ID_AA64PFR0),
        (4, 1) => masked(raw.pfr1, ID_AA64PFR1),
        (5, 0) => masked(raw.dfr0, ID_AA64DFR0),
        (6, 0) => masked(raw.isar0, ID_AA64ISAR0),
        (6, 1) => masked(raw.isar1, ID_AA64ISAR1),
        (6, 2) => masked(raw.isar2, ID_AA64ISAR2),
        (6, 3) => masked(raw.isar3, ID_AA64ISAR3),
        (7, 0) => with_pa_range(masked(raw.mmfr0, ID_AA64MMFR0), ipa_bits),
        (7, 1) => masked(raw.mmfr1, ID_AA64MMFR1),
        (7, 2) => masked(raw.mmfr2, ID_AA64MMFR2),
        (7, 3) => masked(raw.mmfr3, ID_AA64MMFR3),
        _ => 0,
    }
}

/// Builds a register from its listed fields.
fn masked(raw: u64, fields: &[Field]) -> u64 {
    fields.iter().fold(0, |value, &(shift, rule)| {
        let field = (raw >> shift & 0xf) as u8;
        let passed = match rule {
            AtMost(most) => field.min(most),
            SignedAtMost(_) if field & 8 != 0 => field,
            SignedAtMost(most) => field.min(most),
            Fixed(fixed) => fixed,
        };
        value | u64::from(passed) << shift
    })
}

/// Narrows PARange to the largest size that isn't larger than the VM's.
fn with_pa_range(mmfr0: u64, ipa_bits: u8) -> u64 {
    const BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];
    let fits = BITS.iter().rposition(|&bits| bits <= ipa_bits).unwrap_or(0) as u64;
    mmfr0 & !0xf | fits.min(mmfr0 & 0xf)
}
