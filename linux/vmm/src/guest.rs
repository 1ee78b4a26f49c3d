//! The guest's side: its code, and the registers of the one device that it knows.
//!
//! The code is in `guest.S`. It is part of this program as data, and is copied into the guest's memory;
//! a real VMM would read a kernel from a file there.
#![allow(unsafe_code)]

/// Where the guest's memory begins.
pub const MEMORY: u64 = 0x4000_0000;
/// Where the device is: no memory is there, so each access ends the run and is the VMM's to answer.
pub const DEVICE: u64 = 0x0900_0000;

/// Registers of the device, as offsets.
pub mod register {
    /// A byte stored is a character of the console.
    pub const CONSOLE: u64 = 0x00;
    /// The doorbell: how many rounds a vCPU has done.
    pub const ROUNDS: u64 = 0x08;
    /// Loaded: 0 asks for another round, anything else for the check of all memory.
    pub const COMMAND: u64 = 0x10;
    /// All is checked: so many doublewords were wrong.
    pub const WRONG: u64 = 0x18;
    /// An exception was taken: its ESR_EL1.
    pub const FAULT: u64 = 0x20;
}

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .rodata.guest, \"a\"",
    include_str!("guest.S"),
    ".popsection",
    console = const register::CONSOLE,
    rounds = const register::ROUNDS,
    command = const register::COMMAND,
    wrong = const register::WRONG,
    fault = const register::FAULT,
);

/// Returns the code: its entry is its first byte.
pub fn image() -> &'static [u8] {
    unsafe extern "C" {
        static guest_start: u8;
        static guest_end: u8;
    }
    let (start, end) = (&raw const guest_start, &raw const guest_end);
    // SAFETY: both are symbols of one section, in this order; what is between is never written.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}
