//! RAM, and what of it is reserved.

use verdigris_abi::Pa;

use super::blob::{self, Blocks};
use super::error::Error;
use super::node::{self, Node, Tree};
use crate::list::{Full, List};
use crate::machine::{MAX_REGIONS, Reserved};
use crate::region::Region;

const TOO_MANY_RANGES: Error = Error::TooMany { what: "ranges of memory", limit: MAX_REGIONS };
const TOO_MANY_RESERVED: Error =
    Error::TooMany { what: "ranges of reserved memory", limit: MAX_REGIONS };

/// Tells whether a child of the root is ordinary memory.
///
/// QEMU describes memory of the secure world by a disabled node of the same type.
fn is_memory(node: &Node<'_>) -> Result<bool, Error> {
    Ok(node::string(node, "device_type")? == Some("memory") && node::is_enabled(node)?)
}

/// Reads all memory nodes: whole pages, ascending, neighbours merged.
pub fn memory(tree: &Tree<'_>) -> Result<List<Region, MAX_REGIONS>, Error> {
    let root = node::root(tree)?;
    let cells = node::cells(&root)?;
    let mut memory = List::default();
    for child in root.children()?.iter() {
        let child = child?;
        if is_memory(&child)? {
            let reg =
                node::property(&child, "reg")?.ok_or(Error::Missing("reg of a memory node"))?;
            for region in cells.regions(reg, "reg of a memory node")? {
                if let Some(region) = region?.whole_pages() {
                    add(&mut memory, region)?;
                }
            }
        }
    }
    if memory.is_empty() { Err(Error::Missing("memory node")) } else { Ok(memory) }
}

/// Adds a range to a sorted list, and merges it with those that it touches.
fn add(memory: &mut List<Region, MAX_REGIONS>, mut region: Region) -> Result<(), Error> {
    while let Some(index) =
        memory.iter().position(|old| old.start() <= region.end() && region.start() <= old.end())
    {
        let (start, end) = (memory[index].start(), memory[index].end());
        let merged = Region::new(start.min(region.start()), end.max(region.end()));
        region = merged.ok_or(Error::Invalid("reg of a memory node"))?;
        memory.remove(index);
    }
    let index = memory.iter().filter(|old| old.start() < region.start()).count();
    memory.insert(index, region).map_err(|Full| TOO_MANY_RANGES)
}

/// Reads memory reservations and `/reserved-memory`.
///
/// Ranges that the tree only asks for (a `size` without `reg`) are the host's to choose.
pub fn reserved(
    tree: &Tree<'_>,
    dtb: &[u8],
    blocks: &Blocks,
) -> Result<List<Reserved, MAX_REGIONS>, Error> {
    let mut reserved = List::default();
    for (address, bytes) in blob::reservations(dtb, blocks) {
        let region = Region::with_size(Pa(address), bytes);
        let region = region.ok_or(Error::Invalid("list of memory reservations"))?;
        add_reserved(&mut reserved, Reserved { region, ..Default::default() })?;
    }
    let Some(parent) = node::child(&node::root(tree)?, "reserved-memory")? else {
        return Ok(reserved);
    };
    let cells = node::cells(&parent)?;
    for child in parent.children()?.iter() {
        let child = child?;
        let reg = node::property(&child, "reg")?.unwrap_or_default();
        if reg.is_empty() || !node::is_enabled(&child)? {
            continue;
        }
        let no_map = node::property(&child, "no-map")?.is_some();
        let is_reusable = node::property(&child, "reusable")?.is_some();
        for region in cells.regions(reg, "reg of a child of /reserved-memory")? {
            let region = region?;
            add_reserved(&mut reserved, Reserved { region, no_map, is_reusable })?;
        }
    }
    Ok(reserved)
}

fn add_reserved(reserved: &mut List<Reserved, MAX_REGIONS>, new: Reserved) -> Result<(), Error> {
    if new.region.is_empty() {
        return Ok(());
    }
    reserved.push(new).map_err(|Full| TOO_MANY_RESERVED)
}
