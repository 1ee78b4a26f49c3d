//! VTCR_EL2: how stage 2 is walked (Arm ARM, D24.2).
//!
//! The attributes of the walk equal those with which EL2 maps table memory itself: inner-shareable,
//! write-back. Were they different, the walker's update of an access flag and EL2's own
//! compare-and-swap would not be coherent.

use super::{CpuSelection, Selection};

/// The two numbers of VTCR_EL2 that depend on the size of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// T0SZ: 64 less the number of bits of an intermediate physical address.
    pub t0sz: u64,
    /// SL0 for 4 KiB tables: 0 starts at level 2, 1 at level 1, 2 at level 0.
    pub sl0: u64,
}

/// Bit 31 is RES1.
const RES1: u64 = 1 << 31;
/// IRGN0, bits 9:8, and ORGN0, bits 11:10: 1 is write-back, read- and write-allocate.
const WRITE_BACK: u64 = 0b01 << 8 | 0b01 << 10;
/// SH0, bits 13:12: 3 is inner-shareable.
const INNER_SHAREABLE: u64 = 0b11 << 12;
/// TG0, bits 15:14: 0 is 4 KiB.
const GRANULE_4K: u64 = 0b00 << 14;
/// VS: the VMID in VTTBR_EL2 has 16 bits.
const VS: u64 = 1 << 19;
/// HA: the walker sets access flags.
const HA: u64 = 1 << 21;
/// HD: the walker lets a write through a leaf with DBM, and sets `S2AP[1]` instead of a fault. Needs HA.
const HD: u64 = 1 << 22;

/// Returns the value for the host. Its access flags and dirty state are never read, so no walker keeps
/// them.
pub const fn host(geometry: Geometry, selection: &Selection) -> u64 {
    common(geometry, selection)
}

/// Returns the value for a guest on one CPU.
///
/// On a CPU without HD the first write to a clean page faults, and EL2 does what the walker would have
/// done. NSW and NSA (bits 29 and 30) are RES0 in Non-secure state; DS, S2PIE and HAFT are off, since
/// descriptors are those of Armv8.1.
pub const fn guest(geometry: Geometry, selection: &Selection, cpu: &CpuSelection) -> u64 {
    common(geometry, selection) | updates(cpu)
}

/// Returns the bits of a guest's value that are one CPU's own: what its walker updates by itself.
pub const fn updates(cpu: &CpuSelection) -> u64 {
    // HD without HA is reserved (Arm ARM, VTCR_EL2.HD).
    match (cpu.hardware_access_flag, cpu.hardware_dirty) {
        (false, _) => 0,
        (true, false) => HA,
        (true, true) => HA | HD,
    }
}

/// Returns what is the same on all CPUs.
pub const fn common(geometry: Geometry, selection: &Selection) -> u64 {
    assert!(geometry.t0sz < 64 && geometry.sl0 < 3);
    let vs = if selection.used.vmid_bits == 16 { VS } else { 0 };
    // PS, bits 18:16, has the encoding of PARange. All CPUs that run have at least this.
    let ps = selection.pa_range << 16;
    RES1 | WRITE_BACK | INNER_SHAREABLE | GRANULE_4K | geometry.sl0 << 6 | geometry.t0sz | vs | ps
}
