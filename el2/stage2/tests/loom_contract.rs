//! Map against begin and end: no page gets past an invalidation, in any interleaving.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p verdigris-stage2 --release --test 'loom_*'`.
#![cfg(loom)]

mod loom_support;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use loom_support::{Cpu, Shared, model};
use verdigris_stage2::contract::{Contract, Verdict};
use verdigris_stage2::sync::Weakness;
use verdigris_stage2::{Error, Ipa, NoDirty, Outcome, Range};

/// The host answers a fault on one CPU and takes the page away on another.
fn map_against_begin_and_end(weakness: Option<Weakness>) {
    model(weakness, 5, || {
        let shared = Shared::new();
        let host_has_page = Arc::new(AtomicBool::new(true));
        let mapper = {
            let (shared, host) = (shared.clone(), host_has_page.clone());
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                // The number first; the host looks after that.
                let number = shared.vm.sequence();
                if host.load(Ordering::Relaxed) {
                    let _ = cpu.map(0, number);
                }
            })
        };
        let cpu = Cpu::new(&shared, 0, 2);
        let range = shared.vm.range(Ipa(0), 1).unwrap();
        assert_eq!(
            shared.vm.invalidate_begin(&cpu, range, false, 0, &mut NoDirty),
            Outcome::done(1)
        );
        assert!(!shared.is_mapped(0), "mapped past begin");
        host_has_page.store(false, Ordering::Relaxed);
        assert_eq!(shared.vm.invalidate_end(&cpu, range, 1, &mut NoDirty), Outcome::done(1));
        mapper.join().unwrap();
        assert!(!shared.is_mapped(0), "mapped past the end");
        assert!(shared.is_mapped(1), "the neighbour is untouched");
    });
}

#[test]
fn no_map_gets_past_an_invalidation() {
    map_against_begin_and_end(None);
}

#[test]
#[should_panic(expected = "mapped past")]
fn it_fails_without_the_barrier_of_map() {
    map_against_begin_and_end(Some(Weakness::MapBarrier));
}

#[test]
#[should_panic(expected = "mapped past")]
fn it_fails_without_the_barrier_of_begin() {
    map_against_begin_and_end(Some(Weakness::BeginBarrier));
}

#[test]
#[should_panic(expected = "mapped past")]
fn it_fails_if_map_reads_the_number_before_the_marks() {
    map_against_begin_and_end(Some(Weakness::MapReadsSwapped));
}

#[test]
#[should_panic(expected = "mapped past")]
fn it_fails_if_end_lowers_before_it_publishes() {
    map_against_begin_and_end(Some(Weakness::EndStoresSwapped));
}

#[test]
#[should_panic(expected = "mapped past")]
fn it_fails_if_map_leaves_its_gate_without_a_release() {
    map_against_begin_and_end(Some(Weakness::GateRelaxed));
}

#[test]
#[should_panic(expected = "mapped past")]
fn it_fails_if_begin_looks_at_the_gates_without_an_acquire() {
    map_against_begin_and_end(Some(Weakness::WaitRelaxed));
}

#[test]
#[should_panic(expected = "mapped past")]
fn it_fails_if_the_number_is_sampled_without_an_acquire() {
    map_against_begin_and_end(Some(Weakness::SampleRelaxed));
}

/// A map looks up what ended since its number, while the slot that it reads is used for another range.
fn lookup_against_ends(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let contract = Arc::new(Contract::new());
        let end = |contract: &Contract, page: u64| {
            let range = Range::new(Ipa(page * 4096), 1);
            let hold = contract.raise(range);
            contract.lower(range, hold);
        };
        end(&contract, 0);
        let other = {
            let contract = contract.clone();
            // The memory has two slots: the second of these takes the first one's place.
            thread::spawn(move || [7, 8].into_iter().for_each(|page| end(&contract, page)))
        };
        let shared = Shared::new();
        let inside = contract.enter(&Cpu::new(&shared, 0, 2));
        let verdict = contract.check(&inside, Range::new(Ipa(0), 1), 0);
        assert_ne!(verdict, Verdict::Clear, "an end is forgotten");
        drop(inside);
        other.join().unwrap();
    });
}

#[test]
fn no_end_is_forgotten() {
    lookup_against_ends(None);
}

#[test]
#[should_panic(expected = "an end is forgotten")]
fn without_the_barrier_of_the_writer_one_would_be() {
    lookup_against_ends(Some(Weakness::HistoryWriterBarrier));
}

#[test]
#[should_panic(expected = "an end is forgotten")]
fn without_the_barrier_of_the_reader_one_would_be() {
    lookup_against_ends(Some(Weakness::HistoryReaderBarrier));
}

/// Two calls end at once: each under its own mark, with a number of its own.
fn end_against_end(weakness: Option<Weakness>) {
    model(weakness, 2, || {
        let contract = Arc::new(Contract::new());
        let end = |contract: &Contract, page: u64| {
            let range = Range::new(Ipa(page * 4096), 1);
            let hold = contract.raise(range);
            contract.lower(range, hold);
        };
        let other = {
            let contract = contract.clone();
            thread::spawn(move || end(&contract, 1))
        };
        end(&contract, 0);
        other.join().unwrap();
        assert_eq!(contract.sample(), 2, "a number is lost");
    });
}

#[test]
fn each_end_has_a_number() {
    end_against_end(None);
}

#[test]
#[should_panic(expected = "what is counted down was counted up")]
fn with_a_lock_that_publishes_nothing_it_would_not() {
    end_against_end(Some(Weakness::LockRelaxed));
}

/// Two invalidations at once: the second finds no slot but the hull. The first ends while the second
/// stands, and its slot is used again.
#[test]
fn the_hull_holds_while_slots_come_and_go() {
    model(None, 3, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        let (first, second) = (shared.vm.range(Ipa(4096), 1), shared.vm.range(Ipa(0), 1));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(
            shared.vm.invalidate_begin(&boot, first, false, 0, &mut NoDirty),
            Outcome::done(1)
        );
        let number = shared.vm.sequence();
        let mapper = {
            let shared = shared.clone();
            thread::spawn(move || {
                let _ = Cpu::new(&shared, 1, 2).map(0, number);
            })
        };
        assert_eq!(
            shared.vm.invalidate_begin(&boot, second, false, 0, &mut NoDirty),
            Outcome::done(1)
        );
        assert!(!shared.is_mapped(0), "mapped past begin");
        assert_eq!(shared.vm.invalidate_end(&boot, first, 1, &mut NoDirty), Outcome::done(1));
        assert_eq!(shared.vm.unmap(&boot, first, &mut NoDirty), Outcome::done(1));
        assert!(!shared.is_mapped(0), "mapped under the hull");
        assert_eq!(shared.vm.invalidate_end(&boot, second, 1, &mut NoDirty), Outcome::done(1));
        mapper.join().unwrap();
        assert!(!shared.is_mapped(0), "mapped past the end");
    });
}

/// An unmap has to share the hull with a begin, which the host ends meanwhile: twice, though that is
/// once too often. The mark of the unmap stands all the same.
fn unmap_against_end_in_the_hull(weakness: Option<Weakness>) {
    model(weakness, 3, move || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 3);
        let page = |index: u64| shared.vm.range(Ipa(index * 4096), 1).unwrap();
        let (slot, begun) = (page(2), page(1));
        assert_eq!(
            shared.vm.invalidate_begin(&boot, slot, false, 1, &mut NoDirty),
            Outcome::done(1)
        );
        assert_eq!(
            shared.vm.invalidate_begin(&boot, begun, false, 1, &mut NoDirty),
            Outcome::done(1)
        );
        let mapper = {
            let shared = shared.clone();
            thread::spawn(move || {
                let _ = Cpu::new(&shared, 1, 3).map(0, 0);
            })
        };
        let ender = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 2, 3);
                [(); 2].map(|()| shared.vm.invalidate_end(&cpu, begun, 1, &mut NoDirty))
            })
        };
        assert_eq!(shared.vm.unmap(&boot, page(0), &mut NoDirty), Outcome::done(1));
        assert!(!shared.is_mapped(0), "mapped past the unmap");
        mapper.join().unwrap();
        let ends = ender.join().unwrap();
        assert!(!shared.is_mapped(0), "mapped past the unmap");
        let once = [Outcome::done(1), Outcome::stopped(0, Error::NoEntry)];
        assert!(ends == once || weakness.is_some(), "{ends:?}");
    });
}

#[test]
fn no_end_takes_the_hull_from_an_unmap() {
    unmap_against_end_in_the_hull(None);
}

#[test]
#[should_panic(expected = "mapped past the unmap")]
fn an_end_that_emptied_the_hull_would() {
    unmap_against_end_in_the_hull(Some(Weakness::HullGoesEarly));
}

/// Set replaces the page on one CPU while another takes it away: the make half is a map like any other.
fn set_against_begin_and_end(weakness: Option<Weakness>) {
    model(weakness, 4, || {
        let shared = Shared::new();
        let boot = Cpu::new(&shared, 0, 2);
        assert_eq!(boot.map(0, 0), Outcome::done(1));
        let number = shared.vm.sequence();
        let setter = {
            let shared = shared.clone();
            thread::spawn(move || {
                let cpu = Cpu::new(&shared, 1, 2);
                let _ = cpu.set(number);
                cpu.removed.get()
            })
        };
        let range = shared.vm.range(Ipa(0), 1).unwrap();
        assert_eq!(
            shared.vm.invalidate_begin(&boot, range, false, 0, &mut NoDirty),
            Outcome::done(1)
        );
        assert!(!shared.is_mapped(0), "mapped past begin");
        assert_eq!(shared.vm.invalidate_end(&boot, range, 1, &mut NoDirty), Outcome::done(1));
        let removed = boot.removed.get() + setter.join().unwrap();
        assert!(!shared.is_mapped(0), "mapped past the end");
        assert!((1..=2).contains(&removed), "each leaf is reported once");
    });
}

#[test]
fn no_set_gets_past_an_invalidation() {
    set_against_begin_and_end(None);
}

#[test]
#[should_panic(expected = "mapped past")]
fn set_fails_without_the_barrier_of_the_gate() {
    set_against_begin_and_end(Some(Weakness::MapBarrier));
}
