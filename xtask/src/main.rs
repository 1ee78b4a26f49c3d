//! The tasks of Verdigris, as `cargo xtask TASK`: one file a task.
//!
//! Every task does its own set-up. Errors are told in words, with what to type where that helps;
//! the exit status is non-zero then.

mod bench;
mod build;
mod check;
mod command;
mod complaints;
mod conformance;
mod console;
mod display;
mod doctor;
mod gdb;
mod header;
mod initramfs;
mod job;
mod kernel;
mod lab;
mod paths;
mod progress;
mod run;
mod setup;
mod symbols;
mod terminal;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, runs and tests Verdigris.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Boot firmware, host and guests in QEMU, and show the demonstration
    Run(Box<run::RunArgs>),
    /// Run every test there is, or some parts
    Test(test::TestArgs),
    /// Check a promise on all machines that it is made for
    Check {
        #[command(subcommand)]
        what: check::Check,
    },
    /// Count the instructions that calls cost
    Bench(bench::BenchArgs),
    /// Run the kernel's own selftests of KVM, on Verdigris or on Linux KVM
    Conformance(conformance::ConformanceArgs),
    /// Fetch all that the other tasks need, as they would do by themselves
    Setup,
    /// Say what is missing on this machine, and do nothing
    Doctor,
    /// Attach a debugger to a run that waits for one (`run --gdb`)
    Gdb,
    /// Write the driver's C header from the interface crate
    Header,
}

fn main() -> ExitCode {
    let result = dispatch(Arguments::parse().task);
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn dispatch(task: Task) -> Result<ExitCode> {
    match task {
        Task::Run(args) => return run::run(*args),
        Task::Test(args) => return test::test(args),
        Task::Check { what } => return check::check(&what),
        Task::Bench(args) => return bench::bench(&args),
        Task::Conformance(args) => return conformance::conformance(&args),
        Task::Setup => drop(setup::ensure()?),
        Task::Doctor => return doctor::doctor(),
        Task::Gdb => gdb::gdb()?,
        Task::Header => header::write()?,
    }
    Ok(ExitCode::SUCCESS)
}
