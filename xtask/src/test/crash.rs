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
use crate::lab::{Below, Lab, Transcript, Trial};
use crate::symbols::Symbols;

/// What the report of an exception tells; that of a panic has a message in its place.
const EXCEPTION: &[&str] = &["pc", "esr", "far", "x0", "cpu"];

/// A way to fail: its name, its number, and words that its report must have.
type Kind = (&'static str, u64, &'static [&'static [&'static str]]);
const KINDS: &[Kind] = &[
    ("fault", flags::CRASH_FAULT, &[EXCEPTION, &["data abort"]]),
    ("stack", flags::CRASH_STACK, &[EXCEPTION, &["data abort", "guard page", "overflowed"]]),
    // EC 0x25 or 0x21, IL, WnR for the write, fault status 0x0f: permission, level 3
    // (Arm ARM, D24.2 ESR_EL2).
    ("text", flags::CRASH_TEXT, &[EXCEPTION, &["data abort", "0x9600004f", "firmware's text"]]),
    ("panic", flags::CRASH_PANIC, &[&["panicked", "cpu"]]),
    ("exec", flags::CRASH_EXEC, &[EXCEPTION, &["instruction abort", "0x8600000f"]]),
];
/// How each line of a report begins.
const REPORT: &str = "verdigris: crash:";

/// Fails in every way.
pub fn test(context: &Context, tally: &mut Tally) -> Result<()> {
    let lab = context.lab()?;
    lab.prepare(Profile::Checked)?;
    let symbols = Symbols::open(&lab.firmware(Profile::Checked)?.elf);
    for (name, number, words) in KINDS {
        tally.judge(name, &fail(lab, &symbols, name, *number, words));
    }
    Ok(())
}

fn fail(lab: &Lab, symbols: &Symbols, name: &str, number: u64, words: &[&[&str]]) -> Result<()> {
    let machine = Machine { smp: 2, ..Machine::default() };
    let command = format!("verdigris-suite crash {number}");
    let trial = Trial {
        below: Below::Firmware(Profile::Checked, String::new()),
        ..Trial::new(&format!("crash-{name}"), machine, &command)
    };
    let mut transcript = Transcript::default();
    let outcome = lab.run(&trial, &mut transcript)?;
    let tail = outcome.tail_text();
    ensure!(outcome.qemu == Some(CRASH_STATUS), "QEMU ended with {:?}:\n{tail}", outcome.qemu);
    let report: Vec<_> = transcript.job.iter().filter(|line| line.contains(REPORT)).collect();
    let text: String = report.iter().map(|line| line.to_lowercase() + "\n").collect();
    for word in words.iter().copied().flatten() {
        ensure!(text.contains(word), "the report does not tell `{word}`:\n{tail}");
    }
    let frames: Vec<_> = report.iter().filter_map(|line| symbols.explain(line)).collect();
    ensure!(frames.len() > 1, "the report has no backtrace:\n{tail}");
    let known = frames.iter().any(|frame| frame.contains("crash"));
    ensure!(known, "no frame is in the function that fails: {frames:?}\n{tail}");
    Ok(())
}
