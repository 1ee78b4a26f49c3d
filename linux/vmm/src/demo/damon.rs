//! Which memory is accessed, by Linux's own monitor of that (Documentation/admin-guide/mm/damon/usage.rst).
//!
//! DAMON divides the memory into regions, clears the access flag of one page of each, and looks some
//! milliseconds later whether it was set again. It counts that over an aggregation interval, and splits and joins
//! regions until those of like use are together. So it costs what the regions cost, however large the memory.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{PAGE_BYTES, ask, tell};

const ROOT: &str = "/sys/kernel/mm/damon/admin/kdamonds";
/// The kernel's own use of it (Documentation/admin-guide/mm/damon/stat.rst).
const STAT: &str = "/sys/module/damon_stat/parameters/enabled";
/// How long an access may take to come and still count for a sample.
const SAMPLE_US: u64 = 20_000;
/// Samples of an aggregation: the most accesses that a region can have.
pub const SAMPLES: u64 = 15;
/// Fewest and most regions: 2 MiB at most each, at the start.
const REGIONS: Range<usize> = 32..256;
/// How often it is asked for an answer.
const TRIES: usize = 20;

/// A stretch of memory with its accesses.
#[derive(Debug, PartialEq, Eq)]
struct Region {
    addresses: Range<u64>,
    accesses: u64,
}

/// DAMON at work on this process; dropping it ends that.
pub struct Damon {
    memory: Range<u64>,
}

impl Damon {
    /// Lets it watch a range of this process's addresses.
    pub fn watch(memory: Range<u64>) -> Result<Self> {
        // Since 6.17 a kernel may watch all of its memory by itself, and DAMON serves one of such.
        if Path::new(STAT).exists() {
            tell(STAT, "N")?;
        }
        tell(format!("{ROOT}/nr_kdamonds"), 1).context("this kernel has no DAMON")?;
        tell(format!("{ROOT}/0/contexts/nr_contexts"), 1)?;
        let context = PathBuf::from(format!("{ROOT}/0/contexts/0"));
        let set = |file: &str, text: &str| tell(context.join(file), text);
        // Virtual addresses, and just these.
        set("operations", "fvaddr")?;
        set("targets/nr_targets", "1")?;
        set("targets/0/pid_target", &std::process::id().to_string())?;
        set("targets/0/regions/nr_regions", "1")?;
        set("targets/0/regions/0/start", &memory.start.to_string())?;
        set("targets/0/regions/0/end", &memory.end.to_string())?;
        set("monitoring_attrs/intervals/sample_us", &SAMPLE_US.to_string())?;
        set("monitoring_attrs/intervals/aggr_us", &(SAMPLE_US * SAMPLES).to_string())?;
        set("monitoring_attrs/nr_regions/min", &REGIONS.start.to_string())?;
        set("monitoring_attrs/nr_regions/max", &REGIONS.end.to_string())?;
        // A scheme that does nothing, to all regions: it is what tells them.
        set("schemes/nr_schemes", "1")?;
        set("schemes/0/action", "stat")?;
        for bound in ["sz", "nr_accesses", "age"] {
            set(&format!("schemes/0/access_pattern/{bound}/min"), "0")?;
            set(&format!("schemes/0/access_pattern/{bound}/max"), &u32::MAX.to_string())?;
        }
        tell(format!("{ROOT}/0/state"), "on").context("DAMON doesn't start")?;
        Ok(Self { memory })
    }

    /// Returns how often each page was found accessed in the last aggregation, of [`SAMPLES`].
    pub fn accesses(&self) -> Result<Vec<u64>> {
        // It gives an answer up after twice the time of an aggregation, and then has no regions at all: on a
        // busy machine an aggregation may take longer. The next answer comes the sooner.
        for _ in 0..TRIES {
            tell(format!("{ROOT}/0/state"), "update_schemes_tried_regions")?;
            if let Some(pages) = by_page(&self.memory, &self.regions()?) {
                return Ok(pages);
            }
        }
        bail!("DAMON has not told a region in {TRIES} tries: this machine is too slow for it");
    }

    fn regions(&self) -> Result<Vec<Region>> {
        let mut regions = Vec::new();
        let entries = std::fs::read_dir(format!("{ROOT}/0/contexts/0/schemes/0/tried_regions"))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                let addresses = ask(path.join("start"))?..ask(path.join("end"))?;
                regions.push(Region { addresses, accesses: ask(path.join("nr_accesses"))? });
            }
        }
        Ok(regions)
    }
}

impl Drop for Damon {
    fn drop(&mut self) {
        // It ends with the process at the latest.
        _ = tell(format!("{ROOT}/0/state"), "off");
    }
}

/// Spreads what was counted for regions over their pages. No region is no answer, and not one of no accesses.
fn by_page(memory: &Range<u64>, regions: &[Region]) -> Option<Vec<u64>> {
    if regions.is_empty() {
        return None;
    }
    let mut pages = vec![0; (memory.end - memory.start) as usize / PAGE_BYTES];
    for Region { addresses, accesses } in regions {
        let page = |address: u64| {
            (address.clamp(memory.start, memory.end) - memory.start) as usize / PAGE_BYTES
        };
        pages[page(addresses.start)..page(addresses.end)].fill(*accesses);
    }
    Some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_spread_over_their_pages() {
        let region = |addresses, accesses| Region { addresses, accesses };
        // One begins before the memory, one ends behind it, and there is a gap.
        let regions = [region(0x1000..0x5000, 3), region(0x6000..0x9000, 7)];
        assert_eq!(by_page(&(0x3000..0x8000), &regions), Some(vec![3, 3, 0, 7, 7]));
    }

    #[test]
    fn no_answer_is_not_an_answer_of_no_accesses() {
        assert_eq!(by_page(&(0x3000..0x8000), &[]), None);
    }
}
