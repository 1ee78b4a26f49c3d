//! Registers of vCPUs: the host can read and write them, and every vCPU has its own.

use verdigris_abi::{call, reg};
use verdigris_guest::{event, program, scramble};

use crate::firmware::Features;
use crate::guest::Guest;
use crate::hwcaps::longest_vector;
use crate::ktap::{skip, test_table};
use crate::raw::{Registers, raw};
use crate::sys;
use crate::vcpu::{Exit, Vcpu};

test_table! { "suite", 30:
    arguments_and_results, general_registers_survive, host_reads_and_writes, fp_by_the_host,
    vcpus_have_their_own, vms_have_their_own, vcpu_moves_between_cpus, counter_has_its_offset,
    host_keeps_its_registers, host_keeps_its_vectors, host_has_memory_instructions,
}

/// PR_SVE_SET_VL.
const SVE: i32 = 50;

fn arguments_and_results() {
    let guest = Guest::new(1);
    let sent = [11, 22, 33, 44, 55, 66, u64::MAX];
    assert_eq!(guest.cpu(0).call(program::ECHO, &sent), sent);
}

fn general_registers_survive() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let exit = vcpu.call_to_exit(program::GENERAL, &[5]);
    assert!(matches!(exit, Exit::Hypercall(_, event::REPORT, false)), "{exit:x?}");
    for number in 8..=28 {
        let expected = scramble(5).wrapping_add(number);
        assert_eq!(vcpu.get(reg::REG_CORE + number), Ok(expected), "x{number}");
    }
    vcpu.set(reg::REG_CORE + 20, 1).expect("a stopped vCPU");
    let wrong = vcpu.run().done().expect("the end of the program")[0];
    assert_eq!(wrong, 1 << 20, "all but the one that the host changed");
}

/// TPIDR_EL0, TPIDR_EL1, FAR_EL1, MAIR_EL1, CNTV_CVAL_EL0 by their encodings (Arm ARM, D24).
const SYSTEM: [u64; 5] = [
    reg::sysreg(3, 3, 13, 0, 2),
    reg::sysreg(3, 0, 13, 0, 4),
    reg::sysreg(3, 0, 6, 0, 0),
    reg::sysreg(3, 0, 10, 2, 0),
    reg::sysreg(3, 3, 14, 3, 2),
];

fn host_reads_and_writes() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let core = (0..31).chain([reg::REG_SP_EL0, reg::REG_SP_EL1, reg::REG_ELR_EL1]);
    let registers: Vec<u64> = core.chain(SYSTEM).collect();
    for (index, &register) in registers.iter().enumerate() {
        vcpu.set(register, scramble(index as u64)).unwrap_or_else(|e| panic!("{register:#x}: {e}"));
    }
    for (index, &register) in registers.iter().enumerate() {
        assert_eq!(vcpu.get(register), Ok(scramble(index as u64)), "register {register:#x}");
    }
    assert_eq!(vcpu.get(reg::REG_PC), Ok(crate::guest::IMAGE));
    // EL1h with D, A, I and F masked: how a vCPU starts.
    assert_eq!(vcpu.get(reg::REG_PSTATE), Ok(0x3c5));
}

fn fp_by_the_host() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    vcpu.call(program::FP_FILL, &[3]);
    for number in 0..32 {
        let low = scramble(3).wrapping_add(number);
        let high = scramble(!3).wrapping_add(number);
        let halves = [0, 1].map(|half| vcpu.get(reg::REG_FP + 2 * number + half));
        assert_eq!(halves, [Ok(low), Ok(high)], "V{number}");
    }
    vcpu.set(reg::REG_FP + 2 * 9, 0).expect("a stopped vCPU");
    assert_eq!(vcpu.call(program::FP_CHECK, &[3])[0], 1 << 9);
}

fn fill(vcpu: Vcpu, seed: u64) {
    vcpu.call(program::REGISTERS_FILL, &[seed]);
    vcpu.call(program::FP_FILL, &[seed]);
}

#[track_caller]
fn check(vcpu: Vcpu, seed: u64) {
    let system = vcpu.call(program::REGISTERS_CHECK, &[seed])[0];
    assert_eq!(system, 0, "system registers, vCPU {}: {system:#x}", vcpu.index());
    let vectors = vcpu.call(program::FP_CHECK, &[seed])[0];
    assert_eq!(vectors, 0, "vector registers, vCPU {}: {vectors:#x}", vcpu.index());
}

fn vcpus_have_their_own() {
    let guest = Guest::new(4);
    sys::run_on(0).expect("the first CPU");
    for round in 0..10 {
        let seed = |vcpu: Vcpu| round << 8 | vcpu.index();
        guest.cpus().iter().for_each(|&vcpu| fill(vcpu, seed(vcpu)));
        guest.cpus().iter().for_each(|&vcpu| check(vcpu, seed(vcpu)));
        guest.cpus().iter().rev().for_each(|&vcpu| check(vcpu, seed(vcpu)));
    }
    // The check can fail.
    assert_ne!(guest.cpu(0).call(program::REGISTERS_CHECK, &[77])[0], 0);
}

fn vms_have_their_own() {
    let guests: Vec<Guest> = (0..5).map(|_| Guest::new(1)).collect();
    sys::run_on(0).expect("the first CPU");
    for round in 0..5 {
        let all = || guests.iter().enumerate().map(|(index, guest)| (guest.cpu(0), index as u64));
        all().for_each(|(vcpu, index)| fill(vcpu, round << 8 | index));
        all().for_each(|(vcpu, index)| check(vcpu, round << 8 | index));
    }
}

fn vcpu_moves_between_cpus() {
    let guest = Guest::new(2);
    let cpus = sys::cpus();
    fill(guest.cpu(0), 1);
    fill(guest.cpu(1), 2);
    for &cpu in cpus.iter().cycle().take(4 * cpus.len()) {
        sys::run_on(cpu).expect("a CPU that is there");
        check(guest.cpu(0), 1);
        check(guest.cpu(1), 2);
    }
}

fn counter_has_its_offset() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let [first, frequency, control, ..] = vcpu.call(program::COUNTERS, &[]);
    assert_eq!((frequency, control & 1), (Features::read().counter_hz, 0));
    let [second, ..] = vcpu.call(program::COUNTERS, &[]);
    assert!(second > first, "the counter stands still");
    vcpu.set(reg::REG_CNTVOFF, vcpu.get(reg::REG_CNTVOFF).expect("it has one") + (1 << 40))
        .expect("a stopped vCPU");
    let [third, ..] = vcpu.call(program::COUNTERS, &[]);
    let back = second.wrapping_sub(third);
    assert!((1 << 39..=1 << 40).contains(&back), "{second:#x} then {third:#x}");
}

/// Makes guests change all they can, on every CPU, and looks at the host's registers.
fn host_keeps_its_registers() {
    let guest = Guest::new(2);
    let vector = longest_vector(SVE);
    for cpu in sys::cpus() {
        sys::run_on(cpu).expect("a CPU that is there");
        let before = raw().snapshot();
        guest.cpus().iter().for_each(|&vcpu| fill(vcpu, cpu as u64));
        guest.cpus().iter().for_each(|&vcpu| check(vcpu, cpu as u64));
        assert_eq!(raw().snapshot(), before, "CPU {cpu}");
        assert_eq!(longest_vector(SVE), vector, "CPU {cpu}");
    }
    assert!(raw().snapshot().1.len() > 30, "the snapshot is empty");
}

fn host_keeps_its_vectors() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let mut before: sys::VectorRegisters = std::array::from_fn(|index| scramble(index as u64));
    // FPCR: flush to zero and rounding; FPSR: cumulative flags (Arm ARM, C5.2.8 and C5.2.10).
    before[..2].copy_from_slice(&[1 << 24 | 3 << 22, 0x1f]);
    for seed in 0..4 {
        vcpu.prepare(program::FP_FILL, &[seed]);
        loop {
            let mut registers = Registers([0; 18]);
            registers.0[..4].copy_from_slice(&[call::VCPU_RUN.into(), guest.handle(), 0, 0]);
            let after = raw().exchange_with_vectors(&mut registers, &before);
            assert!(before == after, "the guest's vectors are in the host's registers");
            assert_eq!(registers.status(), Ok(()));
            if registers.0[1] != verdigris_abi::ExitReason::Interrupt as u64 {
                break;
            }
        }
        assert_eq!(vcpu.call(program::FP_CHECK, &[seed])[0], 0);
    }
}

/// FEAT_MOPS is lost without a sound where EL2 doesn't pass it on (HCRX_EL2.MSCEn).
fn host_has_memory_instructions() {
    const HWCAP2: u64 = 26;
    const MOPS: u64 = 1 << 43;
    if sys::auxiliary(HWCAP2) & MOPS == 0 {
        skip("the CPU has no FEAT_MOPS");
    }
    let mut bytes = vec![0; 10_000];
    sys::set_by_instruction(&mut bytes[1..9_999], 0x5a);
    assert!(bytes[1..9_999].iter().all(|&byte| byte == 0x5a));
    assert_eq!((bytes[0], bytes[9_999]), (0, 0));
}
