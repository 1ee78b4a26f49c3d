//! Data-cache maintenance by address, to the point of coherency.
#![allow(unsafe_code)]

use verdigris_abi::Pa;

use super::sysreg::{self, dsb_sy};

/// Returns the smallest line size of the data caches in bytes (CTR_EL0.DminLine).
fn line_bytes() -> u64 {
    4 << (sysreg::read!("ctr_el0") >> 16 & 0xf)
}

/// Applies one instruction to each line of a range.
macro_rules! by_line {
    ($instruction:literal, $pa:expr, $bytes:expr) => {{
        let step = line_bytes();
        let mut line = $pa.0 & !(step - 1);
        while line < $pa.0 + $bytes {
            // SAFETY: all RAM is mapped at EL2 at its own address. Cleaning writes back what memory
            // should hold already; it changes no value that anyone can read.
            unsafe {
                core::arch::asm!(concat!($instruction, ", {}"), in(reg) line,
                    options(nostack, preserves_flags));
            }
            line += step;
        }
        dsb_sy();
    }};
}

/// Cleans a range of RAM.
pub fn clean(pa: Pa, bytes: u64) {
    by_line!("dc cvac", pa, bytes);
}

/// Cleans and invalidates a range of RAM.
pub fn clean_invalidate(pa: Pa, bytes: u64) {
    by_line!("dc civac", pa, bytes);
}
