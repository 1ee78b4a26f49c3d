//! Unpacks packages side by side into a folder of the cache, all or nothing.
//!
//! A folder is there under its final name only once it is complete, and its `packages` file says
//! what is in it; so an interrupted set-up starts again, and never half works.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, paths};

/// Changes when set-up does: folders made by another version are made anew.
const FORMAT: &str = "verdigris set-up 1";

/// A folder of unpacked packages.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Name, version and architecture of each package in it.
    pub packages: Vec<[String; 3]>,
}

impl Folder {
    /// Opens a folder of the cache if it is there and complete.
    pub fn open(name: &str) -> Option<Self> {
        let path = paths::cache().join(name);
        let text = std::fs::read_to_string(path.join("packages")).ok()?;
        let mut lines = text.lines();
        (lines.next() == Some(FORMAT)).then_some(())?;
        let packages = lines.filter_map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            Some([words.next()?, words.next()?, words.next()?])
        });
        Some(Self { packages: packages.collect(), path })
    }

    /// Makes a folder of the packages in `debs`, lets `finish` edit it, and records it.
    pub fn create(
        name: &str,
        debs: &[PathBuf],
        finish: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let path = paths::cache().join(name);
        let unfinished = paths::cache().join(format!("{name}.new"));
        remove(&path)?;
        remove(&unfinished)?;
        std::fs::create_dir_all(&unfinished)?;
        let mut text = format!("{FORMAT}\n");
        for deb in debs {
            command::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unfinished))?;
            let mut show = Command::new("dpkg-deb");
            show.arg("--showformat=${Package} ${Version} ${Architecture}").arg("-W").arg(deb);
            writeln!(text, "{}", command::output(&mut show)?.trim())?;
        }
        finish(&unfinished)?;
        std::fs::write(unfinished.join("packages"), text)?;
        std::fs::rename(&unfinished, &path)?;
        record()?;
        Self::open(name).context("the folder just made is not complete")
    }
}

/// Writes all that is unpacked into one file, for bug reports.
fn record() -> Result<()> {
    let mut text = String::new();
    for entry in std::fs::read_dir(paths::cache())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(folder) = Folder::open(&name) else { continue };
        for package in folder.packages {
            writeln!(text, "{name}: {}", package.join(" "))?;
        }
    }
    Ok(std::fs::write(paths::cache().join("record"), text)?)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path)
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
