//! Lists of pages to map: what map does for a run, and what of it a hole changes.
#![cfg(not(loom))]

mod support;

use support::model::*;
use support::{Machine, Step};
use verdigris_stage2::{
    Config, Error, Geometry, Ipa, Level, List, MapList, NoDirty, Outcome, Stage2, Stat,
};

/// Bits of an entry, as docs/abi.md has them.
const READ: u64 = 1;
const READ_WRITE: u64 = 3;
const EXEC: u64 = 1 << 2;
const OLD: u64 = 1 << 3;
const CLEAN: u64 = 1 << 6;

fn vm() -> (Machine, Stage2, Geometry) {
    let config = Config { dic: true, ..Config::default() };
    let (machine, vm) = Machine::with_vm(40, 40, config, &[0x10_0000, 0x10_1000, 0x20_0000]);
    let geometry = vm.root().geometry();
    (machine, vm, geometry)
}

fn map_list(machine: &Machine, vm: &Stage2, ipa: u64, bits: &[u64]) -> Outcome {
    let pages = List::new(bits).unwrap();
    vm.map_list(machine, &MapList { ipa: Ipa(ipa), pages, sequence: vm.sequence() })
}

fn leaves(machine: &Machine) -> Vec<(u64, u64)> {
    let all = all_leaves(machine, 40, 1);
    assert!(all.iter().all(|&(.., level)| level == 3));
    all.into_iter().map(|(ipa, raw, _)| (ipa, raw)).collect()
}

#[test]
fn each_page_is_what_its_entry_says() {
    let (machine, vm, _) = vm();
    let list = [
        0x9000_0000 | READ_WRITE,
        0x8000_0000 | READ | OLD,
        0x8000_5000 | READ_WRITE | CLEAN | OLD,
        0x8000_3000 | READ | EXEC,
    ];
    assert_eq!(map_list(&machine, &vm, 0x10_0000, &list), Outcome::done(4));
    let granted = 1 << 55;
    let expected = [
        (0x10_0000, 0x9000_0000 | DATA | 3),
        (0x10_1000, 0x8000_0000 | GUEST | NO_EXEC | 3),
        (0x10_2000, 0x8000_5000 | GUEST | NO_EXEC | granted | 3),
        (0x10_3000, 0x8000_3000 | GUEST | YOUNG | 3),
    ];
    assert_eq!(leaves(&machine), expected);
    assert_eq!(machine.shares.borrow().len(), 4);
    assert_eq!((machine.stat(Stat::LeavesMapped), machine.stat(Stat::PagesMapped)), (4, 4));
}

#[test]
fn a_list_leaves_its_holes_alone() {
    let (machine, vm, _) = vm();
    let _ = vm.map(&machine, &map(0x10_1000, 0xa000_0000, 1, RW));
    let list = [0, 0, 0x9000_0000 | READ_WRITE, 0, 0x9000_7000 | READ, 0];
    assert_eq!(map_list(&machine, &vm, 0x10_0000, &list), Outcome::done(6));
    let expected = [
        (0x10_1000, 0xa000_0000 | DATA | 3),
        (0x10_2000, 0x9000_0000 | DATA | 3),
        (0x10_4000, 0x9000_7000 | GUEST | YOUNG | NO_EXEC | 3),
    ];
    assert_eq!(leaves(&machine), expected);
    assert_eq!(machine.shares.borrow().len(), 3);
}

#[test]
fn nothing_is_needed_for_holes_alone() {
    let (machine, vm, geometry) = vm();
    machine.keep_free(0);
    assert_eq!(map_list(&machine, &vm, 0x1f_f000, &[0; 512]), Outcome::done(512));
    assert_eq!(machine.allocated.get(), 0, "a table for nothing");
    assert!(machine.take_steps().is_empty());
    // A mark is in the way of pages only.
    let range = vm.range(Ipa(0x10_0000), 4).unwrap();
    let _ = vm.invalidate_begin(&machine, range, false, 0, &mut NoDirty);
    assert_eq!(map_list(&machine, &vm, 0x10_0000, &[0; 4]), Outcome::done(4));
    let one = map_list(&machine, &vm, 0x10_0000, &[0, 0x9000_0001]);
    assert_eq!(one, Outcome::stopped(0, Error::NoMemory));
    assert_eq!(machine.walk(geometry, 0x10_1000), None);
}

#[test]
fn a_list_stops_where_a_run_would() {
    let (machine, vm, geometry) = vm();
    let _ = vm.map(&machine, &map(0x10_3000, 0xa000_0000, 1, RW));
    let list: Vec<u64> = (0..6).map(|page| (0x9000_0000 + 2 * page * PAGE) | READ_WRITE).collect();
    let outcome = map_list(&machine, &vm, 0x10_0000, &list);
    assert_eq!(outcome, Outcome::stopped(3, Error::Exists));
    assert_eq!(machine.walk(geometry, 0x10_3000).unwrap().0, 0xa000_0000 | DATA | 3);
    assert_eq!(machine.walk(geometry, 0x10_4000), None);
    assert_eq!(machine.shares.borrow().len(), 4, "no share for what was not mapped");
    machine.owned_below.set(0xb000_0000);
    let outcome = map_list(&machine, &vm, 0x10_4000, &[0, 0x9100_0003, 0, 0xb000_0003, 3]);
    assert_eq!(outcome, Outcome::stopped(3, Error::NotOwner));
    assert_eq!(machine.walk(geometry, 0x10_5000).unwrap().0, 0x9100_0000 | DATA | 3);
    assert_eq!(machine.shares.borrow().len(), 5);
    let outcome = map_list(&machine, &vm, 0x11_0000, &[0, 0, 0xb000_0003]);
    assert_eq!(outcome, Outcome::stopped(2, Error::NotOwner), "what it passed is done");
    let _ = vm.map(&machine, &map_blocks(4 * MIB, 0x8000_0000, 2 * MIB, Level::L2));
    let below = map_list(&machine, &vm, 4 * MIB, &[0x8000_0003]);
    assert_eq!(below, Outcome::stopped(0, Error::Exists), "under a block");
}

#[test]
fn a_page_that_is_there_keeps_its_history_and_gains_permissions() {
    let (machine, vm, geometry) = vm();
    let _ = map_list(&machine, &vm, 0x10_0000, &[0x8000_0001 | OLD, 0x9000_0003]);
    machine.take_steps();
    let list = [0x8000_0003, 0x9000_0001 | OLD];
    assert_eq!(map_list(&machine, &vm, 0x10_0000, &list), Outcome::done(2));
    let relaxed = 0x8000_0000 | GUEST | NO_EXEC | WRITE | 3;
    assert_eq!(machine.walk(geometry, 0x10_0000).unwrap().0, relaxed);
    assert_eq!(machine.walk(geometry, 0x10_1000).unwrap().0, 0x9000_0000 | DATA | 3);
    let steps = machine.take_steps();
    let locally = [Step::DsbIshst, Step::Isb, Step::Enter, Step::Local(0x10_0000), Step::Leave];
    assert_eq!(steps[steps.len() - 5..], locally, "what was added, here alone");
    assert_eq!(machine.shares.borrow()[&(0x8000_0000, 3)], 1);
}

#[test]
fn goes_in_batches_and_makes_way_for_interrupts() {
    let (machine, vm, _) = vm();
    machine.interrupt_after.set(Some(1));
    let list: Vec<u64> = (0..300).map(|page| (0x8000_0000 + page * PAGE) | READ_WRITE).collect();
    // 16 to the end of the table, then 64.
    assert_eq!(map_list(&machine, &vm, 0x1f_0000, &list), Outcome::done(80));
    machine.interrupt_after.set(None);
    let rest = map_list(&machine, &vm, 0x1f_0000 + 80 * PAGE, &list[80..]);
    assert_eq!(rest, Outcome::done(220));
    let expected =
        (0..300).map(|page| (0x1f_0000 + page * PAGE, (0x8000_0000 + page * PAGE) | DATA | 3));
    assert!(leaves(&machine).into_iter().eq(expected));
}

#[test]
fn is_refused_by_the_contract_as_a_run_is() {
    let (machine, vm, geometry) = vm();
    let old = vm.sequence();
    let range = vm.range(Ipa(0x10_0000), 2).unwrap();
    let _ = vm.invalidate_begin(&machine, range, false, 0, &mut NoDirty);
    let retry = Outcome::stopped(0, Error::Retry);
    assert_eq!(map_list(&machine, &vm, 0x10_1000, &[0x9000_0003]), retry);
    assert_eq!(map_list(&machine, &vm, 0x10_2000, &[0x9000_0003]), Outcome::done(1));
    let _ = vm.invalidate_end(&machine, range, 2, &mut NoDirty);
    let pages = List::new(&[0x9000_1003]).unwrap();
    let late = MapList { ipa: Ipa(0x10_1000), pages, sequence: old };
    assert_eq!(vm.map_list(&machine, &late), retry, "it ended since the number was taken");
    assert_eq!(machine.walk(geometry, 0x10_1000), None);
    assert_eq!(machine.shares.borrow().len(), 1);
    let late = MapList { ipa: Ipa(0x10_3000), ..late };
    assert_eq!(vm.map_list(&machine, &late), Outcome::done(1));
    assert_eq!(machine.stat(Stat::Retries), 2);
}

#[test]
fn cleans_what_lies_together_at_once() {
    let (machine, vm, _) = vm();
    let list = [0x8000_0003, 0x8000_1003, 0, 0x8000_2001, 0x9000_0003, 0, 0x8000_3003];
    assert_eq!(map_list(&machine, &vm, 0x10_0000, &list), Outcome::done(7));
    let expected = [
        Step::Clean(0x8000_0000, 0x3000),
        Step::Clean(0x9000_0000, 0x1000),
        Step::Clean(0x8000_3000, 0x1000),
        Step::DsbIshst,
        Step::Isb,
    ];
    assert_eq!(machine.take_steps(), expected);
    let config = Config { fwb: true, dic: false, ..Config::default() };
    let (machine, vm) = Machine::with_vm(40, 40, config, &[]);
    let _ = map_list(&machine, &vm, 0x10_0000, &[0x8000_0003, 0x8000_1003]);
    assert_eq!(machine.take_steps(), [Step::DsbIshst, Step::Isb]);
    let _ = map_list(&machine, &vm, 0x10_2000, &[0x8000_0003, 0x8000_1005]);
    assert_eq!(machine.take_steps()[0], Step::InvalidateInstructions, "one is executable");
}

#[test]
fn entries_are_checked_bit_by_bit() {
    assert!(List::new(&[]).is_ok() && List::new(&[0]).is_ok());
    for (bits, good) in [
        (0x0000_0001, true),
        (0xffff_ffff_f001, true),
        (0x8000_0000, false),
        (0x8000_0002, false),
        (0x8000_0004, false),
        (0x8000_0008, false),
        (0x8000_0043, true),
        (0x8000_004f, true),
        (0x8000_0041, false),
        (0x8000_0045, false),
        (u64::MAX, false),
    ] {
        assert_eq!(List::new(&[bits]).is_ok(), good, "{bits:#x}");
        assert_eq!(List::new(&[0, 0x1001, bits, 0]).is_ok(), good, "{bits:#x} among others");
    }
    // Read and write, and one bit more: executable, old, clean; no block, no address past 48 bits.
    for bit in 0..64 {
        let known = matches!(bit, 0..=3 | 6 | 12..=47);
        let entries = [0x8000_0003 | 1 << bit];
        let entry = List::new(&entries);
        assert_eq!(entry.is_ok(), known, "bit {bit}");
        assert!(known || entry == Err(Error::Invalid));
    }
}

#[test]
fn refuses_bad_ranges() {
    let (machine, vm, _) = vm();
    for (ipa, count) in
        [(0x10_0000, 0), (0x10_0001, 1), (1 << 40, 1), ((1 << 40) - PAGE, 2), (u64::MAX - 4095, 1)]
    {
        let outcome = map_list(&machine, &vm, ipa, &vec![0x8000_0003; count]);
        assert_eq!(outcome, Outcome::stopped(0, Error::Invalid), "{ipa:#x} {count}");
    }
    assert_eq!(machine.allocated.get(), 0);
    assert!(machine.shares.borrow().is_empty());
}
