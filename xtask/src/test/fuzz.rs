//! Runs the fuzzers of `fuzz/`, each for a while.
//!
//! libFuzzer needs a C++ compiler, which builds it, and code that tells it where it came along: flags of the compiler
//! that need no nightly toolchain. What is found on the way is kept in the target directory; the committed seeds stay
//! as they are. Memory is checked by Miri, so no sanitizer is needed here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Context;
use super::tally::Tally;
use crate::{command, paths, progress};

/// The fuzzers, and folders of seeds that each has beside its own.
const TARGETS: &[(&str, &[&str])] =
    &[("operations", &[]), ("calls", &[]), ("device_tree", &["platform/testdata"])];
/// How long each runs; `VERDIGRIS_FUZZ_SECONDS` asks for another time.
const SECONDS: &str = "30";
/// An input that takes so long has failed.
const INPUT_SECONDS: u32 = 20;
/// Longest input, in bytes: a small device tree and more.
const INPUT_BYTES: u32 = 4096;
/// Coverage: eight-bit counters on the edges, and what is compared with what.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds the fuzzers and runs them side by side.
pub fn test(_: &Context, tally: &mut Tally) -> Result<()> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    if command::find(&compiler).is_none() {
        for (name, _) in TARGETS {
            tally.skip(name, "libFuzzer is built with a C++ compiler; install one, as g++");
        }
        return Ok(());
    }
    let folder = progress::step("building the fuzzers", build)?;
    let seconds = std::env::var("VERDIGRIS_FUZZ_SECONDS").unwrap_or_else(|_| SECONDS.to_owned());
    let results = progress::step(&format!("fuzzing for {seconds} s"), || {
        Ok(std::thread::scope(|scope| {
            let (folder, seconds) = (&folder, &seconds);
            let start = |target| scope.spawn(move || run(folder, target, seconds));
            let runs: Vec<_> = TARGETS.iter().map(start).collect();
            runs.into_iter()
                .map(|run| run.join().expect("a run does not panic"))
                .collect::<Vec<_>>()
        }))
    })?;
    for ((name, _), result) in TARGETS.iter().zip(results) {
        if let Ok(inputs) = &result {
            tally.note(&format!("{name}: {inputs} inputs in {seconds} s"));
        }
        tally.judge(name, &result.map(|_| ()));
    }
    Ok(())
}

/// Builds all of them, in a target directory of their own, since the flags rebuild everything; returns where
/// they are.
fn build() -> Result<PathBuf> {
    let (host, target) = (host()?, paths::target().join("fuzz"));
    let mut cargo = super::host::cargo();
    cargo.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &target);
    cargo.args(["build", "--quiet", "--package", "verdigris-fuzz", "--features", "libfuzzer"]);
    // With a target named, build scripts go without the flags.
    command::run(cargo.args(["--profile", "fuzz", "--bins", "--target", &host]))?;
    Ok(target.join(host).join("fuzz"))
}

fn host() -> Result<String> {
    let text = command::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Runs a fuzzer; returns how many inputs it tried.
fn run(folder: &Path, &(name, more): &(&str, &[&str]), seconds: &str) -> Result<u64> {
    let (found, failed) = (folder.join("corpus").join(name), folder.join("failed"));
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&failed)?;
    let program = folder.join(name);
    let mut fuzzer = Command::new(&program);
    fuzzer.arg(&found).arg(paths::root().join("fuzz/corpus").join(name));
    fuzzer.args(more.iter().map(|more| paths::root().join(more)));
    fuzzer.arg(format!("-artifact_prefix={}/{name}-", failed.display()));
    fuzzer.args([format!("-max_total_time={seconds}"), format!("-timeout={INPUT_SECONDS}")]);
    fuzzer.args([format!("-max_len={INPUT_BYTES}"), "-print_final_stats=1".into()]);
    let output = fuzzer.output().with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{}", failure(&program, &text));
    }
    let inputs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(inputs.context("the fuzzer told no figures")?.trim().parse()?)
}

/// Says what failed, and how to have it again.
fn failure(program: &Path, text: &str) -> String {
    let input = text.lines().find_map(|line| line.split("Test unit written to ").nth(1));
    let why: Vec<_> =
        text.lines().skip_while(|line| !line.contains("panicked at")).take(4).collect();
    let why = if why.is_empty() { text.lines().rev().take(4).collect() } else { why };
    let name = program.file_name().unwrap_or_default().display();
    format!(
        "{}\n      the input again: {} {}\n      as a test from now on: copy it to fuzz/corpus/{name}",
        why.join("\n      "),
        program.display(),
        input.unwrap_or("(it was not written)")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_what_and_how_to_repeat_it() {
        let text = "#1 INITED\n\nthread '<unnamed>' panicked at fuzz/src/calls.rs:1:2:\nx1 of Uid\n\
            note: run with RUST_BACKTRACE=1\n==1== ERROR: libFuzzer: deadly signal\n\
            artifact_prefix='f/'; Test unit written to f/crash-00\nBase64: AA==\n";
        let told = failure(Path::new("target/calls"), text);
        assert!(
            told.starts_with("thread '<unnamed>' panicked at fuzz/src/calls.rs:1:2:\n"),
            "{told}"
        );
        assert!(told.contains("x1 of Uid"), "{told}");
        assert!(told.contains("the input again: target/calls f/crash-00\n"), "{told}");
        assert!(told.ends_with("copy it to fuzz/corpus/calls"), "{told}");
    }
}
