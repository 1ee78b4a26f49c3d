//! Walking a tree in software: the same steps as the hardware's, one copied descriptor a level.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::entry::Entry;
use crate::memory::{Root, TableMemory};
use verdigris_abi::Ipa;

/// Where a walk stopped: an entry, its level, and what was read from it.
pub struct Position<'a> {
    /// The entry that decides the translation.
    pub entry: &'a Entry,
    /// Its level.
    pub level: Level,
    /// What it held when the walk came by.
    pub old: Descriptor,
}

/// Finds the entry that decides how `ipa` is translated: a leaf, or one that is invalid.
pub fn find<M: TableMemory>(memory: &M, root: Root, ipa: Ipa) -> Position<'_> {
    find_down_to(memory, root, ipa, Level::L3)
}

/// Finds the entry for `ipa` at `last`, or the entry above that ends the walk earlier.
///
/// The entry at `last` is returned whatever it is, a table too.
pub fn find_down_to<M: TableMemory>(memory: &M, root: Root, ipa: Ipa, last: Level) -> Position<'_> {
    let mut level = root.geometry().start_level();
    let mut page = root.page_for(ipa);
    loop {
        let entry = &memory.table(page)[level.index(ipa.0)];
        let old = entry.read();
        match (old.kind(level), level.next()) {
            (Kind::Table(next_page), Some(next)) if level < last => {
                (page, level) = (next_page, next);
            }
            _ => return Position { entry, level, old },
        }
    }
}
