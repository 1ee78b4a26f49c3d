//! What the interface refuses, each with its error.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use kvm_bindings::{KVMIO, kvm_enable_cap, kvm_mp_state};
use verdigris_ktap::test_table;

use super::code::{
    CORE, CREATE_VCPU, GENERIC, POWER_OFF, PSCI_0_2, RUN, Tiny, errno, file, get, init, list,
    plain, set, vm,
};
use crate::inside::counters::is_verdigris;
use crate::inside::sys::{self, READ, WRITE, ioctl_number, request};

test_table! { "memory", 30:
    a_vm_refuses_mistakes, capabilities_are_enabled, a_vcpu_refuses_mistakes, a_vcpu_is_initialised_first,
    features_agree, states_are_set,
}

fn a_vm_refuses_mistakes() {
    let vm = vm();
    let fd = vm.as_raw_fd();
    assert_eq!(errno(ioctl_number(fd, plain(0x77), 0)), libc::EINVAL);
    let most = ioctl_number(fd, super::code::CHECK_EXTENSION, 66).expect("a number") as u64;
    assert_eq!(errno(file(fd, CREATE_VCPU, most)), libc::EINVAL);
    assert_eq!(errno(file(fd, CREATE_VCPU, u64::MAX)), libc::EINVAL);
    let _vcpu = file(fd, CREATE_VCPU, 5).expect("a vCPU");
    assert_eq!(errno(file(fd, CREATE_VCPU, 5)), libc::EEXIST);
    // KVM_CREATE_DEVICE of a type that nobody has.
    let mut device = [99u32, 0, 0];
    let call = request::<[u32; 3]>(READ | WRITE, KVMIO.into(), 0xe0);
    // SAFETY: numbers only.
    assert_eq!(errno(unsafe { sys::ioctl(fd, call, &mut device) }), libc::ENODEV);
    // An address that is nobody's.
    for number in [0x46, 0xa3] {
        let call = 1 << 30 | 0x20 << 16 | plain(number);
        let result = ioctl_number(fd, if number == 0x46 { call } else { 0x4068_aea3 }, 8);
        assert_eq!(errno(result), libc::EFAULT, "call {number:#x}");
    }
}

fn enable(vm: &OwnedFd, cap: u32, flags: u32, argument: u64) -> std::io::Result<()> {
    let mut wanted = kvm_enable_cap { cap, flags, ..Default::default() };
    wanted.args[0] = argument;
    let call = request::<kvm_enable_cap>(WRITE, KVMIO.into(), 0xa3);
    // SAFETY: numbers only.
    unsafe { sys::ioctl(vm.as_raw_fd(), call, &mut wanted) }.map(|_| ())
}

fn capabilities_are_enabled() {
    const MANUAL_DIRTY: u32 = 168;
    const NISV: u32 = 177;
    let vm = vm();
    for argument in [0, 1, 3] {
        enable(&vm, MANUAL_DIRTY, 0, argument).expect("a good argument");
    }
    enable(&vm, NISV, 0, 0).expect("a good argument");
    for (cap, flags, argument) in
        [(MANUAL_DIRTY, 0, 2), (MANUAL_DIRTY, 0, 4), (MANUAL_DIRTY, 1, 1), (NISV, 1, 0), (3, 0, 0)]
    {
        let what = format!("{cap} with {flags} and {argument}");
        assert_eq!(errno(enable(&vm, cap, flags, argument)), libc::EINVAL, "{what}");
    }
}

fn a_vcpu_refuses_mistakes() {
    let tiny = Tiny::new(&[], 0);
    let fd = tiny.vcpu.as_raw_fd();
    assert_eq!(errno(ioctl_number(fd, RUN, 1)), libc::EINVAL);
    assert_eq!(errno(ioctl_number(fd, plain(0x77), 0)), libc::EINVAL);
    // Another magic.
    assert_eq!(errno(ioctl_number(fd, 0x5401, 0)), libc::EINVAL);
    // KVM_GET_FPU and KVM_GET_REGS, which this architecture doesn't have.
    assert_eq!(errno(ioctl_number(fd, 0x8000_ae8c, 0)), libc::EINVAL);
    // A signal set of another size.
    let mut mask = [4u32, 0, 0];
    let call = request::<u32>(WRITE, KVMIO.into(), 0x8b);
    // SAFETY: the set is as long as it says.
    assert_eq!(errno(unsafe { sys::ioctl(fd, call, &mut mask) }), libc::EINVAL);
}

fn a_vcpu_is_initialised_first() {
    let tiny = Tiny::without_init(&[]);
    let vcpu = &tiny.vcpu;
    assert_eq!(errno(tiny.run()), libc::ENOEXEC);
    assert_eq!(errno(get(vcpu, CORE)), libc::ENOEXEC);
    assert_eq!(errno(set(vcpu, CORE, 0)), libc::ENOEXEC);
    assert_eq!(errno(list(vcpu, 1).0), libc::ENOEXEC);
    let no = |target, features| errno(init(vcpu, target, features));
    assert_eq!(no(77, [0; 7]), libc::EINVAL);
    assert_eq!(no(GENERIC, [1 << 31, 0, 0, 0, 0, 0, 0]), libc::ENOENT);
    assert_eq!(no(GENERIC, [0, 0, 0, 0, 0, 0, 1]), libc::ENOENT);
    // One of the two halves of pointer authentication.
    assert_eq!(no(GENERIC, [1 << 5, 0, 0, 0, 0, 0, 0]), libc::EINVAL);
    assert_eq!(errno(tiny.run()), libc::ENOEXEC);
    init(vcpu, GENERIC, [0; 7]).expect("a good one");
    get(vcpu, CORE).expect("x0");
}

fn features_agree() {
    let tiny = Tiny::new(&[], PSCI_0_2);
    let other = file(tiny.vm.as_raw_fd(), CREATE_VCPU, 1).expect("a vCPU");
    assert_eq!(errno(init(&other, GENERIC, [0; 7])), libc::EINVAL);
    init(&other, GENERIC, [PSCI_0_2, 0, 0, 0, 0, 0, 0]).expect("the same");
    assert_eq!(errno(init(&tiny.vcpu, GENERIC, [0; 7])), libc::EINVAL);
    // To begin switched off is no such feature.
    init(&other, GENERIC, [PSCI_0_2 | POWER_OFF, 0, 0, 0, 0, 0, 0]).expect("the same");
}

fn mp_state(vcpu: RawFd) -> u32 {
    let mut state = kvm_mp_state::default();
    let call = request::<kvm_mp_state>(READ, KVMIO.into(), 0x98);
    // SAFETY: numbers only.
    unsafe { sys::ioctl(vcpu, call, &mut state) }.expect("a state");
    state.mp_state
}

/// Sets the state of a vCPU (KVM_MP_STATE_*).
pub fn set_mp_state(vcpu: RawFd, mp_state: u32) -> std::io::Result<()> {
    let call = request::<kvm_mp_state>(WRITE, KVMIO.into(), 0x99);
    // SAFETY: numbers only.
    unsafe { sys::ioctl(vcpu, call, &mut kvm_mp_state { mp_state }) }.map(|_| ())
}

fn states_are_set() {
    const RUNNABLE: u32 = 0;
    const STOPPED: u32 = 5;
    let tiny = Tiny::new(&[], PSCI_0_2);
    let fd = tiny.vcpu.as_raw_fd();
    assert_eq!(mp_state(fd), RUNNABLE);
    set_mp_state(fd, STOPPED).expect("a state");
    assert_eq!(mp_state(fd), STOPPED);
    assert_eq!(errno(set_mp_state(fd, 3)), libc::EINVAL);
    set_mp_state(fd, RUNNABLE).expect("a state");
    init(&tiny.vcpu, GENERIC, [PSCI_0_2 | POWER_OFF, 0, 0, 0, 0, 0, 0]).expect("the same");
    assert_eq!(mp_state(fd), STOPPED);
    init(&tiny.vcpu, GENERIC, [PSCI_0_2, 0, 0, 0, 0, 0, 0]).expect("the same");
    assert_eq!(mp_state(fd), RUNNABLE);
    assert!(is_verdigris() || set_mp_state(fd, 10).is_ok(), "Linux has SUSPENDED");
}
