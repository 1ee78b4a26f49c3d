//! Writes EL2's control registers, whose values `verdigris_core::cpu` computes.
#![allow(unsafe_code)]

use core::array;

use verdigris_core::cpu::{Controls, Errata, Fixed, HOST_ENTRY_SCTLR_EL1};

use super::sysreg::{isb, write};

/// Writes a register only where the CPU has it.
macro_rules! write_present {
    ($( $name:literal = $value:expr; )*) => { $(
        if let Some(value) = $value {
            write!($name, value);
        }
    )* };
}

/// Calls a macro with the registers of [`Controls`] that not every CPU has: a number for each, its name
/// for the assembler, and its value, `None` where the CPU doesn't have it. Those that most CPUs switch
/// come first.
macro_rules! for_each_optional {
    ($callback:ident) => {
        $callback! {
            0 "s3_4_c12_c9_5" |all| all.icc_sre; // ICC_SRE_EL2
            1 "s3_4_c12_c11_0" |all| all.ich_hcr; // ICH_HCR_EL2
            2 "s3_4_c1_c1_4" |all| all.fine.map(|fine| fine.hfgrtr); // HFGRTR_EL2
            3 "s3_4_c1_c1_5" |all| all.fine.map(|fine| fine.hfgwtr); // HFGWTR_EL2
            4 "s3_4_c1_c1_6" |all| all.fine.map(|fine| fine.hfgitr); // HFGITR_EL2
            5 "s3_4_c1_c2_2" |all| all.hcrx; // HCRX_EL2
            6 "s3_4_c10_c5_0" |all| all.mpam2; // MPAM2_EL2
            7 "s3_4_c10_c4_0" |all| all.mpamhcr; // MPAMHCR_EL2
            8 "s3_4_c3_c1_4" |all| all.fine.map(|fine| fine.hdfgrtr); // HDFGRTR_EL2
            9 "s3_4_c3_c1_5" |all| all.fine.map(|fine| fine.hdfgwtr); // HDFGWTR_EL2
            10 "s3_4_c3_c1_6" |all| all.fine.and_then(|fine| fine.hafgrtr); // HAFGRTR_EL2
            11 "s3_4_c3_c1_2" |all| all.fine2.map(|fine| fine.hfgrtr2); // HFGRTR2_EL2
            12 "s3_4_c3_c1_3" |all| all.fine2.map(|fine| fine.hfgwtr2); // HFGWTR2_EL2
            13 "s3_4_c3_c1_7" |all| all.fine2.map(|fine| fine.hfgitr2); // HFGITR2_EL2
            14 "s3_4_c3_c1_0" |all| all.fine2.map(|fine| fine.hdfgrtr2); // HDFGRTR2_EL2
            15 "s3_4_c3_c1_1" |all| all.fine2.map(|fine| fine.hdfgwtr2); // HDFGWTR2_EL2
            16 "s3_4_c10_c5_4" |all| all.mpambw2; // MPAMBW2_EL2
            17 "s3_4_c12_c9_4" |all| all.gicv5.map(|fine| fine[0]); // ICH_HFGRTR_EL2
            18 "s3_4_c12_c9_6" |all| all.gicv5.map(|fine| fine[1]); // ICH_HFGWTR_EL2
            19 "s3_4_c12_c9_7" |all| all.gicv5.map(|fine| fine[2]); // ICH_HFGITR_EL2
        }
    };
}

/// How many there are.
const OPTIONAL_COUNT: usize = 20;
/// The first two, as bits: a CPU has both or none, so they are written together.
const INTERRUPTS: u32 = 0b11;
/// The three behind these; likewise.
const FINE: u32 = 0b1_1100;
/// No register: HCR_EL2 is written between a DSB and an ISB, by an erratum.
const HCR_BARRIERS: u32 = 1 << 31;
/// All others.
const SELDOM: u32 = !(INTERRUPTS | FINE | HCR_BARRIERS);

/// The control registers of one side, host or guest, ready to be written to one CPU.
pub struct Prepared {
    /// HCR_EL2, CPTR_EL2, MDCR_EL2 and CNTHCTL_EL2, which all CPUs have.
    always: [u64; 4],
    /// VBAR_EL2.
    vectors: u64,
    /// Which of the others are written, a bit each.
    which: u32,
    optional: [u64; OPTIONAL_COUNT],
}

macro_rules! optional {
    ($( $number:literal $name:literal $value:expr; )*) => {
        /// Lists the values of the registers that not every CPU has.
        fn optional(controls: &Controls) -> [Option<u64>; OPTIONAL_COUNT] {
            fn get(value: fn(&Controls) -> Option<u64>, controls: &Controls) -> Option<u64> {
                value(controls)
            }
            [$( get($value, controls), )*]
        }

        impl Prepared {
            /// Writes those of a set.
            ///
            /// # Safety
            /// As [`Prepared::write`].
            #[inline(always)]
            unsafe fn write_optional(&self, which: u32) {
                // SAFETY: the caller's word; these registers exist.
                unsafe {
                    $( if which & 1 << $number != 0 {
                        write!($name, self.optional[$number]);
                    } )*
                }
            }
        }
    };
}

for_each_optional!(optional);

impl Prepared {
    /// Prepares all registers that a CPU has.
    pub fn all(controls: &Controls, vectors: u64) -> Self {
        Self::new(controls, vectors, optional(controls).map(|value| value.is_some()))
    }

    /// Prepares what has to be written when a CPU changes from the other side to this one: what both
    /// have alike is there already.
    pub fn differing(controls: &Controls, vectors: u64, other: &Controls) -> Self {
        let (own, other) = (optional(controls), optional(other));
        Self::new(controls, vectors, array::from_fn(|number| own[number] != other[number]))
    }

    fn new(controls: &Controls, vectors: u64, which: [bool; OPTIONAL_COUNT]) -> Self {
        let Controls { hcr, cptr, mdcr, cnthctl, .. } = *controls;
        let optional = optional(controls);
        let bits = which.iter().enumerate().map(|(number, &set)| u32::from(set) << number);
        let mut which: u32 = bits.sum();
        for pair in [INTERRUPTS, FINE] {
            let first = pair.trailing_zeros() as usize;
            assert_eq!(optional[first].is_some(), optional[first + 1].is_some(), "both or none");
            if which & pair != 0 {
                which |= pair;
            }
        }
        let optional = optional.map(Option::unwrap_or_default);
        Self { always: [hcr, cptr, mdcr, cnthctl], vectors, which, optional }
    }

    /// Adds what the errata of the CPU ask for.
    pub const fn with_errata(mut self, errata: &Errata) -> Self {
        if errata.hcr_barriers {
            self.which |= HCR_BARRIERS;
        }
        self
    }

    /// Writes them. They are in force after the next ISB or ERET.
    ///
    /// # Safety
    /// The values are those of whoever runs next on this CPU, and come from this CPU's ID registers.
    #[inline(always)]
    pub unsafe fn write(&self) {
        let ([hcr, cptr, mdcr, cnthctl], which) = (self.always, self.which);
        // SAFETY: the caller's word; no register of EL2's own regime is among these.
        unsafe {
            if which & HCR_BARRIERS == 0 {
                write!("hcr_el2", hcr);
            } else {
                // AC04_CPU_23: a translation at the same time may come out wrong, EL2's own too.
                core::arch::asm!("dsb nsh", "msr hcr_el2, {}", "isb", in(reg) hcr,
                    options(nostack, preserves_flags));
            }
            write!("cptr_el2", cptr);
            write!("mdcr_el2", mdcr);
            write!("cnthctl_el2", cnthctl);
            write!("vbar_el2", self.vectors);
            if which & INTERRUPTS != 0 {
                self.write_optional(INTERRUPTS);
            }
            if which & FINE != 0 {
                self.write_optional(FINE);
            }
            if which & SELDOM != 0 {
                self.write_optional(which & SELDOM);
            }
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
            "s3_4_c2_c0_3" = fixed.tcr2; // TCR2_EL2
            "s3_4_c1_c0_3" = fixed.sctlr2; // SCTLR2_EL2
            "s3_4_c2_c5_0" = fixed.gcscr; // GCSCR_EL2
        }
    }
    isb();
}
