//! `cargo xtask test`: every test there is, in parts.
//!
//! Parts are data ([`PARTS`]): a name, what it shows, a function. A part reports each of its tests
//! to the [`Tally`]; one that cannot run at all counts as a failure. The last line is plain text,
//! for those who look at nothing else.

mod barriers;
mod cortex_a53;
mod crash;
mod driver;
mod flow;
mod fuzz;
mod gdb;
mod host;
mod image;
mod instructions;
mod ktap;
mod machines;
mod pairs;
mod runs;
pub mod tally;
mod texts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::lab::Lab;
use runs::Run;
use tally::Tally;

const SECONDS_A_MINUTE: u64 = 60;

/// Options of the tests.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Run only these parts, or these machines of a part
    #[arg(value_name = "PART")]
    parts: Vec<String>,
    /// List the parts, and the machines of each
    #[arg(long)]
    list: bool,
    /// Tell tests, or the list of parts, in JSON: one object a line
    #[arg(long)]
    json: bool,
    /// Use this emulator
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Let the machines of the part `soak` run for so many minutes each
    #[arg(long, value_name = "MINUTES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    soak: u64,
    /// Of the parts `memory`, `memory-kvm` and `figures`, run only the tests with one of these words in their name
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Show passed tests too
    #[arg(long, short)]
    verbose: bool,
}

/// One part.
struct Part {
    /// What users call it.
    name: &'static str,
    /// What it shows.
    about: &'static str,
    /// What it consists of.
    work: Work,
    /// Whether it runs only where it is asked for.
    only_by_name: bool,
}

/// What a part consists of.
#[derive(Clone, Copy)]
enum Work {
    /// A function that reports to the tally.
    Function(fn(&Context, &mut Tally) -> Result<()>),
    /// Runs of machines, which can also be asked for one by one.
    Machines(&'static [Run]),
}
use Work::{Function, Machines};

/// All parts, the quick ones first.
const PARTS: &[Part] = &[
    part(
        "header",
        "the driver's C header says what the interface crate says",
        Function(texts::header),
    ),
    part("docs", "the reference has a section for every call", Function(texts::docs)),
    part("host", "the tests of every crate, on this machine", Function(host::crates)),
    part(
        "property",
        "the stage-2 engine against its model: random operations in each configuration",
        Function(host::property),
    ),
    part(
        "fuzz",
        "fuzzers of operations, hypercalls and device trees, each for a while",
        Function(fuzz::test),
    ),
    part("loom", "the memory-ordering tests, in every interleaving", Function(host::loom)),
    part("miri", "the tests that Miri can run: no undefined behaviour", Function(host::miri)),
    part("image", "the instructions of the release image", Function(image::test)),
    part(
        "driver",
        "the driver builds without a warning, in the kernel's style",
        Function(driver::test),
    ),
    part("boot", "the host boots under the firmware, and with its own KVM", Machines(runs::BOOT)),
    part(
        "check",
        "the host has every CPU feature that it has without the firmware",
        Function(pairs::check),
    ),
    part("crash", "a fault of EL2 ends in a report", Function(crash::test)),
    part("gdb", "a debugger finds its way in the firmware", Function(gdb::test)),
    part("suite", "the hypercall suite in the host", Machines(runs::SUITE)),
    part("icount", "a run that counts instructions is the same each time", Function(pairs::repeat)),
    part(
        "oldest",
        "the suite's first run, on the oldest QEMU that is supported",
        Function(machines::oldest),
    ),
    part("hotplug", "CPUs come and go while guests run", Machines(runs::HOTPLUG)),
    part("rollover", "more VMs than VMIDs", Machines(runs::ROLLOVER)),
    part("soak", "everything at once, every byte checked", Machines(runs::SOAKS)),
    part("sweep", "a guest executes every system instruction", Machines(runs::SWEEP)),
    part("bench", "no call costs more than it once did", Function(bench)),
    part("memory", "Linux manages the memory of guests", Machines(runs::MEMORY)),
    part(
        "kernels",
        "the host's kernel reads all memory, goes by kexec, and dumps after a panic",
        Machines(runs::KERNELS),
    ),
    part("newest", "the newest kernel of Debian's as host", Function(machines::newest)),
    only_by_name(part(
        "figures",
        "what ageing and reclaim of guests cost, counted and shown (only by name)",
        Machines(runs::FIGURES),
    )),
    only_by_name(part(
        "memory-kvm",
        "the same tests on Linux's own KVM (only by name)",
        Machines(runs::MEMORY_KVM),
    )),
    part("run", "the demonstration of `cargo xtask run`", Machines(runs::RUN)),
];

const fn part(name: &'static str, about: &'static str, work: Work) -> Part {
    Part { name, about, work, only_by_name: false }
}

const fn only_by_name(part: Part) -> Part {
    Part { only_by_name: true, ..part }
}

impl Part {
    fn runs(&self) -> impl Iterator<Item = &'static str> {
        let runs = if let Machines(runs) = self.work { runs } else { &[] };
        runs::names(runs)
    }

    fn has(&self, word: &str) -> bool {
        self.name == word || self.runs().any(|run| run == word)
    }

    fn test(&self, context: &Context, tally: &mut Tally) -> Result<()> {
        match self.work {
            Function(test) => test(context, tally),
            Machines(runs) => machines::test(runs, self.name, context, tally),
        }
    }
}

/// What parts share.
struct Context {
    args: TestArgs,
    lab: OnceLock<Lab>,
}

impl Context {
    /// Does the set-up once, when the first part asks.
    fn lab(&self) -> Result<&Lab> {
        if self.lab.get().is_none() {
            let lab = Lab::new(self.args.qemu.as_deref())?;
            return Ok(self.lab.get_or_init(|| lab));
        }
        Ok(self.lab.get().expect("it was set"))
    }

    /// Returns how long a machine soaks.
    fn soak(&self) -> Duration {
        Duration::from_secs(self.args.soak * SECONDS_A_MINUTE)
    }

    /// Tells whether a run of a part was asked for.
    fn wants(&self, part: &str, run: &str) -> bool {
        let words = &self.args.parts;
        words.is_empty() || words.iter().any(|word| word == part || word == run)
    }

    fn wants_any(&self, part: &Part) -> bool {
        let words = &self.args.parts;
        (words.is_empty() && !part.only_by_name) || words.iter().any(|word| part.has(word))
    }
}

/// Tests, and returns whether nothing failed.
pub fn test(args: TestArgs) -> Result<ExitCode> {
    if args.list {
        list(args.json);
        return Ok(ExitCode::SUCCESS);
    }
    for word in &args.parts {
        if !PARTS.iter().any(|part| part.has(word)) {
            bail!("there is no part {word}; `cargo xtask test --list` tells what there is");
        }
    }
    let json = args.json;
    let mut tally = Tally::new(args.verbose).in_json(args.json);
    let context = Context { args, lab: OnceLock::new() };
    for part in PARTS.iter().filter(|part| context.wants_any(part)) {
        let started = Instant::now();
        tally.begin(part.name);
        if let Err(error) = part.test(&context, &mut tally) {
            tally.fail("as a whole", &format!("{error:#}"));
        }
        tally.end(started.elapsed());
    }
    // The last line is plain text for those who look at nothing else; a program looks at none of it.
    let closing = tally.closing_line();
    if json {
        eprintln!("{closing}");
    } else {
        println!("{closing}");
    }
    Ok(if tally.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bench(context: &Context, tally: &mut Tally) -> Result<()> {
    crate::bench::test(context.lab()?, tally)
}

fn list(json: bool) {
    for part in PARTS {
        if json {
            println!("{}", crate::json::object(&[("part", part.name), ("about", part.about)]));
            for run in part.runs() {
                println!("{}", crate::json::object(&[("part", part.name), ("machine", run)]));
            }
            continue;
        }
        println!("{:<10} {}", part.name, part.about);
        for run in part.runs() {
            println!("  {run}");
        }
    }
}
