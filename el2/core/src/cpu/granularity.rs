//! Which parts let a block give way to a table without a break.
//!
//! FEAT_BBM level 2 (ID_AA64MMFR2_EL1.BBM) allows that, but leaves it to the part whether a CPU that has
//! both sizes in its TLB raises a TLB conflict abort (Arm ARM DDI 0487, D8.16.2). An abort in a guest would
//! come at any instruction and go to EL2, and one at EL2's own hands could come again while it is handled.
//! No register tells the parts that never raise one. So this is a list, of parts whose makers say so; all
//! others break before they make, however high their level. The list is the one that Linux keeps for the
//! same question ("bbml2_noabort" in its arm64 CPU features).
//!
//! Linux lists AmpereOne too. That part is left out here: it doesn't report level 2, and its walker may
//! write entries that have become invalid (AC03_CPU_38, AC04_CPU_10).

use super::midr::{ARM, Midr};

/// The implementer code of NVIDIA.
const NVIDIA: u8 = 0x4e;

/// Tells whether a part with FEAT_BBM level 2 never raises a TLB conflict abort for it.
///
/// Implementer 0, part `Q` is QEMU's `max`, whose TLB replaces what conflicts.
pub(super) const fn never_conflicts(part: Midr) -> bool {
    match (part.implementer, part.part) {
        // Cortex-X4 from r0p3.
        (ARM, 0xd82) => part.revision >= 0x03,
        // Neoverse V3 and V3AE from r0p2.
        (ARM, 0xd84 | 0xd83) => part.revision >= 0x02,
        // Olympus.
        (NVIDIA, 0x010) => true,
        (0, 0x051) => true,
        _ => false,
    }
}
