//! Unmap and invalidate: nothing left in table or TLB, each leaf reported once, tables given back.
#![cfg(not(loom))]

mod support;

use support::model::*;
use support::{Machine, Step};
use verdigris_stage2::{Config, DirtySink, Error, Ipa, Level, NoDirty, Outcome, Stage2, Stat};

const HOT: &[u64] = &[0, 0x1000, 0x5000, 0x20_0000, 0x3f_f000, 0x40_0000, GIB, GIB + 5 * MIB];

fn vm_with(config: Config) -> (Machine, Stage2) {
    Machine::with_vm(60, 40, config, HOT)
}

fn vm() -> (Machine, Stage2) {
    vm_with(Config { fwb: true, dic: true, ttl: true, ..Config::default() })
}

/// Tells whether both root pages hold nothing but zeroes.
fn all_empty(machine: &Machine) -> bool {
    let root = support::TABLES;
    (0..512).all(|index| machine.raw(root, index) | machine.raw(root + 4096, index) == 0)
}

fn unmap(machine: &Machine, vm: &Stage2, ipa: u64, page_count: u64) -> Outcome {
    vm.unmap(machine, vm.range(Ipa(ipa), page_count).unwrap(), &mut NoDirty)
}

#[test]
fn a_page_is_reported_after_its_invalidation() {
    let (machine, vm) = vm_with(Config { ttl: true, repeat: true, ..Config::default() });
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 2, RW));
    machine.take_steps();
    assert_eq!(unmap(&machine, &vm, 0x1000, 1), Outcome::done(1));
    assert_eq!(
        machine.take_steps(),
        [
            Step::DsbIsh,
            Step::Enter,
            Step::Ipa(0x1000, Some(3)),
            Step::DsbIsh,
            Step::Stage1,
            Step::DsbIsh,
            Step::Repeat,
            Step::Isb,
            Step::Leave,
            Step::CleanInvalidate(0x8000_0000, 4096),
            Step::Removed(0x1000),
        ]
    );
    let removed = machine.take_removed();
    assert_eq!(removed.len(), 1);
    assert_eq!((removed[0].pa.0, removed[0].level), (0x8000_0000, Level::L3));
    assert_eq!(removed[0].old.raw(), 0x8000_0000 | DATA | 3);
    let geometry = vm.root().geometry();
    assert_eq!(machine.walk(geometry, 0x1000), None);
    assert_eq!(machine.walk(geometry, 0x2000), Some((0x8000_1000 | DATA | 3, 3)));
    assert_eq!(machine.shares.borrow().len(), 1);
    assert_eq!(machine.stat(Stat::LeavesUnmapped), 1);
}

#[test]
fn only_what_was_there_is_invalidated() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    let _ = vm.map(&machine, &map(0x5000, 0x8000_1000, 2, RW));
    machine.take_steps();
    assert_eq!(unmap(&machine, &vm, 0, 32), Outcome::done(32));
    let by_ipa: Vec<Step> =
        machine.take_steps().into_iter().filter(|step| matches!(step, Step::Ipa(..))).collect();
    let page = |ipa| Step::Ipa(ipa, Some(3));
    assert_eq!(by_ipa, [page(0x1000), page(0x5000), page(0x6000)]);
    assert_eq!(unmap(&machine, &vm, 0, 32), Outcome::done(32));
    assert_eq!(machine.take_steps(), [], "nothing was there, nobody is at it");
}

#[test]
fn ranges_are_used_where_the_cpu_has_them() {
    let config = Config { fwb: true, ttl: true, tlb_range: true, ..Config::default() };
    let (machine, vm) = vm_with(config);
    let _ = vm.map(&machine, &map(0, 0x8000_0000, 9, RW));
    machine.take_steps();
    assert_eq!(unmap(&machine, &vm, 0, 9), Outcome::done(9));
    assert!(machine.take_steps().contains(&Step::Range(0, 9, Some(3))));
    assert_eq!(machine.stat(Stat::TlbiRange), 1);
    assert_eq!(machine.stat(Stat::TlbiIpa), 0);
}

#[test]
fn no_level_is_named_without_the_feature() {
    let (machine, vm) = vm_with(Config { fwb: true, ..Config::default() });
    let _ = vm.map(&machine, &map(0, 0x8000_0000, 1, RW));
    machine.take_steps();
    let _ = unmap(&machine, &vm, 0, 1);
    assert!(machine.take_steps().contains(&Step::Ipa(0, None)));
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_table_inside_the_range_is_unlinked_and_freed_later() {
    let (machine, vm) = vm();
    machine.presence.borrow_mut()[2] = 7;
    let _ = vm.map(&machine, &map(0x20_0000, 0x8000_0000, 512, RW));
    assert_eq!(machine.allocated.get(), 2);
    machine.take_steps();
    assert_eq!(unmap(&machine, &vm, 0x20_0000, 512), Outcome::done(512));
    let steps = machine.take_steps();
    let vmids = steps.iter().filter(|&&step| step == Step::Vmid).count();
    assert_eq!(vmids, 1, "512 pages, level unknown: beyond the threshold");
    assert_eq!(machine.take_removed().len(), 512);
    assert!(machine.shares.borrow().is_empty());
    assert_eq!(machine.allocated.get(), 2, "in limbo");
    assert!(!vm.reap(&machine), "this CPU and CPU 2 are inside: the snapshot says so");
    machine.reenter();
    assert!(!vm.reap(&machine), "CPU 2 hasn't left");
    machine.presence.borrow_mut()[2] = 8;
    assert!(vm.reap(&machine));
    assert_eq!(machine.allocated.get(), 1, "the table of tables wasn't inside the range");
}

#[test]
fn a_cpu_that_left_and_came_back_holds_nothing() {
    let (machine, vm) = vm();
    machine.presence.borrow_mut()[2] = 7;
    let _ = vm.map(&machine, &map(0x20_0000, 0x8000_0000, 1, RW));
    let _ = unmap(&machine, &vm, 0x20_0000, 512);
    vm.reap(&machine);
    machine.reenter();
    machine.presence.borrow_mut()[2] = 9;
    assert!(vm.reap(&machine));
}

#[test]
fn tables_of_tables_go_too() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(GIB + 0x20_0000, 0x8000_0000, 1, RW));
    let _ = vm.map(&machine, &map(GIB + 0x60_0000, 0x8000_1000, 1, RW));
    let _ = vm.map(&machine, &map_blocks(GIB + 16 * MIB, 0x9000_0000, 2 * MIB, Level::L2));
    assert_eq!(machine.allocated.get(), 3);
    assert_eq!(unmap(&machine, &vm, 0, 3 * GIB / PAGE).pages, 3 * GIB / PAGE);
    assert_eq!(machine.take_removed().len(), 3);
    vm.reap(&machine);
    machine.reenter();
    assert!(vm.reap(&machine));
    assert_eq!(machine.allocated.get(), 0);
    assert!(all_empty(&machine), "an empty root");
}

#[test]
fn single_pages_leave_their_table() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x20_0000, 0x8000_0000, 2, RW));
    let _ = unmap(&machine, &vm, 0x20_0000, 1);
    let _ = unmap(&machine, &vm, 0x20_1000, 1);
    assert!(vm.reap(&machine), "nothing was retired");
    assert_eq!(machine.allocated.get(), 2);
}

#[test]
fn limbo_is_looked_into_when_the_pool_is_empty() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x20_0000, 0x8000_0000, 1, RW));
    machine.keep_free(0);
    let _ = unmap(&machine, &vm, 0, 3 * GIB / PAGE);
    let again = map(0x20_0000, 0x8000_0000, 1, RW);
    let again = verdigris_stage2::Map { sequence: vm.sequence(), ..again };
    assert_eq!(vm.map(&machine, &again), Outcome::stopped(0, Error::Retry), "same stay");
    machine.reenter();
    assert_eq!(vm.map(&machine, &again), Outcome::done(1));
}

#[test]
fn a_block_inside_the_range_goes_whole() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 4 * MIB, Level::L2));
    machine.take_steps();
    assert_eq!(unmap(&machine, &vm, 0x20_0000, 1024), Outcome::done(1024));
    let removed = machine.take_removed();
    assert_eq!(removed.len(), 2);
    assert_eq!((removed[1].ipa.0, removed[1].pa.0), (0x40_0000, 0x9020_0000));
    let steps = machine.take_steps();
    assert!(steps.contains(&Step::Ipa(0x20_0000, Some(2))), "one instruction a block: {steps:?}");
    assert_eq!(machine.stat(Stat::TlbiIpa), 2);
}

#[test]
fn a_block_that_reaches_past_the_range_is_split() {
    let (machine, vm) = vm();
    let geometry = vm.root().geometry();
    let old = verdigris_abi::flags::MAP_OLD;
    let block = map(0x20_0000, 0x9000_0000, 512, RWX | old);
    let _ = vm.map(&machine, &verdigris_stage2::Map { level: Level::L2, ..block });
    machine.take_steps();
    machine.watch(move |machine, step| {
        let kept = machine.walk(geometry, 0x20_0000).is_some();
        let made = matches!(step, Step::DsbIshst | Step::Removed(_));
        assert!(kept == made || step == Step::Isb, "break, invalidate, make: {step:?}");
    });
    assert_eq!(unmap(&machine, &vm, 0x20_5000, 2), Outcome::done(2));
    machine.unwatch();
    for page in 0..512 {
        let raw = (0x9000_0000 + page * PAGE) | forced(GUEST | WRITE) | 3;
        let expected = (page != 5 && page != 6).then_some((raw, 3));
        assert_eq!(machine.walk(geometry, 0x20_0000 + page * PAGE), expected, "page {page}");
    }
    let shares = machine.shares.borrow();
    assert_eq!(shares.len(), 510, "a share a page");
    assert!(!shares.contains_key(&(0x9000_0000, 2)));
    let removed = machine.take_removed();
    assert_eq!((removed.len(), removed[0].level), (1, Level::L2));
    assert_eq!(machine.stat(Stat::BlocksDropped), 0);
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_gigabyte_is_split_down_to_the_page() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(GIB, 0x40_0000_0000, GIB, Level::L1));
    assert_eq!(unmap(&machine, &vm, GIB + 5 * MIB, 1), Outcome::done(1));
    let leaves = all_leaves(&machine, 40, 1);
    assert_eq!(leaves.len(), 511 + 511);
    for (ipa, raw, level) in leaves {
        let pa = 0x40_0000_0000 + (ipa - GIB);
        assert_eq!(raw, pa | forced(DATA) | if level == 3 { 3 } else { 1 });
    }
    assert_eq!(machine.shares.borrow().len(), 511 + 511);
}

#[test]
fn a_block_goes_whole_if_there_is_no_table_page() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 2 * MIB, Level::L2));
    machine.keep_free(0);
    assert_eq!(unmap(&machine, &vm, 0x20_5000, 2), Outcome::done(2));
    assert!(all_leaves(&machine, 40, 1).is_empty());
    assert_eq!(machine.stat(Stat::BlocksDropped), 1);
    assert!(machine.shares.borrow().is_empty());
}

#[test]
fn a_block_goes_whole_if_its_parts_may_not_be_shared() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 2 * MIB, Level::L2));
    machine.owned_below.set(0x9010_0000);
    assert_eq!(unmap(&machine, &vm, 0x20_5000, 2), Outcome::done(2));
    assert!(machine.shares.borrow().is_empty());
    assert_eq!(machine.allocated.get(), 1, "the new table went back");
    assert_eq!(machine.stat(Stat::BlocksDropped), 1);
    assert_eq!(machine.stat(Stat::PagesMapped), 0);
}

#[test]
fn the_rest_of_a_block_stays_unmapped_if_an_invalidation_comes_between() {
    let (machine, vm) = vm();
    let geometry = vm.root().geometry();
    let vm = std::rc::Rc::new(vm);
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 2 * MIB, Level::L2));
    let other = vm.clone();
    let done = std::cell::Cell::new(false);
    machine.watch(move |machine, step| {
        // Another CPU takes a page of the rest away while the block is broken.
        if step == Step::Stage1 && !done.replace(true) {
            assert_eq!(machine.walk(geometry, 0x20_0000), None);
            let cpu = machine.cpu.replace(1);
            other.unmap_nested(machine);
            machine.cpu.set(cpu);
        }
    });
    assert_eq!(unmap(&machine, &vm, 0x20_5000, 2), Outcome::done(2));
    machine.unwatch();
    assert!(all_leaves(&machine, 40, 1).is_empty());
    assert!(machine.shares.borrow().is_empty());
    assert_eq!(machine.stat(Stat::BlocksDropped), 1);
}

/// What the other CPU does; its TLB steps aren't nested in those of the first.
trait Nested {
    fn unmap_nested(&self, machine: &Machine);
}

impl Nested for Stage2 {
    fn unmap_nested(&self, machine: &Machine) {
        let tlb = machine.tlb.try_borrow_mut().ok().and_then(|mut tlb| tlb.take());
        let watch = self.range(Ipa(0x21_0000), 1).unwrap();
        assert_eq!(self.unmap(machine, watch, &mut NoDirty), Outcome::done(1));
        if let Ok(mut slot) = machine.tlb.try_borrow_mut() {
            *slot = tlb;
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn begin_and_end_resume_where_they_were() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 400, RW));
    let range = vm.range(Ipa(0x1000), 400).unwrap();
    machine.interrupt_after.set(Some(1));
    assert_eq!(vm.invalidate_begin(&machine, range, false, 0, &mut NoDirty), Outcome::done(128));
    machine.interrupt_after.set(Some(0));
    assert_eq!(vm.invalidate_begin(&machine, range, true, 128, &mut NoDirty), Outcome::done(192));
    assert_eq!(
        vm.invalidate_end(&machine, range, 192, &mut NoDirty),
        Outcome::done(256),
        "the mark stands"
    );
    machine.interrupt_after.set(None);
    assert_eq!(vm.invalidate_end(&machine, range, 256, &mut NoDirty), Outcome::done(400));
    assert_eq!(machine.take_removed().len(), 400);
    let none = Outcome::stopped(0, Error::NoEntry);
    assert_eq!(vm.invalidate_end(&machine, range, 400, &mut NoDirty), none);
    assert_eq!(vm.invalidate_begin(&machine, range, true, 0, &mut NoDirty), none);
    let invalid = Outcome::stopped(0, Error::Invalid);
    assert_eq!(vm.invalidate_begin(&machine, range, false, 401, &mut NoDirty), invalid);
    assert_eq!(vm.invalidate_end(&machine, range, 401, &mut NoDirty), invalid);
    assert_eq!(vm.sequence(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_table_that_an_interrupt_stops_is_parked_for_the_calls_on_its_pages() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x20_0000, 0x8000_0000, 512, RW));
    let range = vm.range(Ipa(0x20_0000), 512).unwrap();
    machine.interrupt_after.set(Some(0));
    let begun = vm.invalidate_begin(&machine, range, false, 0, &mut NoDirty);
    assert_eq!(begun, Outcome::done(64));
    assert_eq!(machine.take_removed().len(), 64, "64 leaves between two looks");
    assert_eq!(machine.walk(vm.root().geometry(), 0x3f_f000), None, "unlinked all the same");
    let resumed = vm.invalidate_begin(&machine, range, true, 64, &mut NoDirty);
    assert_eq!(resumed, Outcome::done(128));
    machine.take_removed();
    let flushes = machine.stat(Stat::TlbiVmid);
    machine.interrupt_after.set(None);
    assert_eq!(unmap(&machine, &vm, GIB, 1), Outcome::done(1));
    assert_eq!(machine.take_removed(), [], "a call elsewhere has no business with it");
    assert!(!vm.reap(&machine), "leaves are yet to be reported");
    assert_eq!(unmap(&machine, &vm, 0x20_0000 + 200 * PAGE, 10), Outcome::done(10));
    let removed = machine.take_removed();
    assert_eq!(removed.len(), 10, "a call inside takes its own pages");
    assert_eq!(removed[0].ipa.0, 0x20_0000 + 200 * PAGE);
    assert_eq!(vm.invalidate_end(&machine, range, 128, &mut NoDirty), Outcome::done(512));
    let removed = machine.take_removed();
    assert_eq!(removed.len(), 384 - 10);
    assert_eq!(removed[373].ipa.0, 0x3f_f000);
    assert_eq!(machine.stat(Stat::TlbiVmid), flushes, "invalidated once, when it was unlinked");
    assert!(machine.shares.borrow().is_empty());
    vm.reap(&machine);
    machine.reenter();
    assert!(vm.reap(&machine));
    assert_eq!(machine.allocated.get(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn a_table_that_finds_no_place_to_be_parked_is_drained_at_once() {
    let (machine, vm) = vm();
    for round in 0..9 {
        let request = map(0x20_0000, 0x8000_0000 + round * GIB, 512, RW);
        let now = verdigris_stage2::Map { sequence: vm.sequence(), ..request };
        assert_eq!(vm.map(&machine, &now), Outcome::done(512));
        machine.interrupt_after.set(Some(0));
        assert_eq!(unmap(&machine, &vm, 0x20_0000, 512).pages, 64, "round {round}");
        machine.interrupt_after.set(None);
        machine.take_removed();
    }
    assert_eq!(machine.shares.borrow().len(), 8 * 448, "the ninth table has given all back");
    assert_eq!(unmap(&machine, &vm, 0x20_0000, 512), Outcome::done(512));
    assert_eq!(machine.take_removed().len(), 8 * 448);
    assert!(machine.shares.borrow().is_empty());
    while !vm.reap(&machine) {
        machine.reenter();
    }
    assert_eq!(machine.allocated.get(), 1);
}

#[test]
fn a_range_is_checked() {
    let (_, vm) = vm();
    for (ipa, page_count) in
        [(0, 0), (1, 1), (1 << 40, 1), ((1 << 40) - 4096, 2), (0, u64::MAX), (0, 1 << 52)]
    {
        assert_eq!(vm.range(Ipa(ipa), page_count), Err(Error::Invalid), "{ipa:#x} {page_count}");
    }
    assert!(vm.range(Ipa(0), 1 << 28).is_ok());
}

/// Takes as many bits as its words hold.
struct Words(Vec<u64>);

impl DirtySink for Words {
    fn capacity(&self) -> u64 {
        self.0.len() as u64 * 64
    }

    fn dirty(&mut self, first: u64, bits: u64) {
        assert!(first.is_multiple_of(64), "the ranges here are aligned");
        self.0[first as usize / 64] |= bits;
    }
}

#[test]
fn a_block_that_the_answer_cuts_is_split_under_the_calls_own_mark() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 2 * MIB, Level::L2));
    let range = vm.range(Ipa(0x20_0000), 512).unwrap();
    let mut words = Words(vec![0; 2]);
    let outcome = vm.invalidate_begin(&machine, range, false, 0, &mut words);
    assert_eq!((outcome, words.0), (Outcome::done(128), vec![u64::MAX; 2]));
    assert_eq!(all_leaves(&machine, 40, 1).len(), 384, "the rest is the next call's");
    assert_eq!(machine.stat(Stat::BlocksDropped), 0);
    assert!(vm.orphans().take(range).is_none(), "each bit is in one answer");
}

#[test]
fn bits_of_a_block_never_run_ahead_of_the_progress() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 2 * MIB, Level::L2));
    let range = vm.range(Ipa(0x20_0000 + 128 * PAGE), 384).unwrap();
    let mut words = Words(vec![0; 8]);
    machine.interrupt_after.set(Some(0));
    let outcome = vm.invalidate_begin(&machine, range, false, 0, &mut words);
    let told: u32 = words.0.iter().map(|word| word.count_ones()).sum();
    assert_eq!(u64::from(told), outcome.pages, "a bit for each page done, and no other");
    assert!(outcome.pages > 0);
}

/// A table waits for the CPUs that were inside when it went, not for those of one that went before.
#[test]
fn a_table_that_goes_later_waits_for_later_cpus() {
    let (machine, vm) = vm();
    for ipa in [0, GIB] {
        assert_eq!(vm.map(&machine, &map(ipa, 0x8000_0000, 1, RW)), Outcome::done(1));
    }
    let before = machine.allocated.get();
    assert_eq!(unmap(&machine, &vm, 0, 512), Outcome::done(512));
    assert!(!vm.reap(&machine), "the snapshot: CPU 0 is inside, CPU 2 isn't");
    machine.presence.borrow_mut()[2] += 1;
    assert_eq!(unmap(&machine, &vm, GIB, 512), Outcome::done(512));
    for _ in 0..4 {
        machine.reenter();
        assert!(!vm.reap(&machine));
    }
    assert_eq!(machine.allocated.get(), before - 1, "the first is free, CPU 2 may hold the second");
    machine.presence.borrow_mut()[2] += 1;
    for _ in 0..2 {
        machine.reenter();
        let _ = vm.reap(&machine);
    }
    assert_eq!(machine.allocated.get(), before - 2);
}
