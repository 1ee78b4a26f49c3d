//! Checks the policy for guests, with numbers written out from the Arm ARM.

mod context;
mod decide;
mod identification;
mod registers;
mod resume;

use super::*;
use crate::cpu::IdRegisters;

/// A part with six breakpoints and four watchpoints, pointer authentication and RAS.
const PART: IdRegisters = IdRegisters {
    midr: 0x410f_d0c1,
    revidr: 0,
    mpidr: 0,
    ctr: 0,
    dczid: 0,
    clidr: 0,
    aidr: 0,
    pfr0: 0x1100_0000_1111_1112,
    pfr1: 0x10,
    pfr2: 0,
    zfr0: 0,
    smfr0: 0,
    fpfr0: 0,
    dfr0: 0x1030_5106,
    dfr1: 0,
    dfr2: 0,
    isar0: 0x1_0010_0010_2111,
    isar1: 0x1_0001_0000 | 0x10,
    isar2: 0,
    isar3: 0,
    mmfr0: 0x10_1125,
    mmfr1: 0x1021_2122,
    mmfr2: 0x1011,
    mmfr3: 0,
    mmfr4: 0,
    pmcr: 0,
    mpamidr: 0,
    pmbidr: 0,
    trbidr: 0,
    smidr: 0,
};

fn machine() -> Machine<'static> {
    Machine { raw: &PART, ipa_bits: 40 }
}

fn context() -> Context {
    Context::reset(PART.midr, 0)
}
