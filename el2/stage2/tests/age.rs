//! Ageing: which bits come back, what is cleared, what is invalidated, and what the epoch counts.
#![cfg(not(loom))]

mod support;

use support::model::*;
use support::{Machine, Step};
use verdigris_stage2::{AgeFlush, Config, Ipa, Level, Map, NoDirty, Outcome, Stage2, Stat};

const OLD: u64 = verdigris_abi::flags::MAP_OLD;

fn vm() -> (Machine, Stage2) {
    let config = Config { fwb: true, dic: true, ttl: true, ..Config::default() };
    Machine::with_vm(40, 40, config, &[0x1000, 0x2000, 0x20_0000])
}

fn age(machine: &Machine, vm: &Stage2, ipa: u64, page_count: u64, flush: AgeFlush) -> Vec<u64> {
    let mut words = Vec::new();
    let range = vm.range(Ipa(ipa), page_count).unwrap();
    let outcome = vm.age(machine, range, flush, |index, word| {
        assert_eq!(index, words.len(), "words come in order");
        words.push(word);
    });
    assert_eq!(outcome, Outcome::done(page_count));
    words
}

fn test_age(machine: &Machine, vm: &Stage2, ipa: u64, page_count: u64) -> Vec<u64> {
    let mut words = Vec::new();
    let range = vm.range(Ipa(ipa), page_count).unwrap();
    let outcome = vm.test_age(machine, range, |_, word| words.push(word));
    assert_eq!(outcome, Outcome::done(page_count));
    words
}

#[test]
fn reports_and_clears_what_was_touched() {
    let (machine, vm) = vm();
    let geometry = vm.root().geometry();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 4, RW | OLD));
    assert!(machine.touch(geometry, 0x2abc) && machine.touch(geometry, 0x4000));
    let before: Vec<u64> =
        (1..5).map(|page| machine.walk(geometry, page * PAGE).unwrap().0).collect();
    assert_eq!(age(&machine, &vm, 0, 8, AgeFlush::None), [0b0001_0100]);
    for (page, raw) in (1..5).zip(before) {
        let after = machine.walk(geometry, page * PAGE).unwrap().0;
        assert_eq!(after, raw & !YOUNG, "nothing but bit 10 changed");
    }
    assert_eq!(age(&machine, &vm, 0, 8, AgeFlush::None), [0]);
    assert_eq!(machine.stat(Stat::Ages), 2);
    assert_eq!(machine.stat(Stat::LeavesYoung), 2);
}

#[test]
fn testing_changes_nothing_and_is_one_page_wide() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    let _ = vm.map(&machine, &map(0x2000, 0x8000_1000, 1, RW | OLD));
    machine.take_steps();
    let before = all_leaves(&machine, 40, 1);
    assert_eq!(test_age(&machine, &vm, 0x1000, 1), [1]);
    assert_eq!(test_age(&machine, &vm, 0x2000, 1), [0]);
    assert_eq!(test_age(&machine, &vm, 0x1000, 1), [1]);
    assert_eq!(test_age(&machine, &vm, 0, 3), [0b010]);
    assert_eq!(all_leaves(&machine, 40, 1), before);
    assert_eq!(machine.take_steps(), []);
    assert_eq!(machine.stat(Stat::AgeTests), 4);
}

#[test]
fn words_cross_tables_and_holes() {
    let (machine, vm) = vm();
    // Pages 500..524, across the end of a table, in a range that begins at page 450.
    let _ = vm.map(&machine, &map(500 * PAGE, 0x8000_0000, 24, RW));
    let words = age(&machine, &vm, 450 * PAGE, 1000, AgeFlush::None);
    assert_eq!(words.len(), 16);
    assert_eq!(words[0], u64::MAX << 50, "pages 500..514 are bits 50..64");
    assert_eq!(words[1], (1 << 10) - 1);
    assert!(words[2..].iter().all(|&word| word == 0));
    assert_eq!(machine.stat(Stat::LeavesYoung), 24);
}

#[test]
fn a_block_counts_as_each_of_its_pages() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 4 * MIB, Level::L2));
    let words = age(&machine, &vm, 0x20_0000, 1100, AgeFlush::None);
    assert_eq!(words[..16], [u64::MAX; 16]);
    assert_eq!(words[16..], [0; 2]);
    assert_eq!(machine.stat(Stat::LeavesYoung), 2);
    assert_eq!(machine.stat(Stat::LeavesVisited), 2, "a block is one leaf");
    machine.touch(vm.root().geometry(), 0x40_0000);
    let words = age(&machine, &vm, 0x20_3000, 1024, AgeFlush::None);
    let (last, rest) = words.split_last().unwrap();
    assert_eq!(words[..7], [0; 7]);
    assert_eq!(words[7], u64::MAX << 61, "the second block begins at page 509 of the range");
    assert_eq!(rest[8..], [u64::MAX; 7]);
    assert_eq!(*last, (1 << 61) - 1, "and ends three pages before the range");
    assert_eq!(age(&machine, &vm, 0x20_0000, 1024, AgeFlush::None), [0; 16]);
}

#[test]
fn an_interrupt_waits_for_what_is_known_of_blocks() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 132 * MIB, Level::L2));
    machine.interrupt_after.set(Some(0));
    let mut words = Vec::new();
    let range = vm.range(Ipa(0x20_0000), 66 * 512).unwrap();
    let outcome = vm.age(&machine, range, AgeFlush::None, |_, word| words.push(word));
    assert_eq!(outcome, Outcome::done(64 * 512), "64 leaves between two looks at interrupts");
    assert_eq!(words, [u64::MAX; 512]);
    machine.interrupt_after.set(None);
    let words = age(&machine, &vm, 0x20_0000, 66 * 512, AgeFlush::None);
    assert_eq!(words[..512], [0; 512]);
    assert_eq!(words[512..], [u64::MAX; 16]);
    assert_eq!(machine.stat(Stat::LeavesYoung), 66);
}

#[test]
fn progress_is_in_whole_words() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0, 0x8000_0000, 300, RW));
    machine.interrupt_after.set(Some(1));
    let mut words = Vec::new();
    let range = vm.range(Ipa(0), 300).unwrap();
    let outcome = vm.age(&machine, range, AgeFlush::All, |_, word| words.push(word));
    assert_eq!(outcome, Outcome::done(128));
    assert_eq!(words, [u64::MAX; 2]);
    assert_eq!(machine.stat(Stat::TlbiVmid), 1, "complete for the pages done");
    machine.interrupt_after.set(None);
    assert_eq!(test_age(&machine, &vm, 128 * PAGE, 64), [u64::MAX]);
}

#[test]
fn without_a_flush_nothing_is_invalidated() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    machine.take_steps();
    age(&machine, &vm, 0, 8, AgeFlush::None);
    assert_eq!(machine.take_steps(), [Step::DsbIshst], "the end of the pass, for the epoch");
    age(&machine, &vm, 0, 8, AgeFlush::None);
    assert_eq!(machine.take_steps(), [], "nothing young: no pass");
}

#[test]
fn a_targeted_flush_names_what_was_young() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 3, RW));
    let _ = vm.map(&machine, &map(0x8000, 0x8001_0000, 3, RW | OLD));
    let _ = vm.map(&machine, &map_blocks(0x40_0000, 0x9000_0000, 2 * MIB, Level::L2));
    machine.take_steps();
    age(&machine, &vm, 0, 2048, AgeFlush::Young);
    let page = |ipa| Step::Ipa(ipa, Some(3));
    assert_eq!(
        machine.take_steps(),
        [
            Step::DsbIshst,
            Step::DsbIsh,
            Step::Enter,
            page(0x1000),
            page(0x2000),
            page(0x3000),
            Step::Ipa(0x40_0000, Some(2)),
            Step::DsbIsh,
            Step::Stage1,
            Step::DsbIsh,
            Step::Isb,
            Step::Leave,
        ]
    );
    assert!(machine.tlb.borrow().as_ref().unwrap().is_empty());
}

#[test]
fn many_young_leaves_are_flushed_with_the_vm() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0, 0x8000_0000, 65, RW));
    age(&machine, &vm, 0, 65, AgeFlush::Young);
    assert_eq!((machine.stat(Stat::TlbiVmid), machine.stat(Stat::TlbiIpa)), (1, 0));
    // Few, but in more places than are remembered.
    for place in 0..65 {
        let request = map((128 + 64 * place) * PAGE, 0x8100_0000, 1, RW);
        assert_eq!(vm.map(&machine, &request), Outcome::done(1));
    }
    age(&machine, &vm, 0, 8192, AgeFlush::Young);
    assert_eq!((machine.stat(Stat::TlbiVmid), machine.stat(Stat::TlbiIpa)), (2, 0));
}

#[test]
fn a_flush_of_all_is_one_and_only_if_something_was_young() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0, 0x8000_0000, 300, RW));
    age(&machine, &vm, 0, 300, AgeFlush::All);
    assert_eq!(machine.stat(Stat::TlbiVmid), 1);
    assert!(machine.tlb.borrow().as_ref().unwrap().is_empty());
    age(&machine, &vm, 0, 300, AgeFlush::All);
    assert_eq!(machine.stat(Stat::TlbiVmid), 1);
}

#[test]
fn a_touch_behind_a_cached_translation_is_hidden_until_a_flush() {
    let (machine, vm) = vm();
    let geometry = vm.root().geometry();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    age(&machine, &vm, 0x1000, 1, AgeFlush::None);
    let cached = || !machine.tlb.borrow().as_ref().unwrap().is_empty();
    assert!(cached(), "a touch would go through the TLB and leave no trace");
    assert_eq!(age(&machine, &vm, 0x1000, 1, AgeFlush::None), [0]);
    vm.flush_all(&machine);
    assert!(!cached());
    machine.touch(geometry, 0x1000);
    assert_eq!(age(&machine, &vm, 0x1000, 1, AgeFlush::None), [1]);
}

#[test]
fn old_leaves_are_mapped_old_and_unmapped_with_their_last_flag() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 2, RW | OLD));
    machine.touch(vm.root().geometry(), 0x2000);
    let _ = vm.unmap(&machine, vm.range(Ipa(0x1000), 2).unwrap(), &mut NoDirty);
    let flags: Vec<bool> = machine.take_removed().iter().map(|leaf| leaf.old.is_young()).collect();
    assert_eq!(flags, [false, true]);
    let request = Map { level: Level::L2, sequence: vm.sequence(), ..map(0x20_0000, 0, 512, RW) };
    assert_eq!(vm.map(&machine, &request), Outcome::done(512));
}
