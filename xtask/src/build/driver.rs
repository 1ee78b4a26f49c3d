//! Builds the kernel module against the host's headers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::setup::Tools;
use crate::{command, paths, progress};

/// Refuses a directory that modules can't be built from.
pub fn check_headers(headers: &Path) -> Result<()> {
    ensure!(headers.join("Makefile").is_file(), "{} has no Makefile", headers.display());
    Ok(())
}

/// Builds the module; kbuild writes beside the sources, so they are copied first.
pub fn driver(tools: &Tools, headers: &Path, extra: &[&str]) -> Result<PathBuf> {
    check_headers(headers)?;
    let headers = headers.canonicalize()?;
    let name = headers.file_name().context("the headers directory has no name")?;
    let dir = paths::make_target().join("driver").join(name);
    for path in [&headers, &dir] {
        ensure!(
            !paths::has_space(path),
            "the kernel's build system can't work in {}, for the space in it: set VERDIGRIS_CACHE and \
             CARGO_TARGET_DIR to directories without one",
            path.display()
        );
    }
    copy_sources(&dir)?;
    let mut make = tools.make()?;
    make.arg("-C").arg(&headers).arg(format!("M={}", dir.display()));
    make.args(["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "modules"]);
    // Type information for the module would need a tool (pahole), and nobody reads it.
    make.arg("CONFIG_DEBUG_INFO_BTF_MODULES=").args(fit(tools)?).args(extra);
    progress::step("building the driver", || command::run(&mut make))?;
    Ok(dir.join("verdigris.ko"))
}

/// Returns what make is told where the kernel was built by another compiler, which its headers ask for by name, and for
/// what only a newer one can do.
fn fit(tools: &Tools) -> Result<Vec<&'static str>> {
    const COMPILER: &str = "aarch64-linux-gnu-gcc";
    let mut words = vec!["CC=aarch64-linux-gnu-gcc"];
    let mut compiler = tools.command(COMPILER)?;
    // GCC has it since 14. What kernels ask for besides they try first.
    compiler.args(["-fmin-function-alignment=4", "-E", "-x", "c", "/dev/null"]);
    if command::run(&mut compiler).is_err() {
        words.push("CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=");
        // Where functions must be aligned to be traced (DYNAMIC_FTRACE_WITH_CALL_OPS), such a compiler leaves out those
        // that it takes for cold, and the kernel warns of them: so none of the module's can be traced.
        words.push("CC_FLAGS_FTRACE=");
        // Nor does it know all attributes of the headers, and would tell of each.
        words.push("KCFLAGS=-Wno-attributes");
    }
    Ok(words)
}

/// Copies what changed, so that make builds no more than it must.
fn copy_sources(to: &Path) -> Result<()> {
    let from = paths::root().join("linux/driver");
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(&from)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let (source, copy) = (std::fs::read(entry.path())?, to.join(entry.file_name()));
        if std::fs::read(&copy).ok().as_ref() != Some(&source) {
            std::fs::write(copy, source)?;
        }
    }
    Ok(())
}
