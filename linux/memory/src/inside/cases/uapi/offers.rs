//! What the interface says that it has.

use std::os::fd::AsRawFd;

use verdigris_ktap::test_table;

use super::code::{
    CHECK_EXTENSION, CREATE_VM, GET_API_VERSION, GET_VCPU_MMAP_SIZE, device, errno, file, plain, vm,
};
use crate::inside::cases::all;
use crate::inside::counters::is_verdigris;
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

/// The answers of Verdigris that are not 0, by the numbers of linux/kvm.h, each with a test that fails if the answer isn't
/// true. Those with `None` depend on the CPU.
const ANSWERS: &[(u64, Option<i64>, &str)] = &[
    (3, Some(1), "slots_come_and_go"),               // USER_MEMORY
    (9, None, "capabilities_are_true"),              // NR_VCPUS: the CPUs of this host
    (10, Some(32767), "many_slots"),                 // NR_MEMSLOTS
    (14, Some(1), "states_are_set"),                 // MP_STATE
    (16, Some(1), "unmap_under_the_guest"),          // SYNC_MMU
    (21, Some(1), "slots_come_and_go"),              // DESTROY_MEMORY_REGION_WORKS
    (30, Some(1), "memory_joins"),                   // JOIN_MEMORY_REGIONS_WORKS
    (40, Some(1), "an_exit_that_nobody_explains"),   // INTERNAL_ERROR_DATA
    (66, Some(64), "every_index_has_a_vcpu"),        // MAX_VCPUS
    (70, Some(1), "registers_keep_what_is_written"), // ONE_REG
    (81, Some(1), "readonly_slots_trap_writes"),     // READONLY_MEM
    (98, Some(1), "capabilities_are_enabled"),       // ENABLE_CAP_VM
    (102, Some(1), "the_guest_shuts_down"),          // ARM_PSCI_0_2
    (105, Some(1), "capabilities_are_true"),         // CHECK_EXTENSION_VM
    (128, Some(64), "every_index_has_a_vcpu"),       // MAX_VCPU_ID
    (136, Some(1), "an_access_is_complete_when_the_guest_does_not_go_on"), // IMMEDIATE_EXIT
    (165, None, "address_spaces_have_sizes"),        // ARM_VM_IPA_SIZE
    (168, Some(3), "copy_by_log_that_begins_full"),  // MANUAL_DIRTY_LOG_PROTECT2
    (171, None, "pointers_are_signed"),              // ARM_PTRAUTH_ADDRESS
    (172, None, "pointers_are_signed"),              // ARM_PTRAUTH_GENERIC
    (177, Some(1), "an_access_that_cannot_be_decoded"), // ARM_NISV_TO_USER
    (203, Some(1), "statistics_by_name"),            // BINARY_STATS_FD
    (215, Some(1), "the_guest_shuts_down"),          // SYSTEM_EVENT_DATA
    (231, Some(1), "memory_comes_by_the_second_call"), // USER_MEMORY2
    (232, Some(1), "a_fault_without_memory_tells_where"), // MEMORY_FAULT_INFO
];
/// What Linux's KVM doesn't promise on this architecture, though it does it.
const OURS: u64 = 232;

/// Returns how many CPUs are on line.
fn cpus() -> i64 {
    let text = std::fs::read_to_string("/proc/cpuinfo").expect("CPUs");
    text.lines().filter(|line| line.starts_with("processor")).count() as i64
}

/// All numbers that there are, and some more; and the tests that the table promises do exist.
fn capabilities_are_true() {
    for (number, _, name) in ANSWERS {
        assert!(all().any(|test| test.name == *name), "capability {number} has no test {name}");
    }
    let (kvm, vm) = (device(), vm());
    for number in (0..300).chain([1 << 31, u64::from(u32::MAX)]) {
        let ask = |fd: i32| ioctl_number(fd, CHECK_EXTENSION, number).unwrap_or(-1);
        let answer = ask(kvm.as_raw_fd());
        if !is_verdigris() {
            let is_ours = ANSWERS.iter().any(|&(ours, value, _)| ours == number && value.is_some());
            assert!(!is_ours || number == OURS || answer > 0, "capability {number}: {answer}");
            continue;
        }
        assert_eq!(ask(vm.as_raw_fd()), answer, "capability {number}, of the VM");
        match ANSWERS.iter().find(|row| row.0 == number) {
            Some((_, Some(value), _)) => assert_eq!(answer, *value, "capability {number}"),
            Some((9, ..)) => assert_eq!(answer, cpus(), "CPUs"),
            Some((165, ..)) => assert!((40..=48).contains(&answer), "{answer} bits"),
            Some(_) => assert!((0..=1).contains(&answer), "capability {number}: {answer}"),
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
