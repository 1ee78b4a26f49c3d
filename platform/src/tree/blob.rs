//! The format of a flattened device tree: header, blocks and tokens (Devicetree Specification,
//! chapter 5).
//!
//! [`check`] is the gate: what it lets pass has all blocks inside the slice and in the usual order,
//! tokens that nest, properties before child nodes, names that are printable and end, and its END
//! token as the last word of the structure block. What comes after may rely on that.

use core::ops::Range;

use super::error::{Error, Flaw};

/// Largest tree that is read: what an arm64 Linux accepts (`Documentation/arch/arm64/booting.rst`).
pub const MAX_TREE_BYTES: usize = 2 << 20;
/// Deepest node, the root being 1: the reader remembers as many parents.
const MAX_DEPTH: usize = 15;
/// Longest name of a node or property. The specification says 31; real trees exceed it.
const MAX_NAME_BYTES: usize = 255;

const HEADER_BYTES: usize = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Where the blocks of a tree are, in bytes from its start.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Size that the header declares.
    pub total_bytes: usize,
    /// Start of the list of memory reservations.
    pub reservations: usize,
    /// The structure block.
    pub structure: Range<usize>,
    /// The strings block.
    pub strings: Range<usize>,
}

/// One step of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A node begins.
    Begin {
        /// Its name, with unit address; empty for the root.
        name: &'a str,
    },
    /// The innermost node ends.
    EndNode,
    /// A property.
    Property {
        /// Its name.
        name: &'a str,
        /// Where its value is.
        value: Range<usize>,
    },
    /// A filler.
    Nop,
    /// The end of the structure.
    End,
}

/// Walks over the tokens of the structure block. After an error it goes nowhere.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    dtb: &'a [u8],
    structure_end: usize,
    strings: Range<usize>,
    at: usize,
}

fn malformed(offset: usize, flaw: Flaw) -> Error {
    Error::Malformed { offset, flaw }
}

/// Reads a big-endian word.
pub(crate) fn read_u32(dtb: &[u8], offset: usize) -> Result<u32, Error> {
    let bytes = dtb.get(offset..).and_then(<[u8]>::first_chunk);
    bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(malformed(offset, Flaw::TooShort))
}

/// Reads a big-endian double word.
pub(crate) fn read_u64(dtb: &[u8], offset: usize) -> Result<u64, Error> {
    let bytes = dtb.get(offset..).and_then(<[u8]>::first_chunk);
    bytes.map(|bytes| u64::from_be_bytes(*bytes)).ok_or(malformed(offset, Flaw::TooShort))
}

/// Returns the size in bytes that a tree declares in its first 8 bytes.
///
/// What a firmware that was handed an address calls first, to learn how long its slice has to be.
pub fn declared_bytes(header: &[u8]) -> Result<usize, Error> {
    if read_u32(header, 0)? != 0xd00d_feed {
        return Err(malformed(0, Flaw::Magic));
    }
    match read_u32(header, 4)? as usize {
        ..HEADER_BYTES => Err(malformed(4, Flaw::TooShort)),
        HEADER_BYTES..=MAX_TREE_BYTES => Ok(read_u32(header, 4)? as usize),
        _ => Err(malformed(4, Flaw::TooLarge)),
    }
}

/// Checks a whole tree, and tells where its blocks are.
pub fn check(dtb: &[u8]) -> Result<Blocks, Error> {
    let blocks = read_header(dtb)?;
    check_reservations(dtb, &blocks)?;
    check_structure(dtb, &blocks)?;
    Ok(blocks)
}

fn read_header(dtb: &[u8]) -> Result<Blocks, Error> {
    let total_bytes = declared_bytes(dtb)?;
    if dtb.len() < total_bytes {
        return Err(malformed(4, Flaw::TooShort));
    }
    // Version 17 came in 2005; it tells the size of the structure block.
    let (version, last_compatible) = (read_u32(dtb, 20)?, read_u32(dtb, 24)?);
    if version < 17 || last_compatible > 17 {
        return Err(malformed(20, Flaw::Version));
    }
    let structure = read_block(dtb, 8, 36)?;
    let strings = read_block(dtb, 12, 32)?;
    let reservations = read_u32(dtb, 16)? as usize;
    // The order in which every compiler and loader writes them; it makes growing one move.
    let ordered = HEADER_BYTES <= reservations
        && reservations <= structure.start
        && structure.end <= strings.start
        && strings.end <= total_bytes;
    let words = structure.start.is_multiple_of(4) && structure.len().is_multiple_of(4);
    let aligned = reservations.is_multiple_of(8) && words;
    if !ordered || !aligned {
        return Err(malformed(8, Flaw::Blocks));
    }
    Ok(Blocks { total_bytes, reservations, structure, strings })
}

fn read_block(dtb: &[u8], offset_field: usize, size_field: usize) -> Result<Range<usize>, Error> {
    let (start, bytes) = (read_u32(dtb, offset_field)?, read_u32(dtb, size_field)?);
    let end = start.checked_add(bytes).ok_or(malformed(size_field, Flaw::Blocks))?;
    Ok(start as usize..end as usize)
}

/// Returns the memory reservations of a tree: address and size in bytes.
pub fn reservations<'a>(dtb: &'a [u8], blocks: &Blocks) -> impl Iterator<Item = (u64, u64)> + 'a {
    let entries = dtb[blocks.reservations..blocks.structure.start].chunks_exact(16);
    let entries =
        entries.map_while(|entry| Some((read_u64(entry, 0).ok()?, read_u64(entry, 8).ok()?)));
    entries.take_while(|entry| *entry != (0, 0))
}

fn check_reservations(dtb: &[u8], blocks: &Blocks) -> Result<(), Error> {
    let mut entries = dtb[blocks.reservations..blocks.structure.start].chunks_exact(16);
    match entries.any(|entry| entry == [0; 16]) {
        true => Ok(()),
        false => Err(malformed(blocks.reservations, Flaw::Reservations)),
    }
}

fn check_structure(dtb: &[u8], blocks: &Blocks) -> Result<(), Error> {
    let mut walk = Walk::new(dtb, blocks, blocks.structure.start);
    let mut nesting = Nesting::default();
    loop {
        let (range, token) = walk.next_token()?;
        let is_end = token == Token::End;
        nesting.step(token).map_err(|flaw| malformed(range.start, flaw))?;
        if is_end {
            // What is behind the end is read by some and not by others.
            let is_last = range.end == blocks.structure.end;
            return if is_last { Ok(()) } else { Err(malformed(range.start, Flaw::Token)) };
        }
    }
}

/// How far a walk came: which tokens may follow.
#[derive(Default)]
struct Nesting {
    depth: usize,
    seen_root: bool,
    properties_allowed: bool,
}

impl Nesting {
    fn step(&mut self, token: Token<'_>) -> Result<(), Flaw> {
        match token {
            Token::Begin { name } => self.begin(name),
            Token::EndNode => {
                self.depth = self.depth.checked_sub(1).ok_or(Flaw::Token)?;
                self.properties_allowed = false;
                Ok(())
            }
            Token::Property { .. } if self.properties_allowed => Ok(()),
            Token::Nop if self.seen_root => Ok(()),
            Token::End if self.seen_root && self.depth == 0 => Ok(()),
            _ => Err(Flaw::Token),
        }
    }

    fn begin(&mut self, name: &str) -> Result<(), Flaw> {
        let is_root = self.depth == 0;
        if is_root && self.seen_root {
            return Err(Flaw::Token);
        }
        if name.is_empty() != is_root {
            return Err(Flaw::Name);
        }
        self.depth += 1;
        self.seen_root = true;
        self.properties_allowed = true;
        if self.depth > MAX_DEPTH { Err(Flaw::Depth) } else { Ok(()) }
    }
}

impl<'a> Walk<'a> {
    /// Begins a walk at a token, `at` bytes from the start of the tree.
    pub fn new(dtb: &'a [u8], blocks: &Blocks, at: usize) -> Self {
        Self { dtb, structure_end: blocks.structure.end, strings: blocks.strings.clone(), at }
    }

    /// Returns the next token and the bytes it occupies.
    pub fn next_token(&mut self) -> Result<(Range<usize>, Token<'a>), Error> {
        let start = self.at;
        let (end, token) = match self.word(start)? {
            BEGIN_NODE => self.begin(start + 4)?,
            END_NODE => (start + 4, Token::EndNode),
            PROPERTY => self.property(start + 4)?,
            NOP => (start + 4, Token::Nop),
            END => (start + 4, Token::End),
            _ => return Err(malformed(start, Flaw::Token)),
        };
        let end = end.next_multiple_of(4);
        if end > self.structure_end {
            return Err(malformed(start, Flaw::TooShort));
        }
        self.at = end;
        Ok((start..end, token))
    }

    fn word(&self, offset: usize) -> Result<u32, Error> {
        read_u32(&self.dtb[..self.structure_end], offset)
    }

    fn begin(&self, at: usize) -> Result<(usize, Token<'a>), Error> {
        let name = read_name(self.dtb, at..self.structure_end)?;
        if name.contains('/') {
            return Err(malformed(at, Flaw::Name));
        }
        Ok((at + name.len() + 1, Token::Begin { name }))
    }

    fn property(&self, at: usize) -> Result<(usize, Token<'a>), Error> {
        let (bytes, name_offset) = (self.word(at)? as usize, self.word(at + 4)? as usize);
        let name = read_name(self.dtb, self.strings.start + name_offset..self.strings.end)?;
        if name.is_empty() {
            return Err(malformed(at, Flaw::Name));
        }
        let value = at + 8..at + 8 + bytes;
        Ok((value.end, Token::Property { name, value }))
    }
}

/// Reads a name that must end inside the range.
fn read_name(dtb: &[u8], range: Range<usize>) -> Result<&str, Error> {
    let unnamed = malformed(range.start, Flaw::Name);
    let bytes = dtb.get(range).ok_or(unnamed)?;
    let bytes = &bytes[..bytes.len().min(MAX_NAME_BYTES + 1)];
    let length = bytes.iter().position(|byte| !byte.is_ascii_graphic()).ok_or(unnamed)?;
    match bytes[length] {
        0 => core::str::from_utf8(&bytes[..length]).map_err(|_| unnamed),
        _ => Err(unnamed),
    }
}
