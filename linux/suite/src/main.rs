//! `verdigris-suite`: runs inside the host Linux and puts the firmware to the test.
//!
//! It speaks to the firmware through the raw hypercall device alone, so that nothing between the two can
//! hide a mistake of either.

mod bench;
mod bits;
mod cases;
mod engine;
mod firmware;
mod guest;
mod hwcaps;
mod memory;
mod pages;
mod raw;
mod soak;
mod sys;
mod vcpu;
mod vm;
mod working_set;

use std::process::ExitCode;

use verdigris_ktap as ktap;
use verdigris_ktap::Test;

const USAGE: &str = "\
usage: verdigris-suite COMMAND
  test [--group GROUP] [--list] [NAME...]   run tests (all of group `suite`, or those that match), in KTAP
  soak SECONDS                              do everything at once, for so long
  bench                                     count the firmware's instructions for some calls
  hwcaps                                    print what the kernel tells processes of the CPU
  crash KIND                                make EL2 fail (debug builds of the firmware): a number
groups: suite, hotplug, rollover, sweep, lockdown (which locks the kernel down for good)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["test", ref options @ ..] => test(options),
        ["exec", name] => execute(name),
        ["soak", seconds] => seconds.parse().map_or_else(|_| usage(), soak::run),
        ["bench"] => bench::run(),
        ["crash", kind] => crash(kind),
        ["hwcaps"] => {
            hwcaps::print();
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Makes EL2 fail. If this returns, it didn't.
fn crash(kind: &str) -> ExitCode {
    let Ok(kind) = kind.parse() else { return usage() };
    let status = raw::raw().call(verdigris_abi::call::DEBUG_CRASH, &[kind]).status();
    eprintln!("EL2 goes on: {status:?}");
    ExitCode::FAILURE
}

/// Chooses tests and runs or lists them.
fn test(mut options: &[&str]) -> ExitCode {
    let (mut group, mut list) = (None, false);
    loop {
        match options {
            ["--group", name, rest @ ..] => (group, options) = (Some(*name), rest),
            ["--list", rest @ ..] => (list, options) = (true, rest),
            [option, ..] if option.starts_with('-') => return usage(),
            _ => break,
        }
    }
    let chosen: Vec<_> = cases::all().filter(|test| is_chosen(test, group, options)).collect();
    if list {
        chosen.iter().for_each(|test| println!("{}", test.name));
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        eprintln!("no test has that name");
        return ExitCode::from(2);
    }
    if ktap::run(&chosen, &|| Ok(())) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A named test is chosen from any group, unless one is given; without names, all of a group are.
fn is_chosen(test: &Test, group: Option<&str>, names: &[&str]) -> bool {
    let in_group = |wanted: &str| test.group == wanted;
    if names.is_empty() {
        return in_group(group.unwrap_or("suite"));
    }
    group.is_none_or(in_group) && names.iter().any(|name| test.name.contains(name))
}

/// Runs one test in this process: what the harness starts.
fn execute(name: &str) -> ExitCode {
    match cases::all().find(|test| test.name == name) {
        Some(test) => {
            ktap::execute(test);
            ExitCode::SUCCESS
        }
        None => usage(),
    }
}
