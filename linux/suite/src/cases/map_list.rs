//! Lists of pages to map: the page of a fault and its neighbours in one call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use verdigris_abi::{Error, MAP_LIST_PAGES, Stat, Status, call, flags};
use verdigris_guest::program;

use super::support::{assert_bits, bytes, needs_two_cpus, spread};
use crate::bits::Bits;
use crate::firmware::{PageState, page_state};
use crate::guest::{DATA, Guest};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::raw::raw;
use crate::sys;
use crate::vm::{RO, RW, RWX, Vm};

test_table! { "suite", 30:
    list_maps_pages_from_anywhere, list_leaves_holes, list_stops_at_what_is_in_the_way,
    list_stops_at_what_is_not_ours, list_out_of_table_pages, list_makes_leaves_old_and_clean,
    list_keeps_permissions, list_adds_permissions, list_is_refused_while_invalidating,
    list_answers_a_fault, list_that_changes_meanwhile,
}

/// A list, in a page of ours.
struct List(Pages);

impl List {
    fn new() -> Self {
        Self(Pages::single(1))
    }

    fn address(&self) -> u64 {
        self.0.address(0)
    }

    fn write(&self, entries: &[u64]) {
        entries.iter().enumerate().for_each(|(index, &entry)| self.0.write(0, index, entry));
    }

    /// Makes one call: its status, and its progress.
    fn step(&self, vm: &Vm, ipa: u64, entries: &[u64], sequence: u64) -> (Status, u64) {
        self.write(entries);
        let count = entries.len() as u64;
        let arguments = [vm.handle(), ipa, count, self.address(), sequence];
        let reply = raw().call(call::MAP_LIST, &arguments);
        (reply.status(), reply.0[1])
    }

    /// Maps all of it, whatever interrupts come; the progress is that of all calls.
    fn map(&self, vm: &Vm, ipa: u64, entries: &[u64], sequence: u64) -> (Status, u64) {
        let mut done = 0;
        while done < entries.len() {
            let left = &entries[done..];
            let (status, progress) = self.step(vm, ipa + bytes(done), left, sequence);
            assert!(progress <= left.len() as u64, "more done than asked");
            done += progress as usize;
            if status.is_err() {
                return (status, done as u64);
            }
        }
        (Ok(()), done as u64)
    }
}

/// Entries for pages, the last first.
fn backwards(pages: &Pages, flags: u64) -> Vec<u64> {
    (0..pages.count()).rev().map(|page| pages.address(page) | flags).collect()
}

fn list_maps_pages_from_anywhere() {
    let count = MAP_LIST_PAGES as usize;
    let (guest, pages, list) = (Guest::new(1), Pages::single(count), List::new());
    (0..count).for_each(|page| pages.write(page, 1, 0x5000 + page as u64));
    let before = guest.statistics();
    // Not at the beginning of a table.
    let at = DATA + bytes(300);
    assert_eq!(list.map(&guest, at, &backwards(&pages, RW), 0), (Ok(()), 512));
    let mapped = guest.statistics().since(&before, Stat::LeavesMapped);
    assert_eq!(mapped, 512);
    for place in [0, 1, 63, 64, 65, 211, 212, 400, 511] {
        let seen = guest.cpu(0).call(program::READ, &[at + bytes(place) + 8])[0];
        assert_eq!(seen, 0x5000 + 511 - place as u64, "place {place}");
        guest.cpu(0).call(program::WRITE, &[at + bytes(place) + 16, place as u64]);
        assert_eq!(pages.read(511 - place, 2), place as u64);
    }
    assert!(pages.addresses().all(|address| page_state(address).shares == 1));
    assert_eq!(page_state(list.address()), PageState::FREE, "the list is kept");
    guest.unmap(at, 512).expect("mappings");
    assert!(pages.addresses().all(|address| page_state(address) == PageState::FREE));
}

fn list_leaves_holes() {
    let (guest, pages, list) = (Guest::new(1), Pages::single(70), List::new());
    let there = guest.with_data(1, RW);
    there.write(0, 0, 0x1234);
    // Beside a page that is there, every other place stays empty.
    let entry = |page| if page % 2 == 0 { 0 } else { pages.address(page) | RW };
    let entries: Vec<u64> = (0..70).map(entry).collect();
    assert_eq!(list.map(&guest, DATA, &entries, 0), (Ok(()), 70));
    assert_eq!(guest.cpu(0).call(program::READ, &[DATA])[0], 0x1234);
    for page in 0..70 {
        assert_eq!(page_state(pages.address(page)).shares, page as u64 % 2, "page {page}");
    }
    assert_eq!(guest.statistics().get(Stat::LeavesUnmapped), 0);
    let fault = guest.cpu(0).call_to_exit(program::READ, &[DATA + bytes(2)]).fault();
    assert_eq!((fault.page(), fault.is(flags::FAULT_PERMISSION)), (DATA + bytes(2), false));
    // Holes alone need nothing: no table page, and no number.
    let bare = Vm::bare(40).expect("a VM can be created");
    bare.unmap(0, 1).expect("nothing is there");
    assert_eq!(list.map(&bare, 0, &[0; 512], 0), (Ok(()), 512));
    assert_eq!(bare.statistics().get(Stat::TablePages), 0);
}

fn list_stops_at_what_is_in_the_way() {
    let (guest, pages, list) = (Guest::new(1), Pages::single(8), List::new());
    let other = Pages::single(1);
    guest.map(DATA + bytes(5), other.address(0), 1, RW, 0).expect("a fresh page");
    let entries = backwards(&pages, RW);
    assert_eq!(list.map(&guest, DATA, &entries, 0), (Err(Error::Exists), 5));
    for page in 0..8 {
        let shares = u64::from(page >= 3);
        assert_eq!(page_state(pages.address(page)).shares, shares, "page {page}");
    }
    assert_eq!(guest.test_age(DATA, 8), [true, true, true, true, true, true, false, false]);
    // The host goes on behind it.
    assert_eq!(list.map(&guest, DATA + bytes(6), &entries[6..], 0), (Ok(()), 2));
    // The same page is not in its own way.
    assert_eq!(list.map(&guest, DATA, &entries[..5], 0), (Ok(()), 5));
    assert_eq!(page_state(pages.address(7)).shares, 1);
    let block = Pages::chunks(9, 1);
    let large = RW | flags::MAP_BLOCK_2M;
    guest.map(DATA + (4 << 20), block.address(0), 512, large, 0).expect("a fresh block");
    let under = [0, block.address(1) | RW];
    assert_eq!(list.map(&guest, DATA + (4 << 20), &under, 0), (Err(Error::Exists), 0));
}

fn list_stops_at_what_is_not_ours() {
    let (guest, pages, list) = (Guest::new(1), Pages::single(3), List::new());
    let other = Vm::new();
    let given = Pages::single(1);
    other.donate_range(given.address(0), 1).expect("a good page");
    for (index, foreign) in [given.address(0), 0x0900_0000, 1 << 40].into_iter().enumerate() {
        let entries = [pages.address(0) | RW, 0, foreign | RW, pages.address(1) | RW];
        let answer = list.step(&guest, DATA + bytes(4 * index), &entries, 0);
        assert_eq!(answer, (Err(Error::NotOwner), 2), "{foreign:#x}");
        let shares = [0, 1].map(|page| page_state(pages.address(page)).shares);
        assert_eq!(shares, [index as u64 + 1, 0], "{foreign:#x}");
    }
    other.keep(given);
}

/// A list over a seam between tables, with table pages for the first of them only.
fn list_out_of_table_pages() {
    let (pages, list) = (Pages::single(4), List::new());
    let vm = Vm::bare(40).expect("a VM can be created");
    // Two levels below the root of a VM with 40 bits.
    vm.donate(2);
    let at = (2 << 20) - bytes(2);
    let entries = backwards(&pages, RO);
    // RETRY as long as the search for tables to give back goes on; and an interrupt may end the call before it.
    let mut tries = (0..10_000).map(|_| list.step(&vm, at, &entries, 0));
    let answer = tries.find(|answer| !matches!(answer, (Err(Error::Retry), _) | (Ok(()), 2)));
    assert_eq!(answer, Some((Err(Error::NoMemory), 2)));
    assert_eq!((0..4).map(|page| page_state(pages.address(page)).shares).sum::<u64>(), 2);
    vm.donate(1);
    assert_eq!(list.map(&vm, at + bytes(2), &entries[2..], 0), (Ok(()), 2));
    assert!(pages.addresses().all(|address| page_state(address).shares == 1));
}

fn list_makes_leaves_old_and_clean() {
    const PAGES: usize = 70;
    let (guest, pages, list) = (Guest::new(1), Pages::single(PAGES), List::new());
    let kinds =
        [RW, RW | flags::MAP_OLD, RW | flags::MAP_CLEAN, RW | flags::MAP_OLD | flags::MAP_CLEAN];
    let entry = |page: usize| pages.address(page) | kinds[page % 4];
    let entries: Vec<u64> = (0..PAGES).map(entry).collect();
    assert_eq!(list.map(&guest, DATA, &entries, 0), (Ok(()), PAGES as u64));
    assert_bits(&guest.test_age(DATA, PAGES as u64), "young", |page| page % 2 == 0);
    let dirty = guest.harvest(DATA, PAGES as u64);
    assert_bits(&dirty, "dirty from the beginning", |page| page % 4 < 2);
    // What is old gets young, and what is clean gets dirty, without the host.
    let before = guest.statistics();
    for page in [1, 2, 3, 67] {
        guest.cpu(0).call(program::WRITE, &[DATA + bytes(page), 7]);
        assert_eq!(pages.read(page, 0), 7);
    }
    assert_eq!(guest.statistics().since(&before, Stat::ExitFault), 0);
    let written = |page| [1, 2, 3, 67].contains(&page);
    let young = guest.test_age(DATA, PAGES as u64);
    assert_bits(&young, "young", |page| page % 2 == 0 || written(page));
    assert_bits(&guest.harvest(DATA, PAGES as u64), "dirty", written);
    // A second map of a page makes it neither old nor clean.
    guest.cpu(0).call(program::WRITE, &[DATA + bytes(3), 8]);
    assert_eq!(list.map(&guest, DATA + bytes(3), &entries[3..4], 0), (Ok(()), 1));
    assert_eq!(guest.test_age(DATA + bytes(3), 1), [true]);
    assert_eq!(guest.unmap_dirty(DATA + bytes(3), 1, Bits::Registers), [true]);
}

fn list_keeps_permissions() {
    let (guest, pages, list) = (Guest::new(1), Pages::single(2), List::new());
    pages.write(0, 0, 0x55);
    let entries = [pages.address(0) | RO, pages.address(1) | RW];
    assert_eq!(list.map(&guest, DATA, &entries, 0), (Ok(()), 2));
    assert_eq!(guest.cpu(0).call(program::READ, &[DATA])[0], 0x55);
    guest.cpu(0).call(program::WRITE, &[DATA + bytes(1), 5]);
    let fault = guest.cpu(0).call_to_exit(program::WRITE, &[DATA + 8, 5]).fault();
    assert!(fault.is(flags::FAULT_WRITE) && fault.is(flags::FAULT_PERMISSION), "{fault:x?}");
    assert_eq!((pages.read(0, 1), pages.read(1, 0)), (0, 5));
}

fn list_adds_permissions() {
    let (guest, pages, list) = (Guest::new(1), Pages::single(2), List::new());
    let entries = |flags| [0, 1].map(|page| pages.address(page) | flags);
    assert_eq!(list.map(&guest, DATA, &entries(RO), 0), (Ok(()), 2));
    let exit = guest.cpu(0).call_to_exit(program::WRITE, &[DATA + bytes(1), 5]);
    assert!(exit.fault().is(flags::FAULT_PERMISSION));
    assert_eq!(list.map(&guest, DATA, &entries(RWX), 0), (Ok(()), 2));
    assert!(guest.cpu(0).run().done().is_some(), "the write is repeated");
    assert_eq!(pages.read(1, 0), 5);
    // Less takes nothing away.
    assert_eq!(list.map(&guest, DATA, &entries(RO), 0), (Ok(()), 2));
    guest.cpu(0).call(program::WRITE, &[DATA, 6]);
    assert_eq!([0, 1].map(|page| page_state(pages.address(page)).shares), [1, 1]);
}

fn list_is_refused_while_invalidating() {
    let (guest, pages, list) = (Guest::new(1), Pages::single(4), List::new());
    let entries = backwards(&pages, RW);
    let old = guest.sequence(0);
    guest.invalidate_begin(DATA + bytes(2), 1).expect("a good range");
    let before = guest.statistics();
    let refused = (Err(Error::Retry), 0);
    assert_eq!(list.map(&guest, DATA, &entries, guest.sequence(0)), refused);
    assert_eq!(guest.statistics().since(&before, Stat::Retries), 1);
    assert!(pages.addresses().all(|address| page_state(address) == PageState::FREE));
    assert_eq!(list.map(&guest, DATA, &entries[..2], guest.sequence(0)), (Ok(()), 2));
    guest.invalidate_end(DATA + bytes(2), 1, 1).expect("a mark of ours");
    assert_eq!(list.map(&guest, DATA, &entries, old), refused, "it ended since");
    assert_eq!(list.map(&guest, DATA, &entries, guest.sequence(0)), (Ok(()), 4));
    assert!(pages.addresses().all(|address| page_state(address).shares == 1));
}

/// What a host does with a fault: the page with the neighbours that it has, and no second exit for them.
fn list_answers_a_fault() {
    let (guest, pages, list) = (Guest::new(1), Pages::single(16), List::new());
    (0..16).for_each(|page| pages.write(page, 0, 0x100 + page as u64));
    let fault = guest.cpu(0).call_to_exit(program::READ, &[DATA + bytes(9)]).fault();
    let group = fault.page() & !(bytes(16) - 1);
    let mut entries: Vec<u64> =
        pages.addresses().map(|address| address | RW | flags::MAP_OLD).collect();
    entries[9] &= !flags::MAP_OLD;
    assert_eq!(list.map(&guest, group, &entries, fault.sequence), (Ok(()), 16));
    assert_eq!(guest.cpu(0).run().done().expect("the read is repeated")[0], 0x109);
    let young = guest.test_age(group, 16);
    assert_bits(&young, "young", |page| page == 9);
    let before = guest.statistics();
    for page in 0..16 {
        let seen = guest.cpu(0).call(program::READ, &[group + bytes(page)])[0];
        assert_eq!(seen, 0x100 + page as u64);
    }
    assert_eq!(guest.statistics().since(&before, Stat::ExitFault), 0);
}

/// Another CPU writes into the list while it is read: what is mapped was there at some moment, whole and
/// well-formed, and a call that fails has mapped nothing.
fn list_that_changes_meanwhile() {
    needs_two_cpus();
    const TRIES: usize = 8000;
    let cpu = spread(1)[0];
    let (guest, pages, list) = (Guest::new(1), Pages::single(2), List::new());
    let [first, second] = [0, 1].map(|page| pages.address(page));
    let entries = [first | RW, second | RO, 0, first | RW | 1 << 7, second | RO | flags::MAP_CLEAN];
    let stop = AtomicBool::new(false);
    let mut kinds = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            sys::run_on(cpu).expect("the CPU is there");
            let stopped = |_: &&u64| stop.load(Ordering::Relaxed);
            let endless = entries.iter().cycle();
            endless
                .take_while(|entry| !stopped(entry))
                .for_each(|&entry| list.0.write(0, 0, entry));
        });
        // Each try at a place of its own.
        kinds.extend((0..TRIES).map(|place| {
            let before = [first, second].map(|page| page_state(page).shares);
            let arguments = [guest.handle(), DATA + bytes(place), 1, list.address(), 0];
            let status = raw().call(call::MAP_LIST, &arguments).status();
            let after = [first, second].map(|page| page_state(page).shares);
            match (status, [0, 1].map(|page| after[page] - before[page])) {
                (Ok(()), [1, 0]) => 0,
                (Ok(()), [0, 1]) => 1,
                (Ok(()), [0, 0]) => 2,
                (Err(Error::Invalid), [0, 0]) => 3,
                other => panic!("{other:?}"),
            }
        }));
        stop.store(true, Ordering::Relaxed);
    });
    let times = [0, 1, 2, 3].map(|kind| kinds.iter().filter(|&&of| of == kind).count());
    assert!(times.iter().all(|&times| times > TRIES / 50), "{times:?}");
    // The first page may be written, and so it counts as dirty.
    let dirty = guest.unmap_dirty(DATA, TRIES as u64, Bits::Registers);
    assert_bits(&dirty, "dirty", |place| kinds[place] == 0);
    assert!(pages.addresses().all(|address| page_state(address) == PageState::FREE));
}
