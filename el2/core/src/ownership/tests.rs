use super::*;
use std::vec::Vec;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn range(start: u64, bytes: u64) -> PaRange {
    PaRange::new(start, bytes >> 12).unwrap()
}

fn words(ram: &[PaRange]) -> Vec<AtomicU32> {
    let bytes = Ownership::memory_needed(ram).unwrap();
    // What was there before must not matter.
    (0..bytes / 4).map(|_| AtomicU32::new(0xdead_beef)).collect()
}

const VM: VmHandle = VmHandle(3);
const PAGE: LeafSize = LeafSize::Page;
const BLOCK: LeafSize = LeafSize::Block2M;
const GIGA: LeafSize = LeafSize::Block1G;

/// Runs a test on 1 GiB at 1 GiB, and checks that the host ends up with what it had.
fn with_a_gibibyte(test: impl Fn(&Ownership<'_>)) {
    let ram = [range(GIB, GIB)];
    let words = words(&ram);
    test(&Ownership::new(&ram, &[], &words).unwrap());
}

#[test]
fn a_thousandth_of_memory_is_needed() {
    assert_eq!(Ownership::memory_needed(&[range(GIB, GIB)]), Ok(4 * (262_144 + 512 + 1)));
    assert_eq!(Ownership::memory_needed(&[range(GIB, MIB)]), Ok(4 * (262_144 + 512 + 1)));
    let large = Ownership::memory_needed(&[range(GIB, 512 * GIB)]).unwrap();
    assert_eq!(large, 512 * 4 * (262_144 + 512 + 1));
    assert_eq!(Ownership::memory_needed(&[]), Ok(0));
}

#[test]
fn too_few_words_are_refused() {
    let ram = [range(GIB, GIB)];
    let words = words(&ram);
    assert!(Ownership::new(&ram, &[], &words[1..]).is_err());
    assert!(Ownership::new(&ram, &[], &words).is_ok());
}

#[test]
fn only_ram_that_is_not_reserved_has_an_owner() {
    let ram = [range(GIB + 4 * MIB, 4 * MIB), range(GIB + 6 * MIB, 4 * MIB)];
    let reserved = [
        range(GIB + 5 * MIB, 8192),
        range(GIB + 5 * MIB, 4096),
        range(GIB, MIB),
        range(3 * GIB, MIB),
    ];
    let words = words(&ram);
    let table = Ownership::new(&ram, &reserved, &words).unwrap();
    let owner = |address| table.query(Pa(address)).owner;
    for (address, expected) in [
        (0, Owner::None),
        (GIB, Owner::None),
        (GIB + 4 * MIB - 1, Owner::None),
        (GIB + 4 * MIB, Owner::Host),
        (GIB + 5 * MIB, Owner::None),
        (GIB + 5 * MIB + 4096, Owner::None),
        (GIB + 5 * MIB + 8192, Owner::Host),
        (GIB + 10 * MIB - 1, Owner::Host),
        (GIB + 10 * MIB, Owner::None),
        (3 * GIB, Owner::None),
        (u64::MAX, Owner::None),
    ] {
        assert_eq!(owner(address), expected, "{address:#x}");
    }
    // A block is the host's only if all of it is.
    let share = |address, size| table.share(Pa(address), size);
    assert_eq!(share(GIB + 4 * MIB, BLOCK), Err(Error::NotOwner));
    assert_eq!(share(GIB + 6 * MIB, BLOCK), Ok(()));
    assert_eq!(share(GIB + 8 * MIB, BLOCK), Ok(()));
    assert_eq!(share(GIB + 10 * MIB, BLOCK), Err(Error::NotOwner));
    assert_eq!(share(GIB, GIGA), Err(Error::NotOwner));
    assert_eq!(share(GIB + 5 * MIB, PAGE), Err(Error::NotOwner));
    assert_eq!(table.donate(Pa(GIB + 5 * MIB), VM), Err(Error::NotOwner));
}

#[test]
fn addresses_are_aligned_to_what_they_name() {
    with_a_gibibyte(|table| {
        assert_eq!(table.share(Pa(GIB + 1), PAGE), Err(Error::Invalid));
        assert_eq!(table.share(Pa(GIB + MIB), BLOCK), Err(Error::Invalid));
        assert_eq!(table.share(Pa(GIB + 2 * MIB), GIGA), Err(Error::Invalid));
        assert_eq!(table.donate(Pa(GIB + 2048), VM), Err(Error::Invalid));
        assert_eq!(table.give_back(Pa(GIB + 2048), VM), Err(Error::Invalid));
    });
}

#[test]
fn a_donated_page_cannot_be_shared_at_any_size() {
    with_a_gibibyte(|table| {
        let page = Pa(GIB + 4 * MIB + 4096);
        table.donate(page, VM).unwrap();
        assert_eq!(table.query(page), PageState { owner: Owner::Vm(VM), shares: 0 });
        assert_eq!(table.share(page, PAGE), Err(Error::NotOwner));
        assert_eq!(table.share(Pa(GIB + 4 * MIB), BLOCK), Err(Error::NotOwner));
        assert_eq!(table.share(Pa(GIB), GIGA), Err(Error::NotOwner));
        // Its neighbours can.
        assert_eq!(table.share(Pa(GIB + 4 * MIB), PAGE), Ok(()));
        assert_eq!(table.share(Pa(GIB + 6 * MIB), BLOCK), Ok(()));
        // It can't be donated again, nor given back by another.
        assert_eq!(table.donate(page, VM), Err(Error::NotOwner));
        assert_eq!(table.give_back(page, VmHandle(4)), Err(Error::NotOwner));
        table.give_back(page, VM).unwrap();
        assert_eq!(table.give_back(page, VM), Err(Error::NotOwner));
        assert_eq!(table.share(Pa(GIB + 4 * MIB), BLOCK), Ok(()));
        assert_eq!(table.share(Pa(GIB), GIGA), Ok(()));
    });
}

#[test]
fn a_shared_page_cannot_be_donated_at_any_size() {
    with_a_gibibyte(|table| {
        let page = Pa(GIB + 4 * MIB);
        for (base, size) in [(page, PAGE), (page, BLOCK), (Pa(GIB), GIGA)] {
            table.share(base, size).unwrap();
            table.share(base, size).unwrap();
            assert_eq!(table.query(page).shares, 2);
            assert_eq!(table.donate(page, VM), Err(Error::Busy));
            table.unshare(base, size);
            assert_eq!(table.donate(page, VM), Err(Error::Busy));
            table.unshare(base, size);
            assert_eq!(table.query(page), PageState { owner: Owner::Host, shares: 0 });
            // The refused donations have left no trace: a block can still be shared.
            assert_eq!(table.share(Pa(GIB), GIGA), Ok(()));
            table.unshare(Pa(GIB), GIGA);
            table.donate(page, VM).unwrap();
            table.give_back(page, VM).unwrap();
        }
    });
}

#[test]
fn el2_keeps_what_it_has() {
    with_a_gibibyte(|table| {
        table.keep_for_el2(&range(GIB, 2 * MIB)).unwrap();
        assert_eq!(table.query(Pa(GIB + MIB)).owner, Owner::El2);
        assert!(!table.is_host(Pa(GIB)) && table.is_host(Pa(GIB + 2 * MIB)));
        assert_eq!(table.share(Pa(GIB), PAGE), Err(Error::NotOwner));
        assert_eq!(table.donate(Pa(GIB), VM), Err(Error::NotOwner));
        assert_eq!(table.give_back(Pa(GIB), VM), Err(Error::NotOwner));
        assert_eq!(table.keep_for_el2(&range(GIB, 4096)), Err(Error::NotOwner));
        table.share(Pa(GIB + 2 * MIB), PAGE).unwrap();
        assert_eq!(table.keep_for_el2(&range(GIB + 2 * MIB, 4096)), Err(Error::Busy));
        assert_eq!(table.keep_for_el2(&range(2 * GIB, 4096)), Err(Error::NotOwner));
    });
}

#[test]
fn splitting_a_share_keeps_every_page_shared() {
    with_a_gibibyte(|table| {
        table.share(Pa(GIB), GIGA).unwrap();
        table.split(Pa(GIB), GIGA).unwrap();
        table.split(Pa(GIB + 2 * MIB), BLOCK).unwrap();
        assert_eq!(table.query(Pa(GIB)).shares, 1);
        assert_eq!(table.query(Pa(GIB + 2 * MIB + 4096)).shares, 1);
        assert_eq!(table.donate(Pa(2 * GIB - 4096), VM), Err(Error::Busy));
        table.unshare(Pa(2 * GIB - 2 * MIB), BLOCK);
        assert_eq!(table.donate(Pa(2 * GIB - 4096), VM), Ok(()));
        table.unshare(Pa(GIB + 2 * MIB), PAGE);
        assert_eq!(table.donate(Pa(GIB + 2 * MIB), VM), Ok(()));
        assert_eq!(table.donate(Pa(GIB + 2 * MIB + 4096), VM), Err(Error::Busy));
        assert_eq!(table.split(Pa(GIB), PAGE), Err(Error::Invalid));
    });
}

#[test]
fn a_split_that_fails_changes_nothing() {
    let ram = [range(GIB, GIB)];
    let words = words(&ram);
    let table = Ownership::new(&ram, &[], &words).unwrap();
    table.share(Pa(GIB), BLOCK).unwrap();
    // The third page of the block is shared as often as can be. Words: 1, 512, pages.
    words[1 + 512 + 2].store(0x7fff_fffd, Ordering::Relaxed);
    assert_eq!(table.split(Pa(GIB), BLOCK), Err(Error::Limit));
    assert_eq!(table.query(Pa(GIB)).shares, 1);
    assert_eq!(table.query(Pa(GIB + 4096)).shares, 1);
    assert_eq!(table.query(Pa(GIB + 3 * 4096)).shares, 1);
}

#[test]
#[should_panic(expected = "a share is returned once")]
fn a_share_that_is_not_there_is_a_bug() {
    with_a_gibibyte(|table| table.unshare(Pa(GIB), BLOCK));
}

#[test]
fn shares_go_together_across_all_memory() {
    let ram = [range(GIB, GIB), range(40 * GIB, 2 * GIB)];
    let words = words(&ram);
    let table = Ownership::new(&ram, &[], &words).unwrap();
    let places = [GIB, 41 * GIB, 40 * GIB, 2 * GIB - 2 * MIB, 40 * GIB];
    for size in [PAGE, BLOCK] {
        for place in places {
            table.share(Pa(place), size).unwrap();
        }
        table.share(Pa(41 * GIB), size).unwrap();
        let mut near = Near::new(size);
        places.into_iter().for_each(|place| near.unshare(Pa(place), || &table));
        let shares = |place| table.query(Pa(place)).shares;
        assert_eq!(places.map(shares), [0, 1, 0, 0, 0]);
        table.unshare(Pa(41 * GIB), size);
    }
    table.share(Pa(41 * GIB), GIGA).unwrap();
    Near::new(GIGA).unshare(Pa(41 * GIB), || &table);
    assert_eq!(table.query(Pa(41 * GIB)).shares, 0);
}

#[test]
#[should_panic(expected = "a share is returned once")]
fn shares_that_go_together_are_returned_once() {
    with_a_gibibyte(|table| {
        table.share(Pa(GIB), PAGE).unwrap();
        let mut near = Near::new(PAGE);
        (0..2).for_each(|_| near.unshare(Pa(GIB), || table));
    });
}

#[test]
fn room_is_the_hosts_while_memory_is_there() {
    let (ram, room) = (range(GIB, GIB), range(2 * GIB, GIB));
    let known = [ram, room];
    let words = words(&known);
    let table = Ownership::with_room(&known, &[ram], &[], &words).unwrap();
    let block = Pa(2 * GIB + 6 * MIB);
    let last = Pa(block.0 + 2 * MIB - 4096);
    assert_eq!(table.query(block).owner, Owner::None);
    assert_eq!(table.share(block, PAGE), Err(Error::NotOwner));
    assert_eq!(table.remove(block), Ok(()), "nothing to do");
    assert_eq!(table.add(block), Ok(()));
    assert_eq!(table.add(block), Ok(()), "nothing to do");
    for (address, owner) in [
        (block.0 - 4096, Owner::None),
        (block.0, Owner::Host),
        (last.0, Owner::Host),
        (last.0 + 4096, Owner::None),
    ] {
        assert_eq!(table.query(Pa(address)).owner, owner, "{address:#x}");
    }
    assert_eq!(table.share(block, BLOCK), Ok(()));
    assert_eq!(table.remove(block), Err(Error::Busy));
    table.unshare(block, BLOCK);
    assert_eq!(table.share(last, PAGE), Ok(()));
    assert_eq!(table.remove(block), Err(Error::Busy));
    table.unshare(last, PAGE);
    assert_eq!(table.donate(last, VM), Ok(()));
    assert_eq!(table.remove(block), Err(Error::Busy));
    assert_eq!(table.query(last).owner, Owner::Vm(VM));
    assert_eq!(table.share(block, BLOCK), Err(Error::NotOwner));
    table.give_back(last, VM).unwrap();
    assert_eq!(table.share(block, BLOCK), Ok(()), "a remove that failed changed nothing");
    table.unshare(block, BLOCK);
    assert_eq!(table.share(Pa(2 * GIB), GIGA), Err(Error::NotOwner), "not all is there");
    assert_eq!(table.remove(block), Ok(()));
    assert_eq!(table.query(last).owner, Owner::None);
    assert_eq!(table.share(block, BLOCK), Err(Error::NotOwner));
    (0..512).for_each(|index| table.add(Pa(2 * GIB + index * 2 * MIB)).unwrap());
    assert_eq!(table.share(Pa(2 * GIB), GIGA), Ok(()));
    assert_eq!(table.add(Pa(4 * GIB)), Err(Error::NotOwner), "no room");
    assert_eq!(table.remove(Pa(4 * GIB)), Err(Error::NotOwner));
    assert_eq!(table.add(Pa(2 * GIB + 4096)), Err(Error::Invalid));
}
