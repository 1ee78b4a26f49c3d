//! Blocks of 2 MiB and 1 GiB.

use verdigris_abi::{Error, Stat, call, flags};
use verdigris_guest::{pattern, program, touch};

use super::support::{assert_bits, bytes};
use crate::firmware::{Features, PageState, page_state};
use crate::guest::{DATA, Guest};
use crate::ktap::{skip, test_table};
use crate::pages::Pages;
use crate::raw::raw;
use crate::vm::RW;

test_table! { "suite", 30:
    block_content, block_ages_as_one, block_as_512_pages, block_splits, block_goes_without_tables,
    block_over_table, gigabyte_block,
}

const PAGES: usize = 512;
const ORDER: u32 = 9;
const BLOCK: u64 = RW | flags::MAP_BLOCK_2M;

fn with_block() -> (Guest, Pages) {
    let (guest, block) = (Guest::new(1), Pages::chunks(ORDER, 1));
    guest.map(DATA, block.address(0), PAGES as u64, BLOCK, 0).expect("a fresh block");
    (guest, block)
}

fn block_content() {
    let (guest, block) = with_block();
    assert_eq!(guest.statistics().get(Stat::LeavesMapped) & 511, guest_leaves(&guest));
    guest.cpu(0).call(program::FILL, &[DATA, bytes(PAGES), 3]);
    for page in [0, 1, 255, 511] {
        assert_eq!(block.read(page, 5), pattern(DATA + bytes(page) + 40, 3), "page {page}");
        assert_eq!(page_state(block.address(page)).shares, 1, "page {page}");
    }
    guest.unmap(DATA, PAGES as u64).expect("a mapping");
    assert!(block.addresses().all(|address| page_state(address) == PageState::FREE));
}

/// Leaves of payload, stack and control page, and one block: far fewer than 512.
fn guest_leaves(guest: &Guest) -> u64 {
    let leaves = guest.statistics().get(Stat::LeavesMapped);
    assert!(leaves < 64, "{leaves} leaves: the block became pages");
    leaves
}

fn block_ages_as_one() {
    let (guest, _block) = with_block();
    assert_bits(&guest.age(DATA, PAGES as u64, flags::AGE_FLUSH_ALL), "fresh", |_| true);
    assert_bits(&guest.test_age(DATA, PAGES as u64), "cleared", |_| false);
    guest.cpu(0).call(program::READ, &[DATA + bytes(300)]);
    assert_bits(&guest.test_age(DATA, PAGES as u64), "touched once", |_| true);
    assert_bits(&guest.test_age(DATA + bytes(7), 3), "a part", |_| true);
    assert_bits(&guest.age(DATA + bytes(9), 1, flags::AGE_FLUSH_ALL), "a part", |_| true);
    assert_bits(&guest.test_age(DATA, PAGES as u64), "cleared by a part", |_| false);
}

fn block_as_512_pages() {
    let (guest, chunk) = (Guest::new(1), Pages::chunks(ORDER, 1));
    guest.map(DATA, chunk.address(0), PAGES as u64, RW, 0).expect("fresh pages");
    guest.age(DATA, PAGES as u64, flags::AGE_FLUSH_ALL);
    guest.cpu(0).call(program::TOUCH, &[DATA, PAGES as u64, 3, touch::WRITE, 8]);
    let young = guest.age(DATA, PAGES as u64, flags::AGE_FLUSH_ALL);
    assert_bits(&young, "every third page", |page| page % 3 == 0);
}

fn block_splits() {
    let (guest, block) = with_block();
    guest.cpu(0).call(program::FILL, &[DATA, bytes(PAGES), 3]);
    guest.unmap(DATA + bytes(100), 8).expect("a part of a block");
    for page in 0..PAGES {
        let shares = u64::from(!(100..108).contains(&page));
        assert_eq!(page_state(block.address(page)).shares, shares, "page {page}");
    }
    for (first, count) in [(0, 100), (108, 404)] {
        let [wrong, ..] =
            guest.cpu(0).call(program::CHECK, &[DATA + bytes(first), bytes(count), 3]);
        assert_eq!(wrong, 0, "from page {first}");
    }
    let fault = guest.cpu(0).call_to_exit(program::READ, &[DATA + bytes(103)]).fault();
    assert_eq!(fault.page(), DATA + bytes(103));
}

/// Takes all free table pages from a VM.
fn starve(guest: &Guest) {
    loop {
        let reply = raw().call(call::VM_RECLAIM, &[guest.handle(), 16]);
        reply.status().expect("a good call");
        if reply.0[1] == 0 {
            return;
        }
    }
}

fn block_goes_without_tables() {
    let (guest, block) = with_block();
    guest.cpu(0).call(program::FILL, &[DATA, bytes(PAGES), 3]);
    starve(&guest);
    let before = guest.statistics();
    guest.unmap(DATA + bytes(100), 8).expect("unmap never fails for want of memory");
    assert_eq!(guest.statistics().since(&before, Stat::BlocksDropped), 1);
    assert!(block.addresses().all(|address| page_state(address) == PageState::FREE));
    let fault = guest.cpu(0).call_to_exit(program::READ, &[DATA]).fault();
    let again = guest.map(DATA, block.address(0), PAGES as u64, BLOCK, fault.sequence);
    assert_eq!(again, Ok(()), "the guest faults the rest in again");
    assert!(guest.cpu(0).run().done().is_some());
    assert_eq!(guest.cpu(0).call(program::CHECK, &[DATA, bytes(PAGES), 3])[0], 0);
}

fn block_over_table() {
    let (guest, block) = (Guest::new(1), Pages::chunks(ORDER, 1));
    guest.map(DATA, block.address(0), 1, RW, 0).expect("a fresh page");
    let refused = guest.map(DATA, block.address(0), PAGES as u64, BLOCK, 0);
    assert_eq!(refused, Err(Error::Exists), "a block over pages");
    guest.unmap(DATA, PAGES as u64).expect("a mapping");
    let sequence = guest.sequence(0);
    guest.map(DATA, block.address(0), PAGES as u64, BLOCK, sequence).expect("the table is empty");
    let page = guest.map(DATA, block.address(0), 1, RW, sequence);
    assert_eq!(page, Err(Error::Exists), "a page under a block");
}

/// Lists the host's RAM as /proc/iomem has it: first and last address.
fn ram() -> Vec<(u64, u64)> {
    let number = |text: &str| u64::from_str_radix(text.trim(), 16).expect("hexadecimal");
    let map = std::fs::read_to_string("/proc/iomem").expect("a file of the kernel's");
    let lines = map.lines().filter_map(|line| line.strip_suffix(" : System RAM"));
    lines.filter_map(|range| range.split_once('-')).map(|(a, b)| (number(a), number(b))).collect()
}

const GIB: u64 = 1 << 30;

/// Lists aligned GiB of RAM that have no page of the VM's in them.
fn gigabytes(guest: &Guest) -> Vec<u64> {
    let donated = guest.donated_addresses();
    let aligned = |(first, last): (u64, u64)| {
        let starts = (first.next_multiple_of(GIB)..last).step_by(GIB as usize);
        starts.filter(move |start| start + GIB - 1 <= last)
    };
    let is_free = |start: &u64| !donated.iter().any(|address| address & !(GIB - 1) == *start);
    ram().into_iter().flat_map(aligned).filter(is_free).collect()
}

/// Allocates until a page lies in one of these GiB: the pages, which of them, and the GiB.
fn page_inside(gigabytes: &[u64]) -> Option<(Pages, usize, u64)> {
    let mut others = Vec::new();
    for _ in 0..8 {
        let pages = Pages::chunks(10, 64);
        let gigabyte = |address: u64| address & !(GIB - 1);
        let found = pages.addresses().position(|address| gigabytes.contains(&gigabyte(address)));
        if let Some(page) = found {
            let start = gigabyte(pages.address(page));
            return Some((pages, page, start));
        }
        others.push(pages);
    }
    None
}

fn gigabyte_block() {
    let guest = Guest::new(1);
    let gigabytes = gigabytes(&guest);
    if gigabytes.is_empty() {
        skip("the host has no aligned GiB of RAM to map");
    }
    let (pages, page, start) = page_inside(&gigabytes).expect("memory in one of them");
    let flags = RW | flags::MAP_BLOCK_1G;
    if !Features::read().has(flags::FEATURE_FORCED_WRITE_BACK) {
        // It would have to be cleaned from the caches in one go.
        return assert_eq!(guest.map(DATA, start, 1 << 18, flags, 0), Err(Error::NotSupported));
    }
    guest.map(DATA, start, 1 << 18, flags, 0).expect("1 GiB of the host's can be mapped");
    pages.write(page, 0, 0x6789);
    let ipa = DATA + (pages.address(page) - start);
    assert_eq!(guest.cpu(0).call(program::READ, &[ipa])[0], 0x6789);
    assert_eq!(page_state(pages.address(page)).shares, 1);
    guest.age(DATA, 1, flags::AGE_FLUSH_ALL);
    guest.cpu(0).call(program::READ, &[ipa]);
    assert_eq!(guest.test_age(DATA, 1024), vec![true; 1024]);
    guest.unmap(DATA, 1 << 18).expect("a mapping");
    assert_eq!(page_state(pages.address(page)), PageState::FREE);
}
