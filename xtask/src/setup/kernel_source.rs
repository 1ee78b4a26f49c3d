//! What of the kernel's source is used here: the style checker and the selftests of KVM.
//!
//! It is Debian's source package of the very kernel that the host runs, as long as the archive has
//! it, and else the nearest of the same series; `record` in the cache says which it was. Of the
//! source only what is named in [`MEMBERS`] is kept, some 20 MB of 1.5 GB. It is fetched when a
//! task first asks for it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::{Apt, BACKPORTS};
use super::host::HostKernel;
use super::unpack::Folder;
use crate::{command, progress};

const FOLDER: &str = "kernel-source";
const CHECKPATCH: &str = "scripts/checkpatch.pl";
/// Files and folders that are kept: the scripts (the style checker is one), what `make headers`
/// reads, and what the Makefile of the selftests does.
const MEMBERS: &[&str] = &[
    "Makefile",
    "scripts",
    "include/uapi",
    "include/asm-generic",
    "arch/arm64/Makefile",
    "arch/arm64/include",
    "arch/arm64/tools",
    "tools/arch/arm64",
    "tools/build",
    "tools/include",
    "tools/lib/rbtree.c",
    "tools/scripts",
    "tools/testing/selftests/*.h",
    "tools/testing/selftests/lib.mk",
    "tools/testing/selftests/kvm",
    "tools/testing/selftests/rseq",
];

/// The part of a kernel's source that was kept.
#[derive(Debug)]
pub struct KernelSource {
    /// Its root.
    pub path: PathBuf,
    /// The version of the package.
    pub version: String,
}

impl KernelSource {
    /// Returns the source, fetched the first time.
    pub fn ensure() -> Result<Self> {
        let folder = match Folder::open(FOLDER) {
            Some(folder) => folder,
            None => {
                let _lock = super::lock()?;
                let apt = Apt::prepare()?;
                let folder = progress::step("fetching the kernel's source", || fetch(&apt));
                apt.remove()?;
                folder?
            }
        };
        let package = folder.packages.into_iter().next().context("no source package is there")?;
        let [_, version, _] = package;
        Ok(Self { path: folder.path, version })
    }

    /// Returns the script that checks the kernel's style.
    pub fn checkpatch(&self) -> PathBuf {
        self.path.join(CHECKPATCH)
    }
}

fn fetch(apt: &Apt) -> Result<Folder> {
    let (name, version) = choose(apt)?;
    let debs = apt.download(&[format!("{name}={version}")])?;
    Folder::create(FOLDER, &debs, |root| keep_members(root, &name))
}

/// Chooses name and version of the source package.
fn choose(apt: &Apt) -> Result<(String, String)> {
    if let Some(host) = HostKernel::version() {
        let name = format!("linux-source-{}", series(&host));
        if let Some(version) = nearest(&host, apt.versions(&name)?) {
            return Ok((name, version));
        }
    }
    let version = apt.version("linux-source", BACKPORTS)?;
    let mut names = apt.depends("linux-source", &version)?.into_iter();
    let name = names.find(|name| name.starts_with("linux-source-"));
    Ok((name.context("linux-source depends on no source package")?, version))
}

/// Returns the first two numbers of a version.
fn series(version: &str) -> &str {
    let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
    &version[..end]
}

/// Picks the host's own version, or else the newest.
fn nearest(host: &str, newest_first: Vec<String>) -> Option<String> {
    let own = newest_first.iter().position(|version| version == host);
    newest_first.into_iter().nth(own.unwrap_or(0))
}

/// Takes what is wanted out of the archive, and removes the rest.
fn keep_members(root: &Path, name: &str) -> Result<()> {
    let archive = root.join("usr/src").join(format!("{name}.tar.xz"));
    let members = MEMBERS.iter().map(|member| format!("{name}/{member}"));
    let mut tar = super::Tools::open().command("tar")?;
    tar.arg("-xJf").arg(&archive).arg("-C").arg(root);
    tar.args(["--strip-components=1", "--wildcards"]).args(members);
    command::run(&mut tar)?;
    std::fs::remove_dir_all(root.join("usr")).context("cannot remove the source archive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_is_two_numbers() {
        assert_eq!(series("6.12.95-1~bpo12+1"), "6.12");
        assert_eq!(series("7.0-1"), "7.0-1");
    }

    #[test]
    fn own_version_comes_before_the_newest() {
        let versions = || vec!["6.12.99-1".to_owned(), "6.12.95-1".to_owned()];
        assert_eq!(nearest("6.12.95-1", versions()).as_deref(), Some("6.12.95-1"));
        assert_eq!(nearest("6.12.90-1", versions()).as_deref(), Some("6.12.99-1"));
        assert_eq!(nearest("6.12.90-1", Vec::new()), None);
    }
}
