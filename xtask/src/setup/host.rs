//! The host's kernel, its headers and its busybox, of Debian's arm64 packages.
//!
//! All four kernel packages are of one version, found through the metapackages: image, headers and
//! common headers are what the host runs and the driver is built against, and the build tools
//! (kbuild) are of this machine's own architecture. They are unpacked side by side, which leaves
//! absolute paths in the headers' Makefile to be edited.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{Apt, BACKPORTS};
use super::unpack::Folder;
use crate::{command, progress};

const FOLDER: &str = "host";

/// A kernel to run as host, and what is needed to build a module for it.
#[derive(Clone, Debug)]
pub struct HostKernel {
    /// The image, as its package has it.
    pub image: PathBuf,
    /// The build directory for modules; none, where the user named an image alone.
    pub headers: Option<PathBuf>,
}

/// Returns the static arm64 busybox that set-up fetched, or the user's own.
pub fn busybox() -> Result<PathBuf> {
    if let Some(own) = std::env::var_os("VERDIGRIS_BUSYBOX") {
        return Ok(own.into());
    }
    let folder = Folder::open(FOLDER).context("set-up has not fetched a busybox")?;
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.path.join(place));
    places.into_iter().find(|file| file.is_file()).context("the busybox package has no busybox")
}

impl HostKernel {
    /// Opens what set-up fetched.
    pub fn open() -> Option<Self> {
        let folder = Folder::open(FOLDER)?;
        let mut names = folder.packages.iter().map(|[name, ..]| name);
        let release = names.find_map(|name| name.strip_prefix("linux-image-"))?;
        Some(Self {
            image: folder.path.join("boot").join(format!("vmlinuz-{release}")),
            headers: Some(folder.path.join("usr/src").join(format!("linux-headers-{release}"))),
        })
    }

    /// Fetches what is not there yet.
    pub fn fetch(apt: &Apt) -> Result<()> {
        if Self::open().is_none() {
            progress::step("fetching the host's kernel", || fetch(apt))?;
        }
        Ok(())
    }
}

fn fetch(apt: &Apt) -> Result<Folder> {
    let version = apt.version("linux-image-arm64:arm64", BACKPORTS)?;
    let one = |package: &str, start: &str| -> Result<String> {
        let found =
            apt.depends(package, &version)?.into_iter().find(|name| name.starts_with(start));
        found.with_context(|| format!("{package} {version} depends on no {start}..."))
    };
    let image = one("linux-image-arm64:arm64", "linux-image-")?;
    let headers = one("linux-headers-arm64:arm64", "linux-headers-")?;
    let headers_arm64 = format!("{headers}:arm64");
    let common = apt.depends(&headers_arm64, &version)?;
    let common = common.into_iter().find(|name| name.ends_with("-common"));
    let common = common.with_context(|| format!("{headers} depends on no common headers"))?;
    let kbuild = one(&headers_arm64, "linux-kbuild-")?;
    let busybox_version = apt.version("busybox-static:arm64", "bookworm")?;
    let debs = apt.download(&[
        format!("{image}:arm64={version}"),
        format!("{headers_arm64}={version}"),
        format!("{common}={version}"),
        format!("{kbuild}:{}={version}", apt.architecture),
        format!("busybox-static:arm64={busybox_version}"),
    ])?;
    Folder::create(FOLDER, &debs, |root| {
        drop_modules(root)?;
        relocate(&root.join("usr/src").join(&headers), &common)
    })
}

/// Removes the kernel's own modules and device trees, most of the package, which nothing uses.
fn drop_modules(root: &Path) -> Result<()> {
    let mut find = Command::new("rm");
    find.arg("-rf").arg(root.join("lib/modules"));
    for entry in std::fs::read_dir(root.join("usr/lib"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-image-")) {
            find.arg(path);
        }
    }
    command::run(&mut find)
}

/// Makes the headers' Makefile find the common headers beside it, wherever both are.
fn relocate(headers: &Path, common: &str) -> Result<()> {
    let makefile = headers.join("Makefile");
    let text = std::fs::read_to_string(&makefile)
        .with_context(|| format!("cannot read {}", makefile.display()))?;
    let here = "$(dir $(lastword $(MAKEFILE_LIST)))..";
    let text = text.replace("/usr/src/", &format!("{here}/"));
    let text = text.replace(&format!("/usr/lib/{common}"), &format!("{here}/{common}"));
    Ok(std::fs::write(makefile, text)?)
}
