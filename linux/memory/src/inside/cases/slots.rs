//! Memory slots that come, go, move and change while vCPUs run, and what the interface refuses.

use std::io::Error;
use std::ops::Range;
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use verdigris_guest::{pattern, program, touch};
use verdigris_ktap::test_table;

use super::beside::Job;
use super::support::{Blocks, HAND, PLAYERS, Scene, filled, taken};
use crate::inside::guest::{DATA, DATA_SLOT, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::region::{KINDS, Kind, Region};
use crate::inside::sys::{BLOCK, PAGE};
use crate::inside::vcpu::Exit;
use crate::inside::vm::{LOG, READONLY, Vm, pages_of};

test_table! { "memory", 300:
    slots_come_and_go, slots_move, flags_change_under_the_guest, two_slots_of_one_memory,
    readonly_slots_trap_writes, mistakes,
}
test_table! { LONG_TESTS, "memory", 300: many_slots }

const PAGES: usize = 128;
/// A slot beside the data, at its own addresses.
const OTHER: u32 = 9;
const OTHER_AT: u64 = 0x8000_0000;
/// KVM_CAP_NR_MEMSLOTS.
const NR_MEMSLOTS: u64 = 10;

/// Expects the program that was begun to meet no memory at its first address.
fn expect_store(scene: &mut Scene, address: u64, value: u64) {
    loop {
        match scene.hand.run() {
            Exit::Interrupted => {}
            Exit::Store(at, stored) => return assert_eq!((at, stored), (address, value)),
            other => panic!("{other:x?}, where no slot is"),
        }
    }
}

/// The addresses of the slot beside the data, where it is now.
fn other_addresses(at: u64) -> Range<u64> {
    at..at + (PAGES * PAGE) as u64
}

/// Has a slot taken away, by `take`, in which a vCPU reads: its next access is one to a device.
fn take_from_reader(scene: &mut Scene, addresses: &Range<u64>, take: impl FnOnce(&Guest)) {
    let exit = scene.until_taken(Job::look(addresses), take);
    let Exit::Load(at, 8) = exit else { panic!("{exit:x?}, where no slot is") };
    assert!(addresses.contains(&at) && at.is_multiple_of(PAGE as u64), "{at:#x}");
    scene.drain();
}

/// The same with a vCPU that writes; returns the address of the first store that found no memory, and its value.
fn take_from_writer(
    scene: &mut Scene,
    addresses: &Range<u64>,
    take: impl FnOnce(&Guest),
) -> (u64, u64) {
    let exit = scene.until_taken(Job::write(addresses), take);
    let Exit::Store(at, value) = exit else { panic!("{exit:x?}, where no slot is") };
    assert!(addresses.contains(&at) && at.is_multiple_of(PAGE as u64), "{at:#x}");
    scene.drain();
    (at, value)
}

fn slots_come_and_go() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let other = Region::new(Kind::Pages, PAGES * PAGE).expect("memory");
    let (addresses, take) = (other_addresses(OTHER_AT), |guest: &Guest| guest.vm.delete(OTHER));
    for round in 1..9u64 {
        let come = |guest: &Guest| guest.vm.add(OTHER, OTHER_AT, &other, other.all(), 0);
        come(&scene.guest);
        scene.hand.program(program::FILL, &[OTHER_AT, other.bytes() as u64, round]);
        take_from_reader(&mut scene, &addresses, take);
        come(&scene.guest);
        let (stopped_at, value) = take_from_writer(&mut scene, &addresses, take);
        // Without the slot it is a device, of whom a value comes back.
        scene.hand.begin(program::READ, &[OTHER_AT]);
        scene.hand.answer(round ^ 0xff);
        assert_eq!(scene.hand.run(), Exit::Load(OTHER_AT, 8));
        assert_eq!(scene.hand.finish()[1], round ^ 0xff);
        // Pages before that of the first store that failed are of its round, the others of the one before.
        for at in (0..other.bytes()).step_by(8) {
            let address = OTHER_AT + at as u64;
            let expected = match at.is_multiple_of(PAGE) {
                true => value - u64::from(address >= stopped_at),
                false => pattern(address, round),
            };
            assert_eq!(other.read(at), expected, "at {at:#x}, stopped at {stopped_at:#x}");
        }
    }
    scene.finish();
}

fn slots_move() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let other = Region::new(Kind::Pages, PAGES * PAGE).expect("memory");
    scene.guest.vm.add(OTHER, OTHER_AT, &other, other.all(), 0);
    scene.hand.program(program::FILL, &[OTHER_AT, other.bytes() as u64, 1]);
    for round in 1..9u64 {
        let (old, new) = (OTHER_AT + ((round - 1) << 24), OTHER_AT + (round << 24));
        take_from_reader(&mut scene, &other_addresses(old), |guest| {
            guest.vm.add(OTHER, new, &other, other.all(), 0);
        });
        let seen = scene.look_once(Job::look(&other_addresses(new)));
        for (at, seen) in (0..other.bytes()).step_by(PAGE).zip(seen) {
            assert_eq!(seen, pattern(OTHER_AT + at as u64, 1), "at {at:#x}");
        }
        scene.hand.begin(program::WRITE, &[old, 7]);
        expect_store(&mut scene, old, 7);
        scene.hand.finish();
    }
    for at in (0..other.bytes()).step_by(8) {
        assert_eq!(other.read(at), pattern(OTHER_AT + at as u64, 1), "at {at:#x}");
    }
    scene.finish();
}

/// Turns logging on and off while vCPUs write. Pages that were written meanwhile as a whole, and once more, are in the log.
fn log_for_a_while(guest: &Guest, ledger: &Ledger) {
    let pages = guest.data.pages();
    let versions = || -> Vec<u64> { (0..pages).map(|page| guest.version(page)).collect() };
    guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), LOG);
    let before = versions();
    ledger.wait(8);
    let after = versions();
    let log = pages_of(&guest.vm.dirty_log(DATA_SLOT, pages).expect("a log"));
    let written: Vec<usize> = (0..pages).filter(|&page| after[page] > before[page] + 1).collect();
    assert!(!written.is_empty(), "the guest has written");
    let lost: Vec<_> = written.iter().filter(|page| log.binary_search(page).is_err()).collect();
    assert!(lost.is_empty(), "{lost:?} of {written:?} are not in the log");
    guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), 0);
    ledger.wait(2);
}

/// Blocks become pages when the log begins, and blocks again when it has ended.
fn flags_change_under_the_guest() {
    const BLOCKS: u64 = 4;
    const ROUNDS: u64 = 8;
    for kind in KINDS {
        let bytes = if kind == Kind::Blocks { BLOCKS as usize * BLOCK } else { 2 * PAGES * PAGE };
        let guest = Arc::new(Guest::new(kind, bytes));
        let words = [DATA, guest.data.pages() as u64, 1, touch::WRITE];
        guest.vcpu(HAND).program(program::TOUCH, &words);
        let begin = Blocks::of(&guest);
        let ledger = Ledger::start(&guest, PLAYERS);
        (0..ROUNDS).for_each(|_| log_for_a_while(&guest, &ledger));
        let end = Blocks::of(&guest);
        ledger.finish();
        println!("{kind:?}: {begin:?} at first, {end:?} in the end");
        if let (Kind::Blocks, Some(begin), Some(end)) = (kind, begin, end) {
            assert!(begin.mapped >= BLOCKS, "{begin:?}");
            assert!(end.split >= begin.split + BLOCKS * ROUNDS / 2, "{begin:?}, {end:?}");
            assert!(end.collapsed >= begin.collapsed + BLOCKS * ROUNDS / 2, "{begin:?}, {end:?}");
        }
    }
}

/// What is written through one is read through the other, and what Linux takes away is gone from both.
fn two_slots_of_one_memory() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    scene.guest.vm.add(OTHER, OTHER_AT, &scene.guest.data, part.clone(), 0);
    let other = |at: usize| OTHER_AT + (at - part.start) as u64;
    for seed in 1..5 {
        let rest = taken(&part, seed);
        scene.fill(part.clone(), seed);
        // Of the part, by offsets from its start.
        let old = |at: usize| filled(part.start + at, seed);
        scene.watch(
            &other_addresses(OTHER_AT),
            old,
            |guest| guest.data.advise(rest.clone(), libc::MADV_DONTNEED).expect("advice"),
            |at| if rest.contains(&(part.start + at)) { 0 } else { old(at) },
        );
        scene.compare(&rest, |_| 0);
        scene.hand.program(program::WRITE, &[other(rest.start), seed]);
        assert_eq!(scene.read(rest.start), seed);
        assert_eq!(scene.guest.data.read(rest.start), seed);
    }
    scene.finish();
}

fn readonly_slots_trap_writes() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let other = Region::new(Kind::Pages, PAGES * PAGE).expect("memory");
    (0..other.bytes()).step_by(8).for_each(|at| other.write(at, at as u64));
    scene.guest.vm.add(OTHER, OTHER_AT, &other, other.all(), READONLY);
    for at in (0..other.bytes()).step_by(PAGE) {
        let address = OTHER_AT + at as u64;
        if at.is_multiple_of(2 * PAGE) {
            assert_eq!(scene.hand.program(program::READ, &[address])[1], at as u64);
        }
        scene.hand.begin(program::WRITE, &[address, 5]);
        expect_store(&mut scene, address, 5);
        scene.hand.finish();
        assert_eq!(scene.hand.program(program::READ, &[address])[1], at as u64);
        assert_eq!(other.read(at), at as u64, "a read-only page was written");
    }
    scene.finish();
}

fn errno(result: std::io::Result<()>) -> i32 {
    result.expect_err("a mistake").raw_os_error().expect("of a system call")
}

fn mistakes() {
    let vm = Vm::new();
    let memory = Region::new(Kind::Pages, 16 * PAGE).expect("memory");
    let good = kvm_userspace_memory_region {
        slot: 3,
        flags: 0,
        guest_phys_addr: DATA,
        memory_size: 8 * PAGE as u64,
        userspace_addr: memory.address(0) as u64,
    };
    vm.set(good).expect("a slot");
    let expect = |what: &str, number: i32, slot: kvm_userspace_memory_region| {
        let found = errno(vm.set(slot));
        let name = Error::from_raw_os_error(found);
        assert_eq!(found, number, "{what}: {name}");
    };
    let page = PAGE as u64;
    expect(
        "overlaps at its end",
        libc::EEXIST,
        kvm_userspace_memory_region { slot: 4, guest_phys_addr: DATA + 7 * page, ..good },
    );
    expect(
        "overlaps at its start",
        libc::EEXIST,
        kvm_userspace_memory_region { slot: 4, guest_phys_addr: DATA - 7 * page, ..good },
    );
    expect(
        "another size",
        libc::EINVAL,
        kvm_userspace_memory_region { memory_size: 4 * page, ..good },
    );
    expect(
        "other memory",
        libc::EINVAL,
        kvm_userspace_memory_region { userspace_addr: good.userspace_addr + page, ..good },
    );
    expect(
        "read-only from now on",
        libc::EINVAL,
        kvm_userspace_memory_region { flags: READONLY, ..good },
    );
    expect(
        "half a page",
        libc::EINVAL,
        kvm_userspace_memory_region {
            slot: 4,
            guest_phys_addr: DATA << 1,
            memory_size: page + 512,
            ..good
        },
    );
    expect(
        "an address in a page",
        libc::EINVAL,
        kvm_userspace_memory_region { slot: 4, guest_phys_addr: (DATA << 1) + 512, ..good },
    );
    expect(
        "memory that begins in a page",
        libc::EINVAL,
        kvm_userspace_memory_region {
            slot: 4,
            guest_phys_addr: DATA << 1,
            userspace_addr: good.userspace_addr + 8,
            ..good
        },
    );
    expect(
        "an unknown flag",
        libc::EINVAL,
        kvm_userspace_memory_region { slot: 4, guest_phys_addr: DATA << 1, flags: 1 << 7, ..good },
    );
    expect(
        "no such address space",
        libc::EINVAL,
        kvm_userspace_memory_region { slot: 1 << 16 | 4, guest_phys_addr: DATA << 1, ..good },
    );
    expect(
        "wraps around",
        libc::EINVAL,
        kvm_userspace_memory_region { slot: 4, guest_phys_addr: u64::MAX - page + 1, ..good },
    );
    expect(
        "beyond the guest's addresses",
        libc::EFAULT,
        kvm_userspace_memory_region { slot: 4, guest_phys_addr: 1 << 40, ..good },
    );
    expect(
        "deletes what isn't there",
        libc::EINVAL,
        kvm_userspace_memory_region { slot: 4, memory_size: 0, ..good },
    );
    expect(
        "a number past the last",
        libc::EINVAL,
        kvm_userspace_memory_region {
            slot: vm.fd.check_extension_raw(NR_MEMSLOTS) as u32,
            guest_phys_addr: DATA << 1,
            ..good
        },
    );
    // None of it has changed anything; and an adjacent slot is fine.
    vm.set(good).expect("the same again");
    vm.set(kvm_userspace_memory_region {
        slot: 4,
        guest_phys_addr: DATA + 8 * page,
        userspace_addr: good.userspace_addr + 8 * page,
        ..good
    })
    .expect("a neighbour");
    assert!(vm.dirty_log(3, 8).is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT)));
    assert!(vm.dirty_log(5, 8).is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT)));
}

/// As many slots as the interface promises, each of one page, all of one memory.
fn many_slots() {
    let guest = Guest::new(Kind::Pages, 2 * PAGE);
    let count = guest.vm.fd.check_extension_raw(NR_MEMSLOTS) as u32;
    assert_eq!(count, 32767);
    let address = |slot: u32| 0x1_0000_0000 + u64::from(slot) * 2 * PAGE as u64;
    for slot in 2..count {
        guest.vm.add(slot, address(slot), &guest.data, 0..PAGE, 0);
    }
    let mut vcpu = guest.vcpu(HAND);
    for slot in (2..count).step_by(997).chain([count - 1]) {
        vcpu.program(program::WRITE, &[address(slot), slot.into()]);
        assert_eq!(guest.data.read(0), slot.into());
        let second = guest.vm.set(kvm_userspace_memory_region {
            slot: 1,
            guest_phys_addr: address(slot),
            memory_size: 2 * PAGE as u64,
            userspace_addr: guest.data.address(0) as u64,
            ..Default::default()
        });
        assert_eq!(errno(second), libc::EEXIST);
    }
    // Every one of them is a mapping of the one page, and all end with it.
    guest.data.advise(0..PAGE, libc::MADV_DONTNEED).expect("advice");
    assert_eq!(vcpu.program(program::READ, &[address(2)])[1], 0);
    for slot in (2..count).rev().take(100) {
        guest.vm.delete(slot);
    }
}
