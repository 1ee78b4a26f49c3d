//! All interleavings of an age with the making and the end of its working set, under loom.
//!
//! The array is one atomic, touched by relaxed loads and stores, so that nothing but the protocol orders
//! them. Each scenario is also run with a mistake in it, and that run must fail: else it would prove
//! nothing.

use super::*;
use crate::models::model;
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::AtomicBool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// The user looks at the state, then counts itself.
    LookThenCount,
    /// The user gives its use up before its last access.
    DropTooEarly,
    /// The use is given up without a release.
    DropRelaxed,
    /// The set is ended although it is in use.
    EndInUse,
    /// The set goes live without a release.
    LiveRelaxed,
}

/// What the array holds.
const THE_HOSTS: u64 = 0;
const FILLED: u64 = 1;
const AGED: u64 = 2;

struct Machine {
    mistake: Mistake,
    sets: WorkingSets,
    array: AtomicU64,
    /// Whether the array was aged, as this very execution went: loom knows nothing of it.
    aged: AtomicBool,
}

fn pages() -> IpaRange {
    IpaRange::new(0, 1).unwrap()
}

impl Machine {
    fn new(mistake: Mistake) -> Arc<Self> {
        Arc::new(Self {
            mistake,
            sets: WorkingSets::new(),
            array: AtomicU64::new(THE_HOSTS),
            aged: AtomicBool::new(false),
        })
    }

    fn create(&self) {
        let claim = self.sets.create(pages(), PaRange::new(0x1000, 1).unwrap()).unwrap();
        claim.set_in_hand(1);
        self.array.store(FILLED, Ordering::Relaxed);
        if self.mistake == Mistake::LiveRelaxed {
            claim.slot.state.store(LIVE, Ordering::Relaxed);
        } else {
            claim.go_live();
        }
    }

    fn touch(&self) {
        assert_ne!(
            self.array.load(Ordering::Relaxed),
            THE_HOSTS,
            "out of turn: the host's memory is touched"
        );
        self.array.store(AGED, Ordering::Relaxed);
        self.aged.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn age(&self) {
        let slot = &self.sets.slots[0];
        if self.mistake == Mistake::LookThenCount {
            if slot.state.load(Ordering::Acquire) & LIVE != 0 {
                slot.state.fetch_add(1, Ordering::Acquire);
                self.touch();
                slot.state.fetch_sub(1, Ordering::Release);
            }
            return;
        }
        let Ok(set) = self.sets.using_all_of(pages()) else { return };
        match self.mistake {
            Mistake::DropTooEarly => {
                drop(set);
                self.touch();
            }
            Mistake::DropRelaxed => {
                self.touch();
                core::mem::forget(set);
                slot.state.fetch_sub(1, Ordering::Relaxed);
            }
            _ => self.touch(),
        }
    }

    fn end(&self) {
        if self.mistake == Mistake::EndInUse {
            self.sets.slots[0].state.store(CLAIMED, Ordering::SeqCst);
            return self.array.store(THE_HOSTS, Ordering::Relaxed);
        }
        let Ok(claim) = self.sets.end(Ipa(0)) else { return };
        if self.aged.load(std::sync::atomic::Ordering::SeqCst) {
            let found = self.array.load(Ordering::Relaxed);
            assert_eq!(found, AGED, "out of turn: the claim comes before what a use did");
        }
        self.array.store(THE_HOSTS, Ordering::Relaxed);
        claim.set_in_hand(0);
        claim.forget();
    }
}

fn age_against_end(mistake: Mistake) {
    model(move || {
        let machine = Machine::new(mistake);
        machine.create();
        let other = machine.clone();
        let ager = thread::spawn(move || other.age());
        machine.end();
        ager.join().unwrap();
    });
}

fn age_against_create(mistake: Mistake) {
    model(move || {
        let machine = Machine::new(mistake);
        let other = machine.clone();
        let ager = thread::spawn(move || other.age());
        machine.create();
        ager.join().unwrap();
    });
}

#[test]
fn nobody_touches_an_array_that_is_given_back() {
    age_against_end(Mistake::None);
}

#[test]
fn nobody_touches_an_array_before_it_is_filled() {
    age_against_create(Mistake::None);
}

#[test]
#[should_panic(expected = "the host's memory is touched")]
fn looking_before_counting_is_found() {
    age_against_end(Mistake::LookThenCount);
}

#[test]
#[should_panic(expected = "out of turn")]
fn giving_a_use_up_too_early_is_found() {
    age_against_end(Mistake::DropTooEarly);
}

#[test]
#[should_panic(expected = "the host's memory is touched")]
fn ending_a_set_in_use_is_found() {
    age_against_end(Mistake::EndInUse);
}

#[test]
#[should_panic(expected = "the claim comes before what a use did")]
fn giving_a_use_up_without_a_release_is_found() {
    age_against_end(Mistake::DropRelaxed);
}

#[test]
#[should_panic(expected = "the host's memory is touched")]
fn going_live_without_a_release_is_found() {
    age_against_create(Mistake::LiveRelaxed);
}

/// The slot is taken by another set while a user that found the old one is on its way.
#[test]
fn a_use_is_of_the_set_that_it_names() {
    model(|| {
        let machine = Machine::new(Mistake::None);
        machine.create();
        let other = machine.clone();
        let ager = thread::spawn(move || {
            for set in other.sets.using(pages()).iter().flatten() {
                assert_eq!((set.bounds(), set.region()), ((0, 0x1000), (Pa(0x1000), 1)));
            }
        });
        machine.end();
        let far = IpaRange::new(0x10_0000, 1).unwrap();
        let claim = machine.sets.create(far, PaRange::new(0x2000, 1).unwrap()).unwrap();
        claim.set_in_hand(1);
        claim.go_live();
        ager.join().unwrap();
    });
}

/// Of two calls that create overlapping sets at once, one is refused.
#[test]
fn overlapping_sets_are_not_made_at_once() {
    model(|| {
        let sets = Arc::new(WorkingSets::new());
        let create = |sets: &WorkingSets, region: u64| {
            let claim = sets.create(pages(), PaRange::new(region, 1).unwrap());
            claim.map(|claim| claim.set_in_hand(1)).is_ok()
        };
        let other = sets.clone();
        let thread = thread::spawn(move || create(&other, 0x1000));
        let here = create(&sets, 0x2000);
        assert!(here != thread.join().unwrap());
    });
}

/// The slot is taken by another set while a call that found the old one is about to end it.
#[test]
fn an_end_is_of_the_set_that_it_names() {
    model(|| {
        let machine = Machine::new(Mistake::None);
        machine.create();
        let other = machine.clone();
        let ender = thread::spawn(move || {
            if let Ok(claim) = other.sets.end(Ipa(0)) {
                assert_eq!(claim.region(), (Pa(0x1000), 1), "another set is ended");
                claim.set_in_hand(0);
                claim.forget();
            }
        });
        machine.end();
        let far = IpaRange::new(0x10_0000, 1).unwrap();
        let claim = machine.sets.create(far, PaRange::new(0x2000, 1).unwrap()).unwrap();
        claim.set_in_hand(1);
        claim.go_live();
        ender.join().unwrap();
    });
}
