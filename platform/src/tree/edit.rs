//! Edits a device tree in place.
//!
//! The blocks of a tree stand one behind the other, so every change is one splice: some bytes of the
//! structure block are replaced by others, and all that follows moves, the strings block last. What
//! follows *that* is room to grow. No crate in use can add a property without a heap, and the host's
//! tree needs a few.
//!
//! Offsets go stale with each splice: every edit looks its node up anew.

use core::fmt;
use core::ops::Range;

use super::blob::{self, Blocks, Token, Walk};
use super::error::Error;

/// Why a tree could not be edited. The tree is then half edited, and good for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// The tree can't be read.
    Tree(Error),
    /// There is no room behind the tree.
    NoRoom {
        /// How many bytes the next change lacks.
        missing_bytes: usize,
    },
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::NoRoom { missing_bytes } => write!(
                f,
                "the device tree has no room for the host's properties, {missing_bytes} bytes are \
                 missing: pad it (dtc --pad 4096)"
            ),
        }
    }
}

impl core::error::Error for EditError {}

impl From<Error> for EditError {
    fn from(error: Error) -> Self {
        Self::Tree(error)
    }
}

/// A tree that is being edited.
#[derive(Debug)]
pub struct Editor<'a> {
    dtb: &'a mut [u8],
    blocks: Blocks,
}

/// A node, until the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAt {
    /// Where it begins, in bytes from the start of the tree.
    offset: usize,
    /// How deep it is, the root being 1.
    depth: usize,
}

/// The bytes of a property, until the next change.
struct PropertyAt {
    all: Range<usize>,
    value: Range<usize>,
}

impl<'a> Editor<'a> {
    /// Checks a tree and begins to edit it. It may grow to the end of the slice.
    pub fn new(dtb: &'a mut [u8]) -> Result<Self, EditError> {
        let blocks = blob::check(dtb)?;
        Ok(Self { dtb, blocks })
    }

    fn walk(&self, at: usize) -> Walk<'_> {
        Walk::new(self.dtb, &self.blocks, at)
    }

    /// Returns the root.
    pub fn root(&self) -> Result<NodeAt, EditError> {
        let mut walk = self.walk(self.blocks.structure.start);
        loop {
            if let (range, Token::Begin { .. }) = walk.next_token()? {
                return Ok(NodeAt { offset: range.start, depth: 1 });
            }
        }
    }

    /// Returns the first node behind `after`, at any depth, that `wanted` accepts.
    pub fn find(
        &self,
        after: NodeAt,
        mut wanted: impl FnMut(NodeAt) -> Result<bool, EditError>,
    ) -> Result<Option<NodeAt>, EditError> {
        let mut walk = self.walk(after.offset);
        let mut depth = after.depth - 1;
        loop {
            match walk.next_token()? {
                (range, Token::Begin { .. }) => {
                    depth += 1;
                    let node = NodeAt { offset: range.start, depth };
                    if node != after && wanted(node)? {
                        return Ok(Some(node));
                    }
                }
                (_, Token::EndNode) => depth -= 1,
                (_, Token::End) => return Ok(None),
                _ => {}
            }
        }
    }

    /// Returns the child of the root with a name, whatever its unit address.
    pub fn find_top(&self, name: &str) -> Result<Option<NodeAt>, EditError> {
        self.find(self.root()?, |node| Ok(node.depth == 2 && self.base_name(node)? == name))
    }

    /// Returns the first child of a node that `wanted` accepts.
    pub fn find_child(
        &self,
        parent: NodeAt,
        mut wanted: impl FnMut(NodeAt) -> Result<bool, EditError>,
    ) -> Result<Option<NodeAt>, EditError> {
        let end = self.extent(parent)?.end;
        self.find(parent, |node| {
            Ok(node.depth == parent.depth + 1 && node.offset < end && wanted(node)?)
        })
    }

    fn base_name(&self, node: NodeAt) -> Result<&str, EditError> {
        match self.walk(node.offset).next_token()? {
            (_, Token::Begin { name }) => Ok(name.split('@').next().unwrap_or_default()),
            _ => Ok(""),
        }
    }

    /// Returns the bytes of a node, its end included.
    fn extent(&self, node: NodeAt) -> Result<Range<usize>, EditError> {
        let mut walk = self.walk(node.offset);
        let mut open = 0;
        loop {
            let (range, token) = walk.next_token()?;
            match token {
                Token::Begin { .. } => open += 1,
                Token::EndNode => open -= 1,
                _ => {}
            }
            if open == 0 {
                return Ok(node.offset..range.end);
            }
        }
    }

    /// Finds a property of a node.
    fn property_at(&self, node: NodeAt, wanted: &str) -> Result<Option<PropertyAt>, EditError> {
        let mut walk = self.walk(node.offset);
        walk.next_token()?;
        loop {
            match walk.next_token()? {
                (range, Token::Property { name, value }) if name == wanted => {
                    return Ok(Some(PropertyAt { all: range, value }));
                }
                (_, Token::Property { .. } | Token::Nop) => {}
                _ => return Ok(None),
            }
        }
    }

    /// Returns the value of a property.
    pub fn property(&self, node: NodeAt, name: &str) -> Result<Option<&[u8]>, EditError> {
        Ok(self.property_at(node, name)?.map(|property| &self.dtb[property.value]))
    }

    /// Tells whether a property holds a string, alone or in a list.
    pub fn has_string(&self, node: NodeAt, name: &str, text: &str) -> Result<bool, EditError> {
        let value = self.property(node, name)?.unwrap_or_default();
        Ok(value.split(|byte| *byte == 0).any(|part| part == text.as_bytes()))
    }

    /// Takes a node out, with all that is in it.
    pub fn remove_node(&mut self, node: NodeAt) -> Result<(), EditError> {
        let extent = self.extent(node)?;
        self.splice(extent, 0)
    }

    /// Takes a property out, if it is there.
    pub fn remove_property(&mut self, node: NodeAt, name: &str) -> Result<(), EditError> {
        match self.property_at(node, name)? {
            Some(property) => self.splice(property.all, 0),
            None => Ok(()),
        }
    }

    /// Gives a property a value; adds it as the node's first where it is missing.
    pub fn set_property(
        &mut self,
        node: NodeAt,
        name: &str,
        value: &[u8],
    ) -> Result<(), EditError> {
        let room = self.make_property(node, name, value.len())?;
        self.dtb[room].copy_from_slice(value);
        Ok(())
    }

    /// Gives a property a string as its value, as [`Editor::set_property`] does.
    pub fn set_string(&mut self, node: NodeAt, name: &str, text: &str) -> Result<(), EditError> {
        // The zero behind it is already there.
        let room = self.make_property(node, name, text.len() + 1)?;
        self.dtb[room.start..room.end - 1].copy_from_slice(text.as_bytes());
        Ok(())
    }

    /// Makes a property with a value of zeroes, and returns where the value is.
    fn make_property(
        &mut self,
        node: NodeAt,
        name: &str,
        value_bytes: usize,
    ) -> Result<Range<usize>, EditError> {
        let old = match self.property_at(node, name)? {
            Some(property) => property.all,
            None => {
                let (begin, _) = self.walk(node.offset).next_token()?;
                begin.end..begin.end
            }
        };
        let name_offset = self.name_offset(name)?;
        let at = old.start;
        let end = at + 12 + value_bytes.next_multiple_of(4);
        self.splice(old, end - at)?;
        self.write_u32(at, 3);
        self.write_u32(at + 4, value_bytes);
        self.write_u32(at + 8, name_offset);
        self.dtb[at + 12..end].fill(0);
        Ok(at + 12..at + 12 + value_bytes)
    }

    /// Returns where in the strings block a name is; adds it where it is missing.
    fn name_offset(&mut self, name: &str) -> Result<usize, EditError> {
        let strings = &self.dtb[self.blocks.strings.clone()];
        let found = strings
            .windows(name.len() + 1)
            .position(|window| window.split_last() == Some((&0, name.as_bytes())));
        if let Some(offset) = found {
            return Ok(offset);
        }
        let (at, offset) = (self.blocks.strings.end, strings.len());
        self.reserve(name.len() + 1)?;
        self.dtb[at..at + name.len()].copy_from_slice(name.as_bytes());
        self.dtb[at + name.len()] = 0;
        self.blocks.strings.end += name.len() + 1;
        self.write_header();
        Ok(offset)
    }

    fn reserve(&self, more_bytes: usize) -> Result<(), EditError> {
        let missing_bytes = (self.blocks.strings.end + more_bytes).saturating_sub(self.dtb.len());
        if missing_bytes == 0 { Ok(()) } else { Err(EditError::NoRoom { missing_bytes }) }
    }

    /// Replaces bytes of the structure block by as many as `new_bytes`, whose content is left to write.
    fn splice(&mut self, old: Range<usize>, new_bytes: usize) -> Result<(), EditError> {
        self.reserve(new_bytes.saturating_sub(old.len()))?;
        let moved = |offset: usize| offset - old.len() + new_bytes;
        self.dtb.copy_within(old.end..self.blocks.strings.end, old.start + new_bytes);
        self.blocks.structure.end = moved(self.blocks.structure.end);
        let strings = &self.blocks.strings;
        self.blocks.strings = moved(strings.start)..moved(strings.end);
        self.write_header();
        Ok(())
    }

    fn write_header(&mut self) {
        let Blocks { total_bytes, structure, strings, .. } = self.blocks.clone();
        self.blocks.total_bytes = total_bytes.max(strings.end);
        self.write_u32(4, self.blocks.total_bytes);
        self.write_u32(12, strings.start);
        self.write_u32(32, strings.len());
        self.write_u32(36, structure.len());
    }

    /// Writes a number below 2 MiB as a big-endian word.
    fn write_u32(&mut self, at: usize, value: usize) {
        self.dtb[at..at + 4].copy_from_slice(&(value as u32).to_be_bytes());
    }
}
