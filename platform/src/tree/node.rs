//! Nodes, properties and cells, as the rest of the reader wants them.
//!
//! Values are taken raw from the `fdt` crate and decoded here: its typed properties carry a few
//! `unwrap`s, and its search by path also finds grandchildren.

use fdt::helpers::UnalignedFallibleNode;
use fdt::nodes::AsNode;
use fdt::parsing::NoPanic;
use fdt::parsing::unaligned::UnalignedParser;
use verdigris_abi::Pa;

use super::error::Error;
use crate::region::Region;

/// A tree that was checked, read without panics.
pub type Tree<'a> = fdt::Fdt<'a, (UnalignedParser<'a>, NoPanic)>;
/// A node of it.
pub type Node<'a> = UnalignedFallibleNode<'a>;

/// How many cells an address and a size have in the `reg` of a node's children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Of an address.
    pub address: u32,
    /// Of a size.
    pub size: u32,
}

/// Returns the root.
pub fn root<'a>(tree: &Tree<'a>) -> Result<Node<'a>, Error> {
    Ok(tree.root()?.as_node())
}

/// Returns the first child with a name; a name without unit address matches any address.
pub fn child<'a>(node: &Node<'a>, name: &str) -> Result<Option<Node<'a>>, Error> {
    Ok(node.children()?.find(name)?)
}

/// Returns the value of a property.
pub fn property<'a>(node: &Node<'a>, name: &str) -> Result<Option<&'a [u8]>, Error> {
    Ok(node.raw_property(name)?.map(|property| property.value))
}

/// Splits a list of strings, leaving out what is no text.
pub fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    value.split(|byte| *byte == 0).filter_map(|text| core::str::from_utf8(text).ok())
}

/// Returns the first string of a property.
pub fn string<'a>(node: &Node<'a>, name: &str) -> Result<Option<&'a str>, Error> {
    Ok(property(node, name)?.and_then(|value| strings(value).next()))
}

/// Tells whether one of a node's `compatible` strings is among `wanted`.
pub fn is_compatible(node: &Node<'_>, wanted: &[&str]) -> Result<bool, Error> {
    let compatible = property(node, "compatible")?.unwrap_or_default();
    Ok(strings(compatible).any(|text| wanted.contains(&text)))
}

/// Tells whether a node's `status` allows it to be used.
pub fn is_enabled(node: &Node<'_>) -> Result<bool, Error> {
    Ok(matches!(string(node, "status")?, None | Some("okay" | "ok")))
}

/// Returns the number of a property of one cell.
pub fn cell(node: &Node<'_>, name: &str) -> Result<Option<u32>, Error> {
    let value = property(node, name)?;
    Ok(value.and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?))))
}

/// Returns the sizes that a node gives to its children's `reg`; the defaults are the format's.
pub fn cells(node: &Node<'_>) -> Result<Cells, Error> {
    Ok(Cells {
        address: cell(node, "#address-cells")?.unwrap_or(2),
        size: cell(node, "#size-cells")?.unwrap_or(1),
    })
}

impl Cells {
    /// Returns the size of an entry of `reg` in bytes; `None` where it does not fit 64-bit numbers.
    pub fn entry_bytes(self) -> Option<usize> {
        let fits = matches!(self.address, 1..=2) && matches!(self.size, 1..=2);
        fits.then(|| (self.address + self.size) as usize * 4)
    }

    /// Reads an entry of `reg`: address and size in bytes.
    pub fn read_entry(self, entry: &[u8]) -> Option<(u64, u64)> {
        let (address, size) = entry.split_at_checked(self.address as usize * 4)?;
        Some((number(address)?, number(size)?))
    }

    /// Writes an entry of `reg`, and returns its size in bytes. The numbers fit: they are parts of
    /// what was read with the same sizes.
    pub fn write_entry(self, entry: &mut [u8], region: Region) -> usize {
        let mut at = 0;
        for (cells, number) in [(self.address, region.start().0), (self.size, region.bytes())] {
            let bytes = cells as usize * 4;
            entry[at..at + bytes].copy_from_slice(&number.to_be_bytes()[8 - bytes..]);
            at += bytes;
        }
        at
    }

    /// Reads `reg`. `what` names it in errors.
    pub fn regions<'a>(
        self,
        reg: &'a [u8],
        what: &'static str,
    ) -> Result<impl Iterator<Item = Result<Region, Error>> + 'a, Error> {
        let invalid = Error::Invalid(what);
        let entry_bytes = self.entry_bytes().ok_or(invalid)?;
        if !reg.len().is_multiple_of(entry_bytes) {
            return Err(invalid);
        }
        Ok(reg.chunks_exact(entry_bytes).map(move |entry| {
            let (address, bytes) = self.read_entry(entry).ok_or(invalid)?;
            Region::with_size(Pa(address), bytes).ok_or(invalid)
        }))
    }
}

/// Reads a number of 4 or 8 bytes.
pub fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 => Some(u32::from_be_bytes(value.try_into().ok()?).into()),
        8 => Some(u64::from_be_bytes(value.try_into().ok()?)),
        _ => None,
    }
}
