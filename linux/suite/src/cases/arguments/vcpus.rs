//! vCPUs: wrong ones, those that run, those of another VM.

use verdigris_abi::{Error, Stat, call, flags, reg};
use verdigris_guest::program;

use super::Scene;
use crate::cases::support::{needs_two_cpus, spread};
use crate::firmware::page_state;
use crate::guest::{DATA, Guest};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::raw::raw;
use crate::sys;
use crate::vcpu::{Exit, Vcpu};
use crate::vm::{RW, Vm};

test_table! { "suite", 20: vcpu_indices_and_registers, run_flags, vcpu_runs_twice, running_vm_does_not_end, vm_of_another }

fn vcpu_indices_and_registers() {
    let scene = Scene::new();
    let (vm, region) = (scene.vm(), Pages::chunks(4, 1));
    let region = region.address(0);
    scene.refuses(call::VCPU_CREATE, &[vm, 0, region], &[Error::Exists]);
    for index in [64, 1 << 32, u64::MAX] {
        scene.refuses(call::VCPU_CREATE, &[vm, index, region], &[Error::Invalid]);
    }
    for index in [1, 63, 64, 1 << 32, u64::MAX] {
        scene.refuses(call::VCPU_RUN, &[vm, index, 0, 0], &[Error::NoEntry]);
        scene.refuses(call::VCPU_GET_REG, &[vm, index, 0], &[Error::NoEntry]);
        scene.refuses(call::VCPU_REG_LIST, &[vm, index, 0], &[Error::NoEntry]);
        scene.refuses(call::VCPU_RESET, &[vm, index], &[Error::NoEntry]);
    }
    // SCTLR_EL2, a register of no class, one past FPCR, one past CNTVOFF.
    for register in [37, 0x1_0000 | 3 << 14 | 4 << 11 | 1 << 7, 0x2_0042, 0x3_0001, u64::MAX] {
        scene.refuses(call::VCPU_GET_REG, &[vm, 0, register], &[Error::NoEntry]);
        scene.refuses(call::VCPU_SET_REG, &[vm, 0, register, 0], &[Error::NoEntry]);
    }
    // EL2h, EL3h, AArch32 Supervisor, a reserved mode.
    for pstate in [0x3c9, 0x3cd, 0x1d3, 0x3c2] {
        scene.refuses(call::VCPU_SET_REG, &[vm, 0, reg::REG_PSTATE, pstate], &[Error::Invalid]);
    }
}

fn run_flags() {
    let scene = Scene::new();
    for bad in [1 << 3, 3, 6, 7, 1 << 63] {
        scene.refuses(call::VCPU_RUN, &[scene.vm(), 0, bad, 0], &[Error::Invalid]);
    }
    // No fault has happened that they could answer.
    for early in [flags::RUN_MMIO_DONE, flags::RUN_INJECT_ABORT, flags::RUN_SKIP] {
        scene.refuses(call::VCPU_RUN, &[scene.vm(), 0, early, 0], &[Error::Invalid]);
    }
}

/// Calls of the second vCPU-user, each with whether it succeeded; BUSY is the only failure.
fn calls_on_running(vcpu: Vcpu) -> bool {
    let pc = vcpu.get(reg::sysreg(3, 0, 13, 0, 4)).map(|_| ());
    let set = vcpu.set(reg::sysreg(3, 0, 13, 0, 4), 0);
    let results = [pc, set];
    for result in results {
        assert!(matches!(result, Ok(()) | Err(Error::Busy)), "{result:?}");
    }
    results.contains(&Err(Error::Busy))
}

fn vcpu_runs_twice() {
    needs_two_cpus();
    let cpu = spread(1)[0];
    let guest = Guest::new(1);
    _ = guest.with_data(1, RW);
    let spinner = guest.spin(0, cpu, program::SPIN, &[DATA, 1, 1, 0]);
    spinner.wait_a_round();
    let busy = (0..1000).filter(|_| calls_on_running(guest.cpu(0))).count();
    assert!(busy > 10, "a running vCPU was busy in {busy} of 1000 looks only");
    let mut refused = 0;
    for _ in 0..1000 {
        match guest.cpu(0).enter(flags::RUN_SKIP, 0) {
            Err(Error::Busy) => refused += 1,
            Err(Error::Invalid) => {}
            other => panic!("a running vCPU was entered: {other:x?}"),
        }
    }
    assert!(refused > 10, "refused {refused} times of 1000");
    drop(spinner);
}

/// Runs a vCPU that never ends by itself, again and again, until its VM is gone.
fn run_until_gone(vcpu: Vcpu, cpu: usize) {
    sys::run_on(cpu).expect("the CPU is there");
    loop {
        match vcpu.enter(0, 0) {
            Ok(Exit::Interrupt) | Err(Error::Busy) => {}
            Err(Error::NoEntry) => return,
            other => panic!("a spinning vCPU ended in {other:x?}"),
        }
    }
}

/// Between two runs of its vCPU a VM may end; while one is under way it may not.
fn running_vm_does_not_end() {
    needs_two_cpus();
    let cpu = spread(1)[0];
    for end in [call::VM_DESTROY, call::HOST_RESET] {
        let refused = (0..20).map(|_| refusals_of_end(end, cpu)).take_while(|&n| n == 0).count();
        assert!(refused < 20, "call {end:x} never met a running vCPU");
    }
}

/// Ends a VM whose vCPU runs on another CPU; returns how often that was refused before.
fn refusals_of_end(end: u32, cpu: usize) -> u32 {
    let guest = Guest::new(1);
    _ = guest.with_data(1, RW);
    let vcpu = guest.cpu(0);
    vcpu.prepare(program::SPIN, &[DATA, 1, 1, 0, guest.control_ipa(0)]);
    let runner = std::thread::spawn(move || run_until_gone(vcpu, cpu));
    while guest.statistics().get(Stat::Runs) == 0 {
        std::thread::yield_now();
    }
    let mut refusals = 0;
    loop {
        match raw().value(end, &[guest.handle()]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Error::Busy) => refusals += 1,
            Err(error) => panic!("the VM can't be ended: {error}"),
        }
    }
    runner.join().expect("the runner ends with the VM");
    refusals
}

fn vm_of_another() {
    let (first, second) = (Guest::new(2), Vm::new());
    let foreign = Vcpu::new(second.handle(), 0);
    assert_eq!(foreign.enter(0, 0), Err(Error::NoEntry));
    assert_eq!(foreign.get(reg::REG_PC), Err(Error::NoEntry));
    let data = first.with_data(1, RW);
    second.unmap(DATA, 1).expect("nothing is there");
    assert_eq!(page_state(data.address(0)).shares, 1, "the other VM's mapping went");
    assert_eq!(first.cpu(1).call(program::READ, &[DATA])[0], 0);
}
