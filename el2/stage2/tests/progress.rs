//! How far a call comes: at the edges of the address space, inside blocks, and under interrupts.
#![cfg(not(loom))]

mod support;

use support::Machine;
use support::model::*;
use verdigris_stage2::{Config, Ipa, Level, NoDirty, Outcome, Pa, Range, Stage2, walk};

fn vm(ipa_bits: u32) -> (Machine, Stage2) {
    let config = Config { fwb: true, dic: true, ttl: true, ..Config::default() };
    Machine::with_vm(60, ipa_bits, config, &[0, 0x5000, 0x20_0000, GIB])
}

fn map_block(machine: &Machine, vm: &Stage2, ipa: u64, level: Level) {
    let request = map_blocks(ipa, 0x40_0000_0000 + ipa, level.bytes(), level);
    assert_eq!(vm.map(machine, &request), Outcome::done(level.pages()));
}

/// Which trees have which blocks: 32 bits begin at level 2, 35 and 40 at level 1, 48 at level 0.
const TREES: [(u32, u64, Level); 7] = [
    (32, 0, Level::L2),
    (35, 1, Level::L2),
    (35, 1, Level::L1),
    (40, 1, Level::L2),
    (40, 1, Level::L1),
    (48, 2, Level::L2),
    (48, 2, Level::L1),
];

/// What a block leaves behind when its first page goes.
fn rest_of(level: Level) -> usize {
    if level == Level::L1 { 511 + 511 } else { 511 }
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn the_first_page_of_all_is_taken_out_of_a_block() {
    for (ipa_bits, sl0, level) in TREES {
        let (machine, vm) = vm(ipa_bits);
        map_block(&machine, &vm, 0, level);
        assert_eq!(
            vm.unmap(&machine, vm.range(Ipa(0), 1).unwrap(), &mut NoDirty),
            Outcome::done(1)
        );
        let leaves = all_leaves(&machine, ipa_bits, sl0);
        assert_eq!(leaves.len(), rest_of(level), "{ipa_bits} bits, {level:?}");
        assert_eq!(leaves[0].0, 0x1000);
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn begin_takes_the_first_page_of_all_out_of_a_block() {
    for (ipa_bits, sl0, level) in TREES {
        let (machine, vm) = vm(ipa_bits);
        map_block(&machine, &vm, 0, level);
        let range = vm.range(Ipa(0), 1).unwrap();
        assert_eq!(vm.invalidate_begin(&machine, range, false, 0, &mut NoDirty), Outcome::done(1));
        assert_eq!(vm.invalidate_end(&machine, range, 1, &mut NoDirty), Outcome::done(1));
        assert_eq!(all_leaves(&machine, ipa_bits, sl0).len(), rest_of(level), "{ipa_bits} bits");
    }
}

#[test]
#[should_panic(expected = "outside of the root")]
fn no_walk_leaves_the_root() {
    let (machine, vm) = vm(40);
    let _ = walk::find(&machine, vm.root(), Ipa(1 << 40));
}

/// Ends an invalidation of which the host says that it has come into the middle of a block.
fn end_from_inside(level: Level, block_count: u64, done: u64) {
    let (machine, vm) = vm(40);
    for index in 0..block_count {
        map_block(&machine, &vm, index * level.bytes(), level);
    }
    let range = vm.range(Ipa(0), block_count * level.pages()).unwrap();
    // A begin that says it has nothing to do leaves all of it.
    let all = range.page_count();
    assert_eq!(vm.invalidate_begin(&machine, range, false, all, &mut NoDirty), Outcome::done(all));
    // Should it go round in circles, an interrupt lets it out.
    machine.interrupt_after.set(Some(50));
    let outcome = vm.invalidate_end(&machine, range, done, &mut NoDirty);
    assert_eq!(outcome, Outcome::done(all), "{level:?}, {done} pages done");
    let removed = machine.take_removed();
    let ipas: Vec<u64> = removed.iter().map(|leaf| leaf.ipa.0).collect();
    let skipped = done / level.pages();
    let expected: Vec<u64> = (skipped..block_count).map(|index| index * level.bytes()).collect();
    assert_eq!(ipas, expected, "whole blocks, by their own addresses");
    assert!(removed.iter().all(|leaf| leaf.pa == Pa(0x40_0000_0000 + leaf.ipa.0)));
}

#[test]
fn progress_may_name_the_middle_of_a_block() {
    for (block_count, done) in [(1, 5), (1, 511), (2, 5), (3, 512 + 7), (3, 1535)] {
        end_from_inside(Level::L2, block_count, done);
    }
    for (block_count, done) in [(1, 700), (2, 1), (2, 262_144 + 512)] {
        end_from_inside(Level::L1, block_count, done);
    }
}

/// Fills a VM with everything that takes a step of its own: full and sparse tables, tables that are
/// empty and linked, blocks.
fn fill(machine: &Machine, vm: &Stage2) {
    let fine = |ipa, page_count| {
        let request = map(ipa, 0x8000_0000 + ipa, page_count, RW);
        assert_eq!(vm.map(machine, &request), Outcome::done(page_count));
    };
    // The very first table is linked and empty.
    for ipa in [0, 0x60_0000, GIB] {
        fine(ipa, 1);
        let page = vm.range(Ipa(ipa), 1).unwrap();
        assert_eq!(vm.unmap(machine, page, &mut NoDirty), Outcome::done(1));
    }
    let request = map(0x20_0000, 0x9000_0000, 512, RW);
    let now = verdigris_stage2::Map { sequence: vm.sequence(), ..request };
    assert_eq!(vm.map(machine, &now), Outcome::done(512));
    let block = map_blocks(0x40_0000, 0x9020_0000, 2 * MIB, Level::L2);
    let now = verdigris_stage2::Map { sequence: vm.sequence(), ..block };
    assert_eq!(vm.map(machine, &now), Outcome::done(512));
    machine.take_removed();
}

/// Goes on from what the last call returned until all is done; each call does at least a page.
fn until_done(range: Range, mut call: impl FnMut(u64) -> Outcome) -> u64 {
    let (mut done, mut calls) = (0, 0);
    while done < range.page_count() {
        let outcome = call(done);
        assert_eq!(outcome.error, None);
        assert!(outcome.pages > done, "call {calls} has done nothing after page {done:#x}");
        (done, calls) = (outcome.pages, calls + 1);
    }
    calls
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn unmapping_everything_ends_though_an_interrupt_is_always_pending() {
    for ipa_bits in [32, 36, 40] {
        let (machine, vm) = vm(ipa_bits);
        fill(&machine, &vm);
        machine.interrupt_after.set(Some(0));
        let all = vm.range(Ipa(0), 1 << (ipa_bits - 12)).unwrap();
        let calls = until_done(all, |done| {
            machine.reenter();
            let rest = Range { start: done, end: all.end };
            Outcome::done(done + vm.unmap(&machine, rest, &mut NoDirty).pages)
        });
        // A step a table or hole, and each table of pages in batches of 64.
        assert!(calls < 4000, "{calls}");
        assert_eq!(machine.take_removed().len(), 513, "{ipa_bits} bits");
        assert!(machine.shares.borrow().is_empty());
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn begin_and_end_of_everything_end_too_and_give_all_tables_back() {
    let (machine, vm) = vm(40);
    fill(&machine, &vm);
    machine.interrupt_after.set(Some(0));
    let all = vm.range(Ipa(0), 1 << 28).unwrap();
    until_done(all, |done| {
        machine.reenter();
        if done < 1000 {
            vm.invalidate_begin(&machine, all, done != 0, done, &mut NoDirty)
        } else {
            vm.invalidate_end(&machine, all, done, &mut NoDirty)
        }
    });
    assert_eq!(machine.take_removed().len(), 513);
    while !vm.reap(&machine) {
        machine.reenter();
    }
    assert_eq!(machine.allocated.get(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_page_is_done_though_two_blocks_must_be_split_for_it() {
    let (machine, vm) = vm(40);
    map_block(&machine, &vm, GIB, Level::L1);
    machine.interrupt_after.set(Some(0));
    let page = vm.range(Ipa(GIB + 5 * MIB), 1).unwrap();
    assert_eq!(vm.unmap(&machine, page, &mut NoDirty), Outcome::done(1));
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn what_was_mapped_in_the_place_of_a_parked_table_is_not_passed_over() {
    let (machine, vm) = vm(40);
    let all = vm.range(Ipa(0x20_0000), 512).unwrap();
    assert_eq!(vm.map(&machine, &map(0x20_0000, 0x9000_0000, 512, RW)), Outcome::done(512));
    machine.interrupt_after.set(Some(0));
    assert_eq!(vm.unmap(&machine, all, &mut NoDirty), Outcome::done(64));
    // Page 5 is free of the old table, page 70 isn't.
    for (page, steps) in [(5, 1), (70, 2)] {
        let ipa = 0x20_0000 + page * PAGE;
        let now = verdigris_stage2::Map { sequence: vm.sequence(), ..map(ipa, 0x8000_0000, 1, RW) };
        assert_eq!(vm.map(&machine, &now), Outcome::done(1));
        machine.take_removed();
        let again = vm.range(Ipa(ipa), 1).unwrap();
        assert_eq!(vm.unmap(&machine, again, &mut NoDirty), Outcome::done(1));
        let removed: Vec<u64> = machine.take_removed().iter().map(|leaf| leaf.pa.0).collect();
        assert_eq!(removed, [0x8000_0000, 0x9000_0000 + page * PAGE][..steps], "page {page}");
        assert!(all_leaves(&machine, 40, 1).is_empty());
    }
    machine.interrupt_after.set(None);
    assert_eq!(vm.unmap(&machine, all, &mut NoDirty), Outcome::done(512));
    assert!(machine.shares.borrow().is_empty());
}
