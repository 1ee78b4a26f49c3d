//! What Linux counts: the proof that a mechanism ran.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Parameters of Verdigris' driver, where that is who answers.
pub const PARAMETERS: &str = "/sys/module/verdigris/parameters";

/// Tells whether the driver of Verdigris answers, or Linux's own KVM.
pub fn is_verdigris() -> bool {
    Path::new("/sys/module/verdigris").exists()
}

/// Waits until something is so, for much longer than it takes on a loaded machine.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    const PATIENCE: Duration = Duration::from_secs(150);
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "after {PATIENCE:?} still not: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// Counters by name.
#[derive(Clone, Debug)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads a file with a name and a number on each line.
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let pair = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next()?.trim_end_matches(':').to_owned();
            Some((name, words.next()?.parse().ok()?))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// Reads those of the whole host.
    pub fn host() -> Self {
        Self::read("/proc/vmstat")
    }

    /// Returns one, 0 where there is none of that name.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Returns how many pages went out to swap since. A page of zeros is noted and not written, and some kernels count
    /// that apart.
    pub fn swapped_out_since(&self, older: &Self) -> u64 {
        let zeros = self.get("swpout_zero") - older.get("swpout_zero");
        self.since(older, "pswpout") + zeros
    }

    /// Returns how many pages came back from swap since.
    pub fn swapped_in_since(&self, older: &Self) -> u64 {
        let zeros = self.get("swpin_zero") - older.get("swpin_zero");
        self.since(older, "pswpin") + zeros
    }

    /// Returns by how much one has grown since.
    pub fn since(&self, older: &Self, name: &str) -> u64 {
        assert!(self.0.contains_key(name), "the host doesn't count {name}");
        self.get(name).saturating_sub(older.get(name))
    }
}

/// Reads a number from a file.
pub fn number(path: impl AsRef<Path>) -> u64 {
    let path = path.as_ref();
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim().parse().unwrap_or_else(|_| panic!("{}: {text}", path.display()))
}

/// Writes to a file of the kernel's.
pub fn write(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    fs::write(path, text).unwrap_or_else(|e| panic!("{text} to {}: {e}", path.display()));
}
