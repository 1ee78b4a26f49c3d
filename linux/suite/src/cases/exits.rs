//! Why vCPUs stop, and how they go on.

use std::time::{Duration, Instant};

use verdigris_abi::{Stat, flags};
use verdigris_guest::{access, program, sweep, touch};

use crate::guest::{DATA, Guest, NOWHERE};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::vcpu::{Exit, Vcpu};
use crate::vm::{RW, RWX};

test_table! { "suite", 20:
    device_reads, device_writes, abort_is_injected, table_walk_faults, calls_of_the_guest,
    guest_shuts_down, guest_waits, interrupts_end_runs, undefined_is_the_guests_own,
    features_are_hidden, code_that_changes, run_after_shutdown,
}

const DEVICE: u64 = NOWHERE + 0x1008;
/// Where single instructions are executed.
const CODE: u64 = 0x4040_0000;

/// Kinds of loads with the value that the device gives and what the guest then has.
const LOADS: [(u64, u64, u64); 9] = [
    (0, 0x1122_3344_5566_7788, 0x88),
    (1, 0x1122_3344_5566_7788, 0x7788),
    (2, 0x1122_3344_d566_7788, 0xd566_7788),
    (3, 0x1122_3344_5566_7788, 0x1122_3344_5566_7788),
    (access::SIGNED, 0x80, 0xffff_ff80),
    (access::SIGNED | 1, 0x8000, 0xffff_8000),
    (access::SIGNED | access::WIDE, 0x80, 0xffff_ffff_ffff_ff80),
    (access::SIGNED | access::WIDE | 1, 0x7fff, 0x7fff),
    (access::SIGNED | access::WIDE | 2, 0x8000_0000, 0xffff_ffff_8000_0000),
];

fn device_reads() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    for (kind, given, seen) in LOADS {
        let fault = vcpu.call_to_exit(program::DEVICE, &[DEVICE, kind, 0]).fault();
        assert_eq!(fault.ipa, DEVICE, "kind {kind:#x}");
        assert!(fault.is(flags::FAULT_MMIO_VALID) && !fault.is(flags::FAULT_WRITE), "{fault:x?}");
        let signed = kind & access::SIGNED != 0;
        assert_eq!(fault.access & 3, kind & access::SIZE_MASK, "{fault:x?}");
        assert_eq!(fault.access >> 2 & 1 == 1, signed, "{fault:x?}");
        // The payload loads into register 2.
        assert_eq!(fault.access >> 4 & 0x1f, 2, "{fault:x?}");
        let results = vcpu.answer(given).done().expect("the load is done");
        assert_eq!(results[0], seen, "kind {kind:#x}");
    }
}

fn device_writes() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let value = 0x1122_3344_5566_7788;
    for (size, stored) in [(0, 0x88), (1, 0x7788), (2, 0x5566_7788), (3, value)] {
        let arguments = [DEVICE, access::STORE | size, value];
        let fault = vcpu.call_to_exit(program::DEVICE, &arguments).fault();
        assert!(fault.is(flags::FAULT_MMIO_VALID) && fault.is(flags::FAULT_WRITE), "{fault:x?}");
        assert_eq!((fault.ipa, fault.value, fault.access & 3), (DEVICE, stored, size));
        assert!(vcpu.answer(0).done().is_some(), "the store is done");
    }
}

fn abort_is_injected() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    vcpu.call_to_exit(program::READ, &[NOWHERE + 0x18]).fault();
    let [vector, syndrome, _, address] = vcpu.run_with(flags::RUN_INJECT_ABORT, 0).exception();
    // Synchronous, from the current EL with SP_ELx; a data abort without a change of EL (0x25); a
    // synchronous external abort that is no table walk (0b010000) (Arm ARM, D1.3.1.5 and D24.2.40).
    assert_eq!((vector, syndrome >> 26, syndrome & 0x3f), (4, 0x25, 0x10), "{syndrome:#x}");
    assert_eq!(address, NOWHERE + 0x18);
    vcpu.call_to_exit(program::TOUCH, &[NOWHERE, 1, 1, touch::EXECUTE, 0]).fault();
    let [vector, syndrome, link, _] = vcpu.run_with(flags::RUN_INJECT_ABORT, 0).exception();
    assert_eq!((vector, syndrome >> 26, syndrome & 0x3f), (4, 0x21, 0x10), "{syndrome:#x}");
    assert_eq!(link, NOWHERE);
    assert_eq!(vcpu.call(program::ECHO, &[8])[0], 8, "the guest lives");
}

/// A walk of the guest's own tables that faults at stage 2 says so, and where.
fn table_walk_faults() {
    const TABLE: u64 = 0x4030_0000;
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    let table = Pages::single(1);
    guest.map(TABLE, table.address(0), 1, RW, 0).expect("a fresh page");
    vcpu.call(program::STAGE1_ON, &[TABLE]);
    guest.unmap(TABLE, 1).expect("a mapping");
    vcpu.prepare(program::ECHO, &[3]);
    let fault = vcpu.run().fault();
    assert!(fault.is(flags::FAULT_TABLE_WALK) && !fault.is(flags::FAULT_PERMISSION), "{fault:x?}");
    assert_eq!(fault.page(), TABLE);
    guest.map(TABLE, table.address(0), 1, RW, fault.sequence).expect("a fresh number");
    assert_eq!(vcpu.run().done().expect("the program goes on")[0], 3);
}

fn calls_of_the_guest() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    // A call of this very interface, one of PSCI that nobody has, one of nobody: all are the host's to
    // answer.
    for function in [0xc600_0011, 0x8400_00ff, 0x1234_5678, 0x8600_ff01] {
        for smc in [0, 1] {
            let exit = vcpu.call_to_exit(program::CALL, &[function, 5, 6, 7, smc]);
            let Exit::Hypercall([x0, x1, x2, x3, ..], 0, by_smc) = exit else {
                panic!("{exit:x?}")
            };
            assert_eq!(([x0, x1, x2, x3], by_smc), ([function, 5, 6, 7], smc == 1));
            for (register, value) in [(0, 100), (1, 101), (2, 102), (3, 103)] {
                vcpu.set(register, value).expect("a stopped vCPU");
            }
            let results = vcpu.run().done().expect("the program goes on");
            assert_eq!(results[..4], [100, 101, 102, 103]);
        }
    }
}

/// PSCI SYSTEM_OFF and SYSTEM_RESET (Arm DEN 0022).
const POWER: [(u64, u64); 2] =
    [(0x8400_0008, flags::SHUTDOWN_OFF), (0x8400_0009, flags::SHUTDOWN_RESET)];

fn guest_shuts_down() {
    let guest = Guest::new(1);
    for (function, how) in POWER {
        for smc in [0, 1] {
            let exit = guest.cpu(0).call_to_exit(program::CALL, &[function, 0, 0, 0, smc]);
            assert_eq!(exit, Exit::Shutdown(how), "function {function:#x}");
            assert!(guest.cpu(0).run().done().is_some(), "the host may let it go on");
        }
    }
}

fn run_after_shutdown() {
    let guest = Guest::new(2);
    let exit = guest.cpu(0).call_to_exit(program::CALL, &[POWER[0].0]);
    assert_eq!(exit, Exit::Shutdown(flags::SHUTDOWN_OFF));
    assert_eq!(guest.cpu(1).call(program::ECHO, &[4])[0], 4, "the other vCPU runs on");
}

fn guest_waits() {
    let guest = Guest::new(1);
    let vcpu = guest.cpu(0);
    // A WFI waits for nothing, and isn't trapped, if an interrupt of the host's is pending just then.
    let waits = |_: &u32| vcpu.call_to_exit(program::WAIT, &[0]) == Exit::Wait(0);
    (0..100).find(waits).expect("a WFI that waits");
    assert!(vcpu.run().done().is_some(), "past the WFI");
    // A WFE may end at once, whatever the event register says: QEMU never traps it.
    let mut exit = vcpu.call_to_exit(program::WAIT, &[1]);
    while exit == Exit::Wait(1) {
        exit = vcpu.run();
    }
    assert!(exit.done().is_some(), "past the WFE: {exit:x?}");
}

/// A guest that never exits by itself doesn't keep the host from its interrupts.
fn interrupts_end_runs() {
    let guest = Guest::new(1);
    let _data = guest.with_data(1, RW);
    let vcpu = guest.cpu(0);
    vcpu.prepare(program::SPIN, &[DATA, 1, 1, touch::READ, guest.control_ipa(0)]);
    let before = guest.statistics();
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(vcpu.enter(0, 0), Ok(Exit::Interrupt));
        assert!(began.elapsed() < Duration::from_secs(2), "the timer's tick came late");
    }
    assert_eq!(guest.statistics().since(&before, Stat::ExitInterrupt), 5);
}

fn with_code_page(guest: &Guest) -> Pages {
    let code = Pages::single(1);
    guest.map_pages(CODE, &code, RWX);
    code
}

fn execute(vcpu: Vcpu, instruction: u32, value: u64) -> [u64; 3] {
    let [outcome, syndrome, result, ..] =
        vcpu.call(program::EXECUTE, &[instruction.into(), value, CODE]);
    [outcome, syndrome, result]
}

fn undefined_is_the_guests_own() {
    let guest = Guest::new(1);
    let _code = with_code_page(&guest);
    // udf #0; mrs x0, sctlr_el2; msr vttbr_el2, x0; eret is EL1's own, so no; mrs x0, s3_6_c1_c0_0;
    // mrs x0, icc_iar1_el1; tlbi alle2; at s1e2r, x0; mrs x0, cntp_ctl_el0.
    let undefined = [
        0x0000_0000,
        0xd53c_1000,
        0xd51c_2100,
        0xd53e_1000,
        0xd538_cc00,
        0xd50c_871f,
        0xd50c_7800,
        0xd53b_e220,
    ];
    for instruction in undefined {
        let [outcome, syndrome, _] = execute(guest.cpu(0), instruction, 0);
        assert_eq!(outcome, sweep::UNDEFINED, "{instruction:#x}: {syndrome:#x}");
    }
    // mov x0, #7
    assert_eq!(execute(guest.cpu(0), 0xd280_00e0, 0), [sweep::COMPLETED, 0, 7]);
}

fn features_are_hidden() {
    let guest = Guest::new(1);
    let _code = with_code_page(&guest);
    let read = |instruction| match execute(guest.cpu(0), instruction, 0) {
        [sweep::COMPLETED, _, value] => value,
        other => panic!("an ID register can't be read: {other:x?}"),
    };
    // ID_AA64PFR0_EL1 (Arm ARM, D24.2.79): EL1 and EL0 in AArch64; no EL2, EL3, GIC, SVE, MPAM, AMU.
    let pfr0 = read(0xd538_0400);
    assert_eq!((pfr0 & 0xf, pfr0 >> 4 & 0xf), (1, 1), "{pfr0:#x}");
    for (name, shift) in
        [("EL2", 8), ("EL3", 12), ("GIC", 24), ("SVE", 32), ("MPAM", 40), ("AMU", 44)]
    {
        assert_eq!(pfr0 >> shift & 0xf, 0, "{name} in {pfr0:#x}");
    }
    // ID_AA64PFR1_EL1: no MTE, SME. ID_AA64DFR0_EL1: no PMU, SPE, trace buffer.
    let pfr1 = read(0xd538_0420);
    assert_eq!((pfr1 >> 8 & 0xf, pfr1 >> 24 & 0xf), (0, 0), "{pfr1:#x}");
    let dfr0 = read(0xd538_0500);
    let pmu = dfr0 >> 8 & 0xf;
    assert!(pmu == 0 || pmu == 0xf, "{dfr0:#x}");
    assert_eq!((dfr0 >> 32 & 0xf, dfr0 >> 44 & 0xf), (0, 0), "{dfr0:#x}");
}

/// Code that the guest writes and then runs, after the cache maintenance that it must do.
fn code_that_changes() {
    let guest = Guest::new(1);
    let _code = with_code_page(&guest);
    for value in 0..50 {
        // mov x0, #value
        let instruction = 0xd280_0000 | value << 5;
        assert_eq!(execute(guest.cpu(0), instruction, 99)[2], value.into());
    }
}
