//! Executes every encoding of the space of system registers and system instructions.

use verdigris_guest::sweep::{COMPLETED, SKIPPED, SPACE_INSTRUCTIONS, fields};

use super::execute::{Outcome, execute};
use super::fp;

/// MSR and SYS; bit 21 makes them MRS and SYSL (Arm ARM, C4.1.94).
const WRITE: u32 = 0xd500_0000;
const READ: u32 = WRITE | 1 << 21;

/// Where one encoding is executed: code page, and an address that is good to name.
#[derive(Clone, Copy)]
struct Place {
    code: u64,
    data: u64,
}

/// Tells which registers are only written with what was read: another value turns
/// translation or return checks on under the running code. SCTLR_EL1, SCTLR2_EL1, GCSCR_EL1.
fn is_vital(space: u64, index: u64) -> bool {
    matches!((space, fields(index)), (3, (0, 1, 0, 0) | (0, 1, 0, 3) | (0, 2, 5, 0)))
}

fn register(bits: u32, vital: bool, place: Place) -> (u64, u64) {
    let step = |word: u32, value: u64| -> Outcome { execute(word, value, place.code) };
    let read = step(READ | bits, 0);
    let readable = read.class() == COMPLETED;
    let (first, last) = match (readable, vital) {
        (true, true) => (read.value, read.value),
        (true, false) => (!read.value, read.value),
        (false, true) => return (read.class(), SKIPPED),
        (false, false) => (u64::MAX, 0),
    };
    let written = step(WRITE | bits, first).class();
    let restored = step(WRITE | bits, last).class();
    (read.class(), if written > restored { written } else { restored })
}

fn instruction(bits: u32, place: Place) -> (u64, u64) {
    let plain = execute(WRITE | bits, place.data, place.code);
    let with_result = execute(READ | bits, 0, place.code);
    (with_result.class(), plain.class())
}

/// Executes `count` encodings from `first` on and stores a byte for each.
pub fn sweep(space: u64, first: u64, count: u64, results: u64, code: u64, data: u64) -> u64 {
    fp::enable_all();
    let place = Place { code, data };
    let mut index = first;
    while index < first + count {
        let bits = (space << 19 | index << 5) as u32;
        let (low, high) = match space {
            SPACE_INSTRUCTIONS => instruction(bits, place),
            _ => register(bits, is_vital(space, index), place),
        };
        // SAFETY: the suite gave memory for a byte for each encoding.
        unsafe { ((results + index) as *mut u8).write_volatile((low | high << 4) as u8) };
        index += 1;
    }
    count
}
