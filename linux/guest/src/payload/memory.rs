//! Touching memory: once, or for ever.
//!
//! Every address is an IPA that the suite chose, and an access to it is meant to fault where it wants
//! one. So these are volatile accesses to no Rust object at all.

use core::ptr;

use verdigris_guest::{access, control, pattern, touch, trace};

const PAGE_BYTES: u64 = 4096;
const WORD_BYTES: u64 = 8;

/// Reads a doubleword.
pub fn read(address: u64) -> u64 {
    // SAFETY: the suite hands out no address of the image or the stack, so no Rust object is read;
    // where nothing is mapped the access exits.
    unsafe { ptr::read_volatile(address as *const u64) }
}

/// Writes a doubleword.
pub fn write(address: u64, value: u64) {
    // SAFETY: as for `read`: no Rust object lies there.
    unsafe { ptr::write_volatile(address as *mut u64, value) }
}

fn call(address: u64) {
    // SAFETY: the suite put a `ret` there; it returns to here and changes nothing but x30.
    unsafe { core::arch::asm!("blr {}", in(reg) address, clobber_abi("C")) };
}

/// Touches a doubleword of every `stride`-th page, and returns how many. Writes store `value`.
pub fn touch(ipa: u64, pages: u64, stride: u64, kind: u64, offset: u64, value: u64) -> u64 {
    let mut page = 0;
    let mut touched = 0;
    while page < pages {
        let address = ipa + page * PAGE_BYTES + offset;
        match kind {
            touch::READ => _ = read(address),
            touch::WRITE => write(address, value),
            _ => call(address),
        }
        touched += 1;
        page += stride;
    }
    touched
}

/// Fills memory with the pattern.
pub fn fill(ipa: u64, bytes: u64, seed: u64) {
    let mut address = ipa;
    while address < ipa + bytes {
        write(address, pattern(address, seed));
        address += WORD_BYTES;
    }
}

/// Compares memory with the pattern: how many doublewords differ, and where the first is.
pub fn check(ipa: u64, bytes: u64, seed: u64) -> [u64; 2] {
    let mut address = ipa;
    let (mut wrong, mut first) = (0, 0);
    while address < ipa + bytes {
        if read(address) != pattern(address, seed) {
            if wrong == 0 {
                first = address;
            }
            wrong += 1;
        }
        address += WORD_BYTES;
    }
    [wrong, first]
}

fn stopped(page: u64) -> bool {
    read(page + control::STOP as u64 * WORD_BYTES) != 0
}

/// Touches pages again and again until the suite says stop.
pub fn spin(ipa: u64, pages: u64, stride: u64, kind: u64, page: u64) {
    let mut rounds = 0;
    while !stopped(page) {
        rounds += 1;
        touch(ipa, pages, stride, kind, 0, rounds);
        write(page + control::ROUNDS as u64 * WORD_BYTES, rounds);
    }
}

/// Reads one doubleword again and again, and shows what it sees, until the suite says stop.
pub fn watch(ipa: u64, page: u64) {
    let mut rounds = 0;
    while !stopped(page) {
        rounds += 1;
        write(page + control::VALUE as u64 * WORD_BYTES, read(ipa));
        write(page + control::ROUNDS as u64 * WORD_BYTES, rounds);
    }
}

/// Reads doublewords again and again, and shows what it sees, until a whole round that began after the suite said stop.
pub fn mirror(ipa: u64, count: u64, stride_bytes: u64, shown: u64, page: u64) {
    let (mut rounds, mut is_last) = (0, false);
    while !is_last {
        is_last = stopped(page);
        rounds += 1;
        let mut index = 0;
        while index < count {
            write(shown + index * WORD_BYTES, read(ipa + index * stride_bytes));
            index += 1;
        }
        write(page + control::ROUNDS as u64 * WORD_BYTES, rounds);
    }
}

/// Goes through pages as a trace says; returns how many did not hold what they should.
pub fn stream(ipa: u64, entries: u64, count: u64) -> u64 {
    let (mut index, mut wrong) = (0, 0);
    while index < count {
        let entry = read(entries + index * WORD_BYTES);
        let page = entry & !trace::WRITE;
        let address = ipa + page * PAGE_BYTES;
        let (value, stamp, is_written) = (read(address), trace::stamp(page), entry != page);
        let is_new = is_written && value == 0;
        wrong += u64::from(!is_new && value >> 32 != stamp >> 32);
        if is_written {
            write(address, if is_new { stamp } else { value } + 1);
        }
        index += 1;
    }
    wrong
}

macro_rules! load {
    ($instruction:literal, $address:expr) => {{
        let value: u64;
        // SAFETY: as for `read`: no Rust object lies there. The destination is zeroed or extended to
        // 64 bits by the instruction.
        unsafe {
            core::arch::asm!(concat!($instruction, ", [{0}]"), in(reg) $address, in("x1") 0,
                lateout("x2") value, options(nostack));
        }
        value
    }};
}

macro_rules! store {
    ($instruction:literal, $address:expr, $value:expr) => {
        // SAFETY: as for `write`: no Rust object lies there.
        unsafe {
            core::arch::asm!(concat!($instruction, ", [{0}]"), in(reg) $address, in("x2") $value,
                options(nostack));
        }
    };
}

/// Makes one load or store of the given kind, through `x2`, and returns what was loaded.
pub fn device(address: u64, kind: u64, value: u64) -> u64 {
    const SIGNED: u64 = access::SIGNED;
    const WIDE: u64 = access::SIGNED | access::WIDE;
    const STORE: u64 = access::STORE;
    match (kind & access::SIZE_MASK, kind & !access::SIZE_MASK) {
        (0, 0) => load!("ldrb w2", address),
        (1, 0) => load!("ldrh w2", address),
        (2, 0) => load!("ldr w2", address),
        (3, 0) => load!("ldr x2", address),
        (0, SIGNED) => load!("ldrsb w2", address),
        (1, SIGNED) => load!("ldrsh w2", address),
        (0, WIDE) => load!("ldrsb x2", address),
        (1, WIDE) => load!("ldrsh x2", address),
        (2, WIDE) => load!("ldrsw x2", address),
        (size, STORE) => store(address, size, value),
        _ => u64::MAX,
    }
}

fn store(address: u64, size: u64, value: u64) -> u64 {
    match size {
        0 => store!("strb w2", address, value),
        1 => store!("strh w2", address, value),
        2 => store!("str w2", address, value),
        _ => store!("str x2", address, value),
    }
    0
}
