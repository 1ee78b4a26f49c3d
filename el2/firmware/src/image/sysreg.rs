//! System registers and the instructions that have no function in Rust.
//!
//! Reading a register is safe. A write can change what memory means (translation, traps), so `write!`
//! is an unsafe operation of its caller. Registers that assemblers do not know by name are given by
//! encoding, `s3_0_c2_c1_0`.
#![allow(unsafe_code)]

/// Reads a system register by name.
macro_rules! read {
    ($name:expr) => {{
        let value: u64;
        // SAFETY: reading a system register of EL2 or below has no side effect on memory.
        #[allow(unsafe_code, unused_unsafe, reason = "reading is safe wherever it stands")]
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value,
                options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register by name; the compiler keeps memory accesses on their side of it.
///
/// # Safety
/// The caller answers for what the value makes of translation, traps and the state of lower levels.
macro_rules! write {
    ($name:expr, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value,
            options(nostack, preserves_flags));
    }};
}

pub(crate) use {read, write};

/// Waits until earlier changes of system registers are in force.
pub fn isb() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) }
}

/// Defines barriers as functions.
macro_rules! barriers {
    ($( #[doc = $doc:literal] $name:ident = $instruction:literal; )*) => { $(
        #[doc = $doc]
        pub fn $name() {
            // SAFETY: a barrier changes no state; without `nomem` it orders the compiler as well.
            unsafe { core::arch::asm!($instruction, options(nostack, preserves_flags)) }
        }
    )* };
}

barriers! {
    #[doc = "Completes all earlier accesses, inner shareable."]
    dsb_ish = "dsb ish";
    #[doc = "Completes earlier stores, inner shareable."]
    dsb_ishst = "dsb ishst";
    #[doc = "Completes earlier accesses and local invalidations of this CPU."]
    dsb_nsh = "dsb nsh";
    #[doc = "Orders accesses before and after it, full system."]
    dmb_sy = "dmb sy";
    #[doc = "Completes all earlier accesses, full system."]
    dsb_sy = "dsb sy";
}

/// Tells whether an interrupt or SError waits for EL1 (ISR_EL1, Arm ARM D19.2.64).
pub fn interrupt_pending() -> bool {
    read!("isr_el1") & 0x1c0 != 0
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: waiting changes no state. Interrupts are masked, and nothing is expected.
        unsafe { core::arch::asm!("wfi", options(nostack, preserves_flags)) }
    }
}
