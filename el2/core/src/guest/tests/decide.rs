//! What each trap leads to.

use std::format;

use verdigris_abi::{ExitReason, Ipa};

use super::*;
use crate::esr::Syndrome;
use crate::exception::{AbortCause, Exception};

const UNDEFINED: Outcome = Outcome::Inject(Exception::Undefined);

fn ask(esr: u64, context: &mut Context) -> Outcome {
    decide(Syndrome(esr), 0xffff_0000_0000_1238, context, &machine())
}

/// Makes the syndrome of a trapped MSR or MRS.
fn system(encoding: [u64; 5], register: u64, read: bool) -> u64 {
    let [op0, op1, crn, crm, op2] = encoding;
    let iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | register << 5 | crm << 1;
    0x18 << 26 | 1 << 25 | iss | u64::from(read)
}

fn exit(outcome: Outcome) -> ExitRecord {
    match outcome {
        Outcome::Exit(record) => record,
        other => panic!("no exit: {other:?}"),
    }
}

#[test]
fn hvc_exits_with_registers_and_leaves_the_pc() {
    let mut context = context();
    context.general.pc = 0x4000;
    for n in 0..9 {
        context.general.x[n] = 0x100 + n as u64;
    }
    let record = exit(ask(0x5a00_0007, &mut context));
    assert_eq!(record.reason, ExitReason::Hypercall);
    let mut words = [0; 16];
    for (n, word) in words.iter_mut().enumerate().take(8) {
        *word = 0x100 + n as u64;
    }
    words[8] = 7;
    assert_eq!(record.words, words);
    assert_eq!(context.general.pc, 0x4000);
}

#[test]
fn smc_is_stepped_over() {
    let mut context = context();
    context.general.pc = 0x4000;
    let record = exit(ask(0x5e00_0000, &mut context));
    assert_eq!((record.reason, record.words[9]), (ExitReason::Hypercall, 1));
    assert_eq!(context.general.pc, 0x4004);
}

#[test]
fn psci_shuts_down() {
    for (id, how) in [(0x8400_0008_u64, 1), (0x8400_0009, 2), (0xdead_8401_0008, 1)] {
        let mut context = context();
        context.general.x[0] = id;
        let record = exit(ask(0x5a00_0000, &mut context));
        assert_eq!((record.reason, record.words[0]), (ExitReason::Shutdown, how), "{id:#x}");
        // With another immediate it is no PSCI.
        assert_eq!(exit(ask(0x5a00_0001, &mut context)).reason, ExitReason::Hypercall);
    }
    let mut context = context();
    // PSCI_VERSION, and the firmware's own FEATURES: the host's to answer.
    for id in [0x8400_0000, 0xc600_0000] {
        context.general.x[0] = id;
        assert_eq!(exit(ask(0x5a00_0000, &mut context)).reason, ExitReason::Hypercall);
    }
}

#[test]
fn waits_exit_past_the_instruction() {
    for (kind, esr) in [(0, 0x07e0_0000), (1, 0x07e0_0001), (2, 0x07e0_0002), (3, 0x07e0_0003)] {
        let mut context = context();
        let record = exit(ask(esr, &mut context));
        assert_eq!((record.reason, record.words[0]), (ExitReason::Wait, kind));
        assert_eq!(context.general.pc, 4);
    }
}

#[test]
fn fp_is_loaded_and_retried() {
    let mut context = context();
    assert_eq!(ask(0x1fe0_0000, &mut context), Outcome::LoadFp);
    assert_eq!(context, super::context());
}

#[test]
fn id_registers_are_masked() {
    let mut context = context();
    // ID_AA64PFR0_EL1 into x5.
    let esr = system([3, 0, 0, 4, 0], 5, true);
    assert_eq!(ask(esr, &mut context), Outcome::Resume);
    // CSV3, CSV2; EL1 and EL0 with AArch64 only; FP with half precision. No GIC, RAS, EL2, EL3.
    assert_eq!(context.general.x[5], 0x1100_0000_0011_0011);
    assert_eq!(context.general.pc, 4);
    assert_eq!(ask(system([3, 0, 0, 4, 0], 5, false), &mut context), UNDEFINED);
    assert_eq!(ask(system([3, 0, 0, 4, 0], 31, true), &mut context), Outcome::Resume);
}

#[test]
fn what_isnt_offered_is_undefined() {
    let mut context = context();
    for encoding in [
        [3, 0, 12, 12, 0], // ICC_IAR1_EL1
        [3, 3, 9, 12, 0],  // PMCR_EL0
        [3, 3, 14, 2, 1],  // CNTP_CTL_EL0
        [3, 0, 1, 2, 0],   // ZCR_EL1
        [3, 3, 15, 0, 0],  // implementation-defined
        [3, 0, 10, 4, 7],  // LORID_EL1
        [3, 4, 1, 1, 0],   // HCR_EL2: no row
        [3, 0, 1, 0, 0],   // SCTLR_EL1: switched, its trap has no reason
    ] {
        for read in [true, false] {
            assert_eq!(ask(system(encoding, 0, read), &mut context), UNDEFINED, "{encoding:?}");
        }
    }
    for esr in [0x6600_0000, 0x7600_0000, 0x0200_0000, 0x2600_0000, 0x2a00_0000, 0x0e00_0000] {
        assert_eq!(ask(esr, &mut context), UNDEFINED, "{esr:#x}");
    }
    assert_eq!(context, super::context());
}

#[test]
fn set_way_and_auxiliary_registers_do_nothing() {
    let mut context = context();
    context.general.x[3] = 0x55;
    // DC CISW, x3.
    assert_eq!(ask(system([1, 0, 7, 14, 2], 3, false), &mut context), Outcome::Resume);
    // ACTLR_EL1.
    assert_eq!(ask(system([3, 0, 1, 0, 1], 3, false), &mut context), Outcome::Resume);
    assert_eq!((context.general.pc, context.general.x[3]), (8, 0x55));
    assert_eq!(ask(system([3, 0, 1, 0, 1], 3, true), &mut context), Outcome::Resume);
    assert_eq!((context.general.pc, context.general.x[3]), (12, 0));
}

#[test]
fn debug_registers_are_kept() {
    let mut context = context();
    context.general.x[1] = 0xffff_8000_1234_5678;
    // DBGBVR5_EL1 is the last of six; DBGBVR6_EL1 isn't there. Watchpoints are four.
    assert_eq!(ask(system([2, 0, 0, 5, 4], 1, false), &mut context), Outcome::LoadDebug);
    assert_eq!(ask(system([2, 0, 0, 6, 4], 1, false), &mut context), UNDEFINED);
    assert_eq!(ask(system([2, 0, 0, 4, 6], 1, true), &mut context), UNDEFINED);
    assert_eq!(ask(system([2, 0, 0, 5, 4], 2, true), &mut context), Outcome::Resume);
    assert_eq!(context.general.x[2], 0xffff_8000_1234_5678);
    assert_eq!(context.general.pc, 8);
}

#[test]
fn os_lock_is_the_guests_own() {
    let mut context = context();
    assert_eq!(ask(system([2, 0, 1, 1, 4], 1, true), &mut context), Outcome::Resume);
    assert_eq!(context.general.x[1], 0b1010);
    assert_eq!(ask(system([2, 0, 1, 0, 4], 31, false), &mut context), Outcome::LoadDebug);
    assert_eq!(ask(system([2, 0, 1, 1, 4], 1, true), &mut context), Outcome::Resume);
    assert_eq!(context.general.x[1], 0b1000);
    // OSLAR_EL1 can't be read, OSLSR_EL1 not written.
    assert_eq!(ask(system([2, 0, 1, 0, 4], 1, true), &mut context), UNDEFINED);
    assert_eq!(ask(system([2, 0, 1, 1, 4], 1, false), &mut context), UNDEFINED);
}

#[test]
fn stage_2_faults_go_to_the_tables() {
    let mut context = context();
    context.general.x[2] = 0x1122_3344_5566_7788;
    // STR w2 (ISV, SAS = 2, SRT = 2), translation fault, level 3.
    let esr = 0x9282_0047 | 1 << 24;
    let Outcome::StageTwo(fault) = ask(esr, &mut context) else { panic!("no stage-2 fault") };
    assert_eq!(fault.stored, 0x5566_7788);
    let record = ExitRecord::fault(&fault, Ipa(0x4000_0238), 17);
    assert_eq!(record.reason, ExitReason::Fault);
    let mut words = [0; 16];
    // Write and described; size 2, register 2.
    words[..7].copy_from_slice(&[
        0x4000_0238,
        0b10_0001,
        esr,
        17,
        0xffff_0000_0000_1238,
        2 | 2 << 4,
        0x5566_7788,
    ]);
    assert_eq!(record.words, words);
    assert_eq!(context.general.pc, 0);
}

#[test]
fn fault_flags_tell_the_kind() {
    let mut context = context();
    let mut flags = |esr| match ask(esr, &mut context) {
        Outcome::StageTwo(fault) => ExitRecord::fault(&fault, Ipa(0), 0).words[1],
        other => panic!("{other:?}"),
    };
    // Fetch; permission fault of a fetch; walk; walk that sets a flag; cache maintenance.
    assert_eq!(flags(0x8200_0007), 0b00010);
    assert_eq!(flags(0x8200_000f), 0b01010);
    assert_eq!(flags(0x9200_0087), 0b00100);
    assert_eq!(flags(0x9200_008f), 0b01101);
    assert_eq!(flags(0x9200_0147), 0b10000);
    // A described load on a walk is none.
    assert_eq!(flags(0x9380_0087), 0b00100);
}

#[test]
fn other_aborts_have_their_outcome() {
    let mut context = context();
    let cause = |outcome| match outcome {
        Outcome::Inject(Exception::Abort { cause, address, .. }) => (cause, address),
        other => panic!("{other:?}"),
    };
    let far = Some(0xffff_0000_0000_1238);
    assert_eq!(cause(ask(0x9200_0010, &mut context)), (AbortCause::External, far));
    assert_eq!(cause(ask(0x9200_0410, &mut context)), (AbortCause::External, None));
    assert_eq!(cause(ask(0x9200_0017, &mut context)), (AbortCause::ExternalOnWalk, far));
    assert_eq!(cause(ask(0x9200_0018, &mut context)), (AbortCause::External, far));
    assert_eq!(cause(ask(0x9200_0021, &mut context)), (AbortCause::Alignment, far));
    assert_eq!(cause(ask(0x9200_0035, &mut context)), (AbortCause::UnsupportedExclusive, far));
    assert_eq!(ask(0x9200_0030, &mut context), Outcome::TlbConflict);
    assert_eq!(exit(ask(0x9200_0031, &mut context)).reason, ExitReason::Unhandled);
}

#[test]
fn serror_and_the_unknown_exit() {
    let mut context = context();
    let record = exit(ask(0xbe00_0011, &mut context));
    assert_eq!((record.reason, record.words[2]), (ExitReason::SError, 0xbe00_0011));
    let record = exit(ask(0x8600_0007, &mut context));
    assert_eq!(record.reason, ExitReason::Unhandled);
    assert_eq!((record.words[2], record.words[4]), (0x8600_0007, 0xffff_0000_0000_1238));
}

/// Tries every class with many syndromes, and every system access: nothing may panic.
#[test]
fn nothing_a_guest_does_panics() {
    for class in 0..64_u64 {
        for iss in (0..1 << 25).step_by(4099) {
            let mut context = context();
            let outcome = ask(class << 26 | iss, &mut context);
            assert!(!format!("{outcome:?}").is_empty());
        }
    }
    let mut context = context();
    for iss in (0..1 << 22).filter(|iss| iss >> 5 & 0x1f == 3) {
        let outcome = ask(0x18 << 26 | 1 << 25 | iss, &mut context);
        let expected = matches!(outcome, Outcome::Resume | Outcome::LoadDebug | UNDEFINED);
        assert!(expected, "{iss:#x}: {outcome:?}");
    }
}
