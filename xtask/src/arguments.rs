//! Checks what a run is told before anything is fetched or built.
//!
//! A build takes minutes, and a machine that came up with another setting than the user meant is worse than none. So
//! the firmware's options are read by the firmware's own parser, the driver's parameters are compared with those that
//! its sources declare, and files and folders are looked at first.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use verdigris_core::options::Options;
use verdigris_qemu::{Machine, Qemu};

use crate::{command, initramfs, paths};

/// Least memory of a machine: kernel and ramdisk are loaded 256 MiB up, and need room to run in.
const LEAST_MEMORY_BYTES: u64 = 448 << 20;
/// Parameters that the kernel gives to every module (Documentation/admin-guide/kernel-parameters.rst).
const OF_EVERY_MODULE: &[&str] = &["async_probe", "dyndbg"];
/// Models of 32 bits, which QEMU's list has too.
const MODELS_OF_32_BITS: &[&str] = &[
    "arm",
    "cortex-a15",
    "cortex-a7",
    "cortex-a8",
    "cortex-a9",
    "cortex-m",
    "cortex-r",
    "pxa",
    "sa1",
    "ti925t",
];

/// Refuses options that the firmware would only warn of.
pub fn firmware(line: &str) -> Result<()> {
    let mut problems = Vec::new();
    Options::parse(line, |problem| problems.push(problem.to_string().replace(" ignored:", ":")));
    ensure!(problems.is_empty(), "--firmware-args: {}", problems.join("\n"));
    Ok(())
}

/// A module parameter, as the sources declare it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    /// Its type, where the kernel knows it.
    kind: String,
}

/// Refuses parameters that the driver doesn't have: the kernel ignores them with a line in its log.
pub fn driver(line: &str) -> Result<()> {
    let mut known = Vec::new();
    for entry in std::fs::read_dir(paths::root().join("linux/driver"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "c") {
            known.extend(parameters(&std::fs::read_to_string(path)?));
        }
    }
    line.split_ascii_whitespace()
        .try_for_each(|word| parameter(&known, word))
        .context("--driver-args")
}

/// Finds `module_param(NAME, TYPE, MODE)` and `module_param_cb(NAME, OPERATIONS, ...)`; what can only be read is left out.
fn parameters(source: &str) -> Vec<Parameter> {
    let rows = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("module_param")?.strip_suffix(");"));
    let parse = |row: &str| {
        let (kind, words) = row.split_once('(')?;
        let words: Vec<_> = words.split(',').map(str::trim).collect();
        let kind = if kind.is_empty() { words.get(1)? } else { "" };
        let mode = u32::from_str_radix(words.last()?, 8).ok()?;
        let is_set_at_load = !kind.is_empty() || mode & 0o200 != 0;
        is_set_at_load.then(|| Parameter { name: words[0].into(), kind: kind.into() })
    };
    rows.filter_map(parse).collect()
}

fn parameter(known: &[Parameter], word: &str) -> Result<()> {
    let (name, value) =
        word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    // The kernel makes no difference between these two.
    let name = name.replace('-', "_");
    if OF_EVERY_MODULE.contains(&name.as_str()) {
        return Ok(());
    }
    let Some(found) = known.iter().find(|parameter| parameter.name == name) else {
        let mut names: Vec<_> = known.iter().map(|parameter| parameter.name.as_str()).collect();
        names.sort_unstable();
        bail!("the driver has no parameter `{name}`; it has: {}", names.join(" "));
    };
    let is_good = match (found.kind.as_str(), value) {
        ("bool", value) => value.is_none_or(is_switch),
        (_, None) => false,
        ("uint" | "ulong", Some(value)) => is_number(value),
        (_, Some(_)) => true,
    };
    let wanted = if found.kind == "bool" { "0 or 1" } else { "a number" };
    ensure!(is_good, "`{word}`: the value of `{name}` is {wanted}");
    Ok(())
}

/// Tells what the kernel's kstrtobool() takes.
fn is_switch(value: &str) -> bool {
    matches!(
        value.as_bytes(),
        [b'0' | b'1' | b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F', ..]
    ) || ["on", "off"].contains(&value.to_ascii_lowercase().as_str())
}

/// Tells what the kernel's kstrtouint() takes: decimal, 0x for hexadecimal, 0 for octal.
fn is_number(value: &str) -> bool {
    let (digits, radix) = match value.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&value[2..], 16),
        [b'0', _, ..] => (&value[1..], 8),
        _ => (value, 10),
    };
    u32::from_str_radix(digits, radix).is_ok()
}

/// Refuses sizes that no run can have.
pub fn memory(bytes: u64) -> Result<()> {
    let mib = bytes >> 20;
    ensure!(
        bytes >= LEAST_MEMORY_BYTES,
        "--memory: {mib} MiB are too few for a host: give {}M or more",
        LEAST_MEMORY_BYTES >> 20
    );
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    // Linux refuses what is more than both together (Documentation/mm/overcommit-accounting.rst).
    let most = field_kib(&info, "MemTotal:").zip(field_kib(&info, "SwapTotal:"));
    if let Some(most) = most.map(|(memory, swap)| memory + swap) {
        ensure!(
            bytes >> 10 <= most,
            "--memory: this machine itself has {} MiB, not {mib}",
            most >> 10
        );
    }
    Ok(())
}

fn field_kib(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Refuses what can't be laid over the host's root.
pub fn overlay(directory: &Path) -> Result<()> {
    ensure!(directory.is_dir(), "--overlay: there is no directory {}", directory.display());
    initramfs::check(directory).context("--overlay")
}

/// Refuses a log that can't be written, before there is something to write.
pub fn log(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        bail!("--log: there is no directory {}", folder.display());
    }
    let opened = OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).with_context(|| format!("--log: cannot write {}", file.display()))
}

/// What starts a script: the kernel, or an interpreter of the host's root.
#[derive(Debug, PartialEq, Eq)]
enum Starter {
    /// No interpreter is named: the shell, or the kernel for a static program.
    None,
    Interpreter(String),
}

/// Refuses a file that can't be read or that is a program of another architecture; returns what it begins with.
pub fn script(file: &Path) -> Result<()> {
    ensure!(file.is_file(), "--script: there is no file {}", file.display());
    starter(&read_all(file)?).map(drop).with_context(|| format!("--script {}", file.display()))
}

/// Refuses a script whose interpreter neither busybox nor an overlay has.
pub fn interpreter(script: &Path, overlays: &[PathBuf], busybox: &Path) -> Result<()> {
    let Starter::Interpreter(name) = starter(&read_all(script)?)? else { return Ok(()) };
    let in_overlay =
        |overlay: &PathBuf| overlay.join(name.trim_start_matches('/')).symlink_metadata().is_ok();
    if overlays.iter().any(in_overlay) || has_applet(&read_all(busybox)?, &name) {
        return Ok(());
    }
    bail!(
        "--script {}: its interpreter {name:?} is not in the host's root; busybox has /bin/sh and /bin/awk, \
         others come by --overlay",
        script.display()
    )
}

fn read_all(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|mut file| file.read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes)
}

/// Reads what the kernel would look at: `#!`, or the program header that names a dynamic loader.
fn starter(bytes: &[u8]) -> Result<Starter> {
    use object::Endianness;
    use object::elf::{EM_AARCH64, FileHeader64};
    use object::read::elf::{FileHeader, ProgramHeader};
    if let Some(rest) = bytes.strip_prefix(b"#!") {
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let line = line.trim_matches([' ', '\t']);
        let word = line.split([' ', '\t']).next().unwrap_or_default();
        return Ok(Starter::Interpreter(word.to_owned()));
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(Starter::None);
    }
    let header = FileHeader64::<Endianness>::parse(bytes).ok();
    let header = header.filter(|header| {
        header.endian().is_ok_and(|endian| header.e_machine(endian) == EM_AARCH64)
    });
    let header = header.context("it is a program of another architecture; the host is arm64")?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, bytes)? {
        if let Some(name) = segment.interpreter(endian, bytes)? {
            return Ok(Starter::Interpreter(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(Starter::None)
}

/// Tells whether busybox is installed under a name: all its names are in `/bin`, and stand in it one after the other.
fn has_applet(busybox: &[u8], path: &str) -> bool {
    let Some(name) =
        path.strip_prefix("/bin/").filter(|name| !name.is_empty() && !name.contains('/'))
    else {
        return false;
    };
    let word = [b"\0", name.as_bytes(), b"\0"].concat();
    name == "busybox" || busybox.windows(word.len()).any(|window| window == word)
}

/// Lets the emulator judge a machine, which takes a moment, and tells in its own words what it doesn't like.
pub fn machine(qemu: &Qemu, machine: &Machine) -> Result<()> {
    let mut list = qemu.command();
    list.args(["-machine", "virt", "-cpu", "help"]);
    let models = models(&command::output(&mut list)?);
    let model = machine.cpu.split(',').next().unwrap_or_default();
    ensure!(
        models.is_empty() || models.iter().any(|known| known == model),
        "--cpu: this QEMU has no arm64 model `{model}`; it has: {}",
        models.join(" ")
    );
    let refusal = qemu.refusal(machine)?;
    ensure!(refusal.is_none(), "QEMU refuses this machine: {}", refusal.unwrap_or_default());
    Ok(())
}

/// Reads the names of the list that QEMU prints, less those that can't run this host.
fn models(help: &str) -> Vec<String> {
    let words = help.lines().skip_while(|line| !line.starts_with("Available CPUs")).skip(1);
    let names = words.map(str::trim).take_while(|line| !line.is_empty());
    let is_wide = |name: &&str| !MODELS_OF_32_BITS.iter().any(|start| is_of(name, start));
    names.filter(is_wide).map(str::to_owned).collect()
}

/// Tells whether a model is of a family: `cortex-a7` is not `cortex-a72`'s.
fn is_of(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| !family.contains("-a") || rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn said<T: std::fmt::Debug>(result: Result<T>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn options_of_the_firmware_are_read_by_its_own_parser() {
        for good in ["", "log=debug ha=off vmid=8", "crash=spin epoch=off bbm=0"] {
            firmware(good).unwrap();
        }
        let unknown = said(firmware("log=info nonsense=1"));
        assert!(
            unknown.contains("`nonsense=1`: known are") && unknown.contains("tlbirange="),
            "{unknown}"
        );
        let value = said(firmware("vmid=99"));
        assert!(value.contains("vmid=99") && value.contains("3|4|5"), "{value}");
    }

    #[test]
    fn parameters_are_those_of_the_sources() {
        for good in [
            "",
            "raw=1",
            "raw",
            "kvm=N",
            "age_window=0x10 fault_around=1",
            "age-window=4",
            "pause_point=a:b",
        ] {
            driver(good).unwrap();
        }
        let unknown = said(driver("raw=1 nonsense=1"));
        assert!(
            unknown.contains("no parameter `nonsense`") && unknown.contains("age_answers"),
            "{unknown}"
        );
        // It can be read alone, so that loading with it fails.
        assert!(said(driver("pauses=1")).contains("no parameter `pauses`"));
        for bad in ["age_window=x", "age_window", "age_window=", "raw=maybe", "age_window=-1"] {
            assert!(said(driver(bad)).contains("the value of"), "{bad}");
        }
    }

    #[test]
    fn declarations_are_found_with_their_types() {
        let source = "module_param(raw, bool, 0444);\n\tmodule_param_cb(p, &ops, NULL, 0600);\n\
            module_param_cb(seen, &ops, NULL, 0400);\nMODULE_PARM_DESC(raw, \"x\");\n";
        let parameter = |name: &str, kind: &str| Parameter { name: name.into(), kind: kind.into() };
        assert_eq!(parameters(source), [parameter("raw", "bool"), parameter("p", "")]);
    }

    #[test]
    fn sizes_have_bounds() {
        assert!(said(memory(100 << 20)).contains("448M or more"));
        assert!(said(memory(1 << 50)).contains("this machine itself has"));
        memory(LEAST_MEMORY_BYTES).unwrap();
    }

    #[test]
    fn a_script_needs_its_interpreter() {
        let dir = std::env::temp_dir().join(format!("verdigris-script-{}", std::process::id()));
        let overlay = dir.join("overlay");
        std::fs::create_dir_all(overlay.join("usr/bin")).unwrap();
        let (file, busybox) = (dir.join("script"), dir.join("busybox"));
        std::fs::write(&busybox, b"x\0ash\0awk\0sh\0").unwrap();
        let judge = |text: &str| {
            std::fs::write(&file, text).unwrap();
            script(&file)
                .and_then(|()| interpreter(&file, std::slice::from_ref(&overlay), &busybox))
        };
        for good in ["echo x", "#!/bin/sh\n", "#! /bin/awk -f\n", "#!/bin/busybox sh\n"] {
            judge(good).unwrap();
        }
        assert!(said(judge("#!/usr/bin/python3\n")).contains("/usr/bin/python3"));
        assert!(said(judge("#!/bin/bash\n")).contains("/bin/bash"));
        // The kernel takes the carriage return for a part of the name.
        assert!(said(judge("#!/bin/sh\r\n")).contains(r"/bin/sh\r"));
        symlink("python3.11", overlay.join("usr/bin/python3")).unwrap();
        judge("#!/usr/bin/python3\n").unwrap();
        assert!(said(judge("\x7fELF\x02\x01\x01")).contains("another architecture"));
        assert!(said(script(&dir.join("absent"))).contains("there is no file"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_log_goes_into_a_folder_that_is_there() {
        let dir = std::env::temp_dir().join(format!("verdigris-log-{}", std::process::id()));
        assert!(said(log(&dir.join("x.log"))).contains("there is no directory"));
        assert!(!dir.exists());
        std::fs::create_dir_all(&dir).unwrap();
        log(&dir.join("x.log")).unwrap();
        assert!(said(log(&dir)).contains("cannot write"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_models_of_64_bits_are_offered() {
        let help = "Available CPUs:\n  arm1026\n  cortex-a15\n  cortex-a57\n  cortex-a7\n  cortex-a72\n  cortex-m0\n  \
            cortex-r52\n  max\n  neoverse-n1\n  pxa250\n\nmore";
        assert_eq!(models(help), ["cortex-a57", "cortex-a72", "max", "neoverse-n1"]);
    }
}
