//! What a board is: its memory map, UART, interrupt controller and device tree.
//!
//! The loader leaves one thing: the address of a flattened device tree. This crate turns those bytes,
//! which nobody vouches for, into a [`Machine`]; plans which memory the firmware keeps ([`layout`]);
//! checks that kernel, ramdisk and tree stay clear of it and of each other ([`placement`]); and edits
//! the tree into the one that the host sees ([`host_tree`]). Boards differ by data: [`Board`] holds
//! what a device tree does not tell, one file a board.
//!
//! The one invariant: no input makes this crate panic, run for long, or reach outside the slice that
//! it was given. All of it but the UART driver is safe code without statics, and is tested on the
//! developer's own machine.
#![no_std]

#[cfg(test)]
extern crate std;

mod board;
pub mod host_tree;
pub mod image;
pub mod layout;
mod list;
mod machine;
pub mod pl011;
pub mod placement;
pub mod qemu_virt;
mod region;
pub mod tree;

pub use board::{BOARDS, Board};
pub use image::ImageHeader;
pub use list::{List, Text};
pub use machine::{Conduit, Cpu, Gic, GicVersion, Machine, Reserved, Timer};
pub use region::Region;
pub use tree::parse;

#[cfg(test)]
mod testing;
