//! Tests that run machines in pairs, and compare the two.

use anyhow::{Result, ensure};
use verdigris_qemu::Machine;

use super::{Context, tally::Tally};
use crate::build::Profile;
use crate::check;
use crate::lab::{Transcript, Trial};

/// Compares the host with and without the firmware, on each machine.
pub fn check(context: &Context, tally: &mut Tally) -> Result<()> {
    let lab = context.lab()?;
    lab.prepare(Profile::Release)?;
    for &(cpu, mte) in check::MACHINES {
        let result = check::compare(lab, cpu, mte).and_then(|differences| {
            ensure!(differences.is_empty(), "{}", differences.join("; "));
            Ok(())
        });
        tally.judge(&check::machine_name(cpu, mte), &result);
    }
    Ok(())
}

/// Runs the same machine twice under instruction counting: time itself must be the same.
pub fn repeat(context: &Context, tally: &mut Tally) -> Result<()> {
    // Sleeping is where real time would come in, and interrupts are where it would show.
    const COMMAND: &str = "sleep 5; cat /proc/interrupts /proc/uptime";
    let lab = context.lab()?;
    let machine = Machine { smp: 1, icount: true, ..Machine::default() };
    let run = |name: &str| -> Result<Transcript> {
        let trial = Trial::new(name, machine.clone(), COMMAND);
        let mut transcript = Transcript::default();
        let outcome = lab.run(&trial, &mut transcript)?;
        ensure!(
            outcome.problem().is_none(),
            "{name}: {:?}\n{}",
            outcome.problem(),
            outcome.tail_text()
        );
        Ok(transcript)
    };
    lab.prepare(Profile::Release)?;
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run("icount-2"));
        (run("icount-1"), other.join().expect("no panic in a run"))
    });
    let (first, second) = (first?, second?);
    let lines = |transcript: &Transcript| [&transcript.boot[..], &transcript.job[..]].concat();
    let (first, second) = (lines(&first), lines(&second));
    let other = first.iter().zip(&second).find(|(a, b)| a != b);
    tally.judge(
        "two runs are the same",
        &match other {
            None if first.len() == second.len() => Ok(()),
            other => Err(anyhow::anyhow!("they differ: {other:?}")),
        },
    );
    Ok(())
}
