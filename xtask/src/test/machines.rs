//! Tests that run in machines: each run is a fresh one, two at a time.
//!
//! What is run is data ([`super::runs`]). A log is under its run's name in target/logs.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use verdigris_qemu::Machine;

use super::runs::{Judge, NEWEST, Run, SOAK_WORD, Skips, run};
use super::tally::{Tally, Test, Verdict};
use super::{Context, ktap};
use crate::complaints;
use crate::console::{Outcome, Sink};
use crate::lab::{Below, Lab, Trial};
use crate::paths;

/// Machines that run at the same time.
const AT_ONCE: usize = 2;

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

/// Runs a part of the memory suite on the newest kernel that there is a package of.
pub fn newest(context: &Context, tally: &mut Tally) -> Result<()> {
    match Lab::newest(context.args.qemu.as_deref()) {
        Ok(lab) => {
            let wanted = NEWEST.iter().filter(|run| context.wants("newest", run.name));
            run_all(&lab, wanted, context, tally)
        }
        Err(error) => {
            tally.skip(NEWEST[0].name, &format!("{error:#}"));
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
        Ok(tests) if tests.is_empty() => {
            tally.note(&format!("{}: none of its tests has such a name", run.name));
        }
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
    /// Tells whether words of the user's choose among its tests; what soaks, or starts other kernels, has its own.
    fn is_narrowed_by(&self, only: &[String]) -> bool {
        self.memory && self.soaks == 0 && !self.next_kernel && !only.is_empty()
    }

    /// Lets tests that were skipped and should not have been count as failed.
    fn forbid_skips(&self, tests: &mut [Test]) {
        let Skips::Only(expected) = self.skips else { return };
        for test in tests.iter_mut().filter(|test| !expected.contains(&test.name.as_str())) {
            if let Verdict::Skipped(why) = &test.verdict {
                let why =
                    format!("it was skipped, which nothing on this machine is a reason for: {why}");
                test.verdict = Verdict::Failed(why);
            }
        }
    }

    /// Judges the machine, where its tests one by one don't tell all.
    fn whole(&self, tests: &[Test], outcome: &Outcome, is_narrowed: bool) -> Option<Test> {
        // The suite's own failures are counted already.
        let failed = tests.iter().any(|test| matches!(test.verdict, Verdict::Failed(_)));
        let why = if failed { outcome.failure() } else { outcome.problem() };
        let is_empty = self.judge == Judge::Ktap && tests.is_empty() && !is_narrowed;
        let why = why.or_else(|| is_empty.then(|| "no test ran".into()));
        if self.judge == Judge::Ktap && why.is_none() {
            return None;
        }
        let verdict = why.map_or(Verdict::Passed, |why| {
            let log = paths::log(self.name);
            Verdict::Failed(format!("{why}; see {}\n{}", log.display(), outcome.tail_text()))
        });
        Some(Test { name: "the run".into(), verdict })
    }

    fn trial(&self, soak: Duration) -> Trial {
        let (cpu, memory_bytes) = (self.cpu.into(), self.memory_gib << 30);
        // Two nodes, so that pages can migrate from one to the other.
        let nodes = if self.memory && self.added_gib == 0 { 2 } else { 1 };
        let (smp, added_bytes) = (self.smp, self.added_gib << 30);
        let machine = Machine { cpu, smp, memory_bytes, added_bytes, nodes, ..Machine::default() };
        let command = self.command.replace(SOAK_WORD, &soak.as_secs().to_string());
        Trial {
            below: match self.own_kvm {
                true => Below::OwnKvm,
                false => Below::Firmware(self.profile, self.firmware_args.to_owned()),
            },
            el3: self.el3,
            driver: self.driver.map(str::to_owned),
            timeout: self.timeout + soak * self.soaks,
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
    /// The lines of the job, and those of the host's boot and end.
    console: Vec<String>,
}

impl Sink for Told {
    fn boot_line(&mut self, line: &str) {
        self.console.push(line.to_owned());
    }

    fn job_line(&mut self, line: &str) -> Option<String> {
        if self.shows_all || line.starts_with(FIGURE) {
            println!("{}: {}", self.name, line.strip_prefix(FIGURE).unwrap_or(line));
        }
        self.lines.push(line.to_owned());
        self.console.push(line.to_owned());
        None
    }
}

fn run_one(lab: &Lab, run: &Run, soak: Duration, only: &[String]) -> Result<Vec<Test>> {
    let (lines, console) = Default::default();
    let mut told = Told { name: run.name, shows_all: run.soaks > 0, lines, console };
    let mut trial = run.trial(soak);
    if run.memory {
        trial.overlays.push(lab.memory_root()?);
    }
    if run.next_kernel {
        trial.overlays.push(lab.next_kernel_root()?);
    }
    if run.is_narrowed_by(only) {
        only.iter().for_each(|word| trial.command += &format!(" {word}"));
    }
    let outcome = lab.run(&trial, &mut told)?;
    let mut tests = match run.judge {
        Judge::Ktap => ktap::read(&told.lines),
        Judge::Status => Vec::new(),
    };
    run.forbid_skips(&mut tests);
    tests.extend(complaint(&told.console));
    tests.extend(run.whole(&tests, &outcome, run.is_narrowed_by(only)));
    Ok(tests)
}

/// Makes a failed test of what the kernel, the driver or the firmware complain about.
fn complaint(console: &[String]) -> Option<Test> {
    let verdict = Verdict::Failed(complaints::first(console)?);
    Some(Test { name: "complaints on the console".into(), verdict })
}

#[cfg(test)]
mod tests {
    use super::super::runs::{FIGURES, MEMORY, MEMORY_KVM, SOAKS, SUITE};
    use super::*;

    fn test(name: &str, verdict: Verdict) -> Test {
        Test { name: name.into(), verdict }
    }

    #[test]
    fn a_machine_lives_as_long_as_what_it_soaks() {
        let (one, ten) = (Duration::from_secs(60), Duration::from_secs(600));
        for run in SOAKS {
            let (short, long) = (run.trial(one), run.trial(ten));
            assert!(short.command.contains("60") && long.command.contains("600"), "{}", run.name);
            assert!(!long.command.contains(SOAK_WORD), "{}", long.command);
            // Three tests of the memory suite take the time one after the other, and 600 s each for all else.
            let times = if run.memory { 3 } else { 1 };
            assert_eq!(long.timeout - short.timeout, Duration::from_secs(540) * times);
            assert!(!run.memory || long.timeout > Duration::from_secs(3 * (600 + 600)));
        }
        for run in MEMORY.iter().chain(SUITE) {
            assert_eq!(run.trial(one).timeout, run.trial(ten).timeout);
        }
    }

    #[test]
    fn on_verdigris_a_skip_of_the_memory_suite_has_failed() {
        let skipped = || test("limit", Verdict::Skipped("the host has no zram.ko".into()));
        for run in MEMORY.iter().chain(FIGURES).chain(SOAKS.iter().filter(|run| run.memory)) {
            let mut tests = [skipped(), test("high", Verdict::Passed)];
            run.forbid_skips(&mut tests);
            let why = matches!(&tests[0].verdict, Verdict::Failed(why) if why.contains("zram"));
            assert!(why, "{}: {:?}", run.name, tests[0]);
            assert_eq!(tests[1].verdict, Verdict::Passed);
        }
        for run in MEMORY_KVM.iter().chain(SUITE) {
            let mut tests = [skipped()];
            run.forbid_skips(&mut tests);
            assert_eq!(tests, [skipped()]);
        }
        let run = Run { skips: Skips::Only(&["limit"]), ..MEMORY[0] };
        let mut tests = [skipped(), test("high", Verdict::Skipped("no".into()))];
        run.forbid_skips(&mut tests);
        assert_eq!(tests[0], skipped());
        assert!(matches!(tests[1].verdict, Verdict::Failed(_)));
    }

    #[test]
    fn words_choose_tests_of_the_memory_suite_and_leave_soaks_alone() {
        let words = ["windows".to_owned()];
        let narrowed = |run: &Run| run.is_narrowed_by(&words) != run.next_kernel;
        assert!(MEMORY.iter().chain(MEMORY_KVM).all(narrowed));
        assert!(SOAKS.iter().chain(SUITE).all(|run| !run.is_narrowed_by(&words)));
        assert!(MEMORY.iter().all(|run| !run.is_narrowed_by(&[])));
    }

    #[test]
    fn a_machine_without_a_test_has_failed_unless_words_left_none() {
        let good = Outcome { status: Some(0), qemu: Some(0), ..Default::default() };
        let bad = Outcome { status: Some(1), qemu: Some(0), ..Default::default() };
        let failed = |found: Option<Test>| {
            found.is_some_and(|test| matches!(test.verdict, Verdict::Failed(_)))
        };
        let run = &MEMORY[0];
        assert!(failed(run.whole(&[], &good, false)));
        assert_eq!(run.whole(&[], &good, true), None);
        assert!(failed(run.whole(&[], &bad, true)));
        let tests = [test("limit", Verdict::Passed)];
        assert_eq!(run.whole(&tests, &good, false), None);
        assert!(failed(run.whole(&tests, &bad, false)));
        let told = [test("limit", Verdict::Failed("it did".into()))];
        assert_eq!(run.whole(&told, &bad, false), None);
    }

    #[test]
    fn a_complaint_is_a_failed_test() {
        let lines = ["ok 1 map", "[  3.1] BUG: Bad page state"].map(str::to_owned);
        let found = complaint(&lines).expect("a test");
        assert_eq!(found.verdict, Verdict::Failed("[  3.1] BUG: Bad page state".into()));
        assert_eq!(complaint(&lines[..1]), None);
    }
}
