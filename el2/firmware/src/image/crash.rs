//! What happens when EL2 itself fails: one report, then the machine stops.
//!
//! EL2 never goes on after a failure of its own: its state is the isolation of everyone else. The
//! report goes to the console without taking its lock (the holder may be the one that failed), names
//! addresses as offsets into the image (the ELF is linked at 0), and ends the machine in the way that
//! the `crash=` option asks for.
#![allow(unsafe_code)]

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, Readable, SPSR_EL2};
use spin::Once;
use verdigris_core::options::CrashAction;

use super::percpu::{self, CrashRegisters, PerCpu};
use super::{console, mmu, power, sysreg};

/// The exit status of the machine after a crash, where semihosting carries one.
const EXIT_CRASH: u64 = 70;
/// Most frames that a backtrace shows.
const MAX_FRAMES: usize = 32;

static ACTION: Once<CrashAction> = Once::new();
/// Set by the first CPU that fails: the others stop silently, and a failing report ends at once.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// Chooses how the machine ends after a report.
pub fn set_action(action: CrashAction) {
    ACTION.call_once(|| action);
}

/// Names of the vector table's entries, by index (Arm ARM D1.3.1).
const KINDS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];
const SOURCES: [&str; 4] = ["EL2 on SP_EL0", "EL2", "a lower level", "a lower level in AArch32"];

/// Reports an exception that no code expects. Reached from `vectors.S` on the crash stack.
pub extern "C" fn from_vector(percpu: &PerCpu, kind: u64) -> ! {
    let (esr, far, elr) = (ESR_EL2.get(), FAR_EL2.get(), ELR_EL2.get());
    begin();
    let mut out = console::unlocked();
    let _ = writeln!(
        out,
        "\nverdigris: crash: {} from {} on CPU {}: {}",
        KINDS[kind as usize & 3],
        SOURCES[kind as usize >> 2 & 3],
        percpu.index(),
        class_name(esr),
    );
    let _ = writeln!(
        out,
        "verdigris: crash: ESR_EL2 {esr:#x} FAR_EL2 {far:#x} HPFAR_EL2 {:#x} SPSR_EL2 {:#x}",
        HPFAR_EL2.get(),
        SPSR_EL2.get(),
    );
    if let Some(hint) = address_hint(percpu, far) {
        let _ = writeln!(out, "verdigris: crash: {far:#x} is {hint}");
    }
    let registers = percpu.crash_registers();
    write_address(&mut out, "pc", elr);
    write_registers(&mut out, &registers);
    write_backtrace(&mut out, percpu, registers.x[29], Some(registers.x[30]));
    stop(&mut out)
}

/// Reports a panic.
#[panic_handler]
fn from_panic(info: &PanicInfo) -> ! {
    let frame: u64;
    // SAFETY: reads the frame pointer.
    unsafe { core::arch::asm!("mov {}, x29", out(reg) frame, options(nomem, nostack)) }
    begin();
    let percpu = percpu::this();
    let mut out = console::unlocked();
    let _ = writeln!(out, "\nverdigris: crash: panic on CPU {}: {info}", percpu.index());
    write_backtrace(&mut out, percpu, frame, None);
    stop(&mut out)
}

/// Stops this CPU if another one has failed: nobody works on state that may be wrong.
pub fn stop_if_reporting() {
    if REPORTING.load(Ordering::Relaxed) {
        sysreg::halt();
    }
}

/// Lets the first failure report and stops all later ones.
fn begin() {
    if REPORTING.swap(true, Ordering::Relaxed) {
        sysreg::halt();
    }
}

fn stop(out: &mut impl Write) -> ! {
    let _ = writeln!(out, "verdigris: crash: the machine stops");
    stop_quietly()
}

/// Ends the machine in the way that the `crash=` option asks for.
pub fn stop_quietly() -> ! {
    match ACTION.get().copied().unwrap_or(CrashAction::Spin) {
        CrashAction::Semihosting => semihosting_exit(EXIT_CRASH),
        CrashAction::Off => power::system_off(),
        CrashAction::Reset => power::system_reset(),
        CrashAction::Spin => {}
    }
    sysreg::halt()
}

/// Asks a debugger or emulator to end with a status (SYS_EXIT_EXTENDED of Arm's semihosting).
fn semihosting_exit(status: u64) {
    let block: [u64; 2] = [0x2_0026, status]; // ADP_Stopped_ApplicationExit
    // SAFETY: the block outlives the call, which does not return where semihosting is on. Where it is
    // off, the instruction is undefined and ends in `begin`, silently.
    unsafe {
        core::arch::asm!("hlt #0xf000", in("x0") 0x20u64, in("x1") &raw const block,
            options(nostack));
    }
}

/// Names the exception class of a syndrome, for those that EL2 can take from itself.
fn class_name(esr: u64) -> &'static str {
    match esr >> 26 {
        0x00 => "unknown reason",
        0x0d => "branch target",
        0x0e => "illegal execution state",
        0x1c => "pointer authentication",
        0x21 => "instruction abort",
        0x22 => "PC alignment",
        0x25 => "data abort",
        0x26 => "SP alignment",
        0x2f => "SError",
        0x3c => "BRK instruction",
        _ => "see ESR_EL2",
    }
}

/// Says what an address is to the firmware, where that explains the failure.
fn address_hint(percpu: &PerCpu, address: u64) -> Option<&'static str> {
    let bottom = percpu.stack_bottom();
    if (bottom.wrapping_sub(mmu::GUARD_BYTES)..bottom).contains(&address) {
        Some("in the guard page of this CPU's stack: it overflowed")
    } else if verdigris_linker::text().contains(&address) {
        Some("in the firmware's text")
    } else if verdigris_linker::image().contains(&address) {
        Some("in the firmware's image")
    } else {
        None
    }
}

fn write_address(out: &mut impl Write, what: &str, address: u64) {
    let image = verdigris_linker::image();
    let _ = if image.contains(&address) {
        writeln!(out, "verdigris: crash: {what} image+{:#x}", address - image.start)
    } else {
        writeln!(out, "verdigris: crash: {what} {address:#x}, outside the image")
    };
}

fn write_registers(out: &mut impl Write, registers: &CrashRegisters) {
    for (index, row) in registers.x.chunks(4).enumerate() {
        let _ = write!(out, "verdigris: crash:");
        for (column, value) in row.iter().enumerate() {
            let _ = write!(out, " x{:<2} {value:016x}", index * 4 + column);
        }
        let _ = writeln!(out);
    }
    let _ = writeln!(out, "verdigris: crash: sp  {:016x}", registers.sp);
}

/// Follows the frame records (x29) as long as they stay in this CPU's stacks.
fn write_backtrace(out: &mut impl Write, percpu: &PerCpu, mut frame: u64, link: Option<u64>) {
    if let Some(link) = link {
        write_address(out, "link", strip(link));
    }
    for _ in 0..MAX_FRAMES {
        if frame & 15 != 0 || !percpu.owns_stack(frame, 16) {
            return;
        }
        // SAFETY: 16 aligned bytes inside a mapped stack of this CPU, which nobody else writes.
        let [next, link] = unsafe { *(frame as *const [u64; 2]) };
        if link == 0 {
            return;
        }
        write_address(out, "frame", strip(link));
        frame = next;
    }
}

/// Removes the signature from a return address: EL2's addresses have 48 bits, the upper half is zero.
fn strip(address: u64) -> u64 {
    address & 0xffff_ffff_ffff
}
