//! One entry, several writers: ageing, faults, the walker, and whoever takes the leaf away.
#![cfg(loom)]

mod loom_support;

use loom::sync::atomic::Ordering;
use loom::thread;
use loom_support::{Cpu, Shared, model};
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

/// A table is unlinked and freed on one CPU while another walks through it.
fn unlink_against_walk(weakness: Option<Weakness>) {
    model(weakness, 5, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        let walker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                cpu.enter_el2();
                let at = verdigris_stage2::walk::find(&cpu, shared.vm.root(), Ipa(4096));
                if at.level == Level::L3 {
                    let _ = at.entry().read();
                    assert!(!shared.freed.load(Ordering::Relaxed), "walked through a freed table");
                }
                cpu.leave_el2();
            })
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
#[test]
fn write_protection_waits_for_what_is_being_made() {
    model(None, 4, || {
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
