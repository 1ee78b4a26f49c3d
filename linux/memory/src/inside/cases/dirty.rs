//! Dirty logging by the interface: a copy that follows the log ends up equal to the guest's memory, whatever Linux
//! does to that memory meanwhile.

use std::sync::Arc;

use verdigris_guest::program;
use verdigris_ktap::test_table;

use super::support::{HAND, PLAYERS};
use crate::inside::disturb::{Disturber, KINDS};
use crate::inside::guest::{DATA, DATA_SLOT, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::{BLOCK, PAGE};
use crate::inside::vm::{LOG, pages_of};
use crate::inside::{region, swap};

test_table! { "memory", 600:
    log_is_exact, copy_by_log, copy_by_cleared_log, copy_by_log_that_begins_full, copy_of_blocks,
}

const PAGES: usize = 256;
/// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, and what it can be enabled with.
const MANUAL: u32 = 168;
const BY_HAND: u64 = 1;
const BEGINS_FULL: u64 = 2;

/// What was written is in the log, once, and nothing else is.
fn log_is_exact() {
    for kind in region::KINDS {
        let guest = Guest::with(Region::new(kind, PAGES * PAGE).expect("memory"), LOG);
        let mut hand = guest.vcpu(HAND);
        let log = || pages_of(&guest.vm.dirty_log(DATA_SLOT, PAGES).expect("a log"));
        for round in 1..4u64 {
            let stride = 3 + round as usize;
            let pages: Vec<_> = (0..PAGES).step_by(stride).collect();
            for &page in &pages {
                hand.program(program::READ, &[guest.page_address((page + 1) % PAGES)]);
                hand.program(program::WRITE, &[guest.page_address(page), round]);
            }
            assert_eq!(log(), pages, "{kind:?}, round {round}");
            assert_eq!(log(), [], "{kind:?}, round {round}: nothing was written since");
        }
        // What the host writes through its own mapping is none of the log's business.
        guest.data.write(0, 99);
        assert_eq!(log(), []);
    }
}

/// A copy of the guest's data.
struct Copy {
    pages: Vec<Vec<u64>>,
    copied: usize,
}

impl Copy {
    fn of(guest: &Guest) -> Self {
        let pages = (0..guest.data.pages()).map(|page| guest.data.page(page)).collect();
        Self { pages, copied: 0 }
    }

    fn take(&mut self, guest: &Guest, pages: &[usize]) {
        for &page in pages {
            self.pages[page] = guest.data.page(page);
        }
        self.copied += pages.len();
    }

    fn compare(&self, guest: &Guest) {
        for (page, copy) in self.pages.iter().enumerate() {
            let now = guest.data.page(page);
            let wrong = now.iter().zip(copy).position(|(now, copy)| now != copy);
            assert_eq!(
                wrong,
                None,
                "page {page}, version {}: the copy differs",
                guest.version(page)
            );
        }
    }
}

/// Reads the log, clears it where that is a call of its own, and copies.
fn follow(guest: &Guest, copy: &mut Copy, by_hand: bool) -> usize {
    let pages = guest.data.pages();
    let log = guest.vm.dirty_log(DATA_SLOT, pages).expect("a log");
    if by_hand {
        // In parts that begin at multiples of 64.
        for first in (0..pages).step_by(256) {
            let count = 256.min(pages - first);
            let bits = &log[first / 64..(first + count).div_ceil(64)];
            let cleared = guest.vm.clear_dirty_log(DATA_SLOT, first as u64, count as u32, bits);
            cleared.expect("a log that is cleared by hand");
        }
    }
    let dirty: Vec<_> = pages_of(&log).into_iter().filter(|&page| page < pages).collect();
    copy.take(guest, &dirty);
    dirty.len()
}

fn copy_by(kind: Kind, bytes: usize, manual: u64) {
    swap::ensure();
    let disturber = Disturber::new("memory-dirty", bytes as u64 ^ manual);
    let guest = Arc::new(Guest::new(kind, bytes));
    if manual != 0 {
        guest.vm.enable(MANUAL, manual).expect("a capability");
    }
    let ledger = Ledger::start(&guest, PLAYERS);
    ledger.wait(10);
    guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), LOG);
    let mut copy = Copy::of(&guest);
    if manual & BEGINS_FULL != 0 {
        let first = follow(&guest, &mut copy, true);
        assert_eq!(first, guest.data.pages(), "the log begins full");
    }
    for round in 0..KINDS.len() {
        disturber.disturb(&guest.data, Some(round));
        ledger.wait(1);
        follow(&guest, &mut copy, manual != 0);
    }
    let vcpus = ledger.pause();
    follow(&guest, &mut copy, manual != 0);
    copy.compare(&guest);
    assert_eq!(follow(&guest, &mut copy, manual != 0), 0, "the guest has stopped");
    println!("{} pages copied", copy.copied);
    assert!(copy.copied > 0);
    guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), 0);
    let ledger = Ledger::resume(&guest, vcpus, guest.data.pages());
    ledger.wait(5);
    ledger.finish();
}

fn copy_by_log() {
    copy_by(Kind::Pages, PAGES * PAGE, 0);
}

fn copy_by_cleared_log() {
    copy_by(Kind::Pages, PAGES * PAGE, BY_HAND);
}

fn copy_by_log_that_begins_full() {
    copy_by(Kind::Pages, PAGES * PAGE, BY_HAND | BEGINS_FULL);
}

fn copy_of_blocks() {
    copy_by(Kind::Blocks, 2 * BLOCK, 0);
}
