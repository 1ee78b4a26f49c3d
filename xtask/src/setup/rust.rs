//! The Rust targets, and the toolchain that some tests need.
//!
//! There is no toolchain file in the repository: where rustup may not install by itself, such a
//! file would keep even this program from starting.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{command, progress};

/// What the firmware and the guest payload run on.
pub const BARE_METAL: &str = "aarch64-unknown-none-softfloat";
/// What programs in the host run on: statically linked.
pub const HOST_LINUX: &str = "aarch64-unknown-linux-musl";

/// Adds the targets and the source of `core`, where they are not there yet.
pub fn ensure_targets() -> Result<()> {
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    if command::find("rustup").is_none() {
        bail!("rustup is not on this machine; install by its own means: {}", missing.join(", "));
    }
    progress::step("adding Rust targets", || {
        for what in &missing {
            let mut words = what.split(' ');
            let mut rustup = Command::new("rustup");
            rustup.arg(words.next().unwrap_or_default()).arg("add").args(words);
            command::run(&mut rustup).with_context(|| hint(&missing))?;
        }
        Ok(())
    })?;
    let missing = self::missing()?;
    ensure!(missing.is_empty(), "rustup added nothing. {}", hint(&missing));
    Ok(())
}

/// Lists what is missing, each as rustup's noun and name.
pub fn missing() -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for target in [BARE_METAL, HOST_LINUX] {
        if !libraries(target)?.is_dir() {
            missing.push(format!("target {target}"));
        }
    }
    if !sysroot()?.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
        missing.push("component rust-src".into());
    }
    Ok(missing)
}

/// Says what to type.
pub fn hint(missing: &[String]) -> String {
    let lines = missing.iter().map(|what| {
        let (noun, name) = what.split_once(' ').unwrap_or(("target", what));
        format!("  rustup {noun} add {name}")
    });
    format!("Rust components are missing; type:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

fn sysroot() -> Result<PathBuf> {
    ensure!(
        command::find("rustc").is_some(),
        "rustc is not in PATH; install Rust {} or later with rustup, then open a new terminal",
        env!("CARGO_PKG_RUST_VERSION")
    );
    let text = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(text.trim()).to_owned())
}

fn libraries(target: &str) -> Result<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib").join(target).join("lib"))
}
