//! Reads a flattened device tree: untrusted bytes in, a [`Machine`] out.
//!
//! The tree is read by the `fdt` crate in its fallible mode. That crate still panics on a few broken
//! trees, so [`blob`] first walks the whole structure once and accepts only what is well formed in
//! every detail that `fdt` and the editor rely on. Both read no further than the blocks that the
//! header describes: QEMU declares 1 MiB around 8 KiB of content.

pub mod blob;
mod chosen;
mod cpus;
mod devices;
pub mod edit;
mod error;
mod memory;
mod node;

pub use blob::{MAX_TREE_BYTES, declared_bytes};
pub use error::{Error, Flaw};

use crate::board::Board;
use crate::machine::Machine;
pub(crate) use chosen::{KERNEL, RAMDISK};
pub(crate) use devices::DEBUG;
pub(crate) use node::Cells;
use node::Tree;

/// Reads a device tree.
///
/// `dtb` may be longer than the tree. Takes time proportional to the size of its content.
pub fn parse(dtb: &[u8]) -> Result<Machine, Error> {
    let blocks = blob::check(dtb)?;
    let tree = Tree::new_unaligned_fallible(&dtb[..blocks.total_bytes])?;
    let board = find_board(&tree)?;
    Ok(Machine {
        board,
        memory: memory::memory(&tree)?,
        reserved: memory::reserved(&tree, dtb, &blocks)?,
        cpus: cpus::cpus(&tree)?,
        psci: devices::psci(&tree)?,
        uart: devices::uart(&tree)?.unwrap_or(board.uart),
        gic: devices::gic(&tree)?,
        timer: devices::timer(&tree)?,
        debug_frames: devices::debug_frames(&tree)?,
        command_line: chosen::command_line(&tree)?,
        kernel: chosen::module(&tree, chosen::KERNEL)?,
        ramdisk: chosen::ramdisk(&tree)?,
    })
}

fn find_board(tree: &Tree<'_>) -> Result<&'static Board, Error> {
    let compatible = node::property(&node::root(tree)?, "compatible")?;
    node::strings(compatible.unwrap_or_default()).find_map(Board::find).ok_or(Error::UnknownBoard)
}

#[cfg(test)]
mod tests;
