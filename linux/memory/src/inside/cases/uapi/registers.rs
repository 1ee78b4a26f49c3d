//! Registers by their numbers.

use std::os::fd::AsRawFd;

use verdigris_ktap::test_table;

use super::code::{
    CORE, CREATE_VCPU, GENERIC, PC, PSCI_0_2, Tiny, errno, file, get, init, list, set, x,
};
use crate::inside::counters::is_verdigris;

test_table! { "memory", 30:
    the_list_is_complete, registers_keep_what_is_written, numbers_are_checked, a_reset_forgets, the_count_goes_on,
    affinities_differ,
}

const SIZE_U32: u64 = 2 << 52;
const SIZE_U64: u64 = 3 << 52;
const SIZE_U128: u64 = 4 << 52;
const SIZE_MASK: u64 = 0xf << 52;
const ARM64: u64 = 0x6000_0000_0000_0000;
/// Words of struct kvm_regs (asm/kvm.h): the vectors, FPSR and FPCR.
const V0: u64 = ARM64 | SIZE_U128 | 0x10_0000 | 84;
const FPSR: u64 = ARM64 | SIZE_U32 | 0x10_0000 | 212;
const FPCR: u64 = FPSR + 1;
/// KVM_REG_ARM_TIMER_CNT and _CVAL, which aren't the architecture's numbers.
const COUNT: u64 = sys(3, 3, 14, 3, 2);
const COMPARE: u64 = sys(3, 3, 14, 0, 2);
const MPIDR: u64 = sys(3, 0, 0, 0, 5);
const PSCI_VERSION: u64 = 0x6030_0000_0014_0000;

/// Returns the number of a system register.
pub const fn sys(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    ARM64 | SIZE_U64 | 0x13_0000 | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// All registers of a vCPU, which have to be asked for twice.
fn all(tiny: &Tiny) -> Vec<u64> {
    let (result, words) = list(&tiny.vcpu, 0);
    assert_eq!(errno(result), libc::E2BIG);
    let count = words[0] as usize;
    assert!((100..1000).contains(&count), "{count} registers");
    let (result, words) = list(&tiny.vcpu, count - 1);
    assert_eq!((errno(result), words[0] as usize), (libc::E2BIG, count));
    let (result, words) = list(&tiny.vcpu, count + 3);
    result.expect("room for all");
    assert_eq!(words[0] as usize, count);
    assert_eq!(words[count + 1..], [0; 3], "places past the last");
    words[1..=count].to_vec()
}

/// Each once; each can be read; and written back as it was read.
fn the_list_is_complete() {
    let tiny = Tiny::new(&[], PSCI_0_2);
    let mut ids = all(&tiny);
    for &id in &ids {
        let value = get(&tiny.vcpu, id).unwrap_or_else(|error| panic!("{id:#x}: {error}"));
        set(&tiny.vcpu, id, value).unwrap_or_else(|error| panic!("{id:#x} = {value:#x}: {error}"));
    }
    let wanted = (0..31).map(x).chain([x(31), PC, PC + 2, PC + 4, PC + 6, PC + 8]);
    for id in wanted.chain((0..32).map(|n| V0 + 4 * n)).chain([FPSR, FPCR, COUNT, COMPARE, MPIDR]) {
        assert!(ids.contains(&id), "{id:#x} isn't listed");
    }
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count, "some are listed twice");
}

/// Different values in all of them at once: no two are the same register.
fn registers_keep_what_is_written() {
    let tiny = Tiny::new(&[], 0);
    let value = |n: u64| 0x0123_4567_89ab_cdef_u64.rotate_left(n as u32) ^ n << 56;
    let wide = |n: u64| u128::from(value(n)) << 64 | u128::from(value(n + 40));
    let doubles = (0..31).map(x).chain([x(31), PC, PC + 4, PC + 6, COMPARE]);
    let doubles: Vec<u64> = doubles.chain([sys(3, 0, 2, 0, 0), sys(3, 3, 13, 0, 2)]).collect();
    for (n, &id) in doubles.iter().enumerate() {
        set(&tiny.vcpu, id, value(n as u64).into()).expect("a register");
    }
    for n in 0..32 {
        set(&tiny.vcpu, V0 + 4 * n, wide(n)).expect("a register");
    }
    set(&tiny.vcpu, FPSR, 0x0800_001f).expect("a register");
    set(&tiny.vcpu, FPCR, 0x0340_0000).expect("a register");
    for (n, &id) in doubles.iter().enumerate() {
        assert_eq!(get(&tiny.vcpu, id).expect("a register"), value(n as u64).into(), "{id:#x}");
    }
    for n in 0..32 {
        assert_eq!(get(&tiny.vcpu, V0 + 4 * n).expect("a register"), wide(n), "V{n}");
    }
    assert_eq!(get(&tiny.vcpu, FPSR).expect("a register"), 0x0800_001f);
    assert_eq!(get(&tiny.vcpu, FPCR).expect("a register"), 0x0340_0000);
}

fn numbers_are_checked() {
    let tiny = Tiny::new(&[], PSCI_0_2);
    let no = |id: u64| {
        let (read, written) = (errno(get(&tiny.vcpu, id)), errno(set(&tiny.vcpu, id, 0)));
        assert_eq!(read, written, "{id:#x}");
        read
    };
    let sized = |id: u64, size: u64| id & !SIZE_MASK | size;
    // Another architecture's, or none's.
    assert_eq!(no(0x2030_0000_0010_0000), libc::EINVAL);
    assert_eq!(no(0x6030_0001_0010_0000), libc::EINVAL);
    // Core registers: of another size, from the middle of one, past the last.
    assert_eq!(no(sized(CORE, SIZE_U32)), libc::EINVAL);
    assert_eq!(no(sized(V0, SIZE_U64)), libc::EINVAL);
    assert_eq!(no(sized(FPSR, SIZE_U64)), libc::EINVAL);
    assert_eq!(no(CORE + 1), libc::EINVAL);
    assert_eq!(no(V0 + 2), libc::EINVAL);
    assert_eq!(no(CORE + 400), libc::ENOENT);
    // System registers: none such, of another size, of no class.
    assert_eq!(no(sys(3, 7, 15, 15, 7)), libc::ENOENT);
    assert_eq!(no(sized(MPIDR, SIZE_U32)), libc::ENOENT);
    assert_eq!(no(0x6030_0000_0099_0000), libc::ENOENT);
    // A program state that no guest has: EL2.
    assert_eq!(errno(set(&tiny.vcpu, PC + 2, 0x3c9)), libc::EINVAL);
    // What the machine is can't be changed.
    let part = get(&tiny.vcpu, sys(3, 0, 0, 0, 0)).expect("MIDR_EL1");
    assert_eq!(errno(set(&tiny.vcpu, sys(3, 0, 0, 0, 0), part ^ 1)), libc::EINVAL);
    let version = get(&tiny.vcpu, PSCI_VERSION).expect("a version");
    assert_eq!(errno(set(&tiny.vcpu, PSCI_VERSION, version | 7 << 16)), libc::EINVAL);
}

fn a_reset_forgets() {
    let tiny = Tiny::new(&[], PSCI_0_2);
    // KVM leaves the virtual counter where it is: it is the VM's.
    let before: Vec<u128> =
        all(&tiny).iter().map(|&id| get(&tiny.vcpu, id).expect("one")).collect();
    tiny.set(x(7), 7);
    set(&tiny.vcpu, V0, 7).expect("V0");
    set(&tiny.vcpu, sys(3, 0, 2, 0, 0), 0x7000).expect("TTBR0_EL1");
    init(&tiny.vcpu, GENERIC, [PSCI_0_2, 0, 0, 0, 0, 0, 0]).expect("the same again");
    for (&id, &old) in all(&tiny).iter().zip(&before) {
        let counts = [COUNT, sys(3, 3, 14, 0, 1)].contains(&id);
        // The PC was set by Tiny; Linux gives some registers no value at reset.
        if counts || id == PC || !is_verdigris() && id >> 16 & 0xff == 0x13 {
            continue;
        }
        assert_eq!(get(&tiny.vcpu, id).expect("one"), old, "{id:#x}");
    }
    assert_eq!(tiny.get(PC), 0);
    assert_eq!(tiny.get(x(7)), 0);
}

/// It begins near 0, and is one for all vCPUs of a VM. The guest reads the same.
fn the_count_goes_on() {
    // mrs x1, cntvct_el0; str x1, [x0]
    let tiny = Tiny::new(&[0xd53b_e041, 0xf900_0001], PSCI_0_2);
    tiny.set(x(0), super::code::DEVICE);
    let first = get(&tiny.vcpu, COUNT).expect("a count");
    assert!(first < 1 << 36, "{first}");
    set(&tiny.vcpu, COUNT, 1 << 50).expect("a count");
    assert_eq!(tiny.run().expect("an exit"), 6);
    let read = u64::from_le_bytes(tiny.mmio().1);
    let now = get(&tiny.vcpu, COUNT).expect("a count") as u64;
    assert!(1 << 50 <= read && read <= now && now < (1 << 50) + (1 << 40), "{read} {now}");
    let other = file(tiny.vm.as_raw_fd(), CREATE_VCPU, 1).expect("a vCPU");
    init(&other, GENERIC, [PSCI_0_2, 0, 0, 0, 0, 0, 0]).expect("the same");
    if is_verdigris() {
        assert!(get(&other, COUNT).expect("a count") as u64 >= now);
    }
}

fn affinities_differ() {
    let tiny = Tiny::new(&[], PSCI_0_2);
    for (index, affinity) in [(1, 0x1), (15, 0xf), (16, 0x100), (35, 0x203)] {
        let vcpu = file(tiny.vm.as_raw_fd(), CREATE_VCPU, index).expect("a vCPU");
        init(&vcpu, GENERIC, [PSCI_0_2, 0, 0, 0, 0, 0, 0]).expect("the same");
        assert_eq!(get(&vcpu, MPIDR).expect("MPIDR_EL1") as u64, 1 << 31 | affinity);
    }
}
