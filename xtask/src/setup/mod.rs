//! Set-up: everything that a build or a run needs beside this repository, fetched once.
//!
//! Nothing is installed and nothing of the machine is changed, so none of it needs root: packages
//! come through a private apt configuration ([`apt`]) and are unpacked side by side under the cache
//! directory. What was used is written to `record` there, one package a line. After the first time
//! there is no need for the network.

pub mod apt;
mod apt_source;
mod gdb;
mod host;
mod kernel_source;
mod libc;
mod modules;
pub mod rust;
mod tools;
mod unpack;

use std::fs::File;

use anyhow::{Context, Result};

pub use gdb::debugger;
pub use host::{HostKernel, KernelPackage, NEWEST, busybox};
pub use kernel_source::KernelSource;
pub use libc::static_libc;
pub use tools::{Tools, qemu_version};

use crate::paths;

/// All that set-up provides.
pub struct Setup {
    /// The emulator and the compiler.
    pub tools: Tools,
    /// The host's kernel, headers and busybox.
    pub kernel: HostKernel,
}

/// Provides the Rust targets and all packages, fetching what is not there yet.
pub fn ensure() -> Result<Setup> {
    rust::ensure_targets()?;
    let _lock = lock()?;
    if !Tools::open().is_complete() || HostKernel::open().is_none() || busybox().is_err() {
        let apt = apt::Apt::prepare()?;
        Tools::fetch(&apt)?;
        host::fetch_busybox(&apt)?;
        HostKernel::fetch(&apt)?;
        apt.remove()?;
    }
    let kernel = HostKernel::open().context("the kernel just fetched is not complete")?;
    Ok(Setup { tools: Tools::open(), kernel })
}

/// Provides all but the host's kernel, which is the user's own.
pub fn ensure_with(kernel: HostKernel) -> Result<Setup> {
    rust::ensure_targets()?;
    let _lock = lock()?;
    if !Tools::open().is_complete() || busybox().is_err() {
        let apt = apt::Apt::prepare()?;
        Tools::fetch(&apt)?;
        host::fetch_busybox(&apt)?;
        apt.remove()?;
    }
    Ok(Setup { tools: Tools::open(), kernel })
}

/// Provides all, with another kernel of Debian's as host.
pub fn ensure_package(package: &KernelPackage) -> Result<Setup> {
    rust::ensure_targets()?;
    let _lock = lock()?;
    if !Tools::open().is_complete() || busybox().is_err() || package.open().is_none() {
        let apt = apt::Apt::prepare_with(&package.suites())?;
        Tools::fetch(&apt)?;
        host::fetch_busybox(&apt)?;
        package.fetch(&apt)?;
        apt.remove()?;
    }
    let kernel = package.open().context("the kernel just fetched is not complete")?;
    Ok(Setup { tools: Tools::open(), kernel })
}

/// Keeps a second set-up out until the returned file is closed.
fn lock() -> Result<File> {
    let dir = paths::cache();
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let file = File::create(dir.join("lock"))?;
    file.lock().context("cannot lock the cache directory")?;
    Ok(file)
}
