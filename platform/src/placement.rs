//! Checks that what the loader put into memory can stay where it is.
//!
//! Loaders don't check: QEMU's `guest-loader` accepts a ramdisk over the device tree, over the
//! firmware, or past the end of RAM, and silently ruins it. So the firmware checks every part against
//! RAM, against reserved memory and against every other part, before the host starts.

use core::fmt;

use verdigris_abi::Pa;

use crate::image::ImageHeader;
use crate::layout::BLOCK_BYTES;
use crate::machine::{Conduit, Machine, Reserved};
use crate::region::Region;
use crate::tree::MAX_TREE_BYTES;

/// Something that occupies memory when the host starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the firmware keeps.
    Firmware,
    /// The device tree.
    Tree,
    /// The host's kernel, with the memory behind its file that it needs.
    Kernel,
    /// The host's ramdisk.
    Ramdisk,
    /// Memory that the device tree reserves.
    Reserved,
}

/// Where the host starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kernel, with the memory behind its file that it needs. Its entry is the start.
    pub kernel: Region,
    /// The device tree: what goes into `x0`.
    pub tree: Region,
    /// The ramdisk.
    pub ramdisk: Option<Region>,
}

/// Why the host can't be started from where its parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// The loader brought no kernel.
    NoKernel,
    /// PSCI would be answered by the firmware itself.
    ConduitIsHvc,
    /// Several CPUs, and no PSCI to start them by.
    NoPsci,
    /// RAM reaches beyond the addresses that the board's host can have.
    BeyondAddresses {
        /// The RAM.
        memory: Region,
        /// How many bits the board's addresses have.
        bits: u32,
    },
    /// A part is not in RAM, or not all of it.
    OutsideMemory {
        /// Which.
        part: Part,
        /// Where it is.
        at: Region,
    },
    /// Two parts are in each other's way.
    Overlap {
        /// The one to move.
        part: Part,
        /// Where it is.
        at: Region,
        /// The one that stays.
        other: Part,
        /// Where that is.
        other_at: Region,
    },
    /// A part doesn't start where it may.
    Misaligned {
        /// Which.
        part: Part,
        /// Where it is.
        at: Pa,
        /// The next address where it could be.
        wanted: Pa,
    },
    /// The device tree is longer than Linux accepts.
    TreeTooLarge,
}

/// Checks all parts. `tree` is where the host will find its device tree, with its room to grow.
pub fn check(
    machine: &Machine,
    kept: Region,
    tree: Region,
    image: &ImageHeader,
) -> Result<Host, PlacementError> {
    check_machine(machine)?;
    let file = machine.kernel.ok_or(PlacementError::NoKernel)?;
    let outside = PlacementError::OutsideMemory { part: Part::Kernel, at: file };
    let kernel = Region::with_size(file.start(), image.span_bytes(file.bytes())).ok_or(outside)?;
    // In the order in which they can be moved: what comes later gives way.
    let parts = [
        (Part::Firmware, Some(kept)),
        (Part::Tree, Some(tree)),
        (Part::Kernel, Some(kernel)),
        (Part::Ramdisk, machine.ramdisk),
    ];
    for (index, &(part, at)) in parts.iter().enumerate() {
        let Some(at) = at else { continue };
        check_part(machine, part, at)?;
        for &(other, other_at) in &parts[..index] {
            if let Some(other_at) = other_at.filter(|other| other.overlaps(at)) {
                return Err(PlacementError::Overlap { part, at, other, other_at });
            }
        }
    }
    // Last: only addresses known to be RAM can be rounded up without overflow.
    check_alignment(kernel, tree, image)?;
    Ok(Host { kernel, tree, ramdisk: machine.ramdisk })
}

fn check_machine(machine: &Machine) -> Result<(), PlacementError> {
    match machine.psci {
        Some(Conduit::Hvc) => return Err(PlacementError::ConduitIsHvc),
        None if machine.cpus.len() > 1 => return Err(PlacementError::NoPsci),
        _ => {}
    }
    let bits = machine.board.physical_address_bits;
    match machine.memory.iter().find(|memory| (memory.end().0 - 1) >> bits != 0) {
        Some(&memory) => Err(PlacementError::BeyondAddresses { memory, bits }),
        None => Ok(()),
    }
}

/// Checks a part against RAM and what the device tree reserves.
fn check_part(machine: &Machine, part: Part, at: Region) -> Result<(), PlacementError> {
    if !machine.is_memory(at) {
        return Err(PlacementError::OutsideMemory { part, at });
    }
    let in_the_way =
        |reserved: &&Reserved| reserved.region.overlaps(at) && !is_reserved_for(part, at, reserved);
    match machine.reserved.iter().find(in_the_way) {
        Some(reserved) => {
            let (other, other_at) = (Part::Reserved, reserved.region);
            Err(PlacementError::Overlap { part, at, other, other_at })
        }
        None => Ok(()),
    }
}

/// Tells whether memory is reserved for the very part that is there.
fn is_reserved_for(part: Part, at: Region, reserved: &Reserved) -> bool {
    matches!(part, Part::Tree | Part::Ramdisk) && reserved.is_for(at)
}

/// Checks what Linux asks of addresses (`Documentation/arch/arm64/booting.rst`).
fn check_alignment(
    kernel: Region,
    tree: Region,
    image: &ImageHeader,
) -> Result<(), PlacementError> {
    if tree.bytes() > MAX_TREE_BYTES as u64 {
        return Err(PlacementError::TreeTooLarge);
    }
    let tree_wanted = Pa(tree.start().0.next_multiple_of(8));
    if tree_wanted != tree.start() {
        let (part, at) = (Part::Tree, tree.start());
        return Err(PlacementError::Misaligned { part, at, wanted: tree_wanted });
    }
    let wanted = kernel_address(kernel.start(), image);
    match wanted == kernel.start() {
        true => Ok(()),
        false => {
            let (part, at) = (Part::Kernel, kernel.start());
            Err(PlacementError::Misaligned { part, at, wanted })
        }
    }
}

/// Returns the first address from `at` on where a kernel may be: `text_offset` above a 2 MiB boundary.
fn kernel_address(at: Pa, image: &ImageHeader) -> Pa {
    let offset = image.text_offset % BLOCK_BYTES;
    Pa(at.0.saturating_sub(offset).next_multiple_of(BLOCK_BYTES) + offset)
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firmware => "memory that the firmware keeps",
            Self::Tree => "the device tree",
            Self::Kernel => "the kernel module",
            Self::Ramdisk => "the ramdisk module",
            Self::Reserved => "memory that the device tree reserves",
        })
    }
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKernel => f.write_str(
                "no kernel: load the host's Image and add a module \"multiboot,kernel\" to /chosen",
            ),
            Self::ConduitIsHvc => f.write_str(
                "PSCI is called by HVC, so nobody answers at EL3: \
                 start the machine with EL2 (QEMU: -machine virt,virtualization=on)",
            ),
            Self::NoPsci => f.write_str(
                "no PSCI 0.2 or later to start CPUs by: add it to the device tree, or start with one CPU",
            ),
            Self::BeyondAddresses { memory, bits } => {
                write!(f, "RAM at {memory} is beyond the {bits} bits of the board: start with less")
            }
            Self::OutsideMemory { part, at } => {
                write!(f, "{part} at {at} is not in RAM: load it elsewhere, or add RAM")
            }
            Self::Overlap { part, at, other, other_at } => {
                let free =
                    other_at.end().0.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX);
                write!(
                    f,
                    "{part} at {at} overlaps {other} at {other_at}: load it at or above {free:#x}"
                )
            }
            Self::Misaligned { part, at, wanted } => {
                write!(f, "{part} can't be at {at}: load it at {wanted}")
            }
            Self::TreeTooLarge => {
                f.write_str("the device tree is larger than 2 MiB: Linux would not read it")
            }
        }
    }
}

impl core::error::Error for PlacementError {}

#[cfg(test)]
mod tests;
