// The world switch's core: into a guest and back.
//
// `guest_enter` is called and returns when the guest exits. It switches the general registers and the
// one key that EL2 itself uses; everything else of EL1 has been switched by Rust before. While the guest
// runs, VBAR_EL2 holds one of the tables here: which, depends on whether the CPU signs return addresses.
//
// x0: the vCPU's context; x1: PerCpu. Returns in x0 which vector the exit took: 0 for a synchronous
// exception, 1 IRQ, 2 FIQ, 3 SError. Only x19 and x29 are kept: the caller says so to the compiler
// (`boot::enter_guest`), which saves of the others what it needs.

.section .text.vectors, "ax"

.macro guest_exit kind, pauth
    .balign 0x80
    stp     x0, x1, [sp, #-16]!
    mov     x1, #\kind
    .if     \pauth
    b       guest_leave_pauth
    .else
    b       guest_leave
    .endif
.endm

// A synchronous exception: aborts have their top bit of EC set, calls and traps have not.
.macro guest_exit_sync pauth
    .balign 0x80
    stp     x0, x1, [sp, #-16]!
    mrs     x1, esr_el2
    .if     \pauth
    tbnz    x1, #31, guest_abort_pauth
    mov     x1, #0
    b       guest_leave_pauth
    .else
    tbnz    x1, #31, guest_abort
    mov     x1, #0
    b       guest_leave
    .endif
.endm

.macro guest_table pauth
    crash_entries 0
    own_entry
    crash_entry 5
    crash_entry 6
    // An SError from EL2: only taken in the window of guest_leave, which does what is to be done.
    .balign 0x80
    eret
    dsb     nsh
    isb
    guest_exit_sync \pauth
    guest_exit 1, \pauth
    guest_exit 2, \pauth
    guest_exit 3, \pauth
    crash_entries 12                    // HCR_EL2.RW is 1: nothing below is AArch32 at EL1
.endm

.balign 0x800
.global guest_vectors
guest_vectors:
    guest_table 0

.balign 0x800
.global guest_vectors_pauth
guest_vectors_pauth:
    guest_table 1

.section .text.guest_enter, "ax"
.global guest_enter
guest_enter:
    stp     x19, x29, [sp, #-32]!
    stp     x0, x30, [sp, #16]
    ldr     x2, [x1, #{HAS_PAUTH}]
    cbz     x2, 1f
    ldp     x2, x3, [x0, #{CONTEXT_KEY}]
    msr     s3_0_c2_c1_0, x2            // APIAKeyLo_EL1
    msr     s3_0_c2_c1_1, x3            // APIAKeyHi_EL1
1:  ldp     x2, x3, [x0, #({CONTEXT_X} + 16)]
    ldp     x4, x5, [x0, #({CONTEXT_X} + 32)]
    ldp     x6, x7, [x0, #({CONTEXT_X} + 48)]
    ldp     x8, x9, [x0, #({CONTEXT_X} + 64)]
    ldp     x10, x11, [x0, #({CONTEXT_X} + 80)]
    ldp     x12, x13, [x0, #({CONTEXT_X} + 96)]
    ldp     x14, x15, [x0, #({CONTEXT_X} + 112)]
    ldp     x16, x17, [x0, #({CONTEXT_X} + 128)]
    ldp     x18, x19, [x0, #({CONTEXT_X} + 144)]
    ldp     x20, x21, [x0, #({CONTEXT_X} + 160)]
    ldp     x22, x23, [x0, #({CONTEXT_X} + 176)]
    ldp     x24, x25, [x0, #({CONTEXT_X} + 192)]
    ldp     x26, x27, [x0, #({CONTEXT_X} + 208)]
    ldp     x28, x29, [x0, #({CONTEXT_X} + 224)]
    ldr     x30, [x0, #({CONTEXT_X} + 240)]
    ldp     x0, x1, [x0, #{CONTEXT_X}]
    eret
    dsb     nsh                         // no speculation past the return
    isb

// On the stack: the guest's x0, x1, then what guest_enter stored. x1: the kind.
.macro leave_guest pauth
    ldr     x0, [sp, #32]               // the context
    stp     x2, x3, [x0, #({CONTEXT_X} + 16)]
    stp     x4, x5, [x0, #({CONTEXT_X} + 32)]
    stp     x6, x7, [x0, #({CONTEXT_X} + 48)]
    stp     x8, x9, [x0, #({CONTEXT_X} + 64)]
    stp     x10, x11, [x0, #({CONTEXT_X} + 80)]
    stp     x12, x13, [x0, #({CONTEXT_X} + 96)]
    stp     x14, x15, [x0, #({CONTEXT_X} + 112)]
    stp     x16, x17, [x0, #({CONTEXT_X} + 128)]
    stp     x18, x19, [x0, #({CONTEXT_X} + 144)]
    stp     x20, x21, [x0, #({CONTEXT_X} + 160)]
    stp     x22, x23, [x0, #({CONTEXT_X} + 176)]
    stp     x24, x25, [x0, #({CONTEXT_X} + 192)]
    stp     x26, x27, [x0, #({CONTEXT_X} + 208)]
    stp     x28, x29, [x0, #({CONTEXT_X} + 224)]
    str     x30, [x0, #({CONTEXT_X} + 240)]
    ldp     x2, x3, [sp], #16
    stp     x2, x3, [x0, #{CONTEXT_X}]

    // An error of the guest's accesses that is only now reported is the guest's: the barrier waits for
    // it, and it is taken here, while it still comes to EL2 (HCR_EL2.AMO). ESR_EL2 then tells of it.
    // The world switch relies on the barrier too: after it nothing is walked for the guest any more.
    dsb     sy
    isb
    mrs     x2, isr_el1
    tbnz    x2, #8, 3f                  // A
2:
    .if     \pauth
    mrs     x4, tpidr_el2
    mrs     x2, s3_0_c2_c1_0
    mrs     x3, s3_0_c2_c1_1
    stp     x2, x3, [x0, #{CONTEXT_KEY}]
    ldp     x2, x3, [x4, #{EL2_KEY}]
    msr     s3_0_c2_c1_0, x2
    msr     s3_0_c2_c1_1, x3
    isb
    .endif
    mov     x0, x1
    ldr     x30, [sp, #24]
    ldp     x19, x29, [sp], #32
    ret
3:  mrs     x19, elr_el2
    mrs     x20, spsr_el2
    msr     daifclr, #4
    isb
    msr     daifset, #4
    msr     elr_el2, x19
    msr     spsr_el2, x20
    mov     x1, #3
    b       2b
.endm

// A fault that may be answered with the guest in the CPU (`fault.rs`): an abort of EL1 or EL0 for an
// access flag or a permission. x1: ESR_EL2; on the stack: the guest's x0, x1. What a function may spoil is
// kept on the stack; nothing else is touched.
.macro abort_guest pauth
    ubfx    x0, x1, #26, #6             // EC: 0x20 for instructions, 0x24 for data
    sub     w0, w0, #0x20
    tst     w0, #~4
    b.ne    1f
    and     w0, w1, #0x38
    cmp     w0, #0x08                   // DFSC or IFSC: 0b0010xx, 0b0011xx
    b.ne    1f
    stp     x2, x3, [sp, #-{ABORT_SIZE}]!
    stp     x4, x5, [sp, #16]
    stp     x6, x7, [sp, #32]
    stp     x8, x9, [sp, #48]
    stp     x10, x11, [sp, #64]
    stp     x12, x13, [sp, #80]
    stp     x14, x15, [sp, #96]
    stp     x16, x17, [sp, #112]
    stp     x18, x29, [sp, #128]
    str     x30, [sp, #144]
    mov     x0, x1
    mrs     x1, tpidr_el2
    .if     \pauth
    mrs     x2, s3_0_c2_c1_0            // the guest's APIAKey, which signs nothing of EL2's
    mrs     x3, s3_0_c2_c1_1
    ldp     x4, x5, [x1, #{EL2_KEY}]
    stp     x2, x3, [sp, #160]
    msr     s3_0_c2_c1_0, x4
    msr     s3_0_c2_c1_1, x5
    isb
    .endif
    bl      {guest_fault}
    .if     \pauth
    ldp     x2, x3, [sp, #160]
    msr     s3_0_c2_c1_0, x2            // the ISB that a new key needs is the ERET, or comes with EL2's
    msr     s3_0_c2_c1_1, x3
    .endif
    tst     w0, #1
    ldr     x30, [sp, #144]
    ldp     x18, x29, [sp, #128]
    ldp     x16, x17, [sp, #112]
    ldp     x14, x15, [sp, #96]
    ldp     x12, x13, [sp, #80]
    ldp     x10, x11, [sp, #64]
    ldp     x8, x9, [sp, #48]
    ldp     x6, x7, [sp, #32]
    ldp     x4, x5, [sp, #16]
    ldp     x2, x3, [sp], #{ABORT_SIZE}
    b.eq    1f
    ldp     x0, x1, [sp], #16
    eret
    dsb     nsh
    isb
1:  mov     x1, #0
    .if     \pauth
    b       guest_leave_pauth
    .else
    b       guest_leave
    .endif
.endm

guest_abort:
    abort_guest 0
guest_abort_pauth:
    abort_guest 1

guest_leave:
    leave_guest 0
guest_leave_pauth:
    leave_guest 1

// Saves or loads the FP/SIMD registers. x0: 32 times 16 bytes, then FPSR and FPCR. CPTR_EL2 lets EL2
// use them. Only these functions touch FP/SIMD or SVE registers; a check of the image holds that.
.arch_extension fp
.arch_extension simd
.section .text.fp_switch, "ax"
.macro fp_pairs operation
    \operation q0, q1, [x0, #0]
    \operation q2, q3, [x0, #32]
    \operation q4, q5, [x0, #64]
    \operation q6, q7, [x0, #96]
    \operation q8, q9, [x0, #128]
    \operation q10, q11, [x0, #160]
    \operation q12, q13, [x0, #192]
    \operation q14, q15, [x0, #224]
    \operation q16, q17, [x0, #256]
    \operation q18, q19, [x0, #288]
    \operation q20, q21, [x0, #320]
    \operation q22, q23, [x0, #352]
    \operation q24, q25, [x0, #384]
    \operation q26, q27, [x0, #416]
    \operation q28, q29, [x0, #448]
    \operation q30, q31, [x0, #480]
.endm

.global fp_save
.type fp_save, %function
fp_save:
    fp_pairs stp
    mrs     x1, fpsr
    mrs     x2, fpcr
    add     x0, x0, #512
    stp     x1, x2, [x0]
    ret
.size fp_save, . - fp_save

.global fp_load
.type fp_load, %function
fp_load:
    fp_pairs ldp
    add     x0, x0, #512
    ldp     x1, x2, [x0]
    msr     fpsr, x1
    msr     fpcr, x2
    ret
.size fp_load, . - fp_load

// Saves or loads the SVE registers at the CPU's largest vector length, then FPSR and FPCR.
// x0: 32 vectors, 16 predicates and FFR, one after the other; x1: where FPSR and FPCR go. x2: 1 where
// FFR can be used (not in streaming mode without FEAT_SME_FA64).
.arch_extension sve
.global fp_save_sve
.type fp_save_sve, %function
fp_save_sve:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    str     z\n, [x0, #\n, mul vl]
    .endr
    addvl   x0, x0, #31
    addvl   x0, x0, #1
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    str     p\n, [x0, #\n, mul vl]
    .endr
    cbz     x2, 1f
    rdffr   p0.b
    str     p0, [x0, #16, mul vl]
    ldr     p0, [x0]
1:  mrs     x3, fpsr
    mrs     x4, fpcr
    stp     x3, x4, [x1]
    ret
.size fp_save_sve, . - fp_save_sve

.global fp_load_sve
.type fp_load_sve, %function
fp_load_sve:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ldr     z\n, [x0, #\n, mul vl]
    .endr
    addvl   x0, x0, #31
    addvl   x0, x0, #1
    cbz     x2, 1f
    ldr     p0, [x0, #16, mul vl]
    wrffr   p0.b
1:  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    ldr     p\n, [x0, #\n, mul vl]
    .endr
    ldp     x3, x4, [x1]
    msr     fpsr, x3
    msr     fpcr, x4
    ret
.size fp_load_sve, . - fp_load_sve
