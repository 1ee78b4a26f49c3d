//! `cargo xtask check host`: does the host have every CPU feature that it would have without us?
//!
//! The same kernel is booted at EL1 with no firmware, and under the firmware, and asked the same
//! questions. A difference fails, unless it is in [`ALLOWED`] with its reason.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use verdigris_qemu::Machine;

use crate::lab::{Below, Lab, Transcript, Trial};

/// What to check.
#[derive(Subcommand, Debug)]
pub enum Check {
    /// Compare the host's CPU features with those of the same kernel without the firmware
    Host(HostArgs),
}

/// Options of the comparison.
#[derive(Args, Debug)]
pub struct HostArgs {
    /// Use this emulator
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

/// The machines on which the host is compared: CPU model, and whether memory has tags.
pub const MACHINES: &[(&str, bool)] =
    &[("max", false), ("max", true), ("neoverse-n1", false), ("cortex-a57", false)];

/// Differences that are meant: the question's name, and why its answer may differ.
const ALLOWED: &[(&str, &str)] = &[];

/// What the host is asked: each answer is a line `name : value`.
const QUESTIONS: &str = "\
cat /proc/cpuinfo; verdigris-suite hwcaps; \
cd /sys/devices/system/cpu; for f in cpu*/regs/identification/*; do echo \"$f : $(cat $f)\"; done";

/// An answer that must be there, so that a comparison of nothing with nothing cannot pass.
const REQUIRED: &[&str] = &["Features", "hwcap", "hwcap2", "sve-vector-bytes", "CPU part"];

/// Runs a check.
pub fn check(what: &Check) -> Result<ExitCode> {
    let Check::Host(args) = what;
    let lab = Lab::new(args.qemu.as_deref())?;
    let mut failed = false;
    for &(cpu, mte) in MACHINES {
        let name = machine_name(cpu, mte);
        let differences = compare(&lab, cpu, mte)?;
        println!("{name}: {}", if differences.is_empty() { "the same" } else { "DIFFERENT" });
        differences.iter().for_each(|difference| println!("  {difference}"));
        failed |= !differences.is_empty();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Names a machine for reports and logs.
pub fn machine_name(cpu: &str, mte: bool) -> String {
    format!("{cpu}{}", if mte { "-mte" } else { "" })
}

/// Compares the answers on one machine; returns the differences that are not meant.
pub fn compare(lab: &Lab, cpu: &str, mte: bool) -> Result<Vec<String>> {
    let machine = Machine { cpu: cpu.into(), smp: 2, mte, ..Machine::default() };
    let name = machine_name(cpu, mte);
    let trial = Trial { driver: None, ..Trial::new("", machine, QUESTIONS) };
    let with = Trial { name: format!("check-{name}-firmware"), ..trial.clone() };
    let without = Trial { name: format!("check-{name}-bare"), below: Below::Nothing, ..trial };
    let (with, without) = std::thread::scope(|scope| {
        let other = scope.spawn(|| answers(lab, &without));
        (answers(lab, &with), other.join().expect("no panic in a run"))
    });
    Ok(differences(&without?, &with?))
}

type Answers = BTreeMap<String, Vec<String>>;

fn answers(lab: &Lab, trial: &Trial) -> Result<Answers> {
    let mut transcript = Transcript::default();
    let outcome = lab.run(trial, &mut transcript)?;
    if let Some(failure) = outcome.problem() {
        bail!("{}: {failure}\n{}", trial.name, outcome.tail_text());
    }
    let answers = parse(&transcript.job);
    for name in REQUIRED {
        ensure!(answers.contains_key(*name), "{}: the host did not tell its {name}", trial.name);
    }
    Ok(answers)
}

/// Reads `name : value` and `name value` lines; a name may come once for each CPU.
fn parse(lines: &[String]) -> Answers {
    let mut answers = Answers::new();
    for line in lines.iter().filter(|line| !line.starts_with('[')) {
        let pair = line.split_once(':').or_else(|| line.split_once(' '));
        if let Some((name, value)) = pair {
            let values = answers.entry(name.trim().to_owned()).or_default();
            values.push(value.trim().to_owned());
        }
    }
    answers
}

fn differences(without: &Answers, with: &Answers) -> Vec<String> {
    let names = without.keys().chain(with.keys().filter(|name| !without.contains_key(*name)));
    let meant = |name: &&String| ALLOWED.iter().any(|(allowed, _)| name == allowed);
    let mut found = Vec::new();
    for name in names.filter(|name| !meant(name)) {
        let (before, after) = (without.get(name), with.get(name));
        if before != after {
            found.push(format!("{name}: without {before:?}, with {after:?}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Answers {
        parse(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_difference_is_found() {
        let bare = lines("Features\t: fp asimd\nFeatures\t: fp asimd\nhwcap 0x3\nsve 256");
        assert!(differences(&bare, &bare).is_empty());
        let other = lines("Features\t: fp asimd\nFeatures\t: fp\nhwcap 0x3\nsme 16");
        let found = differences(&bare, &other).join("\n");
        for name in ["Features", "sve", "sme"] {
            assert!(found.contains(name), "{found}");
        }
        assert!(!found.contains("hwcap"), "{found}");
    }

    #[test]
    fn kernel_messages_are_no_answers() {
        assert!(lines("[    4.1] Features: none").is_empty());
    }
}
