//! What the host is to do, and the root that it does it in.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use verdigris_qemu::SWAP_SERIAL;

use crate::initramfs::Initramfs;
use crate::{paths, setup};

/// The host's command line, before what a run adds: a panic ends the machine at once.
pub const HOST_ARGS: &str = "console=ttyAMA0 rdinit=/init panic=-1";
/// Where the user's script is in the host.
const SCRIPT: &str = "etc/verdigris/script";

/// One thing for the host to do before it powers off.
#[derive(Clone, Debug)]
pub enum Work {
    /// A root shell on the console.
    Shell,
    /// A file of the user's.
    Script(PathBuf),
    /// A command line.
    Command(String),
}

/// All that goes into the host's root for one run.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to do.
    pub work: Work,
    /// The driver and its arguments; none on a machine without the firmware.
    pub driver: Option<(PathBuf, String)>,
    /// The hypercall suite.
    pub suite: Option<PathBuf>,
    /// The guest payload.
    pub guest: Option<PathBuf>,
    /// The virtual machine monitor of the demonstration.
    pub vmm: Option<PathBuf>,
    /// Whether the machine has a disk to swap to.
    pub swap: bool,
    /// A folder to lay at /lib/modules, with modules of the host kernel's own.
    pub modules: Option<PathBuf>,
    /// Directories to lay over the root.
    pub overlays: Vec<PathBuf>,
    /// Marks the lines that are for us.
    pub nonce: String,
}

impl Job {
    /// Makes a job with nothing but a busybox around it.
    pub fn new(work: Work) -> Self {
        Self {
            work,
            driver: None,
            suite: None,
            guest: None,
            vmm: None,
            swap: false,
            modules: None,
            overlays: Vec::new(),
            nonce: nonce(),
        }
    }

    /// Writes the root to a file.
    pub fn write_root(&self, to: &Path) -> Result<()> {
        let mut root = Initramfs::default();
        let host = paths::root().join("linux/host");
        root.copy("bin/busybox", 0o755, &setup::busybox()?)?;
        root.copy("init", 0o755, &host.join("init"))?;
        root.copy("etc/profile", 0o644, &host.join("profile"))?;
        root.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
        root.file("etc/group", 0o644, b"root:x:0:\n")?;
        for (file, name, mode) in [
            (self.driver.as_ref().map(|(module, _)| module), "lib/modules/verdigris.ko", 0o644),
            (self.suite.as_ref(), "bin/verdigris-suite", 0o755),
            (self.guest.as_ref(), "lib/verdigris/guest.bin", 0o644),
            (self.vmm.as_ref(), "bin/verdigris-vmm", 0o755),
        ] {
            if let Some(file) = file {
                root.copy(name, mode, file)?;
            }
        }
        if let Some(modules) = &self.modules {
            root.tree(modules, "lib/modules/")?;
        }
        for overlay in &self.overlays {
            root.overlay(overlay)?;
        }
        if let Work::Script(script) = &self.work {
            root.copy(SCRIPT, 0o755, script)?;
        }
        root.file("etc/verdigris/job", 0o644, self.description().as_bytes())?;
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(to, root.finish()?)?)
    }

    /// Describes the job as the assignments that the host's init reads.
    fn description(&self) -> String {
        let job = match &self.work {
            Work::Shell => "shell",
            Work::Script(_) => "/etc/verdigris/script",
            Work::Command(command) => command,
        };
        let driver = self.driver.as_ref().map_or("none", |(_, args)| args);
        let term = std::env::var("TERM").unwrap_or_else(|_| "vt100".into());
        let (rows, columns) = terminal_size();
        let mut text = String::new();
        for (name, value) in [
            ("nonce", self.nonce.as_str()),
            ("job", job),
            ("driver_args", driver),
            ("swap", if self.swap { SWAP_SERIAL } else { "" }),
            ("term", &term),
            ("rows", &rows.to_string()),
            ("columns", &columns.to_string()),
        ] {
            writeln!(text, "{name}={}", quote(value)).expect("writing to a string");
        }
        text
    }
}

/// Quotes a word for the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Makes a word that no program prints by chance.
fn nonce() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Always of one length, so that it changes no run that counts instructions.
    format!("{:016x}-{:08x}-{count:04x}", now.as_nanos() as u64, std::process::id())
}

fn terminal_size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let word = "it's \"a\" $(test) `x` \\ *";
        let script = format!("printf %s {}", quote(word));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
    }
}
