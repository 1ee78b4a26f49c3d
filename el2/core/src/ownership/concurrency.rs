//! Interleavings of shares and donations, checked by the model checker over all of them.
//!
//! Under it a large block has two small ones of two pages each.

use super::*;
use crate::models::{bounded, model};
use loom::sync::Arc;
use loom::thread;
use std::boxed::Box;
use std::vec::Vec;

const VM: VmHandle = VmHandle(1);
const BASE: Pa = Pa(0x4000);
const LARGE: LeafSize = LeafSize::Block1G;
const SMALL: LeafSize = LeafSize::Block2M;
const PAGE: LeafSize = LeafSize::Page;

/// A large block of the host's. Its words are leaked: an execution has few, and ends.
fn table() -> Arc<Ownership<'static>> {
    let ram = [PaRange::new(BASE.0, 4).unwrap()];
    let bytes = Ownership::memory_needed(&ram).unwrap();
    let words: Vec<_> = (0..bytes / 4).map(|_| AtomicU32::new(0)).collect();
    Arc::new(Ownership::new(&ram, &[], Box::leak(words.into_boxed_slice())).unwrap())
}

/// Runs a share and a donation at once; both can't succeed, and what failed left nothing behind.
fn exclude(size: LeafSize, donate: fn(&Ownership<'_>) -> Status) {
    model(move || {
        let table = table();
        let other = table.clone();
        let sharer = thread::spawn(move || other.share(BASE, size));
        let donated = donate(&table);
        let shared = sharer.join().unwrap();
        assert!(shared.is_err() || donated.is_err(), "a donated page is shared");
        // Only a block can be refused in vain, by counts that are taken back.
        assert!(size != PAGE || shared.is_ok() || donated.is_ok());
        if shared.is_ok() {
            table.unshare(BASE, size);
        }
        if donated.is_ok() {
            table.give_back(BASE, VM).unwrap();
        }
        table.share(BASE, LARGE).unwrap();
    });
}

fn donate(table: &Ownership<'_>) -> Status {
    table.donate(BASE, VM)
}

#[test]
fn a_page_is_shared_or_donated() {
    exclude(PAGE, donate);
}

#[test]
fn a_small_block_is_shared_or_its_page_donated() {
    exclude(SMALL, donate);
}

#[test]
fn a_large_block_is_shared_or_its_page_donated() {
    exclude(LARGE, donate);
}

/// Donates as one would without the counts: looks whether the blocks are shared, then takes the page.
fn donate_unannounced(table: &Ownership<'_>) -> Status {
    let page = table.find(BASE, PAGE)?;
    if table.query(BASE).shares > 0 {
        return Err(Error::Busy);
    }
    change(table.page(page), words::hand_over(Owner::Host, Owner::Vm(VM)))?;
    change(table.giga(page), |word| Ok(word + 1))?;
    change(table.block(page), |word| Ok(word + 1))
}

#[test]
#[should_panic(expected = "a donated page is shared")]
fn looking_first_is_not_enough() {
    exclude(SMALL, donate_unannounced);
}

/// Gives back in the wrong order: the counts first, while the page is still the VM's.
fn give_back_counts_first(table: &Ownership<'_>) {
    let page = table.find(BASE, PAGE).unwrap();
    table.uncount(page);
    change(table.page(page), words::hand_over(Owner::Vm(VM), Owner::Host)).unwrap();
}

/// Runs a share of a block while one of its pages comes back.
fn share_while_returning(give_back: fn(&Ownership<'_>)) {
    model(move || {
        let table = table();
        table.donate(BASE, VM).unwrap();
        let other = table.clone();
        let sharer = thread::spawn(move || (other.share(BASE, LARGE), other.query(BASE).owner));
        give_back(&table);
        if let (Ok(()), owner) = sharer.join().unwrap() {
            assert_eq!(owner, Owner::Host, "a block is shared that is partly a VM's");
        }
    });
}

#[test]
fn a_block_is_shared_only_after_its_page_came_back() {
    share_while_returning(|table| table.give_back(BASE, VM).unwrap());
}

#[test]
#[should_panic(expected = "a block is shared that is partly a VM's")]
fn counts_come_back_last() {
    share_while_returning(give_back_counts_first);
}

#[test]
fn two_donations_of_a_page_and_a_share_of_its_block() {
    // Three threads take too long with more.
    bounded(3, || {
        let table = table();
        let (first, second) = (table.clone(), table.clone());
        let donor = thread::spawn(move || first.donate(BASE, VM));
        let sharer = thread::spawn(move || second.share(BASE, SMALL));
        let mine = table.donate(BASE, VM);
        let (theirs, shared) = (donor.join().unwrap(), sharer.join().unwrap());
        assert!(mine.is_err() || theirs.is_err());
        assert!(shared.is_err() || mine.is_err() && theirs.is_err());
    });
}

/// A block goes while a page of it is shared or donated, or not at all.
#[test]
fn memory_goes_or_is_in_use() {
    for (size, act) in [(PAGE, false), (SMALL, false), (PAGE, true)] {
        model(move || {
            let table = table();
            let other = table.clone();
            let user = thread::spawn(move || match act {
                true => other.donate(BASE, VM),
                false => other.share(BASE, size),
            });
            let removed = table.remove(BASE);
            let used = user.join().unwrap();
            assert!(removed.is_err() || used.is_err(), "memory in use is gone");
            match used {
                Ok(()) if act => table.give_back(BASE, VM).unwrap(),
                Ok(()) => table.unshare(BASE, size),
                Err(_) => {}
            }
            table.add(BASE).unwrap();
            table.share(BASE, LARGE).unwrap();
        });
    }
}
