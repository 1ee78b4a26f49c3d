//! Access flags: what was touched is young, nothing else is, and nobody's touch is lost.

use verdigris_abi::{Error, Stat, call, flags};
use verdigris_guest::{program, touch};

use super::support::{assert_bits, bytes, spread, vcpus_at_once};
use crate::firmware::{Features, PageState, page_state};
use crate::guest::{DATA, Guest, Spinner};
use crate::ktap::test_table;
use crate::pages::{PAGE, Pages};
use crate::raw::raw;
use crate::vm::{RW, RWX};

test_table! { "suite", 40:
    test_age_is_one_page_wide, test_age_clears_nothing, touched_is_young, touched_under_stage_1_is_young,
    touched_by_many_is_young, ages_lose_nothing, modes_of_flushing, age_to_buffer, age_of_holes,
    mapped_old, access_flags_by_whom, flush_makes_good_for_earlier_ages,
}

const ALL: u64 = flags::AGE_FLUSH_ALL;
/// Where a table of the guest's own lies.
const STAGE1_TABLE: u64 = 0x4030_0000;

fn test_age_is_one_page_wide() {
    let guest = Guest::new(1);
    let _data = guest.with_data(3, RW);
    guest.age(DATA, 3, ALL);
    guest.cpu(0).call(program::READ, &[DATA + 0x1000]);
    assert_eq!(guest.test_age(DATA, 1), [false]);
    assert_eq!(guest.test_age(DATA + 0x1000, 1), [true]);
    assert_eq!(guest.test_age(DATA + 0x2000, 1), [false]);
    let empty = raw().value(call::TEST_AGE, &[guest.handle(), DATA + 0x1000, 0, 0, 0]);
    assert_eq!(empty, Err(Error::Invalid), "an empty range is no answer");
}

fn test_age_clears_nothing() {
    let guest = Guest::new(1);
    let _data = guest.with_data(64, RW);
    for _ in 0..3 {
        assert_bits(&guest.test_age(DATA, 64), "fresh", |_| true);
    }
    assert_bits(&guest.age(DATA, 64, ALL), "aged", |_| true);
    for _ in 0..3 {
        assert_bits(&guest.test_age(DATA, 64), "old", |_| false);
    }
}

fn with_code(guest: &Guest) -> Pages {
    let pages = Pages::single(200);
    guest.map_pages(DATA, &pages, RWX);
    pages
}

fn touched_is_young() {
    let guest = Guest::new(1);
    let pages = with_code(&guest);
    touch_every_third(&guest, &pages);
}

/// Touches every third page of 200 in three ways, and finds just these. The code that is fetched is put
/// back after the writes.
fn touch_every_third(guest: &Guest, pages: &Pages) {
    let vcpu = guest.cpu(0);
    for kind in [touch::READ, touch::WRITE, touch::EXECUTE] {
        (0..200).for_each(|page| pages.write(page, 0, touch::RET.into()));
        for first in 0..3 {
            guest.age(DATA, 200, ALL);
            vcpu.call(program::TOUCH, &[DATA + bytes(first), 200 - first as u64, 3, kind, 0]);
            let young = guest.test_age(DATA, 200);
            assert_bits(&young, &format!("kind {kind}"), |page| page % 3 == first);
            assert_eq!(guest.age(DATA, 200, ALL), young);
        }
    }
}

fn touched_under_stage_1_is_young() {
    let guest = Guest::new(1);
    let pages = with_code(&guest);
    let table = Pages::single(1);
    guest.map_pages(STAGE1_TABLE, &table, RW);
    guest.cpu(0).call(program::STAGE1_ON, &[STAGE1_TABLE]);
    touch_every_third(&guest, &pages);
    guest.age(STAGE1_TABLE, 1, ALL);
    guest.cpu(0).call(program::READ, &[DATA]);
    assert_eq!(guest.test_age(STAGE1_TABLE, 1), [true], "the guest's own table was walked");
}

fn touched_by_many_is_young() {
    const PAGES: usize = 512;
    let vcpus = 4;
    let guest = Guest::new(vcpus);
    let _data = guest.with_data(PAGES, RW);
    for round in 0..8 {
        guest.age(DATA, PAGES as u64, ALL);
        // vCPU n touches page n of every eight, by reads and writes in turns; half of the pages none.
        std::thread::scope(|scope| {
            for (index, vcpu) in guest.cpus().iter().enumerate() {
                let kind = (index as u64 + round) % 2;
                let first = DATA + bytes(index);
                let count = (PAGES - index) as u64;
                scope.spawn(move || vcpu.call(program::TOUCH, &[first, count, 8, kind, 64]));
            }
        });
        let young = guest.age(DATA, PAGES as u64, ALL);
        assert_bits(&young, &format!("round {round}"), |page| page % 8 < vcpus);
    }
}

fn spinners(guest: &Guest, pages: u64) -> Vec<Spinner<'_>> {
    let cpus = spread(guest.cpus().len()).into_iter().enumerate();
    cpus.map(|(index, cpu)| {
        let kind = index as u64 % 2;
        guest.spin(index, cpu, program::SPIN, &[DATA, pages, 1, kind])
    })
    .collect()
}

fn ages_lose_nothing() {
    const PAGES: u64 = 300;
    let guest = Guest::new(vcpus_at_once());
    let _data = guest.with_data(PAGES as usize, RW);
    let spinners = spinners(&guest, PAGES);
    for round in 0..60 {
        let mode = if round % 2 == 0 { ALL } else { flags::AGE_FLUSH_YOUNG };
        guest.age(DATA, PAGES, mode);
        spinners.iter().for_each(Spinner::wait_a_round);
        assert_bits(&guest.test_age(DATA, PAGES), &format!("round {round}"), |_| true);
    }
    for spinner in spinners {
        assert!(spinner.stop().done().is_some(), "a guest ended otherwise");
    }
}

fn modes_of_flushing() {
    let guest = Guest::new(1);
    let _data = guest.with_data(16, RW);
    let flushes = |mode: u64| {
        guest.cpu(0).call(program::TOUCH, &[DATA, 16, 1, touch::READ, 0]);
        let before = guest.statistics();
        guest.age(DATA, 16, mode);
        let after = guest.statistics();
        let of_young = [Stat::TlbiIpa, Stat::TlbiRange, Stat::TlbiStage1];
        (of_young.map(|stat| after.since(&before, stat)), after.since(&before, Stat::TlbiVmid))
    };
    assert_eq!(flushes(flags::AGE_NO_FLUSH), ([0, 0, 0], 0));
    assert_eq!(flushes(ALL), ([0, 0, 0], 1));
    let ([ipa, range, stage1], vmid) = flushes(flags::AGE_FLUSH_YOUNG);
    assert!(vmid == 1 || ipa + range >= 1 && stage1 >= 1, "{ipa} {range} {stage1} {vmid}");
    // The first still owes for the pass before it, which invalidated less than the whole VM.
    guest.age(DATA, 16, ALL);
    let before = guest.statistics();
    guest.age(DATA, 16, ALL);
    let vmid = guest.statistics().since(&before, Stat::TlbiVmid);
    assert_eq!(vmid, 0, "nothing was young and nothing is owed");
}

fn age_to_buffer() {
    const PAGES: u64 = 2500;
    let guest = Guest::new(1);
    let _data = guest.with_data(PAGES as usize, RW);
    let buffer = Pages::single(1);
    (0..PAGE / 8).for_each(|word| buffer.write(0, word, 0x5555_5555_5555_5555));
    guest.age(DATA, PAGES, ALL);
    guest.cpu(0).call(program::TOUCH, &[DATA, PAGES, 7, touch::READ, 0]);
    let young = guest.age_by_buffer(DATA, PAGES, ALL, &buffer);
    assert_bits(&young, "by buffer", |page| page % 7 == 0);
    assert_eq!(buffer.read(0, 511), 0x5555_5555_5555_5555, "past the bits");
    assert_eq!(page_state(buffer.address(0)), PageState::FREE, "the buffer is still shared");
    let arguments = [guest.handle(), DATA, 64, flags::AGE_TO_BUFFER, buffer.address(0)];
    let tested = raw().value(call::TEST_AGE, &arguments);
    assert_eq!((tested, buffer.read(0, 0)), (Ok(64), 0));
}

fn age_of_holes() {
    let guest = Guest::new(1);
    let pages = Pages::single(4);
    for (index, at) in [3, 64, 700, 1023].into_iter().enumerate() {
        guest.map(DATA + bytes(at), pages.address(index), 1, RW, 0).expect("a fresh page");
    }
    let is_mapped = |page: usize| [3, 64, 700, 1023].contains(&page);
    assert_bits(&guest.test_age(DATA, 1024), "young where mapped", is_mapped);
    assert_bits(&guest.age(DATA, 1024, ALL), "young where mapped", is_mapped);
    assert_bits(&guest.age(DATA, 1024, ALL), "old", |_| false);
    assert_bits(&guest.age(0x60_0000_0000, 1024, ALL), "nothing at all", |_| false);
}

fn mapped_old() {
    let guest = Guest::new(1);
    let data = guest.with_data(2, RW | flags::MAP_OLD);
    assert_bits(&guest.test_age(DATA, 2), "mapped old", |_| false);
    guest.cpu(0).call(program::WRITE, &[DATA, 6]);
    assert_eq!(data.read(0, 0), 6);
    assert_bits(&guest.test_age(DATA, 2), "one was touched", |page| page == 0);
}

/// The counters tell truly whether access flags came from hardware or from faults.
fn access_flags_by_whom() {
    let guest = Guest::new(1);
    let _data = guest.with_data(32, RW);
    guest.age(DATA, 32, ALL);
    let before = guest.statistics();
    guest.cpu(0).call(program::TOUCH, &[DATA, 32, 1, touch::READ, 0]);
    let faults = guest.statistics().since(&before, Stat::FaultAccessFlag);
    if Features::read().has(flags::FEATURE_HW_ACCESS_FLAG) {
        assert_eq!(faults, 0, "hardware sets the flags");
    } else {
        assert!(faults >= 32, "{faults} faults for 32 pages");
    }
    assert_bits(&guest.test_age(DATA, 32), "either way", |_| true);
}

/// An age without invalidation hides touches only until one that invalidates the whole VM, also if
/// that finds nothing young: its translations may be those that the first one left behind.
fn flush_makes_good_for_earlier_ages() {
    const PAGES: u64 = 64;
    let guest = Guest::new(1);
    let _data = guest.with_data(PAGES as usize, RW);
    let spinner = spinners(&guest, PAGES).remove(0);
    for round in 0..40 {
        spinner.wait_a_round();
        guest.age(DATA, PAGES, flags::AGE_NO_FLUSH);
        guest.age(DATA, PAGES, ALL);
        spinner.wait_a_round();
        assert_bits(&guest.test_age(DATA, PAGES), &format!("round {round}"), |_| true);
    }
    assert!(spinner.stop().done().is_some());
}
