//! Memory pressure: a memory cgroup that is too small, and a compressed disk in memory to swap to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{ask, tell};

const ROOT: &str = "/sys/fs/cgroup";
const SWAP_BYTES: u64 = 256 << 20;

/// The cgroup that this process has joined, with all memory that it will have.
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes the group and joins it.
    pub fn join() -> Result<Self> {
        tell(format!("{ROOT}/cgroup.subtree_control"), "+memory")
            .context("this kernel has no memory cgroups")?;
        let path = Path::new(ROOT).join("demonstration");
        if !path.exists() {
            fs::create_dir(&path).context("no cgroup")?;
        }
        tell(path.join("cgroup.procs"), std::process::id())?;
        Ok(Self { path })
    }

    /// Returns how many bytes it has in memory.
    pub fn bytes(&self) -> Result<u64> {
        ask(self.path.join("memory.current"))
    }

    /// Returns how many pages were taken from it too early: they have come back since, because they were needed.
    pub fn refaults(&self) -> Result<u64> {
        let text = fs::read_to_string(self.path.join("memory.stat")).context("no memory.stat")?;
        let value = |line: &str| line.strip_prefix("workingset_refault_anon ")?.parse().ok();
        text.lines().find_map(value).context("memory.stat says nothing of refaults")
    }

    /// Lets it have no more than that, from now on. Linux takes away what is too much before this returns.
    pub fn limit(&self, byte_count: u64) -> Result<()> {
        tell(self.path.join("memory.max"), byte_count)
    }
}

/// Makes sure that there is swap.
pub fn make_swap() -> Result<()> {
    let areas = fs::read_to_string("/proc/swaps").context("this kernel has no swap")?;
    if areas.lines().count() > 1 {
        return Ok(());
    }
    if !Path::new("/sys/block/zram0").exists() {
        // As Debian has it: zram is a module.
        run("modprobe", "zram").context("the host has no swap, and no zram to make some")?;
    }
    tell("/sys/block/zram0/disksize", SWAP_BYTES)?;
    run("mkswap", "/dev/zram0")?;
    run("swapon", "/dev/zram0")
}

fn run(program: &str, argument: &str) -> Result<()> {
    let output = Command::new(program).arg(argument).output();
    let output = output.with_context(|| format!("{program} can't be run"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {argument} failed: {told}");
    Ok(())
}
