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

/// Where Verdigris' driver tells of itself: the first of these are quickly read.
const VERDIGRIS_FOLDER: &str = "/sys/kernel/debug/verdigris";
const VERDIGRIS_FILES: [&str; 3] = ["vms", "donated_pages", "shares"];
/// Its slabs: VMs, vCPUs, slots.
const SLABS: [&str; 3] = ["vg_vm", "vg_vcpu", "vg_slot"];

/// A reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    files: &'static [&'static str],
    found: Vec<(&'static str, u64)>,
}

impl Leftovers {
    /// Reads what is quickly read.
    pub fn read() -> Self {
        Self::read_files(&VERDIGRIS_FILES[..2])
    }

    /// Reads also how many leaves of VMs refer to the host's pages, which asks the firmware about each page there is.
    pub fn read_all() -> Self {
        Self::read_files(&VERDIGRIS_FILES)
    }

    fn read_files(files: &'static [&'static str]) -> Self {
        let mut found = vec![("VMs", vms())];
        for &name in files {
            let file = Path::new(VERDIGRIS_FOLDER).join(name);
            if file.exists() {
                found.push((name, number(file)));
            }
        }
        found.extend(SLABS.iter().filter_map(|&name| Some((name, objects(name)?))));
        // Pages of stage-2 tables (Documentation/filesystems/proc.rst).
        let memory = Counters::read("/proc/meminfo");
        found.push(("SecPageTables", memory.get("SecPageTables")));
        Self { files, found }
    }

    /// Waits until all is as it was, or says what isn't.
    pub fn compare(&self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = Self::read_files(self.files);
            if now == *self {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("{:?} is left, not {:?}", now.found, self.found));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn vms() -> u64 {
    let Ok(entries) = fs::read_dir(KVM_FOLDER) else { return 0 };
    entries.flatten().filter(|entry| entry.path().is_dir()).count() as u64
}

/// Returns how many objects of a slab are in use, where there is such a slab (Documentation/ABI/testing/sysfs-kernel-slab).
fn objects(slab: &str) -> Option<u64> {
    let folder = Path::new("/sys/kernel/slab").join(slab);
    // What CPUs keep for themselves counts as in use.
    fs::write(folder.join("shrink"), "1").ok()?;
    let text = fs::read_to_string(folder.join("objects")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}
