//! Stops the host's profiling, trace and branch records while a guest runs.
//!
//! They write to memory by themselves, through the translation of whoever owns their buffer, which a
//! change of MDCR_EL2 or VTTBR_EL2 would swap under them. So they are stopped and drained before, and go
//! on after (Arm ARM D16.3 for statistical profiling, D14 for trace). QEMU models none of them.
#![allow(unsafe_code)]

use verdigris_core::cpu::{Fixed, IdRegisters};

use super::sysreg::{dsb_nsh, isb, read, write};

/// The host's settings, where the CPU has such records.
#[derive(Clone, Copy)]
pub struct Stopped {
    /// PMSCR_EL1 (FEAT_SPE).
    sampling: Option<u64>,
    /// TRFCR_EL1 (FEAT_TRF).
    trace: Option<u64>,
    /// BRBCR_EL1 (FEAT_BRBE).
    branches: Option<u64>,
}

/// Tells whether a CPU has any such record.
pub const fn is_present(id: &IdRegisters, fixed: &Fixed) -> bool {
    fixed.pmscr.is_some() || id.has_trace_filter() || id.has_brbe()
}

impl Stopped {
    /// What is stopped where nothing records.
    pub const NOTHING: Self = Self { sampling: None, trace: None, branches: None };

    /// Stops all records and waits until what they hold is in memory.
    pub fn begin(id: &IdRegisters, fixed: &Fixed) -> Self {
        let stopped = Self {
            // Where the buffer is EL3's, so is the register.
            sampling: fixed.pmscr.map(|_| read!("s3_0_c9_c9_0")),
            trace: id.has_trace_filter().then(|| read!("s3_0_c1_c2_1")),
            branches: id.has_brbe().then(|| read!("s2_1_c9_c0_0")),
        };
        stopped.write(|_| 0);
        if stopped.sampling.is_some() || stopped.trace.is_some() {
            isb();
            // SAFETY: `psb csync` and `tsb csync` are barriers, and hints on a CPU without the feature.
            unsafe { core::arch::asm!("hint #17", "hint #18", options(nostack, preserves_flags)) }
            dsb_nsh();
        }
        stopped
    }

    /// Lets them go on.
    pub fn end(&self) {
        self.write(|setting| setting);
    }

    fn write(&self, value: impl Fn(u64) -> u64) {
        // SAFETY: registers of EL1's own records, while EL2 runs; none of them records EL2.
        unsafe {
            if let Some(setting) = self.sampling {
                write!("s3_0_c9_c9_0", value(setting));
            }
            if let Some(setting) = self.trace {
                write!("s3_0_c1_c2_1", value(setting));
            }
            if let Some(setting) = self.branches {
                write!("s2_1_c9_c0_0", value(setting));
            }
        }
    }
}
