//! Counters, the virtual timer, and waiting.

use core::arch::asm;

macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: the read of a register has no effect on memory.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack)) };
        value
    }};
}
pub(super) use read_register;

/// Reads counter and virtual timer.
pub fn counters(results: &mut [u64; 8]) {
    *results = [
        0,
        read_register!("cntvct_el0"),
        read_register!("cntfrq_el0"),
        read_register!("cntv_ctl_el0"),
        read_register!("cntv_cval_el0"),
        read_register!("cntkctl_el1"),
        0,
        0,
    ];
}

/// Waits for an interrupt (0) or an event.
pub fn wait(kind: u64) {
    // SAFETY: waiting changes no memory; the suite runs the vCPU again.
    unsafe {
        match kind {
            0 => asm!("wfi", options(nostack)),
            // The first may find the event register set.
            _ => asm!("sevl", "wfe", "wfe", options(nostack)),
        }
    }
}
