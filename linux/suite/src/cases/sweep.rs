//! The guest executes every encoding of the spaces of system registers and system instructions.

use std::collections::BTreeMap;

use verdigris_guest::{program, sweep};

use crate::guest::Guest;
use crate::hwcaps::longest_vector;
use crate::ktap::test_table;
use crate::pages::{PAGE, Pages};
use crate::raw::raw;
use crate::sys;
use crate::vm::{RW, RWX};

test_table! { "sweep", 55: sweep_instructions, sweep_debug, sweep_registers }

const CODE: u64 = 0x4040_0000;
const SCRATCH: u64 = 0x4041_0000;
const RESULTS: u64 = 0x4050_0000;
/// How many encodings the guest executes between two looks at the host.
const STEP: u64 = 1 << 10;
/// PR_SVE_SET_VL.
const SVE: i32 = 50;

/// Runs a space, and returns the outcome byte of each encoding.
fn run(space: u64) -> Vec<u8> {
    let cpu = sys::cpus()[0];
    sys::run_on(cpu).expect("the first CPU");
    let guest = Guest::new(1);
    let pages = [Pages::single(1), Pages::single(1), Pages::single(sweep::COUNT as usize / PAGE)];
    let [code, scratch, results] = &pages;
    guest.map_pages(CODE, code, RWX);
    guest.map_pages(SCRATCH, scratch, RW);
    guest.map_pages(RESULTS, results, RW);
    guest.cpu(0).call(program::FP_FILL, &[1]);
    let vector = longest_vector(SVE);
    let before = raw().snapshot();
    for first in (0..sweep::COUNT).step_by(STEP as usize) {
        let arguments = [space, first, STEP, RESULTS, CODE, SCRATCH];
        let executed = guest.cpu(0).call(program::SWEEP, &arguments)[0];
        assert_eq!(executed, STEP);
        assert_eq!(raw().snapshot(), before, "the host's registers, after encodings {first:#x} on");
        assert_eq!(longest_vector(SVE), vector, "the host's vectors, after {first:#x} on");
    }
    let bytes = (0..sweep::COUNT as usize).map(|index| {
        let word = results.read(index / PAGE, index % PAGE / 8);
        (word >> (index % 8 * 8)) as u8
    });
    bytes.collect()
}

fn index(op1: usize, crn: usize, crm: usize, op2: usize) -> usize {
    op1 << 11 | crn << 7 | crm << 3 | op2
}

/// Prints how many encodings had which outcome.
fn summarise(outcomes: &[u8]) {
    let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
    outcomes.iter().for_each(|&outcome| *counts.entry(outcome).or_default() += 1);
    counts.iter().for_each(|(outcome, count)| println!("outcome {outcome:#04x}: {count}"));
}

const DONE: u64 = sweep::COMPLETED;
const UNDEFINED: u64 = sweep::UNDEFINED;

#[track_caller]
fn expect(outcomes: &[u8], at: usize, read: u64, write: u64) {
    let (low, high) = (u64::from(outcomes[at] & 0xf), u64::from(outcomes[at] >> 4));
    assert_eq!((low, high), (read, write), "encoding {:?}", sweep::fields(at as u64));
}

fn sweep_instructions() {
    let outcomes = run(sweep::SPACE_INSTRUCTIONS);
    summarise(&outcomes);
    // IC IALLU, IC IALLUIS, TLBI VMALLE1, TLBI VMALLE1IS, AT S1E1R, DC CIVAC, DC CSW: done or emulated.
    let allowed =
        [(0, 7, 5, 0), (0, 7, 1, 0), (0, 8, 7, 0), (0, 8, 3, 0), (0, 7, 8, 0), (3, 7, 14, 1)];
    for (op1, crn, crm, op2) in allowed.into_iter().chain([(0, 7, 10, 2)]) {
        let outcome = outcomes[index(op1, crn, crm, op2)] & 0xf;
        assert_eq!(u64::from(outcome), DONE, "op1 {op1} CRn {crn} CRm {crm} op2 {op2}");
    }
    // TLBI ALLE1, TLBI VMALLS12E1, TLBI IPAS2E1, TLBI ALLE2, AT S12E1R, AT S1E2R: EL2's own.
    let forbidden =
        [(4, 8, 7, 4), (4, 8, 7, 6), (4, 8, 4, 1), (4, 8, 7, 0), (4, 7, 8, 4), (4, 7, 8, 0)];
    for (op1, crn, crm, op2) in forbidden {
        let outcome = outcomes[index(op1, crn, crm, op2)] & 0xf;
        assert_eq!(u64::from(outcome), UNDEFINED, "op1 {op1} CRn {crn} CRm {crm} op2 {op2}");
    }
}

fn sweep_debug() {
    let outcomes = run(sweep::SPACE_DEBUG);
    summarise(&outcomes);
    // MDSCR_EL1 is the guest's own.
    expect(&outcomes, index(0, 0, 2, 2), DONE, DONE);
}

fn sweep_registers() {
    let outcomes = run(sweep::SPACE_REGISTERS);
    summarise(&outcomes);
    // SCTLR_EL1, TTBR0_EL1, TPIDR_EL0, CNTV_CVAL_EL0: the guest's own.
    for own in [index(0, 1, 0, 0), index(0, 2, 0, 0), index(3, 13, 0, 2), index(3, 14, 3, 2)] {
        expect(&outcomes, own, DONE, DONE);
    }
    // MIDR_EL1 can be read and not written.
    expect(&outcomes, index(0, 0, 0, 0), DONE, UNDEFINED);
    // HCR_EL2, VTTBR_EL2, SCTLR_EL3, ICC_IAR1_EL1, CNTP_CTL_EL0, PMCR_EL0: none of these.
    let none =
        [(4, 1, 1, 0), (4, 2, 1, 0), (6, 1, 0, 0), (0, 12, 12, 0), (3, 14, 2, 1), (3, 9, 12, 0)];
    for (op1, crn, crm, op2) in none {
        expect(&outcomes, index(op1, crn, crm, op2), UNDEFINED, UNDEFINED);
    }
}
