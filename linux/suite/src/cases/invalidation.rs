//! Taking pages away: from running guests, and in order with maps.

use std::thread::sleep;
use std::time::Duration;

use verdigris_abi::{Error, Stat, flags};
use verdigris_guest::{program, touch};

use super::support::{bytes, spread, vcpus_at_once};
use crate::firmware::{PageState, page_state};
use crate::guest::{DATA, Guest, Spinner};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::vm::RW;

test_table! { "suite", 40:
    stale_number_is_refused, number_survives_invalidation_elsewhere, no_map_while_invalidating,
    marks_nest, end_needs_a_mark, many_marks, end_finishes_begin, resume_goes_on, old_numbers_after_many,
    unmap_while_guests_write, unmap_while_a_guest_reads, unmap_and_fault_in_again,
}

/// Far from DATA.
const ELSEWHERE: u64 = 0x20_0000_0000;

fn stale_number_is_refused() {
    let (guest, page) = (Guest::new(1), Pages::single(1));
    let map = |sequence| guest.map(DATA, page.address(0), 1, RW, sequence);
    let fault = guest.cpu(0).call_to_exit(program::READ, &[DATA]).fault();
    guest.unmap(DATA, 1).expect("nothing is there");
    let before = guest.statistics();
    assert_eq!(map(fault.sequence), Err(Error::Retry));
    assert_eq!(guest.statistics().since(&before, Stat::Retries), 1);
    assert_eq!(page_state(page.address(0)), PageState::FREE);
    let again = guest.cpu(0).run().fault();
    assert_eq!((again.page(), again.sequence > fault.sequence), (DATA, true));
    map(again.sequence).expect("the new number");
    assert!(guest.cpu(0).run().done().is_some());
}

fn number_survives_invalidation_elsewhere() {
    let (guest, page) = (Guest::new(1), Pages::single(1));
    let fault = guest.cpu(0).call_to_exit(program::READ, &[DATA]).fault();
    for at in [DATA - 0x1000, DATA + 0x1000, ELSEWHERE] {
        guest.unmap(at, 1).expect("nothing is there");
    }
    guest.map(DATA, page.address(0), 1, RW, fault.sequence).expect("untouched by these");
    assert_eq!(guest.statistics().get(Stat::FalseRetries), 0);
    assert!(guest.cpu(0).run().done().is_some());
}

fn no_map_while_invalidating() {
    let (guest, pages) = (Guest::new(1), Pages::single(2));
    guest.map(DATA + 0x1000, pages.address(0), 1, RW, 0).expect("a fresh page");
    guest.invalidate_begin(DATA, 4).expect("a good range");
    assert_eq!(page_state(pages.address(0)), PageState::FREE, "unmapped by begin");
    let fresh = guest.sequence(0);
    for page in 0..4 {
        let at = DATA + bytes(page);
        assert_eq!(guest.map(at, pages.address(1), 1, RW, fresh), Err(Error::Retry), "page {page}");
        assert_eq!(guest.set(at, pages.address(1), RW, fresh), Err(Error::Retry), "page {page}");
    }
    guest.map(DATA + bytes(4), pages.address(1), 1, RW, fresh).expect("past the range");
    guest.invalidate_end(DATA, 4, 4).expect("a mark of ours");
    assert_eq!(guest.map(DATA, pages.address(0), 1, RW, fresh), Err(Error::Retry), "ended since");
    let newer = guest.sequence(0);
    guest.map(DATA, pages.address(0), 1, RW, newer).expect("nothing is in progress");
}

fn marks_nest() {
    let (guest, page) = (Guest::new(1), Pages::single(1));
    let map = || guest.map(DATA + 0x2000, page.address(0), 1, RW, guest.sequence(0));
    guest.invalidate_begin(DATA, 4).expect("a good range");
    guest.invalidate_begin(DATA + 0x2000, 4).expect("ranges may overlap");
    guest.invalidate_begin(DATA, 4).expect("also wholly");
    for (at, step) in [(DATA, 1), (DATA + 0x2000, 2), (DATA, 3)] {
        assert_eq!(map(), Err(Error::Retry), "before end {step}");
        guest.invalidate_end(at, 4, 4).expect("a mark of ours");
    }
    map().expect("all have ended");
}

fn end_needs_a_mark() {
    let guest = Guest::new(1);
    assert_eq!(guest.invalidate_end(DATA, 4, 4), Err(Error::NoEntry));
    guest.invalidate_begin(DATA, 4).expect("a good range");
    assert_eq!(guest.invalidate_end(DATA + bytes(4), 1, 1), Err(Error::NoEntry));
    assert_eq!(guest.invalidate_end(DATA, 5, 5), Err(Error::NoEntry));
    guest.invalidate_end(DATA, 4, 4).expect("a mark of ours");
    assert_eq!(guest.invalidate_end(DATA, 4, 4), Err(Error::NoEntry), "twice");
}

/// More ranges than there are marks: begin never fails, and each is kept until its end.
fn many_marks() {
    const RANGES: usize = 40;
    let (guest, page) = (Guest::new(1), Pages::single(1));
    let at = |index: usize| DATA + bytes(index * 3);
    (0..RANGES).for_each(|index| guest.invalidate_begin(at(index), 2).expect("never fails"));
    let fresh = guest.sequence(0);
    for index in 0..RANGES {
        let refused = guest.map(at(index), page.address(0), 1, RW, fresh);
        assert_eq!(refused, Err(Error::Retry), "range {index}");
    }
    (0..RANGES).for_each(|index| guest.invalidate_end(at(index), 2, 2).expect("a mark"));
    let newer = guest.sequence(0);
    guest.map(at(RANGES - 1), page.address(0), 1, RW, newer).expect("all have ended");
    assert_eq!(guest.invalidate_end(at(0), 2, 2), Err(Error::NoEntry), "one end too many");
}

/// Ends an invalidation of which begin did only what it did in one call.
fn end_finishes_begin() {
    const PAGES: usize = 3000;
    let guest = Guest::new(1);
    let data = guest.with_data(PAGES, RW);
    let done = guest.begin_step(DATA, PAGES as u64, 0, 0).expect("begin never fails");
    assert!(done <= PAGES as u64);
    let gone = data.addresses().take(done as usize);
    assert!(gone.into_iter().all(|address| page_state(address) == PageState::FREE), "{done} done");
    guest.invalidate_end(DATA, PAGES as u64, done).expect("a mark of ours");
    assert!(data.addresses().all(|address| page_state(address) == PageState::FREE));
    assert_eq!(guest.invalidate_end(DATA, PAGES as u64, 0), Err(Error::NoEntry));
}

fn resume_goes_on() {
    let guest = Guest::new(1);
    let data = guest.with_data(64, RW);
    let mut done = guest.begin_step(DATA, 64, 0, 0).expect("begin never fails");
    // Resumed after it is all done, it has nothing to do, and needs no other mark.
    for _ in 0..3 {
        done = guest.begin_step(DATA, 64, flags::BEGIN_RESUME, done).expect("the mark stands");
    }
    assert_eq!(done, 64);
    assert!(data.addresses().all(|address| page_state(address) == PageState::FREE));
    guest.invalidate_end(DATA, 64, done).expect("a mark of ours");
    assert_eq!(guest.invalidate_end(DATA, 64, done), Err(Error::NoEntry), "one mark only");
}

/// The memory of past ranges is bounded: an old number may be refused in vain, which is counted.
fn old_numbers_after_many() {
    let (guest, page) = (Guest::new(1), Pages::single(1));
    let old = guest.sequence(0);
    (0..2000)
        .for_each(|index| guest.unmap(ELSEWHERE + bytes(index * 2), 1).expect("nothing there"));
    let result = guest.map(DATA, page.address(0), 1, RW, old);
    let refused = guest.statistics().get(Stat::FalseRetries);
    match result {
        Ok(()) => assert_eq!(refused, 0),
        Err(error) => assert_eq!((error, refused), (Error::Retry, 1)),
    }
    let fresh = guest.sequence(0);
    assert_eq!(guest.map(DATA, page.address(0), 1, RW, fresh), Ok(()));
}

/// Unmaps pages under writers that never exit by themselves: no write after the call has returned.
fn unmap_while_guests_write() {
    const PAGES: usize = 128;
    let guest = Guest::new(vcpus_at_once());
    let data = guest.with_data(PAGES, RW);
    let cpus = spread(guest.cpus().len());
    let words = || (0..PAGES).map(|page| data.read(page, 0)).collect::<Vec<_>>();
    for round in 0..8 {
        let arguments = [DATA, PAGES as u64, 1, touch::WRITE];
        let spin = |(index, &cpu)| guest.spin(index, cpu, program::SPIN, &arguments);
        let writers: Vec<Spinner> = cpus.iter().enumerate().map(spin).collect();
        writers.iter().for_each(Spinner::wait_a_round);
        guest.unmap(DATA, PAGES as u64).expect("mappings");
        let content = words();
        sleep(Duration::from_millis(10));
        assert_eq!(content, words(), "round {round}: a write after unmap had returned");
        for (index, writer) in writers.into_iter().enumerate() {
            let fault = writer.exit().fault();
            assert!((DATA..DATA + bytes(PAGES)).contains(&fault.ipa), "vCPU {index}: {fault:x?}");
            guest.stop_program(index);
        }
        let sequence = guest.sequence(0);
        for (page, address) in data.addresses().enumerate() {
            assert_eq!(page_state(address), PageState::FREE);
            guest.map(DATA + bytes(page), address, 1, RW, sequence).expect("a fresh number");
        }
    }
}

fn unmap_while_a_guest_reads() {
    let (guest, pages) = (Guest::new(1), Pages::single(1));
    let cpu = spread(1)[0];
    let mut sequence = 0;
    for round in 1..20 {
        pages.write(0, 0, round);
        guest.map(DATA, pages.address(0), 1, RW, sequence).expect("a good number");
        let reader = guest.spin(0, cpu, program::WATCH, &[DATA]);
        reader.wait_a_round();
        guest.unmap(DATA, 1).expect("a mapping");
        pages.write(0, 0, 0xdead);
        reader.exit().fault();
        assert_eq!(guest.control(0, verdigris_guest::control::VALUE), round, "a stale read");
        guest.stop_program(0);
        // The number of the fault may be older than the end of the unmap.
        sequence = guest.sequence(0);
    }
}

/// A host that takes pages away at random, under guests that fault them in again, with their content.
fn unmap_and_fault_in_again() {
    const PAGES: usize = 96;
    let guest = Guest::new(1);
    let data = guest.with_data(PAGES, RW);
    let vcpu = guest.cpu(0);
    vcpu.call(program::FILL, &[DATA, bytes(PAGES), 5]);
    let mut state = 1;
    for round in 0..20 {
        for _ in 0..12 {
            state = verdigris_guest::scramble(state);
            let (first, count) = (state % 90, 1 + (state >> 32) % 6);
            guest.unmap(DATA + bytes(first as usize), count).expect("a good range");
        }
        vcpu.prepare(program::CHECK, &[DATA, bytes(PAGES), 5]);
        let mut exit = vcpu.run();
        while exit.done().is_none() {
            let fault = exit.fault();
            let page = ((fault.page() - DATA) >> 12) as usize;
            guest.map(fault.page(), data.address(page), 1, RW, fault.sequence).expect("fresh");
            exit = vcpu.run();
        }
        assert_eq!(exit.done().expect("just seen")[0], 0, "round {round}");
    }
}
