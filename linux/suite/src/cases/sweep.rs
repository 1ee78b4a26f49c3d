//! The guest executes every encoding of the spaces of system registers and system instructions.
//!
//! Three things must hold: EL2 lives, the host finds its registers as they were, and each outcome is
//! the one that the tables of `verdigris-core` give (`docs/registers.md`).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use verdigris_core::sysreg::{self, Encoding, Expect};
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

/// Prints how many encodings had which outcome.
fn summarise(outcomes: &[u8]) {
    let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
    outcomes.iter().for_each(|&outcome| *counts.entry(outcome).or_default() += 1);
    counts.iter().for_each(|(outcome, count)| println!("outcome {outcome:#04x}: {count}"));
}

/// Registers that the architecture has and QEMU doesn't: they are UNDEFINED before anything can trap.
const NOT_IN_QEMU: [&str; 3] = ["DBGPRCR_EL1", "DBGAUTHSTATUS_EL1", "DBGDTR_EL0"];

/// What an access must come to.
fn expected(encoding: Encoding, read: bool) -> Expect {
    let name = sysreg::lookup(encoding).map_or("", |row| row.name);
    static DFR0: OnceLock<u64> = OnceLock::new();
    // Breakpoints and watchpoints: as many as ID_AA64DFR0_EL1 says (BRPs 15:12, WRPs 23:20).
    let dfr0 = DFR0.get_or_init(|| raw().register("id_aa64dfr0_el1").expect("every CPU has it"));
    let field = match name {
        "DBGBVR<n>_EL1" | "DBGBCR<n>_EL1" => Some(12),
        "DBGWVR<n>_EL1" | "DBGWCR<n>_EL1" => Some(20),
        _ => None,
    };
    let absent = field.is_some_and(|shift| u64::from(encoding.crm()) > dfr0 >> shift & 0xf);
    match sysreg::expect(encoding, read) {
        _ if absent => Expect::Undefined,
        Expect::Works if NOT_IN_QEMU.contains(&name) => Expect::Either,
        other => other,
    }
}

/// The space of ID registers, where FEAT_IDST makes reads of what is not there EC 0x18 (Arm ARM, D24.2.77).
fn is_id_space(encoding: Encoding) -> bool {
    encoding.op0() == 3 && encoding.crn() == 0 && matches!(encoding.op1(), 0 | 1 | 3)
}

/// Tells whether an outcome is one that the tables allow.
fn agrees(encoding: Encoding, read: bool, outcome: u64) -> bool {
    let id_read = read && is_id_space(encoding);
    let undefined = outcome == sweep::UNDEFINED || id_read && outcome == sweep::TRAPPED;
    // An instruction that works may fault on the address it got.
    let works = outcome == sweep::COMPLETED || encoding.op0() == 1 && outcome == sweep::OTHER;
    match expected(encoding, read) {
        _ if outcome == sweep::SKIPPED => true,
        Expect::Undefined => undefined,
        Expect::Works => works,
        Expect::WorksIf(_) | Expect::Either => works || undefined,
    }
}

/// Executes a space and compares each outcome with the tables.
fn sweep(space: u64) {
    let outcomes = run(space);
    summarise(&outcomes);
    let mut wrong = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        let (op1, crn, crm, op2) = sweep::fields(index as u64);
        let [op1, crn, crm, op2] = [op1, crn, crm, op2].map(|field| field as u8);
        let encoding = Encoding::new(space as u8, op1, crn, crm, op2);
        for (read, outcome) in [(true, outcome & 0xf), (false, outcome >> 4)] {
            if !agrees(encoding, read, outcome.into()) {
                let name = sysreg::lookup(encoding).map_or("unnamed", |row| row.name);
                let way = if read { "read" } else { "written" };
                let at = format!("{space} {op1} {crn} {crm} {op2}");
                let expected = expected(encoding, read);
                wrong.push(format!("{name} ({at}) {way}: {outcome}, not {expected:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} outcomes aren't in the tables:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn sweep_instructions() {
    sweep(sweep::SPACE_INSTRUCTIONS);
}

fn sweep_debug() {
    sweep(sweep::SPACE_DEBUG);
}

fn sweep_registers() {
    sweep(sweep::SPACE_REGISTERS);
}
