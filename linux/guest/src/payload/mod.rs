//! Entry, exceptions, and the choice of a program.
//!
//! Nothing here may need relocation or zeroed memory. With stage 1 off, all data accesses are to
//! Device memory: no unaligned access, and no exclusives.
#![allow(unsafe_code)]

mod execute;
mod fp;
mod general;
mod ledger;
mod memory;
mod registers;
mod stage1;
mod sweep;
mod timer;

use core::arch::{asm, global_asm};

use verdigris_guest::{door, event, program};

global_asm!(
    r#"
    .macro  tell number
    .if     {mmio}
    mov     x9, #{door}
    mov     x10, #\number
    str     x10, [x9]
    .else
    hvc     #\number
    .endif
    .endm

    .section .text.entry, "ax"
    .global guest_entry
guest_entry:
    adrp    x9, guest_vectors
    add     x9, x9, :lo12:guest_vectors
    msr     vbar_el1, x9
    isb
guest_next:
    // Program and arguments become an array on the stack, which then holds the results.
    sub     sp, sp, #64
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    mov     x0, sp
    bl      {dispatch}
    ldp     x0, x1, [sp]
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    add     sp, sp, #64
    tell    {done}
    b       guest_next

    // All sixteen vectors report (Arm ARM, D1.3.1.5): what the suite then wants is up to it.
    .section .text.vectors, "ax"
    .balign 2048
guest_vectors:
    .set    index, 0
    .rept   16
    .balign 128
    mov     x0, #index
    mrs     x1, esr_el1
    mrs     x2, elr_el1
    mrs     x3, far_el1
    mrs     x4, spsr_el1
    tell    {exception}
    b       guest_next
    .set    index, index + 1
    .endr
    "#,
    dispatch = sym dispatch,
    done = const event::DONE,
    exception = const event::EXCEPTION,
    mmio = const cfg!(feature = "mmio") as u64,
    door = const door::ADDRESS,
);

/// Runs the program that `arguments[0]` names, and puts its results where the arguments were.
extern "C" fn dispatch(arguments: &mut [u64; 8]) {
    let [number, a, b, c, d, e, f, _] = *arguments;
    let mut results = [0; 3];
    match number {
        program::ECHO => return arguments[0] = 0,
        program::READ => results[0] = memory::read(a),
        program::WRITE => memory::write(a, b),
        program::TOUCH => results[0] = memory::touch(a, b, c, d, e, 0),
        program::FILL => memory::fill(a, b, c),
        program::CHECK => [results[0], results[1]] = memory::check(a, b, c),
        program::SPIN => memory::spin(a, b, c, d, e),
        program::WATCH => memory::watch(a, b),
        program::COUNTERS => return timer::counters(arguments),
        program::WAIT => timer::wait(a),
        program::STAGE1_ON => stage1::turn_on(a),
        program::STAGE1_OFF => stage1::turn_off(),
        program::REGISTERS_FILL => registers::fill(a),
        program::REGISTERS_CHECK => results[0] = registers::check(a),
        program::FP_FILL => fp::fill(a),
        program::FP_CHECK => results[0] = fp::check(a),
        program::DEVICE => results[0] = memory::device(a, b, c),
        program::SWEEP => results[0] = sweep::sweep(a, b, c, d, e, f),
        program::EXECUTE => results = execute::execute(a as u32, b, c).into(),
        program::GENERAL => results[0] = general::survive(a),
        program::LEDGER => ledger::run(a, b, c, d, e, f),
        program::MIRROR => memory::mirror(a, b, c, d, e),
        program::STREAM => results[0] = memory::stream(a, b, c),
        program::CALL => return general::call(arguments),
        _ => results[0] = u64::MAX,
    }
    let [r1, r2, r3] = results;
    *arguments = [0, r1, r2, r3, 0, 0, 0, 0];
}

/// Reports a panic as an exception that no vector has. None is expected: the code has no bounds to check.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {
        // SAFETY: the call is answered by the suite, which reads registers only.
        unsafe {
            asm!("hvc #{}", const event::EXCEPTION, in("x0") 255, in("x1") 0, options(nostack));
        }
    }
}
