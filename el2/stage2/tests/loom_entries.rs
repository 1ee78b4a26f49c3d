//! One entry, several writers: ageing, faults, the walker, and whoever takes the leaf away.
#![cfg(loom)]

mod loom_support;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use loom_support::{Cpu, Shared, model};
use verdigris_stage2::batches::Batches;
use verdigris_stage2::entry::verdigris_test_and_clear_young;
use verdigris_stage2::sync::Weakness;
use verdigris_stage2::{Access, AgeFlush, Attributes, FaultKind, Ipa, Level, NoDirty, Outcome, Pa};

/// Ages page 0; tells whether it was young.
fn age(cpu: &Cpu) -> bool {
    let mut young = false;
    let range = cpu.shared.vm.range(Ipa(0), 1).unwrap();
    let done = cpu.shared.vm.age(cpu, range, AgeFlush::None, |_, word| young = word & 1 != 0);
    assert_eq!(done, Outcome::done(1));
    young
}

/// The walker sets AF on an old leaf, and the dirty state on a clean one, at any moment.
fn age_against_hardware(weakness: Option<Weakness>) {
    model(weakness, 6, || {
        let shared = Shared::new();
        let leaf = Attributes::guest(1).leaf(Pa(0x8000), Level::L3, true, false);
        shared.entry(0).replace(leaf);
        let walker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let touched = shared.entry(0).set_young(Level::L3).is_ok();
                // A write to a clean page: AF and the permission to write, by one exchange.
                let dirty = |old: verdigris_stage2::Descriptor| {
                    Some(old.with_young(true).with_permissions_of(writable()))
                };
                shared.entry(0).update_leaf(Level::L3, dirty).unwrap();
                touched
            })
        };
        let young = verdigris_test_and_clear_young(std::slice::from_ref(shared.entry(0))) != 0;
        walker.join().unwrap();
        let now = shared.entry(0).read();
        assert!(now.is_writable(), "a dirty state is lost");
        assert!(now.is_young() || young, "a touch is lost");
        assert_eq!(now.leaf_address(Level::L3), Some(Pa(0x8000)));
    });
}

fn writable() -> verdigris_stage2::Descriptor {
    Attributes::guest(verdigris_abi::flags::PROT_WRITE).leaf(Pa(0x8000), Level::L3, true, false)
}

#[test]
fn ageing_loses_nothing_that_the_walker_sets() {
    age_against_hardware(None);
}

#[test]
#[should_panic(expected = "a dirty state is lost")]
fn ageing_by_store_would() {
    age_against_hardware(Some(Weakness::ClearByStore));
}

/// Ageing on one CPU, the walker on another, unmap on a third: what is gone stays gone.
fn age_against_unmap(weakness: Option<Weakness>) {
    model(weakness, 5, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        assert_eq!(boot.map(0, 0), Outcome::done(1));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || age(&Cpu::new(&shared, 1, 2)))
        };
        let range = shared.vm.range(Ipa(0), 1).unwrap();
        assert_eq!(shared.vm.unmap(&boot, range, &mut NoDirty), Outcome::done(1));
        assert!(!shared.is_mapped(0), "resurrected");
        other.join().unwrap();
        assert!(!shared.is_mapped(0), "resurrected");
        assert_eq!(boot.removed.get(), 1);
    });
}

#[test]
fn ageing_resurrects_nothing() {
    age_against_unmap(None);
}

#[test]
#[should_panic(expected = "resurrected")]
fn ageing_by_store_would_resurrect() {
    age_against_unmap(Some(Weakness::ClearByStore));
}

/// An access-flag fault on one CPU, unmap on another.
fn fault_against_unmap(weakness: Option<Weakness>) {
    model(weakness, 5, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        assert_eq!(boot.map(0, 0), Outcome::done(1));
        age(&boot);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                let _ = shared.vm.resolve_fault(&cpu, Ipa(0), Access::Read, FaultKind::AccessFlag);
            })
        };
        let range = shared.vm.range(Ipa(0), 1).unwrap();
        assert_eq!(shared.vm.unmap(&boot, range, &mut NoDirty), Outcome::done(1));
        assert!(!shared.is_mapped(0), "resurrected");
        other.join().unwrap();
        assert!(!shared.is_mapped(0), "resurrected");
    });
}

#[test]
fn a_fault_resurrects_nothing() {
    fault_against_unmap(None);
}

#[test]
#[should_panic(expected = "resurrected")]
fn a_fault_by_store_would() {
    fault_against_unmap(Some(Weakness::YoungByStore));
}

/// Two CPUs unmap the same page: whichever returns, no TLB holds it, and it is reported once.
fn unmap_against_unmap(weakness: Option<Weakness>) {
    model(weakness, 5, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        assert_eq!(boot.map(0, 0), Outcome::done(1));
        shared.cached.store(true, Ordering::Relaxed);
        let unmap = |cpu: &Cpu| {
            let range = cpu.shared.vm.range(Ipa(0), 1).unwrap();
            assert_eq!(cpu.shared.vm.unmap(cpu, range, &mut NoDirty), Outcome::done(1));
            let cached = cpu.shared.cached.load(Ordering::Relaxed);
            assert!(!cached, "returned before it is finished");
            cpu.removed.get()
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || unmap(&Cpu::new(&shared, 1, 2)))
        };
        let here = unmap(&boot);
        assert_eq!(other.join().unwrap() + here, 1, "reported once");
    });
}

#[test]
fn what_is_gone_is_finished_before_a_call_returns() {
    unmap_against_unmap(None);
}

#[test]
#[should_panic(expected = "returned before it is finished")]
fn trusting_what_is_gone_would_return_early() {
    unmap_against_unmap(Some(Weakness::TrustGone));
}

#[test]
#[should_panic(expected = "returned before it is finished")]
fn a_removal_that_publishes_nothing_would_return_early() {
    unmap_against_unmap(Some(Weakness::ExchangeRelaxed));
}

#[test]
#[should_panic(expected = "reported once")]
fn a_removal_by_store_would_report_a_leaf_twice() {
    unmap_against_unmap(Some(Weakness::ExchangeByStore));
}

/// Two CPUs unmap the whole span of a table: one unlinks it, and either may take its leaves.
fn unlink_against_unlink(weakness: Option<Weakness>) {
    model(weakness, 3, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        assert_eq!(boot.map(0, 0), Outcome::done(1));
        let unmap = |cpu: &Cpu| {
            let range = cpu.shared.vm.range(Ipa(0), 2).unwrap();
            assert_eq!(cpu.shared.vm.unmap(cpu, range, &mut NoDirty), Outcome::done(2));
            cpu.removed.get()
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || unmap(&Cpu::new(&shared, 1, 2)))
        };
        let here = unmap(&boot);
        assert_eq!(here + other.join().unwrap(), 2, "each leaf is reported once");
    });
}

#[test]
fn each_leaf_of_a_table_is_reported_once() {
    unlink_against_unlink(None);
}

#[test]
#[should_panic(expected = "each leaf is reported once")]
fn draining_by_store_would_report_a_leaf_twice() {
    unlink_against_unlink(Some(Weakness::ClearByStore));
}

/// The same in short, for a third CPU that begins and ends a batch of its own.
fn gone_and_another_batch(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let batches = Arc::new(Batches::new());
        let (present, cached) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let remover = {
            let (batches, present, cached) = (batches.clone(), present.clone(), cached.clone());
            thread::spawn(move || {
                let batch = batches.begin();
                present.store(false, Ordering::Release);
                cached.store(false, Ordering::Release);
                drop(batch);
            })
        };
        let third = {
            let batches = batches.clone();
            thread::spawn(move || drop(batches.begin()))
        };
        if !present.load(Ordering::Acquire) && !batches.under_way() {
            assert!(!cached.load(Ordering::Relaxed), "returned before it is finished");
        }
        remover.join().unwrap();
        third.join().unwrap();
    });
}

#[test]
fn another_batch_that_ends_hides_none() {
    gone_and_another_batch(None);
}

#[test]
#[should_panic(expected = "returned before it is finished")]
fn reading_what_began_first_would_hide_one() {
    gone_and_another_batch(Some(Weakness::GoneReadsSwapped));
}

/// Two CPUs map the same page, as when two vCPUs fault on it at once: one share, and nothing is lost.
fn map_against_map(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                assert_eq!(cpu.map(0, 0), Outcome::done(1));
                cpu.shares.get()
            })
        };
        assert_eq!(boot.map(0, 0), Outcome::done(1));
        assert_eq!(boot.shares.get() + other.join().unwrap(), 1, "a share for each leaf");
        assert!(shared.is_mapped(0) && shared.is_mapped(1));
    });
}

#[test]
fn two_maps_take_one_share() {
    map_against_map(None);
}

#[test]
#[should_panic(expected = "a share for each leaf")]
fn two_maps_by_store_would_take_two() {
    map_against_map(Some(Weakness::ExchangeByStore));
}

/// Walks in software, through a table that must not be freed meanwhile.
fn walk(cpu: &Cpu) {
    cpu.enter_el2();
    let at = verdigris_stage2::walk::find(cpu, cpu.shared.vm.root(), Ipa(4096));
    if at.level == Level::L3 {
        let _ = at.entry().read();
        assert!(!cpu.shared.freed.load(Ordering::Relaxed), "walked through a freed table");
    }
    cpu.leave_el2();
}

/// A table is unlinked and freed on one CPU while another walks through it.
fn unlink_against_walk(weakness: Option<Weakness>) {
    model(weakness, 5, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        let walker = {
            let shared = shared.clone();
            thread::spawn(move || walk(&Cpu::new(&shared, 1, 2)))
        };
        boot.enter_el2();
        let range = shared.vm.range(Ipa(0), 2).unwrap();
        assert_eq!(shared.vm.unmap(&boot, range, &mut NoDirty), Outcome::done(2));
        for _ in 0..2 {
            shared.vm.reap(&boot);
            boot.leave_el2();
            boot.enter_el2();
        }
        shared.vm.reap(&boot);
        walker.join().unwrap();
        assert_eq!(boot.removed.get(), 1);
    });
}

/// The same with a third CPU that finds the table retired, and frees it.
fn unlink_against_walk_and_reap(weakness: Option<Weakness>) {
    model(weakness, 3, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 3);
        let walker = {
            let shared = shared.clone();
            thread::spawn(move || walk(&Cpu::new(&shared, 1, 3)))
        };
        let reaper = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 2, 3);
                shared.vm.reap(&cpu);
                shared.vm.reap(&cpu);
            })
        };
        let range = shared.vm.range(Ipa(0), 2).unwrap();
        assert_eq!(shared.vm.unmap(&boot, range, &mut NoDirty), Outcome::done(2));
        walker.join().unwrap();
        reaper.join().unwrap();
    });
}

#[test]
fn no_table_is_freed_under_a_walk_by_a_third_cpu() {
    unlink_against_walk_and_reap(None);
}

#[test]
#[should_panic(expected = "walked through a freed table")]
fn coming_in_without_a_barrier_would_have_it_freed() {
    unlink_against_walk_and_reap(Some(Weakness::PresenceBarrier));
}

#[test]
#[should_panic(expected = "walked through a freed table")]
fn coming_in_without_a_barrier_would() {
    unlink_against_walk(Some(Weakness::PresenceBarrier));
}

#[test]
fn no_table_is_freed_under_a_walk() {
    unlink_against_walk(None);
}

#[test]
#[should_panic(expected = "walked through a freed table")]
fn freeing_at_once_would() {
    unlink_against_walk(Some(Weakness::FreeAtOnce));
}

/// Write-protect meets an entry that set has broken: what set makes is protected too.
fn protect_against_set(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        assert_eq!(boot.map(0, 0), Outcome::done(1));
        let setter = {
            let shared = shared.clone();
            thread::spawn(move || assert_eq!(Cpu::new(&shared, 1, 2).set(0).map(drop), Ok(())))
        };
        let range = shared.vm.range(Ipa(0), 1).unwrap();
        assert_eq!(shared.vm.write_protect(&boot, range), Outcome::done(1));
        assert!(!shared.entry(0).read().is_writable(), "writable past the return");
        setter.join().unwrap();
        assert!(!shared.entry(0).read().is_writable(), "writable past the return");
        assert!(shared.is_mapped(0));
    });
}

#[test]
fn write_protection_waits_for_what_is_being_made() {
    protect_against_set(None);
}

#[test]
#[should_panic(expected = "writable past the return")]
fn passing_by_what_is_being_made_would_leave_it_writable() {
    protect_against_set(Some(Weakness::PassBusy));
}
