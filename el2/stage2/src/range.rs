//! Ranges of pages, and how far a call came.

use crate::descriptor::Level;
use verdigris_abi::{Error, Ipa, PAGE_SIZE};

/// A range of 4 KiB pages of a VM, by page number; the end is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first page.
    pub start: u64,
    /// The page after the last.
    pub end: u64,
}

impl Range {
    /// Makes a range of at least one page; the caller has checked that it is aligned and in bounds.
    pub const fn new(start: Ipa, page_count: u64) -> Self {
        Self { start: start.page(), end: start.page() + page_count }
    }

    /// Makes the range that the entry for `page` at `level` spans.
    pub const fn span(page: u64, level: Level) -> Self {
        let start = page & !(level.pages() - 1);
        Self { start, end: start + level.pages() }
    }

    /// Returns the number of pages.
    pub const fn page_count(self) -> u64 {
        self.end - self.start
    }

    /// Tells whether all of `other` is inside.
    pub const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Tells whether a page is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Returns what of this range is before and after `other`; either may be empty.
    pub const fn without(self, other: Self) -> [Self; 2] {
        let (start, end) = (self.start, self.end);
        [
            Self { start, end: if other.start < end { other.start } else { end } },
            Self { start: if other.end > start { other.end } else { start }, end },
        ]
    }

    /// Returns the smallest range that covers both.
    pub fn hull(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// Returns the address of the first page.
    pub const fn ipa(self) -> Ipa {
        Ipa(self.start * PAGE_SIZE)
    }
}

/// How far a range call came, and what stopped it if that was an error.
///
/// Fewer pages than asked and no error: an interrupt is pending, call again for the rest. An error has
/// changed nothing beyond those pages.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Pages done, from the start of the range.
    pub pages: u64,
    /// Why the next page could not be done.
    pub error: Option<Error>,
}

impl Outcome {
    /// Reports progress.
    pub const fn done(pages: u64) -> Self {
        Self { pages, error: None }
    }

    /// Reports an error after some progress.
    pub const fn stopped(pages: u64, error: Error) -> Self {
        Self { pages, error: Some(error) }
    }
}
