//! `cargo xtask gdb`: attaches a debugger to a run that waits for one (`run --gdb`).

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::build::{self, Firmware, Profile};
use crate::{command, setup};

/// Where QEMU waits.
pub const PORT: u16 = 1234;
/// Debuggers that know the architecture, the best first.
const DEBUGGERS: &[&str] = &["gdb-multiarch", "aarch64-linux-gnu-gdb", "gdb"];

/// Returns the arguments that attach and load the firmware's symbols where it runs.
fn arguments(firmware: &Firmware) -> Vec<String> {
    let symbols =
        format!("add-symbol-file {} -o {:#x}", firmware.elf.display(), firmware.load_address);
    let remote = format!("target remote :{PORT}");
    let commands = ["set architecture aarch64".into(), symbols, remote];
    commands.into_iter().flat_map(|command: String| ["-ex".into(), command]).collect()
}

/// Returns the line that a user types to attach.
pub fn line(firmware: &Firmware) -> String {
    let words = arguments(firmware).into_iter();
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    format!("{} {}", DEBUGGERS[0], words.collect::<Vec<_>>().join(" "))
}

/// Replaces this program by the debugger.
pub fn gdb() -> Result<()> {
    setup::rust::ensure_targets()?;
    let firmware = build::firmware(Profile::Release)?;
    let Some(program) = DEBUGGERS.iter().find_map(|name| command::find(name)) else {
        bail!("no debugger for arm64 is on this machine; type: apt-get install gdb-multiarch");
    };
    Err(Command::new(program).args(arguments(&firmware)).exec().into())
}
