// First instructions of the firmware: the image header, and the way to Rust with the MMU on.
//
// Nothing written here relies on exclusives, and no Rust runs before the MMU is on: with it off,
// memory is Device and exclusives are not guaranteed to work. The table built here maps the image
// alone, each page with the one right that it needs (write or execute, never both); Rust adds the rest.
//
// Register use: x19 the argument for Rust, x20 the image's address. x0 to x15 are scratch.

.section .head, "ax"

// The arm64 Linux Image header (Documentation/arch/arm64/booting.rst).
.global image_header
image_header:
    b       boot_primary
    nop
    .quad   0                           // text_offset: any 2 MiB boundary
    .quad   __image_size
    .quad   0xa                         // little endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

boot_primary:
    bl      enter_el2
    mov     x19, x0
    adrp    x20, __image_start
    tst     x20, #0x1fffff              // the boot table covers one 2 MiB window
    b.ne    park

    // The loader cleaned what it wrote (the file). Above it, lines that the cache may hold must not
    // be written back over what is stored from here on with the MMU off.
    adrp    x0, __bss_start
    bl      discard_cache_to_end
    adrp    x0, __bss_start
    adrp    x1, __image_end
1:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    1b

    bl      relocate
    bl      build_tables
    // Lines that were fetched speculatively meanwhile are older than memory.
    adrp    x0, __text_end
    bl      discard_cache_to_end
    ic      iallu

    bl      mmu_on
    adrp    x0, __boot_stack_top
    mov     sp, x0
    adrp    x0, {boot_percpu}
    add     x0, x0, :lo12:{boot_percpu}
    msr     tpidr_el2, x0
    bl      pauth_on
    mov     x0, x19
    b       {main}

// A CPU that PSCI started, or that comes back from a power-down. x0: its PerCpu.
.global boot_secondary
boot_secondary:
    bl      enter_el2
    mov     x19, x0
    adrp    x20, __image_start
    bl      mmu_on
    msr     tpidr_el2, x19
    ldr     x1, [x19, #{STACK_TOP}]
    mov     sp, x1
    bl      pauth_on
    mov     x0, x19
    b       {secondary_main}

// Brings the CPU to a known state at EL2: exceptions masked, MMU off, EL2 in its own translation
// regime (E2H is 0). Preserves x0.
enter_el2:
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    park                        // no EL2 to run at, and no console known yet
    msr     daifset, #0xf
    msr     spsel, #1
    mov     x1, #{HCR_BOOT}
    dsb     nsh                         // AmpereOne AC04_CPU_23, as in controls.rs
    msr     hcr_el2, x1
    isb
    mov_imm x1, {SCTLR_OFF}
    msr     sctlr_el2, x1
    isb
    mrs     x1, hcr_el2
    tbnz    x1, #34, park               // E2H is stuck at 1: another layout of registers
    adrp    x1, {crash_vectors}
    add     x1, x1, :lo12:{crash_vectors}
    msr     vbar_el2, x1
    isb
    ret

park:
    wfe
    b       park

// Applies the relative relocations: the image is linked at 0. Any other kind would be a link error
// that nobody saw, so it stops here.
relocate:
    adrp    x0, __rela_start
    add     x0, x0, :lo12:__rela_start
    adrp    x1, __rela_end
    add     x1, x1, :lo12:__rela_end
1:  cmp     x0, x1
    b.hs    2f
    ldp     x2, x3, [x0], #16           // offset, type
    ldr     x4, [x0], #8                // addend
    cbz     w3, 1b                      // R_AARCH64_NONE
    cmp     w3, #1027                   // R_AARCH64_RELATIVE
    b.ne    park
    add     x4, x4, x20
    str     x4, [x20, x2]
    b       1b
2:  ret

// Invalidates the data cache from x0 to the end of the image. Nothing there is dirty and wanted:
// all stores so far went past the cache.
discard_cache_to_end:
    dsb     sy
    adrp    x1, __image_end
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4             // DminLine, log2 of words
    mov     x3, #4
    lsl     x2, x3, x2
1:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    1b
    dsb     sy
    ret

// Maps the pages from \from to \to, both symbols, with the attributes in \attributes.
.macro map_pages from, to, attributes
    adrp    x0, \from
    adrp    x1, \to
    mov_imm x2, \attributes
    bl      map_range
.endm

build_tables:
    mov     x15, x30
    adrp    x4, __boot_tables           // level 0
    add     x5, x4, #0x1000             // level 1
    add     x6, x4, #0x2000             // level 2
    add     x7, x4, #0x3000             // level 3
    mov     x8, #{TABLE}
    ubfx    x9, x20, #39, #9
    orr     x10, x5, x8
    str     x10, [x4, x9, lsl #3]
    ubfx    x9, x20, #30, #9
    orr     x10, x6, x8
    str     x10, [x5, x9, lsl #3]
    ubfx    x9, x20, #21, #9
    orr     x10, x7, x8
    str     x10, [x6, x9, lsl #3]

    // Guarded pages (BTI) where the CPU has them; the bit is RES0 elsewhere.
    mov     x11, #0
    mrs     x9, id_aa64pfr1_el1
    tst     x9, #0xf
    b.eq    1f
    mov     x11, #(1 << 50)
1:  map_pages __image_start, __text_end, {PAGE_TEXT}
    mov     x11, #0
    map_pages __text_end, __rodata_end, {PAGE_RODATA}
    map_pages __rodata_end, __data_end, {PAGE_DATA}
    map_pages __boot_stack_bottom, __boot_stack_top, {PAGE_DATA}
    map_pages __crash_stack_bottom, __crash_stack_top, {PAGE_DATA}
    dsb     sy
    ret     x15

// x0, x1: first and last address; x2 | x11: attributes; x7: the level 3 table.
map_range:
    orr     x2, x2, x11
1:  cmp     x0, x1
    b.hs    2f
    ubfx    x9, x0, #12, #9
    orr     x10, x0, x2
    str     x10, [x7, x9, lsl #3]
    add     x0, x0, #0x1000
    b       1b
2:  ret

// Turns on EL2's MMU and caches. The contents of the TLBs are unknown here, and no broadcast reached
// a CPU that was off, so it empties its own, those of the host's regime included (D8.16).
mmu_on:
    mov_imm x0, {MAIR}
    msr     mair_el2, x0
    mov_imm x0, {TCR}
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #0xf                // PARange
    mov     x2, #{PARANGE_48}
    cmp     x1, x2
    csel    x1, x1, x2, lo              // 52 bits need descriptors of another form
    bfi     x0, x1, #16, #3             // PS
    msr     tcr_el2, x0
    adrp    x0, __boot_tables
    msr     ttbr0_el2, x0
    isb
    tlbi    alle2
    tlbi    alle1
    ic      iallu
    dsb     nsh
    isb
    mov_imm x0, {SCTLR_ON}
    mrs     x1, id_aa64pfr1_el1
    tst     x1, #0xf
    b.eq    1f
    orr     x0, x0, #(1 << 36)          // BT: guarded pages count for PACIASP too
1:  mrs     x1, id_aa64mmfr2_el1
    tst     x1, #0xf000
    b.eq    2f
    orr     x0, x0, #(1 << 21)          // IESB: errors of the past are told at each entry
2:  msr     sctlr_el2, x0
    isb
    ret

// Gives EL2 its own key for signed return addresses and turns them on, where the CPU has them. Called
// where no signed address is live.
pauth_on:
    mrs     x0, id_aa64isar1_el1
    mrs     x1, id_aa64isar2_el1
    mov     x2, #0xff0                  // APA, API
    and     x0, x0, x2
    and     x1, x1, #0xf000             // APA3
    orr     x0, x0, x1
    cbz     x0, 2f
    mrs     x3, cntpct_el0
    mrs     x4, mpidr_el1
    mov_imm x5, 0x9e3779b97f4a7c15
    eor     x3, x3, x4
    mul     x3, x3, x5
    eor     x4, x3, x3, ror #29
    mul     x4, x4, x5
    mrs     x0, id_aa64isar0_el1
    lsr     x0, x0, #60                 // RNDR
    cbz     x0, 1f
    mrs     x5, s3_3_c2_c4_0            // RNDR: 0 where none was ready
    mrs     x6, s3_3_c2_c4_0
    eor     x3, x3, x5
    eor     x4, x4, x6
1:  msr     s3_0_c2_c1_0, x3            // APIAKeyLo_EL1
    msr     s3_0_c2_c1_1, x4            // APIAKeyHi_EL1
    mrs     x0, tpidr_el2
    stp     x3, x4, [x0, #{EL2_KEY}]
    mov     x5, #1
    str     x5, [x0, #{HAS_PAUTH}]
    mrs     x0, sctlr_el2
    orr     x0, x0, #(1 << 31)          // EnIA
    msr     sctlr_el2, x0
    isb
2:  ret
