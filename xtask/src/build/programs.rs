//! Builds the Rust programs that run in the host and in guests.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{cargo, flat::flatten};
use crate::setup::rust::{BARE_METAL, HOST_LINUX};
use crate::{command, paths, progress};

/// The profile of the host's programs (Cargo.toml): a panic unwinds, so that what a test set is put back.
const PROFILE: &str = "program";

/// Builds the hypercall suite, a static program of the host.
pub fn suite() -> Result<PathBuf> {
    program("verdigris-suite", "building the suite")
}

/// Builds the memory suite, a static program of the host.
pub fn memory() -> Result<PathBuf> {
    program("verdigris-memory", "building the memory suite")
}

/// Builds the virtual machine monitor, a static program of the host.
pub fn vmm() -> Result<PathBuf> {
    program("verdigris-vmm", "building the VMM")
}

fn program(package: &str, step: &'static str) -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--package", package, "--profile", PROFILE, "--target", HOST_LINUX]);
    progress::step(step, || command::run(&mut cargo))?;
    Ok(paths::target().join(HOST_LINUX).join(PROFILE).join(package))
}

/// Builds the guest payload, a flat image that runs wherever it is loaded.
pub fn guest() -> Result<PathBuf> {
    payload("guest.bin", &[])
}

/// Builds the guest payload for the KVM user interface, which tells its events by stores.
pub fn guest_mmio() -> Result<PathBuf> {
    payload("guest-mmio.bin", &["--features", "mmio"])
}

fn payload(name: &str, options: &[&str]) -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--package", "verdigris-guest", "--release", "--target", BARE_METAL]);
    cargo.args(options);
    progress::step("building the guest payload", || command::run(&mut cargo))?;
    let folder = paths::target().join(BARE_METAL).join("release");
    let elf = folder.join("verdigris-guest");
    let bytes = std::fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    // Both builds leave an ELF file of one name: only the images are told apart.
    let image = folder.join(name);
    std::fs::write(&image, flatten(&bytes)?)?;
    Ok(image)
}
