//! The device tree of the next kernel: this one's, with another `/chosen`.

use std::fs;
use std::io::{Error, Result};
use std::ops::Range;

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

/// What the next kernel is told.
pub struct Chosen {
    /// Its command line.
    pub arguments: &'static str,
    /// Its ramdisk.
    pub root: Range<u64>,
    /// For a crash kernel: the memory that it may use, and where the description of all other is.
    pub crash: Option<(Range<u64>, Range<u64>)>,
}

/// Makes the tree.
pub fn for_next(chosen: &Chosen) -> Result<Vec<u8>> {
    let bytes = fs::read("/sys/firmware/fdt")?;
    let fdt = Fdt::new(&bytes).map_err(|error| Error::other(format!("{error:?}")))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    // The old ramdisk's memory is the next kernel's.
    tree.memory_reservations.clear();
    let node = tree.find_node_mut("/chosen").ok_or_else(|| Error::other("no /chosen"))?;
    let mut arguments = chosen.arguments.as_bytes().to_vec();
    arguments.push(0);
    set(node, "bootargs", arguments);
    set(node, "linux,initrd-start", chosen.root.start.to_be_bytes().into());
    set(node, "linux,initrd-end", chosen.root.end.to_be_bytes().into());
    if let Some((usable, elf)) = &chosen.crash {
        set(node, "linux,usable-memory-range", address_and_size(usable));
        set(node, "linux,elfcorehdr", address_and_size(elf));
    }
    Ok(tree.to_dtb())
}

/// Two cells each, as QEMU's trees have them.
fn address_and_size(range: &Range<u64>) -> Vec<u8> {
    [range.start.to_be_bytes(), (range.end - range.start).to_be_bytes()].concat()
}

fn set(node: &mut DeviceTreeNode, name: &str, value: Vec<u8>) {
    node.remove_property(name);
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}
