//! `cargo xtask gdb`: attaches a debugger to a run that waits for one (`run --gdb`).
//!
//! The firmware signs return addresses where the CPU can (FEAT_PAuth), and gdb reads them as they are in memory: QEMU
//! tells it which bits are the signature's, but under a name of the feature that gdb takes from programs alone. So the
//! CPU of a run that is debugged has no FEAT_PAuth, where its model lets one choose: the instructions that sign are
//! hints, and do nothing there.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::build::{self, Firmware, Profile};
use crate::{command, paths, setup};

/// Where QEMU waits, if nobody else has it.
const PORT: u16 = 1234;
/// Debuggers that know the architecture, the best first.
const DEBUGGERS: &[&str] = &["gdb-multiarch", "aarch64-linux-gnu-gdb", "gdb"];
/// Models of which QEMU lets one switch pointer authentication off.
const SIGNING_MODELS: &[&str] = &["max", "neoverse-v1", "neoverse-n2", "cortex-a710"];

/// Options of the debugger.
#[derive(Args, Debug)]
pub struct GdbArgs {
    /// Where the run waits [default: the port of the last `run --gdb`]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

/// Returns the model without pointer authentication, unless the user speaks of that.
pub fn unsigned(cpu: &str) -> String {
    let model = cpu.split(',').next().unwrap_or_default();
    if SIGNING_MODELS.contains(&model) && !cpu.contains("pauth") {
        return format!("{cpu},pauth=off");
    }
    cpu.to_owned()
}

/// Chooses the port of a run: the one that the user asks for, the usual one, or any that is free; notes it for `gdb`.
pub fn choose_port(wanted: Option<u16>) -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match wanted {
        Some(port) => bind(port).with_context(|| format!("--gdb: port {port} can't be used"))?,
        None => bind(PORT).or_else(|_| bind(0)).context("no port is free")?,
    };
    let port = listener.local_addr()?.port();
    let note = note();
    std::fs::create_dir_all(note.parent().context("a file of a folder")?)?;
    std::fs::write(note, port.to_string())?;
    Ok(port)
}

fn note() -> PathBuf {
    paths::target().join("run/gdb-port")
}

/// Returns the arguments that attach and load the firmware's symbols where it runs.
pub fn arguments(firmware: &Firmware, port: u16) -> Vec<String> {
    let symbols = format!("add-symbol-file {} -o {:#x}", quote(firmware), firmware.load_address);
    let commands = [
        // It would ask whether to load symbols at an address.
        "set confirm off".into(),
        "set architecture aarch64".into(),
        symbols,
        "set confirm on".into(),
        format!("target remote :{port}"),
    ];
    commands.into_iter().flat_map(|command: String| ["-ex".into(), command]).collect()
}

/// Names the linked file for gdb, which takes a space for the end of a word.
fn quote(firmware: &Firmware) -> String {
    firmware.elf.display().to_string().replace('\\', "\\\\").replace(' ', "\\ ")
}

/// Returns the line that a user types to attach.
pub fn line(firmware: &Firmware, port: u16) -> String {
    let words = arguments(firmware, port).into_iter();
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    format!("{} {}", DEBUGGERS[0], words.collect::<Vec<_>>().join(" "))
}

/// Replaces this program by the debugger.
pub fn gdb(args: &GdbArgs) -> Result<()> {
    let Some(program) = DEBUGGERS.iter().find_map(|name| command::find(name)) else {
        bail!("no debugger for arm64 is on this machine; type: apt-get install gdb-multiarch");
    };
    let noted = std::fs::read_to_string(note()).ok().and_then(|text| text.parse().ok());
    let port = args.port.or(noted).unwrap_or(PORT);
    ensure!(
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err(),
        "nobody waits at port {port}; first type, in another terminal: cargo xtask run --gdb"
    );
    setup::rust::ensure_targets()?;
    let firmware = build::firmware(Profile::Release)?;
    Err(Command::new(program).args(arguments(&firmware, port)).exec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_debugged_signs_nothing() {
        assert_eq!(unsigned("max"), "max,pauth=off");
        assert_eq!(unsigned("max,sve=off"), "max,sve=off,pauth=off");
        assert_eq!(unsigned("max,pauth-impdef=on"), "max,pauth-impdef=on");
        // These know no such property.
        for cpu in ["cortex-a57", "neoverse-n1", "a64fx"] {
            assert_eq!(unsigned(cpu), cpu);
        }
    }

    #[test]
    fn a_port_in_use_is_told() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(choose_port(Some(port)).unwrap_err().to_string().contains(&port.to_string()));
    }

    #[test]
    fn symbols_are_loaded_without_a_question() {
        let firmware =
            Firmware { elf: "a b/elf".into(), image: "i".into(), load_address: 0x4020_0000 };
        let words = arguments(&firmware, 99);
        assert_eq!(words[1], "set confirm off");
        assert!(words.contains(&r"add-symbol-file a\ b/elf -o 0x40200000".to_owned()), "{words:?}");
        assert!(line(&firmware, 99).ends_with("-ex 'target remote :99'"));
    }
}
