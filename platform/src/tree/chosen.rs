//! `/chosen`: the command line, and what the loader put into memory.
//!
//! Kernel and ramdisk of the host are multiboot modules: children of `/chosen` with a `compatible`
//! and a `reg`, the convention that Xen set and that QEMU's `guest-loader` device writes. A ramdisk
//! may also come as `linux,initrd-start` and `-end`, as loaders write them for Linux itself.

use verdigris_abi::Pa;

use super::error::Error;
use super::node::{self, Cells, Node, Tree};
use crate::list::{Full, Text};
use crate::machine::MAX_COMMAND_LINE_BYTES;
use crate::region::Region;

/// What the module of the host's kernel is compatible with.
pub const KERNEL: &str = "multiboot,kernel";
/// What the module of the host's ramdisk is compatible with.
pub const RAMDISK: &str = "multiboot,ramdisk";

fn chosen<'a>(tree: &Tree<'a>) -> Result<Option<Node<'a>>, Error> {
    node::child(&node::root(tree)?, "chosen")
}

/// Reads the command line of the firmware itself; empty where there is none.
pub fn command_line(tree: &Tree<'_>) -> Result<Text<MAX_COMMAND_LINE_BYTES>, Error> {
    let Some(chosen) = chosen(tree)? else { return Ok(Text::default()) };
    let text = node::string(&chosen, "bootargs")?.unwrap_or_default();
    Text::new(text).map_err(|Full| Error::TooMany {
        what: "bytes in the firmware's command line",
        limit: MAX_COMMAND_LINE_BYTES,
    })
}

/// Finds the one module of a kind.
pub fn module(tree: &Tree<'_>, kind: &'static str) -> Result<Option<Region>, Error> {
    let Some(chosen) = chosen(tree)? else { return Ok(None) };
    let mut found = None;
    for child in chosen.children()?.iter() {
        let child = child?;
        if node::is_compatible(&child, &[kind])? {
            let region = read_module(&chosen, &child)?;
            if found.replace(region).is_some() {
                return Err(Error::TooMany { what: kind, limit: 1 });
            }
        }
    }
    Ok(found)
}

/// Reads the `reg` of a module. Loaders leave out the numbers of cells, so their length counts.
fn read_module(chosen: &Node<'_>, module: &Node<'_>) -> Result<Region, Error> {
    let invalid = Error::Invalid("reg of a module in /chosen");
    let reg = node::property(module, "reg")?.ok_or(Error::Missing("reg of a module in /chosen"))?;
    let declared = node::cells(chosen)?;
    let cells = match reg.len() {
        length if declared.entry_bytes() == Some(length) => declared,
        8 => Cells { address: 1, size: 1 },
        16 => Cells { address: 2, size: 2 },
        _ => return Err(invalid),
    };
    let (address, bytes) = cells.read_entry(reg).ok_or(invalid)?;
    Region::with_size(Pa(address), bytes).filter(|region| !region.is_empty()).ok_or(invalid)
}

/// Finds the ramdisk: a module, or else what loaders write for Linux itself.
pub fn ramdisk(tree: &Tree<'_>) -> Result<Option<Region>, Error> {
    if let Some(region) = module(tree, RAMDISK)? {
        return Ok(Some(region));
    }
    let Some(chosen) = chosen(tree)? else { return Ok(None) };
    let start = node::property(&chosen, "linux,initrd-start")?;
    let end = node::property(&chosen, "linux,initrd-end")?;
    let (Some(start), Some(end)) = (start, end) else { return Ok(None) };
    // 4 or 8 bytes: QEMU changed from the one to the other.
    let range = node::number(start).zip(node::number(end));
    let region = range.and_then(|(start, end)| Region::new(Pa(start), Pa(end)));
    let region = region.ok_or(Error::Invalid("linux,initrd-start or -end"))?;
    Ok(Some(region).filter(|region| !region.is_empty()))
}
