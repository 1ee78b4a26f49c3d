//! What a board is: its memory map, UART, interrupt controller and device tree.
//!
//! The loader leaves one thing: the address of a flattened device tree. This crate turns those bytes,
//! which nobody vouches for, into a [`Machine`]; plans which memory the firmware keeps ([`layout`]);
//! checks that kernel, ramdisk and tree stay clear of it and of each other ([`placement`]); and edits
//! the tree into the one that the host sees ([`host_tree`]). Boards differ by data: [`Board`] holds
//! what a device tree does not tell, one file a board.
//!
//! ```
//! use verdigris_abi::Pa;
//! use verdigris_platform::{ImageHeader, Region, host_tree, layout, parse, placement};
//!
//! # let kernel = {
//! #     let mut kernel = [0; 64];
//! #     kernel[18] = 0x40;
//! #     kernel[56..60].copy_from_slice(b"ARM\x64");
//! #     kernel
//! # };
//! # let mut dtb = include_bytes!("../testdata/qemu-10.0-gicv3-modules.dtb").to_vec();
//! // What the linker and the loader say.
//! let image = Region::new(Pa(0x4020_0000), Pa(0x4030_0000)).unwrap();
//! let tree = Region::with_size(Pa(0x4800_0000), dtb.len() as u64).unwrap();
//!
//! let machine = parse(&dtb)?;
//! let kept = layout::plan(&machine.memory, image, |memory| {
//!     (8 << 20) + memory.iter().map(|region| region.bytes() >> 12).sum::<u64>()
//! })?;
//! let header = ImageHeader::parse(&kernel)?;
//! let host = placement::check(&machine, kept.region, tree, &header)?;
//! host_tree::edit(&mut dtb, &machine, kept.region)?;
//! assert_eq!(host.kernel.start(), Pa(0x4400_0000));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
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
