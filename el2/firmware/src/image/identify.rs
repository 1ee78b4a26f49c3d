//! Reads the ID registers of the CPU that asks.

use verdigris_core::cpu::IdRegisters;

use super::access;
use super::sysreg::read;

/// Reads everything that decisions about this CPU are made from.
///
/// Registers without a name in older assemblers are given by encoding; the ID space reads as zero
/// where nothing is (Arm ARM D24.1). Those outside it are read only where the CPU has them, and EL3 lets us; the first that EL3 may
/// keep are tried, and MPAMIDR_EL1 with them.
pub fn this_cpu() -> IdRegisters {
    let mut id = IdRegisters {
        midr: read!("midr_el1"),
        revidr: read!("revidr_el1"),
        mpidr: read!("mpidr_el1"),
        ctr: read!("ctr_el0"),
        dczid: read!("dczid_el0"),
        clidr: read!("clidr_el1"),
        aidr: read!("aidr_el1"),
        pfr0: read!("id_aa64pfr0_el1"),
        pfr1: read!("id_aa64pfr1_el1"),
        pfr2: read!("s3_0_c0_c4_2"),
        zfr0: read!("s3_0_c0_c4_4"),
        smfr0: read!("s3_0_c0_c4_5"),
        fpfr0: read!("s3_0_c0_c4_7"),
        dfr0: read!("id_aa64dfr0_el1"),
        dfr1: read!("id_aa64dfr1_el1"),
        dfr2: read!("s3_0_c0_c5_2"),
        isar0: read!("id_aa64isar0_el1"),
        isar1: read!("id_aa64isar1_el1"),
        isar2: read!("s3_0_c0_c6_2"),
        isar3: read!("s3_0_c0_c6_3"),
        mmfr0: read!("id_aa64mmfr0_el1"),
        mmfr1: read!("id_aa64mmfr1_el1"),
        mmfr2: read!("id_aa64mmfr2_el1"),
        mmfr3: read!("s3_0_c0_c7_3"),
        mmfr4: read!("s3_0_c0_c7_4"),
        ..IdRegisters::default()
    };
    access::hide_what_is_kept(&mut id);
    if id.has_pmu() {
        id.pmcr = read!("pmcr_el0");
    }
    if id.has_spe() {
        id.pmbidr = read!("s3_0_c9_c10_7");
    }
    if id.has_trbe() {
        id.trbidr = read!("s3_0_c9_c11_7");
    }
    id
}
