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
/// The few modules of the kernel's own that tests load, all without dependencies beyond these: a compressed
/// disk in memory, to swap to; and what gives back a page that was called broken.
const MODULES: &[&str] = &["lz4_compress", "lz4hc_compress", "zram", "hwpoison-inject"];

/// A kernel to run as host, and what is needed to build a module for it.
#[derive(Clone, Debug)]
pub struct HostKernel {
    /// The image, as its package has it.
    pub image: PathBuf,
    /// The build directory for modules; none, where the user named an image alone.
    pub headers: Option<PathBuf>,
    /// A folder with the few modules of its own that tests load, compressed as they are packaged.
    pub modules: Option<PathBuf>,
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
        let modules = folder.path.join("modules");
        // A folder of an older set-up lacks them.
        MODULES.iter().all(|name| modules.join(module_file(name)).is_file()).then_some(())?;
        Some(Self {
            image: folder.path.join("boot").join(format!("vmlinuz-{release}")),
            headers: Some(build_directory(&folder.path, release)),
            modules: Some(modules),
        })
    }

    /// Returns the version of the packages that set-up fetched.
    pub fn version() -> Option<String> {
        let folder = Folder::open(FOLDER)?;
        let image = folder.packages.into_iter().find(|[name, ..]| name.starts_with("linux-image-"));
        image.map(|[_, version, _]| version)
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
    let image = dependency(apt, "linux-image-arm64:arm64", &version, "linux-image-")?;
    let busybox_version = apt.version("busybox-static:arm64", "bookworm")?;
    let (release, mut packages) = headers(apt, &version)?;
    packages.push(format!("{image}:arm64={version}"));
    packages.push(format!("busybox-static:arm64={busybox_version}"));
    Folder::create(FOLDER, &apt.download(&packages)?, |root| {
        keep_modules(root, &release)?;
        drop_modules(root)?;
        relocate(&build_directory(root, &release))
    })
}

/// Finds the packages that a module is built with: returns the kernel's release, and the packages.
pub(super) fn headers(apt: &Apt, version: &str) -> Result<(String, Vec<String>)> {
    const START: &str = "linux-headers-";
    let name = dependency(apt, "linux-headers-arm64:arm64", version, START)?;
    let own = format!("{name}:arm64");
    let kbuild = dependency(apt, &own, version, "linux-kbuild-")?;
    // The common headers go by the release too, without the architecture.
    let common = kbuild.replacen("linux-kbuild-", START, 1) + "-common";
    let packages = vec![
        format!("{own}={version}"),
        format!("{common}={version}"),
        format!("{kbuild}:{}={version}", apt.architecture),
    ];
    Ok((name[START.len()..].to_owned(), packages))
}

/// Returns where a module for a release is built from.
pub(super) fn build_directory(root: &Path, release: &str) -> PathBuf {
    root.join("usr/src").join(format!("linux-headers-{release}"))
}

/// Returns what a package depends on whose name begins so.
fn dependency(apt: &Apt, package: &str, version: &str, start: &str) -> Result<String> {
    let found = apt.depends(package, version)?.into_iter().find(|name| name.starts_with(start));
    found.with_context(|| format!("{package} {version} depends on no {start}..."))
}

fn module_file(name: &str) -> String {
    format!("{name}.ko.xz")
}

/// Moves the modules that are wanted to a folder of their own.
fn keep_modules(root: &Path, release: &str) -> Result<()> {
    let folder = root.join("modules");
    std::fs::create_dir_all(&folder)?;
    for name in MODULES {
        let file = module_file(name);
        let mut find = Command::new("find");
        find.arg(root.join("lib/modules").join(release)).args(["-name", &file]);
        let found = command::output(&mut find)?;
        let path = found.lines().next().with_context(|| format!("the kernel has no {file}"))?;
        std::fs::rename(path, folder.join(&file))?;
    }
    Ok(())
}

/// Removes the rest of the kernel's own modules and device trees, most of the package, which nothing uses.
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

/// Makes the headers' Makefile find what stands beside it, wherever that is.
pub(super) fn relocate(headers: &Path) -> Result<()> {
    let makefile = headers.join("Makefile");
    let text = std::fs::read_to_string(&makefile)
        .with_context(|| format!("cannot read {}", makefile.display()))?;
    let here = "$(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)/";
    Ok(std::fs::write(makefile, text.replace("/usr/src/", here))?)
}
