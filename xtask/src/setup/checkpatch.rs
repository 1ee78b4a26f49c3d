//! The kernel's style checker, of the kernel's source package.
//!
//! Only the test of the driver needs it, and of the source only three files, so it is fetched when
//! that test first runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::{Apt, BACKPORTS};
use super::unpack::Folder;
use crate::{command, progress};

const FOLDER: &str = "checkpatch";
const SCRIPT: &str = "scripts/checkpatch.pl";
/// The script, and the lists that it reads.
const FILES: &[&str] = &[SCRIPT, "scripts/spelling.txt", "scripts/const_structs.checkpatch"];

/// Returns the script, fetched the first time.
pub fn checkpatch() -> Result<PathBuf> {
    let folder = match Folder::open(FOLDER) {
        Some(folder) => folder,
        None => {
            let _lock = super::lock()?;
            let apt = Apt::prepare()?;
            let folder = progress::step("fetching the kernel's style checker", || fetch(&apt));
            apt.remove()?;
            folder?
        }
    };
    Ok(folder.path.join(SCRIPT))
}

fn fetch(apt: &Apt) -> Result<Folder> {
    let version = apt.version("linux-source", BACKPORTS)?;
    let mut names = apt.depends("linux-source", &version)?.into_iter();
    let name = names.find(|name| name.starts_with("linux-source-"));
    let name = name.context("linux-source depends on no source package")?;
    let debs = apt.download(&[format!("{name}={version}")])?;
    Folder::create(FOLDER, &debs, |root| keep_scripts(root, &name))
}

/// Takes the few files out of the archive, and removes the rest.
fn keep_scripts(root: &Path, name: &str) -> Result<()> {
    let archive = root.join("usr/src").join(format!("{name}.tar.xz"));
    let members = FILES.iter().map(|file| format!("{name}/{file}"));
    let mut tar = super::Tools::open().command("tar")?;
    tar.arg("-xJf").arg(&archive).arg("-C").arg(root).arg("--strip-components=1").args(members);
    command::run(&mut tar)?;
    std::fs::remove_dir_all(root.join("usr")).context("cannot remove the source archive")
}
