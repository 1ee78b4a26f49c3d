//! What a crash kernel learns of the memory to show: an ELF header with a segment for each range
//! (Documentation/admin-guide/kdump/kdump.rst).

use std::fs;
use std::io::{self, Error};

use super::memory::Ram;

/// How much room the header has.
pub const BYTES: u64 = 0x1_0000;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const HEADER_BYTES: u16 = 64;
const SEGMENT_BYTES: u16 = 56;

/// One program header.
struct Segment {
    kind: u32,
    flags: u32,
    at: u64,
    bytes: u64,
}

/// Makes the header.
pub fn header(ram: &Ram) -> io::Result<Vec<u8>> {
    let (at, bytes) = notes()?;
    let mut segments = vec![Segment { kind: PT_NOTE, flags: 0, at, bytes }];
    segments.extend(ram.outside_crash().into_iter().map(|range| Segment {
        kind: PT_LOAD,
        flags: 7,
        at: range.start,
        bytes: range.end - range.start,
    }));
    Ok(write(&segments))
}

/// Returns where the kernel's own notes are, and their size.
fn notes() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/sys/kernel/vmcoreinfo")?;
    let mut numbers = text.split_whitespace().map(hexadecimal);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(at)), Some(Ok(bytes))) => Ok((at, bytes)),
        _ => Err(Error::other(format!("/sys/kernel/vmcoreinfo: {text}"))),
    }
}

fn hexadecimal(word: &str) -> Result<u64, std::num::ParseIntError> {
    u64::from_str_radix(word.trim_start_matches("0x"), 16)
}

fn write(segments: &[Segment]) -> Vec<u8> {
    let mut file = Vec::new();
    // Class 64, little-endian, version 1; ET_CORE, EM_AARCH64.
    file.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([4u16.to_le_bytes(), 183u16.to_le_bytes()].as_flattened());
    file.extend(1u32.to_le_bytes());
    for word in [0, u64::from(HEADER_BYTES), 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [HEADER_BYTES, SEGMENT_BYTES, segments.len() as u16, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for segment in segments {
        file.extend([segment.kind.to_le_bytes(), segment.flags.to_le_bytes()].as_flattened());
        // Offset and physical address are the same here; it has no other address.
        let Segment { at, bytes, .. } = segment;
        for word in [*at, 0, *at, *bytes, *bytes, 0] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(BYTES as usize, 0);
    file
}
