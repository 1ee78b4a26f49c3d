//! A C library to link programs of the host with, statically: the compiler's packages have only
//! what programs need at run time.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::Apt;
use super::unpack::Folder;
use crate::progress;

const FOLDER: &str = "libc";
const PACKAGE: &str = "libc6-dev-arm64-cross";

/// Returns the directory with the library's `include` and `lib`, fetched the first time.
pub fn static_libc() -> Result<PathBuf> {
    let folder = match Folder::open(FOLDER) {
        Some(folder) => folder,
        None => {
            let _lock = super::lock()?;
            let apt = Apt::prepare()?;
            let folder = progress::step("fetching a C library", || fetch(&apt));
            apt.remove()?;
            folder?
        }
    };
    Ok(folder.path.join("usr/aarch64-linux-gnu"))
}

fn fetch(apt: &Apt) -> Result<Folder> {
    let version = apt.version(PACKAGE, &apt.suite)?;
    let debs = apt.download(&[format!("{PACKAGE}={version}")])?;
    Folder::create(FOLDER, &debs, |_| Ok(()))
}
