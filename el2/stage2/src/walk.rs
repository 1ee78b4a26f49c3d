//! Walking a tree in software: the same steps as the hardware's, one copied descriptor a level.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::entry::Entry;
use crate::memory::{Root, Table, TableMemory};
use crate::sync::{Weakness, weakened};
use verdigris_abi::Ipa;

/// Where a walk stopped: an entry of a table, its level, and what was read from it.
pub struct Position<'a> {
    /// The table that the walk ended in.
    pub table: &'a Table,
    /// The index of the entry that decides the translation.
    pub index: usize,
    /// The level of the table.
    pub level: Level,
    /// What the entry held when the walk came by.
    pub old: Descriptor,
}

impl<'a> Position<'a> {
    /// Returns the entry that decides the translation.
    pub fn entry(&self) -> &'a Entry {
        &self.table[self.index]
    }

    /// Returns up to `limit` entries, from the deciding one to the end of its table at most.
    pub fn entries(&self, limit: u64) -> &'a [Entry] {
        let rest = &self.table[self.index..];
        &rest[..rest.len().min(limit as usize)]
    }
}

/// Finds the entry that decides how `ipa` is translated: a leaf, or one that is invalid.
pub fn find<M: TableMemory>(memory: &M, root: Root, ipa: Ipa) -> Position<'_> {
    find_down_to(memory, root, ipa, Level::L3)
}

/// Finds the entry that decides how `ipa` is translated, and where that is invalid makes sure that its
/// table is still the one: a collapse leaves a table behind in which nothing is valid any more.
///
/// The second walk reads the table's link after the entry, and both loads are acquire: so if a table that
/// is gone was looked at, the second walk ends elsewhere.
pub fn find_surely<M: TableMemory>(memory: &M, root: Root, ipa: Ipa) -> Position<'_> {
    let mut at = find(memory, root, ipa);
    while at.old.kind(at.level) == Kind::Invalid && at.level > root.geometry().start_level() {
        let again = find(memory, root, ipa);
        if core::ptr::eq(again.entry(), at.entry()) || weakened(Weakness::FaultLooksOnce) {
            return at;
        }
        at = again;
    }
    at
}

/// Finds the entry for `ipa` at `last`, or the entry above that ends the walk earlier.
///
/// The entry at `last` is returned whatever it is, a table too.
pub fn find_down_to<M: TableMemory>(memory: &M, root: Root, ipa: Ipa, last: Level) -> Position<'_> {
    let mut level = root.geometry().start_level();
    let mut page = root.page_for(ipa);
    loop {
        let table = memory.table(page);
        let index = level.index(ipa.0);
        let old = table[index].read();
        match (level.next(), old.table_below(level)) {
            (Some(next), Some(next_page)) if level < last => (page, level) = (next_page, next),
            _ => return Position { table, index, level, old },
        }
    }
}
