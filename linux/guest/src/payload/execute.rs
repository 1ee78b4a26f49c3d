//! Executing one instruction that may do anything to a system register, and surviving it.
//!
//! The instruction is stored into a page of code, followed by a branch back. Everything that is
//! needed afterwards is in registers that it doesn't name; what it may have changed under our feet
//! (stack selection, masks, vectors, control) is put right before anything else happens. An
//! exception ends in vectors of its own, which go the same way back.

use core::arch::{asm, global_asm};

use verdigris_guest::sweep;

/// `br x27`
const BRANCH_BACK: u32 = 0xd61f_0360;

/// What became of an instruction.
#[repr(C)]
pub struct Outcome {
    excepted: u64,
    esr: u64,
    /// What is in `x0` afterwards.
    pub value: u64,
}

global_asm!(
    r#"
    .text
    // x0 = value, x1 = code, x2 = outcome
guest_execute:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mov     x19, sp
    mov     x20, x2
    mrs     x21, vbar_el1
    mrs     x22, sctlr_el1
    mrs     x23, cpacr_el1
    mrs     x24, mdscr_el1
    adrp    x25, guest_catch
    add     x25, x25, :lo12:guest_catch
    msr     vbar_el1, x25
    isb
    mov     x26, #0
    mov     x28, #0
    adr     x27, 1f
    br      x1
1:  msr     daifset, #15
    msr     spsel, #1
    mov     sp, x19
    msr     vbar_el1, x21
    msr     sctlr_el1, x22
    msr     cpacr_el1, x23
    msr     mdscr_el1, x24
    isb
    stp     x28, x26, [x20]
    str     x0, [x20, #16]
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret

    .section .text.vectors, "ax"
    .balign 2048
guest_catch:
    .rept   16
    .balign 128
    mov     x28, #1
    mrs     x26, esr_el1
    br      x27
    .endr
    "#
);

unsafe extern "C" {
    fn guest_execute(value: u64, code: u64, outcome: &mut Outcome);
}

/// Stores one instruction at `code` and executes it with `value` in x0.
pub fn execute(instruction: u32, value: u64, code: u64) -> Outcome {
    let mut outcome = Outcome { excepted: 0, esr: 0, value: 0 };
    // SAFETY: `code` is a page that the suite gave for it, so nothing else is overwritten. The
    // stores reach instruction fetch before the call (Arm ARM, B2.7.4). guest_execute puts
    // right whatever an instruction at EL1 can change that compiled code depends on.
    unsafe {
        (code as *mut u32).write_volatile(instruction);
        (code as *mut u32).add(1).write_volatile(BRANCH_BACK);
        asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) code,
            options(nostack));
        guest_execute(value, code, &mut outcome);
    }
    outcome
}

impl Outcome {
    /// Classifies: one of the constants of [`sweep`].
    pub fn class(&self) -> u64 {
        match (self.excepted, self.esr >> 26 & 0x3f) {
            (0, _) => sweep::COMPLETED,
            (_, 0x00) => sweep::UNDEFINED,
            (_, 0x07) => sweep::FP_TRAP,
            (_, 0x18) => sweep::TRAPPED,
            _ => sweep::OTHER,
        }
    }
}

impl From<Outcome> for [u64; 3] {
    fn from(outcome: Outcome) -> Self {
        [outcome.class(), outcome.esr, outcome.value]
    }
}
