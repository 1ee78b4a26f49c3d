//! Tests that run in machines: each run is a fresh one, two at a time.
//!
//! A run is data: a name, a CPU model, how many CPUs, the firmware's feature mask, what the host is
//! to do. Its log is under its name in target/logs.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, ensure};
use verdigris_qemu::Machine;

use super::tally::{Tally, Test, Verdict};
use super::{Context, ktap};
use crate::build::Profile;
use crate::check;
use crate::console::Sink;
use crate::lab::{Below, Lab, TIMEOUT, Transcript, Trial};
use crate::paths;

/// Machines that run at the same time.
const AT_ONCE: usize = 2;

/// One run, as data.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    name: &'static str,
    cpu: &'static str,
    smp: u32,
    memory_gib: u64,
    profile: Profile,
    firmware_args: &'static str,
    /// Whether the host has EL2 to itself and no firmware below it: what is asked of `/dev/kvm`
    /// must be true of Linux's own.
    own_kvm: bool,
    driver: Option<&'static str>,
    /// Whether the host's root has the memory suite.
    memory: bool,
    /// How long the machine may run, besides what it soaks.
    timeout: Duration,
    /// Whether its command is the virtual machine monitor's.
    vmm: bool,
    command: &'static str,
    judge: Judge,
    /// How long the user has it soak: [`SOAK_WORD`] of its command becomes that many seconds.
    soaks: bool,
}

/// How a run is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    /// By the status of its command: one test.
    Status,
    /// By what it reports in KTAP: many tests.
    Ktap,
}

const fn run(name: &'static str, cpu: &'static str, smp: u32) -> Run {
    Run {
        name,
        cpu,
        smp,
        memory_gib: 1,
        profile: Profile::Release,
        firmware_args: "",
        own_kvm: false,
        driver: Some("raw=1"),
        memory: false,
        timeout: TIMEOUT,
        vmm: false,
        command: "verdigris-suite test --group suite",
        judge: Judge::Ktap,
        soaks: false,
    }
}

const fn masked(name: &'static str, firmware_args: &'static str) -> Run {
    Run { firmware_args, ..run(name, "max", 4) }
}

const fn soak(run: Run) -> Run {
    Run { command: SOAK, judge: Judge::Status, soaks: true, ..run }
}

/// Linux does everything to guests at once, and their VMMs are killed and stopped.
const fn soak_memory(run: Run) -> Run {
    let timeout = Duration::from_secs(1200);
    Run { memory: true, memory_gib: 2, command: SOAK_MEMORY, timeout, soaks: true, ..run }
}

const fn group(run: Run, command: &'static str) -> Run {
    Run { command, ..run }
}

const fn status(run: Run, command: &'static str) -> Run {
    Run { command, judge: Judge::Status, ..run }
}

/// Boots without the driver: what must work before anything else does.
const BOOTED: &str = "test $(nproc) = $(grep -c ^processor /proc/cpuinfo) && echo booted";
const SWEEP_COMMAND: &str = "verdigris-suite test --group sweep";
const HOTPLUG_COMMAND: &str = "verdigris-suite test --group hotplug";
const ROLLOVER_COMMAND: &str = "verdigris-suite test --group rollover";
const SOAK_WORD: &str = "SECONDS";
const SOAK: &str = "verdigris-suite soak SECONDS";
const SOAK_MEMORY: &str = "VERDIGRIS_SOAK=SECONDS verdigris-memory test at_once at_any_moment";
const DEMO: &str = "verdigris-vmm demo";
const DEMO_FAILS: &str =
    "verdigris-vmm demo | tee /tmp/demo; grep -q '^WRONG: not the cold' /tmp/demo";

const fn boot(name: &'static str, cpu: &'static str, smp: u32) -> Run {
    Run { driver: None, ..status(run(name, cpu, smp), BOOTED) }
}

/// The driver is loaded as a user has it.
const fn demo(run: Run) -> Run {
    Run { vmm: true, driver: Some(""), ..status(run, DEMO) }
}

const fn own_kvm(run: Run) -> Run {
    Run { own_kvm: true, driver: None, ..run }
}

/// The host boots. The last has no firmware: its own KVM is what the driver's is compared with.
pub const BOOT: &[Run] = &[
    boot("boot-max", "max", 4),
    boot("boot-neoverse-n1", "neoverse-n1", 4),
    boot("boot-cortex-a57", "cortex-a57", 4),
    boot("boot-cortex-a76", "cortex-a76", 2),
    boot("boot-max-1", "max", 1),
    status(own_kvm(run("boot-own-kvm", "max", 4)), "test -c /dev/kvm && echo booted"),
];

/// The hypercall suite. The first is the one that passes on the oldest QEMU too; it has memory
/// enough for a block of 1 GiB, which the others skip.
pub const SUITE: &[Run] = &[
    Run { memory_gib: 3, ..run("suite-max", "max", 4) },
    Run { profile: Profile::Checked, ..run("suite-checked", "max", 4) },
    masked("suite-max-no-ha", "ha=off"),
    masked("suite-max-no-hd", "hd=off"),
    masked("suite-max-no-epoch", "epoch=off"),
    masked("suite-max-bbm0", "bbm=0"),
    masked("suite-max-no-tlbirange", "tlbirange=off"),
    masked("suite-max-no-fwb", "fwb=off"),
    masked("suite-max-vmid8", "vmid=8"),
    run("suite-neoverse-n1", "neoverse-n1", 4),
    run("suite-cortex-a57", "cortex-a57", 4),
    run("suite-max-1", "max", 1),
    run("suite-neoverse-n1-1", "neoverse-n1", 1),
    run("suite-cortex-a57-1", "cortex-a57", 1),
    run("suite-cortex-a55-1", "cortex-a55", 1),
];

/// CPUs come and go.
pub const HOTPLUG: &[Run] = &[
    group(run("hotplug-max", "max", 4), HOTPLUG_COMMAND),
    group(run("hotplug-neoverse-n1", "neoverse-n1", 4), HOTPLUG_COMMAND),
    group(run("hotplug-cortex-a57", "cortex-a57", 4), HOTPLUG_COMMAND),
];

/// More VMs than VMIDs.
pub const ROLLOVER: &[Run] = &[
    group(Run { firmware_args: "vmid=3", ..run("rollover-max", "max", 4) }, ROLLOVER_COMMAND),
    group(Run { firmware_args: "vmid=4", ..run("rollover-max-4", "max", 2) }, ROLLOVER_COMMAND),
    group(
        Run { firmware_args: "vmid=3", ..run("rollover-cortex-a57", "cortex-a57", 4) },
        ROLLOVER_COMMAND,
    ),
];

/// Everything at once, for a minute or as long as the user says.
pub const SOAKS: &[Run] = &[
    soak(run("soak-max", "max", 4)),
    soak(masked("soak-max-no-ha", "ha=off")),
    soak(run("soak-neoverse-n1", "neoverse-n1", 4)),
    soak(run("soak-cortex-a76", "cortex-a76", 4)),
    soak(run("soak-cortex-a57", "cortex-a57", 4)),
    // The firmware checks itself, and the VMs that come and go use up the VMIDs.
    Run {
        profile: Profile::Checked,
        firmware_args: "vmid=3",
        ..soak(run("soak-checked", "max", 4))
    },
    soak_memory(run("soak-memory-max", "max", 4)),
    soak_memory(masked("soak-memory-max-no-ha", "ha=off")),
    soak_memory(run("soak-memory-cortex-a57", "cortex-a57", 4)),
];

/// The encoding sweep.
pub const SWEEP: &[Run] = &[
    group(run("sweep-max", "max", 1), SWEEP_COMMAND),
    group(run("sweep-neoverse-n1", "neoverse-n1", 1), SWEEP_COMMAND),
    group(run("sweep-cortex-a57", "cortex-a57", 1), SWEEP_COMMAND),
];

const fn memory(run: Run) -> Run {
    let (command, timeout) = ("verdigris-memory test", Duration::from_secs(2400));
    Run { memory: true, memory_gib: 2, command, timeout, ..run }
}

/// What Linux does to the memory of guests.
pub const MEMORY: &[Run] = &[
    memory(run("memory-max", "max", 4)),
    memory(masked("memory-max-no-ha", "ha=off")),
    memory(run("memory-cortex-a57", "cortex-a57", 4)),
    placement(run("memory-placement-max", "max", 4)),
    placement(masked("memory-placement-max-no-ha", "ha=off")),
    placement(run("memory-placement-cortex-a57", "cortex-a57", 4)),
];

/// Huge pages and migration, on a machine whose memory is not in pieces yet.
const fn placement(run: Run) -> Run {
    group(memory(run), "verdigris-memory test --group placement")
}

/// The same program on Linux's own KVM: what a test says of Linux must be so.
pub const MEMORY_KVM: &[Run] = &[
    memory(own_kvm(run("memory-kvm-max", "max", 4))),
    memory(own_kvm(run("memory-kvm-cortex-a57", "cortex-a57", 4))),
    placement(own_kvm(run("memory-kvm-placement-max", "max", 4))),
];

/// What ageing, reclaim and faults cost, with and without the flush epoch.
pub const FIGURES: &[Run] =
    &[figures(run("figures-max", "max", 4)), figures(masked("figures-max-no-epoch", "epoch=off"))];

const fn figures(run: Run) -> Run {
    group(memory(run), "verdigris-memory test --group figures")
}

/// The demonstration, as `cargo xtask run` shows it.
pub const RUN: &[Run] = &[
    demo(run("run-max", "max", 4)),
    demo(run("run-cortex-a57", "cortex-a57", 2)),
    // It can fail: where the driver calls every page old, Linux takes what was there first, the hot half.
    Run {
        driver: Some("age_answers=0"),
        ..status(demo(run("run-max-no-answers", "max", 4)), DEMO_FAILS)
    },
    // What it says of Linux must be so on Linux's own KVM.
    own_kvm(demo(run("run-own-kvm", "max", 4))),
];

/// Runs the wanted machines of a part, and counts each as it ends.
pub fn test(runs: &'static [Run], part: &str, context: &Context, tally: &mut Tally) -> Result<()> {
    let wanted = runs.iter().filter(|run| context.wants(part, run.name));
    run_all(context.lab()?, wanted, context, tally)
}

/// Runs the suite on the oldest emulator that is supported.
pub fn oldest(context: &Context, tally: &mut Tally) -> Result<()> {
    const RUNS: &[Run] = &[Run { memory_gib: 3, ..run("oldest-max", "max", 4) }];
    if context.args.qemu.is_some() {
        tally.skip(RUNS[0].name, "the emulator was chosen by --qemu");
        return Ok(());
    }
    match Lab::oldest() {
        Ok(lab) => run_all(&lab, RUNS.iter(), context, tally),
        Err(error) => {
            tally.skip(RUNS[0].name, &format!("{error:#}"));
            Ok(())
        }
    }
}

/// Runs machines, two at a time.
fn run_all(
    lab: &Lab,
    runs: impl Iterator<Item = &'static Run>,
    context: &Context,
    tally: &mut Tally,
) -> Result<()> {
    let (soak, only) = (context.soak(), &context.args.only);
    let mut queue = VecDeque::new();
    for run in runs {
        match run.memory {
            true => lab.prepare_memory((!run.own_kvm).then_some(run.profile))?,
            false => lab.prepare(run.profile)?,
        }
        if lab.has_cpu(run.cpu)? {
            queue.push_back(run);
        } else {
            tally.skip(run.name, &format!("this QEMU has no {}", run.cpu));
        }
    }
    let queue = Mutex::new(queue);
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let (queue, sender) = (&queue, sender.clone());
            scope.spawn(move || {
                while let Some(run) = next(queue) {
                    // The receiver outlives all workers.
                    let _ = sender.send((run, run_one(lab, run, soak, only)));
                }
            });
        }
        drop(sender);
        for (run, result) in ended {
            report(run, result, tally);
        }
    });
    Ok(())
}

fn next(queue: &Mutex<VecDeque<&'static Run>>) -> Option<&'static Run> {
    queue.lock().expect("no worker panics with the queue").pop_front()
}

fn report(run: &Run, result: Result<Vec<Test>>, tally: &mut Tally) {
    match result {
        Ok(tests) => {
            for test in tests {
                let name = format!("{}: {}", run.name, test.name);
                tally.add(&Test { name, ..test });
            }
        }
        Err(error) => tally.fail(run.name, &format!("{error:#}")),
    }
}

impl Run {
    fn trial(&self, soak: Duration) -> Trial {
        let (cpu, memory_bytes) = (self.cpu.into(), self.memory_gib << 30);
        // Two nodes, so that pages can migrate from one to the other.
        let nodes = if self.memory { 2 } else { 1 };
        let machine = Machine { cpu, smp: self.smp, memory_bytes, nodes, ..Machine::default() };
        let command = self.command.replace(SOAK_WORD, &soak.as_secs().to_string());
        let more = if self.soaks { soak } else { Duration::ZERO };
        Trial {
            below: match self.own_kvm {
                true => Below::OwnKvm,
                false => Below::Firmware(self.profile, self.firmware_args.to_owned()),
            },
            driver: self.driver.map(str::to_owned),
            timeout: self.timeout + more,
            vmm: self.vmm,
            ..Trial::new(self.name, machine, &command)
        }
    }
}

/// How a figure begins among the notes of a test.
const FIGURE: &str = "# figure: ";

/// Keeps the lines of a job, and shows figures under the run's name; of one that soaks, all lines.
struct Told {
    name: &'static str,
    shows_all: bool,
    lines: Vec<String>,
}

impl Sink for Told {
    fn job_line(&mut self, line: &str) -> Option<String> {
        if self.shows_all || line.starts_with(FIGURE) {
            println!("{}: {}", self.name, line.strip_prefix(FIGURE).unwrap_or(line));
        }
        self.lines.push(line.to_owned());
        None
    }
}

fn run_one(lab: &Lab, run: &Run, soak: Duration, only: &[String]) -> Result<Vec<Test>> {
    let mut told = Told { name: run.name, shows_all: run.soaks, lines: Vec::new() };
    let mut trial = run.trial(soak);
    if run.memory {
        trial.overlays.push(lab.memory_root()?);
        only.iter().for_each(|word| trial.command += &format!(" {word}"));
    }
    let outcome = lab.run(&trial, &mut told)?;
    let mut tests = match run.judge {
        Judge::Ktap => ktap::read(&told.lines),
        Judge::Status => Vec::new(),
    };
    // The suite's own failures are counted one by one.
    let told = tests.iter().any(|test| matches!(test.verdict, Verdict::Failed(_)));
    let why = if told { outcome.failure() } else { outcome.problem() };
    if run.judge == Judge::Status || why.is_some() {
        let log = paths::log(run.name);
        let verdict = why.map_or(Verdict::Passed, |why| {
            Verdict::Failed(format!("{why}; see {}\n{}", log.display(), outcome.tail_text()))
        });
        tests.push(Test { name: "the run".into(), verdict });
    }
    Ok(tests)
}

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

/// Lists the names of runs.
pub fn names(runs: &'static [Run]) -> impl Iterator<Item = &'static str> {
    runs.iter().map(|run| run.name)
}
