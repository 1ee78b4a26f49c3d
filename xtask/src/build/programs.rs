//! Builds the Rust programs that run in the host and in guests.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{cargo, flat::flatten};
use crate::setup::rust::{BARE_METAL, HOST_LINUX};
use crate::{command, paths, progress};

/// Builds the hypercall suite, a static program of the host.
pub fn suite() -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--package", "verdigris-suite", "--release", "--target", HOST_LINUX]);
    progress::step("building the suite", || command::run(&mut cargo))?;
    Ok(paths::target().join(HOST_LINUX).join("release/verdigris-suite"))
}

/// Builds the guest payload, a flat image that runs wherever it is loaded.
pub fn guest() -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--package", "verdigris-guest", "--release", "--target", BARE_METAL]);
    progress::step("building the guest payload", || command::run(&mut cargo))?;
    let elf = paths::target().join(BARE_METAL).join("release/verdigris-guest");
    let bytes = std::fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let image = elf.with_extension("bin");
    std::fs::write(&image, flatten(&bytes)?)?;
    Ok(image)
}
