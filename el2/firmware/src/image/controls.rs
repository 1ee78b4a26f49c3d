//! Writes EL2's control registers, whose values `verdigris_core::cpu` computes.
#![allow(unsafe_code)]

use verdigris_core::cpu::{Controls, Fixed, HOST_ENTRY_SCTLR_EL1};

use super::sysreg::{isb, write};

/// Writes a register only where the CPU has it.
macro_rules! write_present {
    ($( $name:literal = $value:expr; )*) => { $(
        if let Some(value) = $value {
            write!($name, value);
        }
    )* };
}

/// Writes the registers that differ between host and guests.
///
/// # Safety
/// The values are those of whoever runs next on this CPU, and come from this CPU's ID registers.
pub unsafe fn apply(controls: &Controls) {
    // SAFETY: the caller's word; no register of EL2's own regime is among these.
    unsafe {
        write!("hcr_el2", controls.hcr);
        write!("cptr_el2", controls.cptr);
        write!("mdcr_el2", controls.mdcr);
        write!("cnthctl_el2", controls.cnthctl);
        write_present! {
            "s3_4_c1_c2_2" = controls.hcrx; // HCRX_EL2
            "s3_4_c10_c5_0" = controls.mpam2; // MPAM2_EL2
            "s3_4_c10_c4_0" = controls.mpamhcr; // MPAMHCR_EL2
            "s3_4_c12_c9_5" = controls.icc_sre; // ICC_SRE_EL2
            "s3_4_c12_c11_0" = controls.ich_hcr; // ICH_HCR_EL2
        }
        apply_fine(controls);
    }
    isb();
}

/// Writes the fine-grained traps.
///
/// # Safety
/// As [`apply`].
unsafe fn apply_fine(controls: &Controls) {
    // SAFETY: the caller's word.
    unsafe {
        if let Some(fine) = controls.fine {
            write!("s3_4_c1_c1_4", fine.hfgrtr); // HFGRTR_EL2
            write!("s3_4_c1_c1_5", fine.hfgwtr); // HFGWTR_EL2
            write!("s3_4_c1_c1_6", fine.hfgitr); // HFGITR_EL2
            write!("s3_4_c3_c1_4", fine.hdfgrtr); // HDFGRTR_EL2
            write!("s3_4_c3_c1_5", fine.hdfgwtr); // HDFGWTR_EL2
            write_present! { "s3_4_c3_c1_6" = fine.hafgrtr; } // HAFGRTR_EL2
        }
        if let Some(fine) = controls.fine2 {
            write!("s3_4_c3_c1_2", fine.hfgrtr2); // HFGRTR2_EL2
            write!("s3_4_c3_c1_3", fine.hfgwtr2); // HFGWTR2_EL2
            write!("s3_4_c3_c1_7", fine.hfgitr2); // HFGITR2_EL2
            write!("s3_4_c3_c1_0", fine.hdfgrtr2); // HDFGRTR2_EL2
            write!("s3_4_c3_c1_1", fine.hdfgwtr2); // HDFGWTR2_EL2
        }
    }
}

/// Writes the registers that never change again, and those of EL1 that must not be left unknown.
///
/// # Safety
/// Nobody has run below EL2 on this CPU since it came out of reset, and the host's [`Controls`] are
/// in force, so that nothing written here traps.
pub unsafe fn apply_fixed(fixed: &Fixed, has_mpam: bool) {
    // SAFETY: the caller's word.
    unsafe {
        write!("vpidr_el2", fixed.vpidr);
        write!("vmpidr_el2", fixed.vmpidr);
        write!("hstr_el2", fixed.hstr);
        write!("cntvoff_el2", fixed.cntvoff);
        write!("sctlr_el1", HOST_ENTRY_SCTLR_EL1);
        if has_mpam {
            // The default partition, before MPAM2_EL2 lets EL1 choose.
            write!("s3_0_c10_c5_0", 0); // MPAM1_EL1
            write!("s3_0_c10_c5_1", 0); // MPAM0_EL1
        }
        write_present! {
            "s3_4_c1_c2_0" = fixed.zcr; // ZCR_EL2
            "s3_4_c1_c2_6" = fixed.smcr; // SMCR_EL2
            "s3_4_c1_c2_1" = fixed.trfcr; // TRFCR_EL2
            "s2_4_c9_c0_0" = fixed.brbcr; // BRBCR_EL2
            "s3_4_c9_c9_0" = fixed.pmscr; // PMSCR_EL2
            "s3_4_c13_c0_7" = fixed.scxtnum; // SCXTNUM_EL2
            "s3_4_c2_c0_3" = fixed.tcr2; // TCR2_EL2
            "s3_4_c1_c0_3" = fixed.sctlr2; // SCTLR2_EL2
            "s3_4_c2_c5_0" = fixed.gcscr; // GCSCR_EL2
        }
    }
    isb();
}
