//! How long things live: files passed, copied and closed in any order, processes killed at any moment.
//!
//! Whether nothing is left is asked by the harness after each test.

use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use verdigris_ktap::test_table;

use super::code::{
    CHECK_EXTENSION, CREATE_VCPU, CREATE_VM, DEVICE, GET_STATS_FD, PSCI_0_2, Tiny, device, errno,
    file, get, vm, x,
};
use crate::inside::leftovers::Leftovers;
use crate::inside::sys::{self, ioctl_number};

test_table! { "memory", 60:
    a_vcpu_outlives_the_file_of_its_vm, statistics_outlive_all_else, a_mapping_outlives_its_file,
    another_process_is_refused, many_vms_come_and_go, a_killed_process_leaves_nothing, every_index_has_a_vcpu,
}

/// `str x1, [x0]; b .`
const CODE: &[u32] = &[0xf900_0001, 0x1400_0000];

fn a_vcpu_outlives_the_file_of_its_vm() {
    let mut tiny = Tiny::new(CODE, PSCI_0_2);
    tiny.set(x(0), DEVICE);
    let copy = tiny.vcpu.try_clone().expect("a copy");
    tiny.vm = device().into();
    assert_eq!(tiny.run().expect("an exit"), 6);
    drop(copy);
    assert_eq!(tiny.get(x(0)), DEVICE);
}

fn statistics_outlive_all_else() {
    let tiny = Tiny::new(CODE, PSCI_0_2);
    tiny.set(x(0), DEVICE);
    tiny.run().expect("an exit");
    let open = |fd: i32| std::fs::File::from(file(fd, GET_STATS_FD, 0).expect("statistics"));
    let of_vm = open(tiny.vm.as_raw_fd());
    let of_vcpu = open(tiny.vcpu.as_raw_fd());
    drop(tiny);
    for mut stats in [of_vcpu, of_vm] {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stats, &mut bytes).expect("statistics can be read");
        let values = crate::stats::parse(&bytes).expect("statistics are well formed");
        // Linux's KVM counts nothing here for the VM.
        assert!(values.len() > 1, "{values:?}");
        assert!(values.get("exits").is_none_or(|&exits| exits > 0), "{values:?}");
    }
}

/// What a vCPU shares stays as it was, readable and writable, and the VM lives on, until nobody has it mapped.
fn a_mapping_outlives_its_file() {
    let before = Leftovers::read();
    let mut tiny = Tiny::new(CODE, PSCI_0_2);
    tiny.set(x(0), DEVICE);
    tiny.run().expect("an exit");
    let told = tiny.mmio();
    tiny.vm = device().into();
    tiny.vcpu = device().into();
    thread::sleep(Duration::from_millis(100));
    assert_eq!((tiny.mmio(), told.0), (told, DEVICE));
    tiny.answer([0x5a; 8]);
    assert_eq!(tiny.mmio().1, [0x5a; 8]);
    assert_ne!(Leftovers::read(), before, "the VM is gone, but not all of what it shares");
    drop(tiny);
    before.compare().expect("all is gone with the mapping");
}

/// KVM's calls are for the process whose memory the guest has.
fn another_process_is_refused() {
    let tiny = Tiny::new(CODE, PSCI_0_2);
    let (vm, vcpu) = (tiny.vm.as_raw_fd(), &tiny.vcpu);
    let child = sys::fork(|| {
        let refused = |result: std::io::Result<i64>| {
            result.is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
        };
        let vm_refused = refused(ioctl_number(vm, CHECK_EXTENSION, 3));
        let vcpu_refused = refused(get(vcpu, x(0)).map(|_| 0));
        i32::from(!(vm_refused && vcpu_refused))
    })
    .expect("a child");
    assert_eq!(sys::wait_for(child).expect("a status"), 0);
    // The child's end hasn't touched ours.
    tiny.set(x(0), DEVICE);
    assert_eq!(tiny.run().expect("an exit"), 6);
}

/// More than there are handles and VMIDs, so each is used again.
fn many_vms_come_and_go() {
    let kvm = device();
    for round in 0..600u64 {
        let vm = file(kvm.as_raw_fd(), CREATE_VM, 0).expect("a VM");
        let vcpu = (round % 3 == 0).then(|| file(vm.as_raw_fd(), CREATE_VCPU, round % 64));
        drop(vm);
        drop(vcpu.map(|vcpu| vcpu.expect("a vCPU")));
    }
    let many: Vec<_> = (0..100).map(|_| vm()).collect();
    assert_eq!(many.len(), 100);
}

fn a_killed_process_leaves_nothing() {
    for round in 0..12u64 {
        let child = sys::fork(|| {
            let tiny = Tiny::new(&CODE[1..], PSCI_0_2);
            match tiny.run() {
                Ok(_) | Err(_) => 1,
            }
        })
        .expect("a child");
        thread::sleep(Duration::from_millis(round * 7));
        sys::signal_process(child, libc::SIGKILL);
        let status = sys::wait_for(child).expect("a status");
        assert_eq!(status & 0x7f, libc::SIGKILL, "status {status:#x}");
    }
}

fn every_index_has_a_vcpu() {
    let tiny = Tiny::new(CODE, 0);
    let most = ioctl_number(tiny.vm.as_raw_fd(), CHECK_EXTENSION, 66).expect("a number") as u64;
    let vcpus: Vec<_> = (1..most)
        .map(|index| file(tiny.vm.as_raw_fd(), CREATE_VCPU, index).expect("a vCPU"))
        .collect();
    assert_eq!(errno(file(tiny.vm.as_raw_fd(), CREATE_VCPU, most)), libc::EINVAL);
    assert_eq!(vcpus.len() as u64, most - 1);
}
