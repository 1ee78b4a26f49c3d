//! Power: PSCI for the host, and what EL2 asks of EL3 itself.
#![allow(unsafe_code)]

use core::fmt::Display;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use log::error;
use verdigris_abi::{MAX_CPUS, PAGE_SIZE};
use verdigris_platform::Machine;

use super::frame::Frame;
use super::percpu::{self, PerCpu};
use super::{memory, mmu, sysreg};

/// PSCI SYSTEM_OFF (Arm DEN 0022, section 5.10).
const SYSTEM_OFF: u64 = 0x8400_0008;
/// PSCI SYSTEM_RESET (section 5.11).
const SYSTEM_RESET: u64 = 0x8400_0009;

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
    smc(SYSTEM_OFF, [0; 3]);
}

/// Resets the machine.
pub fn system_reset() {
    smc(SYSTEM_RESET, [0; 3]);
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

/// Makes the data and stacks of all CPUs.
pub fn init(machine: &Machine, boot: &'static PerCpu) -> Result<(), &'static str> {
    let own = boot.affinity.get();
    for (index, cpu) in machine.cpus.iter().enumerate() {
        let percpu = if cpu.mpidr == own { boot } else { new_cpu(index, cpu.mpidr)? };
        percpu.index.set(index);
        CPUS[index].store(ptr::from_ref(percpu).cast_mut(), Ordering::Relaxed);
    }
    CPU_COUNT.store(machine.cpus.len(), Ordering::Relaxed);
    machine.cpu_index(own).ok_or("the device tree does not list the CPU that booted")?;
    Ok(())
}

/// Makes the data of a CPU that is off: a page of its own, and two stacks with gaps below them.
fn new_cpu(index: usize, affinity: u64) -> Result<&'static PerCpu, &'static str> {
    const NO_MEMORY: &str = "no memory for their stacks";
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
    error!("CPU {} can't run beside the others: {reason}", percpu.index.get());
    smc(0x8400_0002, [0; 3]);
    sysreg::halt()
}

/// Tells where a CPU that was switched on enters the host.
pub fn arrived(_percpu: &PerCpu) -> (u64, u64) {
    todo!()
}

/// Temporary: passes PSCI on.
pub fn dispatch(frame: &mut Frame, _percpu: &PerCpu) {
    let function = frame.x[0];
    let x = smc(function, [frame.x[1], frame.x[2], frame.x[3]]);
    frame.x[0] = x[0];
}
