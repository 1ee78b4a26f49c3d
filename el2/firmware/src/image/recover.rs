//! Instructions at EL2 that may take an exception of their own, and go on after it.
//!
//! Few may: an AT, whose walk of the guest's tables can meet an error of memory or be refused as an update
//! that memory can't do (Linux 88a84ccccb39); a load from the host's memory, which may be poisoned or not
//! answer; and the first access to a register that EL3 may keep for itself (TF-A injects an UNDEFINED instruction
//! for it). Each leaves its own address and that of its second way out in the section `.fixups`. The vectors
//! look there first (`vectors.S`); an exception of any other instruction is a crash, as ever.
//!
//! An exception at EL2 overwrites what the one before left, that of the host or guest which EL2 works for, and
//! the vectors use SP_EL0. So whoever may recover while one of them waits for its return remembers these first
//! ([`Interrupted`]).
#![allow(unsafe_code)]

use super::sysreg;

/// The registers of the exception that EL2 is at work on.
#[derive(Clone, Copy)]
pub struct Interrupted {
    elr: u64,
    spsr: u64,
    esr: u64,
    sp_el0: u64,
}

impl Interrupted {
    /// Remembers them, before the instruction that may fail.
    #[inline(always)]
    pub fn remember() -> Self {
        Self {
            elr: sysreg::read!("elr_el2"),
            spsr: sysreg::read!("spsr_el2"),
            esr: sysreg::read!("esr_el2"),
            sp_el0: sysreg::read!("sp_el0"),
        }
    }

    /// Puts them back, after it has failed.
    #[cold]
    #[inline(never)]
    pub fn restore(&self) {
        // SAFETY: what these registers held when EL2 was entered, or what EL2 has made of them since.
        unsafe {
            sysreg::write!("elr_el2", self.elr);
            sysreg::write!("spsr_el2", self.spsr);
            sysreg::write!("esr_el2", self.esr);
            sysreg::write!("sp_el0", self.sp_el0);
        }
    }
}

/// Makes the text of an instruction that may fail, `$text`, with what is done then, `$otherwise`; both go on
/// behind the instruction. Labels 2, 3 and 4 are taken.
macro_rules! fallible {
    ($text:expr, $otherwise:expr) => {
        concat!(
            "2: ",
            $text,
            "\n3:\n.pushsection .text.fixups, \"ax\"\n4: ",
            $otherwise,
            "\nb 3b\n.popsection\n.pushsection .fixups, \"a\"\n.balign 4\n",
            ".long 2b - .\n.long 4b - .\n.popsection"
        )
    };
}

/// Reads a system register that may be withheld; `None` if the access failed.
///
/// Used before anyone runs below on this CPU, so nothing has to be remembered.
macro_rules! try_read {
    ($name:literal) => {{
        let (value, failed): (u64, u64);
        // SAFETY: reading a system register has no side effect on memory; if it fails, the fix-up goes on.
        unsafe {
            core::arch::asm!(
                "mov {failed}, xzr",
                $crate::image::recover::fallible!(
                    concat!("mrs {value}, ", $name),
                    "mov {failed}, #1"
                ),
                value = out(reg) value,
                failed = out(reg) failed,
                options(nostack, preserves_flags),
            );
        }
        (failed == 0).then_some(value)
    }};
}

pub(crate) use {fallible, try_read};

/// Copies words, each read once; `false` if one of them can't be read.
///
/// # Safety
/// `from` and `to` are aligned and mapped for that many words, and nobody else uses `to`. What the caller was
/// entered by has been remembered.
pub unsafe fn copy(from: *const u64, to: *mut u64, count: usize) -> bool {
    let failed: u64;
    if count == 0 {
        return true;
    }
    // SAFETY: the caller's word; single loads of 64 bits, so each word is of one moment.
    unsafe {
        core::arch::asm!(
            "mov {failed}, xzr",
            "5:",
            fallible!("ldr {word}, [{from}], #8", "mov {failed}, #1\nmov {count}, #1"),
            "str {word}, [{to}], #8",
            "sub {count}, {count}, #1",
            "cbnz {count}, 5b",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            count = inout(reg) count => _,
            word = out(reg) _,
            failed = out(reg) failed,
            options(nostack, preserves_flags),
        );
    }
    failed == 0
}

/// Reads a word; `None` if it can't be read.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
pub unsafe fn load(from: *const u64) -> Option<u64> {
    let (word, failed): (u64, u64);
    // SAFETY: the caller's word.
    unsafe {
        core::arch::asm!(
            "mov {failed}, xzr",
            fallible!("ldr {word}, [{from}]", "mov {failed}, #1\nmov {word}, xzr"),
            from = in(reg) from,
            word = out(reg) word,
            failed = out(reg) failed,
            options(nostack, preserves_flags, readonly),
        );
    }
    (failed == 0).then_some(word)
}
