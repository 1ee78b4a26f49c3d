//! The linker script of the firmware (`el2.ld`), and the typed view of its symbols.
//!
//! A linker symbol is an address without an object behind it. It is read here and nowhere else, and
//! leaves this crate as a number: whoever makes a pointer of it argues for that himself.
//! On any target but the firmware's there is no image, and all ranges are empty.
#![no_std]
#![allow(unsafe_code)]

use core::ops::Range;

#[cfg(target_os = "none")]
macro_rules! symbols {
    ($( #[doc = $doc:literal] $function:ident = $symbol:ident; )*) => { $(
        #[doc = $doc]
        pub fn $function() -> u64 {
            unsafe extern "C" { static $symbol: u8; }
            // Only the address is taken; nothing is read.
            (&raw const $symbol) as u64
        }
    )* };
}

#[cfg(not(target_os = "none"))]
macro_rules! symbols {
    ($( #[doc = $doc:literal] $function:ident = $symbol:ident; )*) => { $(
        #[doc = $doc]
        pub fn $function() -> u64 { 0 }
    )* };
}

symbols! {
    #[doc = "Returns where the image starts: the address that crash reports count from."]
    image_start = __image_start;
    #[doc = "Returns where the image ends, stacks and zeroed data included."]
    image_end = __image_end;
    #[doc = "Returns where the code ends; it starts with the image."]
    text_end = __text_end;
    #[doc = "Returns where read-only data ends; it starts behind the code."]
    rodata_end = __rodata_end;
    #[doc = "Returns the address of EL2's level 0 table."]
    boot_tables = __boot_tables;
    #[doc = "Returns the lowest address of the boot CPU's stack; the page below is not mapped."]
    boot_stack_bottom = __boot_stack_bottom;
    #[doc = "Returns the address just above the boot CPU's stack."]
    boot_stack_top = __boot_stack_top;
    #[doc = "Returns the lowest address of the boot CPU's crash stack; the page below is not mapped."]
    crash_stack_bottom = __crash_stack_bottom;
    #[doc = "Returns the address just above the boot CPU's crash stack."]
    crash_stack_top = __crash_stack_top;
}

/// Returns the range of addresses that the image occupies in memory.
pub fn image() -> Range<u64> {
    image_start()..image_end()
}

/// Returns the range of addresses that hold code.
pub fn text() -> Range<u64> {
    image_start()..text_end()
}
