//! TLB invalidation instructions, and the context of the VM that they act for.
//!
//! Invalidations of the EL1&0 regime act on the VMID in VTTBR_EL2. For a VM other than the current one
//! the register is switched, with barriers; and because a CPU may start a walk speculatively in the
//! half-switched context, parts with that erratum get their stage-1 walks turned off meanwhile
//! (1319537, 1319367, 1165522, 1530923).
#![allow(unsafe_code)]

use aarch64_cpu::registers::{Readable, VTCR_EL2, VTTBR_EL2};
use verdigris_abi::Ipa;
use verdigris_stage2::Level;
use verdigris_stage2::operand::{self, Step};

use super::sysreg::{self, dsb_ish, dsb_nsh, isb};

/// What names a VM's translation: the two registers that are always switched together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// VTTBR_EL2: root and VMID.
    pub vttbr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
}

impl Context {
    /// Reads the one in force on this CPU.
    pub fn current() -> Self {
        Self { vttbr: VTTBR_EL2.get(), vtcr: VTCR_EL2.get() }
    }

    /// Loads it.
    ///
    /// # Safety
    /// The registers describe a live tree, or nobody runs below EL2 until another one is loaded.
    pub unsafe fn load(self) {
        // SAFETY: the caller's word.
        unsafe { self.write() };
        isb();
    }

    /// Writes the registers, which are in force after the next ISB or ERET.
    ///
    /// # Safety
    /// As [`Self::load`].
    #[inline]
    pub unsafe fn write(self) {
        // SAFETY: the caller's word.
        unsafe {
            sysreg::write!("vtcr_el2", self.vtcr);
            sysreg::write!("vttbr_el2", self.vttbr);
        }
    }
}

/// TCR_EL1.EPD0 and EPD1: no walks of stage 1 on a TLB miss.
const EPD: u64 = 1 << 7 | 1 << 23;
/// SCTLR_EL1.M.
const MMU_ON: u64 = 1;

/// Registers of EL1 that keep speculative walks away while the VM's context is half switched.
#[derive(Clone, Copy)]
pub struct WalksOff {
    tcr: u64,
    sctlr: u64,
}

impl WalksOff {
    /// Turns stage-1 walks of the EL1&0 regime off: EPD on while the MMU counts as on.
    pub fn begin() -> Self {
        let saved = Self { tcr: sysreg::read!("tcr_el1"), sctlr: sysreg::read!("sctlr_el1") };
        saved.walk_no_more();
        saved
    }

    /// The same, where the caller has just read the registers and will load others.
    pub fn until_loaded(tcr: u64, sctlr: u64) {
        Self { tcr, sctlr }.walk_no_more();
    }

    fn walk_no_more(&self) {
        // SAFETY: EL1 does not run until both have been written again.
        unsafe {
            sysreg::write!("tcr_el1", self.tcr | EPD);
            isb();
            sysreg::write!("sctlr_el1", self.sctlr | MMU_ON);
        }
        isb();
    }

    /// Puts the registers back, the other way round.
    pub fn end(self) {
        // SAFETY: these are the values that EL1 had.
        unsafe {
            sysreg::write!("sctlr_el1", self.sctlr);
            isb();
            sysreg::write!("tcr_el1", self.tcr);
        }
        isb();
    }
}

/// Defines invalidations without operand.
macro_rules! invalidations {
    ($( #[doc = $doc:literal] $name:ident = $instruction:literal; )*) => { $(
        #[doc = $doc]
        pub fn $name() {
            // SAFETY: dropping cached translations changes no translation.
            unsafe { core::arch::asm!($instruction, options(nostack, preserves_flags)) }
        }
    )* };
}

invalidations! {
    #[doc = "`tlbi vmalle1is`: stage 1 and combined entries of the VMID, on all CPUs."]
    stage1 = "tlbi vmalle1is";
    #[doc = "`tlbi vmalls12e1is`: everything of the VMID, on all CPUs."]
    vmid = "tlbi vmalls12e1is";
    #[doc = "`tlbi vmalle1`: stage 1 and combined entries of the VMID, on this CPU."]
    stage1_local = "tlbi vmalle1";
    #[doc = "`tlbi vmalls12e1`: everything of the VMID, on this CPU."]
    vmid_local = "tlbi vmalls12e1";
    #[doc = "`tlbi alle1is`: everything of every VMID, on all CPUs."]
    all = "tlbi alle1is";
    #[doc = "`ic iallu`: this CPU's instruction cache."]
    instruction_cache_local = "ic iallu";
    #[doc = "`ic ialluis`: all CPUs' instruction caches."]
    instruction_cache = "ic ialluis";
}

/// The words of the engine's `Tlb` that are one instruction each, whatever context they act in.
macro_rules! instructions {
    () => {
        fn ipa(&self, ipa: verdigris_abi::Ipa, level: Option<verdigris_stage2::Level>) {
            $crate::image::tlb::ipa(ipa, level);
        }

        fn range(
            &self,
            ipa: verdigris_abi::Ipa,
            page_count: u64,
            level: Option<verdigris_stage2::Level>,
        ) {
            $crate::image::tlb::range(ipa, page_count, level);
        }

        fn stage1(&self) {
            $crate::image::tlb::stage1();
        }

        fn vmid(&self) {
            $crate::image::tlb::vmid();
        }

        fn local(&self, ipa: verdigris_abi::Ipa) {
            $crate::image::tlb::local(ipa);
        }

        fn dsb_ishst(&self) {
            $crate::image::sysreg::dsb_ishst();
        }

        fn dsb_ish(&self) {
            $crate::image::sysreg::dsb_ish();
        }

        fn repeat(&self) {
            $crate::image::tlb::repeat();
        }

        fn isb(&self) {
            $crate::image::sysreg::isb();
        }
    };
}
pub(super) use instructions;

/// Invalidates one IPA on all CPUs (`tlbi ipas2e1is`).
pub fn ipa(ipa: Ipa, level: Option<Level>) {
    single(operand::single(ipa, level));
}

fn single(operand: u64) {
    // SAFETY: dropping cached translations changes no translation.
    unsafe {
        core::arch::asm!("tlbi ipas2e1is, {}", in(reg) operand, options(nostack, preserves_flags));
    }
}

/// Invalidates one IPA on this CPU, and what combines it with stage 1.
pub fn local(ipa: Ipa) {
    let operand = operand::single(ipa, None);
    // SAFETY: as in `single`.
    unsafe {
        core::arch::asm!("tlbi ipas2e1, {}", in(reg) operand, options(nostack, preserves_flags));
    }
    dsb_nsh();
    stage1_local();
    dsb_nsh();
    isb();
}

/// Invalidates a range on all CPUs (`tlbi ripas2e1is`, where FEAT_TLBIRANGE is).
pub fn range(start: Ipa, page_count: u64, level: Option<Level>) {
    for step in operand::range(start, page_count, level) {
        match step {
            Step::Single(operand) => single(operand),
            // SAFETY: as in `single`. RIPAS2E1IS is op1 4, CRn 8, CRm 0, op2 2.
            Step::Range(operand) => unsafe {
                core::arch::asm!("sys #4, c8, c0, #2, {}", in(reg) operand,
                    options(nostack, preserves_flags));
            },
        }
    }
}

/// Waits for broadcast invalidations and once more where an erratum needs that: any further one, and
/// a barrier (CVE-2025-10263 and its kin).
pub fn repeat() {
    // SAFETY: as in `single`; the entry named is as good as any.
    unsafe {
        core::arch::asm!("tlbi vale2is, xzr", options(nostack, preserves_flags));
    }
    dsb_ish();
}
