//! Power: PSCI for the host, and what EL2 asks of EL3 itself.
//!
//! What becomes of each call is decided in `verdigris_core::smccc` and `psci`; here it is done. A CPU
//! that the host starts enters by EL2's own entry with the address of its `PerCpu`, and reads that with
//! its MMU on.
#![allow(unsafe_code)]

use core::fmt::Display;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use log::error;
use spin::Once;
use verdigris_abi::{MAX_CPUS, PAGE_SIZE, Pa};
use verdigris_core::psci::{self, CpuPower, PowerState, Return, Start};
use verdigris_core::smccc::{self, Action, Below, Host};
use verdigris_platform::Machine;

use super::frame::Frame;
use super::percpu::{self, PerCpu};
use super::{boot, memory, mmu, sysreg};

/// Makes a call to EL3 with up to three arguments and returns x0 to x3.
pub fn smc(function: u64, arguments: [u64; 3]) -> [u64; 4] {
    let mut x = [function, arguments[0], arguments[1], arguments[2]];
    // SAFETY: the convention lets the callee change x0 to x17 (Arm DEN 0028, section 2.6); what a
    // function does to memory or power is its caller's intent. The asm is a barrier to the compiler.
    unsafe {
        core::arch::asm!("smc #0",
            inout("x0") x[0], inout("x1") x[1], inout("x2") x[2], inout("x3") x[3],
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _,
            out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _, options(nostack));
    }
    x
}

/// Switches the machine off.
pub fn system_off() {
    smc(psci::SYSTEM_OFF.into(), [0; 3]);
}

/// Resets the machine.
pub fn system_reset() {
    smc(psci::SYSTEM_RESET.into(), [0; 3]);
}

/// Returns this CPU's affinity: MPIDR_EL1 without its flags.
pub fn own_affinity() -> u64 {
    sysreg::read!("mpidr_el1") & 0xff_00ff_ffff
}

/// PerCpu of each CPU, by index.
static CPUS: [AtomicPtr<PerCpu>; MAX_CPUS as usize] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS as usize];
static CPU_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Returns how many CPUs the machine has.
pub fn cpu_count() -> usize {
    CPU_COUNT.load(Ordering::Relaxed)
}

const NO_MEMORY: &str = "no memory for their stacks";

/// Makes the data and stacks of all CPUs.
pub fn init(machine: &Machine, boot: &'static PerCpu) -> Result<(), &'static str> {
    let own = boot.affinity.get();
    for (index, cpu) in machine.cpus.iter().enumerate() {
        let percpu = if cpu.mpidr == own { boot } else { new_cpu(index, cpu.mpidr)? };
        percpu.set_index(index);
        let area = memory::pool().take(boot::FP_AREA_PAGES).ok_or(NO_MEMORY)?;
        percpu.fp_area.set(area.0);
        CPUS[index].store(ptr::from_ref(percpu).cast_mut(), Ordering::Relaxed);
    }
    CPU_COUNT.store(machine.cpus.len(), Ordering::Relaxed);
    let boot_index = machine.cpu_index(own);
    let boot_index = boot_index.ok_or("the device tree does not list the CPU that booted")?;
    // The boot CPU is on without anyone having asked.
    let power = &POWER[boot_index];
    power.claim(Start { entry: Pa(0), context: 0 }).map_err(|_| "the boot CPU started twice")?;
    power.take();
    BELOW.call_once(|| if machine.psci.is_some() { ask_below() } else { Below::default() });
    HAS_PSCI.store(machine.psci.is_some(), Ordering::Relaxed);
    Ok(())
}

/// Makes the data of a CPU that is off: a page of its own, and two stacks with gaps below them.
fn new_cpu(index: usize, affinity: u64) -> Result<&'static PerCpu, &'static str> {
    const { assert!(size_of::<PerCpu>() <= PAGE_SIZE as usize) }
    let page = memory::pool().take(1).ok_or(NO_MEMORY)?;
    // SAFETY: a fresh page of the pool, large enough, given up for good; the value is written before
    // the reference is made.
    let percpu = unsafe {
        let pointer = page.0 as *mut PerCpu;
        pointer.write(PerCpu::new());
        &*pointer
    };
    let window = mmu::STACK_WINDOW + index as u64 * 4 * percpu::STACK_BYTES;
    percpu.stack_top.set(new_stack(window).ok_or(NO_MEMORY)?);
    percpu.crash_stack_top.set(new_stack(window + 2 * percpu::STACK_BYTES).ok_or(NO_MEMORY)?);
    percpu.affinity.set(affinity);
    Ok(percpu)
}

/// Maps a stack in the upper half of a slot of two stack sizes; the lower half stays unmapped.
fn new_stack(slot: u64) -> Option<u64> {
    let pages = percpu::STACK_BYTES / PAGE_SIZE;
    let memory = memory::pool().take(pages)?;
    let bottom = slot + percpu::STACK_BYTES;
    mmu::map(bottom, memory.0, percpu::STACK_BYTES, mmu::DATA).ok()?;
    Some(bottom + percpu::STACK_BYTES)
}

/// Switches a CPU off that can't run beside the others.
pub fn refuse(percpu: &PerCpu, reason: impl Display) -> ! {
    error!("CPU {} can't run beside the others: {reason}", percpu.index());
    POWER[percpu.index()].take();
    POWER[percpu.index()].go_off();
    smc(psci::CPU_OFF.into(), [0; 3]);
    sysreg::halt()
}

/// The power state of each CPU, as the host sees it.
static POWER: [CpuPower; MAX_CPUS as usize] =
    [const { CpuPower::new(PowerState::Off) }; MAX_CPUS as usize];
/// What is known of the firmware below.
static BELOW: Once<Below> = Once::new();
/// Whether the device tree names a PSCI: without one, an SMC of EL2 would be undefined.
static HAS_PSCI: AtomicBool = AtomicBool::new(false);

/// SMCCC_VERSION (Arm DEN 0028, section 7.2).
const SMCCC_VERSION: u64 = 0x8000_0000;

/// Asks the firmware below what it is. It is asked for its version only if it says that it has one.
fn ask_below() -> Below {
    let call = |function: u64, argument| smc(function, [argument, 0, 0])[0] as i32;
    let has_version = call(psci::FEATURES.into(), SMCCC_VERSION);
    let version = if has_version >= 0 { call(SMCCC_VERSION, 0) } else { -1 };
    Below::from_answers(has_version, version, call(psci::FEATURES.into(), psci::CPU_SUSPEND.into()))
}

/// What a decision about a call needs to know of the host.
struct TheHost;

impl Host for TheHost {
    fn owns(&self, address: Pa) -> bool {
        memory::ownership().is_host(address)
    }

    fn cpu_with(&self, affinity: u64) -> Option<usize> {
        (0..cpu_count()).find(|&index| cpu(index).affinity.get() == affinity)
    }
}

/// Returns the data of a CPU by index. Of another CPU's only what is set at boot may be read.
fn cpu(index: usize) -> &'static PerCpu {
    // SAFETY: `init` stored a valid reference for each index below the count, for good.
    unsafe { &*CPUS[index].load(Ordering::Relaxed) }
}

/// Tells where a CPU that was switched on, or that wakes up, enters the host.
pub fn arrived(percpu: &PerCpu) -> Start {
    let start = POWER[percpu.index()].take();
    start.expect("a CPU starts only when the host has asked for it")
}

/// Answers a call of the host that is not the firmware's own. See `verdigris_core::smccc`.
#[inline(never)]
pub fn dispatch(frame: &mut Frame, percpu: &PerCpu) {
    let [x0, x1, x2, x3] = [frame.x[0], frame.x[1], frame.x[2], frame.x[3]];
    let own = &POWER[percpu.index()];
    let below = BELOW.get().expect("the firmware below is asked at boot");
    if !HAS_PSCI.load(Ordering::Relaxed) {
        frame.x[0] = Return::NotSupported.value();
        return;
    }
    frame.x[0] = match smccc::decide(0, [x0, x1, x2, x3], below, &TheHost) {
        Action::Answer(value) => value,
        // It promises to come back here. One that powers down all the same comes back through EL2.
        Action::Forward { function } if function & !(1 << 30) == psci::CPU_SUSPEND & !(1 << 30) => {
            let state = if function == psci::CPU_SUSPEND { x1 } else { x1 & 0xffff_ffff };
            let entry = [state, boot::secondary_entry(), own_address(percpu)];
            smc(psci::CPU_SUSPEND.into(), entry)[0]
        }
        Action::Forward { function } => {
            frame.x[..4].copy_from_slice(&smc(function.into(), [x1, x2, x3]));
            return;
        }
        Action::Hypercall { .. } => Return::NotSupported.value(),
        Action::CpuOn { cpu, mpidr, start } => cpu_on(cpu, mpidr, start),
        Action::CpuOff => {
            own.go_off();
            let refusal = smc(psci::CPU_OFF.into(), [0; 3])[0];
            own.stay_on();
            refusal
        }
        Action::CpuSuspend { power_state, start } => {
            own.suspend(start);
            let entry = [power_state, boot::secondary_entry(), own_address(percpu)];
            let result = smc(psci::CPU_SUSPEND.into(), entry)[0];
            own.stay_awake();
            result
        }
        Action::SystemSuspend { start } => {
            own.suspend(start);
            let entry = [boot::secondary_entry(), own_address(percpu), 0];
            let result = smc(psci::SYSTEM_SUSPEND.into(), entry)[0];
            own.stay_awake();
            result
        }
    };
}

/// Switches a CPU on with EL2's own entry.
fn cpu_on(index: usize, mpidr: u64, start: Start) -> u64 {
    if let Err(refusal) = POWER[index].claim(start) {
        return refusal.value();
    }
    let entry = [mpidr, boot::secondary_entry(), own_address(cpu(index))];
    // PSCI leaves it to the caller that what the new CPU reads is there (Arm DEN 0022, section 5.1.4).
    sysreg::dsb_ish();
    let result = smc(psci::CPU_ON.into(), entry)[0];
    if result as i32 != 0 {
        POWER[index].withdraw();
    }
    result
}

/// Returns the address by which a CPU finds its own data.
fn own_address(percpu: &PerCpu) -> u64 {
    ptr::from_ref(percpu) as u64
}
