//! Data-cache maintenance by address, to the point of coherency; and zeroes, a block of lines at a time.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use verdigris_abi::{PAGE_SIZE, Pa};
use verdigris_core::cpu::IdRegisters;

use super::percpu;
use super::sysreg::{self, dsb_sy};

/// The smallest line size of the data caches of all CPUs that ran so far. An instruction by address reaches
/// the caches of all, and one of them may have smaller lines than the CPU that executes it.
static LINE_BYTES: AtomicU64 = AtomicU64::new(2 << 10);

/// Takes the caches of a CPU into account, before it runs anyone (CTR_EL0.DminLine, log2 of words).
pub fn reckon_with(id: &IdRegisters) {
    LINE_BYTES.fetch_min(id.data_line_bytes(), Ordering::Relaxed);
}

fn line_bytes() -> u64 {
    LINE_BYTES.load(Ordering::Relaxed)
}

/// Applies one instruction to each line of a range.
macro_rules! by_line {
    ($instruction:literal, $pa:expr, $bytes:expr) => {{
        let (step, end) = (line_bytes(), $pa.0 + $bytes);
        let mut line = $pa.0 & !(step - 1);
        // The test stands at the end, so that a line costs four instructions.
        loop {
            // SAFETY: all RAM is mapped at EL2 at its own address. Cleaning writes back what memory
            // should hold already; it changes no value that anyone can read. A range is not empty.
            unsafe {
                core::arch::asm!(concat!($instruction, ", {}"), in(reg) line,
                    options(nostack, preserves_flags));
            }
            line += step;
            if line >= end {
                break;
            }
        }
        dsb_sy();
    }};
}

/// Cleans a range of RAM. On a CPU whose cleaning may lose data it invalidates too (Cortex-A53 826319 and its
/// kin).
pub fn clean(pa: Pa, bytes: u64) {
    if percpu::this().cpu().selection.errata.clean_invalidates {
        return clean_invalidate(pa, bytes);
    }
    by_line!("dc cvac", pa, bytes);
}

/// Cleans and invalidates a range of RAM.
pub fn clean_invalidate(pa: Pa, bytes: u64) {
    by_line!("dc civac", pa, bytes);
}

/// Zeroes blocks of memory from the start of a page on, until so many bytes are zero; `false`, and nothing
/// done, if the CPU has no instruction for it.
///
/// The block is a power of two of at most 2 KiB (DCZID_EL0.BS, Arm ARM DDI 0487, D24.2.38), so the last one
/// ends within the page.
#[inline]
pub fn zero(page: Pa, bytes: u64) -> bool {
    const PROHIBITED: u64 = 1 << 4;
    let id = sysreg::read!("dczid_el0");
    if id & PROHIBITED != 0 {
        return false;
    }
    let block_bytes = 4 << (id & 0xf);
    assert!(page.is_aligned(PAGE_SIZE) && bytes <= PAGE_SIZE, "within a page");
    let mut at = page.0;
    while at < page.0 + bytes {
        // SAFETY: the caller may write the page, which is RAM, mapped at EL2 at its own address as Normal
        // memory. What another writes there at the same time is single bytes of either.
        unsafe { core::arch::asm!("dc zva, {}", in(reg) at, options(nostack, preserves_flags)) };
        at += block_bytes;
    }
    true
}
