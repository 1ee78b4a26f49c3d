//! The programs that build and run: QEMU, the cross compiler, make.
//!
//! They are unpacked with the libraries that they need and the machine lacks, and run from there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use verdigris_qemu::Qemu;

use super::apt::{Apt, BACKPORTS};
use super::unpack::Folder;
use crate::{command, progress};

/// What to do where set-up cannot fetch packages.
pub const BY_HAND: &str = "\
Install by your system's own means: qemu-system-aarch64 (7.2 or later; 10.0 is the reference),
aarch64-linux-gnu-gcc, make. Name a static arm64 busybox in the variable VERDIGRIS_BUSYBOX, and a
host of your own:
  cargo xtask run --kernel IMAGE --kernel-headers DIR";

/// The oldest QEMU that has what the tests need.
const QEMU_FLOOR: (u32, u32) = (7, 2);

/// Folders of the cache.
const QEMU_FOLDER: &str = "qemu";
const FLOOR_FOLDER: &str = "qemu-floor";
const COMPILER_FOLDER: &str = "compiler";

/// Where the programs are.
pub struct Tools {
    qemu: Option<Folder>,
    compiler: Option<Folder>,
}

impl Tools {
    /// Opens what set-up fetched; programs that are not there are looked for in `PATH`.
    pub fn open() -> Self {
        Self { qemu: Folder::open(QEMU_FOLDER), compiler: Folder::open(COMPILER_FOLDER) }
    }

    /// Tells whether nothing needs to be fetched.
    pub fn is_complete(&self) -> bool {
        let unpacked = self.qemu.is_some() && self.compiler.is_some();
        let without_apt = super::apt::require().is_err();
        unpacked || (without_apt && self.qemu().is_ok() && self.compiler().is_ok())
    }

    /// Fetches what is not there yet.
    pub fn fetch(apt: &Apt) -> Result<()> {
        let tools = Self::open();
        if tools.qemu.is_none() {
            fetch_qemu(apt)?;
        }
        if tools.compiler.is_none() {
            fetch_compiler(apt)?;
        }
        Ok(())
    }

    /// Returns the emulator that set-up fetched, or else the machine's own.
    pub fn qemu(&self) -> Result<Qemu> {
        let unpacked =
            self.qemu.as_ref().map(|folder| folder.path.join("usr/bin/qemu-system-aarch64"));
        let program = match unpacked.filter(|program| program.is_file()) {
            Some(program) => program,
            None => command::find("qemu-system-aarch64")
                .with_context(|| format!("qemu-system-aarch64 is missing.\n{BY_HAND}"))?,
        };
        Ok(Qemu { program, library_path: library_path(self.qemu.as_ref()) })
    }

    /// Returns the oldest emulator that is supported, fetched the first time it is asked for.
    pub fn oldest_qemu() -> Result<Qemu> {
        let folder = match Folder::open(FLOOR_FOLDER) {
            Some(folder) => folder,
            None => fetch_oldest_qemu()?,
        };
        let program = folder.path.join("usr/bin/qemu-system-aarch64");
        Ok(Qemu { program, library_path: library_path(Some(&folder)) })
    }

    /// Returns an emulator that the user chose.
    pub fn qemu_at(program: PathBuf) -> Result<Qemu> {
        ensure!(program.is_file(), "there is no emulator at {}", program.display());
        Ok(Qemu { program, library_path: None })
    }

    /// Makes a `make` command under which the cross compiler is found.
    pub fn make(&self) -> Result<Command> {
        self.compiler()?;
        self.command("make")
    }

    /// Makes a command that finds, and itself is found among, the programs that were unpacked.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(folder) = &self.compiler {
            let mut dirs = vec![folder.path.join("usr/bin")];
            dirs.extend(std::env::split_paths(&path));
            path = std::env::join_paths(dirs).context("PATH cannot be extended")?;
        }
        let mut command = Command::new(program);
        command.env("PATH", path).env("LC_ALL", "C");
        if let Some(libraries) = library_path(self.compiler.as_ref()) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        Ok(command)
    }

    /// Makes a command of a program of a folder, with the libraries beside it.
    pub fn command_of(folder: &Folder, program: &str) -> Command {
        let mut command = Command::new(folder.path.join("usr/bin").join(program));
        command.env("LC_ALL", "C");
        if let Some(libraries) = library_path(Some(folder)) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// Tells what of the compiler is missing.
    pub fn compiler(&self) -> Result<()> {
        for program in ["aarch64-linux-gnu-gcc", "make"] {
            let unpacked =
                self.compiler.as_ref().map(|folder| folder.path.join("usr/bin").join(program));
            if !unpacked.is_some_and(|file| file.exists()) && command::find(program).is_none() {
                bail!("{program} is missing.\n{BY_HAND}");
            }
        }
        Ok(())
    }
}

/// Returns major and minor version of an emulator, and refuses one that is too old.
pub fn qemu_version(qemu: &Qemu) -> Result<(u32, u32)> {
    let text = command::output(qemu.command().arg("--version"))?;
    let number = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    let mut parts = number.unwrap_or("").split('.').map(|part| part.parse::<u32>());
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        bail!("{} does not tell its version", qemu.program.display());
    };
    let (floor_major, floor_minor) = QEMU_FLOOR;
    ensure!(
        (major, minor) >= QEMU_FLOOR,
        "QEMU {major}.{minor} is too old: {floor_major}.{floor_minor} or later is needed"
    );
    Ok((major, minor))
}

fn fetch_qemu(apt: &Apt) -> Result<Folder> {
    let suite = if apt.suite == "bookworm" { BACKPORTS } else { &apt.suite };
    progress::step("fetching QEMU", || {
        let debs = apt.download_missing(&["qemu-system-arm"], suite)?;
        Folder::create(QEMU_FOLDER, &debs, |_| Ok(()))
    })
}

fn fetch_oldest_qemu() -> Result<Folder> {
    const SUITE: &str = "bookworm";
    let _lock = super::lock()?;
    let apt = Apt::prepare()?;
    ensure!(apt.suite == SUITE, "only Debian 12 has QEMU 7.2; this machine is of {}", apt.suite);
    let folder = progress::step("fetching the oldest supported QEMU", || {
        let debs = apt.download_missing(&["qemu-system-arm"], SUITE)?;
        Folder::create(FLOOR_FOLDER, &debs, |_| Ok(()))
    });
    apt.remove()?;
    folder
}

fn fetch_compiler(apt: &Apt) -> Result<Folder> {
    let gcc = if apt.architecture == "arm64" { "gcc" } else { "gcc-12-aarch64-linux-gnu" };
    let packages = ["make", "xz-utils", gcc, "gcc-aarch64-linux-gnu"];
    progress::step("fetching the cross compiler", || {
        let debs = apt.download_missing(&packages, &apt.suite)?;
        Folder::create(COMPILER_FOLDER, &debs, |_| Ok(()))
    })
}

/// Lists the library folders of unpacked packages, in front of the caller's own.
fn library_path(folder: Option<&Folder>) -> Option<String> {
    let path = &folder?.path;
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let mut dirs = Vec::new();
    for base in ["usr/lib", "lib"] {
        dirs.push(path.join(base).join(&triplet).to_string_lossy().into_owned());
    }
    if let Ok(own) = std::env::var("LD_LIBRARY_PATH") {
        dirs.push(own);
    }
    Some(dirs.join(":"))
}
