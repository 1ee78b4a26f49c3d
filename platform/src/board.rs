//! Boards: what a device tree does not tell.
//!
//! A board is a `static` in a file of its own, found by the first `compatible` of the tree's root that
//! any board claims. What the tree says wins; a board's values fill its gaps.

use verdigris_abi::Pa;

use crate::qemu_virt;
use crate::region::Region;

/// What is known of a board beyond its device tree.
#[derive(Debug)]
pub struct Board {
    /// Its name, for the log.
    pub name: &'static str,
    /// What the `compatible` of the tree's root holds.
    pub compatible: &'static str,
    /// Base address of the PL011 to log to, where the tree names none.
    pub uart: Pa,
    /// Bits of physical address that the host needs mapped: all RAM, and every window for devices.
    pub physical_address_bits: u32,
    /// Where RAM may be, that of later included; no device is there. Empty where none comes after boot.
    pub memory_window: Region,
}

/// All boards.
pub const BOARDS: &[&Board] = &[&qemu_virt::BOARD];

impl Board {
    /// Finds the board that claims a `compatible` string.
    pub fn find(compatible: &str) -> Option<&'static Self> {
        BOARDS.iter().find(|board| board.compatible == compatible).copied()
    }
}
