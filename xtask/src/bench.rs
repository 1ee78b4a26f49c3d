//! `cargo xtask bench`: what calls cost, in instructions of EL2.
//!
//! Under instruction counting a figure is the same in every run, and it is of EL2 alone: the
//! firmware keeps an event counter from the host for it. It says nothing about time, caches, or
//! what a two-stage walk costs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use verdigris_qemu::Machine;

use crate::build::Profile;
use crate::lab::{Lab, Transcript, Trial};

/// What is measured on, unless the user says otherwise.
const CPUS: &[&str] = &["max", "cortex-a57"];

/// Options of the measurement.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Measure on this CPU model [default: max, then cortex-a57]
    #[arg(long, value_name = "NAME")]
    cpu: Option<String>,
    /// Use this emulator
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

/// Measures, and prints what the suite tells.
pub fn bench(args: &BenchArgs) -> Result<ExitCode> {
    let lab = Lab::new(args.qemu.as_deref())?;
    lab.prepare(Profile::Release)?;
    let cpus = match &args.cpu {
        Some(cpu) => vec![cpu.as_str()],
        None => CPUS.to_vec(),
    };
    println!("Counts of instructions, by emulation: they tell nothing about time.");
    for cpu in cpus {
        println!("\non {cpu}:");
        measure(&lab, cpu)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(lab: &Lab, cpu: &str) -> Result<()> {
    let machine = Machine { cpu: cpu.into(), smp: 1, icount: true, ..Machine::default() };
    let trial = Trial {
        firmware: Some((Profile::Release, "counter=on".into())),
        ..Trial::new(&format!("bench-{cpu}"), machine, "verdigris-suite bench")
    };
    let mut transcript = Transcript::default();
    let outcome = lab.run(&trial, &mut transcript)?;
    transcript.job.iter().for_each(|line| println!("{line}"));
    match outcome.problem() {
        Some(problem) => bail!("on {cpu}: {problem}\n{}", outcome.tail_text()),
        None => Ok(()),
    }
}
