//! What must be as it was once a test's process is gone.
//!
//! KVM's own VMs have a folder each in debugfs while they live, on Linux's KVM; Verdigris tells in debugfs how
//! many VMs there are and what is lent to the firmware. Both give things back after the last file is closed, and some of it in
//! the background: so there is a while to wait.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::counters::{Counters, number};

const PATIENCE: Duration = Duration::from_secs(5);
/// Where each VM of Linux's own KVM has a folder.
const KVM_FOLDER: &str = "/sys/kernel/debug/kvm";

/// A reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers(Vec<(String, u64)>);

impl Leftovers {
    /// Reads.
    pub fn read() -> Self {
        let mut found = vec![("VMs".to_owned(), vms())];
        // What Verdigris' driver says of itself, where it is there.
        for name in ["vms", "donated_pages"] {
            let file = Path::new("/sys/kernel/debug/verdigris").join(name);
            if file.exists() {
                found.push((name.to_owned(), number(file)));
            }
        }
        // Pages of stage-2 tables (Documentation/filesystems/proc.rst).
        let memory = Counters::read("/proc/meminfo");
        found.push(("SecPageTables".to_owned(), memory.get("SecPageTables")));
        Self(found)
    }

    /// Waits until all is as it was, or says what isn't.
    pub fn compare(&self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = Self::read();
            if now == *self {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("{now:?} is left, not {self:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn vms() -> u64 {
    let Ok(entries) = fs::read_dir(KVM_FOLDER) else { return 0 };
    entries.flatten().filter(|entry| entry.path().is_dir()).count() as u64
}
