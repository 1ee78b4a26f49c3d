//! The guest of the demonstration: touches pages of a window that moves, and tells which.

use verdigris_guest::{scramble, window};

use super::memory::{read, write};

const PAGE_BYTES: u64 = 4096;

fn note(bitmap: u64, page: u64) {
    let word = bitmap + page / 64 * 8;
    write(word, read(word) | 1 << (page % 64));
}

/// Touches three of four pages of the window, at random, every second one by a write; returns how many
/// touches that were. The report has them before the program is done.
pub fn run(region: u64, pages: u64, report: u64, width: u64, step: u64) -> u64 {
    let word = |index: usize| report + index as u64 * 8;
    let bitmap = report + window::BITMAP_BYTES as u64;
    let mut clear = bitmap;
    while clear < bitmap + pages.div_ceil(64) * 8 {
        write(clear, 0);
        clear += 8;
    }
    let first = read(word(window::NEXT)) % pages;
    let mut state = read(word(window::STATE));
    let mut touched = 0;
    let mut offset = 0;
    while offset < width {
        state = scramble(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let page = (first + offset) % pages;
        let address = region + page * PAGE_BYTES + (state >> 32 & 0xff8);
        offset += 1;
        match state & 7 {
            0 | 1 => continue,
            2..=4 => write(address, state),
            _ => _ = read(address),
        }
        note(bitmap, page);
        touched += 1;
    }
    write(word(window::FIRST), first);
    write(word(window::NEXT), (first + step) % pages);
    write(word(window::STATE), state);
    write(word(window::RUNS), read(word(window::RUNS)) + 1);
    touched
}
