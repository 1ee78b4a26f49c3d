//! Split by call: the same translations by smaller leaves, and nothing else.
#![cfg(not(loom))]

mod support;

use support::model::*;
use support::{Machine, Step, TABLES};
use verdigris_stage2::{Config, Error, Ipa, Level, Outcome, Stage2, Stat};

const HOT: &[u64] = &[0, 0x20_0000, 0x3f_f000, 0x40_0000, GIB, GIB + 5 * MIB];
const FORCED: Config = Config {
    fwb: true,
    dic: true,
    ttl: true,
    tlb_range: false,
    repeat: false,
    hd: false,
    bbm2: false,
    skip: false,
};

fn vm(bbm2: bool) -> (Machine, Stage2) {
    Machine::with_vm(60, 40, Config { bbm2, ..FORCED }, HOT)
}

fn split(machine: &Machine, vm: &Stage2, ipa: u64, bytes: u64, level: Level) -> Outcome {
    vm.split_range(machine, vm.range(Ipa(ipa), bytes / PAGE).unwrap(), level)
}

fn leaves(machine: &Machine) -> Vec<(u64, u64, u32)> {
    all_leaves(machine, 40, 1)
}

/// Checks that what a block translated is translated by `count` leaves of `level`, with the same bits.
fn assert_parts(machine: &Machine, ipa: u64, pa: u64, level: u32, bits: u64) {
    let shift = 39 - 9 * level;
    let kind = if level == 3 { 3 } else { 1 };
    let parts: Vec<_> = leaves(machine)
        .into_iter()
        .filter(|leaf| (ipa..ipa + (512 << shift)).contains(&leaf.0))
        .collect();
    assert_eq!(parts.len(), 512);
    for (index, part) in parts.into_iter().enumerate() {
        let offset = (index as u64) << shift;
        assert_eq!(part, (ipa + offset, (pa + offset) | bits | kind, level));
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_block_becomes_pages_by_break_and_make() {
    let (machine, vm) = vm(false);
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x8020_0000, 2 * MIB, Level::L2));
    let _ = vm.map(&machine, &map(0, 0x9000_0000, 1, RW));
    machine.take_steps();
    assert_eq!(split(&machine, &vm, 0x20_0000, PAGE, Level::L3), Outcome::done(1));
    assert_eq!(
        machine.take_steps(),
        [
            Step::DsbIsh,
            Step::Enter,
            Step::Ipa(0x20_0000, Some(2)),
            Step::DsbIsh,
            Step::Stage1,
            Step::DsbIsh,
            Step::Isb,
            Step::Leave,
            Step::DsbIshst,
            Step::Isb,
        ]
    );
    assert_parts(&machine, 0x20_0000, 0x8020_0000, 3, forced(DATA));
    assert_eq!(leaves(&machine).len(), 513, "the neighbour is there");
    assert_eq!(machine.shares.borrow().len(), 513, "a share a page, none of the block");
    assert!(machine.take_removed().is_empty(), "nothing was unmapped");
    assert_eq!(machine.stat(Stat::BlocksSplit), 1);
    assert_eq!(machine.stat(Stat::LeavesUnmapped) + machine.stat(Stat::BlocksDropped), 0);
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn with_level_2_the_block_is_never_gone() {
    let (machine, vm) = vm(true);
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x8020_0000, 2 * MIB, Level::L2));
    machine.take_steps();
    let geometry = vm.root().geometry();
    machine.watch(move |machine, step| {
        assert_eq!(machine.walk(geometry, 0x20_0000).map(|leaf| leaf.1), Some(3), "{step:?}");
    });
    assert_eq!(split(&machine, &vm, 0x20_0000, 2 * MIB, Level::L3), Outcome::done(512));
    machine.unwatch();
    assert!(machine.take_steps().contains(&Step::Ipa(0x20_0000, Some(2))));
    assert_parts(&machine, 0x20_0000, 0x8020_0000, 3, forced(DATA));
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_gigabyte_becomes_blocks_and_those_become_pages() {
    for bbm2 in [false, true] {
        let (machine, vm) = vm(bbm2);
        let _ = vm.map(&machine, &map_blocks(GIB, GIB, GIB, Level::L1));
        assert_eq!(split(&machine, &vm, GIB, GIB, Level::L1), Outcome::done(262_144));
        assert_eq!(leaves(&machine), [(GIB, GIB | forced(DATA) | 1, 1)], "already of that size");
        assert_eq!(split(&machine, &vm, GIB, GIB, Level::L2), Outcome::done(262_144));
        assert_parts(&machine, GIB, GIB, 2, forced(DATA));
        let at = GIB + 4 * MIB;
        assert_eq!(split(&machine, &vm, at, 4 * MIB, Level::L3), Outcome::done(1024));
        assert_eq!(leaves(&machine).len(), 510 + 1024);
        assert_eq!(machine.stat(Stat::BlocksSplit), 3);
        assert_eq!(machine.shares.borrow().len(), 510 + 1024);
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn out_of_pages_nothing_of_the_block_has_changed() {
    for bbm2 in [false, true] {
        let (machine, vm) = vm(bbm2);
        let _ = vm.map(&machine, &map_blocks(0, 0x8000_0000, 6 * MIB, Level::L2));
        machine.keep_free(1);
        let stopped = Outcome::stopped(512, Error::NoMemory);
        assert_eq!(split(&machine, &vm, 0, 6 * MIB, Level::L3), stopped);
        let rest = leaves(&machine).split_off(512);
        let block = |ipa: u64| (ipa, (0x8000_0000 + ipa) | forced(DATA) | 1, 2);
        assert_eq!(rest, [block(2 * MIB), block(4 * MIB)]);
        assert_eq!(machine.shares.borrow().len(), 514);
        assert!(machine.take_removed().is_empty());
    }
}

#[test]
fn nothing_to_split_costs_nothing() {
    let (machine, vm) = vm(false);
    let _ = vm.map(&machine, &map(0, 0x8000_0000, 2, RW));
    machine.take_steps();
    assert_eq!(split(&machine, &vm, 0, 8 * GIB, Level::L3), Outcome::done(2_097_152));
    assert_eq!(machine.take_steps(), []);
    assert_eq!(split(&machine, &vm, 0, PAGE, Level::L0), Outcome::stopped(0, Error::Invalid));
}

/// A table is filled for what a block is at a moment. Where others age and touch the block as fast, that ends.
#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_block_that_never_stays_the_same_is_broken() {
    let (machine, vm) = vm(true);
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x8020_0000, 2 * MIB, Level::L2));
    let geometry = vm.root().geometry();
    let root = TABLES..TABLES + 16 * 4096;
    let used = machine.allocated.get() as u64 * 4096;
    let (tables, fills) = (root.end..root.end + used, std::rc::Rc::new(std::cell::Cell::new(0)));
    let count = fills.clone();
    *machine.at_table.borrow_mut() = Some(Box::new(move |machine, page| {
        let pa = page.pa().0;
        // A table that is new: the block changes once more. It rests after a while, or this would not end.
        if !root.contains(&pa) && !tables.contains(&pa) && count.get() < 100 {
            count.set(count.get() + 1);
            if machine.walk(geometry, 0x20_0000).is_some_and(|leaf| leaf.1 == 2) {
                machine.toggle_young(geometry, 0x20_0000);
            }
        }
    }));
    assert_eq!(split(&machine, &vm, 0x20_0000, PAGE, Level::L3), Outcome::done(1));
    *machine.at_table.borrow_mut() = None;
    assert!(fills.get() <= 5, "{} fills", fills.get());
    assert_eq!(leaves(&machine).len(), 512);
    assert_eq!(machine.shares.borrow().len(), 512);
}
