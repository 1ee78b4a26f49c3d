//! What asking and taking cost: counters of the VM, from the file that `/dev/kvm` has for them
//! (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD).
//!
//! The file names its counters itself. Those wanted here are Verdigris's; elsewhere they are not there, and
//! nothing is told.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};

/// Counters by name.
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads the whole file.
    pub fn read(mut file: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).context("the counters can't be read")?;
        parse(&bytes).map(Self).context("the counters are not as documented")
    }

    /// Returns the sum of some counters, if all are there.
    fn sum(&self, names: &[&str]) -> Option<u64> {
        names.iter().map(|name| self.0.get(*name)).sum()
    }

    /// Tells what was asked and taken, and at which cost.
    pub fn describe(&self) -> Option<String> {
        let asked = self.sum(&["test_young", "clear_young", "clear_flush_young"])?;
        let calls = self.sum(&["window_tests", "window_fetches", "epoch_flushes"])?;
        let (unmapped, skipped) =
            (self.sum(&["fw_leaves_unmapped"])?, self.sum(&["fw_flushes_skipped"])?);
        Some(format!(
            "Linux asked {asked} times whether memory is used, in {calls} hypercalls. To take\n\
             pages away it cleared {unmapped} entries of the guest's tables, each for a page or\n\
             for a block of 512 pages, {skipped} of them without a TLB invalidation."
        ))
    }
}

/// Finds names and values: none, if something reaches past the end.
fn parse(file: &[u8]) -> Option<BTreeMap<String, u64>> {
    /// Flags, exponent, size, offset, bucket size; then the name.
    const FIXED_BYTES: usize = 16;
    let word = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let (name_bytes, count, descriptors, values) = (word(4)?, word(8)?, word(16)?, word(20)?);
    let one = |index: usize| {
        let at = descriptors + index * (FIXED_BYTES + name_bytes);
        let name = file.get(at + FIXED_BYTES..at + FIXED_BYTES + name_bytes)?;
        let name = name.split(|byte| *byte == 0).next()?;
        let value = values + word(at + 8)?;
        let value = u64::from_le_bytes(file.get(value..value + 8)?.try_into().ok()?);
        Some((String::from_utf8(name.to_vec()).ok()?, value))
    };
    (0..count).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters with names of 8 bytes: a header of 24 bytes, the id, descriptors at 32, values at 80.
    fn file() -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let parts: [Vec<u8>; 7] = [
            words(&[0, 8, 2, 24, 32, 80]),
            b"kvm-1\0\0\0".into(),
            words(&[0, 0x1_0000, 8, 0]),
            b"faults\0\0".into(),
            words(&[0, 0x1_0000, 0, 0]),
            b"allnames".into(),
            [7u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(),
        ];
        parts.concat()
    }

    #[test]
    fn counters_are_found_by_name() {
        let counters = Counters::read(&file()[..]).unwrap();
        assert_eq!(counters.sum(&["allnames"]), Some(7));
        assert_eq!(counters.sum(&["faults"]), Some(u64::MAX));
        assert_eq!(counters.sum(&["allnames", "absent"]), None);
        assert_eq!(counters.describe(), None);
    }

    #[test]
    fn what_is_told_fits_a_terminal() {
        let names =
            ["test_young", "clear_young", "clear_flush_young", "window_tests", "window_fetches"];
        let names =
            names.iter().chain(&["epoch_flushes", "fw_leaves_unmapped", "fw_flushes_skipped"]);
        let counters = Counters(names.map(|name| ((*name).to_owned(), 99_999)).collect());
        let text = counters.describe().unwrap();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn a_file_cut_short_is_refused() {
        let file = file();
        assert!((0..file.len()).all(|end| parse(&file[..end]).is_none()));
    }
}
