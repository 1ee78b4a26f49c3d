//! Reset, the calls of PSCI, and the traps.
#![allow(unsafe_code)]

mod console;
mod tree;

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

use console::Line;

/// Most CPUs: those of one cluster of the board.
const MAX_CPUS: usize = 8;
/// Where the launcher put the firmware.
const FIRMWARE: u64 = 0x4020_0000;
/// Where QEMU leaves the device tree when nothing but a flash image starts, and where it goes.
const TREE_FROM: u64 = 0x4000_0000;
const TREE_TO: u64 = 0x4800_0000;
/// GICD_CTLR, and DS in it: one security state, so that the non-secure side may set up all of it.
const GICD_CTLR: *mut u32 = 0x0800_0000 as *mut u32;
const GICD_CTLR_DS: u32 = 1 << 6;
/// EL2 on its own stack, all exceptions masked.
const SPSR_EL2H: u64 = 0x3c9;
/// SCTLR_EL2 with the MMU off: the RES1 bits.
const SCTLR_EL2: u64 = 0x30c5_0830;
/// ICC_SRE_EL3: SRE, DFB, DIB, Enable.
const ICC_SRE_EL3: u64 = 0xf;
/// How the machine ends where a trap is not to be answered.
const EXIT_TRAP: u64 = 71;

global_asm!(
    r#"
    .section .text.reset, "ax"
    .global reset
reset:
    b       1f
    nop
    // What is granted: SCR_EL3, CPTR_EL3, MDCR_EL3, and 1 where a trap is answered. The launcher fills it in.
    .global grants
grants:
    .quad   0, 0, 0, 0
1:  msr     daifset, #0xf
    mov     x0, xzr
    movk    x0, #0x30c5, lsl #16
    movk    x0, #0x0830
    msr     sctlr_el3, x0
    adrp    x0, vectors
    add     x0, x0, :lo12:vectors
    msr     vbar_el3, x0
    isb
    .global park
park:
    mrs     x0, mpidr_el1
    and     x0, x0, #0xff
    adrp    x1, __stacks
    add     x2, x0, #1
    add     x1, x1, x2, lsl #14
    mov     sp, x1
    b       {main}

    .macro  unexpected number
    .balign 0x80
    mov     x0, #\number
    b       {unexpected}
    .endm

    .section .text.vectors, "ax"
    .balign 2048
vectors:
    unexpected 0
    unexpected 1
    unexpected 2
    unexpected 3
    unexpected 4
    unexpected 5
    unexpected 6
    unexpected 7
    .balign 0x80
    sub     sp, sp, #256
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x30, [sp, #144]
    mov     x0, sp
    bl      {lower}
    ldp     x0, x1, [sp]
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    b       back
    unexpected 9
    unexpected 10
    unexpected 11
    unexpected 12
    unexpected 13
    unexpected 14
    unexpected 15
back:
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x30, [sp, #144]
    add     sp, sp, #256
    eret
    "#,
    main = sym main,
    lower = sym lower,
    unexpected = sym unexpected,
);

unsafe extern "C" {
    static grants: [u64; 4];
    fn park() -> !;
}

/// Reads a system register.
macro_rules! read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a register of EL3 or below has no side effect on memory.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack)) };
        value
    }};
}

/// Writes a system register of EL3, or of a level below that waits.
macro_rules! write {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: no translation or stack of EL3 hangs on it: the MMU is off.
        unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) };
    }};
}

/// What a CPU is asked to do: an entry, 0 while it is off; its argument; and whether it is on.
struct Cpu {
    entry: AtomicU64,
    context: AtomicU64,
    is_on: AtomicU64,
}

static CPUS: [Cpu; MAX_CPUS] = [const {
    Cpu { entry: AtomicU64::new(0), context: AtomicU64::new(0), is_on: AtomicU64::new(0) }
}; MAX_CPUS];
/// Whether the boot CPU has been here: what comes back after CPU_OFF waits as all others do.
static BOOTED: AtomicU64 = AtomicU64::new(0);

/// Continues after reset, or after CPU_OFF, on a fresh stack.
extern "C" fn main(cpu: usize) -> ! {
    if cpu == 0 && BOOTED.load(Ordering::Acquire) == 0 {
        BOOTED.store(1, Ordering::Release);
        CPUS[0].is_on.store(1, Ordering::Release);
        // SAFETY: a register of the board's interrupt controller.
        unsafe { GICD_CTLR.write_volatile(GICD_CTLR_DS) };
        // SAFETY: the tree that QEMU left, and RAM that nobody uses yet.
        unsafe { tree::copy(TREE_FROM as *const u8, TREE_TO as *mut u8) };
        Line::new("el3: this grants").word(" SCR_EL3 ", granted(0)).word(" CPTR_EL3 ", granted(1));
        enter(FIRMWARE, TREE_TO);
    }
    loop {
        let entry = CPUS[cpu].entry.swap_for_zero();
        if entry != 0 {
            enter(entry, CPUS[cpu].context.load(Ordering::Acquire));
        }
        // SAFETY: waits for the event that CPU_ON sends.
        unsafe { asm!("wfe", options(nomem, nostack)) };
    }
}

/// Memory is Device here, where exclusives needn't work: one CPU alone writes each word.
trait Taken {
    fn swap_for_zero(&self) -> u64;
}

impl Taken for AtomicU64 {
    fn swap_for_zero(&self) -> u64 {
        let value = self.load(Ordering::Acquire);
        if value != 0 {
            self.store(0, Ordering::Release);
        }
        value
    }
}

fn granted(index: usize) -> u64 {
    // SAFETY: constants of the image.
    unsafe { (&raw const grants).cast::<u64>().add(index).read_volatile() }
}

/// Enters EL2.
fn enter(entry: u64, x0: u64) -> ! {
    write!("scr_el3", granted(0));
    write!("cptr_el3", granted(1));
    write!("mdcr_el3", granted(2));
    write!("s3_6_c12_c12_5", ICC_SRE_EL3);
    write!("hcr_el2", 0);
    write!("sctlr_el2", SCTLR_EL2);
    write!("elr_el3", entry);
    write!("spsr_el3", SPSR_EL2H);
    // SAFETY: the firmware's entry, or the one that it named by CPU_ON.
    unsafe {
        asm!("isb", "mov x1, xzr", "mov x2, xzr", "mov x3, xzr", "eret",
            in("x0") x0, options(noreturn, nostack));
    }
}

/// An exception from a lower level: a call, or something that is withheld. `x` are x0 to x18 and x30.
extern "C" fn lower(x: &mut [u64; 20]) {
    const CLASS_SMC: u64 = 0x17;
    let esr = read!("esr_el3");
    if esr >> 26 == CLASS_SMC {
        x[0] = call(x[0] as u32, x[1], x[2], x[3]);
    } else {
        trap(esr);
    }
}

const VERSION_1_1: u64 = 0x1_0001;
const NOT_SUPPORTED: u64 = -1i64 as u64;
const INVALID: u64 = -2i64 as u64;
const ALREADY_ON: u64 = -4i64 as u64;

/// Answers a call of PSCI (Arm DEN 0022). `0x4000_0000` tells 64-bit from 32-bit arguments.
fn call(function: u32, x1: u64, x2: u64, x3: u64) -> u64 {
    match function & !0x4000_0000 {
        0x8400_0000 => VERSION_1_1,
        0x8400_0002 => {
            CPUS[(read!("mpidr_el1") & 0xff) as usize].is_on.store(0, Ordering::Release);
            // SAFETY: nothing on this CPU's stack is needed any more.
            unsafe { park() }
        }
        0x8400_0003 => cpu_on(x1, x2, x3),
        0x8400_0004 => {
            CPUS.get(x1 as usize).map_or(INVALID, |cpu| 1 - cpu.is_on.load(Ordering::Acquire))
        }
        // No trusted OS that would have to move.
        0x8400_0006 => 2,
        0x8400_0008 => exit(0),
        0x8400_0009 => exit(0),
        0x8400_000a => match x1 as u32 & !0x4000_0000 {
            0x8400_0000 | 0x8400_0002..=0x8400_0004 | 0x8400_0006 | 0x8400_0008..=0x8400_000a => 0,
            _ => NOT_SUPPORTED,
        },
        _ => NOT_SUPPORTED,
    }
}

fn cpu_on(target: u64, entry: u64, context: u64) -> u64 {
    let Some(cpu) = CPUS.get(target as usize) else { return INVALID };
    if cpu.is_on.load(Ordering::Acquire) != 0 {
        return ALREADY_ON;
    }
    cpu.is_on.store(1, Ordering::Release);
    cpu.context.store(context, Ordering::Release);
    cpu.entry.store(entry, Ordering::Release);
    // SAFETY: wakes CPUs that wait.
    unsafe { asm!("dsb sy", "sev", options(nostack)) };
    0
}

/// Tells what was withheld, and hands the instruction back as UNDEFINED, or ends the machine.
fn trap(esr: u64) {
    let (elr, spsr) = (read!("elr_el3"), read!("spsr_el3"));
    Line::new("el3: trap").word(" ESR ", esr).word(" ELR ", elr).word(" SPSR ", spsr);
    if granted(3) == 0 || spsr >> 2 & 3 != 2 {
        exit(EXIT_TRAP);
    }
    // EC 0, IL; the vector of the level's own stack, or of SP_EL0.
    write!("esr_el2", 1 << 25);
    write!("elr_el2", elr);
    write!("spsr_el2", spsr);
    write!("elr_el3", read!("vbar_el2") + if spsr & 1 == 1 { 0x200 } else { 0 });
    write!("spsr_el3", SPSR_EL2H);
}

/// An exception that this EL3 knows no answer to.
extern "C" fn unexpected(number: u64) -> ! {
    Line::new("el3: unexpected exception")
        .word(" vector ", number)
        .word(" ESR ", read!("esr_el3"))
        .word(" ELR ", read!("elr_el3"))
        .word(" FAR ", read!("far_el3"));
    exit(EXIT_TRAP)
}

/// Ends the machine by semihosting (SYS_EXIT_EXTENDED).
fn exit(status: u64) -> ! {
    let block: [u64; 2] = [0x2_0026, status]; // ADP_Stopped_ApplicationExit
    // SAFETY: the block outlives the call, which doesn't return.
    unsafe {
        asm!("hlt #0xf000", in("x0") 0x20u64, in("x1") &raw const block, options(nostack));
    }
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    Line::new("el3: panic");
    exit(EXIT_TRAP)
}
