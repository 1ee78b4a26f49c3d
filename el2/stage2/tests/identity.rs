//! The host's identity map: what is mapped, in which blocks, and the steps of taking a page.
#![cfg(not(loom))]

mod support;

use support::{Machine, Step};
use verdigris_stage2::flush::Config;
use verdigris_stage2::{Attributes, Error, Geometry, HostFault, Identity, Ipa};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Normal write-back, inner shareable, read and write, AF, software bit 55; bits 1:0 by level.
const RAM_BITS: u64 = 1 << 55 | 1 << 10 | 0b11 << 8 | 0b11 << 6 | 0b1111 << 2;
/// The same, XN: the host's stage 1 says what is Device.
const DEVICE_BITS: u64 = 1 << 55 | 1 << 54 | 1 << 10 | 0b11 << 8 | 0b11 << 6 | 0b1111 << 2;

fn host(machine: &Machine, config: Config) -> (Identity, Geometry) {
    let geometry = Geometry::new(40, 40).unwrap();
    (Identity::new(machine.root(geometry), config), geometry)
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
    assert_eq!(machine.walk(geometry, 4096), Some((4096 | RAM_BITS | 0b11, 3)));
    assert_eq!(host.give_page(&machine, Ipa(4096), Attributes::HOST_RAM), Err(Error::Exists));
    assert_eq!(host.take_page(&machine, Ipa(5)), Err(Error::Invalid));
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
    assert_eq!(host.fault(&machine, Ipa(4096)), HostFault::Retry);
    assert_eq!(host.fault(&machine, Ipa(GIB)), HostFault::NotMapped);
    assert_eq!(host.fault(&machine, Ipa(1 << 40)), HostFault::NotMapped);
    assert_eq!(host.fault(&machine, Ipa(u64::MAX)), HostFault::NotMapped);
    host.take_page(&machine, Ipa(4096)).unwrap();
    assert_eq!(host.fault(&machine, Ipa(4096)), HostFault::NotMapped);
}

#[test]
fn a_fault_on_a_block_that_is_being_split_is_retried() {
    let machine = Machine::new(24);
    let root = machine.root(Geometry::new(40, 40).unwrap());
    let host = Identity::new(root, Config::default());
    host.map(&machine, Ipa(0), Ipa(GIB), Attributes::HOST_RAM).unwrap();
    *machine.watch.borrow_mut() = Some(Box::new(move |machine, _| {
        let other_cpu = Identity::new(root, Config::default());
        assert_eq!(other_cpu.fault(machine, Ipa(5 * MIB)), HostFault::Retry);
    }));
    host.take_page(&machine, Ipa(4096)).unwrap();
}

#[test]
fn knows_how_many_tables_splitting_everything_takes() {
    // 1 GiB that begins 4 KiB late: 512 + 1 tables of pages (the edges are tables from the start),
    // and 2 of blocks.
    assert!(Identity::split_tables(GIB, 1) >= 515);
    assert!(Identity::split_tables(GIB, 1) < 530);
}
