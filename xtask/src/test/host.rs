//! Runs `cargo test` and counts what it reports, test by test.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::Context;
use super::tally::{Tally, Test, Verdict};
use crate::{command, paths, progress};

/// Tests for loom: the crate, which of its targets, and words of which a test's name has one.
const LOOM: &[(&str, &[&str], &[&str])] = &[
    ("verdigris-stage2", &["--test", "loom_*"], &[]),
    ("verdigris-core", &["--lib"], &["concurrency", "interleavings"]),
];
/// Random operations in each configuration, and the time that each may take: what hasn't done all of its
/// operations by then has failed. A variable in the environment asks for something else.
const PROPERTY: &[(&str, &str)] = &[("VERDIGRIS_STEPS", "1000000"), ("VERDIGRIS_SECONDS", "300")];
/// The crate whose unsafe code is tested under Miri; the others that run on this machine have none.
const MIRI_CRATE: &str = "verdigris-stage2";
/// Its tests, in two groups of like length that run side by side. Those that fill the tables of a
/// whole machine are left out: they take minutes, and reach no other code.
const MIRI: &[&[&str]] = &[
    &["--test", "unmap", "--test", "geometry", "--", "--skip", "begin_and_end_resume"],
    &[
        "--lib",
        "--test",
        "age",
        "--test",
        "change",
        "--test",
        "descriptor",
        "--test",
        "map",
        "--test",
        "operand",
        "--test",
        "random",
        "--test",
        "marks",
        "--test",
        "caches",
        "--test",
        "progress",
    ],
];

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
        cargo.args(["--", "--show-output"]).args(*words);
        let message = format!("running the loom tests of {name}");
        let (tests, text) = progress::step(&message, || collect_text(&mut cargo))?;
        tests.iter().for_each(|test| tally.add(test));
        executions(&text).iter().for_each(|(test, line)| println!("{test}: {line}"));
    }
    Ok(())
}

/// Reads how many executions each scenario had, and each that is run with a mistake to fail.
fn executions(text: &str) -> Vec<(&str, &str)> {
    let mut name = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("---- ") {
            name = heading.trim_end_matches(" stdout ----");
        } else if let Some(line) = line.strip_prefix("loom: ") {
            found.push((name, line));
        }
    }
    found
}

/// Runs the stage-2 engine against its model, for long; each configuration tells its seed and its operations.
pub fn property(_: &Context, tally: &mut Tally) -> Result<()> {
    let mut cargo = cargo();
    for (name, value) in PROPERTY {
        cargo.env(name, std::env::var(name).unwrap_or_else(|_| (*value).to_owned()));
    }
    cargo.args(["test", "--release", "--no-fail-fast", "--package", "verdigris-stage2-model"]);
    cargo.args(["--test", "property", "--", "--show-output"]);
    let message = "running random operations against the model";
    let (tests, text) = progress::step(message, || collect_text(&mut cargo))?;
    tally.note(&operations(&text));
    tests.iter().for_each(|test| tally.add(test));
    Ok(())
}

/// Adds up what the configurations did: `configuration 0, seed 0x1: 20 operations in 3 s`.
fn operations(text: &str) -> String {
    let runs = text.lines().filter_map(|line| line.strip_prefix("configuration "));
    let runs: Vec<_> = runs.filter_map(|run| run.split_once(": ")).collect();
    let count = |run: &(&str, &str)| run.1.split(' ').next()?.parse::<u64>().ok();
    let total: u64 = runs.iter().filter_map(count).sum();
    let seed = runs.iter().find_map(|run| run.0.strip_prefix("0, seed ")).unwrap_or("unknown");
    format!("{total} operations in {} configurations, seeds from {seed} on", runs.len())
}

/// Runs tests under Miri, with strict provenance.
pub fn miri(_: &Context, tally: &mut Tally) -> Result<()> {
    ensure_miri()?;
    let results = progress::step("running tests under Miri", || {
        Ok(std::thread::scope(|scope| {
            let groups = MIRI.iter().map(|group| scope.spawn(|| collect(&mut miri_command(group))));
            let groups: Vec<_> = groups.collect();
            let join = |group: std::thread::ScopedJoinHandle<'_, _>| group.join();
            groups.into_iter().map(join).collect::<Vec<_>>()
        }))
    })?;
    for tests in results {
        tests.expect("collecting does not panic")?.iter().for_each(|test| tally.add(test));
    }
    Ok(())
}

fn miri_command(group: &[&str]) -> Command {
    let mut cargo = Command::new("rustup");
    cargo.current_dir(paths::root()).env("MIRIFLAGS", "-Zmiri-strict-provenance");
    cargo.env("CARGO_TARGET_DIR", paths::target().join("miri")).env_remove("RUSTFLAGS");
    cargo.args(["run", "nightly", "cargo", "miri", "test", "--no-fail-fast"]);
    cargo.args(["--package", MIRI_CRATE]).args(group);
    cargo
}

/// Returns cargo, in the root of the repository.
pub fn cargo() -> Command {
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
    let tests = progress::step(message, || collect(cargo))?;
    tests.iter().for_each(|test| tally.add(test));
    Ok(())
}

/// Runs a cargo command and reads the tests in its output.
fn collect(cargo: &mut Command) -> Result<Vec<Test>> {
    collect_text(cargo).map(|(tests, _)| tests)
}

/// Does the same, and returns the output too.
fn collect_text(cargo: &mut Command) -> Result<(Vec<Test>, String)> {
    let output = cargo.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {cargo:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tests = read(&text);
    let failed = tests.iter().any(|test| matches!(test.verdict, Verdict::Failed(_)));
    if !output.status.success() && !failed {
        bail!("cargo failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    ensure!(!tests.is_empty(), "there was no test");
    Ok((tests, text))
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
    fn operations_of_all_configurations_add_up() {
        let text = "---- c00 stdout ----\nconfiguration 0, seed 0x5eed: 20 operations in 1.0 s, {}\n\
            ---- c01 stdout ----\nconfiguration 1, seed 0x5eee: 22 operations in 1.5 s, {}\n";
        let told = operations(text);
        assert_eq!(told, "42 operations in 2 configurations, seeds from 0x5eed on");
    }

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

    #[test]
    fn each_scenario_says_how_many_executions_it_had() {
        let text = "test a::one ... ok\n\nsuccesses:\n\n---- a::one stdout ----\n\
            loom: passed 12 executions, up to 4 preemptions\n\n---- b stdout ----\n\
            thread 'b' panicked\nloom: failed in the last of 3 executions, up to 2 preemptions\n";
        let expected = [
            ("a::one", "passed 12 executions, up to 4 preemptions"),
            ("b", "failed in the last of 3 executions, up to 2 preemptions"),
        ];
        assert_eq!(executions(text), expected);
    }
}
