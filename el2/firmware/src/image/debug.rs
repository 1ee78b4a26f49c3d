//! Makes EL2 fail on purpose, so that its report, and its ways out, can be tested. Only in builds with debug
//! assertions.
#![allow(unsafe_code)]

use core::hint::black_box;
use core::ptr;

use verdigris_abi::{Error, PAGE_SIZE, flags};

use super::recover::{self, Interrupted, try_read};
use super::{fault, mmu, percpu, sysreg, tlb};

/// Fails in the way that is asked for; refuses in release builds and for unknown kinds.
/// Kinds that EL2 survives return, and take an address at which nothing answers.
pub fn crash(kind: u64, hole: u64) -> Result<(), Error> {
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
        flags::SURVIVE_READ => return survive_read(hole),
        flags::SURVIVE_WALK => return survive_walk(hole),
        flags::SURVIVE_REGISTER => return survive_register(),
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

/// Copies words from where nothing answers: an external abort at EL2, as poisoned memory gives one.
#[inline(never)]
fn survive_read(hole: u64) -> Result<(), Error> {
    mmu::map_identity(hole, PAGE_SIZE, mmu::DEVICE).map_err(|_| Error::Exists)?;
    let call = Interrupted::remember();
    let mut words = [0u64; 4];
    // SAFETY: just mapped for EL2 alone, and nothing is there; the words are our own.
    let copied = unsafe { recover::copy(hole as *const u64, words.as_mut_ptr(), words.len()) };
    call.restore();
    // SAFETY: as above.
    let loaded = unsafe { recover::load(hole as *const u64) };
    call.restore();
    if !copied && loaded.is_none() { Ok(()) } else { Err(Error::Invalid) }
}

/// Translates an address by tables of which nothing answers: an external abort on the walk of an AT.
#[inline(never)]
fn survive_walk(hole: u64) -> Result<(), Error> {
    let (ttbr, tcr) = (sysreg::read!("ttbr0_el1"), sysreg::read!("tcr_el1"));
    // SAFETY: the host's registers, put back before it runs; its TLB entries are dropped, as one may stand for
    // the address. TCR_EL1.EPD0 (7) would keep the walk away.
    let found = unsafe {
        sysreg::write!("ttbr0_el1", hole);
        sysreg::write!("tcr_el1", tcr & !(1 << 7));
        sysreg::isb();
        tlb::stage1_local();
        sysreg::dsb_nsh();
        let found = fault::translate(PAGE_SIZE, percpu::this().cpu().parts);
        sysreg::write!("ttbr0_el1", ttbr);
        sysreg::write!("tcr_el1", tcr);
        sysreg::isb();
        tlb::stage1_local();
        sysreg::dsb_nsh();
        sysreg::isb();
        found
    };
    if found.is_none() { Ok(()) } else { Err(Error::Invalid) }
}

/// Reads a register that no CPU has, as one that EL3 keeps: UNDEFINED at EL2.
#[inline(never)]
fn survive_register() -> Result<(), Error> {
    let call = Interrupted::remember();
    let read = try_read!("s3_7_c13_c15_7");
    call.restore();
    if read.is_none() { Ok(()) } else { Err(Error::Invalid) }
}
