//! Attaches a debugger to the firmware, as `run --gdb` and `gdb` do, and asks it what users ask.

use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use verdigris_qemu::Machine;

use super::{Context, tally::Tally};
use crate::build::Profile;
use crate::lab::{Lab, Transcript, Trial};
use crate::{command, gdb, setup};

/// Who is in the backtrace of a hypercall, from the inside.
const FRAMES: &[&str] = &["hypercall::answer", "hypercall::decode", "host_vectors"];
/// How long the emulator may take to start, in seconds.
const PATIENCE: u32 = 60;

/// Debugs the machine that `run` starts where it is told nothing.
pub fn test(context: &Context, tally: &mut Tally) -> Result<()> {
    let lab = context.lab()?;
    lab.prepare(Profile::Release)?;
    match setup::debugger() {
        Ok(debugger) => tally.judge("max", &debug(lab, debugger)),
        Err(error) => tally.skip("max", &format!("no debugger: {error:#}")),
    }
    Ok(())
}

fn debug(lab: &Lab, mut debugger: Command) -> Result<()> {
    let port = gdb::choose_port(None)?;
    let machine = Machine { cpu: gdb::unsigned("max"), smp: 2, ..Machine::default() };
    let trial = Trial { gdb_port: Some(port), ..Trial::new("gdb-max", machine, "true") };
    debugger.args(["-nx", "-batch", "-ex", &format!("set tcp connect-timeout {PATIENCE}")]);
    debugger.args(gdb::arguments(&lab.firmware(Profile::Release)?, port));
    for command in [
        "break test_and_clear_young",
        "break verdigris_firmware::image::hypercall::answer",
        "continue",
        "backtrace",
        // Another CPU may be on its way to the same place.
        "delete",
        "echo finishing\\n",
        "finish",
        "frame",
        "detach",
    ] {
        debugger.args(["-ex", command]);
    }
    let (told, outcome) = thread::scope(|scope| {
        let mut transcript = Transcript::default();
        let run = scope.spawn(move || lab.run(&trial, &mut transcript));
        let told = command::output(&mut debugger);
        let outcome = run.join().map_err(|_| anyhow!("the machine's thread panicked"));
        (told, outcome)
    });
    let outcome = outcome?.context("the machine")?;
    judge(&told?)?;
    outcome.problem().map_or(Ok(()), |problem| Err(anyhow!("{problem}:\n{}", outcome.tail_text())))
}

/// Looks for what each command has to tell.
fn judge(told: &str) -> Result<()> {
    ensure!(!told.contains("(y or n)"), "gdb asked a question:\n{told}");
    ensure!(!told.contains("not defined"), "gdb doesn't know a function:\n{told}");
    let frames: Vec<_> = told.lines().filter(|line| line.starts_with('#')).collect();
    for (at, name) in FRAMES.iter().enumerate() {
        let found = frames.iter().position(|frame| frame.contains(name));
        ensure!(found.is_some_and(|found| found >= at), "the backtrace has no {name}:\n{told}");
    }
    let unknown = frames.iter().find(|frame| frame.contains("?? ()"));
    ensure!(unknown.is_none(), "the backtrace has a frame of nothing: {unknown:?}");
    let finished = told.split("finishing\n").nth(1).context("gdb didn't `finish`")?;
    ensure!(
        finished.contains("#0") && finished.contains("hypercall::decode"),
        "`finish` came elsewhere:\n{told}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Breakpoint 1 at 0x1\n#0  verdigris_firmware::image::hypercall::answer () at a.rs:1\n\
        #1  0x1 in verdigris_firmware::image::hypercall::decode () at a.rs:2\n#2  0x2 in host_vectors ()\n\
        finishing\n#0  verdigris_firmware::image::hypercall::decode () at a.rs:3\n";

    #[test]
    fn a_backtrace_that_ends_at_a_signed_address_is_none() {
        judge(GOOD).unwrap();
        let signed =
            "#0  hypercall::answer () at a.rs:1\n#1  0x8e0400004022f490 in ?? ()\nfinishing\n";
        assert!(judge(signed).is_err());
        assert!(judge(&GOOD.replace("finishing", "")).is_err());
        assert!(judge(&format!("Function \"x\" not defined.\n{GOOD}")).is_err());
        assert!(judge(&format!("add symbol table? (y or n)\n{GOOD}")).is_err());
    }
}
