//! Calls that meet on one leaf, where one is done before the other: each says of what it did by itself that
//! it is complete, and of what it found that nothing is lost.
#![cfg(not(loom))]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use support::model::*;
use support::{Machine, Step};
use verdigris_abi::flags::{MAP_CLEAN, PROT_READ};
use verdigris_stage2::{
    Access, Config, DirtySink, FaultKind, Ipa, Level, Map, NoDirty, Outcome, Resolution, Stage2,
};

const IPA: u64 = 0x20_0000;
const PA: u64 = 0x9020_0000;

fn vm() -> (Machine, Rc<Stage2>) {
    let config = Config { fwb: true, dic: true, ttl: true, tlb_range: true, ..Config::default() };
    let (machine, vm) = Machine::with_vm(60, 40, config, &[IPA, IPA + 3 * PAGE]);
    (machine, Rc::new(vm))
}

fn map_now(machine: &Machine, vm: &Stage2, request: Map) {
    let now = Map { sequence: vm.sequence(), ..request };
    assert_eq!(vm.map(machine, &now), Outcome::done(now.page_count));
}

fn write(machine: &Machine, vm: &Stage2, ipa: u64) {
    let answer = vm.resolve_fault(machine, Ipa(ipa), Access::Write, FaultKind::Permission);
    assert_eq!(answer, Resolution::Resolved);
}

/// Harvests the span; tells which of its pages are dirty.
fn harvest(machine: &Machine, vm: &Stage2) -> Vec<u64> {
    let mut dirty = Vec::new();
    let outcome = vm.harvest(machine, vm.range(Ipa(IPA), 512).unwrap(), |index, word| {
        dirty.extend((0..64).filter(|bit| word >> bit & 1 != 0).map(|bit| index as u64 * 64 + bit));
    });
    assert_eq!(outcome, Outcome::done(512));
    dirty
}

/// A harvest that is past a page when that is written and its table becomes a block cleans the block for
/// the page too. It has said that the page is clean: so the next one has to tell.
#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_harvest_keeps_the_writes_to_pages_that_it_has_passed() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(IPA, PA, 512, RW | MAP_CLEAN));
    let other = vm.clone();
    *machine.meanwhile.borrow_mut() = Some(Box::new(move |machine| {
        write(machine, &other, IPA + 3 * PAGE);
        let all = other.range(Ipa(IPA), 512).unwrap();
        assert_eq!(other.collapse(machine, all, Level::L2), Outcome::done(512));
    }));
    let first = harvest(&machine, &vm);
    assert!(machine.meanwhile.borrow().is_none(), "it met the collapse");
    assert_eq!(first, (64..512).collect::<Vec<_>>(), "the rest of the block");
    assert!(harvest(&machine, &vm).contains(&3), "a write is lost");
    assert_eq!(harvest(&machine, &vm), [0; 0], "and told once");
}

/// A set that finds its page in place, and write-protected a moment ago, takes the note that it was dirty.
/// Its caller copies the page: so no write may come after it returned.
#[test]
fn set_waits_for_the_write_protection_whose_note_it_takes() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(IPA, PA, 1, RW));
    let (other, done) = (vm.clone(), Rc::new(Cell::new(false)));
    let is_done = done.clone();
    machine.watch(move |machine, step| {
        if step == Step::DsbIsh && !done.replace(true) {
            let sequence = other.sequence();
            let again = verdigris_stage2::Set { sequence, ..set(IPA, PA, PROT_READ) };
            assert_eq!(other.set(machine, &again), Ok(true), "it was dirty");
            machine.tlb.borrow().as_ref().unwrap().assert_no_writes(IPA, IPA + PAGE);
        }
    });
    assert_eq!(vm.write_protect(&machine, vm.range(Ipa(IPA), 1).unwrap()), Outcome::done(1));
    machine.unwatch();
    assert!(is_done.get());
}

struct Bits(Vec<u64>);

impl DirtySink for Bits {
    fn capacity(&self) -> u64 {
        1024
    }

    fn dirty(&mut self, first: u64, bits: u64) {
        self.0.extend((0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| first + bit));
    }
}

/// With no slot left to park it in, a table gives all its bits at once: so the call goes past it, though
/// an older table of the same pages is still to be drained and an interrupt is pending.
#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn bits_that_came_at_once_are_not_ahead_of_the_progress() {
    let (machine, vm) = vm();
    machine.interrupt_after.set(Some(0));
    for index in 0..8 {
        let ipa = IPA + index * 2 * MIB;
        for part in 0..8 {
            let page = part * 64 * PAGE;
            map_now(&machine, &vm, map(ipa + page, PA + index * 2 * MIB + page, 64, RW));
        }
        let span = vm.range(Ipa(ipa), 512).unwrap();
        assert_eq!(vm.unmap(&machine, span, &mut Bits(Vec::new())), Outcome::done(64));
    }
    map_now(&machine, &vm, map(IPA + 400 * PAGE, PA, 1, RW));
    let span = vm.range(Ipa(IPA), 512).unwrap();
    let mut bits = Bits(Vec::new());
    let Outcome { pages, error } = vm.unmap(&machine, span, &mut bits);
    assert_eq!(error, None);
    bits.0.retain(|&bit| bit >= pages);
    assert_eq!(bits.0, [0; 0], "behind the progress, which is {pages}");
}

/// A block that is being split, and that a larger unmap passes, has its last word still to say: until then
/// its entry is found, so that a harvest waits for it.
#[test]
fn an_unmap_leaves_a_table_in_which_a_split_is_under_way() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, Map { level: Level::L2, ..map(IPA, PA, 512, RW) });
    let (other, done) = (vm.clone(), Rc::new(Cell::new(false)));
    let is_done = done.clone();
    let geometry = vm.root().geometry();
    machine.watch(move |machine, step| {
        if step == Step::DsbIsh && machine.walk(geometry, IPA).is_none() && !done.replace(true) {
            let cpu = machine.cpu.replace(1);
            let all = other.range(Ipa(0), GIB / PAGE).unwrap();
            let mut bits = Bits(Vec::new());
            while other.unmap(machine, all, &mut bits).pages < 1024 {}
            assert_eq!(other.unmap(machine, all, &mut NoDirty), Outcome::done(GIB / PAGE));
            assert_eq!(bits.0, [0; 0]);
            let root = machine.raw(support::TABLES, 0);
            assert_eq!(root & 3, 3, "nobody finds what the split is about to say");
            machine.cpu.set(cpu);
        }
    });
    let span = vm.range(Ipa(IPA), 512).unwrap();
    assert_eq!(vm.split_range(&machine, span, Level::L3), Outcome::done(512));
    machine.unwatch();
    assert!(is_done.get());
    assert_eq!(harvest(&machine, &vm), (0..512).collect::<Vec<_>>());
    let all = vm.range(Ipa(0), GIB / PAGE).unwrap();
    assert_eq!(vm.unmap(&machine, all, &mut NoDirty), Outcome::done(GIB / PAGE));
    assert_eq!(machine.raw(support::TABLES, 0), 0);
}

/// Runs `first` on one CPU, and `second` on another while the invalidation of `first` is under way: no write
/// to the hot pages may be let through once `second` has returned.
fn meets(
    machine: &Machine,
    vm: &Rc<Stage2>,
    first: fn(&Machine, &Stage2),
    second: fn(&Machine, &Stage2),
) {
    let (other, done) = (vm.clone(), Rc::new(Cell::new(false)));
    let is_done = done.clone();
    machine.watch(move |machine, step| {
        if step == Step::DsbIsh && !done.replace(true) {
            let cpu = machine.cpu.replace(1);
            second(machine, &other);
            machine.tlb.borrow().as_ref().unwrap().assert_no_writes(IPA, IPA + 4 * MIB);
            machine.cpu.set(cpu);
        }
    });
    first(machine, vm);
    machine.unwatch();
    assert!(is_done.get(), "they met");
}

fn harvest_64(machine: &Machine, vm: &Stage2) {
    let range = vm.range(Ipa(IPA), 64).unwrap();
    assert_eq!(vm.harvest(machine, range, |_, _| {}), Outcome::done(64));
}

fn protect_64(machine: &Machine, vm: &Stage2) {
    assert_eq!(vm.write_protect(machine, vm.range(Ipa(IPA), 64).unwrap()), Outcome::done(64));
}

fn harvest_blocks(machine: &Machine, vm: &Stage2) {
    let range = vm.range(Ipa(IPA), 1024).unwrap();
    assert_eq!(vm.harvest(machine, range, |_, _| {}), Outcome::done(1024));
}

fn protect_blocks(machine: &Machine, vm: &Stage2) {
    assert_eq!(vm.write_protect(machine, vm.range(Ipa(IPA), 1024).unwrap()), Outcome::done(1024));
}

/// A call that finds pages clean, or protected, because another is just making them so, waits for that
/// invalidation: what its caller copies now is complete.
#[test]
fn who_finds_pages_done_waits_for_the_invalidation() {
    for call in [harvest_64, protect_64] {
        let (machine, vm) = vm();
        map_now(&machine, &vm, map(IPA, PA, 64, RW));
        meets(&machine, &vm, call, call);
    }
}

/// The same with the last 64 of more, after 64 that the call did itself.
#[test]
fn what_the_last_word_was_like_says_nothing_of_the_next() {
    fn harvest_all(machine: &Machine, vm: &Stage2) {
        let range = vm.range(Ipa(IPA - 64 * PAGE), 128).unwrap();
        assert_eq!(vm.harvest(machine, range, |_, _| {}), Outcome::done(128));
    }
    fn protect_all(machine: &Machine, vm: &Stage2) {
        let range = vm.range(Ipa(IPA - 64 * PAGE), 128).unwrap();
        assert_eq!(vm.write_protect(machine, range), Outcome::done(128));
    }
    type Call = fn(&Machine, &Stage2);
    let pairs: [(Call, Call); 2] = [(harvest_64, harvest_all), (protect_64, protect_all)];
    for (first, second) in pairs {
        let (machine, vm) = vm();
        map_now(&machine, &vm, map(IPA - 64 * PAGE, PA - 64 * PAGE, 128, RW));
        meets(&machine, &vm, first, second);
    }
}

#[test]
fn who_finds_blocks_done_waits_for_the_invalidation() {
    for call in [harvest_blocks, protect_blocks] {
        let (machine, vm) = vm();
        map_now(&machine, &vm, Map { level: Level::L2, ..map(IPA, PA, 1024, RW) });
        meets(&machine, &vm, call, call);
    }
}

/// An unmap that finds no table where another has just unlinked one is not done before that one's
/// invalidation: its caller gives the memory away.
#[test]
fn who_finds_a_table_gone_waits_for_the_invalidation() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(IPA, PA, 512, RW));
    meets(&machine, &vm, unmap_512, |machine, vm| {
        unmap_512(machine, vm);
        machine.tlb.borrow().as_ref().unwrap().assert_unreachable(machine, IPA, 2 * MIB, PA);
    });
}

fn unmap_512(machine: &Machine, vm: &Stage2) {
    let all = vm.range(Ipa(IPA), 512).unwrap();
    while vm.unmap(machine, all, &mut NoDirty) != Outcome::done(512) {}
}

/// A harvest that has cleaned a block further on when one before it is split says it all the same, and of no
/// other block.
#[test]
fn a_harvest_keeps_what_it_found_behind_a_block_that_is_split() {
    let (machine, vm) = vm();
    let pages = 16 * 512;
    map_now(&machine, &vm, Map { level: Level::L2, ..map(IPA, PA, pages, RW | MAP_CLEAN) });
    write(&machine, &vm, IPA + 9 * 2 * MIB);
    let other = vm.clone();
    // Two looks at groups for where the blocks end, then those for what is left of them.
    let split: support::Meanwhile = Box::new(move |machine| {
        let fifth = other.range(Ipa(IPA + 5 * 2 * MIB), 512).unwrap();
        assert_eq!(other.split_range(machine, fifth, Level::L3), Outcome::done(512));
    });
    *machine.before_look.borrow_mut() = Some((3, split));
    let mut dirty = Vec::new();
    for _ in 0..2 {
        let range = vm.range(Ipa(IPA), pages).unwrap();
        let outcome = vm.harvest(&machine, range, |index, word| {
            let bits = (0..64).filter(|bit| word >> bit & 1 != 0);
            dirty.extend(bits.map(|bit| index as u64 * 64 + bit));
        });
        assert_eq!(outcome, Outcome::done(pages));
    }
    assert!(machine.before_look.borrow().is_none(), "it met the split");
    assert_eq!(dirty, (9 * 512..10 * 512).collect::<Vec<_>>());
}
