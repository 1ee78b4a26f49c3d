//! The address space as plain as it gets: leaves by their first page.
//!
//! Whether tables exist makes no difference here. A leaf is kept with its size, because splitting a block
//! changes what can be said about it, but not what it translates.

use crate::settings::Settings;
use crate::walker::{bits, pages};
use std::collections::BTreeMap;
use std::ops::Range;
use verdigris_stage2::Access;

/// A leaf, as the host would describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its level: 1 to 3.
    pub level: u32,
    /// The memory behind it.
    pub pa: u64,
    /// The host allowed writing.
    pub granted: bool,
    /// The walker allows writing: written, or mapped so that nobody would notice.
    pub writable: bool,
    /// It was dirty when the permission to write was taken from it.
    pub noted: bool,
    /// The guest may execute.
    pub exec: bool,
    /// The access flag.
    pub young: bool,
}

impl Leaf {
    /// Tells whether its pages count as written since they were last found clean.
    pub const fn is_dirty(&self) -> bool {
        self.writable || self.noted
    }

    /// Tells whether the guest may do that.
    pub const fn allows(&self, access: Access) -> bool {
        match access {
            Access::Read => true,
            Access::Write => self.granted,
            Access::Execute => self.exec,
        }
    }

    /// Returns the pages that it translates.
    pub const fn pages(&self) -> u64 {
        pages(self.level)
    }

    /// Returns the part of it at a page of an offset, as a leaf of a smaller size.
    pub const fn part(&self, offset: u64, level: u32) -> Self {
        Self { level, pa: self.pa + offset * 4096, ..*self }
    }

    /// Returns the descriptor, spelled from the Arm ARM (D8.3.2) for guest memory: Normal write-back, inner
    /// shareable, readable.
    pub fn raw(&self, settings: &Settings) -> u64 {
        const NORMAL_WRITE_BACK: u64 = 0b1111 << 2;
        const FORCED_WRITE_BACK: u64 = 0b0110 << 2;
        let memory = if settings.config.fwb { FORCED_WRITE_BACK } else { NORMAL_WRITE_BACK };
        let bit = |on: bool, bits: u64| if on { bits } else { 0 };
        self.pa
            | memory
            | bits::INNER_SHAREABLE
            | bits::READ
            | bits::VALID
            | bit(self.level == 3, bits::TABLE_OR_PAGE)
            | bit(self.writable, bits::WRITE)
            | bit(self.noted, bits::NOTED)
            | bit(self.granted, bits::GRANTED)
            | bit(self.granted && settings.dirty_state, bits::DBM)
            | bit(!self.exec, bits::XN)
            | bit(self.young, bits::AF)
    }
}

/// The leaves of a VM.
#[derive(Clone, Debug, Default)]
pub struct Space(BTreeMap<u64, Leaf>);

impl Space {
    /// Returns the leaf that translates a page, and its first page.
    pub fn at(&self, page: u64) -> Option<(u64, Leaf)> {
        let (&first, &leaf) = self.0.range(..=page).next_back()?;
        (page < first + leaf.pages()).then_some((first, leaf))
    }

    /// Returns the leaves that have a page in `[start, end)`, in order.
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, Leaf)> + '_ {
        self.0.range(self.reach(start, end)).map(|(&first, &leaf)| (first, leaf))
    }

    /// Returns where leaves begin that have a page in `[start, end)`.
    fn reach(&self, start: u64, end: u64) -> Range<u64> {
        if start >= end {
            return start..start;
        }
        self.at(start).map_or(start, |(first, _)| first)..end
    }

    /// Returns all leaves, in order.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = (u64, Leaf)> + '_ {
        self.0.iter().map(|(&first, &leaf)| (first, leaf))
    }

    /// Returns the leaf that begins at a page.
    pub fn leaf_mut(&mut self, first: u64) -> Option<&mut Leaf> {
        self.0.get_mut(&first)
    }

    /// Puts a leaf where nothing is.
    pub fn insert(&mut self, first: u64, leaf: Leaf) {
        debug_assert!(first.is_multiple_of(leaf.pages()));
        let before = self.0.insert(first, leaf);
        assert_eq!(before, None, "two leaves for page {first:#x}");
    }

    /// Takes the leaf that begins at a page.
    pub fn remove(&mut self, first: u64) -> Option<Leaf> {
        self.0.remove(&first)
    }

    /// Changes the leaves that have a page in `[start, end)`.
    pub fn change(&mut self, start: u64, end: u64, mut change: impl FnMut(&mut Leaf)) {
        let reach = self.reach(start, end);
        self.0.range_mut(reach).for_each(|(_, leaf)| change(leaf));
    }

    /// Replaces a leaf by its parts of a smaller size.
    pub fn split(&mut self, first: u64, level: u32) {
        let leaf = self.0.remove(&first).expect("a leaf to split");
        for offset in (0..leaf.pages()).step_by(pages(level) as usize) {
            self.0.insert(first + offset, leaf.part(offset, level));
        }
    }

    /// Tells whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
