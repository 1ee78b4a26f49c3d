//! A memory cgroup for this process.

use std::fs;
use std::path::PathBuf;

use super::counters::{Counters, write};

const ROOT: &str = "/sys/fs/cgroup";

/// A group that this process has joined. The harness's process stays outside.
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes a group and joins it.
    pub fn join(name: &str) -> Self {
        write(format!("{ROOT}/cgroup.subtree_control"), "+memory");
        let path = PathBuf::from(ROOT).join(name);
        // Left by a test that was killed, perhaps: it is empty then.
        _ = fs::remove_dir(&path);
        fs::create_dir(&path).expect("a cgroup");
        write(path.join("cgroup.procs"), "0");
        Self { path }
    }

    /// Writes one of the group's files.
    pub fn set(&self, file: &str, text: &str) {
        write(self.path.join(file), text);
    }

    /// Tries to write one of the group's files.
    pub fn try_set(&self, file: &str, text: &str) -> std::io::Result<()> {
        fs::write(self.path.join(file), text)
    }

    /// Reads memory.stat.
    pub fn statistics(&self) -> Counters {
        Counters::read(self.statistics_file())
    }

    /// Returns where memory.stat is.
    pub fn statistics_file(&self) -> PathBuf {
        self.path.join("memory.stat")
    }

    /// Reads memory.events.
    pub fn events(&self) -> Counters {
        Counters::read(self.path.join("memory.events"))
    }

    /// Returns the bytes charged to it.
    pub fn bytes(&self) -> u64 {
        super::counters::number(self.path.join("memory.current"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The process leaves, so that the group can go.
        _ = fs::write(format!("{ROOT}/cgroup.procs"), "0");
        _ = fs::remove_dir(&self.path);
    }
}
