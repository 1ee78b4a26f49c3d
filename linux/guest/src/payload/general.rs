//! General registers across an exit, and calls by the SMC Calling Convention.

use core::arch::{asm, global_asm};

use verdigris_guest::{event, scramble};

global_asm!(
    r#"
    .text
    // x0 = a bit for each of x8 to x28 that isn't x0 + n after an exit
guest_survive:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mov     x29, x0
    .irp    n, 8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28
    add     x\n, x0, #\n
    .endr
    hvc     #{report}
    mov     x0, #0
    .irp    n, 8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28
    sub     x1, x\n, #\n
    cmp     x1, x29
    cset    x1, ne
    orr     x0, x0, x1, lsl #\n
    .endr
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret
    "#,
    report = const event::REPORT,
);

unsafe extern "C" {
    fn guest_survive(seed: u64) -> u64;
}

/// Fills x8 to x28, exits, and returns a bit for each that changed.
pub fn survive(seed: u64) -> u64 {
    // SAFETY: the function keeps the procedure call standard.
    unsafe { guest_survive(scramble(seed)) }
}

/// Makes a call, by HVC or SMC.
pub fn call(arguments: &mut [u64; 8]) {
    let [_, mut x0, mut x1, mut x2, mut x3, smc, _, _] = *arguments;
    // SAFETY: whoever answers changes x0 to x17 only, and no memory.
    unsafe {
        if smc == 0 {
            asm!("hvc #0", inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
                clobber_abi("C"), options(nostack));
        } else {
            asm!("smc #0", inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
                clobber_abi("C"), options(nostack));
        }
    }
    *arguments = [0, x0, x1, x2, x3, 0, 0, 0];
}
