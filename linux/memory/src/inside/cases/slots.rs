//! Memory slots that come, go, move and change while vCPUs run, and what the interface refuses.

use std::io::Error;
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use verdigris_guest::{pattern, program};
use verdigris_ktap::test_table;

use super::support::{HAND, PLAYERS, Scene, halves};
use crate::inside::guest::{DATA, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::PAGE;
use crate::inside::vcpu::Exit;
use crate::inside::vm::{LOG, READONLY, Vm};

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

fn slots_come_and_go() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let other = Region::new(Kind::Pages, PAGES * PAGE).expect("memory");
    for round in 1..12u64 {
        scene.guest.vm.add(OTHER, OTHER_AT, &other, other.all(), 0);
        scene.hand.program(program::FILL, &[OTHER_AT, other.bytes() as u64, round]);
        scene.guest.vm.delete(OTHER);
        // Without the slot it is a device, of whom a value comes back.
        scene.hand.begin(program::WRITE, &[OTHER_AT + 0x18, round]);
        expect_store(&mut scene, OTHER_AT + 0x18, round);
        scene.hand.finish();
        scene.hand.begin(program::READ, &[OTHER_AT]);
        scene.hand.answer(round ^ 0xff);
        assert_eq!(scene.hand.run(), Exit::Load(OTHER_AT, 8));
        assert_eq!(scene.hand.finish()[1], round ^ 0xff);
        for at in (0..other.bytes()).step_by(PAGE / 2) {
            assert_eq!(other.read(at), pattern(OTHER_AT + at as u64, round));
        }
    }
    scene.finish();
}

fn slots_move() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let other = Region::new(Kind::Pages, PAGES * PAGE).expect("memory");
    scene.guest.vm.add(OTHER, OTHER_AT, &other, other.all(), 0);
    scene.hand.program(program::FILL, &[OTHER_AT, other.bytes() as u64, 1]);
    for round in 1..12u64 {
        let (old, new) = (OTHER_AT + ((round - 1) << 24), OTHER_AT + (round << 24));
        scene.guest.vm.add(OTHER, new, &other, other.all(), 0);
        for at in (0..other.bytes()).step_by(PAGE) {
            let expected = pattern(OTHER_AT + at as u64, 1);
            assert_eq!(scene.hand.program(program::READ, &[new + at as u64])[1], expected);
        }
        scene.hand.begin(program::WRITE, &[old, 7]);
        expect_store(&mut scene, old, 7);
        scene.hand.finish();
    }
    scene.finish();
}

fn flags_change_under_the_guest() {
    let guest = Arc::new(Guest::new(Kind::Blocks, 2 * PAGES * PAGE));
    let ledger = Ledger::start(&guest, PLAYERS);
    for _ in 0..20 {
        guest.vm.add(1, DATA, &guest.data, guest.data.all(), LOG);
        ledger.wait(2);
        let log = guest.vm.dirty_log(1, guest.data.pages()).expect("a log");
        assert!(log.iter().any(|&word| word != 0), "the guest has written");
        guest.vm.add(1, DATA, &guest.data, guest.data.all(), 0);
        ledger.wait(2);
    }
    ledger.finish();
}

/// What is written through one is read through the other, and what Linux takes away is gone from both.
fn two_slots_of_one_memory() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    scene.guest.vm.add(OTHER, OTHER_AT, &scene.guest.data, part.clone(), 0);
    let (_, rest) = halves(&part);
    for seed in 1..8 {
        scene.fill(part.clone(), seed);
        for at in (0..part.len()).step_by(PAGE) {
            let expected = pattern(DATA + (part.start + at) as u64, seed);
            assert_eq!(scene.hand.program(program::READ, &[OTHER_AT + at as u64])[1], expected);
        }
        scene.guest.data.advise(rest.clone(), libc::MADV_DONTNEED).expect("advice");
        let second = OTHER_AT + (rest.start - part.start) as u64;
        assert_eq!(scene.read(rest.start), 0);
        assert_eq!(scene.hand.program(program::READ, &[second + 8])[1], 0);
        scene.hand.program(program::WRITE, &[second, seed]);
        assert_eq!(scene.read(rest.start), seed);
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
