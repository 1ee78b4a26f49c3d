// The guest: bare 64-bit code at EL1, without an operating system, that runs wherever it is copied to.
//
// Each of its vCPUs has a part of the memory to itself, fills it, and then uses the first half: the hot one. It
// begins at guest_start with
//   x0 first byte of its part    x1 end of the hot half    x2 end of the part    x3 the device's registers
//
// Every doubleword holds its own address times an odd number, which no other doubleword holds. The first
// one of a hot page holds the number of the round more. So a page that comes back old is found out as
// well as one that comes back wrong.
//
// Stage 1 is off: addresses are the ones that the VMM chose, and all accesses must be aligned.

    .balign 4096
    .global guest_start
guest_start:
    adr     x9, vectors
    msr     vbar_el1, x9
    isb
    movz    x4, #0x7c15
    movk    x4, #0x7f4a, lsl #16
    movk    x4, #0x79b9, lsl #32
    movk    x4, #0x9e37, lsl #48
    mov     x5, #0                      // rounds
    mov     x6, #0                      // doublewords that were wrong
    adr     x9, greeting

greet:                                  // the console takes a byte at a time
    ldrb    w10, [x9], #1
    cbz     w10, filled
    strb    w10, [x3, #{console}]
    b       greet

filled:
    mov     x9, x0
fill:
    mul     x10, x9, x4
    str     x10, [x9], #8
    cmp     x9, x2
    b.lo    fill

round:                                  // each hot page: read, compare, write
    mov     x9, x0
page:
    ldr     x10, [x9]
    madd    x11, x9, x4, x5
    cmp     x10, x11
    cinc    x6, x6, ne
    add     x11, x11, #1
    str     x11, [x9]
    add     x9, x9, #4096
    cmp     x9, x1
    b.lo    page
    add     x5, x5, #1
    str     x5, [x3, #{rounds}]         // ring the doorbell
    ldr     x9, [x3, #{command}]        // and ask what to do
    cbz     x9, round

    mov     x9, x0                      // check all, hot and cold
check:
    tst     x9, #4095
    ccmp    x9, x1, #2, eq              // the first doubleword of a page, and a hot one?
    csel    x11, x5, xzr, lo
    madd    x11, x9, x4, x11
    ldr     x10, [x9], #8
    cmp     x10, x11
    cinc    x6, x6, ne
    cmp     x9, x2
    b.lo    check
    str     x6, [x3, #{wrong}]          // the VMM runs this vCPU no more
    b       .

    // Nothing here should take an exception. One that comes all the same is told (Arm ARM, D1.3.1.5).
    .balign 2048
vectors:
    .rept   16
    .balign 128
    mrs     x9, esr_el1
    str     x9, [x3, #{fault}]
    b       .
    .endr

greeting:
    .asciz  "I am at EL1, and write all of my memory\n"
    .balign 8
    .global guest_end
guest_end:
