//! Headers of the newest kernel that Debian has, to keep the driver's source compatible with it.
//!
//! They are of the unstable suite, whose build tools expect a newer C library than this machine
//! may have; so that suite's library is unpacked beside them, and the tools run with it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::apt::Apt;
use super::host::{build_directory, headers, relocate};
use super::unpack::Folder;
use crate::{command, progress};

const SUITE: &str = "unstable";
const FOLDER: &str = "newer";

/// What make is told: the headers ask for a newer compiler, and for what only that one can do.
pub const NEWER_FLAGS: &[&str] = &[
    "W=1",
    "KCFLAGS=-Werror -Wno-attributes",
    "CC=aarch64-linux-gnu-gcc",
    "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=",
];

/// Returns the build directory, fetched the first time.
pub fn newer_headers() -> Result<PathBuf> {
    let folder = match Folder::open(FOLDER) {
        Some(folder) => folder,
        None => {
            let _lock = super::lock()?;
            let apt = Apt::prepare_with(&[SUITE])?;
            let folder = progress::step("fetching the newest kernel's headers", || fetch(&apt));
            apt.remove()?;
            folder?
        }
    };
    let mut names =
        folder.packages.iter().filter_map(|[name, ..]| name.strip_prefix("linux-headers-"));
    let release = names.find(|name| !name.ends_with("-common")).context("no headers are there")?;
    Ok(build_directory(&folder.path, release))
}

fn fetch(apt: &Apt) -> Result<Folder> {
    let machine = std::env::consts::ARCH;
    ensure!(machine == "x86_64", "its build tools run on x86_64 only, and this is {machine}");
    let version = apt.version("linux-headers-arm64:arm64", SUITE)?;
    let (release, mut packages) = headers(apt, &version)?;
    let library = apt.version("libc6", SUITE)?;
    packages.push(format!("libc6:{}={library}", apt.architecture));
    Folder::create(FOLDER, &apt.download(&packages)?, |root| {
        let directory = build_directory(root, &release);
        relocate(&directory)?;
        use_own_library(&directory.join("scripts/mod/modpost.real-lsb-64"))
    })
}

/// Puts a script in a tool's place that runs it with the library beside it, and tries it.
fn use_own_library(tool: &Path) -> Result<()> {
    let tool = tool.canonicalize().context("the headers have no modpost")?;
    std::fs::rename(&tool, tool.with_file_name("modpost.program"))?;
    std::fs::write(
        &tool,
        "#!/bin/sh\n\
         here=$(dirname \"$(readlink -f \"$0\")\")\n\
         libraries=$here/../../../../lib/x86_64-linux-gnu\n\
         exec \"$libraries/ld-linux-x86-64.so.2\" --library-path \"$libraries\" \\\n\
         \x20   \"$here/modpost.program\" \"$@\"\n",
    )?;
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755))?;
    command::run(Command::new(&tool).args(["-o", "/dev/null"]))
        .context("the newest kernel's build tools do not run on this machine")
}
