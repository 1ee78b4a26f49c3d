//! A debugger that knows arm64, for the test that one can be attached; users have their own.

use std::process::Command;

use anyhow::Result;

use super::Tools;
use super::apt::Apt;
use super::unpack::Folder;
use crate::progress;

const FOLDER: &str = "gdb";

/// Returns a command of the debugger, fetched the first time.
pub fn debugger() -> Result<Command> {
    let folder = match Folder::open(FOLDER) {
        Some(folder) => folder,
        None => {
            let _lock = super::lock()?;
            let apt = Apt::prepare()?;
            let folder = progress::step("fetching a debugger", || fetch(&apt));
            apt.remove()?;
            folder?
        }
    };
    let mut gdb = Tools::command_of(&folder, "gdb-multiarch");
    gdb.arg(format!("--data-directory={}", folder.path.join("usr/share/gdb").display()));
    // It is linked with an interpreter, which looks for its library where it is installed.
    gdb.env("PYTHONHOME", folder.path.join("usr"));
    Ok(gdb)
}

fn fetch(apt: &Apt) -> Result<Folder> {
    let debs = apt.download_missing(&["gdb-multiarch"], &apt.suite)?;
    Folder::create(FOLDER, &debs, |_| Ok(()))
}
