//! The shape of the tree changes: split, collapse and reclaim, against everything that goes on meanwhile.
//!
//! A table has two entries, so that two pages are a block. Table 0 is the root, table 1 the last-level table
//! that stands at the beginning, unless a block stands there.
#![cfg(loom)]

mod loom_support;

use loom::sync::Arc;
use loom::sync::atomic::{Ordering, fence};
use loom::thread;
use loom_support::{Cpu, PAGE, Shared, model};
use verdigris_abi::flags::{MAP_CLEAN, MAP_OLD, PROT_READ, PROT_WRITE};
use verdigris_stage2::sync::Weakness;
use verdigris_stage2::{
    Access, AgeFlush, Attributes, Config, Descriptor, FaultKind, Geometry, Ipa, Level, Map,
    NoDirty, Outcome, Pa, Range, Resolution,
};

const RW: u64 = PROT_READ | PROT_WRITE;
const MEMORY: u64 = 0x8000;

fn config(bbm2: bool) -> Config {
    Config { fwb: true, dic: true, hd: true, bbm2, ..Config::default() }
}

fn both(shared: &Shared) -> Range {
    shared.vm.range(Ipa(0), 2).unwrap()
}

fn request(level: Level, flags: u64) -> Map {
    let (ipa, pa, page_count) = (Ipa(0), Pa(MEMORY), 2);
    let attributes = Attributes::guest(flags);
    Map { ipa, pa, page_count, level, attributes, sequence: 0 }
}

fn map(cpu: &Cpu, level: Level, flags: u64) {
    assert_eq!(cpu.shared.vm.map(cpu, &request(level, flags)), Outcome::done(2));
}

/// A VM with a full last-level table, and the CPU that mapped it.
fn full(flags: u64, has_walker: bool) -> (Arc<Shared>, Cpu) {
    let shared = Shared::empty(config(false), 2, None, has_walker);
    let boot = Cpu::new(&shared, 0, 2);
    boot.give_page(1);
    map(&boot, Level::L3, flags);
    (shared, boot)
}

/// A VM with a block, and the CPU that mapped it, with a page for the table of a split.
fn block(bbm2: bool, flags: u64) -> (Arc<Shared>, Cpu) {
    let shared = Shared::empty(config(bbm2), 3, None, true);
    let boot = Cpu::new(&shared, 0, 2);
    map(&boot, Level::L2, flags);
    boot.give_page(1);
    (shared, boot)
}

fn collapse(cpu: &Cpu) -> Outcome {
    cpu.shared.vm.collapse(cpu, both(&cpu.shared), Level::L2)
}

fn split(cpu: &Cpu) -> Outcome {
    cpu.shared.vm.split_range(cpu, both(&cpu.shared), Level::L3)
}

fn leaf(cpu: &Cpu, page: u64) -> Option<(Descriptor, Level)> {
    cpu.shared.vm.leaf(cpu, Ipa(page * PAGE))
}

/// Checks that a page is translated to its own memory, by whatever leaf.
fn assert_right(cpu: &Cpu, page: u64) {
    let (leaf, level) = leaf(cpu, page).expect("a mapping is lost");
    let base = leaf.leaf_address(level).unwrap().0;
    let offset = if level == Level::L2 { page * PAGE } else { 0 };
    assert_eq!(base + offset, MEMORY + page * PAGE);
}

/// Checks that the last-level table that a collapse left behind holds nothing.
fn assert_left_empty(cpu: &Cpu) {
    if leaf(cpu, 0).is_some_and(|(_, level)| level == Level::L2) {
        for index in 0..2 {
            let left = cpu.shared.entry_of(1, index).read();
            assert!(!left.is_valid(), "a leaf in a table that is gone");
        }
    }
}

/// The hardware writes to page 0: by one update of the leaf that the walk finds. Tells whether it found one.
fn write_by_walker(shared: &Shared) -> bool {
    let walking = shared.walking.as_ref().expect("a scenario with a walker");
    walking.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let written = |old: Descriptor| Some(old.with_young(true).writable_again());
    let root = shared.entry_of(0, 0);
    let mut wrote = root.update_leaf(Level::L2, written).is_ok();
    if !wrote && root.read().is_valid() {
        // One last-level table is all that there is.
        wrote = shared.entry_of(1, 0).update_leaf(Level::L3, written).is_ok();
    }
    walking.store(false, Ordering::Release);
    wrote
}

fn against_walker(weakness: Option<Weakness>, change: fn(&Cpu) -> Outcome, starts_full: bool) {
    model(weakness, 4, move || {
        let flags = RW | MAP_OLD | MAP_CLEAN;
        let (shared, boot) = if starts_full { full(flags, true) } else { block(true, flags) };
        let walker = {
            let shared = shared.clone();
            thread::spawn(move || write_by_walker(&shared))
        };
        assert_eq!(change(&boot), Outcome::done(2));
        let wrote = walker.join().unwrap();
        let (now, _) = leaf(&boot, 0).expect("a mapping is lost");
        assert!(!wrote || now.is_young() && now.is_dirty(), "a write is lost");
        assert_right(&boot, 1);
        assert!(now.is_granted());
    });
}

#[test]
fn collapse_loses_nothing_that_the_walker_sets() {
    against_walker(None, collapse, true);
}

#[test]
#[should_panic(expected = "a write is lost")]
fn collapse_of_what_was_read_before_would() {
    against_walker(Some(Weakness::CollapseFromBefore), collapse, true);
}

#[test]
fn a_split_without_a_break_loses_nothing_that_the_walker_sets() {
    against_walker(None, split, false);
}

#[test]
#[should_panic(expected = "a write is lost")]
fn a_split_by_store_would() {
    against_walker(Some(Weakness::SplitByStore), split, false);
}

/// A fault on one CPU while the other collapses: it never goes to the host, for nothing was taken away.
fn collapse_against_fault(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let (shared, boot) = full(RW | MAP_OLD, false);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                for kind in [FaultKind::Translation, FaultKind::AccessFlag] {
                    let answer = shared.vm.resolve_fault(&cpu, Ipa(0), Access::Read, kind);
                    let to_host = matches!(answer, Resolution::ToHost { .. });
                    assert!(!to_host, "taken to the host");
                }
            })
        };
        assert_eq!(collapse(&boot), Outcome::done(2));
        other.join().unwrap();
        assert_left_empty(&boot);
        assert_right(&boot, 0);
        assert_right(&boot, 1);
    });
}

#[test]
fn faults_during_a_collapse_are_run_again() {
    collapse_against_fault(None);
}

#[test]
#[should_panic(expected = "taken to the host")]
fn a_collapse_by_an_invalid_entry_would_take_them_to_the_host() {
    collapse_against_fault(Some(Weakness::CollapseByInvalid));
}

#[test]
#[should_panic(expected = "taken to the host")]
fn a_fault_that_looked_in_a_table_that_is_gone_would_go_there_too() {
    collapse_against_fault(Some(Weakness::FaultLooksOnce));
}

/// A fault on one CPU while the other splits the block: nothing was taken away here either.
fn split_against_fault(weakness: Option<Weakness>, bbm2: bool) {
    model(weakness, 4, move || {
        let (shared, boot) = block(bbm2, RW);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let kind = FaultKind::Translation;
                let cpu = Cpu::new(&shared, 1, 2);
                let answer = shared.vm.resolve_fault(&cpu, Ipa(0), Access::Read, kind);
                assert_eq!(answer, Resolution::Spurious, "taken to the host");
            })
        };
        assert_eq!(split(&boot), Outcome::done(2));
        other.join().unwrap();
        assert_right(&boot, 0);
        assert_right(&boot, 1);
    });
}

#[test]
fn faults_during_a_split_are_run_again() {
    split_against_fault(None, false);
}

#[test]
fn faults_during_a_split_without_a_break_are_run_again() {
    split_against_fault(None, true);
}

#[test]
#[should_panic(expected = "taken to the host")]
fn a_walk_that_reads_without_an_acquire_would_not_see_what_the_table_holds() {
    split_against_fault(Some(Weakness::ReadRelaxed), true);
}

fn collapse_against_age(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let (shared, boot) = full(RW, false);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut young = false;
                let range = shared.vm.range(Ipa(0), 1).unwrap();
                let cpu = Cpu::new(&shared, 1, 2);
                let sink = |_, word| young = word & 1 != 0;
                let _ = shared.vm.age(&cpu, range, AgeFlush::None, sink);
                young
            })
        };
        assert_eq!(collapse(&boot), Outcome::done(2));
        let young = other.join().unwrap();
        assert_left_empty(&boot);
        assert_right(&boot, 0);
        assert!(young || leaf(&boot, 0).unwrap().0.is_young(), "a touch is lost");
        assert_eq!(boot.shares.get(), 1);
    });
}

#[test]
fn ageing_leaves_nothing_behind_a_collapse() {
    collapse_against_age(None);
}

#[test]
#[should_panic(expected = "a leaf in a table that is gone")]
fn ageing_by_store_would() {
    collapse_against_age(Some(Weakness::ClearByStore));
}

fn collapse_against_unmap(weakness: Option<Weakness>) {
    model(weakness, 3, || {
        let (shared, boot) = full(RW, false);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                let range = shared.vm.range(Ipa(0), 1).unwrap();
                assert_eq!(shared.vm.unmap(&cpu, range, &mut NoDirty), Outcome::done(1));
                assert!(leaf(&cpu, 0).is_none(), "mapped past the unmap");
                cpu.shares.get()
            })
        };
        let _ = collapse(&boot);
        let shares = boot.shares.get() + other.join().unwrap();
        assert!(leaf(&boot, 0).is_none(), "mapped past the unmap");
        let left = i64::from(leaf(&boot, 1).is_some());
        assert_eq!(shares, left, "each leaf is reported once");
    });
}

#[test]
fn no_collapse_gets_past_an_unmap() {
    collapse_against_unmap(None);
}

#[test]
#[should_panic(expected = "mapped past the unmap")]
fn a_collapse_that_asked_nobody_would() {
    collapse_against_unmap(Some(Weakness::CollapseUnasked));
}

/// The host maps what is mapped already, as it does when two CPUs fault at once.
fn collapse_against_map(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let (shared, boot) = full(RW, false);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                let _ = cpu.map(0, 0);
                cpu.shares.get()
            })
        };
        assert_eq!(collapse(&boot), Outcome::done(2));
        let shares = boot.shares.get() + other.join().unwrap();
        assert_eq!(shares, 1, "a share is lost in a table that is gone");
        assert_left_empty(&boot);
        assert_right(&boot, 0);
    });
}

#[test]
fn no_map_installs_where_a_collapse_was() {
    collapse_against_map(None);
}

#[test]
#[should_panic(expected = "a share is lost in a table that is gone")]
fn without_the_wait_of_collapse_one_would() {
    collapse_against_map(Some(Weakness::CollapseWithoutWait));
}

fn collapse_against_write_protect(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let (shared, boot) = full(RW, false);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                let range = shared.vm.range(Ipa(0), 1).unwrap();
                assert_eq!(shared.vm.write_protect(&cpu, range), Outcome::done(1));
            })
        };
        let _ = collapse(&boot);
        other.join().unwrap();
        assert_right(&boot, 0);
        assert_right(&boot, 1);
        let (now, _) = leaf(&boot, 0).unwrap();
        assert!(!now.is_writable() && !now.is_granted(), "writable past the return");
        assert!(now.is_dirty(), "a write is lost");
    });
}

#[test]
fn a_write_protection_holds_through_a_collapse() {
    collapse_against_write_protect(None);
}

#[test]
#[should_panic(expected = "writable past the return")]
fn without_frozen_leaves_it_would_not() {
    collapse_against_write_protect(Some(Weakness::CollapseWithoutFreeze));
}

/// Two blocks become one that is larger, while a part of the first is write-protected.
fn larger_collapse_against_write_protect(weakness: Option<Weakness>) {
    model(weakness, 3, || {
        let shared = Shared::empty_with(Geometry::tiny_of_3(), config(false), 2, None, false);
        let boot = Cpu::new(&shared, 0, 2);
        boot.give_page(1);
        let all = Map { page_count: 4, ..request(Level::L2, RW) };
        assert_eq!(shared.vm.map(&boot, &all), Outcome::done(4));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                let range = shared.vm.range(Ipa(0), 2).unwrap();
                assert_eq!(shared.vm.write_protect(&cpu, range), Outcome::done(2));
            })
        };
        let _ = shared.vm.collapse(&boot, shared.vm.range(Ipa(0), 4).unwrap(), Level::L1);
        other.join().unwrap();
        let (now, _) = leaf(&boot, 0).unwrap();
        assert!(!now.is_writable() && !now.is_granted(), "writable past the return");
        assert!(now.is_dirty(), "a write is lost");
    });
}

#[test]
fn a_write_protection_of_blocks_holds_through_a_collapse() {
    larger_collapse_against_write_protect(None);
}

#[test]
#[should_panic(expected = "writable past the return")]
fn one_that_looked_in_a_table_that_is_gone_would_not() {
    larger_collapse_against_write_protect(Some(Weakness::ScanLooksOnce));
}

#[test]
#[should_panic(expected = "writable past the return")]
fn trusting_the_link_it_would_not() {
    collapse_against_write_protect(Some(Weakness::TrustLink));
}

#[test]
#[should_panic(expected = "writable past the return")]
fn reading_the_link_without_a_barrier_it_would_not() {
    collapse_against_write_protect(Some(Weakness::FoundBarrier));
}

/// What the harvest doesn't return is dirty afterwards.
fn collapse_against_harvest(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let (shared, boot) = full(RW, false);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                let mut dirty = 0;
                let range = shared.vm.range(Ipa(0), 1).unwrap();
                let _ = shared.vm.harvest(&cpu, range, |_, word| dirty = word);
                dirty
            })
        };
        let _ = collapse(&boot);
        assert_eq!(other.join().unwrap(), 1, "a write is lost");
        assert_right(&boot, 1);
    });
}

#[test]
fn a_harvest_loses_no_write_to_a_collapse() {
    collapse_against_harvest(None);
}

#[test]
#[should_panic(expected = "a write is lost")]
fn trusting_the_link_a_harvest_would() {
    collapse_against_harvest(Some(Weakness::TrustLink));
}

fn two_collapses(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let (shared, boot) = full(RW, false);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                let _ = collapse(&cpu);
                cpu.shares.get()
            })
        };
        let _ = collapse(&boot);
        let shares = boot.shares.get() + other.join().unwrap();
        assert_right(&boot, 0);
        assert_right(&boot, 1);
        assert_eq!(leaf(&boot, 0).unwrap().1, Level::L2);
        assert_eq!(shares, 1, "the block's");
        assert_left_empty(&boot);
    });
}

#[test]
fn two_collapses_make_one_block() {
    two_collapses(None);
}

/// Retired twice, it is its own next in limbo, and the end of that is never found.
#[test]
#[should_panic(expected = "exceeded maximum number of branches")]
fn two_collapses_by_store_would_take_the_table_twice() {
    two_collapses(Some(Weakness::ExchangeByStore));
}

/// Set replaces page 0: what it has broken when the collapse raises its mark, it makes all the same.
fn collapse_against_set(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let (shared, boot) = full(RW, false);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                (cpu.set(0).is_ok(), cpu.shares.get())
            })
        };
        let _ = collapse(&boot);
        let (is_set, shares) = other.join().unwrap();
        assert!(leaf(&boot, 0).is_some(), "a mapping is lost");
        assert_right(&boot, 1);
        let is_block = leaf(&boot, 1).unwrap().1 == Level::L2;
        assert!(!(is_set && is_block), "the page that was set is no part of a block");
        assert_eq!(boot.shares.get() + shares, if is_block { 1 } else { 2 });
        assert_left_empty(&boot);
    });
}

#[test]
fn a_collapse_drops_nothing_that_set_has_broken() {
    collapse_against_set(None);
}

#[test]
#[should_panic(expected = "a mapping is lost")]
fn a_loud_mark_would() {
    collapse_against_set(Some(Weakness::QuietIsLoud));
}

fn two_splits(weakness: Option<Weakness>, bbm2: bool) {
    model(weakness, 4, move || {
        let (shared, boot) = block(bbm2, RW);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                cpu.give_page(2);
                assert_eq!(split(&cpu), Outcome::done(2));
                (cpu.shares.get(), cpu.free_pages())
            })
        };
        assert_eq!(split(&boot), Outcome::done(2));
        let (shares, pages) = other.join().unwrap();
        assert_right(&boot, 0);
        assert_right(&boot, 1);
        assert_eq!(leaf(&boot, 0).unwrap().1, Level::L3);
        assert_eq!(boot.free_pages() + pages, 1, "one table is in use");
        assert_eq!(boot.shares.get() + shares, 2, "a share a page");
    });
}

#[test]
fn two_splits_make_one_table() {
    two_splits(None, true);
}

#[test]
#[should_panic(expected = "one table is in use")]
fn two_splits_by_store_would_make_two() {
    two_splits(Some(Weakness::SplitByStore), true);
}

#[test]
fn two_splits_by_break_make_one_table() {
    two_splits(None, false);
}

/// A split by call, and an unmap of a page of the block: the page goes, the other stays or is reported.
fn split_against_unmap(weakness: Option<Weakness>, bbm2: bool) {
    model(weakness, 3, move || {
        let (shared, boot) = block(bbm2, RW);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                cpu.give_page(2);
                let range = shared.vm.range(Ipa(0), 1).unwrap();
                assert_eq!(shared.vm.unmap(&cpu, range, &mut NoDirty), Outcome::done(1));
                assert!(leaf(&cpu, 0).is_none(), "mapped past the unmap");
                cpu.shares.get()
            })
        };
        let _ = split(&boot);
        let shares = boot.shares.get() + other.join().unwrap();
        assert!(leaf(&boot, 0).is_none(), "mapped past the unmap");
        assert_eq!(shares, i64::from(leaf(&boot, 1).is_some()), "each leaf is reported once");
        if bbm2 {
            assert_right(&boot, 1);
        }
    });
}

#[test]
fn no_split_gets_past_an_unmap() {
    split_against_unmap(None, false);
}

#[test]
#[should_panic(expected = "mapped past the unmap")]
fn a_split_that_asked_nobody_would() {
    split_against_unmap(Some(Weakness::SplitUnasked), false);
}

#[test]
fn no_split_without_a_break_gets_past_an_unmap() {
    split_against_unmap(None, true);
}

#[test]
#[should_panic(expected = "mapped past the unmap")]
fn a_split_without_a_break_by_store_would() {
    split_against_unmap(Some(Weakness::SplitByStore), true);
}

/// A map into a table that is empty, and about to be reclaimed.
fn reclaim_against_map(weakness: Option<Weakness>) {
    model(weakness, 5, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        let one = shared.vm.range(Ipa(PAGE), 1).unwrap();
        assert_eq!(shared.vm.unmap(&boot, one, &mut NoDirty), Outcome::done(1));
        let number = shared.vm.sequence();
        let mapper = {
            let shared = shared.clone();
            thread::spawn(move || Cpu::new(&shared, 1, 2).map(0, number))
        };
        assert_eq!(shared.vm.reclaim_tables(&boot, both(&shared)), Outcome::done(2));
        let mapped = mapper.join().unwrap() == Outcome::done(1);
        assert_eq!(leaf(&boot, 0).is_some(), mapped, "a mapping is lost");
    });
}

#[test]
fn reclaim_loses_no_mapping() {
    reclaim_against_map(None);
}

#[test]
#[should_panic(expected = "a mapping is lost")]
fn without_the_wait_of_reclaim_one_would_be() {
    reclaim_against_map(Some(Weakness::ReclaimWithoutWait));
}
