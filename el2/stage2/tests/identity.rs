//! The host's identity map: what is mapped, in which blocks, and the steps of taking a page, of reading
//! what was taken, and of giving it back. Against a plain model and a lazy TLB: `identity_random.rs`.
#![cfg(not(loom))]

mod support;

use support::{Machine, Step};
use verdigris_stage2::flush::Config;
use verdigris_stage2::{Attributes, Error, Geometry, HostFault, Identity, Ipa, Pa};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Normal write-back, inner shareable, read and write, AF, software bit 55; bits 1:0 by level.
const RAM_BITS: u64 = 1 << 55 | 1 << 10 | 0b11 << 8 | 0b11 << 6 | 0b1111 << 2;
/// The same, XN: the host's stage 1 says what is Device.
const DEVICE_BITS: u64 = 1 << 55 | 1 << 54 | 1 << 10 | 0b11 << 8 | 0b11 << 6 | 0b1111 << 2;

/// The page of zeroes.
const ZERO: u64 = 0x77_7777_7000;
/// Normal write-back, inner shareable, AF, XN, and of S2AP the right to read alone.
const ZERO_BITS: u64 = 1 << 54 | 1 << 10 | 0b11 << 8 | 0b01 << 6 | 0b1111 << 2;

fn host(machine: &Machine, config: Config) -> (Identity, Geometry) {
    let geometry = Geometry::new(40, 40).unwrap();
    (Identity::new(machine.root(geometry), config, Pa(ZERO)), geometry)
}

#[test]
fn maps_in_the_largest_blocks_that_fit() {
    let machine = Machine::new(24);
    let (host, geometry) = host(&machine, Config::default());
    let (start, end) = (0x4000_0000 + 32 * MIB - 4096, 4 * GIB);
    host.map(&machine, Ipa(start), Ipa(end), Attributes::HOST_RAM).unwrap();
    host.map(&machine, Ipa(0), Ipa(GIB), Attributes::HOST_DEVICE).unwrap();
    host.map(&machine, Ipa(512 * GIB), Ipa(1024 * GIB), Attributes::HOST_DEVICE).unwrap();
    let walk = |ipa| machine.walk(geometry, ipa);
    assert_eq!(walk(start - 4096), None);
    assert_eq!(walk(start), Some((start | RAM_BITS | 0b11, 3)));
    assert_eq!(walk(start + 4096 + 5), Some(((start + 4096) | RAM_BITS | 0b01, 2)));
    assert_eq!(walk(2 * GIB - 1), Some(((2 * GIB - 2 * MIB) | RAM_BITS | 0b01, 2)));
    assert_eq!(walk(3 * GIB + 77), Some(((3 * GIB) | RAM_BITS | 0b01, 1)));
    assert_eq!(walk(4 * GIB), None);
    assert_eq!(walk(5), Some((DEVICE_BITS | 0b01, 1)));
    assert_eq!(walk(700 * GIB), Some(((700 * GIB) | DEVICE_BITS | 0b01, 1)));
    assert_eq!(machine.allocated.get(), 2, "one table of 2 MiB blocks, one of pages");
}

#[test]
fn forced_write_back_changes_the_encoding_of_memory_types() {
    let machine = Machine::new(24);
    let (host, geometry) = host(&machine, Config { fwb: true, ..Config::default() });
    host.map(&machine, Ipa(0), Ipa(GIB), Attributes::HOST_RAM).unwrap();
    host.map(&machine, Ipa(GIB), Ipa(2 * GIB), Attributes::HOST_DEVICE).unwrap();
    let memory_type = |ipa| machine.walk(geometry, ipa).unwrap().0 >> 2 & 0b1111;
    assert_eq!(memory_type(0), 0b0111, "what stage 1 says");
    assert_eq!(memory_type(GIB), 0b0111, "what stage 1 says");
}

#[test]
fn refuses_what_is_mapped_unaligned_or_outside() {
    let machine = Machine::new(24);
    let (host, _) = host(&machine, Config::default());
    let map = |start, end| host.map(&machine, Ipa(start), Ipa(end), Attributes::HOST_RAM);
    map(0, GIB).unwrap();
    assert_eq!(map(4096, 8192), Err(Error::Exists));
    assert_eq!(map(GIB, GIB + 1), Err(Error::Invalid));
    assert_eq!(map(2 * GIB, GIB), Err(Error::Invalid));
    assert_eq!(map(1023 * GIB, 1024 * GIB + 4096), Err(Error::Invalid));
    assert_eq!(map(!4095, !4095), Err(Error::Invalid));
}

#[test]
fn takes_a_page_out_of_a_block_with_one_break() {
    let machine = Machine::new(24);
    let config = Config { ttl: true, repeat: true, ..Config::default() };
    let (host, geometry) = host(&machine, config);
    host.map(&machine, Ipa(GIB), Ipa(2 * GIB), Attributes::HOST_RAM).unwrap();
    machine.take_steps();
    let page = GIB + 6 * MIB + 0x5000;
    *machine.watch.borrow_mut() = Some(Box::new(move |machine, step| {
        let now = machine.walk(geometry, page + 4096);
        let made = step == Step::DsbIshst || step == Step::Isb && now.is_some();
        assert_eq!(now.is_some(), made, "broken until the invalidation is complete: {step:?}");
    }));
    host.take_page(&machine, Ipa(page)).unwrap();
    *machine.watch.borrow_mut() = None;
    assert_eq!(
        machine.take_steps(),
        [
            Step::DsbIsh,
            Step::Enter,
            Step::Ipa(GIB, Some(1)),
            Step::DsbIsh,
            Step::Stage1,
            Step::DsbIsh,
            Step::Repeat,
            Step::Isb,
            Step::Leave,
            Step::DsbIshst,
            Step::Isb,
        ]
    );
    let walk = |ipa| machine.walk(geometry, ipa);
    assert_eq!(walk(page), None);
    let step = if cfg!(miri) { 97 * 4096 } else { 4096 };
    for page in (GIB..2 * GIB).step_by(step).filter(|&other| other != page) {
        let (level, kind) =
            if page / (2 * MIB) == (GIB + 6 * MIB) / (2 * MIB) { (3, 0b11) } else { (2, 0b01) };
        let output = if level == 3 { page } else { page & !(2 * MIB - 1) };
        assert_eq!(walk(page), Some((output | RAM_BITS | kind, level)));
    }
}

#[test]
fn takes_a_page_from_a_table_and_gives_it_back() {
    let machine = Machine::new(24);
    let (host, geometry) = host(&machine, Config { repeat: false, ..Config::default() });
    host.map(&machine, Ipa(4096), Ipa(3 * 4096), Attributes::HOST_RAM).unwrap();
    machine.take_steps();
    host.take_page(&machine, Ipa(4096)).unwrap();
    let steps = machine.take_steps();
    assert_eq!(steps[2], Step::Ipa(4096, None), "no level hint without FEAT_TTL");
    assert_eq!(machine.walk(geometry, 4096), None);
    assert_eq!(host.take_page(&machine, Ipa(4096)), Err(Error::NoEntry));
    host.give_page(&machine, Ipa(4096), Attributes::HOST_RAM).unwrap();
    assert_eq!(machine.take_steps(), [Step::DsbIshst, Step::Isb], "invalid to valid");
    assert_eq!(machine.walk(geometry, 4096), Some((4096 | RAM_BITS | 0b11, 3)));
    assert_eq!(host.give_page(&machine, Ipa(4096), Attributes::HOST_RAM), Err(Error::Exists));
    assert_eq!(host.give_page(&machine, Ipa(GIB), Attributes::HOST_RAM), Err(Error::NoEntry));
    assert_eq!(host.take_page(&machine, Ipa(5)), Err(Error::Invalid));
}

/// All steps of an invalidation by the forms that a heal uses.
fn flush_of(ipa: u64, page_count: u64) -> [Step; 8] {
    [
        Step::DsbIsh,
        Step::Enter,
        Step::Range(ipa, page_count, None),
        Step::DsbIsh,
        Step::Stage1,
        Step::DsbIsh,
        Step::Isb,
        Step::Leave,
    ]
}

#[test]
fn reads_of_what_was_taken_find_zeroes() {
    for (fwb, bits) in [(false, ZERO_BITS), (true, ZERO_BITS & !(0b1001 << 2))] {
        let machine = Machine::new(24);
        let (host, geometry) = host(&machine, Config { fwb, ..Config::default() });
        host.map(&machine, Ipa(0), Ipa(GIB), Attributes::HOST_RAM).unwrap();
        host.take_page(&machine, Ipa(4096)).unwrap();
        machine.take_steps();
        assert_eq!(host.fault(&machine, Ipa(4100), false), HostFault::Denied);
        assert_eq!(machine.walk(geometry, 4096), None, "no read, no zeroes");
        assert_eq!(host.fault(&machine, Ipa(4100), true), HostFault::Retry);
        assert_eq!(machine.take_steps(), [Step::DsbIshst, Step::Isb], "invalid to valid");
        assert_eq!(machine.walk(geometry, 4096), Some((ZERO | bits | 0b11, 3)));
        assert_eq!(host.fault(&machine, Ipa(4096), true), HostFault::Retry, "a slower reader");
        assert_eq!(host.fault(&machine, Ipa(4096), false), HostFault::Denied);
        assert_eq!(host.take_page(&machine, Ipa(4096)), Err(Error::NoEntry));
    }
}

#[test]
fn zeroes_give_way_by_a_break() {
    let machine = Machine::new(24);
    let config = Config { ttl: true, ..Config::default() };
    let (host, geometry) = host(&machine, config);
    host.map(&machine, Ipa(0), Ipa(2 * MIB), Attributes::HOST_RAM).unwrap();
    host.take_page(&machine, Ipa(0x5000)).unwrap();
    host.take_page(&machine, Ipa(0x9000)).unwrap();
    assert_eq!(host.fault(&machine, Ipa(0x5000), true), HostFault::Retry);
    machine.take_steps();
    machine.watch(move |machine, step| {
        let made =
            step == Step::DsbIshst || step == Step::Isb && machine.walk(geometry, 0x5000).is_some();
        assert_eq!(machine.walk(geometry, 0x5000).is_some(), made, "broken: {step:?}");
    });
    host.give_page(&machine, Ipa(0x5000), Attributes::HOST_RAM).unwrap();
    machine.unwatch();
    let steps = machine.take_steps();
    assert_eq!(steps[2], Step::Ipa(0x5000, Some(3)));
    assert_eq!(steps.last_chunk(), Some(&[Step::Leave, Step::DsbIshst, Step::Isb]));
    assert_eq!(machine.walk(geometry, 0x5000), Some((0x5000 | RAM_BITS | 0b11, 3)));
}

#[test]
fn the_last_page_that_comes_back_makes_the_block_again() {
    let machine = Machine::new(24);
    let (host, geometry) = host(&machine, Config { tlb_range: true, ..Config::default() });
    host.map(&machine, Ipa(GIB), Ipa(GIB + 4 * MIB), Attributes::HOST_RAM).unwrap();
    let before = machine.allocated.get();
    let pages = [GIB, GIB + 0x5000, GIB + 2 * MIB - 4096];
    pages.iter().for_each(|&page| host.take_page(&machine, Ipa(page)).unwrap());
    assert_eq!(host.fault(&machine, Ipa(GIB), true), HostFault::Retry);
    assert_eq!(machine.allocated.get(), before + 1);
    for page in [pages[1], pages[0]] {
        host.give_page(&machine, Ipa(page), Attributes::HOST_RAM).unwrap();
        assert_eq!(machine.walk(geometry, page), Some((page | RAM_BITS | 0b11, 3)));
    }
    machine.take_steps();
    machine.watch(move |machine, step| {
        let now = machine.walk(geometry, GIB + 0x8000);
        let made = step == Step::DsbIshst || step == Step::Isb && now.is_some();
        assert_eq!(now.is_some(), made, "broken until the invalidation is complete: {step:?}");
    });
    host.give_page(&machine, Ipa(pages[2]), Attributes::HOST_RAM).unwrap();
    machine.unwatch();
    let steps = machine.take_steps();
    assert_eq!(steps[..8], flush_of(GIB, 512), "of no level: it was a table");
    assert_eq!(steps[8..], [Step::DsbIshst, Step::Isb]);
    assert_eq!(machine.walk(geometry, pages[2]), Some((GIB | RAM_BITS | 0b01, 2)));
    assert_eq!(machine.allocated.get(), before, "the table is back in the pool");
}

#[test]
fn a_block_of_1_gib_comes_back_at_once() {
    let machine = Machine::new(24);
    let (host, geometry) = host(&machine, Config { tlb_range: true, ..Config::default() });
    host.map(&machine, Ipa(GIB), Ipa(2 * GIB), Attributes::HOST_RAM).unwrap();
    let (first, second) = (GIB + 6 * MIB, GIB + 8 * MIB + 0x3000);
    host.take_page(&machine, Ipa(first)).unwrap();
    host.take_page(&machine, Ipa(second)).unwrap();
    assert_eq!(machine.allocated.get(), 3);
    host.give_page(&machine, Ipa(first), Attributes::HOST_RAM).unwrap();
    assert_eq!(machine.walk(geometry, first), Some((first | RAM_BITS | 0b01, 2)));
    assert_eq!(machine.allocated.get(), 2);
    machine.take_steps();
    host.give_page(&machine, Ipa(second), Attributes::HOST_RAM).unwrap();
    assert_eq!(machine.take_steps()[..8], flush_of(GIB, 512 * 512), "one break, not one a level");
    assert_eq!(machine.walk(geometry, second), Some((GIB | RAM_BITS | 0b01, 1)));
    assert_eq!(machine.allocated.get(), 0);
}

#[test]
fn tables_that_no_block_stood_for_stay() {
    let machine = Machine::new(24);
    let (host, geometry) = host(&machine, Config::default());
    // All of 2 MiB, in two parts: the last one a page of a device.
    host.map(&machine, Ipa(0), Ipa(2 * MIB - 4096), Attributes::HOST_RAM).unwrap();
    host.map(&machine, Ipa(2 * MIB - 4096), Ipa(2 * MIB), Attributes::HOST_DEVICE).unwrap();
    let before = machine.allocated.get();
    for page in [0, 4096] {
        host.take_page(&machine, Ipa(page)).unwrap();
        host.give_page(&machine, Ipa(page), Attributes::HOST_RAM).unwrap();
    }
    assert_eq!(machine.allocated.get(), before);
    assert_eq!(machine.walk(geometry, 4096), Some((4096 | RAM_BITS | 0b11, 3)));
    let device = 2 * MIB - 4096;
    assert_eq!(machine.walk(geometry, device), Some((device | DEVICE_BITS | 0b11, 3)));
}

#[test]
fn what_the_host_never_has_is_zeroes_by_tables_that_it_shares() {
    let machine = Machine::new(32);
    let (host, geometry) = host(&machine, Config::default());
    let (start, end) = (GIB - 2 * MIB - 4096, 5 * GIB);
    host.map_zeroes(&machine, Ipa(start), Ipa(end)).unwrap();
    assert_eq!(machine.walk(geometry, start - 4096), None);
    for ipa in [start, start + 4096, GIB + 12345, 5 * GIB - 1] {
        assert_eq!(machine.walk(geometry, ipa), Some((ZERO | ZERO_BITS | 0b11, 3)), "{ipa:#x}");
        assert_eq!(host.fault(&machine, Ipa(ipa), false), HostFault::Denied);
        let page = Ipa(ipa).align_down(4096);
        assert_eq!(host.take_page(&machine, page), Err(Error::NoEntry));
    }
    // Three to the odd page and blocks, a table of pages, a table of those.
    assert_eq!(machine.allocated.get(), 4);
    let give = |ipa| host.give_page(&machine, Ipa(ipa), Attributes::HOST_RAM);
    assert_eq!(give(GIB), Err(Error::NoEntry), "what is shared never changes");
    let again = host.map_zeroes(&machine, Ipa(GIB), Ipa(2 * GIB));
    assert_eq!(again, Err(Error::Exists));
    assert_eq!(host.map_zeroes(&machine, Ipa(1), Ipa(4096)), Err(Error::Invalid));
}

#[test]
fn changes_nothing_when_no_table_page_is_left() {
    let machine = Machine::new(24);
    let (host, geometry) = host(&machine, Config::default());
    host.map(&machine, Ipa(0), Ipa(GIB), Attributes::HOST_RAM).unwrap();
    machine.take_steps();
    machine.keep_free(1);
    assert_eq!(host.take_page(&machine, Ipa(4096)), Err(Error::NoMemory));
    assert_eq!(machine.free_pages(), 1);
    assert_eq!(machine.take_steps(), []);
    assert_eq!(machine.walk(geometry, 4096), Some((RAM_BITS | 0b01, 1)));
}

#[test]
fn answers_faults_by_what_the_table_says_now() {
    let machine = Machine::new(24);
    let (host, _) = host(&machine, Config::default());
    host.map(&machine, Ipa(0), Ipa(GIB), Attributes::HOST_RAM).unwrap();
    for reads in [false, true] {
        assert_eq!(host.fault(&machine, Ipa(4096), reads), HostFault::Retry);
        assert_eq!(host.fault(&machine, Ipa(GIB), reads), HostFault::Denied, "never RAM");
        assert_eq!(host.fault(&machine, Ipa(1 << 40), reads), HostFault::Denied);
        assert_eq!(host.fault(&machine, Ipa(u64::MAX), reads), HostFault::Denied);
    }
}

/// Splits every block of a range that begins 4 KiB late; returns how many tables that took.
fn tables_for(bytes: u64) -> u64 {
    let machine = Machine::new((bytes / (2 * MIB)) as usize + 32);
    let (host, _) = host(&machine, Config::default());
    let start = GIB + 4096;
    host.map(&machine, Ipa(start), Ipa(start + bytes), Attributes::HOST_RAM).unwrap();
    for page in (start..start + bytes).step_by(2 * MIB as usize) {
        host.take_page(&machine, Ipa(page)).unwrap();
    }
    machine.allocated.get() as u64
}

#[test]
#[cfg_attr(miri, ignore = "slow under Miri")]
fn knows_how_many_tables_splitting_everything_takes() {
    for bytes in [512 * MIB, GIB, 3 * GIB] {
        let bound = Identity::split_tables(bytes, 1);
        let taken = tables_for(bytes);
        assert!(bound >= taken, "{bytes:#x}: {bound} and not {taken}");
        assert!(bound < taken + 16, "{bytes:#x}: {bound} for {taken}");
    }
    // 512 tables of pages and one of blocks for each GiB, and a few for the edges of each range.
    assert!((64 * 513..64 * 513 + 64).contains(&Identity::split_tables(64 * GIB, 4)));
    assert!(Identity::split_tables(GIB, 9) >= 513 + 9 * 3);
}
