//! One call after the other. What two CPUs do at once is tried under loom.

use super::*;

const GIB: u64 = 1 << 30;

fn range(start: u64, page_count: u64) -> IpaRange {
    IpaRange::new(start, page_count).unwrap()
}

fn region(start: u64) -> PaRange {
    PaRange::new(start, 1).unwrap()
}

/// Makes a live set of a range, with its array at an address.
fn live(sets: &WorkingSets, pages: IpaRange, array: u64) {
    let claim = sets.create(pages, region(array)).unwrap();
    claim.set_in_hand(1);
    claim.go_live();
}

fn regions(sets: &WorkingSets, pages: IpaRange) -> std::vec::Vec<u64> {
    sets.using(pages).iter().flatten().map(|set| set.region().0.0).collect()
}

#[test]
fn finds_every_set_that_a_range_meets() {
    let sets = WorkingSets::new();
    assert!(!sets.any());
    live(&sets, range(0x1000, 4), 0x10_0000);
    live(&sets, range(0x5000, 4), 0x20_0000);
    assert!(sets.any());
    assert_eq!(regions(&sets, range(0, 1)), []);
    assert_eq!(regions(&sets, range(0, 2)), [0x10_0000]);
    assert_eq!(regions(&sets, range(0x4000, 2)), [0x10_0000, 0x20_0000]);
    assert_eq!(regions(&sets, range(0x8000, 9)), [0x20_0000]);
    assert_eq!(regions(&sets, range(0x9000, 9)), []);
}

#[test]
fn answers_for_a_range_inside_one_set_only() {
    let sets = WorkingSets::new();
    live(&sets, range(0x1000, 4), 0x10_0000);
    live(&sets, range(0x5000, 4), 0x20_0000);
    let found = |pages| sets.using_all_of(pages).map(|set| (set.bounds(), set.region()));
    assert_eq!(found(range(0x1000, 4)), Ok(((0x1000, 0x5000), (Pa(0x10_0000), 1))));
    assert_eq!(found(range(0x8000, 1)), Ok(((0x5000, 0x9000), (Pa(0x20_0000), 1))));
    for (start, count) in [(0x4000, 2), (0, 2), (0x8000, 2), (GIB, 1)] {
        assert_eq!(found(range(start, count)), Err(Error::NoEntry));
    }
}

#[test]
fn refuses_overlaps_and_more_than_there_is_room_for() {
    let sets = WorkingSets::new();
    for index in 0..8 {
        live(&sets, range(index * GIB, 2), 0x1000 * index);
        let overlap = sets.create(range(index * GIB + 0x1000, 2), region(GIB));
        assert_eq!(overlap.unwrap_err(), Error::Exists);
    }
    assert_eq!(sets.create(range(8 * GIB, 1), region(GIB)).unwrap_err(), Error::Limit);
    let claim = sets.end(Ipa(3 * GIB)).unwrap();
    assert_eq!((claim.region(), claim.in_hand()), ((Pa(0x3000), 1), 1));
    claim.set_in_hand(0);
    claim.forget();
    live(&sets, range(8 * GIB, 1), GIB);
}

#[test]
fn ends_what_starts_at_the_address_and_is_not_in_use() {
    let sets = WorkingSets::new();
    live(&sets, range(0x1000, 4), 0x10_0000);
    for start in [0, 0x2000, 0x5000] {
        assert_eq!(sets.end(Ipa(start)).unwrap_err(), Error::NoEntry);
    }
    let user = sets.using_all_of(range(0x2000, 1)).unwrap();
    let second = sets.using(range(0x4000, 1));
    assert_eq!(sets.end(Ipa(0x1000)).unwrap_err(), Error::Busy);
    drop(user);
    assert_eq!(sets.end(Ipa(0x1000)).unwrap_err(), Error::Busy);
    drop(second);
    let claim = sets.end(Ipa(0x1000)).unwrap();
    // Nobody else ends it, uses it or takes its place meanwhile.
    assert_eq!(sets.end(Ipa(0x1000)).unwrap_err(), Error::Busy);
    assert_eq!(regions(&sets, range(0x1000, 4)), []);
    assert_eq!(sets.create(range(0x1000, 4), region(0x10_0000)).unwrap_err(), Error::Exists);
    claim.set_in_hand(0);
    claim.forget();
    assert_eq!(sets.end(Ipa(0x1000)).unwrap_err(), Error::NoEntry);
    assert!(!sets.any());
}

#[test]
fn grows_on_by_the_same_words_alone() {
    let sets = WorkingSets::new();
    let (pages, array) = (range(0x1000, 9000), PaRange::new(0x10_0000, 3).unwrap());
    let claim = sets.create(pages, array).unwrap();
    claim.set_in_hand(2);
    claim.go_on_growing();
    assert_eq!(regions(&sets, pages), []);
    assert_eq!(sets.create(range(0x1000, 9001), array).unwrap_err(), Error::Exists);
    assert_eq!(sets.create(pages, region(0x20_0000)).unwrap_err(), Error::Exists);
    let claim = sets.create(pages, array).unwrap();
    assert_eq!((claim.region(), claim.in_hand()), ((Pa(0x10_0000), 3), 2));
    claim.set_in_hand(3);
    claim.go_live();
    assert_eq!(regions(&sets, pages), [0x10_0000]);
    assert_eq!(sets.create(pages, array).unwrap_err(), Error::Exists);
}

#[test]
fn what_ends_or_never_grew_up_ends_on() {
    let sets = WorkingSets::new();
    let (pages, array) = (range(0, 9000), PaRange::new(0x10_0000, 3).unwrap());
    let claim = sets.create(pages, array).unwrap();
    claim.set_in_hand(2);
    claim.go_on_growing();
    let claim = sets.end(Ipa(0)).unwrap();
    claim.set_in_hand(1);
    claim.go_on_ending();
    // What is going does not come back.
    assert_eq!(sets.create(pages, array).unwrap_err(), Error::Exists);
    assert_eq!(regions(&sets, pages), []);
    let claim = sets.end_any().unwrap();
    assert_eq!(claim.in_hand(), 1);
    claim.set_in_hand(0);
    claim.forget();
    assert!(sets.end_any().is_none() && !sets.any());
}

#[test]
#[should_panic(expected = "forgotten with memory in it")]
fn refuses_to_forget_memory() {
    let sets = WorkingSets::new();
    live(&sets, range(0, 1), 0);
    sets.end(Ipa(0)).unwrap().forget();
}
