//! Where a process's pages are (Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::region::Region;
use super::sys::PAGE;

const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// One page of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// Tells whether it is in swap.
    pub fn is_swapped(self) -> bool {
        self.0 & SWAPPED != 0
    }

    /// Returns its page frame, if it is in memory.
    pub fn frame(self) -> Option<u64> {
        (self.0 & PRESENT != 0).then_some(self.0 & FRAME)
    }
}

/// Reads the entries of some pages of a region.
pub fn entries(region: &Region, pages: Range<usize>) -> Vec<Entry> {
    let file = File::open("/proc/self/pagemap").expect("procfs");
    let mut bytes = vec![0; pages.len() * 8];
    let at = (region.address(0) / PAGE + pages.start) * 8;
    file.read_exact_at(&mut bytes, at as u64).expect("the addresses are mapped");
    let word = |chunk: &[u8]| Entry(u64::from_le_bytes(chunk.try_into().expect("8 bytes")));
    bytes.chunks_exact(8).map(word).collect()
}

/// Tells whether Linux has given a frame up (KPF_HWPOISON).
pub fn is_poisoned(frame: u64) -> bool {
    const HWPOISON: u64 = 1 << 19;
    let file = File::open("/proc/kpageflags").expect("procfs");
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, frame * 8).expect("the frame exists");
    u64::from_le_bytes(bytes) & HWPOISON != 0
}

/// Counts the pages of a part of a region that are in swap.
pub fn swapped(region: &Region, pages: Range<usize>) -> usize {
    entries(region, pages).into_iter().filter(|entry| entry.is_swapped()).count()
}
