//! The program, where there is a host to run it.

mod cases;
mod cgroup;
mod counters;
mod disturb;
mod guest;
mod ledger;
mod leftovers;
mod next;
mod pagemap;
mod region;
mod swap;
mod sys;
mod userfault;
mod vcpu;
mod vm;

use std::path::Path;
use std::process::ExitCode;

use verdigris_ktap::Test;

use crate::choice::Choice;
use crate::settings::Settings;

const USAGE: &str = "\
usage: verdigris-memory COMMAND
  test [--group GROUP] [--list] [NAME...]   run tests of a group (all, or those that match), in KTAP
  kexec COMMAND                             while guests run, start the kernel of /boot/Image, which does COMMAND
  crash COMMAND                             the same by a panic, in the memory of crashkernel=
  touch                                     write and read back nearly all memory that is free
groups: memory (unless another is given), placement (wants a machine whose memory is not in pieces yet), figures,
kernel (what reads all of the host's memory; the classic LRU), added (wants memory that comes after boot)";

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["test", ref options @ ..] => test(options),
        ["exec", name] => execute(name),
        ["kexec", command] => failed(&next::start(next::Way::Kexec, command)),
        ["crash", command] => failed(&next::start(next::Way::Crash, command)),
        ["touch"] => {
            next::touch_memory().map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
        }
        _ => usage(),
    }
}

fn failed(error: &std::io::Error) -> ExitCode {
    eprintln!("verdigris-memory: {error}");
    ExitCode::FAILURE
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Chooses tests and runs or lists them.
fn test(options: &[&str]) -> ExitCode {
    let Some(choice) = Choice::parse(options) else { return usage() };
    let chosen: Vec<_> = cases::all().filter(|test| choice.has(test)).collect();
    if choice.list {
        chosen.iter().for_each(|test| println!("{}", test.name));
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        // Whoever asks several machines for a test gets it from those that have it.
        println!(
            "KTAP version 1\n1..0 # SKIP no test of the group {} has such a name",
            choice.group
        );
        return ExitCode::SUCCESS;
    }
    if run(&chosen) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs tests, on a host that is as each of them wants it; returns whether none failed.
fn run(tests: &[&Test]) -> bool {
    let found = Settings::read(Path::new("/"));
    prepare_host();
    let settings = Settings::read(Path::new("/"));
    let before = leftovers::Leftovers::read();
    let passed = verdigris_ktap::run(tests, &|| both(settings.restore(), before.compare()));
    let restored = found.restore();
    if let Err(what) = &restored {
        eprintln!("{what}");
    }
    passed && restored.is_ok()
}

/// Joins what two had to say.
fn both(one: Result<(), String>, other: Result<(), String>) -> Result<(), String> {
    match (one, other) {
        (Err(one), Err(other)) => Err(format!("{one}; {other}")),
        (one, other) => one.and(other),
    }
}

/// Turns off what would do to guests, at times of its own, what a test is about to do and to count.
fn prepare_host() {
    // Stacks of threads would be huge too, and come first where tests look at what is reclaimed.
    counters::write("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
    let balancing = Path::new("/proc/sys/kernel/numa_balancing");
    if balancing.exists() {
        // It takes pages from the guest, to see on which node they are used.
        counters::write(balancing, "0");
    }
}

/// Runs one test in this process: what the harness starts.
fn execute(name: &str) -> ExitCode {
    match cases::all().find(|test| test.name == name) {
        Some(test) => {
            verdigris_ktap::execute(test);
            ExitCode::SUCCESS
        }
        None => usage(),
    }
}
