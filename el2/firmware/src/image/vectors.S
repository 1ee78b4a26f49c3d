// Exception vectors: those in force while the host runs, and the crash entries that every table shares.
//
// EL2 runs with all exceptions masked, so an exception taken from EL2 itself is a bug. Its entry
// touches no stack that may be the cause: it stores the registers in the CPU's PerCpu and goes on, on
// the crash stack. It may spoil SP_EL0, which belongs to whoever runs below: nobody runs below any more.

// Loads a 64-bit constant.
.macro mov_imm register, value
    movz    \register, #((\value) & 0xffff)
    movk    \register, #(((\value) >> 16) & 0xffff), lsl #16
    movk    \register, #(((\value) >> 32) & 0xffff), lsl #32
    movk    \register, #(((\value) >> 48) & 0xffff), lsl #48
.endm

.macro crash_entry kind
    .balign 0x80
    msr     sp_el0, x0
    mrs     x0, tpidr_el2
    add     x0, x0, #{CRASH_X}
    stp     x1, x2, [x0, #8]
    mov     x1, #\kind
    b       crash_common
.endm

.macro crash_entries first
    crash_entry \first
    crash_entry (\first + 1)
    crash_entry (\first + 2)
    crash_entry (\first + 3)
.endm

// A synchronous exception from EL2 on its own stack: some instructions have a second way out (`recover.rs`).
.macro own_entry
    .balign 0x80
    msr     sp_el0, x0
    mrs     x0, tpidr_el2
    add     x0, x0, #{CRASH_X}
    stp     x1, x2, [x0, #8]
    b       own_exception
.endm

// All exceptions from EL2 on its own stack.
.macro own_entries
    own_entry
    crash_entry 5
    crash_entry 6
    crash_entry 7
.endm

.section .text.vectors, "ax"

// Before the host first runs: everything is a crash.
.balign 0x800
.global crash_vectors
crash_vectors:
    crash_entries 0
    own_entries
    crash_entries 8
    crash_entries 12

// A call, trap or abort of the host. Keeps what a call may change or Rust may clobber: x0 to x18,
// x29, x30; Rust keeps the rest. See `frame::Frame`. Whether return addresses are signed is a matter of
// the CPU, so each kind of CPU has a table of its own, and no entry has to ask.
.macro host_entry pauth
    .balign 0x80
    sub     sp, sp, #{FRAME_SIZE}
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x29, [sp, #144]
    str     x30, [sp, #160]
    mrs     x1, tpidr_el2
    .if     \pauth
    mrs     x6, s3_0_c2_c1_0            // the host's APIAKey, which signs nothing of EL2's
    mrs     x7, s3_0_c2_c1_1
    ldp     x4, x5, [x1, #{EL2_KEY}]
    stp     x6, x7, [sp, #{FRAME_KEY}]
    msr     s3_0_c2_c1_0, x4
    msr     s3_0_c2_c1_1, x5
    isb
    .endif
    mov     x0, sp
    bl      {host_sync}
    .if     \pauth
    b       host_return_pauth
    .else
    b       host_return
    .endif
.endm

.macro host_table pauth
    crash_entries 0
    own_entries
    host_entry \pauth
    crash_entry 9
    crash_entry 10
    crash_entry 11
    crash_entries 12
.endm

.balign 0x800
.global host_vectors
host_vectors:
    host_table 0

.balign 0x800
.global host_vectors_pauth
host_vectors_pauth:
    host_table 1

// Return to the host from a frame at SP. The ISB that a new key needs is the ERET.
host_return_pauth:
    ldp     x6, x7, [sp, #{FRAME_KEY}]
    msr     s3_0_c2_c1_0, x6
    msr     s3_0_c2_c1_1, x7
host_return:
    ldp     x0, x1, [sp, #0]
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x29, [sp, #144]
    ldr     x30, [sp, #160]
    add     sp, sp, #{FRAME_SIZE}
    eret
    dsb     nsh                         // no speculation past the return
    isb

// Looks for the instruction that failed among those with a second way out. x0: the place for the registers in
// PerCpu, where x1 and x2 are; x0 itself is in SP_EL0. Each entry has the instruction and its way out, relative
// to where they stand.
own_exception:
    stp     x3, x4, [x0, #24]
    adrp    x1, __fixups_start
    add     x1, x1, :lo12:__fixups_start
    adrp    x2, __fixups_end
    add     x2, x2, :lo12:__fixups_end
    mrs     x3, elr_el2
1:  cmp     x1, x2
    b.hs    3f
    ldrsw   x4, [x1]
    add     x4, x4, x1
    cmp     x4, x3
    b.eq    2f
    add     x1, x1, #8
    b       1b
2:  ldrsw   x4, [x1, #4]!
    add     x4, x4, x1
    msr     elr_el2, x4
    ldp     x1, x2, [x0, #8]
    ldp     x3, x4, [x0, #24]
    mrs     x0, sp_el0
    eret
    dsb     nsh
    isb
3:  mov     x1, #4
    ldp     x3, x4, [x0, #24]
    b       crash_common

// x0: the place for the registers in PerCpu; x1: kind; x1 and x2 are stored, x0 is in SP_EL0.
crash_common:
    stp     x3, x4, [x0, #24]
    stp     x5, x6, [x0, #40]
    stp     x7, x8, [x0, #56]
    stp     x9, x10, [x0, #72]
    stp     x11, x12, [x0, #88]
    stp     x13, x14, [x0, #104]
    stp     x15, x16, [x0, #120]
    stp     x17, x18, [x0, #136]
    stp     x19, x20, [x0, #152]
    stp     x21, x22, [x0, #168]
    stp     x23, x24, [x0, #184]
    stp     x25, x26, [x0, #200]
    stp     x27, x28, [x0, #216]
    stp     x29, x30, [x0, #232]
    mrs     x2, sp_el0
    str     x2, [x0]
    mov     x2, sp
    str     x2, [x0, #{CRASH_SP}]
    sub     x0, x0, #{CRASH_X}
    ldr     x2, [x0, #{CRASH_STACK_TOP}]
    mov     sp, x2
    mov     x29, xzr
    mov     x30, xzr
    b       {crash}

// Starts the host on this CPU. x0: its first x0; x1: the value for SP. ELR_EL2 and SPSR_EL2 are set.
.global host_start
host_start:
    mov     sp, x1
    mrs     x2, tpidr_el2
    ldr     x3, [x2, #{HAS_PAUTH}]
    cbz     x3, 1f
    msr     s3_0_c2_c1_0, xzr           // EL2's key is not for the host to read
    msr     s3_0_c2_c1_1, xzr
1:  mov     x1, xzr
    mov     x2, xzr
    mov     x3, xzr
    mov     x4, xzr
    mov     x5, xzr
    mov     x6, xzr
    mov     x7, xzr
    mov     x8, xzr
    mov     x9, xzr
    mov     x10, xzr
    mov     x11, xzr
    mov     x12, xzr
    mov     x13, xzr
    mov     x14, xzr
    mov     x15, xzr
    mov     x16, xzr
    mov     x17, xzr
    mov     x18, xzr
    mov     x19, xzr
    mov     x20, xzr
    mov     x21, xzr
    mov     x22, xzr
    mov     x23, xzr
    mov     x24, xzr
    mov     x25, xzr
    mov     x26, xzr
    mov     x27, xzr
    mov     x28, xzr
    mov     x29, xzr
    mov     x30, xzr
    eret
    dsb     nsh
    isb
