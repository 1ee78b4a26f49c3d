//! The final dirty bits of pages that go: each in the answer of one call that asked for it, or an orphan.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeMap;
use support::model::*;
use support::{Machine, Step};
use verdigris_abi::flags::{MAP_CLEAN, PROT_READ};
use verdigris_stage2::{
    Access, Config, DirtySink, FaultKind, Ipa, Level, Map, NoDirty, Outcome, Range, Resolution,
    Stage2, Stat,
};

const HOT: &[u64] = &[0x1000, 0x2000, 0x20_0000, 0x21_0000];

/// Keeps bits as numbers of pages of the call; each may come once.
struct Pages {
    capacity: u64,
    seen: Vec<u64>,
}

impl Pages {
    fn new(capacity: u64) -> Self {
        Self { capacity, seen: Vec::new() }
    }

    fn sorted(mut self) -> Vec<u64> {
        self.seen.sort_unstable();
        self.seen
    }
}

impl DirtySink for Pages {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn dirty(&mut self, first: u64, bits: u64) {
        let pages = (0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| first + bit);
        for page in pages {
            assert!(page < self.capacity, "a bit that the answer can't carry");
            assert!(!self.seen.contains(&page), "page {page} twice");
            self.seen.push(page);
        }
    }
}

fn vm() -> (Machine, Stage2) {
    let config = Config { fwb: true, dic: true, ttl: true, ..Config::default() };
    Machine::with_vm(60, 40, config, HOT)
}

fn range(vm: &Stage2, ipa: u64, page_count: u64) -> Range {
    vm.range(Ipa(ipa), page_count).unwrap()
}

fn map_now(machine: &Machine, vm: &Stage2, request: Map) {
    let now = Map { sequence: vm.sequence(), ..request };
    assert_eq!(vm.map(machine, &now), Outcome::done(now.page_count));
}

/// Returns what harvest says of the first pages.
fn harvest(machine: &Machine, vm: &Stage2, page_count: u64) -> Vec<u64> {
    let mut pages = Pages::new(page_count);
    let outcome = vm.harvest(machine, range(vm, 0, page_count), |index, word| {
        pages.dirty(index as u64 * 64, word);
    });
    assert_eq!(outcome, Outcome::done(page_count));
    pages.sorted()
}

#[test]
fn unmap_tells_which_pages_were_written() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 3, RW));
    map_now(&machine, &vm, map(0x5000, 0x9000_0000, 2, RW | MAP_CLEAN));
    map_now(&machine, &vm, map(0x8000, 0xa000_0000, 1, PROT_READ));
    let write = vm.resolve_fault(&machine, Ipa(0x6000), Access::Write, FaultKind::Permission);
    assert_eq!(write, Resolution::Resolved);
    let mut dirty = Pages::new(1024);
    assert_eq!(vm.unmap(&machine, range(&vm, 0, 16), &mut dirty), Outcome::done(16));
    // A page mapped writable counts as written until it is harvested.
    assert_eq!(dirty.sorted(), [1, 2, 3, 6]);
    assert_eq!(machine.stat(Stat::LeavesDirty), 4);
    assert_eq!(harvest(&machine, &vm, 64), [0; 0], "told once");
}

#[test]
fn what_was_harvested_is_clean_until_it_is_written() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 2, RW));
    assert_eq!(harvest(&machine, &vm, 64), [1, 2]);
    let mut dirty = Pages::new(1024);
    assert_eq!(vm.unmap(&machine, range(&vm, 0x1000, 1), &mut dirty), Outcome::done(1));
    let write = vm.resolve_fault(&machine, Ipa(0x2000), Access::Write, FaultKind::Permission);
    assert_eq!(write, Resolution::Resolved);
    assert_eq!(vm.unmap(&machine, range(&vm, 0x1000, 2), &mut dirty), Outcome::done(2));
    assert_eq!(dirty.sorted(), [1]);
}

#[test]
fn a_page_that_was_write_protected_is_still_dirty_when_it_goes() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 1, RW));
    assert_eq!(vm.write_protect(&machine, range(&vm, 0x1000, 1)), Outcome::done(1));
    let mut dirty = Pages::new(1024);
    assert_eq!(vm.unmap(&machine, range(&vm, 0x1000, 1), &mut dirty), Outcome::done(1));
    assert_eq!(dirty.sorted(), [0]);
}

#[test]
fn what_is_only_noted_is_harvested_without_an_invalidation() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 80, RW));
    assert_eq!(vm.write_protect(&machine, range(&vm, 0x1000, 70)), Outcome::done(70));
    machine.take_steps();
    let mut words = Vec::new();
    let outcome = vm.harvest(&machine, range(&vm, 0x1000, 70), |_, word| words.push(word));
    assert_eq!((outcome, words), (Outcome::done(70), vec![u64::MAX, 0x3f]));
    assert_eq!(machine.take_steps(), [], "they lost a bit that no TLB knows");
    assert_eq!(machine.stat(Stat::LeavesDirty), 70);
    assert_eq!(vm.write_protect(&machine, range(&vm, 0x4_7000, 4)), Outcome::done(4));
    machine.take_steps();
    assert_eq!(harvest(&machine, &vm, 81), (71..81).collect::<Vec<_>>());
    let by_ipa: Vec<_> =
        machine.take_steps().into_iter().filter(|step| matches!(step, Step::Ipa(..))).collect();
    assert_eq!(by_ipa, [0x4_b000, 0x4_c000, 0x4_d000, 0x4_e000, 0x4_f000, 0x5_0000].map(by_page));
}

fn by_page(ipa: u64) -> Step {
    Step::Ipa(ipa, Some(3))
}

#[test]
fn nobody_asked_so_nobody_is_told() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 1, RW));
    map_now(&machine, &vm, map(0x20_0000, 0x9000_0000, 512, RW));
    assert_eq!(vm.unmap(&machine, range(&vm, 0, 1024), &mut NoDirty), Outcome::done(1024));
    assert_eq!(harvest(&machine, &vm, 1024), [0; 0]);
}

/// Bits count from the first page of the call, wherever in the range that is.
#[test]
fn begin_and_end_count_from_what_was_done() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 400, RW));
    let all = range(&vm, 0x1000, 400);
    let mut dirty = Pages::new(100);
    let begun = vm.invalidate_begin(&machine, all, false, 0, &mut dirty);
    assert_eq!(begun, Outcome::done(100), "as far as the answer reaches");
    assert_eq!(dirty.sorted(), (0..100).collect::<Vec<_>>());
    machine.interrupt_after.set(Some(0));
    let mut dirty = Pages::new(100);
    let resumed = vm.invalidate_begin(&machine, all, true, 100, &mut dirty);
    assert_eq!(resumed, Outcome::done(164));
    assert_eq!(dirty.sorted(), (0..64).collect::<Vec<_>>());
    machine.interrupt_after.set(None);
    let mut dirty = Pages::new(1024);
    let ended = vm.invalidate_end(&machine, all, 164, &mut dirty);
    assert_eq!(ended, Outcome::done(400));
    assert_eq!(dirty.sorted(), (0..236).collect::<Vec<_>>());
}

#[test]
fn a_table_or_block_that_ends_past_the_answer_is_left_for_the_next_call() {
    for level in [Level::L2, Level::L3] {
        let (machine, vm) = vm();
        map_now(&machine, &vm, map(0x1f_0000, 0x7000_0000, 16, RW));
        map_now(&machine, &vm, Map { level, ..map(0x20_0000, 0x9000_0000, 512, RW) });
        let all = range(&vm, 0x1f_0000, 16 + 512);
        let mut dirty = Pages::new(500);
        assert_eq!(vm.unmap(&machine, all, &mut dirty), Outcome::done(16), "{level:?}");
        assert_eq!(dirty.sorted(), (0..16).collect::<Vec<_>>());
        assert_eq!(machine.take_removed().len(), 16);
        let rest = Range { start: all.start + 16, ..all };
        let mut dirty = Pages::new(512);
        assert_eq!(vm.unmap(&machine, rest, &mut dirty), Outcome::done(512));
        assert_eq!(dirty.sorted(), (0..512).collect::<Vec<_>>());
        assert_eq!(machine.stat(Stat::BlocksSplit), 0);
    }
}

#[test]
fn what_alone_is_too_much_for_an_answer_is_taken_apart() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map_blocks(GIB, 0x40_0000_0000, GIB, Level::L1));
    let mut dirty = Pages::new(1300);
    let all = range(&vm, GIB, GIB / PAGE);
    // Two of the smaller blocks fit; the third is for the next call.
    assert_eq!(vm.unmap(&machine, all, &mut dirty), Outcome::done(1024));
    assert_eq!(dirty.sorted(), (0..1024).collect::<Vec<_>>());
    assert_eq!(all_leaves(&machine, 40, 1).len(), 510);
    let mut dirty = Pages::new(3);
    let rest = Range { start: all.start + 1024, ..all };
    assert_eq!(vm.unmap(&machine, rest, &mut dirty), Outcome::done(3));
    assert_eq!(dirty.sorted(), [0, 1, 2]);
    assert_eq!(all_leaves(&machine, 40, 1).len(), 509 + 509);
}

/// Unmaps a range by calls whose answers carry so many pages, with interrupts; returns all that was told.
fn unmap_by_calls(machine: &Machine, vm: &Stage2, all: Range, capacity: u64) -> Vec<u64> {
    let (mut done, mut told, mut calls) = (0, Vec::new(), 0);
    while done < all.page_count() {
        machine.interrupt_after.set((calls % 3 != 2).then_some(calls % 3));
        let mut dirty = Pages::new(capacity);
        let outcome = if calls == 0 {
            vm.invalidate_begin(machine, all, false, 0, &mut dirty)
        } else {
            vm.invalidate_begin(machine, all, true, done, &mut dirty)
        };
        assert_eq!(outcome.error, None);
        assert!(outcome.pages > done, "call {calls} has done nothing");
        let progress = outcome.pages - done;
        let sorted = dirty.sorted();
        assert!(sorted.iter().all(|&page| page < progress), "told of a page that isn't done");
        told.extend(sorted.iter().map(|page| done + page));
        (done, calls) = (outcome.pages, calls + 1);
        machine.reenter();
    }
    machine.interrupt_after.set(None);
    let ended = vm.invalidate_end(machine, all, done, &mut NoDirty);
    assert_eq!(ended, Outcome::done(done));
    told
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn each_bit_comes_with_the_progress_over_its_page_and_once() {
    for capacity in [1, 63, 64, 65, 512, 700, 1024, 32768] {
        let (machine, vm) = vm();
        let dirty_or_clean = |page| if page % 3 == 0 { RW } else { RW | MAP_CLEAN };
        let mut expected = Vec::new();
        for page in (0..300).chain(500..1100) {
            map_now(
                &machine,
                &vm,
                map(page * PAGE, 0x8000_0000 + page * PAGE, 1, dirty_or_clean(page)),
            );
            expected.extend((page % 3 == 0).then_some(page));
        }
        map_now(&machine, &vm, map_blocks(6 * MIB, 0x9000_0000, 2 * MIB, Level::L2));
        expected.extend(1536..2048);
        let told = unmap_by_calls(&machine, &vm, range(&vm, 0, 2048), capacity);
        assert_eq!(told, expected, "{capacity} pages a call");
        assert!(machine.shares.borrow().is_empty());
        assert_eq!(harvest(&machine, &vm, 2048), [0; 0]);
        assert_eq!(machine.stat(Stat::PagesMapped), 0);
    }
}

/// A call may come back to pages whose table another call left parked, mapped anew meanwhile.
#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn the_bits_of_a_parked_table_go_to_the_calls_on_its_pages() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x20_0000, 0x9000_0000, 512, RW));
    let table = range(&vm, 0x20_0000, 512);
    machine.interrupt_after.set(Some(0));
    assert_eq!(vm.unmap(&machine, table, &mut Pages::new(1024)), Outcome::done(64));
    machine.interrupt_after.set(None);
    let mut elsewhere = Pages::new(1024);
    assert_eq!(vm.unmap(&machine, range(&vm, 0, 256), &mut elsewhere), Outcome::done(256));
    assert_eq!(elsewhere.sorted(), [0; 0]);
    map_now(&machine, &vm, map(0x20_0000 + 100 * PAGE, 0x8000_0000, 4, RW | MAP_CLEAN));
    let mut inside = Pages::new(3);
    let part = range(&vm, 0x20_0000 + 99 * PAGE, 10);
    assert_eq!(vm.unmap(&machine, part, &mut inside), Outcome::done(3), "no more than it can tell");
    assert_eq!(inside.sorted(), [0, 1, 2], "of the old pages: the new ones are clean");
    let mut rest = Pages::new(1024);
    assert_eq!(vm.unmap(&machine, table, &mut rest), Outcome::done(512));
    assert_eq!(rest.sorted(), (64..99).chain(102..512).collect::<Vec<_>>());
    assert!(machine.shares.borrow().is_empty());
    while !vm.reap(&machine) {
        machine.reenter();
    }
}

#[test]
fn a_block_that_is_split_tells_of_the_part_that_goes() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map_blocks(0x20_0000, 0x9000_0000, 2 * MIB, Level::L2));
    let mut dirty = Pages::new(1024);
    assert_eq!(vm.unmap(&machine, range(&vm, 0x20_5000, 2), &mut dirty), Outcome::done(2));
    assert_eq!(dirty.sorted(), [0, 1]);
    assert_eq!(machine.stat(Stat::PagesMapped), 510);
    let expected: Vec<u64> = (512..1024).filter(|page| ![517, 518].contains(page)).collect();
    assert_eq!(harvest(&machine, &vm, 1024), expected, "the parts kept theirs");
}

#[test]
fn what_goes_beside_what_was_asked_about_is_left_to_harvest() {
    for wanted in [0, 1024] {
        let (machine, vm) = vm();
        map_now(&machine, &vm, map_blocks(0x20_0000, 0x9000_0000, 2 * MIB, Level::L2));
        machine.keep_free(0);
        let part = range(&vm, 0x20_5000, 2);
        let outcome = if wanted == 0 {
            vm.unmap(&machine, part, &mut NoDirty)
        } else {
            let mut dirty = Pages::new(wanted);
            let outcome = vm.unmap(&machine, part, &mut dirty);
            assert_eq!(dirty.sorted(), [0, 1]);
            outcome
        };
        assert_eq!(outcome, Outcome::done(2));
        assert_eq!(machine.stat(Stat::BlocksDropped), 1);
        assert_eq!(machine.stat(Stat::PagesMapped), 0);
        // One range that covers both sides: the two pages come a second time, which is allowed.
        assert_eq!(harvest(&machine, &vm, 1024), (512..1024).collect::<Vec<_>>());
        assert_eq!(harvest(&machine, &vm, 1024), [0; 0], "told");
    }
}

#[test]
fn a_clean_block_leaves_no_orphans() {
    let (machine, vm) = vm();
    let clean = Map { level: Level::L2, ..map(0x20_0000, 0x9000_0000, 512, RW | MAP_CLEAN) };
    map_now(&machine, &vm, clean);
    machine.keep_free(0);
    let mut dirty = Pages::new(1024);
    assert_eq!(vm.unmap(&machine, range(&vm, 0x20_5000, 2), &mut dirty), Outcome::done(2));
    assert_eq!(dirty.sorted(), [0; 0]);
    assert_eq!(harvest(&machine, &vm, 1024), [0; 0]);
}

#[test]
fn the_host_may_name_progress_that_it_did_not_make() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x20_0000, 0x9000_0000, 512, RW));
    let table = range(&vm, 0x20_0000, 512);
    let mut dirty = Pages::new(1024);
    // The table goes as a whole: of its first pages no answer tells.
    let begun = vm.invalidate_begin(&machine, table, false, 10, &mut dirty);
    assert_eq!(begun, Outcome::done(512));
    assert_eq!(dirty.sorted(), (0..502).collect::<Vec<_>>());
    assert_eq!(machine.take_removed().len(), 512);
    assert_eq!(harvest(&machine, &vm, 1024), (512..522).collect::<Vec<_>>());
    let _ = vm.invalidate_end(&machine, table, 512, &mut NoDirty);
}

#[test]
fn orphans_are_a_hull_that_is_cut_from_its_ends() {
    let orphans = verdigris_stage2::dirty::Orphans::new();
    let of = |start, end| Range { start, end };
    assert_eq!(orphans.take(of(0, 100)), None);
    orphans.add(of(10, 20));
    orphans.add(of(15, 15));
    orphans.add(of(40, 50));
    assert_eq!(orphans.take(of(0, 10)), None);
    assert_eq!(orphans.take(of(20, 30)), Some(of(20, 30)), "from the middle: told again");
    assert_eq!(orphans.take(of(20, 30)), Some(of(20, 30)));
    assert_eq!(orphans.take(of(0, 12)), Some(of(10, 12)), "from an end: told once");
    assert_eq!(orphans.take(of(0, 12)), None);
    assert_eq!(orphans.take(of(45, 64)), Some(of(45, 50)));
    assert_eq!(orphans.take(of(0, 64)), Some(of(12, 45)));
    assert_eq!(orphans.take(of(0, 64)), None);
    orphans.add(of(5, 6));
    assert_eq!(orphans.take(of(0, 64)), Some(of(5, 6)), "nothing is left of the old hull");
}

/// Set tells of the page that it replaced, and not of one that stays dirty.
#[test]
fn set_tells_of_what_it_replaced() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 2, RW));
    let told: BTreeMap<u64, bool> = [
        (0x1000, vm.set(&machine, &set(0x1000, 0x9000_0000, RW)).unwrap()),
        (0x2000, vm.set(&machine, &set(0x2000, 0x8000_1000, RWX)).unwrap()),
        (0x3000, vm.set(&machine, &set(0x3000, 0xa000_0000, RW)).unwrap()),
    ]
    .into();
    assert_eq!(told, [(0x1000, true), (0x2000, false), (0x3000, false)].into());
    assert_eq!(harvest(&machine, &vm, 64), [1, 2, 3], "never written since: and yet not known");
    assert_eq!(vm.set(&machine, &set(0x1000, 0xb000_0000, RW)), Ok(false));
    assert_eq!(harvest(&machine, &vm, 64), [0; 0], "clean as it was");
}

/// The host asks for no more than it granted before: the page stays clean until it is written.
#[test]
fn a_map_of_what_is_granted_already_leaves_it_clean() {
    let (machine, vm) = vm();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 1, RW | MAP_CLEAN));
    let before = vm.leaf(&machine, Ipa(0x1000)).unwrap().0;
    machine.take_steps();
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 1, RW));
    assert_eq!(vm.leaf(&machine, Ipa(0x1000)).unwrap().0, before);
    map_now(&machine, &vm, map(0x1000, 0x8000_0000, 1, RWX));
    let with_more = vm.leaf(&machine, Ipa(0x1000)).unwrap().0.raw();
    assert_eq!(with_more, before.raw() & !(1 << 54), "execution is new, and no more");
    assert_eq!(harvest(&machine, &vm, 64), [0; 0]);
}
