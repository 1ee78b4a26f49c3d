//! What some capabilities promise, in so far as no other test needs it.
#![allow(unsafe_code)]

use std::fs;
use std::io::Result;
use std::os::fd::AsRawFd;

use kvm_bindings::{KVMIO, kvm_userspace_memory_region, kvm_userspace_memory_region2};
use verdigris_guest::program;
use verdigris_ktap::{skip, test_table};

use super::code::{
    CHECK_EXTENSION, CODE, DEVICE, GENERIC, PC, PSCI_0_2, Tiny, device, errno, init, set, x,
};
use super::registers::sys as register;
use crate::inside::counters::{PARAMETERS, is_verdigris, write};
use crate::inside::guest::{DATA, DATA_SLOT, Guest};
use crate::inside::region::{Kind, Region};
use crate::inside::sys::{self, PAGE, WRITE, ioctl_number, request};

test_table! { "memory", 30:
    a_fault_without_memory_tells_where, memory_comes_by_the_second_call, memory_joins, an_exit_that_nobody_explains,
    pointers_are_signed, the_area_of_a_vcpu_can_be_locked, udev_says_who_may_use_the_device,
}

/// KVM_EXIT_* (linux/kvm.h).
const MMIO: u32 = 6;
const MEMORY_FAULT: u32 = 39;

const FOREVER: u32 = 0x1400_0000; // b .
const LOAD: u32 = 0xf940_0001; // ldr x1, [x0]
const STORE: u32 = 0xf900_0001; // str x1, [x0]
const BRANCH: u32 = 0xd61f_0000; // br x0

/// Expects the next run to fail for want of memory, at a page; what it tells says so.
fn expect_fault(tiny: &Tiny, page: u64) {
    tiny.spoil_exit();
    assert_eq!(errno(tiny.run()), libc::EFAULT);
    // Linux's KVM tells it on other architectures only.
    if is_verdigris() {
        assert_eq!(tiny.reason(), MEMORY_FAULT);
        assert_eq!(tiny.memory_fault(), (0, page, PAGE as u64), "flags, address, size");
    }
}

/// KVM_CAP_MEMORY_FAULT_INFO: a load, a store and a jump to memory that the process has not, or not so.
fn a_fault_without_memory_tells_where() {
    const READ: i32 = libc::PROT_READ;
    for (code, denied) in [(LOAD, 0), (STORE, 0), (BRANCH, 0), (STORE, READ)] {
        let tiny = Tiny::new(&[code, FOREVER], 0);
        // In the second page of the slot, and not its first byte.
        let (page, place) = (CODE + PAGE as u64, CODE + PAGE as u64 + 0x18);
        tiny.memory.store(PAGE + 0x18, &FOREVER.to_le_bytes());
        tiny.memory.protect(PAGE..2 * PAGE, denied).expect("protection");
        tiny.set(x(0), place);
        for _ in 0..2 {
            expect_fault(&tiny, page);
            // Nothing has happened, but the jump itself.
            assert_eq!(tiny.get(PC), if code == BRANCH { place } else { CODE });
        }
        tiny.memory.protect(PAGE..2 * PAGE, libc::PROT_READ | libc::PROT_WRITE).expect("rights");
        super::running::interrupted(&tiny);
        assert_eq!(tiny.get(PC), if code == BRANCH { place } else { CODE + 4 });
    }
}

fn set_region(vm: &impl AsRawFd, region: kvm_userspace_memory_region2) -> Result<()> {
    let call = request::<kvm_userspace_memory_region2>(WRITE, KVMIO.into(), 0x49);
    let mut region = region;
    // SAFETY: a region's memory may be written by anybody at any time.
    unsafe { sys::ioctl(vm.as_raw_fd(), call, &mut region) }.map(|_| ())
}

/// Runs `ldr x1, [x0]; str x1, [x0]` from its beginning; returns the access that no slot had, and whether it was the store.
fn copy(tiny: &Tiny, address: u64) -> (u64, bool) {
    // What is open from before ends first.
    tiny.set_immediate_exit(true);
    assert_eq!(errno(tiny.run()), libc::EINTR);
    tiny.set_immediate_exit(false);
    tiny.set(PC, CODE);
    tiny.set(x(0), address);
    assert_eq!(tiny.run().expect("an exit"), MMIO);
    let (address, _, _, is_write) = tiny.mmio();
    (address, is_write)
}

/// KVM_CAP_USER_MEMORY2: KVM_SET_USER_MEMORY_REGION2 does what the older call does, and has more in its structure.
fn memory_comes_by_the_second_call() {
    const AT: u64 = 0x2000_0000;
    /// KVM_MEM_READONLY; KVM_MEM_GUEST_MEMFD, which this architecture hasn't.
    const READONLY: u32 = 2;
    const PRIVATE: u32 = 4;
    let tiny = Tiny::new(&[LOAD, STORE, FOREVER], 0);
    let memory = Region::new(Kind::Pages, PAGE).expect("memory");
    memory.write(0, 0x1234);
    let mut region = kvm_userspace_memory_region2 {
        slot: 7,
        guest_phys_addr: AT,
        memory_size: PAGE as u64,
        userspace_addr: memory.address(0) as u64,
        ..Default::default()
    };
    assert_eq!(copy(&tiny, AT), (AT, false), "there is no slot yet");
    region.flags = PRIVATE;
    assert_eq!(errno(set_region(&tiny.vm, region)), libc::EINVAL);
    region.flags = READONLY;
    set_region(&tiny.vm, region).expect("a slot");
    // The load finds memory; the store is told, since the slot is for reading.
    assert_eq!(copy(&tiny, AT), (AT, true));
    assert_eq!(u64::from_le_bytes(tiny.mmio().1), 0x1234);
    assert_eq!(memory.read(0), 0x1234);
    region.memory_size = 0;
    set_region(&tiny.vm, region).expect("the end of a slot");
    assert_eq!(copy(&tiny, AT), (AT, false), "the slot is gone");
    structures_have_sizes(&tiny);
}

/// All of the structure is read: one that ends in the middle of nothing is an error, where the older one is in place.
fn structures_have_sizes(tiny: &Tiny) {
    let place = Region::new(Kind::Pages, 2 * PAGE).expect("memory");
    place.protect(PAGE..2 * PAGE, libc::PROT_NONE).expect("protection");
    let older = size_of::<kvm_userspace_memory_region>();
    // A slot that there isn't.
    place.write(PAGE - older, 99);
    let call = |call: u64| {
        let address = place.address(PAGE - older) as u64;
        errno(ioctl_number(tiny.vm.as_raw_fd(), call, address))
    };
    let first = request::<kvm_userspace_memory_region>(WRITE, KVMIO.into(), 0x46);
    assert_eq!(call(first), libc::EINVAL);
    let second = request::<kvm_userspace_memory_region2>(WRITE, KVMIO.into(), 0x49);
    assert_eq!(call(second), libc::EFAULT);
}

/// KVM_CAP_JOIN_MEMORY_REGIONS_WORKS: memory in one slot, and in two that meet, is the same to the guest.
fn memory_joins() {
    const PAGES: usize = 4;
    let guest = Guest::new(Kind::Pages, PAGES * PAGE);
    let mut hand = guest.vcpu(0);
    let all = [DATA, (PAGES * PAGE) as u64];
    for seed in 1..6 {
        hand.program(program::FILL, &[all[0], all[1], seed]);
        guest.vm.delete(DATA_SLOT);
        let middle = seed as usize % (PAGES - 1) * PAGE + PAGE;
        guest.vm.add(DATA_SLOT, DATA, &guest.data, 0..middle, 0);
        let rest = middle..guest.data.bytes();
        guest.vm.add(DATA_SLOT + 1, DATA + middle as u64, &guest.data, rest, 0);
        assert_eq!(hand.program(program::CHECK, &[all[0], all[1], seed])[1], 0, "in two parts");
        hand.program(program::FILL, &[all[0], all[1], seed + 100]);
        guest.vm.delete(DATA_SLOT);
        guest.vm.delete(DATA_SLOT + 1);
        guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), 0);
        assert_eq!(hand.program(program::CHECK, &[all[0], all[1], seed + 100])[1], 0, "in one");
    }
}

/// KVM_CAP_INTERNAL_ERROR_DATA: an exit that the firmware doesn't explain is told with syndrome and address. No guest can cause
/// one on a machine that works: so the driver is told to take a store to no memory for that.
fn an_exit_that_nobody_explains() {
    const INTERNAL_ERROR: u32 = 17;
    /// KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON (linux/kvm.h).
    const UNEXPECTED: u32 = 4;
    if !is_verdigris() {
        skip("this is not the driver of Verdigris: its exits can't be taken for others");
    }
    let tiny = Tiny::new(&[STORE, STORE, FOREVER], 0);
    tiny.set(x(0), DEVICE);
    assert_eq!(tiny.run().expect("an exit"), MMIO);
    write(format!("{PARAMETERS}/unexplained_exits"), "1");
    tiny.spoil_exit();
    assert_eq!(tiny.run().expect("an exit"), INTERNAL_ERROR);
    let (suberror, data) = tiny.internal_error();
    // ESR_EL2 of a store of x1 as a doubleword: EC 0x24 (a data abort from below), IL, ISV, SAS, SRT, SF, WnR, and a
    // translation fault of any level (Arm ARM D24.2.40).
    let [syndrome, address] = data[..] else { panic!("{data:#x?}") };
    assert_eq!((suberror, syndrome & !3, address), (UNEXPECTED, 0x93c1_8044, DEVICE));
    assert_eq!(tiny.get(PC), CODE + 4);
    write(format!("{PARAMETERS}/unexplained_exits"), "0");
    // Only once: the guest goes on.
    assert_eq!(tiny.run().expect("an exit"), MMIO);
    assert_eq!(tiny.mmio().0, DEVICE);
}

/// KVM_ARM_VCPU_PTRAUTH_ADDRESS and _GENERIC (asm/kvm.h).
const PTRAUTH: u32 = 1 << 5 | 1 << 6;

/// Signs, checks, and signs without a pointer, each time telling the result; keys are made from a seed.
fn sign(seed: u64, pointer: u64) -> [u64; 3] {
    // pacia x1, x2; str; autia x1, x2; str; pacga x1, x1, x2; str; b .
    let code = [0xdac1_0041, STORE, 0xdac1_1041, STORE, 0x9ac2_3021, STORE, FOREVER];
    let tiny = Tiny::without_init(&code);
    init(&tiny.vcpu, GENERIC, [PTRAUTH | PSCI_0_2, 0, 0, 0, 0, 0, 0]).expect("both features");
    let set = |id: u64, value: u64| set(&tiny.vcpu, id, value.into()).expect("a register");
    // SCTLR_EL1: RES1 and EnIA (Arm ARM D24.2.174); TCR_EL1.T0SZ: addresses of 39 bits, and no tags.
    set(register(3, 0, 1, 0, 0), 0x30d0_0800 | 1 << 31);
    set(register(3, 0, 2, 0, 2), 25);
    // APIAKeyLo_EL1, APIAKeyHi_EL1; APGAKeyLo_EL1, APGAKeyHi_EL1.
    for (crm, op2) in [(1, 0), (1, 1), (3, 0), (3, 1)] {
        set(register(3, 0, 2, crm, op2), seed.rotate_left((8 * crm + op2) as u32));
    }
    set(PC, CODE);
    for (n, value) in [(0, DEVICE), (1, pointer), (2, 0x77)] {
        set(x(n), value);
    }
    [0; 3].map(|_: u64| {
        assert_eq!(tiny.run().expect("an exit"), MMIO);
        u64::from_le_bytes(tiny.mmio().1)
    })
}

/// KVM_CAP_ARM_PTRAUTH_*: as the CPU has it, and a vCPU that asks for both signs with the keys that it was given.
fn pointers_are_signed() {
    const POINTER: u64 = 0x12_3456_7890;
    let ask = |cap| ioctl_number(device().as_raw_fd(), CHECK_EXTENSION, cap).expect("an answer");
    let text = fs::read_to_string("/proc/cpuinfo").expect("CPUs");
    let has = |feature: &str| i64::from(text.split_whitespace().any(|word| word == feature));
    assert_eq!((ask(171), ask(172)), (has("paca"), has("pacg")));
    if ask(171) == 0 {
        let tiny = Tiny::without_init(&[]);
        let result = init(&tiny.vcpu, GENERIC, [PTRAUTH, 0, 0, 0, 0, 0, 0]);
        return assert_eq!(errno(result), libc::EINVAL);
    }
    let [signed, plain, code] = sign(0x0123_4567_89ab_cdef, POINTER);
    assert_ne!(signed, POINTER);
    // Bits 38 to 0 are the address, bit 55 says which half (Arm ARM D8.8).
    assert_eq!((signed ^ POINTER) & 0x0080_007f_ffff_ffff, 0, "{signed:#x}");
    assert_eq!(plain, POINTER);
    assert!(code >> 32 != 0 && code << 32 == 0, "{code:#x}");
    assert_eq!(sign(0x0123_4567_89ab_cdef, POINTER), [signed, plain, code], "the same keys");
    let other = sign(0xfedc_ba98_7654_3211, POINTER);
    assert_eq!(other[1], POINTER);
    assert!(other[0] != signed && other[2] != code, "other keys: {other:#x?}");
}

/// All pages that KVM_GET_VCPU_MMAP_SIZE tells are there: the second is kept for coalesced MMIO.
fn the_area_of_a_vcpu_can_be_locked() {
    Tiny::new(&[FOREVER], 0).lock_area().expect("all pages of the area");
}

/// The kernel's KVM gives its device no mode, so that only root has it until udev's rules say who else.
fn udev_says_who_may_use_the_device() {
    let told = fs::read_to_string("/sys/class/misc/kvm/uevent").expect("the device");
    assert!(told.contains("DEVNAME=kvm"), "{told}");
    assert!(!told.contains("DEVMODE="), "{told}");
}
