//! The dirty state: what guests write is told by a harvest, or stands in the leaf. And the permissions
//! that it hangs on: taken by write-protection, given by faults.
//!
//! A guest writes through its TLB, which notes nothing, or by a walk, which notes the write in the leaf and
//! fills the TLB. Between the two the hardware may be at any point; a write and the completion of an
//! invalidation are serialised, since a DSB waits for the writes that used what it invalidates.
#![cfg(loom)]

mod loom_support;

use loom::sync::Arc;
use loom::sync::atomic::Ordering;
use loom::thread;
use loom_support::{Cpu, Shared, model};
use verdigris_abi::flags::{MAP_CLEAN, MAP_OLD, PROT_READ, PROT_WRITE};
use verdigris_stage2::sync::Weakness;
use verdigris_stage2::{Access, AgeFlush, FaultKind, Ipa, Level, Map, Outcome, Range, Resolution};

const RW: u64 = PROT_READ | PROT_WRITE;

fn page(shared: &Shared, page: u64) -> Range {
    shared.vm.range(Ipa(page * 4096), 1).unwrap()
}

/// Harvests a page; tells whether it was dirty.
fn harvest(cpu: &Cpu, number: u64) -> bool {
    let mut dirty = false;
    let range = page(&cpu.shared, number);
    let done = cpu.shared.vm.harvest(cpu, range, |_, word| dirty = word & 1 != 0);
    assert_eq!(done, Outcome::done(1));
    dirty
}

fn protect(cpu: &Cpu) {
    let range = page(&cpu.shared, 0);
    assert_eq!(cpu.shared.vm.write_protect(cpu, range), Outcome::done(1));
}

/// Writes to page 0 as a guest on a CPU, whose faults EL2 answers; `false` where the host would have to.
fn write(cpu: &Cpu, value: u64) -> bool {
    while !cpu.shared.write(0, value) {
        let kind = FaultKind::Permission;
        let answer = cpu.shared.vm.resolve_fault(cpu, Ipa(0), Access::Write, kind);
        if matches!(answer, Resolution::ToHost { .. }) {
            return false;
        }
    }
    true
}

fn leaf(cpu: &Cpu, page: u64) -> verdigris_stage2::Descriptor {
    cpu.shared.vm.leaf(cpu, Ipa(page * 4096)).expect("a mapping is lost").0
}

/// A VM with page 0 clean and granted.
fn clean_page(hd: bool) -> (Arc<Shared>, Cpu) {
    let shared = Shared::with_writers(hd);
    let boot = Cpu::new(&shared, 0, 2);
    assert_eq!(boot.map_as(RW | MAP_CLEAN), Outcome::done(1));
    (shared, boot)
}

/// A live migration: a guest writes, the host harvests and copies; at the end it stops the guest, and copies
/// what is dirty. The copy has the last write.
fn harvest_against_writes(weakness: Option<Weakness>, hd: bool) {
    model(weakness, 3, move || {
        let (shared, boot) = clean_page(hd);
        let guest = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                assert!(write(&cpu, 1) && write(&cpu, 2));
            })
        };
        let mut copy = 0;
        let mut round = || {
            if harvest(&boot, 0) {
                copy = shared.memory[0].load(Ordering::Relaxed);
            }
        };
        round();
        guest.join().unwrap();
        round();
        assert_eq!(copy, 2, "a write is lost");
    });
}

#[test]
fn harvest_loses_no_write_that_the_walker_notes() {
    harvest_against_writes(None, true);
}

#[test]
#[should_panic(expected = "a write is lost")]
fn harvest_that_answers_before_its_invalidation_would() {
    harvest_against_writes(Some(Weakness::AnswerEarly), true);
}

#[test]
fn harvest_loses_no_write_that_a_fault_notes() {
    harvest_against_writes(None, false);
}

#[test]
#[should_panic(expected = "a write is lost")]
fn without_the_invalidation_faults_would_not_come() {
    harvest_against_writes(Some(Weakness::AnswerEarly), false);
}

/// A guest writes to a page that is dirty, and so old that no TLB holds it, while it is harvested.
fn harvest_against_touch(weakness: Option<Weakness>) {
    model(weakness, 6, || {
        let shared = Shared::with_writers(true);
        let boot = Cpu::new(&shared, 0, 2);
        assert_eq!(boot.map_as(RW | MAP_OLD), Outcome::done(1));
        let guest = {
            let shared = shared.clone();
            thread::spawn(move || assert!(shared.write(0, 1)))
        };
        assert!(harvest(&boot, 0), "a page counts as dirty until it is harvested");
        guest.join().unwrap();
        assert!(leaf(&boot, 0).is_young(), "a touch is lost");
    });
}

#[test]
fn harvest_keeps_what_the_walker_sets() {
    harvest_against_touch(None);
}

#[test]
#[should_panic(expected = "a touch is lost")]
fn harvest_by_store_would_not() {
    harvest_against_touch(Some(Weakness::ClearByStore));
}

/// A guest writes to page 0 while it is write-protected: the write counts, or it faults.
fn protect_against_writes(weakness: Option<Weakness>) {
    model(weakness, 5, || {
        let (shared, boot) = clean_page(true);
        let guest = {
            let shared = shared.clone();
            thread::spawn(move || shared.write(0, 1))
        };
        protect(&boot);
        let seen = shared.memory[0].load(Ordering::Relaxed);
        assert!(!shared.holds(), "writable past the return");
        let wrote = guest.join().unwrap();
        assert_eq!(wrote, seen == 1, "written past the return");
        let now = leaf(&boot, 0);
        assert!(!now.is_writable() && !now.is_granted());
        assert!(now.is_dirty() == wrote, "a write is lost");
    });
}

#[test]
fn write_protection_loses_no_write_that_the_walker_notes() {
    protect_against_writes(None);
}

#[test]
#[should_panic(expected = "a write is lost")]
fn write_protection_by_store_would() {
    protect_against_writes(Some(Weakness::ProtectByStore));
}

#[test]
#[should_panic(expected = "writable past the return")]
fn write_protection_that_answers_before_its_invalidation_would() {
    protect_against_writes(Some(Weakness::AnswerEarly));
}

/// Two CPUs clean or protect the same page, which a TLB holds writable: whichever returns, it doesn't any
/// more.
fn both_at_once(weakness: Option<Weakness>, call: fn(&Cpu)) {
    model(weakness, 4, move || {
        let (shared, boot) = clean_page(true);
        assert!(shared.write(0, 1));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                call(&Cpu::new(&shared, 1, 2));
                assert!(!shared.holds(), "returned before it is finished");
            })
        };
        call(&boot);
        assert!(!shared.holds(), "returned before it is finished");
        other.join().unwrap();
    });
}

#[test]
fn what_is_clean_is_finished_before_a_harvest_returns() {
    both_at_once(None, |cpu| _ = harvest(cpu, 0));
}

#[test]
#[should_panic(expected = "returned before it is finished")]
fn trusting_what_is_clean_would_return_early() {
    both_at_once(Some(Weakness::TrustGone), |cpu| _ = harvest(cpu, 0));
}

#[test]
fn what_is_protected_is_finished_before_a_call_returns() {
    both_at_once(None, protect);
}

#[test]
#[should_panic(expected = "returned before it is finished")]
fn looking_at_the_batches_without_a_barrier_would_return_early() {
    both_at_once(Some(Weakness::FoundBarrier), protect);
}

/// Ageing on one CPU, and on the other a permission that is added: neither undoes the other.
fn relax_against_age(weakness: Option<Weakness>, before: u64, relax: fn(&Cpu)) {
    model(weakness, 6, move || {
        let shared = Shared::with_writers(false);
        let boot = Cpu::new(&shared, 0, 2);
        assert_eq!(boot.map_as(before), Outcome::done(1));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut young = false;
                let sink = |_, word| young = word & 1 != 0;
                let cpu = Cpu::new(&shared, 1, 2);
                let _ = shared.vm.age(&cpu, page(&shared, 0), AgeFlush::None, sink);
                young
            })
        };
        relax(&boot);
        assert!(other.join().unwrap(), "a touch is lost");
        let now = leaf(&boot, 0);
        let is_relaxed = now.is_writable() && now.is_granted();
        assert!(is_relaxed && !now.is_young(), "one undoes the other");
    });
}

fn relax_by_fault(cpu: &Cpu) {
    let kind = FaultKind::Permission;
    let answer = cpu.shared.vm.resolve_fault(cpu, Ipa(0), Access::Write, kind);
    assert_eq!(answer, Resolution::Resolved);
}

fn relax_by_map(cpu: &Cpu) {
    assert_eq!(cpu.map_as(RW), Outcome::done(1));
}

#[test]
fn a_write_fault_and_an_age_undo_nothing() {
    relax_against_age(None, RW | MAP_CLEAN, relax_by_fault);
}

#[test]
#[should_panic(expected = "one undoes the other")]
fn a_write_fault_by_store_would() {
    relax_against_age(Some(Weakness::ExchangeByStore), RW | MAP_CLEAN, relax_by_fault);
}

#[test]
#[should_panic(expected = "one undoes the other")]
fn an_age_by_store_would() {
    relax_against_age(Some(Weakness::ClearByStore), RW | MAP_CLEAN, relax_by_fault);
}

#[test]
fn a_map_that_relaxes_and_an_age_undo_nothing() {
    relax_against_age(None, PROT_READ, relax_by_map);
}

#[test]
#[should_panic(expected = "one undoes the other")]
fn a_map_that_relaxes_by_store_would() {
    relax_against_age(Some(Weakness::ExchangeByStore), PROT_READ, relax_by_map);
}

/// A VM with a block of two pages, clean.
fn clean_block() -> (Arc<Shared>, Cpu) {
    use verdigris_stage2::{Attributes, Config, Pa};
    let config = Config { fwb: true, dic: true, hd: true, ..Config::default() };
    let shared = Shared::empty(config, 2, Some(loom::sync::Mutex::new(false)), false);
    let boot = Cpu::new(&shared, 0, 2);
    let (ipa, pa, page_count, level) = (Ipa(0), Pa(0x8000), 2, Level::L2);
    let attributes = Attributes::guest(RW | MAP_CLEAN);
    let request = Map { ipa, pa, page_count, level, attributes, sequence: 0 };
    assert_eq!(shared.vm.map(&boot, &request), Outcome::done(2));
    (shared, boot)
}

/// A guest writes to the page of a block that the call doesn't ask about: that is told when it is asked for.
#[test]
fn a_harvest_of_half_a_block_loses_no_write_to_the_rest() {
    model(None, 5, || {
        let (shared, boot) = clean_block();
        let guest = {
            let shared = shared.clone();
            thread::spawn(move || assert!(shared.write(1, 1)))
        };
        harvest(&boot, 0);
        guest.join().unwrap();
        assert!(harvest(&boot, 1), "a write is lost");
    });
}

/// Two CPUs harvest a half each of a block that is dirty: each is told so.
fn halves_at_once(weakness: Option<Weakness>) {
    model(weakness, 2, || {
        let (shared, boot) = clean_block();
        assert!(shared.write(1, 1));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || assert!(harvest(&Cpu::new(&shared, 1, 2), 0), "a write is lost"))
        };
        assert!(harvest(&boot, 1), "a write is lost");
        other.join().unwrap();
    });
}

#[test]
fn both_halves_of_a_block_are_harvested_at_once() {
    halves_at_once(None);
}

#[test]
#[should_panic(expected = "a write is lost")]
fn remembering_the_rest_of_a_block_late_would_lose_it() {
    halves_at_once(Some(Weakness::OrphansLate));
}
