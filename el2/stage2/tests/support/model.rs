//! A plain model of a VM's address space, and short names for requests.

use super::{Machine, TABLES};
use verdigris_abi::flags::{PROT_EXEC, PROT_READ, PROT_WRITE};
use verdigris_stage2::{Attributes, Ipa, Level, Map, Pa, Set};

pub const PAGE: u64 = 4096;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
pub const RW: u64 = PROT_READ | PROT_WRITE;
pub const RWX: u64 = PROT_READ | PROT_WRITE | PROT_EXEC;

/// Expected bits of guest leaves without forced write-back, spelled from the Arm ARM (D8.3.2):
/// Normal write-back, inner shareable, readable.
pub const GUEST: u64 = 0b1111 << 2 | 1 << 6 | 0b11 << 8;
/// Writable and granted.
pub const WRITE: u64 = 1 << 7 | 1 << 55;
pub const YOUNG: u64 = 1 << 10;
pub const NO_EXEC: u64 = 1 << 54;
/// What most tests map: readable, writable, young, not executable.
pub const DATA: u64 = GUEST | WRITE | YOUNG | NO_EXEC;

/// Turns expected bits into those with forced write-back: MemAttr is 0b0110.
pub fn forced(bits: u64) -> u64 {
    bits & !(0b1111 << 2) | 0b0110 << 2
}

pub fn map(ipa: u64, pa: u64, page_count: u64, flags: u64) -> Map {
    let attributes = Attributes::guest(flags);
    Map { ipa: Ipa(ipa), pa: Pa(pa), page_count, level: Level::L3, attributes, sequence: 0 }
}

pub fn map_blocks(ipa: u64, pa: u64, bytes: u64, level: Level) -> Map {
    Map { level, ..map(ipa, pa, bytes / PAGE, RW) }
}

pub fn set(ipa: u64, pa: u64, flags: u64) -> Set {
    let attributes = Attributes::guest(flags);
    Set { ipa: Ipa(ipa), pa: Pa(pa), level: Level::L3, attributes, sequence: 0 }
}

/// Lists all valid leaves of a tree: address, descriptor, level.
pub fn all_leaves(machine: &Machine, ipa_bits: u32, sl0: u64) -> Vec<(u64, u64, u32)> {
    let level = 2 - sl0 as u32;
    let mut leaves = Vec::new();
    let root_entries = 1usize << (ipa_bits - (39 - 9 * level));
    collect(machine, TABLES, root_entries, level, 0, &mut leaves);
    leaves
}

fn collect(
    machine: &Machine,
    table: u64,
    entries: usize,
    level: u32,
    base: u64,
    leaves: &mut Vec<(u64, u64, u32)>,
) {
    for index in 0..entries {
        // The root may be several pages.
        let raw = machine.raw(table + (index / 512) as u64 * 4096, index % 512);
        let ipa = base + ((index as u64) << (39 - 9 * level));
        match (raw & 3, level) {
            (3, 0..=2) => collect(machine, raw & 0xffff_ffff_f000, 512, level + 1, ipa, leaves),
            (3, 3) | (1, 1 | 2) => leaves.push((ipa, raw, level)),
            _ => assert_eq!(raw & YOUNG, 0, "only valid leaves have bit 10 set"),
        }
    }
}
