//! What the interface says that it has.

use std::os::fd::AsRawFd;

use verdigris_ktap::test_table;

use super::code::{
    CHECK_EXTENSION, CREATE_VM, GET_API_VERSION, GET_VCPU_MMAP_SIZE, device, errno, file, plain, vm,
};
use super::is_verdigris;
use crate::inside::sys::ioctl_number;

test_table! { "memory", 30: the_device_answers, capabilities_are_true, address_spaces_have_sizes }

fn the_device_answers() {
    let kvm = device();
    let fd = kvm.as_raw_fd();
    assert_eq!(ioctl_number(fd, GET_API_VERSION, 0).expect("a version"), 12);
    assert_eq!(errno(ioctl_number(fd, GET_API_VERSION, 1)), libc::EINVAL);
    // struct kvm_run, and the page of coalesced MMIO.
    assert_eq!(ioctl_number(fd, GET_VCPU_MMAP_SIZE, 0).expect("a size"), 8192);
    assert_eq!(errno(ioctl_number(fd, GET_VCPU_MMAP_SIZE, 1)), libc::EINVAL);
    assert_eq!(errno(ioctl_number(fd, plain(0x77), 0)), libc::EINVAL);
}

/// The answers of Verdigris that are not 0, by the numbers of linux/kvm.h. Those with `None` depend on the CPU.
const ANSWERS: &[(u64, Option<i64>)] = &[
    (3, Some(1)),      // USER_MEMORY
    (9, Some(4)),      // NR_VCPUS: the CPUs of this host
    (10, Some(32767)), // NR_MEMSLOTS
    (14, Some(1)),     // MP_STATE
    (16, Some(1)),     // SYNC_MMU
    (21, Some(1)),     // DESTROY_MEMORY_REGION_WORKS
    (30, Some(1)),     // JOIN_MEMORY_REGIONS_WORKS
    (40, Some(1)),     // INTERNAL_ERROR_DATA
    (66, Some(64)),    // MAX_VCPUS
    (70, Some(1)),     // ONE_REG
    (81, Some(1)),     // READONLY_MEM
    (98, Some(1)),     // ENABLE_CAP_VM
    (102, Some(1)),    // ARM_PSCI_0_2
    (105, Some(1)),    // CHECK_EXTENSION_VM
    (128, Some(64)),   // MAX_VCPU_ID
    (136, Some(1)),    // IMMEDIATE_EXIT
    (165, None),       // ARM_VM_IPA_SIZE
    (168, Some(3)),    // MANUAL_DIRTY_LOG_PROTECT2
    (171, None),       // ARM_PTRAUTH_ADDRESS
    (172, None),       // ARM_PTRAUTH_GENERIC
    (177, Some(1)),    // ARM_NISV_TO_USER
    (203, Some(1)),    // BINARY_STATS_FD
    (215, Some(1)),    // SYSTEM_EVENT_DATA
    (231, Some(1)),    // USER_MEMORY2
    (232, Some(1)),    // MEMORY_FAULT_INFO
];
/// What Linux's KVM doesn't promise on this architecture, though it does it.
const OURS: u64 = 232;

fn capabilities_are_true() {
    let (kvm, vm) = (device(), vm());
    for number in (0..300).chain([1 << 31, u64::from(u32::MAX)]) {
        let ask = |fd: i32| ioctl_number(fd, CHECK_EXTENSION, number).unwrap_or(-1);
        let answer = ask(kvm.as_raw_fd());
        if !is_verdigris() {
            let is_ours = ANSWERS.iter().any(|&(ours, value)| ours == number && value.is_some());
            assert!(!is_ours || number == OURS || answer > 0, "capability {number}: {answer}");
            continue;
        }
        assert_eq!(ask(vm.as_raw_fd()), answer, "capability {number}, of the VM");
        match ANSWERS.iter().find(|row| row.0 == number) {
            Some((_, Some(value))) => assert_eq!(answer, *value, "capability {number}"),
            Some((165, None)) => assert!((40..=48).contains(&answer), "{answer} bits"),
            Some((_, None)) => assert!((0..=1).contains(&answer), "capability {number}: {answer}"),
            None => assert_eq!(answer, 0, "capability {number}"),
        }
    }
}

fn address_spaces_have_sizes() {
    let kvm = device();
    let create = |kind: u64| file(kvm.as_raw_fd(), CREATE_VM, kind);
    let most = ioctl_number(kvm.as_raw_fd(), CHECK_EXTENSION, 165).expect("bits") as u64;
    for bits in [0, 32, 36, 40, most] {
        create(bits).unwrap_or_else(|error| panic!("{bits} bits: {error}"));
    }
    for kind in [1, 31, most + 1, 0xff, 0x100, 0x128, 1 << 63] {
        assert_eq!(errno(create(kind)), libc::EINVAL, "type {kind:#x}");
    }
}
