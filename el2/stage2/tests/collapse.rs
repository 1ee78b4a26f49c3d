//! Collapse: a full table becomes the block that it was, or nothing changes.
#![cfg(not(loom))]

mod support;

use std::rc::Rc;
use support::model::*;
use support::{Machine, Step};
use verdigris_stage2::{
    Access, Config, Error, FaultKind, Ipa, Level, NoDirty, Outcome, Range, Resolution, Stage2, Stat,
};

const HOT: &[u64] = &[0, 0x20_0000, 0x3f_f000, 0x40_0000, GIB, GIB + 5 * MIB];
/// The span that most tests collapse, and the memory behind it.
const IPA: u64 = 0x20_0000;
const PA: u64 = 0x9020_0000;

fn config() -> Config {
    Config { fwb: true, dic: true, ttl: true, tlb_range: true, ..Config::default() }
}

fn vm() -> (Machine, Stage2) {
    Machine::with_vm(60, 40, config(), HOT)
}

/// A VM with a full table.
fn full() -> (Machine, Stage2) {
    let (machine, vm) = vm();
    assert_eq!(vm.map(&machine, &map(IPA, PA, 512, RW)), Outcome::done(512));
    machine.take_steps();
    (machine, vm)
}

fn collapse(machine: &Machine, vm: &Stage2, ipa: u64, bytes: u64, level: Level) -> Outcome {
    vm.collapse(machine, vm.range(Ipa(ipa), bytes / PAGE).unwrap(), level)
}

fn split(machine: &Machine, vm: &Stage2, ipa: u64, bytes: u64, level: Level) -> Outcome {
    vm.split_range(machine, vm.range(Ipa(ipa), bytes / PAGE).unwrap(), level)
}

fn leaves(machine: &Machine) -> Vec<(u64, u64, u32)> {
    all_leaves(machine, 40, 1)
}

/// Everything that a refused call may not change.
fn state(machine: &Machine, vm: &Stage2) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut shares: Vec<_> = machine.shares.borrow().iter().map(|(k, v)| (*k, *v)).collect();
    shares.sort_unstable();
    let stats =
        [Stat::PagesMapped, Stat::LeavesUnmapped, Stat::LeavesMapped, Stat::BlocksCollapsed];
    let stats = stats.map(|stat| machine.stat(stat));
    (leaves(machine), shares, machine.allocated.get(), stats, vm.sequence())
}

fn assert_refused(machine: &Machine, vm: &Stage2, expected: Outcome) {
    let before = state(machine, vm);
    machine.take_steps();
    assert_eq!(collapse(machine, vm, IPA, 2 * MIB, Level::L2), expected);
    assert_eq!(state(machine, vm), before);
    assert_eq!(machine.take_steps(), [], "nothing was invalidated");
}

#[test]
fn a_full_table_becomes_a_block_by_break_and_make() {
    let (machine, vm) = full();
    let sequence = vm.sequence();
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L2), Outcome::done(512));
    assert_eq!(
        machine.take_steps(),
        [
            Step::DsbIsh,
            Step::Enter,
            Step::Range(IPA, 512, None),
            Step::DsbIsh,
            Step::Stage1,
            Step::DsbIsh,
            Step::Isb,
            Step::Leave,
            Step::DsbIshst,
            Step::Isb,
        ]
    );
    assert_eq!(leaves(&machine), [(IPA, PA | forced(DATA) | 1, 2)]);
    assert_eq!(*machine.shares.borrow(), [((PA, 2), 1)].into());
    assert!(machine.take_removed().is_empty(), "nothing was unmapped");
    assert_eq!(machine.stat(Stat::BlocksCollapsed), 1);
    assert_eq!(machine.stat(Stat::LeavesUnmapped), 0);
    assert_eq!(vm.sequence(), sequence, "what the host looked up is as good as before");
    machine.reenter();
    vm.reap(&machine);
    machine.reenter();
    assert!(vm.reap(&machine));
    assert_eq!(machine.allocated.get(), 1, "the table of tables");
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_gigabyte_goes_down_to_pages_and_comes_back() {
    for bbm2 in [false, true] {
        let (machine, vm) = Machine::with_vm(60, 40, Config { bbm2, ..config() }, HOT);
        let _ = vm.map(&machine, &map_blocks(GIB, GIB, GIB, Level::L1));
        let before = leaves(&machine);
        assert_eq!(split(&machine, &vm, GIB, GIB, Level::L2), Outcome::done(262_144));
        assert_eq!(split(&machine, &vm, GIB + 4 * MIB, 4 * MIB, Level::L3), Outcome::done(1024));
        assert_eq!(leaves(&machine).len(), 510 + 1024);
        let too_early = collapse(&machine, &vm, GIB, GIB, Level::L1);
        assert_eq!(too_early, Outcome::stopped(0, Error::Exists), "two are tables still");
        assert_eq!(collapse(&machine, &vm, GIB, GIB, Level::L2), Outcome::done(262_144));
        assert_eq!(leaves(&machine).len(), 512);
        assert_eq!(collapse(&machine, &vm, GIB, GIB, Level::L1), Outcome::done(262_144));
        assert_eq!(leaves(&machine), before);
        assert_eq!(machine.stat(Stat::BlocksSplit), 3);
        assert_eq!(machine.stat(Stat::BlocksCollapsed), 3);
        assert_eq!(*machine.shares.borrow(), [((GIB, 1), 1)].into());
        assert_eq!(machine.stat(Stat::PagesMapped), 262_144, "all the time");
        assert_eq!(collapse(&machine, &vm, GIB, 2 * MIB, Level::L2), Outcome::done(512), "larger");
    }
}

/// Expected bits of a leaf, by what the test does to make it: without forced write-back's MemAttr.
const CLEAN: u64 = DATA & !(1 << 7);
const READ_ONLY: u64 = DATA & !WRITE;
const WRITTEN: u64 = READ_ONLY | 1 << 56;

/// Brings pages into each state that a leaf can be in; returns the bits that they must have.
fn prepare(machine: &Machine, vm: &Stage2, pages: Range, state: usize, level: Level) -> u64 {
    use verdigris_abi::flags::{MAP_CLEAN, MAP_OLD, PROT_READ};
    let (young, kind) = (state.is_multiple_of(2), state / 2);
    let flags = [RW, RW | MAP_CLEAN, PROT_READ, RW][kind] | if young { 0 } else { MAP_OLD };
    let ipa = pages.start * PAGE;
    let request = verdigris_stage2::Map {
        level,
        sequence: vm.sequence(),
        ..map(ipa, PA - IPA + ipa, pages.page_count(), flags)
    };
    assert_eq!(vm.map(machine, &request), Outcome::done(pages.page_count()));
    if kind == 3 {
        assert_eq!(vm.write_protect(machine, pages), Outcome::done(pages.page_count()));
    }
    let bits = forced([DATA, CLEAN, READ_ONLY, WRITTEN][kind]);
    if young { bits } else { bits & !YOUNG }
}

const fn pages(ipa: u64, count: u64) -> Range {
    Range { start: ipa / PAGE, end: ipa / PAGE + count }
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_split_gives_every_part_the_history_of_the_block() {
    for state in 0..8 {
        for bbm2 in [false, true] {
            let (machine, vm) = Machine::with_vm(60, 40, Config { bbm2, ..config() }, HOT);
            let bits = prepare(&machine, &vm, pages(IPA, 512), state, Level::L2);
            assert_eq!(leaves(&machine), [(IPA, PA | bits | 1, 2)]);
            assert_eq!(split(&machine, &vm, IPA, PAGE, Level::L3), Outcome::done(1));
            for (index, leaf) in leaves(&machine).into_iter().enumerate() {
                let offset = index as u64 * PAGE;
                assert_eq!(leaf, (IPA + offset, (PA + offset) | bits | 3, 3), "state {state}");
            }
        }
    }
}

/// Every pair of states, one page against the rest: what of them is history adds up, and what isn't has
/// to be the same.
#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_collapse_adds_the_histories_of_all_parts() {
    for rest in 0..8 {
        for one in 0..8 {
            let (machine, vm) = vm();
            let at = 1 + (rest * 8 + one) as u64 % 511;
            let first = prepare(&machine, &vm, pages(IPA, at), rest, Level::L3);
            let other = prepare(&machine, &vm, pages(IPA + at * PAGE, 1), one, Level::L3);
            let after = pages(IPA + (at + 1) * PAGE, 511 - at);
            if after.page_count() != 0 {
                prepare(&machine, &vm, after, rest, Level::L3);
            }
            // Granted pages don't go with read-only ones.
            if (rest < 4) != (one < 4) {
                assert_refused(&machine, &vm, Outcome::stopped(0, Error::Exists));
                continue;
            }
            assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L2), Outcome::done(512));
            assert_eq!(leaves(&machine), [(IPA, PA | first | other | 1, 2)], "{rest} and {one}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn what_the_hardware_does_up_to_the_invalidation_is_in_the_block() {
    use verdigris_abi::flags::MAP_OLD;
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(IPA, PA, 512, RW | MAP_OLD));
    let geometry = vm.root().geometry();
    let table = machine.raw(machine.raw(support::TABLES, 0) & 0xffff_ffff_f000, 1) & !0xfff;
    machine.watch(move |machine, step| {
        if step == Step::DsbIsh && machine.walk(geometry, IPA).is_none() {
            // A walk that found the table before it was broken off.
            let _ = machine.entry(table, 77).set_young(Level::L3);
        }
    });
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L2), Outcome::done(512));
    machine.unwatch();
    assert_eq!(leaves(&machine), [(IPA, PA | forced(DATA) | 1, 2)]);
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn what_is_no_block_stays_as_it_is() {
    use verdigris_abi::flags::PROT_READ;
    let exists = Outcome::stopped(0, Error::Exists);
    // Nothing there, a hole at the end, other memory at the end, memory out of line, other rights.
    let (machine, vm) = vm();
    assert_refused(&machine, &vm, exists);
    let _ = vm.map(&machine, &map(IPA, PA, 511, RW));
    assert_refused(&machine, &vm, exists);
    let last = |pa, flags| map(IPA + 511 * PAGE, pa, 1, flags);
    for (pa, flags) in
        [(PA + 512 * PAGE, RW), (PA, RW), (PA + 511 * PAGE, PROT_READ), (PA + 511 * PAGE, RWX)]
    {
        let sequence = vm.sequence();
        let request = verdigris_stage2::Map { sequence, ..last(pa, flags) };
        assert_eq!(vm.map(&machine, &request), Outcome::done(1));
        assert_refused(&machine, &vm, exists);
        let _ = vm.unmap(&machine, vm.range(Ipa(IPA + 511 * PAGE), 1).unwrap(), &mut NoDirty);
    }
    let (machine, vm) = Machine::with_vm(60, 40, config(), HOT);
    let _ = vm.map(&machine, &map(IPA, PA + PAGE, 512, RW));
    assert_refused(&machine, &vm, exists);
}

#[test]
fn bad_requests_are_refused() {
    let (machine, vm) = full();
    let invalid = Outcome::stopped(0, Error::Invalid);
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L3), invalid);
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L1), invalid);
    assert_eq!(collapse(&machine, &vm, IPA, MIB, Level::L2), invalid);
    assert_eq!(collapse(&machine, &vm, IPA + PAGE, 2 * MIB, Level::L2), invalid);
    assert_eq!(collapse(&machine, &vm, 0, 2 * MIB, Level::L0), invalid);
    let (machine, vm) = Machine::with_vm(60, 40, Config::default(), HOT);
    let too_large = Outcome::stopped(0, Error::NotSupported);
    assert_eq!(collapse(&machine, &vm, 0, GIB, Level::L1), too_large);
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn without_a_share_of_the_block_nothing_changes() {
    let (machine, vm) = full();
    machine.owned_below.set(PA);
    assert_refused(&machine, &vm, Outcome::stopped(0, Error::NotOwner));
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn an_invalidation_under_way_refuses_it() {
    let (machine, vm) = full();
    // Of a page that isn't in the span's table: the mark alone is in the way.
    let range = vm.range(Ipa(IPA - PAGE), 2).unwrap();
    let _ = vm.invalidate_begin(&machine, range, false, 2, &mut NoDirty);
    assert_refused(&machine, &vm, Outcome::stopped(0, Error::Retry));
    let _ = vm.invalidate_end(&machine, range, 2, &mut NoDirty);
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L2), Outcome::done(512));
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn while_all_slots_are_taken_it_is_refused() {
    let (machine, vm) = full();
    let far = |index: u64| vm.range(Ipa(GIB + index * MIB), 1).unwrap();
    for index in 0..17 {
        let _ = vm.invalidate_begin(&machine, far(index), false, 0, &mut NoDirty);
    }
    assert_refused(&machine, &vm, Outcome::stopped(0, Error::Retry));
    for index in 0..17 {
        let _ = vm.invalidate_end(&machine, far(index), 1, &mut NoDirty);
    }
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L2), Outcome::done(512));
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn an_interrupt_is_answered_between_blocks() {
    let (machine, vm) = full();
    let _ = vm.map(&machine, &map(IPA + 2 * MIB, PA + 2 * MIB, 512, RW));
    machine.interrupt_after.set(Some(0));
    assert_eq!(collapse(&machine, &vm, IPA, 4 * MIB, Level::L2), Outcome::done(512));
    assert_eq!(leaves(&machine).len(), 513);
    assert_eq!(collapse(&machine, &vm, IPA + 2 * MIB, 2 * MIB, Level::L2), Outcome::done(512));
    assert_eq!(leaves(&machine).len(), 2);
    // The same for a split.
    let all = vm.range(Ipa(IPA), 1024).unwrap();
    assert_eq!(vm.split_range(&machine, all, Level::L3), Outcome::done(512));
    assert_eq!(leaves(&machine).len(), 513);
}

/// Does something on another CPU once, when the span is broken.
fn when_broken(machine: &Machine, vm: &Rc<Stage2>, act: impl Fn(&Machine, &Stage2) + 'static) {
    let (vm, geometry) = (vm.clone(), vm.root().geometry());
    let done = std::cell::Cell::new(false);
    machine.watch(move |machine, step| {
        let broken = step == Step::DsbIsh && machine.walk(geometry, IPA).is_none();
        if broken && !done.replace(true) {
            let cpu = machine.cpu.replace(1);
            act(machine, &vm);
            machine.cpu.set(cpu);
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn faults_meanwhile_are_run_again() {
    let (machine, vm) = full();
    let vm = Rc::new(vm);
    when_broken(&machine, &vm, |machine, vm| {
        for (access, kind) in [
            (Access::Read, FaultKind::Translation),
            (Access::Read, FaultKind::AccessFlag),
            (Access::Write, FaultKind::Permission),
        ] {
            let answer = vm.resolve_fault(machine, Ipa(IPA + 5 * PAGE), access, kind);
            assert_eq!(answer, Resolution::Spurious);
        }
        let again = verdigris_stage2::Map { sequence: vm.sequence(), ..map(IPA, PA, 1, RW) };
        assert_eq!(vm.map(machine, &again), Outcome::stopped(0, Error::Retry));
    });
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L2), Outcome::done(512));
    assert_eq!(machine.stat(Stat::FaultSpurious), 3);
    assert_eq!(machine.shares.borrow().len(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn an_invalidation_that_comes_between_unmaps_all_and_loses_no_dirty_bit() {
    let (machine, vm) = full();
    let clean = vm.range(Ipa(IPA), 3).unwrap();
    let _ = vm.harvest(&machine, clean, |_, word| assert_eq!(word, 0b111));
    let vm = Rc::new(vm);
    when_broken(&machine, &vm, |machine, vm| {
        let range = vm.range(Ipa(IPA + 9 * PAGE), 1).unwrap();
        assert_eq!(vm.unmap(machine, range, &mut NoDirty), Outcome::done(1));
    });
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L2), Outcome::done(512));
    machine.unwatch();
    assert!(leaves(&machine).is_empty());
    assert!(machine.shares.borrow().is_empty());
    assert_eq!(machine.take_removed().len(), 512, "each is reported");
    assert_eq!(machine.stat(Stat::LeavesUnmapped), 512);
    assert_eq!(machine.stat(Stat::PagesMapped), 0);
    assert_eq!(machine.stat(Stat::BlocksCollapsed), 0);
    let mut dirty = Vec::new();
    let _ = vm.harvest(&machine, vm.range(Ipa(IPA), 128).unwrap(), |_, word| dirty.push(word));
    assert_eq!(dirty, [!0b111, u64::MAX], "all but what was clean, though nothing is mapped");
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn parts_that_come_to_differ_are_linked_again() {
    let (machine, vm) = full();
    let geometry = vm.root().geometry();
    let table = machine.raw(machine.raw(support::TABLES, 0) & 0xffff_ffff_f000, 1) & !0xfff;
    machine.watch(move |machine, step| {
        if step == Step::DsbIsh && machine.walk(geometry, IPA).is_none() {
            // A write-protection that had found the table before.
            let protect = |old: verdigris_stage2::Descriptor| Some(old.write_protected());
            machine.entry(table, 300).update_leaf(Level::L3, protect).unwrap();
        }
    });
    let retry = Outcome::stopped(0, Error::Retry);
    assert_eq!(collapse(&machine, &vm, IPA, 2 * MIB, Level::L2), retry);
    machine.unwatch();
    for (index, leaf) in leaves(&machine).into_iter().enumerate() {
        let offset = index as u64 * PAGE;
        let bits = if index == 300 { READ_ONLY } else { DATA };
        assert_eq!(leaf, (IPA + offset, (PA + offset) | forced(bits) | 3, 3));
    }
    assert_eq!(machine.shares.borrow().len(), 512);
    assert!(machine.take_removed().is_empty());
    let again = verdigris_stage2::Map { sequence: vm.sequence(), ..map(IPA, PA, 512, RW) };
    assert_eq!(vm.map(&machine, &again), Outcome::done(512), "no mark is left");
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn what_is_a_block_already_costs_nothing() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(IPA, PA, 4 * MIB, Level::L2));
    machine.take_steps();
    assert_eq!(collapse(&machine, &vm, IPA, 4 * MIB, Level::L2), Outcome::done(1024));
    assert_eq!(machine.take_steps(), []);
}
