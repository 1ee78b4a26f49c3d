//! The assembly of the image, and the numbers that it needs from Rust.
//!
//! EL2's own tables: identity, 4 KiB granule, 48 bits, one set of rights a page (Arm ARM D8.3, stage 1
//! descriptors of a regime with one privilege level: AP[1] is RES1, XN is bit 54).
#![allow(unsafe_code)]

use core::arch::global_asm;

use super::percpu::{self, offset};
use super::{crash, frame, mmu, start, trap};

/// SCTLR_EL2 with the MMU off: the RES1 bits of an EL2 with E2H 0 (D19.2.118): EIS, EOS and those that
/// have no meaning in this regime.
const SCTLR_OFF: u64 = 0x30c5_0830;
/// M, C, SA, I, WXN on top of that. No alignment checks (A): Rust's `strict-align` makes none needed.
const SCTLR_ON: u64 = SCTLR_OFF | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;
/// HCR_EL2 while nobody runs below: EL1 is AArch64, E2H is 0.
const HCR_BOOT: u64 = 1 << 31;
/// TCR_EL2: T0SZ 16 (48 bits), walks inner shareable write-back, 4 KiB granule, RES1 bits 23 and 31.
/// PS is filled in at run time.
const TCR: u64 = 1 << 31 | 1 << 23 | 0b11 << 12 | 0b01 << 10 | 0b01 << 8 | 16;
/// ID_AA64MMFR0_EL1.PARange, and TCR_EL2.PS, for 48 bits.
const PARANGE_48: u64 = 5;

global_asm!(
    include_str!("vectors.S"),
    include_str!("boot.S"),
    boot_percpu = sym percpu::BOOT,
    main = sym start::main,
    secondary_main = sym start::secondary_main,
    crash = sym crash::from_vector,
    host_sync = sym trap::host_sync,
    crash_vectors = sym crash_vectors,
    STACK_TOP = const offset::STACK_TOP,
    CRASH_STACK_TOP = const offset::CRASH_STACK_TOP,
    EL2_KEY = const offset::EL2_KEY,
    HAS_PAUTH = const offset::HAS_PAUTH,
    CRASH_X = const offset::CRASH_X,
    CRASH_SP = const offset::CRASH_SP,
    FRAME_SIZE = const frame::SIZE,
    FRAME_KEY = const frame::KEY_OFFSET,
    HCR_BOOT = const HCR_BOOT,
    SCTLR_OFF = const SCTLR_OFF,
    SCTLR_ON = const SCTLR_ON,
    MAIR = const mmu::MAIR,
    TCR = const TCR,
    PARANGE_48 = const PARANGE_48,
    TABLE = const mmu::TABLE,
    PAGE_TEXT = const mmu::TEXT | mmu::PAGE,
    PAGE_RODATA = const mmu::RODATA | mmu::PAGE,
    PAGE_DATA = const mmu::DATA | mmu::PAGE,
);

unsafe extern "C" {
    static crash_vectors: u8;
    static host_vectors: u8;
    fn boot_secondary();
    fn host_start(x0: u64, sp: u64) -> !;
}

/// Returns the address of the vectors that are in force while the host runs.
pub fn host_vectors_address() -> u64 {
    (&raw const host_vectors) as u64
}

/// Returns where a CPU enters that PSCI starts with the address of its [`percpu::PerCpu`].
pub fn secondary_entry() -> u64 {
    boot_secondary as *const () as u64
}

/// Leaves for the host at the address and state that ELR_EL2 and SPSR_EL2 hold.
///
/// # Safety
/// All registers of the host's level are set, and nothing on this CPU's stack is needed any more.
pub unsafe fn enter_host(x0: u64) -> ! {
    let stack_top = percpu::this().stack_top.get();
    // SAFETY: the caller's word; the stack starts anew at the next exception.
    unsafe { host_start(x0, stack_top) }
}
