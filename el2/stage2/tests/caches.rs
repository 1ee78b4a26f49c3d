//! Cache maintenance without forced write-back: never more than 2 MiB between two looks at interrupts.
#![cfg(not(loom))]

mod support;

use support::model::*;
use support::{Machine, Step};
use verdigris_stage2::{Config, Error, Ipa, Level, NoDirty, Outcome, Set, Stage2};

fn vm(fwb: bool) -> (Machine, Stage2) {
    let config = Config { fwb, dic: true, ..Config::default() };
    Machine::with_vm(40, 40, config, &[0, GIB])
}

/// Returns the bytes of each cache operation since the last look.
fn cleaned(machine: &Machine) -> Vec<u64> {
    let bytes = |step| match step {
        Step::Clean(_, bytes) | Step::CleanInvalidate(_, bytes) => Some(bytes),
        _ => None,
    };
    machine.take_steps().into_iter().filter_map(bytes).collect()
}

#[test]
fn map_cleans_a_block_and_looks_at_interrupts() {
    let (machine, vm) = vm(false);
    let request = map_blocks(0, 0x8000_0000, 8 * MIB, Level::L2);
    machine.interrupt_after.set(Some(1));
    assert_eq!(vm.map(&machine, &request), Outcome::done(2 * 512));
    assert_eq!(cleaned(&machine), [2 * MIB, 2 * MIB]);
    machine.interrupt_after.set(None);
    assert_eq!(vm.map(&machine, &request), Outcome::done(4 * 512));
    assert_eq!(cleaned(&machine), [2 * MIB; 4]);
    let _ = vm.map(&machine, &map(GIB, 0x1_0000_0000, 100, RW));
    assert_eq!(cleaned(&machine), [64 * PAGE, 36 * PAGE], "64 pages are less than a block");
}

#[test]
fn unmap_cleans_a_block_and_looks_at_interrupts() {
    let (machine, vm) = vm(false);
    let _ = vm.map(&machine, &map_blocks(0, 0x8000_0000, 8 * MIB, Level::L2));
    machine.take_steps();
    machine.interrupt_after.set(Some(1));
    let range = vm.range(Ipa(0), 4 * 512).unwrap();
    assert_eq!(vm.unmap(&machine, range, &mut NoDirty), Outcome::done(2 * 512));
    assert_eq!(cleaned(&machine), [2 * MIB, 2 * MIB]);
}

#[test]
fn a_gigabyte_is_too_much_to_clean() {
    let (machine, vm) = vm(false);
    let request = map_blocks(GIB, 0x40_0000_0000, 2 * GIB, Level::L1);
    assert_eq!(vm.map(&machine, &request), Outcome::stopped(0, Error::NotSupported));
    let block = Set { level: Level::L1, ..set(GIB, 0x40_0000_0000, RW) };
    assert_eq!(vm.set(&machine, &block), Err(Error::NotSupported));
    assert_eq!(cleaned(&machine), []);
    assert!(machine.shares.borrow().is_empty());
    assert!(all_leaves(&machine, 40, 1).is_empty());
    let block = Set { level: Level::L2, ..set(GIB, 0x40_0000_0000, RW) };
    assert_eq!(vm.set(&machine, &block), Ok(false));
    assert_eq!(cleaned(&machine), [2 * MIB]);
}

#[test]
fn nothing_is_cleaned_with_forced_write_back() {
    let (machine, vm) = vm(true);
    let request = map_blocks(GIB, 0x40_0000_0000, 2 * GIB, Level::L1);
    machine.interrupt_after.set(Some(0));
    assert_eq!(vm.map(&machine, &request), Outcome::done(2 * 262_144), "one batch");
    let block = Set { level: Level::L1, ..set(GIB, 0x80_0000_0000, RW) };
    assert_eq!(vm.set(&machine, &block), Ok(true));
    let range = vm.range(Ipa(GIB), 2 * 262_144).unwrap();
    assert_eq!(vm.unmap(&machine, range, &mut NoDirty), Outcome::done(2 * 262_144));
    assert_eq!(cleaned(&machine), []);
}
