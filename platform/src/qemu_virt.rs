//! QEMU's `virt` machine.

use verdigris_abi::Pa;

use crate::board::Board;
use crate::region::Region;

/// RAM begins at 1 GiB. Memory that is plugged (DIMMs, virtio-mem) follows it on the next boundary of 1 GiB,
/// and all that is no memory and lies higher begins at 256 GiB or above (`virt_set_memmap()` of QEMU).
const MEMORY_WINDOW: Region = match Region::new(Pa(1 << 30), Pa(256 << 30)) {
    Some(window) => window,
    None => panic!("in order"),
};

/// QEMU's `virt` machine, in any of its versions.
///
/// Its 64-bit PCIe window is the 512 GiB below 1 TiB (`0x80_0000_0000`), hence 40 bits of physical
/// address. The window moves only on machines with more than 255 GiB of RAM, and is then refused.
pub static BOARD: Board = Board {
    name: "QEMU virt",
    compatible: "linux,dummy-virt",
    uart: Pa(0x0900_0000),
    physical_address_bits: 40,
    memory_window: MEMORY_WINDOW,
};
