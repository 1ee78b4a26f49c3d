//! QEMU's `virt` machine.

use verdigris_abi::Pa;

use crate::board::Board;

/// QEMU's `virt` machine, in any of its versions.
///
/// Its 64-bit PCIe window is the 512 GiB below 1 TiB (`0x80_0000_0000`), hence 40 bits of physical
/// address. The window moves only on machines with more than 255 GiB of RAM, and is then refused.
pub static BOARD: Board = Board {
    name: "QEMU virt",
    compatible: "linux,dummy-virt",
    uart: Pa(0x0900_0000),
    physical_address_bits: 40,
};
