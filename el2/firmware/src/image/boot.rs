//! The assembly of the image, and the numbers that it needs from Rust.
//!
//! EL2's own tables: identity, 4 KiB granule, 48 bits, one set of rights a page (Arm ARM D8.3, stage 1
//! descriptors of a regime with one privilege level: AP[1] is RES1, XN is bit 54).
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::ptr;

use verdigris_core::cpu::IdRegisters;
use verdigris_core::guest::{Context, FpRegisters, Slot};

use super::percpu::{self, PerCpu, offset};
use super::{crash, fault, frame, mmu, start, trap};

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
    include_str!("guest.S"),
    include_str!("boot.S"),
    boot_percpu = sym percpu::BOOT,
    main = sym start::main,
    secondary_main = sym start::secondary_main,
    crash = sym crash::from_vector,
    host_sync = sym trap::host_sync,
    guest_fault = sym fault::guest_fault,
    crash_vectors = sym crash_vectors,
    STACK_TOP = const offset::STACK_TOP,
    CRASH_STACK_TOP = const offset::CRASH_STACK_TOP,
    EL2_KEY = const offset::EL2_KEY,
    HAS_PAUTH = const offset::HAS_PAUTH,
    CRASH_X = const offset::CRASH_X,
    CRASH_SP = const offset::CRASH_SP,
    CONTEXT_X = const offset_of!(Context, general),
    CONTEXT_KEY = const offset_of!(Context, system) + 8 * Slot::ApiaLo as usize,
    FRAME_SIZE = const frame::SIZE,
    ABORT_SIZE = const ABORT_SIZE,
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

/// Bytes of stack for what a function may spoil of a guest: x2 to x18, x29, x30, and its key.
const ABORT_SIZE: usize = 176;

unsafe extern "C" {
    static crash_vectors: u8;
    static host_vectors: u8;
    static host_vectors_pauth: u8;
    static guest_vectors: u8;
    static guest_vectors_pauth: u8;
    fn boot_secondary();
    fn host_start(x0: u64, sp: u64) -> !;
    fn guest_enter();
    fn fp_save(to: *mut FpRegisters);
    fn fp_load(from: *const FpRegisters);
    fn fp_save_sve(vectors: u64, status: u64, has_ffr: u64);
    fn fp_load_sve(vectors: u64, status: u64, has_ffr: u64);
}

/// Returns the address of the vectors that are in force while the host runs on a CPU.
pub fn host_vectors_address(id: &IdRegisters) -> u64 {
    (if id.has_pauth() { &raw const host_vectors_pauth } else { &raw const host_vectors }) as u64
}

/// Returns the address of the vectors that are in force while a guest runs on a CPU.
pub fn guest_vectors_address(id: &IdRegisters) -> u64 {
    (if id.has_pauth() { &raw const guest_vectors_pauth } else { &raw const guest_vectors }) as u64
}

/// Enters a guest and returns the kind of the exception that ended it: 0 synchronous, 1 IRQ, 2 FIQ,
/// 3 SError.
///
/// # Safety
/// All of the guest's EL1 is loaded, ELR_EL2 and SPSR_EL2 are its own, and its vectors in force.
#[inline(always)]
pub unsafe fn enter_guest(context: &mut Context, percpu: &PerCpu) -> u64 {
    let kind: u64;
    // SAFETY: the caller's word. The guest leaves no register as it was but x19 and x29, which the
    // assembly keeps because the compiler doesn't let them be named. The stack is used below SP.
    unsafe {
        asm!("bl {enter}", enter = sym guest_enter,
            inout("x0") ptr::from_mut(context) => kind, inout("x1") ptr::from_ref(percpu) => _,
            out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
            out("x14") _, out("x15") _, out("x16") _, out("x17") _, out("x18") _, out("x20") _,
            out("x21") _, out("x22") _, out("x23") _, out("x24") _, out("x25") _, out("x26") _,
            out("x27") _, out("x28") _, out("x30") _);
    }
    kind
}

/// Where FPSR and FPCR stand in a CPU's area for FP registers, behind 32 vectors, 16 predicates and
/// FFR of the largest length (256 and 32 bytes).
const FP_STATUS_OFFSET: u64 = 32 * 256 + 17 * 32;
/// Pages of that area.
pub const FP_AREA_PAGES: u64 = (FP_STATUS_OFFSET + 16).div_ceil(verdigris_abi::PAGE_SIZE);

/// Saves the host's FP/SIMD registers, all of SVE where the CPU has it.
///
/// # Safety
/// CPTR_EL2 lets EL2 use what the CPU has, and the host is not in streaming mode.
pub unsafe fn fp_save_host(percpu: &PerCpu) {
    let area = percpu.fp_area.get();
    // SAFETY: the area was allocated for this; FFR can be used outside streaming mode.
    unsafe {
        if percpu.cpu().id.has_sve() {
            fp_save_sve(area, area + FP_STATUS_OFFSET, 1);
        } else {
            fp_save(area as *mut FpRegisters);
        }
    }
}

/// Loads what [`fp_save_host`] saved.
///
/// # Safety
/// As [`fp_save_host`].
pub unsafe fn fp_load_host(percpu: &PerCpu) {
    let area = percpu.fp_area.get();
    // SAFETY: as in `fp_save_host`.
    unsafe {
        if percpu.cpu().id.has_sve() {
            fp_load_sve(area, area + FP_STATUS_OFFSET, 1);
        } else {
            fp_load(area as *const FpRegisters);
        }
    }
}

/// Saves a guest's FP/SIMD registers.
///
/// # Safety
/// CPTR_EL2 lets EL2 use them.
pub unsafe fn fp_save_guest(to: &mut FpRegisters) {
    // SAFETY: the caller's word.
    unsafe { fp_save(to) }
}

/// Loads a guest's FP/SIMD registers; what is above 128 bits becomes zero.
///
/// # Safety
/// CPTR_EL2 lets EL2 use them.
pub unsafe fn fp_load_guest(from: &FpRegisters) {
    // SAFETY: the caller's word.
    unsafe { fp_load(from) }
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
