//! The tasks of Verdigris, as `cargo xtask TASK`: one file a task.
//!
//! Every task does its own set-up. Errors are told in words, with what to type where that helps;
//! the exit status is non-zero then.

mod arguments;
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
mod json;
mod kernel;
mod lab;
mod mutants;
mod paths;
mod progress;
mod run;
mod setup;
mod symbols;
mod terminal;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// Builds, runs and tests Verdigris.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
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
    /// Make mistakes in the pure crates, and tell which no test notices
    Mutants(mutants::MutantsArgs),
    /// Fetch all that the other tasks need, as they would do by themselves
    Setup,
    /// Say what is missing on this machine, and do nothing
    Doctor(doctor::DoctorArgs),
    /// Attach a debugger to a run that waits for one (`run --gdb`)
    Gdb(gdb::GdbArgs),
    /// Write the driver's C header from the interface crate
    Header,
    /// Print completions for a shell, of a command `xtask` (alias xtask='cargo xtask')
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
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
        Task::Mutants(args) => return mutants::mutants(&args),
        Task::Setup => drop(setup::ensure()?),
        Task::Doctor(args) => return doctor::doctor(&args),
        Task::Gdb(args) => gdb::gdb(&args)?,
        Task::Header => header::write()?,
        Task::Completions { shell } => complete(shell, &mut std::io::stdout()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a shell's completions. Cargo's own completions know nothing of aliases, so they are for a command of one word.
fn complete(shell: clap_complete::Shell, to: &mut dyn std::io::Write) {
    let mut command = Arguments::command().bin_name("xtask").name("xtask");
    clap_complete::generate(shell, &mut command, "xtask", to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn completions_know_tasks_and_options() {
        for shell in
            [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish]
        {
            let mut script = Vec::new();
            complete(shell, &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("conformance") && script.contains("overlay"), "{shell}");
        }
    }
}
