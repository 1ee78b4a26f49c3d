//! Continuing after a fault exit.

use verdigris_abi::Error;

use super::*;
use crate::esr::{Abort, Syndrome};
use crate::exception::{AbortCause, Exception};

const MMIO_DONE: u64 = 1;
const INJECT_ABORT: u64 = 2;
const SKIP: u64 = 4;

fn fault(esr: u64) -> StageTwoFault {
    let syndrome = Syndrome(esr);
    StageTwoFault::new(syndrome, 0x5678, Abort::decode(syndrome), &context().general)
}

/// A load with ISV: SAS, SSE, SRT, SF; translation fault, level 3, 32-bit instruction.
fn load(size: u64, sign: u64, register: u64, sixty_four: u64) -> u64 {
    0x9300_0007 | size << 22 | sign << 21 | register << 16 | sixty_four << 15
}

#[test]
fn loads_are_cut_and_extended() {
    let value = 0x8899_aabb_ccdd_ee80;
    for (size, sign, sixty_four, expected) in [
        (0, 0, 0, 0x80),
        (0, 1, 0, 0xffff_ff80),
        (0, 1, 1, 0xffff_ffff_ffff_ff80),
        (1, 0, 1, 0xee80),
        (1, 1, 0, 0xffff_ee80),
        (2, 0, 0, 0xccdd_ee80),
        (2, 1, 1, 0xffff_ffff_ccdd_ee80),
        (3, 0, 1, value),
    ] {
        let mut context = context();
        context.general.x[9] = u64::MAX;
        let mut pending = Some(fault(load(size, sign, 9, sixty_four)));
        assert_eq!(resume(&mut context, &mut pending, MMIO_DONE, value), Ok(None));
        assert_eq!(context.general.x[9], expected, "{size} {sign} {sixty_four}");
        assert_eq!((context.general.pc, pending), (4, None));
    }
}

#[test]
fn a_load_to_the_zero_register_is_lost() {
    let mut context = context();
    let mut pending = Some(fault(load(3, 0, 31, 1)));
    assert_eq!(resume(&mut context, &mut pending, MMIO_DONE, 5), Ok(None));
    assert_eq!((context.general.x, context.general.pc), ([0; 31], 4));
}

#[test]
fn a_store_moves_on_alone() {
    let mut context = context();
    let mut pending = Some(fault(load(3, 0, 1, 1) | 1 << 6));
    assert_eq!(resume(&mut context, &mut pending, MMIO_DONE, 5), Ok(None));
    assert_eq!((context.general.x[1], context.general.pc), (0, 4));
}

#[test]
fn skip_moves_on_by_the_length_of_the_instruction() {
    let mut context = context();
    let mut pending = Some(fault(0x9200_0007));
    assert_eq!(resume(&mut context, &mut pending, SKIP, 5), Ok(None));
    assert_eq!(context.general.pc, 4);
    // IL is 0: a 16-bit instruction of AArch32.
    let mut pending = Some(fault(0x9000_0007));
    assert_eq!(resume(&mut context, &mut pending, SKIP, 5), Ok(None));
    assert_eq!(context.general.pc, 6);
}

#[test]
fn an_abort_is_external_or_on_the_walk() {
    let mut context = context();
    for (esr, expected) in
        [(0x9200_0007, AbortCause::External), (0x9200_0087, AbortCause::ExternalOnWalk)]
    {
        let mut pending = Some(fault(esr));
        let Ok(Some(Exception::Abort { cause, address, instruction, .. })) =
            resume(&mut context, &mut pending, INJECT_ABORT, 0)
        else {
            panic!("no abort");
        };
        assert_eq!((cause, address, instruction), (expected, Some(0x5678), false));
        assert_eq!(pending, None);
    }
    assert_eq!(context, super::context());
}

#[test]
fn wrong_flags_change_nothing() {
    let mut context = context();
    // Two at once, an unknown one; then completion of what isn't described; then flags without a fault.
    for (esr, flags) in [
        (load(3, 0, 1, 1), MMIO_DONE | SKIP),
        (load(3, 0, 1, 1), 8),
        (load(3, 0, 1, 1), 1 << 63),
        (0x9200_0007, MMIO_DONE),
        (0x9200_0147 | 1 << 24, MMIO_DONE),
    ] {
        let mut pending = Some(fault(esr));
        assert_eq!(resume(&mut context, &mut pending, flags, 0), Err(Error::Invalid));
        assert!(pending.is_some());
    }
    for flags in [MMIO_DONE, INJECT_ABORT, SKIP] {
        assert_eq!(resume(&mut context, &mut None, flags, 0), Err(Error::Invalid));
    }
    assert_eq!(context, super::context());
}

#[test]
fn a_plain_run_forgets_the_fault() {
    let mut context = context();
    let mut pending = Some(fault(load(3, 0, 1, 1)));
    assert_eq!(resume(&mut context, &mut pending, 0, 9), Ok(None));
    assert_eq!((context, pending), (super::context(), None));
}
