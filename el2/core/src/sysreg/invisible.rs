//! Registers that a guest reads from the CPU itself, though EL2 neither switches nor traps them.
//!
//! None of them can be written at EL1: so no guest can leave anything in one.

use super::row::{Direction, Fate, Register};

const fn ro(name: &'static str, encoding: [u8; 5], why: &'static str) -> Register {
    Register::new(name, encoding, Direction::ReadOnly, Fate::Invisible(why))
}

const CONSTANT: &str = "a constant of the CPU, read-only";
const RANDOM: &str = "a fresh random number, read-only";

/// The registers that are neither switched nor trapped.
pub const INVISIBLE: &[Register] = &[
    ro("REVIDR_EL1", [3, 0, 0, 0, 6], CONSTANT),
    ro("CCSIDR_EL1", [3, 1, 0, 0, 0], "a constant, chosen by the guest's own CSSELR_EL1"),
    ro("CLIDR_EL1", [3, 1, 0, 0, 1], CONSTANT),
    ro("CCSIDR2_EL1", [3, 1, 0, 0, 2], CONSTANT).needs("FEAT_CCIDX"),
    ro("GMID_EL1", [3, 1, 0, 0, 4], CONSTANT).needs("FEAT_MTE2"),
    ro("SMIDR_EL1", [3, 1, 0, 0, 6], CONSTANT).needs("FEAT_SME"),
    ro("AIDR_EL1", [3, 1, 0, 0, 7], CONSTANT),
    ro("PMBIDR_EL1", [3, 0, 9, 10, 7], CONSTANT).needs("FEAT_SPE"),
    ro("TRBIDR_EL1", [3, 0, 9, 11, 7], CONSTANT).needs("FEAT_TRBE"),
    ro("CTR_EL0", [3, 3, 0, 0, 1], CONSTANT),
    ro("DCZID_EL0", [3, 3, 0, 0, 7], CONSTANT),
    ro("RNDR", [3, 3, 2, 4, 0], RANDOM).needs("FEAT_RNG"),
    ro("RNDRRS", [3, 3, 2, 4, 1], RANDOM).needs("FEAT_RNG"),
    ro(
        "ISR_EL1",
        [3, 0, 12, 1, 0],
        "with HCR_EL2.IMO, FMO and AMO set, of virtual interrupts only",
    ),
    ro("CNTFRQ_EL0", [3, 3, 14, 0, 0], "a constant of the machine; EL1 can't write it"),
    ro("CNTPCT_EL0", [3, 3, 14, 0, 1], "the time since the machine started, read-only"),
    ro("CNTPCTSS_EL0", [3, 3, 14, 0, 5], "the time since the machine started, read-only")
        .needs("FEAT_ECV"),
];
