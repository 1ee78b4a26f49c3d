//! `cargo xtask bench`: what the engine's calls cost, in instructions of EL2.
//!
//! Under instruction counting a figure is the same in every run, and it is of EL2 alone: the
//! firmware keeps an event counter from the host for it. It says nothing about time, caches, or
//! what a two-stage walk costs. What was once reached stands in a file of bounds, so that the test
//! part `bench` fails when a change makes a call dearer.

mod bounds;
mod figures;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use verdigris_qemu::Machine;

use crate::build::Profile;
use crate::lab::{Below, Lab, Transcript, Trial};
use crate::progress;
use crate::test::tally::Tally;
use bounds::Bounds;
use figures::Figures;

/// A machine that is measured, as data.
#[derive(Debug)]
struct Subject {
    name: &'static str,
    cpu: &'static str,
    firmware_args: &'static str,
}

const SUBJECTS: &[Subject] = &[
    Subject { name: "max", cpu: "max", firmware_args: "" },
    Subject { name: "max-no-ha", cpu: "max", firmware_args: "ha=off hd=off" },
    Subject { name: "cortex-a57", cpu: "cortex-a57", firmware_args: "" },
];
/// A GiB for the guest, every page another one, and the host beside it.
const MEMORY_BYTES: u64 = 3 << 30;
/// Counting instructions runs all on one thread.
const TIMEOUT: Duration = Duration::from_secs(900);

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The calls of the stage-2 engine.
    Engine,
}

/// Options of the measurement.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value = "engine")]
    what: What,
    /// Measure on this machine only: max, max-no-ha, cortex-a57
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Make what is measured the bounds that the test part `bench` holds calls to
    #[arg(long)]
    write_bounds: bool,
    /// Use this emulator
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

/// Measures, and prints the figures beside their goals. A goal that is missed is no error.
pub fn bench(args: &BenchArgs) -> Result<ExitCode> {
    let What::Engine = args.what;
    let wanted = |subject: &&Subject| args.machine.as_ref().is_none_or(|name| name == subject.name);
    let subjects: Vec<_> = SUBJECTS.iter().filter(wanted).collect();
    if subjects.is_empty() {
        let names: Vec<_> = SUBJECTS.iter().map(|subject| subject.name).collect();
        bail!("the machines are {}", names.join(", "));
    }
    let lab = Lab::new(args.qemu.as_deref())?;
    lab.prepare(Profile::Release)?;
    println!("Instructions of EL2, counted by emulation: they tell nothing about time.");
    println!("Calls of a range are all that it takes; `!` marks what misses its goal.");
    let mut bounds = Bounds::read()?;
    for subject in subjects {
        let figures =
            progress::step(&format!("measuring {}", subject.name), || subject.measure(&lab))?;
        println!("\n{}\n{}", subject.describe(&figures), table::text(&figures));
        bounds.replace(subject.name, &figures);
    }
    if args.write_bounds {
        bounds.write()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures every machine, and compares the figures with the bounds.
pub fn test(lab: &Lab, tally: &mut Tally) -> Result<()> {
    lab.prepare(Profile::Release)?;
    let bounds = Bounds::read()?;
    let measured = std::thread::scope(|scope| {
        let measure = |subject: &'static Subject| scope.spawn(move || subject.measure(lab));
        let threads: Vec<_> = SUBJECTS.iter().map(measure).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
        threads.into_iter().map(join).collect::<Vec<_>>()
    });
    for (subject, figures) in SUBJECTS.iter().zip(measured) {
        match figures.expect("measuring does not panic") {
            Ok(figures) => bounds.judge(subject.name, &figures, tally),
            Err(error) => tally.fail(subject.name, &format!("{error:#}")),
        }
    }
    Ok(())
}

impl Subject {
    fn measure(&self, lab: &Lab) -> Result<Figures> {
        let memory_bytes = MEMORY_BYTES;
        let (cpu, smp, icount) = (self.cpu.into(), 1, true);
        let machine = Machine { cpu, smp, icount, memory_bytes, ..Machine::default() };
        let trial = Trial {
            below: Below::Firmware(Profile::Release, format!("counter=on {}", self.firmware_args)),
            timeout: TIMEOUT,
            ..Trial::new(&format!("bench-{}", self.name), machine, "verdigris-suite bench")
        };
        let mut transcript = Transcript::default();
        let outcome = lab.run(&trial, &mut transcript)?;
        match outcome.problem() {
            Some(problem) => bail!("on {}: {problem}\n{}", self.name, outcome.tail_text()),
            None => Figures::read(&transcript.job),
        }
    }

    fn describe(&self, figures: &Figures) -> String {
        let Self { name, cpu, firmware_args } = self;
        let asked = if firmware_args.is_empty() { "no options" } else { firmware_args };
        let gib = MEMORY_BYTES >> 30;
        format!("{name}: {cpu}, 1 CPU, {gib} GiB, firmware {asked} ({})", figures.settings)
    }
}
