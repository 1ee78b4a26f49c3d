//! What the host may count on: which maps must be refused, and which may be.

use verdigris_abi::MAX_MARKS;

/// Invalidations that are remembered: a number from before may be refused in vain.
const REMEMBERED: u64 = 64;

/// An invalidation between begin and end.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The first page.
    pub start: u64,
    /// The page after the last.
    pub end: u64,
    /// Pages that the engine has said are done.
    pub done: u64,
}

/// The marks that stand, and the ranges of the invalidations that have ended.
#[derive(Default)]
pub struct Contract {
    /// What has begun and not ended.
    pub marks: Vec<Mark>,
    /// What has ended, the last of it; [`Self::number`] counts them all.
    past: std::collections::VecDeque<(u64, u64)>,
    number: u64,
    /// Marks have merged, and stay so until all of them are gone.
    merged: bool,
}

impl Contract {
    /// Returns the number of the last invalidation that ended.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Takes note of an invalidation that ended.
    pub fn publish(&mut self, start: u64, end: u64) {
        self.number += 1;
        self.past.push_back((start, end));
        if self.past.len() as u64 > 2 * REMEMBERED {
            self.past.pop_front();
        }
    }

    /// Takes note of a mark that stands from now on.
    pub fn raise(&mut self, start: u64, end: u64) {
        self.marks.push(Mark { start, end, done: 0 });
        self.merged |= self.marks.len() as u64 > MAX_MARKS;
    }

    /// Takes note of a mark that is gone.
    pub fn lower(&mut self, index: usize) -> Mark {
        let mark = self.marks.swap_remove(index);
        self.merged &= !self.marks.is_empty();
        mark
    }

    /// Tells whether there are more marks than slots, or no slot is left for another.
    pub fn is_crowded(&self) -> bool {
        self.merged || self.marks.len() as u64 >= MAX_MARKS
    }

    /// Tells whether a mark stands over a page of `[start, end)`.
    pub fn is_marked(&self, start: u64, end: u64) -> bool {
        self.marks.iter().any(|mark| mark.start < end && start < mark.end)
    }

    /// Tells whether a map of `[start, end)` must be refused with that number.
    pub fn must_refuse(&self, start: u64, end: u64, sampled: u64) -> bool {
        let ended_since = (self.number - sampled.min(self.number)) as usize;
        let since = self.past.iter().rev().take(ended_since);
        self.is_marked(start, end) || since.into_iter().any(|past| past.0 < end && start < past.1)
    }

    /// Tells whether a map may be refused although it need not be.
    pub fn may_refuse(&self, start: u64, end: u64, sampled: u64) -> bool {
        self.must_refuse(start, end, sampled)
            || self.merged
            || sampled > self.number
            || self.number - sampled > REMEMBERED
    }
}
