//! Builds the driver as strictly as the kernel's own tools can.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Context, tally::Tally};
use crate::{build, paths, setup};

/// Builds with extra warnings, and checks the style.
pub fn test(context: &Context, tally: &mut Tally) -> Result<()> {
    let setup = context.lab()?.setup();
    let headers = setup.kernel.headers.as_ref().context("no kernel headers")?;
    let warnings = build::driver(&setup.tools, headers, &["W=1", "KCFLAGS=-Werror"]);
    tally.judge("no warning with W=1", &warnings.map(drop));
    match newest_headers() {
        Ok(headers) => {
            // The headers use attributes that only a newer compiler knows.
            let flags = ["W=1", "KCFLAGS=-Werror -Wno-attributes"];
            let built = build::driver(&setup.tools, &headers, &flags);
            tally.judge("builds for the newest kernel", &built.map(drop));
        }
        Err(error) => tally.skip("builds for the newest kernel", &format!("{error:#}")),
    }
    match setup::KernelSource::ensure() {
        Ok(source) => tally.judge("checkpatch", &style(&source.checkpatch())),
        Err(error) => tally.skip("checkpatch", &format!("{error:#}")),
    }
    Ok(())
}

fn newest_headers() -> Result<PathBuf> {
    let setup = setup::ensure_package(&setup::KernelPackage::parse(setup::NEWEST)?)?;
    setup.kernel.headers.context("it has no headers")
}

fn style(script: &Path) -> Result<()> {
    let mut checked = 0;
    for entry in std::fs::read_dir(paths::root().join("linux/driver"))? {
        let file = entry?.path();
        if file.extension().is_none_or(|extension| extension != "c" && extension != "h") {
            continue;
        }
        let mut perl = Command::new("perl");
        perl.arg(script).args(["--no-tree", "--terse", "--no-summary", "--quiet", "--strict"]);
        // ENOSYS is what user space of KVM expects for an access that can't be decoded; kvm.h is a
        // header of the kernel's too.
        perl.args(["--ignore", "FILE_PATH_CHANGES,LINUX_VERSION_CODE,ENOSYS,EMBEDDED_FILENAME"]);
        perl.arg("--file").arg(&file);
        let output = perl.output().context("cannot run perl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("ERROR:") || text.contains("WARNING:") {
            bail!("{}", text.trim());
        }
        // A script that could not run has found nothing.
        ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        checked += 1;
    }
    ensure!(checked > 0, "there was no file to check");
    Ok(())
}
