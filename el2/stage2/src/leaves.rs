//! A batch of leaves of one table that were changed together: up to 64, one bit each.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::entry::Entry;
use crate::flush::Span;
use crate::hardware::Removed;
use crate::stage2::BATCH;
use verdigris_abi::Ipa;

/// Which of up to 64 consecutive leaves a batch changed.
#[derive(Clone, Copy)]
pub(crate) struct Mask {
    /// What leaf 0 translates.
    pub(crate) start: Ipa,
    pub(crate) level: Level,
    pub(crate) bits: u64,
}

impl Mask {
    pub(crate) const fn new(start: Ipa, level: Level) -> Self {
        Self { start, level, bits: 0 }
    }

    /// Makes the mask of a single leaf.
    pub(crate) const fn leaf(ipa: Ipa, level: Level) -> Self {
        Self { start: ipa, level, bits: 1 }
    }

    pub(crate) fn set(&mut self, index: usize) {
        self.bits |= 1 << index;
    }

    pub(crate) const fn count(self) -> u64 {
        self.bits.count_ones() as u64
    }

    /// Returns what leaf `index` translates.
    pub(crate) const fn ipa(self, index: u32) -> Ipa {
        Ipa(self.start.0 + index as u64 * self.level.bytes())
    }

    /// Returns the indices of the leaves in the batch.
    pub(crate) fn indices(self) -> impl Iterator<Item = u32> + Clone {
        let mut rest = self.bits;
        core::iter::from_fn(move || {
            let index = rest.trailing_zeros();
            rest &= rest.checked_sub(1)?;
            Some(index)
        })
    }

    /// Returns runs of neighbours, for the invalidation: nothing between them is named.
    pub(crate) fn spans(self) -> impl Iterator<Item = Span> + Clone {
        let mut rest = self.bits;
        core::iter::from_fn(move || {
            let first = (rest != 0).then(|| rest.trailing_zeros())?;
            let count = (rest >> first).trailing_ones();
            rest &= u64::MAX.checked_shl(first + count).unwrap_or(0);
            let page_count = u64::from(count) * self.level.pages();
            Some(Span { start: self.ipa(first), page_count, level: Some(self.level) })
        })
    }
}

/// Leaves that were taken away, as they were: reported once their invalidation is complete.
pub(crate) struct Taken {
    pub(crate) mask: Mask,
    /// Those whose access flag was set.
    pub(crate) young: u64,
    /// Those that were dirty.
    pub(crate) dirty: u64,
    old: [Descriptor; BATCH as usize],
}

impl Taken {
    pub(crate) const fn new(start: Ipa, level: Level) -> Self {
        Self {
            mask: Mask::new(start, level),
            young: 0,
            dirty: 0,
            old: [Descriptor::INVALID; BATCH as usize],
        }
    }

    /// Takes leaves away, as far as no table comes between; returns how many entries it passed.
    pub(crate) fn take(&mut self, entries: &[Entry]) -> u64 {
        // A loop for each level: what a leaf looks like is a constant there.
        match self.mask.level {
            Level::L3 => self.take_at(Level::L3, entries),
            Level::L2 => self.take_at(Level::L2, entries),
            level => self.take_at(level, entries),
        }
    }

    #[inline(always)]
    fn take_at(&mut self, level: Level, entries: &[Entry]) -> u64 {
        for (index, entry) in entries.iter().enumerate() {
            if let Some(old) = entry.take_leaf(level, Descriptor::INVALID) {
                self.mask.bits |= 1 << index;
                self.young |= u64::from(old.is_young()) << index;
                self.dirty |= u64::from(old.is_dirty()) << index;
                self.old[index] = old;
            } else if matches!(entry.read().kind(level), Kind::Table(_)) {
                return index as u64;
            }
        }
        entries.len() as u64
    }

    pub(crate) fn removed(&self) -> impl Iterator<Item = Removed> {
        let Mask { level, .. } = self.mask;
        self.mask.indices().filter_map(move |index| {
            let old = self.old[index as usize];
            let pa = old.leaf_address(level)?;
            Some(Removed { ipa: self.mask.ipa(index), pa, level, old })
        })
    }
}
