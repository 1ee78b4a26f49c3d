//! The demonstration: Linux watches a guest's memory as it would any process's, and takes the cold half away.
//!
//! Nothing here is made for guests. DAMON samples accesses of this process's address space, a memory cgroup
//! limits it, zram is its swap, `/proc/self/pagemap` says what is where. That the guest's memory is meant, and
//! the guest's accesses count, is `/dev/kvm`'s doing: each question, and each page taken, goes through the
//! MMU notifiers to the tables that the guest runs under.
//!
//! The guest uses half of its memory all the time and the other half never; so every answer can be judged.

mod counters;
mod damon;
#[cfg(target_arch = "aarch64")]
mod guest;
mod picture;
mod pressure;
mod residence;
#[cfg(target_arch = "aarch64")]
mod story;

#[cfg(target_arch = "aarch64")]
pub use story::run;

use std::path::Path;

use anyhow::{Context, Result};

/// Bytes of a page.
const PAGE_BYTES: usize = 4096;

/// Writes one of the kernel's files.
fn tell(file: impl AsRef<Path>, text: impl ToString) -> Result<()> {
    let (file, text) = (file.as_ref(), text.to_string());
    std::fs::write(file, &text)
        .with_context(|| format!("cannot write {text} to {}", file.display()))
}

/// Reads a number from one of the kernel's files.
fn ask(file: impl AsRef<Path>) -> Result<u64> {
    let file = file.as_ref();
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    text.trim().parse().with_context(|| format!("{} has no number: {text}", file.display()))
}
