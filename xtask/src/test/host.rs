//! Runs `cargo test` and counts what it reports, test by test.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Context;
use super::tally::{Tally, Test, Verdict};
use crate::{command, paths, progress};

/// Tests for loom: the crate, which of its targets, and words of which a test's name has one.
const LOOM: &[(&str, &[&str], &[&str])] = &[
    ("verdigris-stage2", &["--test", "loom_*"], &[]),
    ("verdigris-core", &["--lib"], &["concurrency", "interleavings"]),
];
/// Crates whose tests run under Miri.
const MIRI_CRATES: &[&str] = &["verdigris-stage2", "verdigris-core", "verdigris-platform"];

/// Runs the tests of every crate on this machine.
pub fn crates(_: &Context, tally: &mut Tally) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    count("running the host tests", &mut cargo, tally)
}

/// Runs the loom tests: in their own target directory, since the flag rebuilds everything.
pub fn loom(_: &Context, tally: &mut Tally) -> Result<()> {
    for (name, targets, words) in LOOM {
        let mut cargo = cargo();
        cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", paths::target().join("loom"));
        cargo.args(["test", "--release", "--no-fail-fast", "--package", name]).args(*targets);
        count(&format!("running the loom tests of {name}"), cargo.arg("--").args(*words), tally)?;
    }
    Ok(())
}

/// Runs tests under Miri, with strict provenance.
pub fn miri(_: &Context, tally: &mut Tally) -> Result<()> {
    ensure_miri()?;
    let mut cargo = Command::new("rustup");
    cargo.current_dir(paths::root()).env("MIRIFLAGS", "-Zmiri-strict-provenance");
    cargo.env("CARGO_TARGET_DIR", paths::target().join("miri")).env_remove("RUSTFLAGS");
    cargo.args(["run", "nightly", "cargo", "miri", "test", "--lib", "--no-fail-fast"]);
    for name in MIRI_CRATES {
        cargo.args(["--package", name]);
    }
    count("running tests under Miri", &mut cargo, tally)
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::root());
    cargo
}

fn ensure_miri() -> Result<()> {
    let has_miri = || {
        let mut rustup = Command::new("rustup");
        command::run(rustup.args(["run", "nightly", "cargo", "miri", "--version"])).is_ok()
    };
    if has_miri() {
        return Ok(());
    }
    progress::step("adding Miri", || {
        let mut rustup = Command::new("rustup");
        rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        command::run(rustup.args(["--component", "miri,rust-src"]))
            .context("type: rustup toolchain install nightly --component miri,rust-src")
    })
}

/// Runs a cargo command and counts the tests in its output.
fn count(message: &str, cargo: &mut Command, tally: &mut Tally) -> Result<()> {
    let output = progress::step(message, || {
        let output = cargo.stdin(Stdio::null()).output();
        output.with_context(|| format!("cannot run {cargo:?}"))
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tests = read(&text);
    let failed = tests.iter().any(|test| matches!(test.verdict, Verdict::Failed(_)));
    tests.iter().for_each(|test| tally.add(test));
    if !output.status.success() && !failed {
        bail!("cargo failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    if tests.is_empty() {
        bail!("there was no test");
    }
    Ok(())
}

/// Reads `test NAME ... ok`, and the reasons that follow under `---- NAME stdout ----`.
fn read(text: &str) -> Vec<Test> {
    let mut tests = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("test ") else { continue };
        let Some((name, verdict)) = rest.rsplit_once(" ... ") else { continue };
        let name = name.trim_end_matches(" - should panic").to_owned();
        let verdict = match verdict.split_once(", ").unwrap_or((verdict, "")) {
            ("ok", _) => Verdict::Passed,
            ("ignored", why) => Verdict::Skipped(why.to_owned()),
            _ => Verdict::Failed(reason(text, &name)),
        };
        tests.push(Test { name, verdict });
    }
    tests
}

fn reason(text: &str, name: &str) -> String {
    let heading = format!("---- {name} stdout ----");
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("---- ") && *line != "failures:");
    lines.take(20).collect::<Vec<_>>().join("\n      ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let text = "\nrunning 4 tests\ntest a::one ... ok\ntest a::two ... FAILED\n\
            test b ... ignored, takes an hour\ntest c - should panic ... ok\ntest d ... ignored\n\
            \nfailures:\n\n---- a::two stdout ----\nleft: 1\nright: 2\n\nfailures:\n    a::two\n";
        let found: Vec<_> = read(text).into_iter().map(|test| (test.name, test.verdict)).collect();
        let expected = [
            ("a::one".into(), Verdict::Passed),
            ("a::two".into(), Verdict::Failed("left: 1\n      right: 2".into())),
            ("b".into(), Verdict::Skipped("takes an hour".into())),
            ("c".into(), Verdict::Passed),
            ("d".into(), Verdict::Skipped(String::new())),
        ];
        assert_eq!(found, expected);
    }
}
