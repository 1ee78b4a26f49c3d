//! Dirty logging: what was written is told once, by whichever call comes first, and nothing else is.

use verdigris_abi::{Stat, flags};
use verdigris_guest::{program, touch};

use super::support::{assert_bits, bytes, spread, vcpus_at_once};
use crate::bits::Bits;
use crate::firmware::Features;
use crate::guest::{DATA, Guest, Spinner};
use crate::ktap::test_table;
use crate::pages::{PAGE, Pages};
use crate::vm::{RO, RW};

test_table! { "suite", 40:
    harvest_tells_what_was_written, harvest_of_holes_and_read_only_pages, harvest_by_buffer,
    harvest_of_a_block, mapped_clean, writes_are_logged_without_an_exit,
    logged_writes_by_many_vcpus, harvest_keeps_age, harvest_under_writers, clean_means_unwritten,
    unmap_returns_dirty_bits, unmap_of_many_returns_dirty_bits, begin_and_end_return_dirty_bits,
    set_returns_the_dirty_bit, set_keeps_what_is_clean, write_protect_keeps_dirty_bits,
}

/// Maps pages and arms all of them; each counts as written before it is first harvested.
fn armed(vcpus: usize, page_count: usize) -> (Guest, Pages) {
    let guest = Guest::new(vcpus);
    let data = guest.with_data(page_count, RW);
    assert_bits(&guest.harvest(DATA, page_count as u64), "mapped to be written", |_| true);
    assert_bits(&guest.harvest(DATA, page_count as u64), "armed", |_| false);
    (guest, data)
}

/// Touches every `stride`-th page from `first` on.
fn touch_some(guest: &Guest, first: usize, page_count: usize, stride: u64, kind: u64) {
    let arguments = [DATA + bytes(first), (page_count - first) as u64, stride, kind, 16];
    guest.cpu(0).call(program::TOUCH, &arguments);
}

fn harvest_tells_what_was_written() {
    const PAGES: usize = 200;
    let (guest, _data) = armed(1, PAGES);
    for first in 0..3 {
        touch_some(&guest, 0, PAGES, 1, touch::READ);
        assert_bits(&guest.harvest(DATA, PAGES as u64), "read", |_| false);
        touch_some(&guest, first, PAGES, 3, touch::WRITE);
        touch_some(&guest, first, PAGES, 3, touch::WRITE);
        let dirty = guest.harvest(DATA, PAGES as u64);
        assert_bits(&dirty, "every third was written", |page| page % 3 == first);
        assert_bits(&guest.harvest(DATA, PAGES as u64), "told already", |_| false);
    }
}

fn harvest_of_holes_and_read_only_pages() {
    let guest = Guest::new(1);
    let pages = Pages::single(3);
    guest.map(DATA, pages.address(0), 1, RW, 0).expect("a fresh page");
    guest.map(DATA + bytes(70), pages.address(1), 1, RO, 0).expect("a fresh page");
    guest.map(DATA + bytes(1023), pages.address(2), 1, RW, 0).expect("a fresh page");
    let writable = |page: usize| [0, 1023].contains(&page);
    assert_bits(&guest.harvest(DATA, 1024), "mapped to be written", writable);
    assert_bits(&guest.harvest(DATA, 1024), "armed", |_| false);
    assert_bits(&guest.harvest(0x60_0000_0000, 1024), "nothing at all", |_| false);
    let fault = guest.cpu(0).call_to_exit(program::WRITE, &[DATA + bytes(70), 1]).fault();
    assert!(fault.is(flags::FAULT_PERMISSION), "a page that is read-only was granted: {fault:x?}");
}

fn harvest_by_buffer() {
    const PAGES: usize = 2500;
    let (guest, _data) = armed(1, PAGES);
    let buffer = Pages::single(1);
    (0..PAGE / 8).for_each(|word| buffer.write(0, word, 0x5555_5555_5555_5555));
    touch_some(&guest, 5, PAGES, 7, touch::WRITE);
    let dirty = guest.harvest_to(DATA, PAGES as u64, Bits::Buffer(&buffer));
    assert_bits(&dirty, "by buffer", |page| page % 7 == 5);
    assert_eq!(buffer.read(0, 511), 0x5555_5555_5555_5555, "past the bits");
}

/// A block is written as a whole, as far as anybody can tell.
fn harvest_of_a_block() {
    let guest = Guest::new(1);
    let block = Pages::chunks(9, 1);
    guest.map(DATA, block.address(0), 512, RW | flags::MAP_BLOCK_2M, 0).expect("a fresh block");
    assert_bits(&guest.harvest(DATA, 512), "mapped to be written", |_| true);
    assert_bits(&guest.harvest(DATA, 512), "armed", |_| false);
    guest.cpu(0).call(program::WRITE, &[DATA + bytes(300), 1]);
    assert_bits(&guest.harvest(DATA, 512), "written once", |_| true);
    guest.cpu(0).call(program::READ, &[DATA + bytes(300)]);
    assert_bits(&guest.harvest(DATA, 512), "read", |_| false);
}

fn mapped_clean() {
    let guest = Guest::new(1);
    let data = guest.with_data(64, RW | flags::MAP_CLEAN);
    assert_bits(&guest.harvest(DATA, 64), "mapped clean", |_| false);
    touch_some(&guest, 1, 64, 4, touch::WRITE);
    assert_bits(&guest.harvest(DATA, 64), "written since", |page| page % 4 == 1);
    guest.cpu(0).call(program::WRITE, &[DATA, 77]);
    assert_eq!(data.read(0, 0), 77);
    assert_bits(&guest.unmap_dirty(DATA, 64, Bits::Registers), "and again", |page| page == 0);
}

/// The first write of an armed page is EL2's to resolve, or the hardware's: the host never sees it.
fn writes_are_logged_without_an_exit() {
    const PAGES: u64 = 100;
    let (guest, _data) = armed(1, PAGES as usize);
    let before = guest.statistics();
    touch_some(&guest, 0, PAGES as usize, 1, touch::WRITE);
    touch_some(&guest, 0, PAGES as usize, 1, touch::WRITE);
    let now = guest.statistics();
    let since = |stat| now.since(&before, stat);
    assert_eq!(since(Stat::ExitFault), 0, "a write exited");
    assert_eq!(since(Stat::Runs) - since(Stat::ExitInterrupt), 2, "two programs and no more");
    let (logged, faults) = (since(Stat::WritesLogged), since(Stat::FaultPermission));
    if Features::read().has(flags::FEATURE_HW_DIRTY) {
        assert_eq!((logged, faults), (0, 0), "the hardware keeps dirty state");
    } else {
        assert_eq!((logged, faults), (PAGES, PAGES));
    }
    assert_bits(&guest.harvest(DATA, PAGES), "logged", |_| true);
    assert_eq!(guest.statistics().since(&now, Stat::LeavesDirty), PAGES);
}

fn logged_writes_by_many_vcpus() {
    const PAGES: usize = 512;
    let (guest, _data) = armed(4, PAGES);
    for round in 0..8 {
        std::thread::scope(|scope| {
            for (index, vcpu) in guest.cpus().iter().enumerate() {
                // All write page 0 of each eight, and each vCPU one of its own.
                let own = DATA + bytes(1 + index);
                let count = (PAGES - 1 - index) as u64;
                scope.spawn(move || {
                    vcpu.call(program::TOUCH, &[DATA, PAGES as u64, 8, touch::WRITE, 0]);
                    vcpu.call(program::TOUCH, &[own, count, 8, touch::WRITE, 64]);
                });
            }
        });
        let dirty = guest.harvest(DATA, PAGES as u64);
        assert_bits(&dirty, &format!("round {round}"), |page| page % 8 <= 4);
    }
}

fn harvest_keeps_age() {
    const PAGES: u64 = 64;
    let (guest, _data) = armed(1, PAGES as usize);
    guest.age(DATA, PAGES, flags::AGE_FLUSH_ALL);
    touch_some(&guest, 0, PAGES as usize, 2, touch::WRITE);
    assert_bits(&guest.harvest(DATA, PAGES), "written", |page| page % 2 == 0);
    assert_bits(&guest.test_age(DATA, PAGES), "harvested", |page| page % 2 == 0);
    touch_some(&guest, 0, PAGES as usize, 4, touch::WRITE);
    assert_bits(&guest.age(DATA, PAGES, flags::AGE_FLUSH_ALL), "young", |page| page % 2 == 0);
    assert_bits(&guest.harvest(DATA, PAGES), "aged between", |page| page % 4 == 0);
}

fn writers<'guest>(guest: &'guest Guest, page_count: usize, stride: u64) -> Vec<Spinner<'guest>> {
    let cpus = spread(guest.cpus().len());
    let arguments = [DATA, page_count as u64, stride, touch::WRITE];
    let spin = |(index, &cpu)| guest.spin(index, cpu, program::SPIN, &arguments);
    cpus.iter().enumerate().map(spin).collect()
}

/// Each round of harvesting finds all that is written all the time, and nothing else.
fn harvest_under_writers() {
    const PAGES: usize = 300;
    let (guest, _data) = armed(vcpus_at_once(), PAGES);
    let spinners = writers(&guest, PAGES, 3);
    for round in 0..60 {
        spinners.iter().for_each(Spinner::wait_a_round);
        let dirty = guest.harvest(DATA, PAGES as u64);
        assert_bits(&dirty, &format!("round {round}"), |page| page % 3 == 0);
    }
    for spinner in spinners {
        assert!(spinner.stop().done().is_some(), "a guest ended otherwise");
    }
    guest.harvest(DATA, PAGES as u64);
    assert_bits(&guest.harvest(DATA, PAGES as u64), "nobody writes", |_| false);
}

/// A page that a harvest found clean holds what the harvest before left there: no write came in between
/// that nobody told.
fn clean_means_unwritten() {
    const PAGES: usize = 64;
    let (guest, data) = armed(vcpus_at_once(), PAGES);
    let spinners = writers(&guest, PAGES, 1);
    let words = || (0..PAGES).map(|page| data.read(page, 0)).collect::<Vec<_>>();
    let mut copy = vec![0; PAGES];
    for round in 0..200 {
        let dirty = guest.harvest(DATA, PAGES as u64);
        for page in (0..PAGES).filter(|&page| dirty[page]) {
            copy[page] = data.read(page, 0);
        }
        assert!(!spinners[0].has_exited(), "round {round}");
    }
    for spinner in spinners {
        assert!(spinner.stop().done().is_some(), "a guest ended otherwise");
    }
    let dirty = guest.harvest(DATA, PAGES as u64);
    for (page, word) in words().into_iter().enumerate().filter(|(page, _)| !dirty[*page]) {
        assert_eq!(copy[page], word, "page {page} was written, and nobody told");
    }
}

fn unmap_returns_dirty_bits() {
    const PAGES: u64 = 100;
    let (guest, _data) = armed(1, PAGES as usize);
    touch_some(&guest, 0, PAGES as usize, 5, touch::WRITE);
    // Some of what was written is harvested before; the bit is told once.
    assert_bits(&guest.harvest(DATA, 20), "harvested", |page| page % 5 == 0);
    touch_some(&guest, 10, 20, 10, touch::WRITE);
    let dirty = guest.unmap_dirty(DATA, PAGES, Bits::Registers);
    assert_bits(&dirty, "at the end", |page| page == 10 || page >= 20 && page % 5 == 0);
    assert_bits(&guest.unmap_dirty(DATA, PAGES, Bits::Registers), "gone", |_| false);
    assert_bits(&guest.harvest(DATA, PAGES), "gone", |_| false);
}

/// Enough pages that whole tables go at once, and by a buffer.
fn unmap_of_many_returns_dirty_bits() {
    const PAGES: usize = 3000;
    for by_buffer in [false, true] {
        let (guest, data) = armed(1, PAGES);
        touch_some(&guest, 3, PAGES, 11, touch::WRITE);
        let buffer = Pages::single(1);
        let to = if by_buffer { Bits::Buffer(&buffer) } else { Bits::Registers };
        let dirty = guest.unmap_dirty(DATA, PAGES as u64, to);
        assert_bits(&dirty, &format!("buffer: {by_buffer}"), |page| page % 11 == 3);
        let states = data.addresses().map(crate::firmware::page_state);
        assert!(states.into_iter().all(|state| state == crate::firmware::PageState::FREE));
    }
}

fn begin_and_end_return_dirty_bits() {
    const PAGES: usize = 3000;
    let (guest, _data) = armed(1, PAGES);
    touch_some(&guest, 1, PAGES, 13, touch::WRITE);
    let rule = |page: usize| page % 13 == 1;
    // Begin does what one answer has room for; end does the rest, and tells of it.
    let step = guest.begin_dirty_step(DATA, PAGES as u64, None, Bits::Registers);
    let step = step.expect("begin never fails");
    assert!(step.done <= 1024, "{} pages in one answer", step.done);
    assert_bits(&step.dirty, "begin", rule);
    let rest = guest.end_dirty(DATA, PAGES as u64, step.done, Bits::Registers).expect("our mark");
    assert_bits(&rest, "end", |page| rule(page + step.done as usize));
    assert_eq!(rest.len() as u64 + step.done, PAGES as u64);
    assert_bits(&guest.harvest(DATA, PAGES as u64), "told already", |_| false);
}

fn set_returns_the_dirty_bit() {
    let (guest, pages) = (Guest::new(1), Pages::single(3));
    guest.map(DATA, pages.address(0), 1, RW, 0).expect("a fresh page");
    guest.harvest(DATA, 1);
    assert_eq!(guest.set(DATA, pages.address(1), RW, 0), Ok(false), "clean");
    guest.cpu(0).call(program::WRITE, &[DATA, 1]);
    assert_eq!(guest.set(DATA, pages.address(2), RW, 0), Ok(true), "written");
    assert_eq!((pages.read(0, 0), pages.read(1, 0), pages.read(2, 0)), (0, 1, 0));
    guest.unmap(DATA, 1).expect("a mapping");
    let fresh = guest.sequence(0);
    assert_eq!(guest.set(DATA, pages.address(0), RW, fresh), Ok(false), "there was none");
}

/// A page that is clean for the log stays so when it is replaced, and its next write is told.
fn set_keeps_what_is_clean() {
    let (guest, pages) = (Guest::new(1), Pages::single(2));
    guest.map(DATA, pages.address(0), 1, RW, 0).expect("a fresh page");
    guest.harvest(DATA, 1);
    guest.set(DATA, pages.address(1), RW, 0).expect("a page can be replaced");
    assert_eq!(guest.harvest(DATA, 1), [false], "replaced while clean");
    guest.cpu(0).call(program::WRITE, &[DATA, 0x99]);
    assert_eq!(pages.read(1, 0), 0x99);
    assert_eq!(guest.harvest(DATA, 1), [true], "written since");
}

/// What was written before a page was protected is still told, and by one call only.
fn write_protect_keeps_dirty_bits() {
    const PAGES: u64 = 64;
    let (guest, _data) = armed(1, PAGES as usize);
    touch_some(&guest, 0, PAGES as usize, 2, touch::WRITE);
    guest.write_protect(DATA, PAGES).expect("mappings");
    assert_bits(&guest.harvest(DATA, 32), "harvested", |page| page % 2 == 0);
    let dirty = guest.unmap_dirty(DATA, PAGES, Bits::Registers);
    assert_bits(&dirty, "unmapped", |page| page >= 32 && page % 2 == 0);
}
