//! A batch of leaves of one table that were changed together: up to 64, one bit each.

use crate::descriptor::{Descriptor, Kind, Level};
use crate::entry::Entry;
use crate::flush::Span;
use crate::hardware::Removed;
use crate::range::Range;
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

    /// Returns the pages from the first place in the batch to the last leaf.
    pub(crate) const fn hull(self) -> Range {
        let leaf_count = (64 - self.bits.leading_zeros()) as u64;
        Range::new(self.start, leaf_count * self.level.pages())
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
        let (mut leaves, mut young, mut dirty, mut passed) = (0, 0, 0, 0);
        for (entry, kept) in entries.iter().zip(&mut self.old) {
            let old = match entry.take_leaf(level, Descriptor::INVALID) {
                Some(old) => old,
                None if matches!(entry.read().kind(level), Kind::Table(_)) => break,
                None => Descriptor::INVALID,
            };
            // The bit of each comes in at the top and is in its place in the end.
            leaves = leaves >> 1 | old.valid_bit() << 63;
            young = young >> 1 | old.young_bit() << 63;
            dirty = dirty >> 1 | old.dirty_bit() << 63;
            *kept = old;
            passed += 1;
        }
        let in_place = |bits: u64| bits.checked_shr(64 - passed).unwrap_or(0);
        self.mask.bits = in_place(leaves);
        (self.young, self.dirty) = (in_place(young), in_place(dirty));
        u64::from(passed)
    }

    /// Returns the leaves, which are of this level.
    #[inline(always)]
    pub(crate) fn removed(&self, level: Level) -> impl Iterator<Item = Removed> {
        self.mask.indices().filter_map(move |index| {
            let old = self.old[index as usize];
            let pa = old.leaf_address(level)?;
            Some(Removed { ipa: self.mask.ipa(index), pa, level, old })
        })
    }
}
