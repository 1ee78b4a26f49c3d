//! Makes EL2 fail on purpose, so that its report can be tested. Only in builds with debug assertions.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::ptr;

use verdigris_abi::{Error, flags};

/// Fails in the way that is asked for; refuses in release builds and for unknown kinds.
pub fn crash(kind: u64) -> Result<(), Error> {
    if !cfg!(debug_assertions) {
        return Err(Error::NotSupported);
    }
    match kind {
        flags::CRASH_FAULT => read_unmapped(),
        flags::CRASH_STACK => {
            overflow(0);
        }
        flags::CRASH_TEXT => write_text(),
        flags::CRASH_PANIC => panic!("asked for by the host"),
        flags::CRASH_EXEC => execute_data(),
        _ => return Err(Error::Invalid),
    }
    Ok(())
}

/// Reads from an address that nothing maps.
#[inline(never)]
fn read_unmapped() {
    // SAFETY: none: that is the point. The address is in no map of EL2, so the load faults and the
    // report ends the machine.
    unsafe { black_box(ptr::read_volatile(black_box(0x7f00_0000_0000usize) as *const u64)) };
}

/// Recurses until the stack ends. Each frame holds 1 KiB, so that none steps over the guard page.
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let filler = black_box([depth; 128]);
    if black_box(true) { overflow(depth + 1) + black_box(filler)[0] } else { 0 }
}

/// Writes to the first instruction of the image.
#[inline(never)]
fn write_text() {
    // SAFETY: none, as above: the page is read-only, so the store faults.
    unsafe { ptr::write_volatile(verdigris_linker::image_start() as *mut u32, 0) };
}

/// Branches to a page of data.
#[inline(never)]
fn execute_data() {
    static DATA: [u32; 1] = [0xd65f_03c0]; // RET
    let address: *const u32 = black_box(DATA.as_ptr());
    // SAFETY: none, as above: constants are never executable, so the fetch faults.
    unsafe { core::arch::asm!("blr {}", in(reg) address, out("x30") _) };
}
