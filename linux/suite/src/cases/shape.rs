//! The shape of the tables: blocks to pages and back, and tables that nobody needs any more.

use verdigris_abi::{Error, Stat, Status, call, flags};
use verdigris_guest::{program, touch};

use super::support::{assert_bits, bytes, settled, spread, vcpus_at_once};
use crate::firmware::{PageState, page_state};
use crate::guest::{DATA, Guest, Spinner};
use crate::ktap::test_table;
use crate::pages::{PAGE, Pages};
use crate::raw::raw;
use crate::vm::{IPA_BITS, RO, RW, RWX, Vm};

test_table! { "suite", 60:
    split_keeps_content_age_and_dirt, split_of_a_part, split_without_tables, split_stops_at_blocks,
    collapse_keeps_content_age_and_dirt, collapse_refuses_what_is_no_block, collapse_of_mixed_pages,
    split_and_collapse_under_readers, split_and_collapse_under_writers, shares_follow_the_shape,
    empty_tables_are_reclaimed, tables_in_use_are_not_reclaimed, want_of_tables_reclaims_empty_ones,
    table_pages_per_gib,
}

const PAGES: u64 = 512;
const BLOCK: u64 = flags::MAP_BLOCK_2M;
const ALL: u64 = flags::AGE_FLUSH_ALL;

fn with_block(vcpus: usize) -> (Guest, Pages) {
    let (guest, block) = (Guest::new(vcpus), Pages::chunks(9, 1));
    guest.map(DATA, block.address(0), PAGES, RW | BLOCK, 0).expect("a fresh block");
    (guest, block)
}

fn with_pages(vcpus: usize, flags: u64) -> (Guest, Pages) {
    let (guest, block) = (Guest::new(vcpus), Pages::chunks(9, 1));
    guest.map(DATA, block.address(0), PAGES, flags, 0).expect("fresh pages");
    (guest, block)
}

fn count(guest: &Guest, stat: Stat, action: impl FnOnce()) -> u64 {
    let before = guest.statistics();
    action();
    guest.statistics().since(&before, stat)
}

fn split(guest: &Guest) {
    guest.split(DATA, PAGES, 0).expect("a table page is free");
}

fn collapse(guest: &Guest) {
    guest.collapse(DATA, PAGES, BLOCK).expect("pages that lie beside each other");
}

/// Tells whether one write makes all pages dirty: then they are one leaf.
fn is_one_leaf(guest: &Guest) -> bool {
    guest.age(DATA, PAGES, ALL);
    guest.cpu(0).call(program::READ, &[DATA]);
    let young = guest.test_age(DATA, PAGES);
    assert!(young[0], "a page that was touched");
    young[511]
}

fn split_keeps_content_age_and_dirt() {
    for (touches, writes) in [(false, false), (true, false), (true, true)] {
        let (guest, _block) = with_block(1);
        guest.cpu(0).call(program::FILL, &[DATA, bytes(512), 5]);
        guest.age(DATA, PAGES, ALL);
        guest.harvest(DATA, PAGES);
        if touches {
            guest.cpu(0).call(program::READ, &[DATA + bytes(9)]);
        }
        if writes {
            guest.cpu(0).call(program::TOUCH, &[DATA, 1, 1, touch::WRITE, 0]);
        }
        assert_eq!(count(&guest, Stat::BlocksSplit, || split(&guest)), 1);
        assert_bits(&guest.test_age(DATA, PAGES), "age", |_| touches);
        assert_bits(&guest.harvest(DATA, PAGES), "dirt", |_| writes);
        let rest = [DATA + bytes(1), bytes(511), 5];
        assert_eq!(guest.cpu(0).call(program::CHECK, &rest)[0], 0, "content");
        assert!(!is_one_leaf(&guest), "it is still a block");
        assert_eq!(count(&guest, Stat::BlocksSplit, || split(&guest)), 0, "there is no block");
    }
}

/// A block that reaches past the range is split as a whole; what is beside it stays.
fn split_of_a_part() {
    let (guest, blocks) = (Guest::new(1), Pages::chunks(9, 2));
    for (index, (address, _)) in blocks.ranges().enumerate() {
        let ipa = DATA + index as u64 * (2 << 20);
        guest.map(ipa, address, PAGES, RW | BLOCK, 0).expect("a fresh block");
    }
    let split = || guest.split(DATA + bytes(100), 3, 0).expect("a table page is free");
    assert_eq!(count(&guest, Stat::BlocksSplit, split), 1);
    assert!(!is_one_leaf(&guest));
    guest.age(DATA, 1024, ALL);
    guest.cpu(0).call(program::READ, &[DATA + bytes(600)]);
    assert_bits(&guest.test_age(DATA, 1024), "the other block", |page| page >= 512);
}

/// Takes all free table pages from a VM.
fn starve(guest: &Guest) {
    while raw().value(call::VM_RECLAIM, &[guest.handle(), 16]).expect("a good call") != 0 {}
}

fn split_without_tables() {
    let (guest, _block) = with_block(1);
    guest.cpu(0).call(program::FILL, &[DATA, bytes(512), 6]);
    starve(&guest);
    assert_eq!(settled(|| guest.split(DATA, PAGES, 0)), Err(Error::NoMemory));
    assert_eq!(guest.cpu(0).call(program::CHECK, &[DATA, bytes(512), 6])[0], 0, "untouched");
    assert!(is_one_leaf(&guest));
    guest.donate(1);
    split(&guest);
    assert!(!is_one_leaf(&guest));
}

fn split_stops_at_blocks() {
    let (guest, _block) = with_block(1);
    guest.split(DATA, PAGES, BLOCK).expect("nothing is larger");
    assert!(is_one_leaf(&guest), "a block of 2 MiB was split");
}

fn collapse_keeps_content_age_and_dirt() {
    for (touches, writes) in [(false, false), (true, false), (true, true)] {
        let (guest, _block) = with_pages(1, RW);
        guest.cpu(0).call(program::FILL, &[DATA, bytes(512), 7]);
        guest.age(DATA, PAGES, ALL);
        guest.harvest(DATA, PAGES);
        if touches {
            guest.cpu(0).call(program::READ, &[DATA + bytes(200)]);
        }
        if writes {
            guest.cpu(0).call(program::TOUCH, &[DATA, 1, 1, touch::WRITE, 0]);
        }
        assert_eq!(count(&guest, Stat::BlocksCollapsed, || collapse(&guest)), 1);
        assert_bits(&guest.test_age(DATA, PAGES), "age", |_| touches);
        assert_bits(&guest.harvest(DATA, PAGES), "dirt", |_| writes);
        let rest = [DATA + bytes(1), bytes(511), 7];
        assert_eq!(guest.cpu(0).call(program::CHECK, &rest)[0], 0, "content");
        assert!(is_one_leaf(&guest), "it is still pages");
    }
}

/// Collapses pages that can't be one block, and looks whether they are as they were.
#[track_caller]
fn assert_refused(guest: &Guest, pages: &Pages, what: &str) {
    let before: Vec<_> = pages.addresses().map(page_state).collect();
    let refused: Status = guest.collapse(DATA, PAGES, BLOCK);
    assert_eq!(refused, Err(Error::Exists), "{what}");
    let after: Vec<_> = pages.addresses().map(page_state).collect();
    assert_eq!(before, after, "{what}: shares changed");
    assert_eq!(guest.statistics().get(Stat::BlocksCollapsed), 0, "{what}");
}

fn collapse_refuses_what_is_no_block() {
    let (guest, pages) = with_pages(1, RW);
    guest.unmap(DATA + bytes(77), 1).expect("a mapping");
    assert_refused(&guest, &pages, "a hole");
    let other = Pages::single(1);
    let sequence = guest.sequence(0);
    guest.map(DATA + bytes(77), other.address(0), 1, RW, sequence).expect("a fresh page");
    assert_refused(&guest, &pages, "a page that lies elsewhere");
    let (guest, pages) = with_pages(1, RW);
    guest.map(DATA + bytes(9), pages.address(9), 1, RWX, 0).expect("more permission");
    assert_refused(&guest, &pages, "a page with another permission");
    let (guest, pages) = (Guest::new(1), Pages::chunks(10, 1));
    guest.map(DATA, pages.address(1), PAGES, RW, 0).expect("fresh pages");
    assert_refused(&guest, &pages, "pages that begin in the middle of a block");
    let empty = guest.collapse(DATA + (2 << 20), PAGES, BLOCK);
    assert_eq!(empty, Err(Error::Exists), "nothing is mapped there");
}

/// Pages of which some were written and some not become a block that was.
fn collapse_of_mixed_pages() {
    let (guest, block) = with_pages(1, RW);
    guest.harvest(DATA, PAGES);
    guest.age(DATA, PAGES, ALL);
    guest.cpu(0).call(program::TOUCH, &[DATA, PAGES, 50, touch::WRITE, 8]);
    collapse(&guest);
    assert_bits(&guest.test_age(DATA, PAGES), "one was young", |_| true);
    assert_bits(&guest.harvest(DATA, PAGES), "one was written", |_| true);
    assert_bits(&guest.harvest(DATA, PAGES), "armed", |_| false);
    guest.cpu(0).call(program::WRITE, &[DATA + bytes(3), 0x3333]);
    assert_eq!(block.read(3, 0), 0x3333);
    let (guest, _block) = with_pages(1, RO);
    guest.collapse(DATA, PAGES, BLOCK).expect("read-only pages");
    let fault = guest.cpu(0).call_to_exit(program::WRITE, &[DATA, 1]).fault();
    assert!(fault.is(flags::FAULT_PERMISSION), "{fault:x?}");
}

/// Changes the shape again and again while vCPUs go on, none of which may come to the host for it.
fn change_under(kind: u64) {
    let (guest, block) = with_pages(vcpus_at_once(), RW);
    let cpus = spread(guest.cpus().len());
    let spin = |(index, &cpu)| guest.spin(index, cpu, program::SPIN, &[DATA, PAGES, 1, kind]);
    let spinners: Vec<Spinner> = cpus.iter().enumerate().map(spin).collect();
    for round in 0..40 {
        collapse(&guest);
        split(&guest);
        if round % 8 == 0 {
            spinners.iter().for_each(Spinner::wait_a_round);
        }
    }
    spinners.iter().for_each(Spinner::wait_a_round);
    for spinner in spinners {
        assert!(spinner.stop().done().is_some(), "a guest came to the host");
    }
    assert_eq!(guest.statistics().get(Stat::BlocksCollapsed), 40);
    assert!(block.addresses().all(|address| page_state(address).shares == 1));
}

fn split_and_collapse_under_readers() {
    change_under(touch::READ);
}

fn split_and_collapse_under_writers() {
    change_under(touch::WRITE);
}

fn shares_follow_the_shape() {
    let (guest, block) = with_pages(1, RW);
    let shares = || block.addresses().map(|page| page_state(page).shares).collect::<Vec<_>>();
    let mapped = guest.statistics().get(Stat::PagesMapped);
    for _ in 0..3 {
        collapse(&guest);
        assert_eq!(shares(), [1; 512]);
        split(&guest);
        assert_eq!(shares(), [1; 512]);
        assert_eq!(guest.statistics().get(Stat::PagesMapped), mapped);
    }
    guest.unmap(DATA, PAGES).expect("mappings");
    assert!(block.addresses().all(|page| page_state(page) == PageState::FREE));
    assert_eq!(mapped - guest.statistics().get(Stat::PagesMapped), PAGES);
}

/// One page in each of some 2 MiB, unmapped one by one: that leaves their tables.
fn with_empty_tables(guest: &Guest, tables: u64) -> Pages {
    let page = Pages::single(1);
    let sequence = guest.sequence(0);
    for index in 0..tables {
        let at = DATA + index * (2 << 20);
        guest.map(at, page.address(0), 1, RW, sequence).expect("a fresh page");
    }
    (0..tables).for_each(|index| guest.unmap(DATA + index * (2 << 20), 1).expect("a mapping"));
    page
}

fn empty_tables_are_reclaimed() {
    const TABLES: u64 = 20;
    let guest = Guest::new(1);
    let before = guest.statistics();
    let _page = with_empty_tables(&guest, TABLES);
    let used = guest.statistics().since(&before, Stat::TablePages);
    assert!(used >= TABLES, "{used} tables for {TABLES}");
    guest.reclaim_tables(DATA, TABLES * PAGES).expect("a good range");
    let now = guest.statistics();
    assert!(now.since(&before, Stat::TablesReclaimed) >= TABLES);
    // They wait until all CPUs have left the firmware: one later call notes who is inside, the next
    // finds that they have left.
    for _ in 0..8 {
        guest.reclaim_tables(DATA, TABLES * PAGES).expect("a good range");
    }
    let now = guest.statistics();
    // The table above them covers more than the range, and stays.
    let kept = now.get(Stat::TablePages) - before.get(Stat::TablePages);
    assert!(kept <= 2, "{kept} tables more than before");
    assert!(now.get(Stat::FreeTablePages) + 2 >= before.get(Stat::FreeTablePages));
    let _again = with_empty_tables(&guest, TABLES);
}

fn tables_in_use_are_not_reclaimed() {
    let guest = Guest::new(vcpus_at_once());
    let data = guest.with_data(1500, RW);
    let cpus = spread(guest.cpus().len());
    let spin =
        |(index, &cpu)| guest.spin(index, cpu, program::SPIN, &[DATA, 1500, 7, touch::WRITE]);
    let spinners: Vec<Spinner> = cpus.iter().enumerate().map(spin).collect();
    for _ in 0..50 {
        guest.reclaim_tables(DATA, 4096).expect("a good range");
    }
    spinners.iter().for_each(Spinner::wait_a_round);
    for spinner in spinners {
        assert!(spinner.stop().done().is_some(), "a guest came to the host");
    }
    assert_eq!(guest.statistics().get(Stat::TablesReclaimed), 0);
    assert!(data.addresses().all(|page| page_state(page).shares == 1));
}

/// Before a map fails for want of a table page, empty tables are used.
fn want_of_tables_reclaims_empty_ones() {
    let vm = Vm::bare(IPA_BITS).expect("a VM");
    vm.donate(16);
    let guest = Guest::inside(vm, 1);
    let page = Pages::single(1);
    for index in 0..100 {
        let at = DATA + index * (2 << 20);
        let result = settled(|| guest.map(at, page.address(0), 1, RW, guest.sequence(0)));
        result.unwrap_or_else(|error| panic!("map {index}: {error}"));
        guest.unmap(at, 1).expect("a mapping");
    }
    assert!(guest.statistics().get(Stat::TablesReclaimed) > 0);
}

fn table_pages_per_gib() {
    let guest = Guest::new(1);
    let _data = guest.with_data(1000, RW);
    let statistics = guest.statistics();
    let (tables, pages) = (statistics.get(Stat::TablePages), statistics.get(Stat::PagesMapped));
    assert!(pages >= 1000, "{pages} pages");
    let pages_per_gib = (1 << 30) / PAGE as u64;
    let expected = (tables * pages_per_gib).div_ceil(pages);
    assert_eq!(statistics.get(Stat::TablePagesPerGib), expected, "{tables} of {pages}");
}
