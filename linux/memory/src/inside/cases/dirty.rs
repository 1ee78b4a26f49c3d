//! Dirty logging by the interface: a copy that follows the log ends up equal to the guest's memory, whatever Linux
//! does to that memory meanwhile.

use std::sync::Arc;

use verdigris_guest::{pattern, program};
use verdigris_ktap::test_table;

use super::support::{HAND, PLAYERS};
use super::swapping::write_first_version;
use crate::inside::counters::{Counters, is_verdigris, wait_until};
use crate::inside::disturb::{Disturber, KINDS};
use crate::inside::guest::{DATA, DATA_SLOT, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::region::Kind;
use crate::inside::sys::{BLOCK, PAGE};
use crate::inside::vcpu::Vcpu;
use crate::inside::vm::{LOG, pages_of};
use crate::inside::{region, swap};

test_table! { "memory", 600:
    log_is_exact, log_keeps_what_goes, copy_by_log, copy_of_blocks, copy_by_cleared_log, copy_by_log_that_begins_full,
}

/// All tests here have as much: where it may be huge, two blocks.
const BLOCKS: usize = 2;
const BYTES: usize = BLOCKS * BLOCK;
const PAGES: usize = BYTES / PAGE;
/// What the guest fills its memory with, before there is a log.
const SEED: u64 = 11;
/// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, and what it can be enabled with.
const MANUAL: u32 = 168;
const BY_HAND: u64 = 1;
const BEGINS_FULL: u64 = 2;

/// Turns the log on or off.
fn set_log(guest: &Guest, flags: u32) {
    guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), flags);
}

/// Takes the log.
fn log(guest: &Guest) -> Vec<usize> {
    pages_of(&guest.vm.dirty_log(DATA_SLOT, PAGES).expect("a log"))
}

/// Reads one of the VM's counters, which Linux's own KVM doesn't have.
fn statistic(guest: &Guest, name: &str) -> Option<u64> {
    is_verdigris().then(|| guest.vm.statistics()[name])
}

/// A guest that has filled its memory, in blocks where it can be.
fn filled(kind: Kind) -> (Guest, Vcpu) {
    let guest = Guest::new(kind, BYTES);
    if kind == Kind::Blocks {
        (0..PAGES).for_each(|page| guest.data.write(page * PAGE, 0));
        super::huge::collapse(&guest);
    }
    let mut hand = guest.vcpu(HAND);
    hand.program(program::FILL, &[DATA, BYTES as u64, SEED]);
    let blocks = if kind == Kind::Blocks { BLOCKS as u64 } else { 0 };
    assert!(statistic(&guest, "blocks_mapped").is_none_or(|mapped| mapped == blocks), "{kind:?}");
    (guest, hand)
}

/// What was written is in the log, once, and nothing else is, from the first moment on. Blocks are pages as long as the slot
/// logs, and blocks again afterwards.
fn log_is_exact() {
    for kind in region::KINDS {
        let (guest, mut hand) = filled(kind);
        for round in 1..4u64 {
            let count = |name| statistic(&guest, name);
            let before = ["fw_blocks_split", "fw_blocks_collapsed"].map(count);
            set_log(&guest, LOG);
            assert_eq!(log(&guest), [], "{kind:?}, round {round}: what was written before the log");
            write_some(&guest, &mut hand, round);
            // What the host writes through its own mapping is none of the log's business.
            guest.data.write(0, 99);
            assert_eq!(log(&guest), [], "{kind:?}, round {round}: nothing was written since");
            set_log(&guest, 0);
            let now = ["fw_blocks_split", "fw_blocks_collapsed"].map(count);
            let blocks = if kind == Kind::Blocks { BLOCKS as u64 } else { 0 };
            let expected = before.map(|before| before.map(|before| before + blocks));
            assert_eq!(now, expected, "{kind:?}, round {round}: split, and collapsed");
        }
    }
}

/// The guest writes each of some pages, and reads their neighbours; the log tells the pages.
fn write_some(guest: &Guest, hand: &mut Vcpu, round: u64) {
    let pages: Vec<_> = (0..PAGES).step_by(11 + round as usize).collect();
    for &page in &pages {
        let neighbour = guest.page_address(page + 1) + 8;
        assert_eq!(hand.program(program::READ, &[neighbour])[1], pattern(neighbour, SEED));
        hand.program(program::WRITE, &[guest.page_address(page), round]);
    }
    assert_eq!(log(guest), pages, "round {round}");
}

/// What was written stays in the log when the page is taken away before anybody asked.
fn log_keeps_what_goes() {
    swap::ensure();
    for kind in region::KINDS {
        let (guest, mut hand) = filled(kind);
        set_log(&guest, LOG);
        let pages: Vec<_> = (0..PAGES).step_by(7).collect();
        for &page in &pages {
            hand.program(program::WRITE, &[guest.page_address(page), 1]);
        }
        let before = Counters::host();
        guest.data.advise(guest.data.all(), libc::MADV_PAGEOUT).expect("advice");
        let out = Counters::host().since(&before, "pswpout");
        assert!(out as usize >= PAGES / 2, "{kind:?}: {out} pages went out");
        assert_eq!(log(&guest), pages, "{kind:?}");
        assert_eq!(hand.program(program::READ, &[guest.page_address(7)])[1], 1);
        assert_eq!(log(&guest), [], "{kind:?}: it came back for a read");
    }
}

/// A copy of the guest's data.
struct Copy {
    pages: Vec<Vec<u64>>,
}

impl Copy {
    fn of(guest: &Guest) -> Self {
        Self { pages: (0..PAGES).map(|page| guest.data.page(page)).collect() }
    }

    fn take(&mut self, guest: &Guest, pages: &[usize]) {
        for &page in pages {
            self.pages[page] = guest.data.page(page);
        }
    }

    fn compare(&self, guest: &Guest) {
        for (page, copy) in self.pages.iter().enumerate() {
            let now = guest.data.page(page);
            let wrong = now.iter().zip(copy).position(|(now, copy)| now != copy);
            let version = guest.version(page);
            assert_eq!(wrong, None, "page {page}, version {version}: the copy differs");
        }
    }
}

/// Reads the log, clears it where that is a call of its own, and copies.
fn follow(guest: &Guest, copy: &mut Copy, by_hand: bool) -> usize {
    let log = guest.vm.dirty_log(DATA_SLOT, PAGES).expect("a log");
    if by_hand {
        // In parts that begin at multiples of 64.
        for first in (0..PAGES).step_by(256) {
            let count = 256.min(PAGES - first);
            let bits = &log[first / 64..(first + count).div_ceil(64)];
            let cleared = guest.vm.clear_dirty_log(DATA_SLOT, first as u64, count as u32, bits);
            cleared.expect("a log that is cleared by hand");
        }
    }
    let dirty = pages_of(&log);
    copy.take(guest, &dirty);
    dirty.len()
}

/// Turns the log on; blocks, if there are any, are pages then.
fn begin_log(guest: &Guest, kind: Kind) {
    let split = statistic(guest, "fw_blocks_split");
    let mapped = statistic(guest, "blocks_mapped");
    assert!(kind != Kind::Blocks || mapped.is_none_or(|mapped| mapped >= BLOCKS as u64));
    set_log(guest, LOG);
    let now = statistic(guest, "fw_blocks_split");
    assert!(kind != Kind::Blocks || split.is_none() || now > split, "{now:?} blocks split");
}

/// Follows the log while each kind of disturbance has its turn, again and again, until the counters prove that each did what it
/// is there for: some may find a page in use, and give up.
fn copy_by(kind: Kind, manual: u64) {
    swap::ensure();
    let disturber = Disturber::new("memory-dirty", kind as u64 ^ manual << 4);
    let guest = Arc::new(filled(kind).0);
    write_first_version(&guest);
    if manual != 0 {
        guest.vm.enable(MANUAL, manual).expect("a capability");
    }
    let ledger = Ledger::start(&guest, PLAYERS);
    ledger.wait(10);
    begin_log(&guest, kind);
    let mut copy = Copy::of(&guest);
    if manual & BEGINS_FULL != 0 {
        assert_eq!(follow(&guest, &mut copy, true), PAGES, "the log begins full");
    }
    wait_until("each kind of disturbance has done something", || {
        for _ in KINDS {
            disturber.disturb(&guest.data, None);
            // At least one round of each vCPU has both begun and ended since the last look.
            ledger.wait(3);
            let copied = follow(&guest, &mut copy, manual != 0);
            assert!(copied > 0, "the guest has written, and the log is empty");
        }
        disturber.missing().is_empty()
    });
    ledger.wait(3);
    let vcpus = ledger.pause();
    // The last pages, which nobody will write again, go before they are asked about.
    guest.data.advise(guest.data.all(), libc::MADV_PAGEOUT).expect("advice");
    follow(&guest, &mut copy, manual != 0);
    copy.compare(&guest);
    assert_eq!(follow(&guest, &mut copy, manual != 0), 0, "the guest has stopped");
    set_log(&guest, 0);
    let ledger = Ledger::resume(&guest, vcpus, PAGES);
    ledger.wait(5);
    ledger.finish();
}

fn copy_by_log() {
    copy_by(Kind::Pages, 0);
}

fn copy_of_blocks() {
    copy_by(Kind::Blocks, 0);
}

fn copy_by_cleared_log() {
    copy_by(Kind::Shared, BY_HAND);
}

fn copy_by_log_that_begins_full() {
    copy_by(Kind::Blocks, BY_HAND | BEGINS_FULL);
}
