//! Set, write-protect and faults: leaves that change while they stay, or give way to another.
#![cfg(not(loom))]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use support::model::*;
use support::{Machine, Step};
use verdigris_abi::flags::{MAP_CLEAN, MAP_OLD};
use verdigris_stage2::{
    Access, AgeFlush, Config, Error, FaultKind, Ipa, Level, NoDirty, Outcome, Resolution, Set,
    Stage2, Stat,
};

const HOT: &[u64] = &[0x1000, 0x2000, 0x20_0000];

fn vm() -> (Machine, Stage2) {
    let config = Config { dic: true, ttl: true, ..Config::default() };
    Machine::with_vm(40, 40, config, HOT)
}

fn raw(machine: &Machine, vm: &Stage2, ipa: u64) -> u64 {
    machine.walk(vm.root().geometry(), ipa).map_or(0, |(raw, _)| raw)
}

/// What a permission that was added takes.
fn locally(ipa: u64) -> [Step; 5] {
    [Step::DsbIshst, Step::Isb, Step::Enter, Step::Local(ipa), Step::Leave]
}

fn protect(machine: &Machine, vm: &Stage2, ipa: u64, page_count: u64) -> Outcome {
    vm.write_protect(machine, vm.range(Ipa(ipa), page_count).unwrap())
}

#[test]
fn set_breaks_invalidates_and_makes() {
    let (machine, vm) = vm();
    let geometry = vm.root().geometry();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    machine.take_steps();
    machine.watch(move |machine, step| {
        let stands = machine.walk(geometry, 0x1000).map(|(raw, _)| raw & 0xffff_ffff_f000);
        let expected = match step {
            Step::Clean(..) => Some(0x8000_0000),
            Step::DsbIshst | Step::CleanInvalidate(..) | Step::Removed(_) => Some(0x9000_0000),
            Step::Isb => stands,
            _ => None,
        };
        assert_eq!(stands, expected, "{step:?}");
    });
    assert_eq!(vm.set(&machine, &set(0x1000, 0x9000_0000, RW)), Ok(true));
    machine.unwatch();
    assert_eq!(
        machine.take_steps(),
        [
            Step::Clean(0x9000_0000, 4096),
            Step::DsbIsh,
            Step::Enter,
            Step::Ipa(0x1000, Some(3)),
            Step::DsbIsh,
            Step::Stage1,
            Step::DsbIsh,
            Step::Isb,
            Step::Leave,
            Step::DsbIshst,
            Step::Isb,
            Step::CleanInvalidate(0x8000_0000, 4096),
            Step::Removed(0x1000),
        ]
    );
    assert_eq!(raw(&machine, &vm, 0x1000), 0x9000_0000 | DATA | 3);
    assert_eq!(machine.take_removed()[0].pa.0, 0x8000_0000);
    assert_eq!(machine.shares.borrow().keys().collect::<Vec<_>>(), [&(0x9000_0000, 3)]);
    assert_eq!(machine.stat(Stat::LeavesSet), 1);
}

#[test]
fn set_invalidates_an_old_leaf_too() {
    // Aged without a flush: old in memory, and still in a TLB.
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    machine.take_steps();
    let range = vm.range(Ipa(0x1000), 1).unwrap();
    assert_eq!(vm.age(&machine, range, AgeFlush::None, |_, _| {}), Outcome::done(1));
    assert!(!machine.tlb.borrow().as_ref().unwrap().is_empty());
    assert_eq!(vm.set(&machine, &set(0x1000, 0x9000_0000, RW)), Ok(true));
    assert!(machine.tlb.borrow().as_ref().unwrap().is_empty(), "not one entry of the old page");
    assert_eq!(raw(&machine, &vm, 0x1000), 0x9000_0000 | DATA & !YOUNG | 3, "old stays old");
}

#[test]
fn set_maps_where_nothing_stood() {
    let (machine, vm) = vm();
    assert_eq!(vm.set(&machine, &set(0x1000, 0x9000_0000, RW)), Ok(false));
    assert_eq!(raw(&machine, &vm, 0x1000), 0x9000_0000 | DATA | 3);
    assert_eq!(machine.stat(Stat::TlbiStage1) + machine.stat(Stat::TlbiVmid), 0);
    assert_eq!(machine.stat(Stat::LeavesMapped), 1);
}

#[test]
fn set_respects_write_protection() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 2, RW));
    assert_eq!(protect(&machine, &vm, 0x1000, 1), Outcome::done(1));
    let dirty = Ok(true);
    assert_eq!(
        vm.set(&machine, &set(0x1000, 0x9000_0000, RW)),
        dirty,
        "protected, and written before"
    );
    assert_eq!(raw(&machine, &vm, 0x1000), 0x9000_0000 | GUEST | YOUNG | NO_EXEC | 3);
    assert_eq!(vm.set(&machine, &set(0x1000, 0x9000_2000, RW)), Ok(false), "not written since");
    assert_eq!(vm.set(&machine, &set(0x2000, 0x9000_1000, 1)), Ok(true), "read-only as asked");
    assert_eq!(raw(&machine, &vm, 0x2000), 0x9000_1000 | GUEST | YOUNG | NO_EXEC | 3);
}

#[test]
fn set_of_the_same_page_changes_permissions_in_place() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    machine.take_steps();
    assert_eq!(vm.set(&machine, &set(0x1000, 0x8000_0000, RWX)), Ok(false), "dirty as before");
    assert_eq!(raw(&machine, &vm, 0x1000), 0x8000_0000 | GUEST | WRITE | YOUNG | 3);
    let steps = machine.take_steps();
    assert_eq!(steps[1..], locally(0x1000), "added: here only, and in the VM's context");
    assert_eq!(vm.set(&machine, &set(0x1000, 0x8000_0000, 1)), Ok(true));
    assert_eq!(raw(&machine, &vm, 0x1000), 0x8000_0000 | GUEST | YOUNG | NO_EXEC | 3);
    assert!(machine.take_steps().contains(&Step::Stage1), "removed: everywhere");
    machine.tlb.borrow().as_ref().unwrap().assert_no_writes(0, 0x2000);
    assert_eq!(machine.shares.borrow()[&(0x8000_0000, 3)], 1);
    assert!(machine.take_removed().is_empty());
}

#[test]
fn set_is_refused_as_map_is() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 2 * MIB, Level::L2));
    let before = all_leaves(&machine, 40, 1);
    let range = vm.range(Ipa(0x1000), 1).unwrap();
    let elsewhere = vm.range(Ipa(GIB), 1).unwrap();
    let _ = vm.unmap(&machine, elsewhere, &mut NoDirty);
    let request = set(0x1000, 0x9000_0000, RW);
    let refused = [
        (set(0x20_0000, 0xa000_0000, RW), Error::Exists),
        (Set { level: Level::L2, ..set(0, 0xa000_0000, RW) }, Error::Exists),
        (Set { sequence: 2, ..request }, Error::Retry),
        (set(0x1001, 0x9000_0000, RW), Error::Invalid),
        (set(0x1000, 0x9000_0001, RW), Error::Invalid),
        (set(1 << 40, 0x9000_0000, RW), Error::Invalid),
        (set(0x1000, 1 << 48, RW), Error::Invalid),
    ];
    for (request, error) in refused {
        assert_eq!(vm.set(&machine, &request), Err(error), "{request:?}");
    }
    machine.owned_below.set(0x9000_0000);
    assert_eq!(vm.set(&machine, &request), Err(Error::NotOwner));
    machine.owned_below.set(u64::MAX);
    assert_eq!(all_leaves(&machine, 40, 1), before);
    assert_eq!(machine.shares.borrow().len(), 2);
    let _ = vm.unmap(&machine, range, &mut NoDirty);
    assert_eq!(vm.set(&machine, &request), Err(Error::Retry));
}

#[test]
fn set_leaves_the_entry_invalid_if_an_invalidation_comes_between() {
    let (machine, vm) = vm();
    let vm = Rc::new(vm);
    let geometry = vm.root().geometry();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    machine.take_steps();
    let (other, done) = (vm.clone(), Cell::new(false));
    machine.watch(move |machine, step| {
        if step != Step::Stage1 || done.replace(true) {
            return;
        }
        // Other CPUs, while the entry is broken: a fault is to be retried, a map too, and an
        // invalidation finds the entry gone and makes sure that it really is.
        let tlb = machine.tlb.take();
        let cpu = machine.cpu.replace(1);
        let fault = |kind| other.resolve_fault(machine, Ipa(0x1000), Access::Read, kind);
        assert_eq!(fault(FaultKind::Translation), Resolution::Spurious);
        let again = map(0x1000, 0x8000_0000, 1, RW);
        assert_eq!(other.map(machine, &again), Outcome::stopped(0, Error::Retry));
        let before = machine.stat(Stat::TlbiStage1) + machine.stat(Stat::TlbiVmid);
        let range = other.range(Ipa(0x1000), 1).unwrap();
        assert_eq!(other.unmap(machine, range, &mut NoDirty), Outcome::done(1));
        let after = machine.stat(Stat::TlbiStage1) + machine.stat(Stat::TlbiVmid);
        assert_eq!(after, before + 1, "gone, but not yet finished");
        machine.cpu.set(cpu);
        machine.tlb.replace(tlb);
    });
    assert_eq!(vm.set(&machine, &set(0x1000, 0x9000_0000, RW)), Ok(true));
    machine.unwatch();
    assert_eq!(machine.walk(geometry, 0x1000), None);
    assert!(machine.shares.borrow().is_empty());
    assert_eq!(machine.stat(Stat::LeavesSet), 0);
}

#[test]
fn write_protection_takes_two_bits_notes_what_was_dirty_and_keeps_the_rest() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RWX));
    let _ = vm.map(&machine, &map(0x2000, 0x8000_1000, 1, RW | MAP_OLD));
    let _ = vm.map(&machine, &map(0x3000, 0x8000_2000, 1, 1));
    let before = all_leaves(&machine, 40, 1);
    machine.take_steps();
    assert_eq!(protect(&machine, &vm, 0, 512), Outcome::done(512));
    let after = all_leaves(&machine, 40, 1);
    for (old, new) in before.iter().zip(&after) {
        let written = (old.1 >> 7 & 1) << 56;
        assert_eq!(new.1, old.1 & !(1 << 7 | 1 << 55) | written);
    }
    machine.tlb.borrow().as_ref().unwrap().assert_no_writes(0, 0x20_0000);
    assert_eq!(machine.stat(Stat::LeavesProtected), 2);
    let by_ipa = machine.take_steps().iter().filter(|step| matches!(step, Step::Ipa(..))).count();
    assert_eq!(by_ipa, 2);
    assert_eq!(protect(&machine, &vm, 0, 512), Outcome::done(512));
    assert_eq!(machine.take_steps(), [], "nothing to take, nobody at it");
}

#[test]
fn write_protection_takes_the_grant_of_a_leaf_that_logs() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    let entry = support::tlb::entry(&machine, vm.root().geometry(), 0x1000, 3);
    entry.update_leaf(Level::L3, |old| Some(old.write_logged())).unwrap();
    machine.take_steps();
    assert_eq!(protect(&machine, &vm, 0x1000, 1), Outcome::done(1));
    assert_eq!(raw(&machine, &vm, 0x1000), 0x8000_0000 | GUEST | YOUNG | NO_EXEC | 3);
    assert_eq!(machine.take_steps(), [], "the grant is a bit that no TLB knows");
    let denied = Resolution::ToHost { sequence: 0, denied: true };
    assert_eq!(fault(&machine, &vm, Access::Write, FaultKind::Permission), denied);
}

/// The walker writes by the modifier (bit 51), which a TLB may hold with the leaf.
#[test]
fn write_protection_of_a_leaf_that_the_walker_logs_is_invalidated() {
    let config = Config { dic: true, ttl: true, hd: true, ..Config::default() };
    let (machine, vm) = Machine::with_vm(40, 40, config, HOT);
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW | MAP_CLEAN));
    assert_eq!(raw(&machine, &vm, 0x1000) >> 51 & 1, 1);
    machine.take_steps();
    assert_eq!(protect(&machine, &vm, 0x1000, 1), Outcome::done(1));
    assert_eq!(raw(&machine, &vm, 0x1000), 0x8000_0000 | GUEST | YOUNG | NO_EXEC | 3);
    assert!(machine.take_steps().contains(&Step::Ipa(0x1000, Some(3))));
}

#[test]
fn write_protection_takes_a_block_as_a_whole() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map_blocks(0x20_0000, 0x9000_0000, 4 * MIB, Level::L2));
    assert_eq!(protect(&machine, &vm, 0x20_5000, 3), Outcome::done(3));
    assert_eq!(raw(&machine, &vm, 0x20_0000) & WRITE, 0);
    assert_eq!(raw(&machine, &vm, 0x40_0000) & WRITE, WRITE);
    machine.interrupt_after.set(Some(0));
    assert_eq!(protect(&machine, &vm, 0, GIB / PAGE).pages, 512, "the first hole");
}

fn fault(machine: &Machine, vm: &Stage2, access: Access, kind: FaultKind) -> Resolution {
    machine.take_steps();
    vm.resolve_fault(machine, Ipa(0x1abc), access, kind)
}

#[test]
fn translation_faults_go_to_the_host_with_the_number() {
    let (machine, vm) = vm();
    let _ = vm.unmap(&machine, vm.range(Ipa(GIB), 1).unwrap(), &mut NoDirty);
    let to_host = Resolution::ToHost { sequence: 1, denied: false };
    assert_eq!(fault(&machine, &vm, Access::Read, FaultKind::Translation), to_host);
    let outside = vm.resolve_fault(&machine, Ipa(1 << 40), Access::Read, FaultKind::Translation);
    assert_eq!(outside, to_host);
    let request = verdigris_stage2::Map { sequence: 1, ..map(0x1000, 0x8000_0000, 1, 1) };
    assert_eq!(vm.map(&machine, &request), Outcome::done(1));
    assert_eq!(fault(&machine, &vm, Access::Read, FaultKind::Translation), Resolution::Spurious);
    assert_eq!(machine.stat(Stat::FaultTranslation), 3);
    assert_eq!(machine.stat(Stat::FaultSpurious), 1);
}

#[test]
fn access_flag_faults_are_resolved_without_an_invalidation() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW | MAP_OLD));
    assert_eq!(fault(&machine, &vm, Access::Read, FaultKind::AccessFlag), Resolution::Resolved);
    assert_eq!(raw(&machine, &vm, 0x1000), 0x8000_0000 | DATA | 3);
    assert_eq!(machine.take_steps(), []);
    assert_eq!(fault(&machine, &vm, Access::Read, FaultKind::AccessFlag), Resolution::Spurious);
    let _ = vm.unmap(&machine, vm.range(Ipa(0x1000), 1).unwrap(), &mut NoDirty);
    let to_host = Resolution::ToHost { sequence: 1, denied: false };
    assert_eq!(fault(&machine, &vm, Access::Read, FaultKind::AccessFlag), to_host);
    assert_eq!(vm.set_young(&machine, Ipa(0x1000)), to_host);
}

#[test]
fn permission_faults_are_relaxed_here_or_go_to_the_host() {
    let (machine, vm) = vm();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW));
    let local = locally(0x1000);
    // Another CPU relaxed the leaf already: this one may still hold the old one.
    let spurious = fault(&machine, &vm, Access::Write, FaultKind::Permission);
    assert_eq!(spurious, Resolution::Spurious);
    assert_eq!(machine.take_steps(), local);
    let denied = Resolution::ToHost { sequence: 0, denied: true };
    assert_eq!(fault(&machine, &vm, Access::Execute, FaultKind::Permission), denied);
    assert_eq!(protect(&machine, &vm, 0x1000, 1), Outcome::done(1));
    assert_eq!(fault(&machine, &vm, Access::Write, FaultKind::Permission), denied);
    assert_eq!(raw(&machine, &vm, 0x1000) & WRITE, 0, "write-protected is for the host to lift");
}

#[test]
fn a_granted_leaf_is_made_writable_in_place() {
    let (machine, vm) = vm();
    let geometry = vm.root().geometry();
    let _ = vm.map(&machine, &map(0x1000, 0x8000_0000, 1, RW | MAP_OLD));
    // What dirty logging leaves: granted, and not writable.
    let entry = support::tlb::entry(&machine, geometry, 0x1000, 3);
    entry.update_leaf(Level::L3, |old| Some(old.write_logged())).unwrap();
    assert_eq!(fault(&machine, &vm, Access::Write, FaultKind::Permission), Resolution::Resolved);
    assert_eq!(raw(&machine, &vm, 0x1000), 0x8000_0000 | DATA & !YOUNG | 3);
    assert_eq!(machine.take_steps(), locally(0x1000));
    entry.update_leaf(Level::L3, |old| Some(old.write_logged())).unwrap();
    assert_eq!(vm.set(&machine, &set(0x1000, 0x9000_0000, RW)), Ok(false));
    assert_eq!(raw(&machine, &vm, 0x1000) & WRITE, 1 << 55, "set keeps it clean, and granted");
}

fn with_page(machine: &Machine, vm: &Stage2, flags: u64) {
    assert_eq!(vm.map(machine, &map(0x1000, 0x8000_0000, 1, flags)), Outcome::done(1));
}

/// Ways to leave the page at 0x1000, for a fault to find.
const STATES: [fn(&Machine, &Stage2); 6] = [
    |_, _| (),
    |machine, vm| with_page(machine, vm, RW | MAP_OLD),
    |machine, vm| with_page(machine, vm, RW),
    |machine, vm| with_page(machine, vm, 1),
    |machine, vm| {
        with_page(machine, vm, RW);
        assert_eq!(protect(machine, vm, 0x1000, 1), Outcome::done(1));
    },
    |machine, vm| {
        with_page(machine, vm, RW);
        let entry = support::tlb::entry(machine, vm.root().geometry(), 0x1000, 3);
        entry.update_leaf(Level::L3, |old| Some(old.write_logged())).unwrap();
    },
];

/// What a fault may change.
fn seen(machine: &Machine, vm: &Stage2) -> (u64, Vec<Step>, [u64; Stat::COUNT]) {
    (raw(machine, vm, 0x1000), machine.take_steps(), *machine.stats.borrow())
}

#[test]
fn the_quick_way_does_what_the_long_way_would_or_nothing() {
    let kinds = [FaultKind::Translation, FaultKind::AccessFlag, FaultKind::Permission];
    let accesses = [Access::Read, Access::Write, Access::Execute];
    let mut mended = 0;
    for (number, state) in STATES.iter().enumerate() {
        for (access, kind) in accesses.iter().flat_map(|&access| kinds.map(|kind| (access, kind))) {
            let [(quick, vm), (long, other)] = [vm(), vm()];
            state(&quick, &vm);
            state(&long, &other);
            let (before, case) = (seen(&quick, &vm), (number, access, kind));
            let resolution = fault(&long, &other, access, kind);
            if vm.resolve_quickly(&quick, Ipa(0x1abc), access, kind) {
                mended += 1;
                assert_eq!(resolution, Resolution::Resolved, "{case:?}");
                assert_eq!(seen(&quick, &vm), seen(&long, &other), "{case:?}");
            } else {
                assert_ne!(resolution, Resolution::Resolved, "{case:?}");
                // A spurious fault has invalidated once more by then.
                if resolution != Resolution::Spurious {
                    assert_eq!(seen(&quick, &vm), (before.0, vec![], before.2), "{case:?}");
                }
            }
        }
    }
    assert_eq!(mended, 3 + 1, "the old leaf, whatever the access, and the write that is logged");
    let (machine, vm) = vm();
    assert!(!vm.resolve_quickly(&machine, Ipa(1 << 40), Access::Read, FaultKind::AccessFlag));
    assert!(!vm.resolve_quickly(&machine, Ipa(1 << 47), Access::Write, FaultKind::Permission));
}
