//! Reclaim: empty tables come back, and nothing else changes.
#![cfg(not(loom))]

mod support;

use support::model::*;
use support::{Machine, Step};
use verdigris_stage2::{Config, Error, Ipa, Map, NoDirty, Outcome, Stage2, Stat};

const HOT: &[u64] = &[0, 0x20_0000, 0x40_0000, GIB];

fn vm() -> (Machine, Stage2) {
    let config = Config { fwb: true, dic: true, ttl: true, tlb_range: true, ..Config::default() };
    Machine::with_vm(60, 40, config, HOT)
}

fn map_now(machine: &Machine, vm: &Stage2, ipa: u64, page_count: u64) -> Outcome {
    let request = Map { sequence: vm.sequence(), ..map(ipa, 0x8000_0000 + ipa, page_count, RW) };
    vm.map(machine, &request)
}

fn unmap(machine: &Machine, vm: &Stage2, ipa: u64, page_count: u64) {
    let range = vm.range(Ipa(ipa), page_count).unwrap();
    assert_eq!(vm.unmap(machine, range, &mut NoDirty), Outcome::done(page_count));
}

fn reclaim(machine: &Machine, vm: &Stage2, ipa: u64, bytes: u64) -> Outcome {
    vm.reclaim_tables(machine, vm.range(Ipa(ipa), bytes / PAGE).unwrap())
}

/// Lets all stays of all CPUs pass, so that what is retired comes free.
fn pass(machine: &Machine, vm: &Stage2) {
    machine.reenter();
    let _ = vm.reap(machine);
    machine.reenter();
    assert!(vm.reap(machine));
}

#[test]
fn single_pages_that_went_leave_tables_to_reclaim() {
    let (machine, vm) = vm();
    for ipa in [0, 2 * MIB, 4 * MIB, GIB] {
        assert_eq!(map_now(&machine, &vm, ipa, 1), Outcome::done(1));
    }
    assert_eq!(machine.allocated.get(), 6);
    for ipa in [0, 4 * MIB, GIB] {
        unmap(&machine, &vm, ipa, 1);
    }
    assert_eq!(machine.allocated.get(), 6, "single pages leave their table");
    let (sequence, before) = (vm.sequence(), all_leaves(&machine, 40, 1));
    machine.take_steps();
    assert_eq!(reclaim(&machine, &vm, 0, 4 * GIB), Outcome::done(1_048_576));
    let steps = machine.take_steps();
    assert!(steps.contains(&Step::Range(0, 512, None)), "by its span, level unknown: {steps:?}");
    assert!(steps.contains(&Step::Range(GIB, 262_144, None)), "the table of tables: {steps:?}");
    assert_eq!(machine.stat(Stat::TablesReclaimed), 4);
    assert_eq!(all_leaves(&machine, 40, 1), before);
    assert_eq!(vm.sequence(), sequence, "no mapping is gone");
    pass(&machine, &vm);
    assert_eq!(machine.allocated.get(), 2);
    unmap(&machine, &vm, 2 * MIB, 1);
    assert_eq!(
        reclaim(&machine, &vm, 2 * MIB, PAGE),
        Outcome::done(1),
        "a page of the span will do"
    );
    pass(&machine, &vm);
    assert_eq!(machine.allocated.get(), 0);
}

#[test]
fn nothing_to_reclaim_costs_nothing() {
    let (machine, vm) = vm();
    let _ = map_now(&machine, &vm, 511 * PAGE, 2);
    machine.take_steps();
    assert_eq!(reclaim(&machine, &vm, 0, 4 * GIB), Outcome::done(1_048_576));
    assert_eq!(machine.take_steps(), []);
    assert_eq!(machine.stat(Stat::TablesReclaimed), 0);
    assert_eq!(machine.allocated.get(), 3);
}

#[test]
fn while_all_slots_are_taken_it_is_refused() {
    let (machine, vm) = vm();
    let _ = map_now(&machine, &vm, 0, 1);
    unmap(&machine, &vm, 0, 1);
    let far = |index: u64| vm.range(Ipa(GIB + index * MIB), 1).unwrap();
    for index in 0..17 {
        let _ = vm.invalidate_begin(&machine, far(index), false, 0, &mut NoDirty);
    }
    assert_eq!(reclaim(&machine, &vm, 0, PAGE), Outcome::stopped(0, Error::Retry));
    assert_eq!(machine.stat(Stat::TablesReclaimed), 0);
    for index in 0..17 {
        let ended = vm.invalidate_end(&machine, far(index), 1, &mut NoDirty);
        assert_eq!(ended, Outcome::done(1), "the hull still has its begins");
    }
    assert_eq!(reclaim(&machine, &vm, 0, PAGE), Outcome::done(1));
    assert_eq!(machine.stat(Stat::TablesReclaimed), 2);
    assert_eq!(map_now(&machine, &vm, 0, 1), Outcome::done(1), "no mark is left");
}

#[test]
fn an_interrupt_is_answered_between_tables() {
    let (machine, vm) = vm();
    for ipa in [0, 2 * MIB] {
        let _ = map_now(&machine, &vm, ipa, 1);
        unmap(&machine, &vm, ipa, 1);
    }
    machine.interrupt_after.set(Some(0));
    assert_eq!(reclaim(&machine, &vm, 0, 4 * MIB), Outcome::done(512));
    assert_eq!(machine.stat(Stat::TablesReclaimed), 1);
    assert_eq!(reclaim(&machine, &vm, 2 * MIB, 2 * MIB), Outcome::done(512));
    assert_eq!(machine.stat(Stat::TablesReclaimed), 3);
}

#[test]
fn who_finds_the_pool_empty_reclaims_and_tries_again() {
    let (machine, vm) = vm();
    for ipa in [0, 5 * MIB, 7 * MIB] {
        let _ = map_now(&machine, &vm, ipa, 1);
    }
    unmap(&machine, &vm, 5 * MIB, 1);
    machine.keep_free(0);
    let before = all_leaves(&machine, 40, 1);
    assert_eq!(map_now(&machine, &vm, 8 * MIB, 1), Outcome::stopped(0, Error::Retry));
    assert_eq!(machine.stat(Stat::TablesReclaimed), 1);
    assert_eq!(all_leaves(&machine, 40, 1), before);
    machine.reenter();
    assert_eq!(map_now(&machine, &vm, 8 * MIB, 1), Outcome::done(1), "by the table of 5 MiB");
    machine.reenter();
    let none = Outcome::stopped(0, Error::NoMemory);
    assert_eq!(map_now(&machine, &vm, 10 * MIB, 1), none, "all that are left are in use");
    assert_eq!(all_leaves(&machine, 40, 1).len(), 3);
}

/// A host whose timer ticks faster than the tree can be searched still gets its answer.
#[test]
fn interrupts_delay_the_answer_that_there_is_no_memory_and_no_more() {
    let (machine, vm) = vm();
    for index in 0..8 {
        assert_eq!(map_now(&machine, &vm, index * 2 * MIB, 1), Outcome::done(1));
    }
    machine.keep_free(0);
    machine.interrupt_after.set(Some(0));
    let none = Outcome::stopped(0, Error::NoMemory);
    let tries = (1..=20_000).find(|_| map_now(&machine, &vm, 16 * MIB, 1) == none);
    assert!(tries.expect("an answer") > 8, "an interrupt stops the search after a step");
    assert_eq!(all_leaves(&machine, 40, 1).len(), 8, "nothing else changed");
}

/// Runs a map until it is neither told to try again nor stopped, and leaves EL2 in between.
fn map_at_last(machine: &Machine, vm: &Stage2, ipa: u64) -> Outcome {
    let retry = Outcome::stopped(0, Error::Retry);
    let attempt = |_| {
        machine.reenter();
        Some(map_now(machine, vm, ipa, 1)).filter(|outcome| *outcome != retry)
    };
    (0..20_000).find_map(attempt).expect("an answer")
}

#[test]
fn a_search_that_was_cut_short_finds_what_became_empty_behind_it() {
    let (machine, vm) = vm();
    for ipa in [0, 100 * MIB] {
        assert_eq!(map_now(&machine, &vm, ipa, 1), Outcome::done(1));
    }
    machine.keep_free(0);
    for round in 0..4 {
        let (taken, wanted) = (round * 2 * MIB, (round + 1) * 2 * MIB);
        machine.interrupt_after.set(Some(0));
        for _ in 0..4 {
            let outcome = map_now(&machine, &vm, wanted, 1);
            assert_eq!(outcome, Outcome::stopped(0, Error::Retry), "stopped after a step");
        }
        machine.interrupt_after.set(None);
        unmap(&machine, &vm, taken, 1);
        machine.interrupt_after.set(Some(0));
        assert_eq!(map_at_last(&machine, &vm, wanted), Outcome::done(1), "round {round}");
    }
}

/// What another CPU may take meanwhile is no reason to give up: a search that has found a table goes around
/// the whole tree once more, also where the table above it stays.
#[test]
fn a_search_that_found_a_table_begins_anew() {
    let (machine, vm) = vm();
    // The last of a table of tables, and the last GiB but one.
    let last = 1023 * GIB - 2 * MIB;
    for ipa in [last - 2 * MIB, last] {
        assert_eq!(map_now(&machine, &vm, ipa, 1), Outcome::done(1));
    }
    unmap(&machine, &vm, last, 1);
    machine.keep_free(0);
    machine.interrupt_after.set(Some(0));
    let retry = Outcome::stopped(0, Error::Retry);
    let found = |_: &u32| {
        assert_eq!(map_now(&machine, &vm, 0, 1), retry);
        machine.stat(Stat::TablesReclaimed) != 0
    };
    assert!((0..20_000).find(found).is_some());
    pass(&machine, &vm);
    machine.keep_free(0);
    for _ in 0..10 {
        assert_eq!(map_now(&machine, &vm, 0, 1), retry, "the rest of the tree is left to search");
    }
    assert_eq!(map_at_last(&machine, &vm, 0), Outcome::stopped(0, Error::NoMemory));
}
