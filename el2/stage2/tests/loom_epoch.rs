//! The flush epoch against hardware AF: a page that is unmapped without an invalidation is in no TLB.
//!
//! One CPU ages the page and flushes nothing, another flushes the whole VM at some moment, the walker
//! touches the page at some moment, and a last CPU unmaps it. When unmap has returned, the TLB must be
//! without the page, and stay so. The walker sets the access flag of an old page and caches it; what it
//! cached before the flag was cleared stays cached.
#![cfg(loom)]

mod loom_support;

use loom::sync::Arc;
use loom::thread;
use loom_support::{Cpu, Shared, model};
use verdigris_stage2::sync::Weakness;
use verdigris_stage2::{AgeFlush, Ipa, NoDirty, Outcome, Range};

fn page(shared: &Shared) -> Range {
    shared.vm.range(Ipa(0), 1).unwrap()
}

/// Makes a VM with page 0 mapped, young and cached.
fn cached_page() -> Arc<Shared> {
    let shared = Shared::with_walker();
    assert_eq!(Cpu::new(&shared, 0, 1).map(0, 0), Outcome::done(1));
    shared.walk();
    assert!(shared.holds());
    shared
}

fn age(shared: &Arc<Shared>, number: usize) {
    let cpu = Cpu::new(shared, number, 3);
    let _ = shared.vm.age(&cpu, page(shared), AgeFlush::None, |_, _| {});
}

fn unmap(shared: &Arc<Shared>) {
    let cpu = Cpu::new(shared, 0, 3);
    assert_eq!(shared.vm.unmap(&cpu, page(shared), &mut NoDirty), Outcome::done(1));
    assert!(!shared.holds(), "in a TLB after the answer");
}

/// Age, flush, walk and unmap, each on its own.
fn epoch_against_hardware(weakness: Option<Weakness>) {
    model(weakness, 2, || {
        let shared = cached_page();
        let other = |act: fn(&Arc<Shared>)| {
            let shared = shared.clone();
            thread::spawn(move || act(&shared))
        };
        let ager = other(|shared| age(shared, 1));
        let flusher = other(|shared| shared.vm.flush_all(&Cpu::new(shared, 2, 3)));
        let walker = other(|shared| shared.walk());
        unmap(&shared);
        for thread in [ager, flusher, walker] {
            thread.join().unwrap();
        }
        assert!(!shared.holds(), "in a TLB after the answer");
    });
}

/// The same with fewer CPUs and more switches: the page is touched and aged while a flush is under way.
fn flush_against_touch_and_age(weakness: Option<Weakness>) {
    model(weakness, 3, || {
        let shared = cached_page();
        let other = |act: fn(&Arc<Shared>)| {
            let shared = shared.clone();
            thread::spawn(move || act(&shared))
        };
        let toucher = other(|shared| {
            shared.walk();
            age(shared, 1);
        });
        let flusher = other(|shared| shared.vm.flush_all(&Cpu::new(shared, 2, 3)));
        unmap(&shared);
        for thread in [toucher, flusher] {
            thread.join().unwrap();
        }
        assert!(!shared.holds(), "in a TLB after the answer");
    });
}

#[test]
fn a_flush_under_way_proves_nothing() {
    flush_against_touch_and_age(None);
}

#[test]
fn what_is_left_out_is_in_no_tlb() {
    epoch_against_hardware(None);
}

#[test]
#[should_panic(expected = "in a TLB after the answer")]
fn trusting_the_access_flag_alone_would_leave_it_there() {
    epoch_against_hardware(Some(Weakness::OldIsAbsent));
}

#[test]
#[should_panic(expected = "in a TLB after the answer")]
fn asking_for_the_proof_before_the_exchange_would() {
    epoch_against_hardware(Some(Weakness::ProofBeforeExchange));
}

#[test]
#[should_panic(expected = "in a TLB after the answer")]
fn a_pass_without_its_barrier_would() {
    epoch_against_hardware(Some(Weakness::PassBarrier));
}

#[test]
#[should_panic(expected = "in a TLB after the answer")]
fn a_pass_that_ends_without_a_barrier_would() {
    epoch_against_hardware(Some(Weakness::EndRelaxed));
}

#[test]
#[should_panic(expected = "in a TLB after the answer")]
fn a_flush_under_way_that_counted_the_pass_would() {
    flush_against_touch_and_age(Some(Weakness::ProofReadLate));
}

/// What write-protection leaves out by the epoch allows no write, as what unmap leaves out is in no TLB.
fn protect_against_age(weakness: Option<Weakness>) {
    model(weakness, 3, || {
        let shared = cached_page();
        let ager = {
            let shared = shared.clone();
            thread::spawn(move || age(&shared, 1))
        };
        let cpu = Cpu::new(&shared, 0, 3);
        assert_eq!(shared.vm.write_protect(&cpu, page(&shared)), Outcome::done(1));
        assert!(!shared.holds(), "in a TLB after the answer");
        ager.join().unwrap();
    });
}

#[test]
fn what_write_protection_leaves_out_is_in_no_tlb() {
    protect_against_age(None);
}

#[test]
#[should_panic(expected = "in a TLB after the answer")]
fn write_protection_that_asks_without_a_barrier_would_leave_it_there() {
    protect_against_age(Some(Weakness::FoundBarrier));
}

/// What Linux once did: its ageing issued the invalidation and did not wait for it.
#[test]
#[should_panic(expected = "in a TLB after the answer")]
fn the_historic_mistake_would() {
    epoch_against_hardware(Some(Weakness::FlushNotAwaited));
}
