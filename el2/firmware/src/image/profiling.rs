//! Stops the host's profiling, trace and branch records while another stage 2 is in force.
//!
//! The buffers of sampling and trace are written through the translation of whoever owns them, which a
//! change of MDCR_EL2 or VTTBR_EL2 swaps under them. An enabled buffer may translate at any time, out of context
//! and speculatively too, although nothing is recorded. So records are stopped, drained to memory, and the
//! buffers disabled before, and enabled after, where the owner's translation is back (Arm ARM DDI 0487, D16.3 for
//! statistical profiling, D14 and D6 for trace; Linux 07695f7dc1e1 and d133aa75e39d, of the same in KVM).
//! A buffer that is off is left alone: nothing is drained then. QEMU models none of them.
#![allow(unsafe_code)]

use verdigris_core::cpu::{Errata, Fixed, IdRegisters};

use super::sysreg::{dsb_nsh, isb, read, write};

/// PMBLIMITR_EL1.E and TRBLIMITR_EL1.E.
const ENABLED: u64 = 1;

/// A control of what is recorded, and the register that enables its buffer.
#[derive(Clone, Copy)]
struct Buffer {
    control: u64,
    limit: u64,
}

/// The host's settings, where the CPU has such records and they were on.
#[derive(Clone, Copy)]
pub struct Stopped {
    /// PMSCR_EL1 and PMBLIMITR_EL1 (FEAT_SPE).
    sampling: Option<Buffer>,
    /// TRFCR_EL1 and TRBLIMITR_EL1 (FEAT_TRF, FEAT_TRBE).
    trace: Option<Buffer>,
    /// BRBCR_EL1 (FEAT_BRBE).
    branches: Option<u64>,
    /// The trace unit is on later than it says ([`Errata::slow_trace`]).
    is_slow: bool,
}

/// Tells whether a CPU has any such record, of those that EL3 leaves to us.
pub const fn is_present(id: &IdRegisters, fixed: &Fixed) -> bool {
    id.has_own_spe() || has_trace(id) || fixed.brbcr.is_some()
}

/// A trace buffer of ours is filtered by TRFCR_EL1. Without one, trace goes where stage 2 has no say.
const fn has_trace(id: &IdRegisters) -> bool {
    id.has_own_trbe() && id.has_trace_filter()
}

impl Stopped {
    /// What is stopped where nothing records.
    pub const NOTHING: Self = Self { sampling: None, trace: None, branches: None, is_slow: false };

    /// Stops all records, waits until what they hold is in memory, and disables their buffers.
    #[inline(never)]
    pub fn begin(id: &IdRegisters, fixed: &Fixed, errata: &Errata) -> Self {
        // SAFETY: registers of EL1's own records, which EL3 leaves to us, while EL2 runs.
        unsafe {
            Self {
                sampling: if id.has_own_spe() { stop_sampling() } else { None },
                trace: if has_trace(id) { Some(stop_trace(errata)) } else { None },
                branches: fixed.brbcr.is_some().then(|| {
                    let control = read!("s2_1_c9_c0_0");
                    write!("s2_1_c9_c0_0", 0);
                    control
                }),
                is_slow: errata.slow_trace,
            }
        }
    }

    /// Lets them go on. The owner's stage 1 and stage 2 have been written.
    #[inline(never)]
    pub fn end(&self) {
        // SAFETY: the values that the host had; an ISB puts its translation in force before a buffer is.
        unsafe {
            if let Some(Buffer { control, limit }) = self.sampling {
                isb();
                write!("s3_0_c9_c10_0", limit);
                isb();
                write!("s3_0_c9_c9_0", control);
            }
            if let Some(Buffer { control, limit }) = self.trace {
                if limit & ENABLED != 0 {
                    isb();
                    write!("s3_0_c9_c11_0", limit);
                    isb();
                    if self.is_slow {
                        isb();
                    }
                }
                write!("s3_0_c1_c2_1", control);
            }
            if let Some(control) = self.branches {
                write!("s2_1_c9_c0_0", control);
            }
        }
    }
}

/// Stops samples, if there is a buffer for them.
///
/// # Safety
/// The CPU has PMSCR_EL1 and PMBLIMITR_EL1, and EL3 lets EL2 use them.
unsafe fn stop_sampling() -> Option<Buffer> {
    let limit = read!("s3_0_c9_c10_0");
    if limit & ENABLED == 0 {
        return None;
    }
    let control = read!("s3_0_c9_c9_0");
    // SAFETY: the caller's word.
    unsafe {
        write!("s3_0_c9_c9_0", 0);
        isb();
        core::arch::asm!("hint #17", options(nostack, preserves_flags)); // psb csync
        dsb_nsh();
        write!("s3_0_c9_c10_0", 0);
    }
    isb();
    Some(Buffer { control, limit })
}

/// Stops trace, and its buffer if that is on.
///
/// # Safety
/// The CPU has TRFCR_EL1 and TRBLIMITR_EL1, and EL3 lets EL2 use them.
unsafe fn stop_trace(errata: &Errata) -> Buffer {
    let (control, limit) = (read!("s3_0_c1_c2_1"), read!("s3_0_c9_c11_0"));
    // SAFETY: the caller's word.
    unsafe {
        write!("s3_0_c1_c2_1", 0);
        if limit & ENABLED != 0 {
            isb();
            if errata.drain_twice {
                tsb_csync();
            }
            tsb_csync();
            dsb_nsh();
            write!("s3_0_c9_c11_0", 0);
            if errata.slow_trace {
                tsb_csync();
                dsb_nsh();
            }
            isb();
        }
    }
    Buffer { control, limit }
}

/// Waits until all trace has left the trace unit.
fn tsb_csync() {
    // SAFETY: a barrier, and a hint on a CPU without the feature.
    unsafe { core::arch::asm!("hint #18", options(nostack, preserves_flags)) }
}
