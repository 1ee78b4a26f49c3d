//! Every call with arguments that are wrong: the documented error, and nothing changed.

use verdigris_abi::{Error, Stat, Status, call, flags, reg};
use verdigris_guest::program;

use super::support::{needs_two_cpus, one_of, spread};
use crate::firmware::{PageState, layout, page_state};
use crate::guest::{DATA, Guest};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::raw::raw;
use crate::sys;
use crate::vcpu::{Exit, Vcpu};
use crate::vm::{IPA_BITS, RW, RWX, Vm};

test_table! { "suite", 20:
    unknown_vms, ranges, pages_not_owned, pages_shared_or_donated, flags_of_calls, blocks_misplaced,
    counts_of_calls, vcpu_indices_and_registers, run_flags, failure_after_progress,
    vcpu_runs_twice, running_vm_does_not_end, vm_of_another,
}

/// No RAM on any of the machines: QEMU's UART.
const DEVICE: u64 = 0x0900_0000;
/// Where RAM begins, and the firmware with it.
const RAM: u64 = 0x4000_0000;
const BEYOND: u64 = 1 << 40;

/// A VM with everything that a bad call might change.
struct Scene {
    guest: Guest,
    data: Pages,
    spare: Pages,
    firmware: u64,
}

/// What must be the same after a refused call.
#[derive(PartialEq, Debug)]
struct Fingerprint {
    pages: Vec<PageState>,
    young: Vec<bool>,
    counters: Vec<u64>,
}

const COUNTERS: [Stat; 6] = [
    Stat::LeavesMapped,
    Stat::LeavesUnmapped,
    Stat::LeavesSet,
    Stat::LeavesProtected,
    Stat::TablePages,
    Stat::FreeTablePages,
];

impl Scene {
    fn new() -> Self {
        let guest = Guest::new(1);
        let data = guest.with_data(4, RW);
        let firmware = (0..64 << 8).map(|page| RAM + (page << 12));
        let firmware = firmware.into_iter().find(|&pa| page_state(pa).owner == flags::OWNER_EL2);
        let firmware = firmware.expect("the firmware is at the bottom of RAM");
        Self { guest, data, spare: Pages::chunks(1, 2), firmware }
    }

    fn vm(&self) -> u64 {
        self.guest.handle()
    }

    fn fingerprint(&self) -> Fingerprint {
        let pages = self.data.addresses().chain(self.spare.addresses());
        let statistics = self.guest.statistics();
        Fingerprint {
            pages: pages.chain([self.firmware, DEVICE]).map(page_state).collect(),
            young: self.guest.test_age(DATA, 8),
            counters: COUNTERS.map(|stat| statistics.get(stat)).to_vec(),
        }
    }

    /// Makes a call that has to be refused with one of the errors and to change nothing.
    #[track_caller]
    fn refuses(&self, function: u32, arguments: &[u64], errors: &[Error]) {
        let before = self.fingerprint();
        let result: Status<u64> = raw().value(function, arguments);
        one_of(result, errors, &format!("call {function:#x} with {arguments:x?}"));
        assert_eq!(before, self.fingerprint(), "call {function:#x} with {arguments:x?}");
    }

    /// Good arguments of every call that takes a VM. Those that would change something ask for what can't be.
    fn good(&self, vm: u64) -> Vec<(u32, Vec<u64>)> {
        let spare = self.spare.address(0);
        vec![
            (call::VM_DESTROY, vec![vm]),
            (call::VM_DONATE, vec![vm, spare, 1]),
            (call::VM_RECLAIM, vec![vm, 1]),
            (call::VCPU_CREATE, vec![vm, 9, spare]),
            (call::VCPU_RUN, vec![vm, 0, 0, 0]),
            (call::VCPU_GET_REG, vec![vm, 0, reg::REG_PC]),
            (call::VCPU_SET_REG, vec![vm, 0, reg::REG_PC, 0]),
            (call::MAP, vec![vm, DATA + 0x1_0000, spare, 1, RWX, 0]),
            (call::UNMAP, vec![vm, DATA, 1]),
            (call::INVALIDATE_BEGIN, vec![vm, DATA, 1, 0, 0]),
            (call::INVALIDATE_END, vec![vm, DATA, 1, 1]),
            (call::AGE, vec![vm, DATA, 1, 0, 0]),
            (call::TEST_AGE, vec![vm, DATA, 1, 0, 0]),
            (call::SET, vec![vm, DATA, spare, RW, 0]),
            (call::WRITE_PROTECT, vec![vm, DATA, 1]),
            (call::STATISTICS, vec![vm, 0]),
        ]
    }
}

fn unknown_vms() {
    let scene = Scene::new();
    let freed = Vm::new();
    let freed_handle = freed.handle();
    freed.destroy().expect("a VM can be ended");
    for vm in [0, 255, 256, 257, 1 << 16, 1 << 32 | scene.vm(), u64::MAX, freed_handle] {
        for (function, arguments) in scene.good(vm) {
            if (function, vm) != (call::STATISTICS, 0) {
                scene.refuses(function, &arguments, &[Error::NoEntry]);
            }
        }
    }
}

fn ranges() {
    let scene = Scene::new();
    let end = 1 << IPA_BITS;
    let top = !0xfff;
    let ranges = [
        (DATA + 1, 1),
        (DATA + 0x800, 1),
        (DATA, 0),
        (top, 1),
        (top, 2),
        (end, 1),
        (end - 0x1000, 2),
        (DATA, u64::MAX),
        (DATA, 1 << 52),
        (DATA, ((end - DATA) >> 12) + 1),
        (1 << 63 | DATA, 1),
    ];
    for (ipa, count) in ranges {
        for (function, mut arguments) in scene.good(scene.vm()) {
            let errors: &[Error] = match function {
                call::INVALIDATE_END => &[Error::Invalid, Error::NoEntry],
                _ => &[Error::Invalid],
            };
            let count_at = match function {
                call::MAP => Some(3),
                call::UNMAP | call::INVALIDATE_BEGIN | call::INVALIDATE_END => Some(2),
                call::AGE | call::TEST_AGE | call::WRITE_PROTECT => Some(2),
                call::SET if count == 1 => None,
                _ => continue,
            };
            arguments[1] = ipa;
            if let Some(index) = count_at {
                arguments[index] = count;
            }
            scene.refuses(function, &arguments, errors);
        }
    }
}

/// Calls that take a page, with `pa` as that page.
fn calls_on_page(scene: &Scene, pa: u64) -> [(u32, Vec<u64>); 6] {
    let vm = scene.vm();
    [
        (call::MAP, vec![vm, DATA + 0x1_0000, pa, 1, RW, 0]),
        (call::SET, vec![vm, DATA, pa, RW, 0]),
        (call::VM_DONATE, vec![vm, pa, 1]),
        (call::VM_CREATE, vec![IPA_BITS, pa]),
        (call::VCPU_CREATE, vec![vm, 9, pa]),
        (call::AGE, vec![vm, DATA, 4, flags::AGE_TO_BUFFER, pa]),
    ]
}

fn pages_not_owned() {
    let scene = Scene::new();
    for pa in [scene.firmware & !0xffff, scene.firmware & !0xffff | 0x1_0000, DEVICE, 0, BEYOND] {
        for (function, arguments) in calls_on_page(&scene, pa) {
            scene.refuses(function, &arguments, &[Error::NotOwner]);
        }
    }
    for pa in [1 << 52, !0xfff, 1 << 63] {
        for (function, arguments) in calls_on_page(&scene, pa) {
            scene.refuses(function, &arguments, &[Error::NotOwner, Error::Invalid]);
        }
    }
    for pa in [scene.spare.address(0) + 1, scene.spare.address(0) + 0x800] {
        for (function, arguments) in calls_on_page(&scene, pa) {
            scene.refuses(function, &arguments, &[Error::Invalid]);
        }
        assert_eq!(raw().value(call::PAGE_STATE, &[pa]), Err(Error::Invalid));
    }
}

fn pages_shared_or_donated() {
    let scene = Scene::new();
    let (order, vcpu_order) = layout(IPA_BITS).expect("a good size");
    let region = Pages::chunks(order.max(vcpu_order), 1);
    scene.guest.map(DATA + 0x10_0000, region.address(0), 1, RW, 0).expect("a good page");
    let (vm, shared) = (scene.vm(), region.address(0));
    scene.refuses(call::VM_DONATE, &[vm, shared, 1], &[Error::Busy]);
    scene.refuses(call::VM_CREATE, &[IPA_BITS, shared], &[Error::Busy]);
    scene.refuses(call::VCPU_CREATE, &[vm, 9, shared], &[Error::Busy]);
    let other = Vm::new();
    let tables = Pages::chunks(order.max(vcpu_order).max(3), 1);
    other.donate_range(tables.address(0), 8).expect("good pages");
    assert_eq!(page_state(tables.address(0)).owner, flags::OWNER_VM);
    assert_eq!(page_state(tables.address(0)).vm, other.handle());
    for (function, arguments) in calls_on_page(&scene, tables.address(0)) {
        scene.refuses(function, &arguments, &[Error::NotOwner]);
    }
    other.keep(tables);
}

fn flags_of_calls() {
    let scene = Scene::new();
    let (vm, spare) = (scene.vm(), scene.spare.address(0));
    let ipa = DATA + 0x1_0000;
    let both = flags::MAP_BLOCK_2M | flags::MAP_BLOCK_1G | RW;
    let clean_but_never_written = flags::PROT_READ | flags::MAP_CLEAN;
    for bad in [
        0,
        flags::PROT_WRITE,
        flags::PROT_EXEC,
        clean_but_never_written,
        RW | 1 << 7,
        RW | 1 << 63,
        both,
        u64::MAX,
    ] {
        scene.refuses(call::MAP, &[vm, ipa, spare, 1, bad, 0], &[Error::Invalid]);
        scene.refuses(call::SET, &[vm, DATA, spare, bad, 0], &[Error::Invalid]);
    }
    scene.refuses(call::SET, &[vm, DATA, spare, RW | flags::MAP_OLD, 0], &[Error::Invalid]);
    for bad in [3, 1 << 3, 1 << 63, u64::MAX] {
        scene.refuses(call::AGE, &[vm, DATA, 1, bad, spare], &[Error::Invalid]);
    }
    for bad in [1, 2, 3, 1 << 3, u64::MAX] {
        scene.refuses(call::TEST_AGE, &[vm, DATA, 1, bad, spare], &[Error::Invalid]);
    }
    scene.refuses(call::SET, &[vm, DATA, spare, RW | flags::MAP_CLEAN, 0], &[Error::Invalid]);
    // A buffer for dirty bits that nobody asked for.
    for bad in [4, 5, 1 << 3, 1 << 63] {
        scene.refuses(call::INVALIDATE_BEGIN, &[vm, DATA, 1, bad, 0, spare], &[Error::Invalid]);
    }
    for bad in [1, 4, 1 << 3, 1 << 63] {
        scene.refuses(call::UNMAP, &[vm, DATA, 1, bad, 0, spare], &[Error::Invalid]);
        scene.refuses(call::INVALIDATE_END, &[vm, DATA, 1, 0, bad, spare], &[Error::Invalid]);
    }
    scene.refuses(call::INVALIDATE_BEGIN, &[vm, DATA, 1, 1, 0], &[Error::NoEntry]);
    scene.refuses(call::INVALIDATE_END, &[vm, DATA, 1, 1], &[Error::NoEntry]);
}

fn blocks_misplaced() {
    let scene = Scene::new();
    let block = Pages::chunks(9, 1);
    let (vm, pa) = (scene.vm(), block.address(0));
    let (large, huge) = (RW | flags::MAP_BLOCK_2M, RW | flags::MAP_BLOCK_1G);
    let at = DATA + 0x20_0000;
    for (ipa, pa, count, flags) in [
        (at + 0x1000, pa, 512, large),
        (at, pa + 0x1000, 512, large),
        (at, pa, 511, large),
        (at, pa, 1, large),
        (at, pa, 513, large),
        (at, pa, 1 << 18, huge),
        (DATA, pa & !0x3fff_ffff, 512, huge),
    ] {
        scene.refuses(call::MAP, &[vm, ipa, pa, count, flags, 0], &[Error::Invalid]);
    }
    scene.refuses(call::SET, &[vm, at + 0x1000, pa, large, 0], &[Error::Invalid]);
    scene.refuses(call::SET, &[vm, at, pa + 0x1000, large, 0], &[Error::Invalid]);
    // 2 MiB of DATA have pages in them: a block can neither replace nor cover them.
    scene.refuses(call::MAP, &[vm, DATA, pa, 512, large, 0], &[Error::Exists]);
    scene.refuses(call::SET, &[vm, DATA, pa, large, 0], &[Error::Exists]);
    assert_eq!(page_state(pa), PageState::FREE);
}

fn counts_of_calls() {
    let scene = Scene::new();
    let (vm, spare) = (scene.vm(), scene.spare.address(0));
    let buffer = flags::AGE_TO_BUFFER;
    for function in [call::AGE, call::TEST_AGE] {
        scene.refuses(function, &[vm, DATA, 1025, 0, 0], &[Error::Invalid]);
        scene.refuses(function, &[vm, DATA, 32769, buffer, spare], &[Error::Invalid]);
    }
    for bad in [0, 17, u64::MAX] {
        scene.refuses(call::VM_RECLAIM, &[vm, bad], &[Error::Invalid]);
    }
    scene.refuses(call::VM_DONATE, &[vm, spare, 0], &[Error::Invalid]);
    scene.refuses(call::VM_DONATE, &[vm, spare, 1 << 52], &[Error::Invalid, Error::NotOwner]);
    for bits in [0, 31, 49, 64, u64::MAX] {
        scene.refuses(call::VM_CREATE, &[bits, spare], &[Error::Invalid]);
    }
    let (order, _) = layout(IPA_BITS).expect("a good size");
    if order > 0 {
        let region = Pages::chunks(order + 1, 1);
        let askew = region.address(0) + 0x1000;
        scene.refuses(call::VM_CREATE, &[IPA_BITS, askew], &[Error::Invalid]);
    }
}

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

/// A range whose second page can't be mapped: the first is, and the error comes with that progress.
fn failure_after_progress() {
    let scene = Scene::new();
    let (vm, chunk) = (scene.vm(), Pages::chunks(1, 1));
    let other = Vm::new();
    other.donate_range(chunk.address(1), 1).expect("a good page");
    let (ipa, pa) = (DATA + 0x1_0000, chunk.address(0));
    let reply = raw().call(call::MAP, &[vm, ipa, pa, 2, RW, 0]);
    assert_eq!((reply.status(), reply.0[1]), (Err(Error::NotOwner), 1));
    assert_eq!(page_state(pa).shares, 1, "the page that was good");
    scene.refuses(call::MAP, &[vm, ipa + 0x1000, pa + 0x1000, 1, RW, 0], &[Error::NotOwner]);
    other.keep(chunk);
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
    assert_eq!(first.cpu(1).call(verdigris_guest::program::READ, &[DATA])[0], 0);
}
