//! Builds the kernel's selftests of KVM, from sources that nobody touched.
//!
//! All that this build needs goes in through variables of make: where to put what is built, where
//! the kernel's headers are, which C library to link statically (the host's root has none). The
//! order of include directories matters: the headers of the kernel itself come first, and the
//! library's last, since it was built against an older kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::setup::{KernelSource, Tools, static_libc};
use crate::{command, paths, progress};

const FOLDER: &str = "tools/testing/selftests/kvm";
/// What `emit_tests` is told to put before each name.
const COLLECTION: &str = "kvm";
const FOR_ARM64: [&str; 2] = ["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"];

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, without a folder.
    pub name: String,
    /// The static program.
    pub file: PathBuf,
}

/// What became of the selftests.
#[derive(Debug)]
pub struct Selftests {
    /// The version of their source.
    pub version: String,
    /// Those that were built, by their names.
    pub programs: Vec<Program>,
    /// Names of those that could not be built.
    pub broken: Vec<String>,
}

/// Builds all selftests that there are for arm64; nothing, if nothing changed.
pub fn selftests(tools: &Tools) -> Result<Selftests> {
    let source = KernelSource::ensure()?;
    let libc = static_libc()?;
    // Make takes some of a version's characters for its own.
    let name = source.version.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let products = paths::make_target().join("selftests").join(name);
    progress::step("building the kernel's selftests of KVM", || {
        headers(tools, &source, &products)?;
        programs(tools, &source, &libc, &products)
    })
}

/// Makes the kernel's headers for programs, as `make headers` does.
fn headers(tools: &Tools, source: &KernelSource, products: &Path) -> Result<()> {
    let out = products.join("headers");
    std::fs::create_dir_all(&out)?;
    let mut make = tools.make()?;
    make.arg("-C").arg(&source.path).args(FOR_ARM64).args(["-s", "HOSTCC=cc"]);
    command::run(make.arg(format!("O={}", out.display())).arg("headers"))
}

fn programs(
    tools: &Tools,
    source: &KernelSource,
    libc: &Path,
    products: &Path,
) -> Result<Selftests> {
    let (headers, out) = (products.join("headers/usr"), products.join("programs"));
    // The Makefile takes this folder as given.
    std::fs::create_dir_all(out.join("tools"))?;
    let make = |targets: &[&str]| -> Result<std::process::Output> {
        let mut make = tools.make()?;
        make.arg("-C").arg(source.path.join(FOLDER)).args(FOR_ARM64).args(targets);
        make.arg(format!("OUTPUT={}", out.display())).arg(format!("abs_objdir={}", out.display()));
        make.arg(format!("INSTALL_HDR_PATH={}", headers.display()));
        make.arg(format!("KHDR_INCLUDES=-isystem {}/include", headers.display()));
        make.arg(format!("USERCFLAGS=-idirafter {}/include", libc.display()));
        let lib = libc.join("lib");
        make.arg(format!("USERLDFLAGS=-static -B{0} -L{0}", lib.display()));
        make.stdin(std::process::Stdio::null()).output().context("cannot run make")
    };
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let built = make(&["-k", &format!("-j{jobs}")])?;
    let log = paths::log("selftests-build");
    std::fs::create_dir_all(log.parent().context("the log has no folder")?)?;
    std::fs::write(&log, [built.stdout, built.stderr].concat())?;
    let listed = make(&["-s", "emit_tests", &format!("COLLECTION={COLLECTION}")])?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let (programs, broken) = find(names(&listed), &out);
    ensure!(!programs.is_empty(), "no selftest could be built; see {}", log.display());
    Ok(Selftests { version: source.version.clone(), programs, broken })
}

/// Reads lines `COLLECTION:NAME`.
fn names(listed: &str) -> Vec<String> {
    let start = format!("{COLLECTION}:");
    let mut names: Vec<_> =
        listed.lines().filter_map(|line| Some(line.strip_prefix(&start)?.into())).collect();
    names.sort();
    names
}

/// Parts tests into those that were built, and those that were not.
fn find(names: Vec<String>, out: &Path) -> (Vec<Program>, Vec<String>) {
    let (mut programs, mut broken) = (Vec::new(), Vec::new());
    for name in names {
        let places = [out.join(&name), out.join("aarch64").join(&name)];
        match places.into_iter().find(|file| file.is_file()) {
            Some(file) => programs.push(Program { name, file }),
            None => broken.push(name),
        }
    }
    (programs, broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_built_is_told() {
        let out = std::env::temp_dir().join(format!("verdigris-selftests-{}", std::process::id()));
        std::fs::create_dir_all(out.join("aarch64")).unwrap();
        std::fs::write(out.join("dirty_log_test"), "").unwrap();
        std::fs::write(out.join("aarch64/psci_test"), "").unwrap();
        let names = names("kvm:psci_test\nmake: remark\nkvm:dirty_log_test\nkvm:steal_time\n");
        assert_eq!(names, ["dirty_log_test", "psci_test", "steal_time"]);
        let (programs, broken) = find(names, &out);
        let found: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(found, ["dirty_log_test", "psci_test"]);
        assert_eq!(programs[1].file, out.join("aarch64/psci_test"));
        assert_eq!(broken, ["steal_time"]);
    }
}
