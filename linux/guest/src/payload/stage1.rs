//! Stage 1 of the guest's own: an identity map, so that the TLB holds entries made of both stages.

use core::arch::asm;

use super::memory;

/// 1 GiB blocks: valid, AttrIndx 0, AP read and write at EL1, inner shareable, AF (Arm ARM, D8.3.1).
const BLOCK: u64 = 1 | 3 << 8 | 1 << 10;
const BLOCK_BYTES: u64 = 1 << 30;
/// Normal, write-back, read and write allocate, inner and outer (Arm ARM, D24.2.109).
const MAIR: u64 = 0xff;
/// 39 bits by TTBR0, none by TTBR1 (EPD1); walks inner shareable and write-back; 4 KiB; output
/// addresses of 40 bits (Arm ARM, D24.2.189).
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32;
/// SCTLR_EL1: M, C, I.
const MMU_AND_CACHES: u64 = 1 << 0 | 1 << 2 | 1 << 12;

/// Builds the one table and turns stage 1 on.
pub fn turn_on(table: u64) {
    let mut index = 0;
    while index < 512 {
        memory::write(table + index * 8, (index * BLOCK_BYTES) | BLOCK);
        index += 1;
    }
    // SAFETY: the map is the identity, so code, stack and data stay where they are. The table's stores
    // are complete, and no older translation can be left, before translation begins.
    unsafe {
        asm!(
            "dsb ish", "msr mair_el1, {mair}", "msr tcr_el1, {tcr}", "msr ttbr0_el1, {table}", "isb",
            "tlbi vmalle1", "dsb nsh", "isb",
            "mrs {old}, sctlr_el1", "orr {old}, {old}, {on}", "msr sctlr_el1, {old}", "isb",
            mair = in(reg) MAIR, tcr = in(reg) TCR, table = in(reg) table, on = in(reg) MMU_AND_CACHES,
            old = out(reg) _, options(nostack),
        );
    }
}

/// Turns stage 1 off.
pub fn turn_off() {
    // SAFETY: the map was the identity. Data may be left in caches only, which QEMU doesn't have; on
    // hardware, stage 2 makes all of guest memory cacheable in both cases or the suite maps it anew.
    unsafe {
        asm!(
            "mrs {old}, sctlr_el1", "bic {old}, {old}, {on}", "msr sctlr_el1, {old}", "isb",
            "tlbi vmalle1", "dsb nsh", "isb",
            on = in(reg) MMU_AND_CACHES, old = out(reg) _, options(nostack),
        );
    }
}
