//! Ranges of physical addresses.

use core::fmt;

use verdigris_abi::{PAGE_SIZE, Pa};

/// A half-open range of physical addresses, `start` never above `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    start: Pa,
    end: Pa,
}

impl Region {
    /// Makes the range from `start` up to, not including, `end`; `None` where `end` is below `start`.
    pub const fn new(start: Pa, end: Pa) -> Option<Self> {
        if start.0 <= end.0 { Some(Self { start, end }) } else { None }
    }

    /// Makes the range of `bytes` bytes from `start`; `None` where it does not fit 64 bits.
    pub const fn with_size(start: Pa, bytes: u64) -> Option<Self> {
        match start.checked_add(bytes) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// Returns the first address.
    pub const fn start(self) -> Pa {
        self.start
    }

    /// Returns the address behind the last one.
    pub const fn end(self) -> Pa {
        self.end
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Tells whether the range holds no address.
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Tells whether the two have an address in common.
    pub const fn overlaps(self, other: Self) -> bool {
        let start = if self.start.0 > other.start.0 { self.start.0 } else { other.start.0 };
        let end = if self.end.0 < other.end.0 { self.end.0 } else { other.end.0 };
        start < end
    }

    /// Tells whether all of `other` is inside.
    pub const fn contains(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// Tells whether the address is inside.
    pub const fn contains_address(self, address: Pa) -> bool {
        self.start.0 <= address.0 && address.0 < self.end.0
    }

    /// Shrinks to whole pages; `None` where no whole page is inside.
    pub fn whole_pages(self) -> Option<Self> {
        let start = self.start.0.checked_next_multiple_of(PAGE_SIZE)?;
        let end = self.end.align_down(PAGE_SIZE);
        Self::new(Pa(start), end).filter(|region| !region.is_empty())
    }

    /// Returns what is left below and above when `hole` is taken away; either may be missing.
    pub fn without(self, hole: Self) -> [Option<Self>; 2] {
        if !self.overlaps(hole) {
            return [Some(self).filter(|region| !region.is_empty()), None];
        }
        let below = Self { start: self.start, end: hole.start.max(self.start) };
        let above = Self { start: hole.end.min(self.end), end: self.end };
        [below, above].map(|part| Some(part).filter(|region| !region.is_empty()))
    }

    /// Calls `f` with each part that is in none of the holes, from low to high. Holes may come in any
    /// order, overlap, be empty, and reach past the range.
    pub fn for_each_outside(
        self,
        holes: impl Iterator<Item = Self> + Clone,
        mut f: impl FnMut(Self),
    ) {
        let mut next = self.start;
        while next < self.end {
            // The hole that `next` is in is skipped; else the first one behind it ends the part.
            let inside = holes.clone().filter(|hole| hole.contains_address(next));
            if let Some(end) = inside.map(|hole| hole.end).max() {
                next = end;
                continue;
            }
            let behind = holes.clone().filter(|hole| !hole.is_empty() && hole.start > next);
            let end = behind.map(|hole| hole.start).fold(self.end, Pa::min);
            f(Self { start: next, end });
            next = end;
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn region(start: u64, end: u64) -> Region {
        Region::new(Pa(start), Pa(end)).unwrap()
    }

    #[test]
    fn refuses_what_is_no_range() {
        assert_eq!(Region::new(Pa(2), Pa(1)), None);
        assert_eq!(Region::with_size(Pa(u64::MAX), 2), None);
    }

    #[test]
    fn neighbours_and_empty_ranges_do_not_overlap() {
        assert!(!region(1, 3).overlaps(region(3, 5)));
        assert!(!region(2, 2).overlaps(region(1, 5)));
        assert!(region(1, 4).overlaps(region(3, 5)));
    }

    #[test]
    fn a_hole_leaves_what_is_around_it() {
        let all = region(0x1000, 0x9000);
        assert_eq!(all.without(region(0, 0x3000)), [None, Some(region(0x3000, 0x9000))]);
        assert_eq!(all.without(region(0x8000, 0xa000)), [Some(region(0x1000, 0x8000)), None]);
        let both = [Some(region(0x1000, 0x2000)), Some(region(0x3000, 0x9000))];
        assert_eq!(all.without(region(0x2000, 0x3000)), both);
        assert_eq!(all.without(region(0, 0xa000)), [None, None]);
        assert_eq!(all.without(region(0xa000, 0xb000)), [Some(all), None]);
    }

    #[test]
    fn an_address_is_inside_from_the_first_to_the_last() {
        let all = region(0x1000, 0x2000);
        let inside = [0xfff, 0x1000, 0x1fff, 0x2000].map(|at| all.contains_address(Pa(at)));
        assert_eq!(inside, [false, true, true, false]);
        assert!(!region(0x1000, 0x1000).contains_address(Pa(0x1000)));
    }

    #[test]
    fn what_is_outside_of_all_holes_comes_from_low_to_high() {
        let outside = |holes: &[(u64, u64)]| {
            let mut parts = Vec::new();
            let holes = holes.iter().map(|&(start, end)| region(start, end));
            region(10, 50).for_each_outside(holes, |part| parts.push((part.start.0, part.end.0)));
            parts
        };
        assert_eq!(outside(&[]), [(10, 50)]);
        assert_eq!(outside(&[(20, 30)]), [(10, 20), (30, 50)]);
        assert_eq!(outside(&[(30, 40), (20, 30)]), [(10, 20), (40, 50)], "they touch");
        assert_eq!(outside(&[(20, 35), (30, 40), (31, 33)]), [(10, 20), (40, 50)], "and overlap");
        assert_eq!(outside(&[(0, 15), (45, 60)]), [(15, 45)], "and reach past");
        assert_eq!(outside(&[(10, 20), (40, 50)]), [(20, 40)]);
        assert_eq!(outside(&[(20, 20), (10, 10), (50, 50)]), [(10, 50)], "and are empty");
        assert_eq!(outside(&[(0, 10), (50, 60)]), [(10, 50)], "and are elsewhere");
        assert_eq!(outside(&[(0, 60)]), []);
        assert_eq!(outside(&[(11, 12), (49, 50)]), [(10, 11), (12, 49)]);
    }

    #[test]
    fn whole_pages_round_inwards() {
        assert_eq!(region(1, 0x2fff).whole_pages(), Some(region(0x1000, 0x2000)));
        assert_eq!(region(1, 0x1fff).whole_pages(), None);
        assert_eq!(region(u64::MAX - 1, u64::MAX).whole_pages(), None);
    }
}
