//! What registers a vCPU has, by the firmware's own list; and how it begins anew.

use verdigris_abi::{Error, REGS_PER_CALL, call, flags, reg};
use verdigris_guest::{program, scramble};

use super::support::{needs_two_cpus, spread};
use crate::guest::{DATA, Guest, IMAGE, NOWHERE};
use crate::ktap::test_table;
use crate::raw::raw;
use crate::vcpu::Vcpu;
use crate::vm::{RW, Vm};

test_table! { "suite", 30:
    list_is_what_can_be_read, list_comes_in_parts, list_can_be_written_back,
    reset_makes_a_vcpu_new, reset_forgets_a_fault, reset_of_a_running_vcpu,
}

/// Every identifier of a class, and some behind each: core, system, FP, the counter's offset.
fn identifiers() -> impl Iterator<Item = u64> {
    (0..64).chain(0xfff0..0x2_0080).chain(0x2_fff0..0x3_0010).chain([0x4_0000, 1 << 32, u64::MAX])
}

fn list_is_what_can_be_read() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let listed = vcpu.registers();
    let readable: Vec<u64> = identifiers().filter(|&id| vcpu.get(id).is_ok()).collect();
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, readable, "sorted, and each once");
    // x0 to x30, SP_EL0, PC, PSTATE, SP_EL1, ELR_EL1, SPSR_EL1; V0 to V31 by halves, FPSR, FPCR.
    assert_eq!(readable.iter().filter(|&&id| id >> 16 == 0).count(), 37);
    assert_eq!(readable.iter().filter(|&&id| id >> 16 == 2).count(), 66);
    // CTR_EL0, whose bit 31 is RES1 (Arm ARM, D24.2); ACTLR_EL1, of which a guest has none.
    let [ctr, actlr] = [reg::sysreg(3, 3, 0, 0, 1), reg::sysreg(3, 0, 1, 0, 1)];
    assert_eq!(vcpu.get(ctr).map(|value| value >> 31 & 1), Ok(1));
    assert_eq!(vcpu.get(actlr), Ok(0));
    for constant in [ctr, actlr] {
        let value = vcpu.get(constant).expect("it is listed");
        assert_eq!(vcpu.set(constant, value ^ 1), Err(Error::Invalid));
    }
    let other = Vm::new();
    for vcpu in [guest.vcpu(63), other.vcpu(0)] {
        let vcpu = vcpu.expect("a vCPU can be created");
        assert_eq!(vcpu.registers(), listed, "the same order");
    }
}

fn list_comes_in_parts() {
    let guest = Guest::new(1);
    let all = guest.cpu(0).registers();
    let count = all.len() as u64;
    let part = |first| raw().call(call::VCPU_REG_LIST, &[guest.handle(), 0, first]);
    for first in [0, 1, 15, 16, 17, count - 17, count - 16, count - 15, count - 1] {
        let reply = part(first);
        assert_eq!((reply.status(), reply.0[1]), (Ok(()), count), "from {first}");
        for place in 0..REGS_PER_CALL {
            let expected = all.get((first + place) as usize).copied().unwrap_or(u64::MAX);
            assert_eq!(reply.0[2 + place as usize], expected, "number {place} from {first}");
        }
    }
    for first in [count, count + 1, 1 << 32, u64::MAX] {
        assert_eq!(part(first).status(), Err(Error::Invalid), "from {first}");
    }
}

fn list_can_be_written_back() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    vcpu.call(program::REGISTERS_FILL, &[5]);
    let before = values(vcpu);
    for &(id, value) in &before {
        vcpu.set(id, value).unwrap_or_else(|error| panic!("{id:#x} = {value:#x}: {error}"));
    }
    assert_eq!(values(vcpu), before);
    assert_eq!(vcpu.call(program::REGISTERS_CHECK, &[5])[0], 0);
}

fn values(vcpu: Vcpu) -> Vec<(u64, u64)> {
    let value = |id| vcpu.get(id).unwrap_or_else(|error| panic!("{id:#x}: {error}"));
    vcpu.registers().into_iter().map(|id| (id, value(id))).collect()
}

/// Makes a vCPU begin the payload.
fn point(vcpu: Vcpu, stack: u64) {
    vcpu.set(reg::REG_PC, IMAGE).expect("the PC can be set");
    vcpu.set(reg::REG_SP_EL1, stack).expect("the stack pointer can be set");
}

fn reset_makes_a_vcpu_new() {
    let guest = Guest::new(1);
    let vcpu = guest.vcpu(17).expect("a vCPU can be created");
    let fresh = values(vcpu);
    // Affinity: sixteen to a cluster (docs/abi.md). EL1h with all interrupts masked, at address 0.
    assert_eq!(vcpu.get(reg::sysreg(3, 0, 0, 0, 5)), Ok(1 << 31 | 1 << 8 | 1));
    assert_eq!((vcpu.get(reg::REG_PSTATE), vcpu.get(reg::REG_PC)), (Ok(0x3c5), Ok(0)));
    let stack = guest.cpu(0).get(reg::REG_SP_EL1).expect("a stack that nobody uses");
    let run = |seed| {
        point(vcpu, stack);
        assert_eq!(vcpu.call(program::ECHO, &[seed])[0], seed);
    };
    for seed in 1..4 {
        run(seed);
        vcpu.call(program::REGISTERS_FILL, &[seed]);
        vcpu.call(program::FP_FILL, &[seed]);
        // Whatever can be anything, is. Only ID registers refuse.
        let changed = fresh.iter().enumerate().filter(|&(index, &(id, value))| {
            let set = vcpu.set(id, scramble(seed << 16 | index as u64));
            set.is_ok() && vcpu.get(id) != Ok(value)
        });
        assert!(changed.count() > 120, "little was changed");
        assert_eq!(vcpu.reset(), Ok(()));
        assert_eq!(values(vcpu), fresh);
    }
    run(9);
}

fn reset_forgets_a_fault() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let stack = vcpu.get(reg::REG_SP_EL1).expect("it has one");
    for answer in [flags::RUN_MMIO_DONE, flags::RUN_INJECT_ABORT, flags::RUN_SKIP] {
        assert_eq!(vcpu.reset(), Ok(()));
        point(vcpu, stack);
        vcpu.call_to_exit(program::READ, &[NOWHERE]).fault();
        assert_eq!(vcpu.reset(), Ok(()));
        assert_eq!(vcpu.enter(answer, 0), Err(Error::Invalid), "flag {answer}");
    }
}

/// Either the call finds the vCPU in use and changes nothing; or it comes between two runs, and the
/// next one starts at address 0.
fn reset_of_a_running_vcpu() {
    needs_two_cpus();
    let cpu = spread(1)[0];
    let mut busy = 0;
    for _ in 0..20 {
        let guest = Guest::new(1);
        _ = guest.with_data(1, RW);
        let spinner = guest.spin(0, cpu, program::SPIN, &[DATA, 1, 1, 0]);
        spinner.wait_a_round();
        let refused = (0..50).map(|_| guest.cpu(0).reset()).take_while(|&reset| reset.is_err());
        let refused: Vec<_> = refused.collect();
        assert!(refused.iter().all(|&reset| reset == Err(Error::Busy)), "{refused:?}");
        busy += refused.len();
        if refused.len() == 50 {
            spinner.wait_a_round();
            assert!(spinner.stop().done().is_some(), "a refused reset changed the vCPU");
        } else {
            let fault = spinner.exit().fault();
            assert_eq!((fault.ipa, fault.is(flags::FAULT_EXEC)), (0, true), "{fault:x?}");
        }
    }
    assert!(busy > 100, "refused {busy} times of 1000");
}
