//! Makes EL2 fail on purpose, and reads the report.
//!
//! The calls for it exist only in the checked build. Each failure ends its machine, so each has
//! one of its own. A report names what happened and where; the names of functions come from the
//! linked file, so the test also shows that addresses in reports are those of the image.

use anyhow::{Result, ensure};
use verdigris_abi::flags;
use verdigris_qemu::Machine;

use super::{Context, tally::Tally};
use crate::build::Profile;
use crate::console::CRASH_STATUS;
use crate::lab::{Lab, Transcript, Trial};
use crate::symbols::Symbols;

/// A way to fail: its name, its number, and a word that its report must have.
const KINDS: &[(&str, u64, &str)] = &[
    ("fault", flags::CRASH_FAULT, "abort"),
    ("stack", flags::CRASH_STACK, "stack"),
    ("text", flags::CRASH_TEXT, "abort"),
    ("panic", flags::CRASH_PANIC, "panic"),
    ("exec", flags::CRASH_EXEC, "abort"),
];
/// How each line of a report begins.
const REPORT: &str = "verdigris: crash:";

/// Fails in every way.
pub fn test(context: &Context, tally: &mut Tally) -> Result<()> {
    let lab = context.lab()?;
    lab.prepare(Profile::Checked)?;
    let symbols = Symbols::open(&lab.firmware(Profile::Checked)?.elf);
    for (name, number, word) in KINDS {
        tally.judge(name, &fail(lab, &symbols, name, *number, word));
    }
    Ok(())
}

fn fail(lab: &Lab, symbols: &Symbols, name: &str, number: u64, word: &str) -> Result<()> {
    let machine = Machine { smp: 2, ..Machine::default() };
    let command = format!("verdigris-suite crash {number}");
    let trial = Trial {
        firmware: Some((Profile::Checked, String::new())),
        ..Trial::new(&format!("crash-{name}"), machine, &command)
    };
    let mut transcript = Transcript::default();
    let outcome = lab.run(&trial, &mut transcript)?;
    let tail = outcome.tail_text();
    ensure!(outcome.qemu == Some(CRASH_STATUS), "QEMU ended with {:?}:\n{tail}", outcome.qemu);
    let report: Vec<_> = transcript.job.iter().filter(|line| line.contains(REPORT)).collect();
    let says = |word: &str| report.iter().any(|line| line.to_lowercase().contains(word));
    ensure!(says(word), "the report does not say {word}:\n{tail}");
    for register in ["pc", "esr", "x0", "cpu"] {
        ensure!(says(register), "the report does not tell {register}:\n{tail}");
    }
    let frames: Vec<_> = report.iter().filter_map(|line| symbols.explain(line)).collect();
    ensure!(frames.len() > 1, "the report has no backtrace:\n{tail}");
    let known = frames.iter().any(|frame| frame.contains("crash"));
    ensure!(known, "no frame is in the function that fails: {frames:?}\n{tail}");
    Ok(())
}
