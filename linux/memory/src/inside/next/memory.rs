//! The host's memory, as `/proc/iomem` tells it to root.

use std::fs;
use std::io::{Error, Result};
use std::ops::Range;

/// Ranges of physical addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ram {
    /// All of RAM that the kernel has.
    pub ranges: Vec<Range<u64>>,
    /// What is kept for a crash kernel.
    pub crash: Option<Range<u64>>,
}

impl Ram {
    /// Reads them.
    pub fn read() -> Result<Self> {
        let ram = Self::parse(&fs::read_to_string("/proc/iomem")?);
        if ram.ranges.iter().all(Range::is_empty) {
            return Err(Error::other("/proc/iomem tells no address: it does so to root alone"));
        }
        Ok(ram)
    }

    fn parse(text: &str) -> Self {
        let mut ram = Self { ranges: Vec::new(), crash: None };
        for line in text.lines() {
            let Some((_, name)) = line.split_once(" : ") else { continue };
            let Some(range) = range_of(line) else { continue };
            match name {
                "System RAM" => ram.ranges.push(range),
                "Crash kernel" => ram.crash = Some(range),
                _ => {}
            }
        }
        ram
    }

    /// Returns the upper three quarters of the largest range, where a kernel and its parts find room.
    pub fn inner(&self) -> Range<u64> {
        let largest = self.ranges.iter().max_by_key(|range| range.end - range.start);
        let largest = largest.expect("a machine has RAM");
        largest.start + (largest.end - largest.start) / 4..largest.end
    }

    /// Returns what of RAM is not kept for the crash kernel.
    pub fn outside_crash(&self) -> Vec<Range<u64>> {
        let Some(crash) = &self.crash else { return self.ranges.clone() };
        let parts = self.ranges.iter().flat_map(|range| {
            let (before, after) = (crash.start.min(range.end), crash.end.max(range.start));
            [range.start..before.max(range.start), after.min(range.end)..range.end]
        });
        parts.filter(|part| !part.is_empty()).collect()
    }
}

/// Reads the range of a line of `/proc/iomem`.
pub fn range_of(line: &str) -> Option<Range<u64>> {
    parse_range(line.trim().split_once(" : ")?.0)
}

/// Reads `start-last`, in hexadecimal.
fn parse_range(text: &str) -> Option<Range<u64>> {
    let (start, last) = text.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(number(start)?..number(last)?.checked_add(1)?)
}
