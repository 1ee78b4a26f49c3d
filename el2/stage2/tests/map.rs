//! Map: what it installs, what it refuses, and that an error has changed nothing.
#![cfg(not(loom))]

mod support;

use support::model::*;
use support::{Machine, Step};
use verdigris_stage2::{
    Attributes, Config, Error, Geometry, Ipa, Level, Map, NoDirty, Outcome, Range, Stage2, Stat,
};

const HOT: &[u64] = &[0x10_0000, 0x10_1000, 0x20_0000, GIB];

fn vm() -> (Machine, Stage2, Geometry) {
    let config = Config { dic: true, ..Config::default() };
    let (machine, vm) = Machine::with_vm(40, 40, config, HOT);
    let geometry = vm.root().geometry();
    (machine, vm, geometry)
}

#[test]
fn maps_pages_and_publishes_them() {
    let (machine, vm, geometry) = vm();
    assert_eq!(vm.map(&machine, &map(0x10_0000, 0x8000_0000, 2, RW)), Outcome::done(2));
    assert_eq!(machine.walk(geometry, 0x10_0000), Some((0x8000_0000 | DATA | 0b11, 3)));
    assert_eq!(machine.walk(geometry, 0x10_1000), Some((0x8000_1000 | DATA | 0b11, 3)));
    assert_eq!(machine.walk(geometry, 0x10_2000), None);
    assert_eq!(machine.walk(geometry, 0x0f_f000), None);
    assert_eq!(
        machine.take_steps(),
        [Step::Clean(0x8000_0000, 0x2000), Step::DsbIshst, Step::Isb],
        "cleaned before it is visible, and nothing invalidated"
    );
    assert_eq!(machine.stat(Stat::LeavesMapped), 2);
    assert_eq!(machine.shares.borrow().len(), 2);
}

#[test]
fn maps_old_read_only_and_executable_leaves() {
    let (machine, vm, geometry) = vm();
    let old = verdigris_abi::flags::MAP_OLD;
    let exec = verdigris_abi::flags::PROT_EXEC;
    let _ = vm.map(&machine, &map(0x10_0000, 0x8000_0000, 1, 1 | old));
    let _ = vm.map(&machine, &map(0x10_1000, 0x8000_1000, 1, 1 | exec));
    assert_eq!(machine.walk(geometry, 0x10_0000).unwrap().0, 0x8000_0000 | GUEST | NO_EXEC | 3);
    assert_eq!(machine.walk(geometry, 0x10_1000).unwrap().0, 0x8000_1000 | GUEST | YOUNG | 3);
    assert!(!machine.take_steps().contains(&Step::InvalidateInstructions), "CTR_EL0.DIC");
}

#[test]
fn cleans_caches_only_where_the_cpu_needs_it() {
    let config = Config { fwb: true, dic: false, ..Config::default() };
    let (machine, vm) = Machine::with_vm(40, 40, config, HOT);
    let _ = vm.map(&machine, &map(0x10_0000, 0x8000_0000, 1, RWX));
    assert_eq!(machine.take_steps()[0], Step::InvalidateInstructions);
    let raw = machine.walk(vm.root().geometry(), 0x10_0000).unwrap().0;
    assert_eq!(raw >> 2 & 0b1111, 0b0110, "forced write-back");
}

#[test]
fn maps_blocks_and_crosses_tables() {
    let config = Config { fwb: true, dic: true, ..Config::default() };
    let (machine, vm) = Machine::with_vm(40, 40, config, HOT);
    let geometry = vm.root().geometry();
    let two_mib = map_blocks(GIB - 2 * MIB, 0x1_0000_0000, 4 * MIB, Level::L2);
    assert_eq!(vm.map(&machine, &two_mib), Outcome::done(1024));
    let gib = map_blocks(4 * GIB, 0x2_0000_0000 - GIB, GIB, Level::L1);
    assert_eq!(vm.map(&machine, &gib), Outcome::done(262_144));
    assert_eq!(machine.walk(geometry, GIB - 1), Some((0x1_0000_0000 | forced(DATA) | 1, 2)));
    assert_eq!(machine.walk(geometry, GIB), Some((0x1_0020_0000 | forced(DATA) | 1, 2)));
    assert_eq!(machine.walk(geometry, 5 * GIB - 1), Some((0x1_c000_0000 | forced(DATA) | 1, 1)));
    let shares = machine.shares.borrow();
    assert_eq!(shares.len(), 3, "a share has the size of its leaf: {shares:?}");
}

#[test]
fn many_pages_go_in_batches_and_make_way_for_interrupts() {
    let (machine, vm, _) = vm();
    machine.interrupt_after.set(Some(1));
    let request = map(0x1f_0000, 0x8000_0000, 300, RW);
    assert_eq!(vm.map(&machine, &request), Outcome::done(16 + 64), "16 to the end of the table");
    let rest = map(0x1f_0000 + 80 * PAGE, 0x8000_0000 + 80 * PAGE, 220, RW);
    machine.interrupt_after.set(None);
    assert_eq!(vm.map(&machine, &rest), Outcome::done(220));
    assert_eq!(all_leaves(&machine, 40, 1).len(), 300);
}

#[test]
fn the_same_page_again_changes_nothing() {
    let (machine, vm, geometry) = vm();
    let _ = vm.map(&machine, &map(0x10_0000, 0x8000_0000, 1, RW));
    let before = machine.walk(geometry, 0x10_0000);
    assert_eq!(vm.map(&machine, &map(0x10_0000, 0x8000_0000, 1, 1)), Outcome::done(1));
    assert_eq!(vm.map(&machine, &map(0x10_0000, 0x8000_0000, 1, RW)), Outcome::done(1));
    assert_eq!(machine.walk(geometry, 0x10_0000), before);
    assert_eq!(machine.stat(Stat::LeavesMapped), 1);
    assert_eq!(machine.shares.borrow()[&(0x8000_0000, 3)], 1);
}

#[test]
fn more_permission_is_added_in_place_and_invalidated_here() {
    let (machine, vm, geometry) = vm();
    let old = verdigris_abi::flags::MAP_OLD;
    let _ = vm.map(&machine, &map(0x10_0000, 0x8000_0000, 1, 1 | old));
    machine.take_steps();
    assert_eq!(vm.map(&machine, &map(0x10_0000, 0x8000_0000, 1, RWX)), Outcome::done(1));
    assert_eq!(
        machine.walk(geometry, 0x10_0000).unwrap().0,
        0x8000_0000 | GUEST | WRITE | 3,
        "the access flag stays as it was"
    );
    let steps = machine.take_steps();
    let locally = [Step::DsbIshst, Step::Isb, Step::Enter, Step::Local(0x10_0000), Step::Leave];
    assert_eq!(steps[steps.len() - 5..], locally, "in the VM's context");
    assert_eq!(machine.shares.borrow()[&(0x8000_0000, 3)], 1);
}

#[test]
fn another_page_is_in_the_way() {
    let (machine, vm, geometry) = vm();
    let _ = vm.map(&machine, &map(0x10_2000, 0x8000_0000, 1, RW));
    let outcome = vm.map(&machine, &map(0x10_0000, 0x9000_0000, 5, RW));
    assert_eq!(outcome, Outcome::stopped(2, Error::Exists));
    assert_eq!(machine.walk(geometry, 0x10_2000).unwrap().0, 0x8000_0000 | DATA | 3);
    assert_eq!(machine.walk(geometry, 0x10_3000), None);
    assert_eq!(machine.shares.borrow().len(), 3, "no share for what was not mapped");
    let block = map_blocks(0, 0x9000_0000, 2 * MIB, Level::L2);
    assert_eq!(vm.map(&machine, &block), Outcome::stopped(0, Error::Exists), "over a table");
    let _ = vm.map(&machine, &map_blocks(2 * MIB, 0x9000_0000, 2 * MIB, Level::L2));
    let below = vm.map(&machine, &map(2 * MIB, 0x9000_0000, 1, RW));
    assert_eq!(below, Outcome::stopped(0, Error::Exists), "under a block");
}

#[test]
fn out_of_table_pages_is_an_error_that_changes_nothing() {
    let (machine, vm, geometry) = vm();
    machine.keep_free(1);
    let outcome = vm.map(&machine, &map(0x10_0000, 0x8000_0000, 1, RW));
    assert_eq!(outcome, Outcome::stopped(0, Error::NoMemory));
    assert_eq!(machine.free_pages(), 1);
    assert!(machine.shares.borrow().is_empty());
    assert_eq!(machine.walk(geometry, 0x10_0000), None);
    let block = map_blocks(0, 0x8000_0000, 2 * MIB, Level::L2);
    assert_eq!(vm.map(&machine, &block), Outcome::done(512), "one page is enough for a block");
}

#[test]
fn progress_before_an_error_stays() {
    let (machine, vm, geometry) = vm();
    machine.keep_free(2);
    let outcome = vm.map(&machine, &map(2 * MIB - 3 * PAGE, 0x8000_0000, 10, RW));
    assert_eq!(outcome, Outcome::stopped(3, Error::NoMemory));
    machine.owned_below.set(0x9000_2000);
    let outcome = vm.map(&machine, &map(0x1000, 0x9000_0000, 10, RW));
    assert_eq!(outcome, Outcome::stopped(2, Error::NotOwner));
    assert_eq!(all_leaves(&machine, 40, 1).len(), 5);
    assert_eq!(machine.walk(geometry, 0x3000), None);
    assert_eq!(machine.shares.borrow().len(), 5);
}

#[test]
fn refuses_bad_requests() {
    let (machine, vm, _) = vm();
    let good = map(0x20_0000, 0x8020_0000, 512, RW);
    let bad = [
        Map { page_count: 0, ..good },
        Map { page_count: u64::MAX, ..good },
        Map { page_count: 1 << 52, ..good },
        Map { ipa: Ipa(0x20_0001), ..good },
        Map { ipa: Ipa(1 << 40), ..good },
        Map { ipa: Ipa(u64::MAX - 4095), ..good },
        Map { pa: verdigris_stage2::Pa(0x8020_0010), ..good },
        Map { pa: verdigris_stage2::Pa((1 << 48) - 4096), ..good },
        Map { pa: verdigris_stage2::Pa(!4095), ..good },
        Map { level: Level::L2, page_count: 511, ..good },
        Map { level: Level::L2, ipa: Ipa(0x10_0000), ..good },
        Map { level: Level::L1, ..good },
        Map { level: Level::L0, ..good },
    ];
    for request in bad {
        let outcome = vm.map(&machine, &request);
        assert_eq!(outcome, Outcome::stopped(0, Error::Invalid), "{request:?}");
    }
    assert_eq!(machine.allocated.get(), 0);
    assert!(machine.shares.borrow().is_empty());
}

#[test]
fn has_no_gigabyte_blocks_under_a_level_2_root() {
    let (machine, vm) = Machine::with_vm(40, 32, Config::default(), &[]);
    let outcome = vm.map(&machine, &map_blocks(0, 0, GIB, Level::L1));
    assert_eq!(outcome, Outcome::stopped(0, Error::Invalid));
}

#[test]
fn is_refused_while_a_mark_stands_and_with_a_number_from_before() {
    let (machine, vm, _) = vm();
    let number = vm.sequence();
    let range = vm.range(Ipa(0x10_0000), 4).unwrap();
    assert_eq!(vm.invalidate_begin(&machine, range, false, 0, &mut NoDirty), Outcome::done(4));
    let retry = Outcome::stopped(0, Error::Retry);
    let inside = Map { sequence: number, ..map(0x10_3000, 0x8000_0000, 1, RW) };
    let elsewhere = Map { sequence: number, ..map(0x10_4000, 0x8000_0000, 1, RW) };
    assert_eq!(vm.map(&machine, &inside), retry);
    assert_eq!(vm.map(&machine, &elsewhere), Outcome::done(1));
    assert_eq!(vm.invalidate_end(&machine, range, 4, &mut NoDirty), Outcome::done(4));
    assert_eq!(vm.map(&machine, &inside), retry, "it ended since the number was taken");
    assert_eq!(vm.map(&machine, &elsewhere), Outcome::done(1));
    let now = Map { sequence: vm.sequence(), ..inside };
    assert_eq!(vm.map(&machine, &now), Outcome::done(1));
    assert_eq!(machine.stat(Stat::Retries), 2);
    assert_eq!(machine.stat(Stat::FalseRetries), 0);
}

#[test]
fn forgets_in_vain_and_counts_it() {
    let (machine, vm, _) = vm();
    let far = vm.range(Ipa(GIB), 1).unwrap();
    let request = map(0x10_0000, 0x8000_0000, 1, RW);
    for _ in 0..64 {
        let _ = vm.unmap(&machine, far, &mut NoDirty);
    }
    assert_eq!(vm.map(&machine, &request), Outcome::done(1), "64 are remembered");
    let _ = vm.unmap(&machine, far, &mut NoDirty);
    let other = Map { ipa: Ipa(0x10_1000), ..request };
    assert_eq!(vm.map(&machine, &other), Outcome::stopped(0, Error::Retry));
    assert_eq!((machine.stat(Stat::Retries), machine.stat(Stat::FalseRetries)), (1, 1));
    let future = Map { sequence: 66, ..other };
    assert_eq!(vm.map(&machine, &future), Outcome::stopped(0, Error::Retry), "never given");
}

#[test]
fn marks_merge_into_a_hull_that_goes_with_the_last_end() {
    let (machine, vm, _) = vm();
    let ranges: Vec<Range> =
        (0..19).map(|index| vm.range(Ipa(index * 0x10_0000), 1).unwrap()).collect();
    for &range in &ranges {
        assert_eq!(vm.invalidate_begin(&machine, range, false, 0, &mut NoDirty), Outcome::done(1));
    }
    let free_at = |ipa| {
        let request = Map { sequence: vm.sequence(), ..map(ipa, 0x8000_0000, 1, RW) };
        vm.map(&machine, &request).error.is_none()
    };
    // 16 have a mark of their own; 16, 17 and 18 share the hull of all three.
    assert!(free_at(0x1000) && !free_at(0) && !free_at(15 * 0x10_0000));
    assert!(!free_at(16 * 0x10_0000) && !free_at(0x105_0000) && !free_at(0x120_0000));
    assert!(free_at(0xff_f000) && free_at(0x120_1000));
    assert_eq!(vm.invalidate_end(&machine, ranges[18], 1, &mut NoDirty), Outcome::done(1));
    assert!(!free_at(18 * 0x10_0000), "the hull stands until its last end");
    assert_eq!(vm.invalidate_end(&machine, ranges[16], 1, &mut NoDirty), Outcome::done(1));
    assert!(!free_at(16 * 0x10_0000));
    assert_eq!(vm.invalidate_end(&machine, ranges[17], 1, &mut NoDirty), Outcome::done(1));
    assert!(free_at(16 * 0x10_0000) && free_at(18 * 0x10_0000) && !free_at(0x30_0000));
    let none = Outcome::stopped(0, Error::NoEntry);
    assert_eq!(vm.invalidate_end(&machine, ranges[17], 1, &mut NoDirty), none);
    let wider = vm.range(Ipa(0), 2).unwrap();
    assert_eq!(
        vm.invalidate_end(&machine, wider, 2, &mut NoDirty),
        none,
        "not the range of any begin"
    );
    for &range in &ranges[..16] {
        assert_eq!(vm.invalidate_end(&machine, range, 1, &mut NoDirty), Outcome::done(1));
    }
    assert!(ranges.iter().all(|range| free_at(range.ipa().0)));
}

#[test]
fn guest_attributes_are_what_the_flags_say() {
    assert_eq!(Attributes::guest(1), Attributes::GUEST_RAM);
}
