//! Set and write-protect: what the guest sees of them while it runs.

use std::thread::sleep;
use std::time::Duration;

use verdigris_abi::{Error, Stat, flags};
use verdigris_guest::{program, touch};

use super::support::{assert_bits, bytes, spread, vcpus_at_once};
use crate::firmware::{PageState, page_state};
use crate::guest::{DATA, Guest, Spinner};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::vm::RW;

test_table! { "suite", 40:
    set_replaces_the_page, set_keeps_write_protection, set_with_a_stale_number, set_while_a_guest_reads,
    set_after_age_without_flush, set_of_a_block, write_protect_reaches_the_host,
    write_protect_keeps_age, write_protect_while_guests_write,
}

fn set_replaces_the_page() {
    let (guest, pages) = (Guest::new(1), Pages::single(2));
    (0..2).for_each(|page| pages.write(page, 0, 0x10 + page as u64));
    guest.set(DATA, pages.address(0), RW, 0).expect("an IPA without a mapping is mapped");
    assert_eq!(guest.cpu(0).call(program::READ, &[DATA])[0], 0x10);
    guest.set(DATA, pages.address(1), RW, 0).expect("a page can be replaced");
    assert_eq!(guest.cpu(0).call(program::READ, &[DATA])[0], 0x11);
    guest.cpu(0).call(program::WRITE, &[DATA, 0x99]);
    assert_eq!((pages.read(0, 0), pages.read(1, 0)), (0x10, 0x99));
    assert_eq!(page_state(pages.address(0)), PageState::FREE);
    assert_eq!(page_state(pages.address(1)).shares, 1);
}

fn set_keeps_write_protection() {
    let (guest, pages) = (Guest::new(1), Pages::single(2));
    guest.map(DATA, pages.address(0), 1, RW, 0).expect("a fresh page");
    guest.write_protect(DATA, 1).expect("a mapping");
    guest.set(DATA, pages.address(1), RW, 0).expect("a page can be replaced");
    let fault = guest.cpu(0).call_to_exit(program::WRITE, &[DATA, 5]).fault();
    assert!(fault.is(flags::FAULT_PERMISSION) && fault.is(flags::FAULT_WRITE), "{fault:x?}");
    assert_eq!(pages.read(1, 0), 0);
    guest.map(DATA, pages.address(1), 1, RW, fault.sequence).expect("the host may allow it again");
    assert!(guest.cpu(0).run().done().is_some());
    assert_eq!(pages.read(1, 0), 5);
}

fn set_with_a_stale_number() {
    let (guest, pages) = (Guest::new(1), Pages::single(2));
    guest.map(DATA, pages.address(0), 1, RW, 0).expect("a fresh page");
    let stale = guest.sequence(0);
    guest.unmap(DATA, 1).expect("a mapping");
    assert_eq!(guest.set(DATA, pages.address(1), RW, stale), Err(Error::Retry));
    assert_eq!(page_state(pages.address(1)), PageState::FREE);
    let fresh = guest.sequence(0);
    guest.set(DATA, pages.address(1), RW, fresh).expect("a fresh number");
}

/// Replaces the page under a reader again and again; after each set no read may see the old page.
///
/// The page that was taken away gets a value that only a stale translation can read.
fn replace_under_reader(before_set: impl Fn(&Guest)) {
    const STALE: u64 = 0xdead;
    let (guest, pages) = (Guest::new(1), Pages::single(2));
    guest.map(DATA, pages.address(0), 1, RW, 0).expect("a fresh page");
    let reader = guest.spin(0, spread(1)[0], program::WATCH, &[DATA]);
    for round in 1..=40 {
        let (old, new) = ((round + 1) % 2, round % 2);
        reader.wait_a_round();
        before_set(&guest);
        pages.write(new, 0, round as u64);
        guest.set(DATA, pages.address(new), RW, 0).expect("a page can be replaced");
        pages.write(old, 0, STALE);
        for _ in 0..3 {
            reader.wait_a_round();
            assert_eq!(reader.value(), round as u64, "round {round}");
        }
    }
    assert!(reader.stop().done().is_some());
}

fn set_while_a_guest_reads() {
    replace_under_reader(|_| ());
}

/// The old leaf is old in memory, but its translation is cached and in use.
fn set_after_age_without_flush() {
    replace_under_reader(|guest| {
        guest.age(DATA, 1, flags::AGE_NO_FLUSH);
    });
}

fn set_of_a_block() {
    const BLOCK: u64 = RW | flags::MAP_BLOCK_2M;
    let (guest, blocks) = (Guest::new(1), Pages::chunks(9, 2));
    blocks.write(512 + 77, 1, 0x77);
    guest.map(DATA, blocks.address(0), 512, BLOCK, 0).expect("a fresh block");
    assert_eq!(
        guest.set(DATA, blocks.address(512), RW, 0),
        Err(Error::Exists),
        "a page for a block"
    );
    guest.set(DATA, blocks.address(512), BLOCK, 0).expect("a block can be replaced");
    assert_eq!(guest.cpu(0).call(program::READ, &[DATA + bytes(77) + 8])[0], 0x77);
    assert_eq!(page_state(blocks.address(0)), PageState::FREE);
}

fn write_protect_reaches_the_host() {
    let guest = Guest::new(1);
    let data = guest.with_data(4, RW);
    guest.write_protect(DATA + 0x1000, 2).expect("mappings");
    let vcpu = guest.cpu(0);
    vcpu.call(program::TOUCH, &[DATA, 4, 1, touch::READ, 0]);
    vcpu.call(program::TOUCH, &[DATA, 4, 3, touch::WRITE, 0]);
    for page in [1, 2] {
        let at = DATA + bytes(page);
        let fault = vcpu.call_to_exit(program::WRITE, &[at, 0x42]).fault();
        assert!(fault.is(flags::FAULT_PERMISSION) && fault.is(flags::FAULT_WRITE), "{fault:x?}");
        assert_eq!(fault.page(), at);
        assert_eq!(data.read(page, 0), 0, "written while protected");
        guest.map(at, data.address(page), 1, RW, fault.sequence).expect("the host allows it");
        assert!(vcpu.run().done().is_some(), "the write is repeated");
        assert_eq!(data.read(page, 0), 0x42);
    }
    assert_eq!(guest.statistics().get(Stat::LeavesProtected), 2);
}

fn write_protect_keeps_age() {
    let guest = Guest::new(1);
    let _data = guest.with_data(64, RW);
    guest.age(DATA, 64, flags::AGE_FLUSH_ALL);
    guest.cpu(0).call(program::TOUCH, &[DATA, 64, 2, touch::WRITE, 0]);
    guest.write_protect(DATA, 64).expect("mappings");
    assert_bits(&guest.test_age(DATA, 64), "protected", |page| page % 2 == 0);
}

fn write_protect_while_guests_write() {
    const PAGES: usize = 64;
    let guest = Guest::new(vcpus_at_once());
    let data = guest.with_data(PAGES, RW);
    let cpus = spread(guest.cpus().len());
    for _ in 0..5 {
        let writers: Vec<Spinner> = cpus
            .iter()
            .enumerate()
            .map(|(index, &cpu)| {
                guest.spin(index, cpu, program::SPIN, &[DATA, PAGES as u64, 1, touch::WRITE])
            })
            .collect();
        writers.iter().for_each(Spinner::wait_a_round);
        guest.write_protect(DATA, PAGES as u64).expect("mappings");
        let content: Vec<u64> = (0..PAGES).map(|page| data.read(page, 0)).collect();
        sleep(Duration::from_millis(5));
        for writer in writers {
            let fault = writer.exit().fault();
            assert!(fault.is(flags::FAULT_PERMISSION), "{fault:x?}");
        }
        let later: Vec<u64> = (0..PAGES).map(|page| data.read(page, 0)).collect();
        assert_eq!(content, later, "a write after the call had returned");
        (0..guest.cpus().len()).for_each(|vcpu| guest.stop_program(vcpu));
        for (page, address) in data.addresses().enumerate() {
            guest.map(DATA + bytes(page), address, 1, RW, 0).expect("allowed again");
        }
    }
}
