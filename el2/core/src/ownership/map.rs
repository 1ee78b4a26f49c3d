//! Where the words of an address are: RAM lies scattered, its words lie dense.
//!
//! Memory is taken in spans of whole GiB that hold any RAM, so that one index serves the words of all
//! three sizes by shifting. A lookup scans the spans, of which machines have few, and costs the same
//! for a machine of any size.

use crate::call::{LeafSize, PaRange};
use crate::sync::AtomicU32;
use core::ops::Range;
use verdigris_abi::{Error, PAGE_SHIFT, Pa, Status};

/// log2 of how many parts a block has. Small under the model checker, which counts every word.
const FANOUT_SHIFT: u32 = if cfg!(loom) { 1 } else { 9 };
/// How many pages a small block has, and small blocks a large one.
pub(super) const FANOUT: u64 = 1 << FANOUT_SHIFT;
/// log2 of how many pages a large block has.
const GIGA_SHIFT: u32 = 2 * FANOUT_SHIFT;

/// Most separate stretches of memory, in whole GiB, that a machine may have.
pub const MAX_SPANS: usize = 32;

/// Returns the size of a mapping in bytes.
pub(super) const fn bytes(size: LeafSize) -> u64 {
    1 << (PAGE_SHIFT + shift(size))
}

const fn shift(size: LeafSize) -> u32 {
    match size {
        LeafSize::Page => 0,
        LeafSize::Block2M => FANOUT_SHIFT,
        LeafSize::Block1G => GIGA_SHIFT,
    }
}

/// The number of a page among those that have words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dense(u64);

impl Dense {
    /// Returns the index of the word for the mapping of that size that holds the page.
    pub(super) const fn index(self, size: LeafSize) -> usize {
        (self.0 >> shift(size)) as usize
    }
}

/// A stretch of large blocks: their numbers, and how many lie before it.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    first: u64,
    end: u64,
    before: u64,
}

/// All stretches, in ascending order and apart.
#[derive(Debug)]
pub(super) struct Map {
    spans: [Span; MAX_SPANS],
    span_count: usize,
}

impl Map {
    /// Covers all ranges, given in any order. LIMIT: they are too scattered.
    pub(super) fn new(ram: &[PaRange]) -> Status<Self> {
        let mut map = Self { spans: [Span::default(); MAX_SPANS], span_count: 0 };
        for range in ram {
            let first = range.start().page() >> GIGA_SHIFT;
            let end = range.end().page().div_ceil(FANOUT * FANOUT);
            map.insert(first, end)?;
        }
        map.number();
        Ok(map)
    }

    /// Finds the page that holds an address.
    pub(super) fn find(&self, address: Pa) -> Option<Dense> {
        let page = address.page();
        let giga = page >> GIGA_SHIFT;
        let span = self.spans().iter().find(|span| (span.first..span.end).contains(&giga))?;
        Some(Dense(page - ((span.first - span.before) << GIGA_SHIFT)))
    }

    /// Returns the stretch that an address lies in: the number of its first page or block of that size,
    /// and where their words are.
    pub(super) fn stretch(&self, address: Pa, size: LeafSize) -> Option<(u64, Range<usize>)> {
        let giga = address.page() >> GIGA_SHIFT;
        let span = self.spans().iter().find(|span| (span.first..span.end).contains(&giga))?;
        let scale = GIGA_SHIFT - shift(size);
        let before = (span.before << scale) as usize;
        let count = ((span.end - span.first) << scale) as usize;
        Some((span.first << scale, before..before + count))
    }

    /// Returns how many words the table has.
    pub(super) fn word_count(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// Divides memory into the words of large blocks, small blocks and pages.
    pub(super) fn split<'m>(&self, words: &'m [AtomicU32]) -> Option<[&'m [AtomicU32]; 3]> {
        let [gigas, blocks, pages] = self.counts().map(|count| count as usize);
        let (gigas, rest) = words.split_at_checked(gigas)?;
        let (blocks, rest) = rest.split_at_checked(blocks)?;
        Some([gigas, blocks, rest.get(..pages)?])
    }

    fn spans(&self) -> &[Span] {
        &self.spans[..self.span_count]
    }

    fn counts(&self) -> [u64; 3] {
        let gigas = self.spans().last().map_or(0, |span| span.before + span.end - span.first);
        [gigas, gigas << FANOUT_SHIFT, gigas << GIGA_SHIFT]
    }

    /// Adds a stretch, and makes one of all that it touches.
    fn insert(&mut self, mut first: u64, mut end: u64) -> Status {
        let mut kept = 0;
        for index in 0..self.span_count {
            let span = self.spans[index];
            if span.first <= end && first <= span.end {
                (first, end) = (first.min(span.first), end.max(span.end));
            } else {
                self.spans[kept] = span;
                kept += 1;
            }
        }
        *self.spans.get_mut(kept).ok_or(Error::Limit)? = Span { first, end, before: 0 };
        self.span_count = kept + 1;
        self.spans[..self.span_count].sort_unstable_by_key(|span| span.first);
        Ok(())
    }

    /// Counts what lies before each stretch.
    fn number(&mut self) {
        let mut before = 0;
        for span in &mut self.spans[..self.span_count] {
            span.before = before;
            before += span.end - span.first;
        }
    }
}

#[cfg(all(not(loom), test))]
mod tests {
    use super::*;
    use std::vec::Vec;

    const GIB: u64 = 1 << 30;

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(start, (end - start) >> 12).unwrap()
    }

    fn spans(ram: &[PaRange]) -> Vec<(u64, u64, u64)> {
        let map = Map::new(ram).unwrap();
        map.spans().iter().map(|span| (span.first, span.end, span.before)).collect()
    }

    #[test]
    fn ranges_become_whole_gibibytes_in_order() {
        assert_eq!(spans(&[range(GIB, 2 * GIB)]), [(1, 2, 0)]);
        assert_eq!(spans(&[range(GIB + 4096, GIB + 8192)]), [(1, 2, 0)]);
        assert_eq!(spans(&[range(GIB - 4096, GIB + 4096)]), [(0, 2, 0)]);
        let scattered = [range(40 * GIB, 44 * GIB), range(2 * GIB, 3 * GIB)];
        assert_eq!(spans(&scattered), [(2, 3, 0), (40, 44, 1)]);
    }

    #[test]
    fn what_touches_becomes_one() {
        let parts = [
            range(GIB, GIB + 4096),
            range(8 * GIB, 9 * GIB),
            range(GIB + (512 << 20), 2 * GIB),
            range(3 * GIB, 4 * GIB),
            range(2 * GIB, 3 * GIB),
        ];
        assert_eq!(spans(&parts), [(1, 4, 0), (8, 9, 3)]);
    }

    #[test]
    fn too_many_pieces_are_an_error() {
        let pieces: Vec<_> =
            (0..33).map(|index| range(index * 2 * GIB, index * 2 * GIB + 4096)).collect();
        assert!(Map::new(&pieces[..32]).is_ok());
        assert_eq!(Map::new(&pieces).unwrap_err(), Error::Limit);
    }

    #[test]
    fn indices_are_dense() {
        let map = Map::new(&[range(GIB, 2 * GIB), range(40 * GIB, 41 * GIB)]).unwrap();
        let index = |address, size| map.find(Pa(address)).map(|page| page.index(size));
        assert_eq!(index(GIB, LeafSize::Page), Some(0));
        assert_eq!(index(2 * GIB - 1, LeafSize::Page), Some(262_143));
        assert_eq!(index(40 * GIB, LeafSize::Page), Some(262_144));
        assert_eq!(index(40 * GIB + (2 << 20), LeafSize::Block2M), Some(513));
        assert_eq!(index(41 * GIB - 4096, LeafSize::Block1G), Some(1));
        assert_eq!(index(2 * GIB, LeafSize::Page), None);
        assert_eq!(index(0, LeafSize::Page), None);
        assert_eq!(index(u64::MAX, LeafSize::Page), None);
        let stretch = |address, size| map.stretch(Pa(address), size);
        assert_eq!(stretch(41 * GIB - 1, LeafSize::Page), Some((40 << 18, 1 << 18..2 << 18)));
        assert_eq!(stretch(40 * GIB, LeafSize::Block2M), Some((40 << 9, 512..1024)));
        assert_eq!(stretch(GIB, LeafSize::Block1G), Some((1, 0..1)));
        assert_eq!(stretch(2 * GIB, LeafSize::Page), None);
        assert_eq!(map.word_count(), 2 * (1 + 512 + 262_144));
    }
}
