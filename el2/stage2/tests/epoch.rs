//! Removing without an invalidation: only where the flush epoch proves that no TLB holds the leaf.
#![cfg(not(loom))]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use support::model::*;
use support::{Machine, Step};
use verdigris_abi::flags::MAP_OLD;
use verdigris_stage2::{AgeFlush, Config, Ipa, Level, NoDirty, Outcome, Range, Stage2, Stat};

const HOT: &[u64] = &[0x1000, 0x2000, 0x3000, 0x20_0000, 0x41_0000];

const PLAIN: Config = Config {
    fwb: true,
    tlb_range: false,
    ttl: true,
    repeat: false,
    dic: true,
    hd: false,
    bbm2: false,
    skip: true,
};

/// Makes a VM whose pages 1 to 4 are mapped, young and cached.
fn vm_with(config: Config) -> (Machine, Stage2) {
    let (machine, vm) = Machine::with_vm(40, 40, config, HOT);
    assert_eq!(vm.map(&machine, &map(0x1000, 0x8000_0000, 4, RW)), Outcome::done(4));
    machine.take_steps();
    (machine, vm)
}

fn range(vm: &Stage2, ipa: u64, page_count: u64) -> Range {
    vm.range(Ipa(ipa), page_count).unwrap()
}

fn age(machine: &Machine, vm: &Stage2, ipa: u64, page_count: u64) {
    let range = range(vm, ipa, page_count);
    let done = vm.age(machine, range, AgeFlush::None, |_, _| {});
    assert_eq!(done, Outcome::done(page_count));
}

/// Unmaps, and returns what was issued.
fn unmap(machine: &Machine, vm: &Stage2, ipa: u64, page_count: u64) -> Vec<Step> {
    machine.take_steps();
    let outcome = vm.unmap(machine, range(vm, ipa, page_count), &mut NoDirty);
    assert_eq!(outcome, Outcome::done(page_count));
    machine.take_steps()
}

fn invalidations(steps: &[Step]) -> Vec<Step> {
    let is_one = |step: &Step| {
        matches!(step, Step::Ipa(..) | Step::Range(..) | Step::Stage1 | Step::Vmid | Step::Repeat)
    };
    steps.iter().copied().filter(is_one).collect()
}

fn counted(machine: &Machine) -> (u64, u64) {
    (machine.stat(Stat::FlushesSkipped), machine.stat(Stat::FlushesDone))
}

fn cached(machine: &Machine) -> bool {
    !machine.tlb.borrow().as_ref().unwrap().is_empty()
}

#[test]
fn a_cold_page_goes_without_an_invalidation() {
    let (machine, vm) = vm_with(PLAIN);
    age(&machine, &vm, 0x1000, 4);
    vm.flush_epoch(&machine);
    let steps = unmap(&machine, &vm, 0x1000, 3);
    let removed = [0x1000, 0x2000, 0x3000].map(Step::Removed);
    assert_eq!(steps[0], Step::DsbIsh, "the barrier stays");
    assert_eq!(steps[1..], removed);
    assert_eq!(counted(&machine), (3, 0));
    assert_eq!(machine.shares.borrow().len(), 1);
}

#[test]
fn what_was_mapped_old_was_never_in_a_tlb() {
    let (machine, vm) = vm_with(PLAIN);
    let _ = vm.map(&machine, &map(0x41_0000, 0x9000_0000, 1, RW | MAP_OLD));
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x41_0000, 1)), []);
    assert_eq!(counted(&machine), (1, 0));
}

#[test]
fn an_old_page_that_may_be_cached_pays_for_those_that_follow() {
    let (machine, vm) = vm_with(PLAIN);
    age(&machine, &vm, 0x1000, 4);
    assert!(cached(&machine), "aged without a flush");
    let steps = unmap(&machine, &vm, 0x1000, 1);
    assert_eq!(invalidations(&steps), [Step::Vmid], "renews the proof");
    assert!(!cached(&machine));
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x2000, 2)), []);
    assert_eq!(counted(&machine), (2, 1));
}

#[test]
fn one_batch_may_hold_young_and_old() {
    let (machine, vm) = vm_with(PLAIN);
    age(&machine, &vm, 0x1000, 4);
    vm.flush_epoch(&machine);
    assert!(machine.touch(vm.root().geometry(), 0x2000));
    let steps = unmap(&machine, &vm, 0x1000, 4);
    assert_eq!(invalidations(&steps), [Step::Ipa(0x2000, Some(3)), Step::Stage1]);
    assert_eq!(counted(&machine), (3, 1));
    assert!(!cached(&machine));
}

#[test]
fn without_a_proof_one_invalidation_serves_young_and_old() {
    let (machine, vm) = vm_with(PLAIN);
    age(&machine, &vm, 0x1000, 2);
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x1000, 4)), [Step::Vmid]);
    assert_eq!(counted(&machine), (0, 4));
    assert!(!cached(&machine));
}

#[test]
fn the_young_alone_are_named_as_ever() {
    let (machine, vm) = vm_with(PLAIN);
    age(&machine, &vm, 0x1000, 1);
    let steps = unmap(&machine, &vm, 0x2000, 1);
    assert_eq!(invalidations(&steps), [Step::Ipa(0x2000, Some(3)), Step::Stage1]);
}

#[test]
fn nothing_is_left_out_where_it_is_switched_off() {
    let (machine, vm) = vm_with(Config { skip: false, ..PLAIN });
    age(&machine, &vm, 0x1000, 4);
    vm.flush_epoch(&machine);
    let steps = unmap(&machine, &vm, 0x1000, 1);
    assert_eq!(invalidations(&steps), [Step::Ipa(0x1000, Some(3)), Step::Stage1]);
    assert_eq!(vm.set(&machine, &set(0x2000, 0x9000_0000, RW)), Ok(true));
    let steps = machine.take_steps();
    assert_eq!(invalidations(&steps), [Step::Ipa(0x2000, Some(3)), Step::Stage1]);
    assert_eq!(counted(&machine), (0, 2));
}

#[test]
fn a_table_is_always_invalidated() {
    let (machine, vm) = vm_with(PLAIN);
    let _ = vm.map(&machine, &map(0x20_0000, 0x9000_0000, 2, RW));
    age(&machine, &vm, 0x20_0000, 2);
    vm.flush_epoch(&machine);
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x20_0000, 512)), [Step::Vmid]);
    assert_eq!(counted(&machine), (0, 2), "by the one of the table");
}

#[test]
fn a_block_is_left_out_too() {
    let (machine, vm) = vm_with(PLAIN);
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 4 * MIB, Level::L2));
    age(&machine, &vm, 0x20_0000, 512);
    vm.flush_epoch(&machine);
    let steps = unmap(&machine, &vm, 0x20_0000, 1024);
    assert_eq!(invalidations(&steps), [Step::Ipa(0x40_0000, Some(2)), Step::Stage1]);
    assert_eq!(counted(&machine), (1, 1));
}

/// Aged without a flush, then set, while a vCPU that never exits keeps reading through its TLB.
#[test]
fn set_invalidates_what_was_aged_without_a_flush() {
    for skip in [false, true] {
        let (machine, vm) = vm_with(Config { skip, ..PLAIN });
        age(&machine, &vm, 0x1000, 4);
        assert!(cached(&machine));
        assert_eq!(vm.set(&machine, &set(0x1000, 0x9000_0000, RW)), Ok(true));
        machine.tlb.borrow().as_ref().unwrap().assert_unreachable(
            &machine,
            0x1000,
            PAGE,
            0x8000_0000,
        );
        let leaf = machine.walk(vm.root().geometry(), 0x1000);
        assert_eq!(leaf, Some((0x9000_0000 | forced(DATA & !YOUNG) | 3, 3)), "old stays old");
        assert_eq!(counted(&machine), (0, 1));
    }
}

#[test]
fn set_breaks_before_it_makes_also_where_it_leaves_the_invalidation_out() {
    let (machine, vm) = vm_with(PLAIN);
    let geometry = vm.root().geometry();
    age(&machine, &vm, 0x1000, 4);
    vm.flush_epoch(&machine);
    machine.take_steps();
    machine.watch(move |machine, step| {
        let stands = machine.walk(geometry, 0x1000);
        assert_eq!(stands.is_none(), step == Step::DsbIsh, "{step:?}");
    });
    assert_eq!(vm.set(&machine, &set(0x1000, 0x9000_0000, RW)), Ok(true));
    machine.unwatch();
    let steps = machine.take_steps();
    assert_eq!(steps, [Step::DsbIsh, Step::DsbIshst, Step::Isb, Step::Removed(0x1000)]);
    assert_eq!(counted(&machine), (1, 0));
}

#[test]
fn set_leaves_the_invalidation_of_a_lost_permission_out_too() {
    let (machine, vm) = vm_with(PLAIN);
    age(&machine, &vm, 0x1000, 1);
    vm.flush_epoch(&machine);
    machine.take_steps();
    assert_eq!(vm.set(&machine, &set(0x1000, 0x8000_0000, 1)), Ok(true), "dirty no longer");
    assert_eq!(machine.take_steps(), [Step::DsbIsh]);
    machine.tlb.borrow().as_ref().unwrap().assert_no_writes(0x1000, 0x2000);
    assert_eq!(counted(&machine), (1, 0));
}

/// Runs something as another CPU once, at a step of the engine.
fn at_step(machine: &Machine, wanted: Step, act: impl Fn(&Machine) + 'static) {
    let done = Cell::new(false);
    machine.watch(move |machine, step| {
        if step == wanted && !done.replace(true) {
            let cpu = machine.cpu.replace(1);
            act(machine);
            machine.cpu.set(cpu);
        }
    });
}

#[test]
fn no_level_is_named_while_a_block_gives_way_without_a_break() {
    let (machine, vm) = vm_with(Config { bbm2: true, ..PLAIN });
    let vm = Rc::new(vm);
    let block = map_blocks(0x40_0000, 0x9000_0000, 2 * MIB, Level::L2);
    assert_eq!(vm.map(&machine, &block), Outcome::done(512));
    let other = vm.clone();
    // The table stands already, and TLBs still hold the block: an invalidation of a page by its level
    // would pass it by. (The TLB checks what is reported.)
    at_step(&machine, Step::DsbIsh, move |machine| {
        let steps = unmap(machine, &other, 0x41_0000, 1);
        assert_eq!(invalidations(&steps), [Step::Ipa(0x41_0000, None), Step::Stage1]);
    });
    let split = vm.split_range(&machine, range(&vm, 0x40_0000, 512), Level::L3);
    machine.unwatch();
    assert_eq!(split, Outcome::done(512));
    assert_eq!(machine.take_removed().len(), 1);
    let steps = unmap(&machine, &vm, 0x40_0000, 1);
    assert_eq!(invalidations(&steps)[0], Step::Ipa(0x40_0000, Some(3)), "named again");
}

#[test]
fn a_flush_under_way_when_a_flag_is_cleared_proves_nothing() {
    let (machine, vm) = vm_with(PLAIN);
    let vm = Rc::new(vm);
    age(&machine, &vm, 0x1000, 1);
    let other = vm.clone();
    // The invalidation is issued; before it is complete another pass clears flags and ends.
    at_step(&machine, Step::Vmid, move |machine| age(machine, &other, 0x2000, 2));
    vm.flush_epoch(&machine);
    machine.unwatch();
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x2000, 1)), [Step::Vmid]);
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x3000, 1)), [], "that one did");
}

#[test]
fn while_a_pass_is_under_way_leaves_are_named_and_not_the_whole_vm() {
    let (machine, vm) = vm_with(PLAIN);
    let seen = Cell::new(0);
    let aged = vm.age(&machine, range(&vm, 0x1000, 1), AgeFlush::None, |_, _| {
        // Another CPU, before the pass has ended.
        let steps = unmap(&machine, &vm, 0x1000, 1);
        assert_eq!(invalidations(&steps), [Step::Ipa(0x1000, Some(3)), Step::Stage1]);
        seen.set(seen.get() + 1);
    });
    assert_eq!((aged, seen.get()), (Outcome::done(1), 1));
    // The proof that was before the pass is gone with it.
    let _ = vm.map(
        &machine,
        &verdigris_stage2::Map {
            sequence: vm.sequence(),
            ..map(0x41_0000, 0x9000_0000, 1, RW | MAP_OLD)
        },
    );
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x41_0000, 1)), [Step::Vmid]);
}

#[test]
fn a_flush_of_the_epoch_is_one_until_flags_are_cleared_again() {
    let (machine, vm) = vm_with(PLAIN);
    vm.flush_epoch(&machine);
    assert_eq!(machine.take_steps(), [], "nothing was aged yet");
    age(&machine, &vm, 0x1000, 4);
    vm.flush_epoch(&machine);
    assert_eq!(invalidations(&machine.take_steps()), [Step::Vmid]);
    vm.flush_epoch(&machine);
    age(&machine, &vm, 0x1000, 4);
    vm.flush_epoch(&machine);
    assert_eq!(machine.take_steps(), [], "all were old already");
}

/// The same of one that an unmap needs for a table: it is of the whole VM too.
#[test]
fn an_unmaps_own_invalidation_proves_nothing_of_what_is_aged_meanwhile() {
    let (machine, vm) = vm_with(PLAIN);
    let _ = vm.map(&machine, &map(0x20_0000, 0x9000_0000, 2, RW));
    let vm = Rc::new(vm);
    let other = vm.clone();
    at_step(&machine, Step::Vmid, move |machine| age(machine, &other, 0x2000, 1));
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x20_0000, 512)), [Step::Vmid]);
    assert_eq!(invalidations(&unmap(&machine, &vm, 0x2000, 1)), [Step::Vmid]);
}

#[test]
fn a_flush_of_all_is_these_steps() {
    let (machine, vm) = vm_with(Config { repeat: true, ..PLAIN });
    vm.flush_all(&machine);
    let steps = [Step::DsbIsh, Step::Enter, Step::Vmid, Step::DsbIsh, Step::Repeat, Step::Isb];
    assert_eq!(machine.take_steps(), [&steps[..], &[Step::Leave]].concat());
}
