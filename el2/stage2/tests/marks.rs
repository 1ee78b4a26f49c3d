//! Marks: a call's own stands until the call is over, whatever the host ends meanwhile.
#![cfg(not(loom))]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use support::model::*;
use support::{Machine, Step};
use verdigris_stage2::contract::Contract;
use verdigris_stage2::{Config, Error, Ipa, Map, NoDirty, Outcome, Range, Stage2};

const NO_ENTRY: Outcome = Outcome::stopped(0, Error::NoEntry);
const RETRY: Outcome = Outcome::stopped(0, Error::Retry);

fn vm() -> (Machine, Rc<Stage2>) {
    let config = Config { fwb: true, dic: true, ..Config::default() };
    let (machine, vm) = Machine::with_vm(40, 40, config, &[0x1000]);
    let vm = Rc::new(vm);
    assert_eq!(map_now(&machine, &vm, 0x1000), Outcome::done(1));
    (machine, vm)
}

/// Maps a page with the number of this moment.
fn map_now(machine: &Machine, vm: &Stage2, ipa: u64) -> Outcome {
    let request = map(ipa, 0x8000_0000 + ipa, 1, RW);
    vm.map(machine, &Map { sequence: vm.sequence(), ..request })
}

fn page(vm: &Stage2, ipa: u64) -> Range {
    vm.range(Ipa(ipa), 1).unwrap()
}

/// Lets another CPU act once, in the middle of the next invalidation.
fn meanwhile(machine: &Machine, vm: &Rc<Stage2>, act: impl Fn(&Machine, &Stage2) + 'static) {
    let (vm, done) = (vm.clone(), Cell::new(false));
    machine.watch(move |machine, step| {
        if step == Step::Stage1 && !done.replace(true) {
            let tlb = machine.tlb.take();
            let cpu = machine.cpu.replace(1);
            act(machine, &vm);
            machine.cpu.set(cpu);
            machine.tlb.replace(tlb);
        }
    });
}

/// Fills every slot but the hull's with a mark of the host's.
fn fill_slots(machine: &Machine, vm: &Stage2) -> Vec<Range> {
    let ranges: Vec<Range> = (0..16).map(|index| page(vm, (100 + index) * PAGE)).collect();
    for &range in &ranges {
        assert_eq!(vm.invalidate_begin(machine, range, false, 0, &mut NoDirty), Outcome::done(1));
    }
    ranges
}

#[test]
fn no_end_takes_the_mark_of_an_unmap() {
    let (machine, vm) = vm();
    meanwhile(&machine, &vm, |machine, vm| {
        let range = page(vm, 0x1000);
        assert_eq!(vm.invalidate_end(machine, range, 0, &mut NoDirty), NO_ENTRY);
        assert_eq!(vm.invalidate_end(machine, range, 1, &mut NoDirty), NO_ENTRY);
        assert_eq!(vm.invalidate_begin(machine, range, true, 0, &mut NoDirty), NO_ENTRY);
        assert_eq!(map_now(machine, vm, 0x1000), RETRY);
    });
    assert_eq!(vm.unmap(&machine, page(&vm, 0x1000), &mut NoDirty), Outcome::done(1));
    machine.unwatch();
    assert_eq!(vm.sequence(), 1);
    assert_eq!(map_now(&machine, &vm, 0x1000), Outcome::done(1));
}

#[test]
fn no_end_takes_the_mark_of_an_unmap_out_of_the_hull() {
    let (machine, vm) = vm();
    let slots = fill_slots(&machine, &vm);
    meanwhile(&machine, &vm, |machine, vm| {
        assert_eq!(vm.invalidate_end(machine, page(vm, 0x1000), 1, &mut NoDirty), NO_ENTRY);
        assert_eq!(
            vm.invalidate_end(machine, page(vm, 0x2000), 1, &mut NoDirty),
            NO_ENTRY,
            "part of the hull"
        );
        assert_eq!(map_now(machine, vm, 0x2000), RETRY);
    });
    let range = vm.range(Ipa(0x1000), 4).unwrap();
    assert_eq!(vm.unmap(&machine, range, &mut NoDirty), Outcome::done(4));
    machine.unwatch();
    assert_eq!(map_now(&machine, &vm, 0x2000), Outcome::done(1), "the hull went with it");
    for range in slots {
        assert_eq!(vm.invalidate_end(&machine, range, 1, &mut NoDirty), Outcome::done(1));
    }
}

#[test]
fn the_hull_stands_for_both_kinds_until_the_last_of_either() {
    let (machine, vm) = vm();
    let _slots = fill_slots(&machine, &vm);
    let begun = page(&vm, 0x3000);
    assert_eq!(vm.invalidate_begin(&machine, begun, false, 0, &mut NoDirty), Outcome::done(1));
    meanwhile(&machine, &vm, |machine, vm| {
        // One end is the host's to make, for a part that it never began even; a second is not.
        assert_eq!(vm.invalidate_end(machine, page(vm, 0x2000), 1, &mut NoDirty), Outcome::done(1));
        assert_eq!(vm.invalidate_end(machine, page(vm, 0x2000), 1, &mut NoDirty), NO_ENTRY);
        assert_eq!(map_now(machine, vm, 0x3000), RETRY, "the unmap has its hull still");
    });
    assert_eq!(vm.unmap(&machine, page(&vm, 0x1000), &mut NoDirty), Outcome::done(1));
    machine.unwatch();
    assert_eq!(map_now(&machine, &vm, 0x3000), Outcome::done(1));
    assert_eq!(vm.invalidate_end(&machine, begun, 1, &mut NoDirty), NO_ENTRY, "the host spent it");
}

#[test]
fn an_unmap_leaves_the_hull_to_the_begins() {
    let (machine, vm) = vm();
    let _slots = fill_slots(&machine, &vm);
    let begun = page(&vm, 0x3000);
    assert_eq!(vm.invalidate_begin(&machine, begun, false, 0, &mut NoDirty), Outcome::done(1));
    assert_eq!(vm.unmap(&machine, page(&vm, 0x1000), &mut NoDirty), Outcome::done(1));
    assert_eq!(map_now(&machine, &vm, 0x3000), RETRY);
    assert_eq!(vm.invalidate_end(&machine, begun, 1, &mut NoDirty), Outcome::done(1));
    assert_eq!(map_now(&machine, &vm, 0x3000), Outcome::done(1));
}

#[test]
fn no_end_takes_a_mark_that_a_begin_is_at_work_under() {
    let (machine, vm) = vm();
    let range = page(&vm, 0x1000);
    meanwhile(&machine, &vm, |machine, vm| {
        let range = page(vm, 0x1000);
        assert_eq!(vm.invalidate_end(machine, range, 1, &mut NoDirty), NO_ENTRY);
        assert_eq!(map_now(machine, vm, 0x1000), RETRY);
    });
    assert_eq!(vm.invalidate_begin(&machine, range, false, 0, &mut NoDirty), Outcome::done(1));
    machine.unwatch();
    assert_eq!(
        vm.invalidate_end(&machine, range, 1, &mut NoDirty),
        Outcome::done(1),
        "now it is the host's"
    );
    assert_eq!(vm.invalidate_end(&machine, range, 1, &mut NoDirty), NO_ENTRY);
}

#[test]
fn of_two_ends_one_finds_the_mark() {
    let (machine, vm) = vm();
    let range = page(&vm, 0x1000);
    // A begin that says it has nothing to do leaves it all to the end.
    assert_eq!(vm.invalidate_begin(&machine, range, false, 1, &mut NoDirty), Outcome::done(1));
    meanwhile(&machine, &vm, |machine, vm| {
        assert_eq!(vm.invalidate_end(machine, page(vm, 0x1000), 1, &mut NoDirty), NO_ENTRY);
        assert_eq!(map_now(machine, vm, 0x1000), RETRY);
    });
    assert_eq!(vm.invalidate_end(&machine, range, 0, &mut NoDirty), Outcome::done(1));
    machine.unwatch();
    assert_eq!(vm.sequence(), 1);
}

/// A call that waits for a map under way on another CPU gives way to an interrupt, and has done nothing.
#[test]
fn a_wait_for_a_map_ends_at_an_interrupt() {
    let (machine, contract) = (Machine::new(16), Contract::new());
    machine.cpu.set(1);
    let inside = contract.enter(&machine);
    machine.cpu.set(0);
    machine.interrupt_after.set(Some(3));
    assert!(!contract.wait(&machine));
    assert_eq!(machine.interrupt_after.get(), Some(0), "it looked four times");
    drop(inside);
    assert!(contract.wait(&machine), "an interrupt keeps it from nothing but waiting");
}
