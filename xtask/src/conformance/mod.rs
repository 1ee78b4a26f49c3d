//! `cargo xtask conformance`: the kernel's own selftests of KVM, on Verdigris or on Linux KVM.
//!
//! They are Debian's source of the host's kernel, unmodified. Tests of the default list must pass, or
//! some of them at least not fail; what else there is runs for information (`--all`), and must pass only
//! where it is asked for by name. A failure need not be ours: `--on kvm`
//! runs the same binaries on Linux's KVM in the same emulator, and `--compare` tells what fails on
//! Verdigris alone.

mod list;
mod report;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::arguments;
use crate::build::{self, Profile, Selftests};
use crate::lab::{Below, Lab, On};
use crate::setup::HostKernel;
use list::{Case, Demand};
use report::{Ended, LIMIT, Verdict};
use run::Bench;

/// Options of the conformance run.
#[derive(Args, Debug)]
pub struct ConformanceArgs {
    /// Run only these tests: a program's name, or a whole line of the list
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// What the tests run on
    #[arg(long, value_enum, default_value = "verdigris")]
    on: On,
    /// Run on both, and tell what fails on Verdigris alone
    #[arg(long, conflicts_with = "on")]
    compare: bool,
    /// Run every selftest that was built, not only those of the default list
    #[arg(long)]
    all: bool,
    /// List the tests
    #[arg(long)]
    list: bool,
    /// Model of the CPUs, as QEMU names them
    #[arg(long, default_value = "max", value_name = "NAME")]
    cpu: String,
    /// Give the firmware these options
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    firmware_args: String,
    /// Give the driver these module parameters
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    driver_args: String,
    /// Use this emulator
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

/// Runs, and tells by the exit status whether every test is as demanded.
pub fn conformance(args: &ConformanceArgs) -> Result<ExitCode> {
    arguments::firmware(&args.firmware_args)?;
    arguments::driver(&args.driver_args)?;
    let lab = Lab::new(args.qemu.as_deref())?;
    lab.check_cpu(&args.cpu)?;
    let selftests = build::selftests(&lab.setup().tools)?;
    let cases = args.cases(&selftests)?;
    if args.list {
        cases.iter().for_each(|case| println!("{}", case.name()));
        return Ok(ExitCode::SUCCESS);
    }
    introduce(&selftests);
    let succeeded = if args.compare {
        println!("on Linux KVM:");
        let reference = args.run(On::Kvm, &lab, &cases, &selftests)?;
        println!("on Verdigris:");
        let own = args.run(On::Verdigris, &lab, &cases, &selftests)?;
        compare(&cases, &reference, &own)
    } else {
        let verdicts = args.run(args.on, &lab, &cases, &selftests)?;
        is_success(&cases, &verdicts)
    };
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What became of each test, in the order of the list.
type Verdicts = Vec<Option<Verdict>>;

impl ConformanceArgs {
    /// Chooses the tests; one that is named need not be of the default list, and must pass.
    fn cases(&self, selftests: &Selftests) -> Result<Vec<Case>> {
        let all = self.all || !self.names.is_empty();
        let mut cases = list::cases(&selftests.programs, all);
        for name in &self.names {
            if !cases.iter().any(|case| case.is_meant(name)) {
                bail!("there is no test {name}; `cargo xtask conformance --all --list` has all");
            }
        }
        if !self.names.is_empty() {
            cases.retain(|case| self.names.iter().any(|name| case.is_meant(name)));
            cases.iter_mut().for_each(|case| case.demand = Demand::Pass);
        }
        Ok(cases)
    }

    fn run(&self, on: On, lab: &Lab, cases: &[Case], selftests: &Selftests) -> Result<Verdicts> {
        let bench = self.bench(on);
        if let Below::Firmware(profile, _) = bench.below {
            lab.prepare(profile)?;
        }
        let mut verdicts = vec![None; cases.len()];
        bench.run(lab, cases, &selftests.programs, |ended| {
            println!("{}", line(&cases[ended.number], &ended));
            verdicts[ended.number] = Some(ended.verdict);
        })?;
        println!("{}", closing_line(&verdicts));
        Ok(verdicts)
    }

    fn bench(&self, on: On) -> Bench {
        let cpu = self.cpu.clone();
        match on {
            On::Kvm => Bench { name: "kvm".into(), cpu, below: Below::OwnKvm, driver: None },
            On::Verdigris => Bench {
                name: "verdigris".into(),
                cpu,
                below: Below::Firmware(Profile::Release, self.firmware_args.clone()),
                driver: Some(self.driver_args.clone()),
            },
        }
    }
}

/// Says what is run, and what of it is not as it should be.
fn introduce(selftests: &Selftests) {
    println!("KVM selftests of the kernel's source {}, unmodified", selftests.version);
    match HostKernel::version() {
        Some(host) if host != selftests.version => println!("note: the host's kernel is {host}"),
        _ => {}
    }
    for name in &selftests.broken {
        println!("note: {name} could not be built; see selftests-build.log");
    }
}

/// Tells of one test in one line, and of a failure in some more.
fn line(case: &Case, ended: &Ended) -> String {
    let (name, seconds) = (case.name(), ended.seconds);
    match &ended.verdict {
        Verdict::Pass => format!("pass  {name}  ({seconds:.1} s)"),
        Verdict::Skip(why) => format!("skip  {name}: {why}"),
        Verdict::Slow => format!("slow  {name}: not done in {} s here", LIMIT.as_secs()),
        Verdict::Fail(why) => {
            format!("FAIL  {name}  ({seconds:.1} s): {}", why.trim_end().replace('\n', "\n      "))
        }
    }
}

fn closing_line(verdicts: &Verdicts) -> String {
    let count =
        |wanted: fn(&Verdict) -> bool| verdicts.iter().flatten().filter(|v| wanted(v)).count();
    format!(
        "{} passed, {} failed, {} skipped, {} too slow here",
        count(|verdict| *verdict == Verdict::Pass),
        count(|verdict| matches!(verdict, Verdict::Fail(_))),
        count(|verdict| matches!(verdict, Verdict::Skip(_))),
        count(|verdict| *verdict == Verdict::Slow),
    )
}

/// Tells whether something passed, and every test is as demanded.
fn is_success(cases: &[Case], verdicts: &Verdicts) -> bool {
    let mut pairs = cases.iter().zip(verdicts);
    let passed = verdicts.iter().flatten().any(|verdict| *verdict == Verdict::Pass);
    passed && pairs.all(|(case, verdict)| case.demand.is_met(verdict.as_ref()))
}

/// Names the tests that pass on Linux KVM and not on Verdigris; tells whether one of them is not as demanded, or is skipped and
/// not there for information alone. To be slow may be no failure: in emulation the switch between host and guest costs Verdigris
/// more, since it empties the emulator's TLB for the host too.
fn compare(cases: &[Case], reference: &Verdicts, own: &Verdicts) -> bool {
    let mut equal = true;
    for ((case, reference), own) in cases.iter().zip(reference).zip(own) {
        if *reference != Some(Verdict::Pass) || *own == Some(Verdict::Pass) {
            continue;
        }
        let is_skipped = matches!(own, Some(Verdict::Skip(_)));
        let how = match own {
            Some(Verdict::Skip(_)) => "is skipped",
            Some(Verdict::Slow) => "is too slow",
            _ => "fails",
        };
        println!("passes on Linux KVM, {how} on Verdigris: {}", case.name());
        equal &=
            case.demand.is_met(own.as_ref()) && (!is_skipped || case.demand == Demand::Nothing);
    }
    if equal {
        println!("every test that passes on Linux KVM is as demanded on Verdigris");
    }
    equal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(program: &str, demand: Demand) -> Case {
        Case { program: program.into(), arguments: String::new(), demand }
    }

    #[test]
    fn demands_decide_and_something_must_pass() {
        let cases =
            [case("a", Demand::Pass), case("b", Demand::NoFailure), case("c", Demand::Nothing)];
        let fail = || Some(Verdict::Fail(String::new()));
        let skip = || Some(Verdict::Skip(String::new()));
        let (pass, slow) = (|| Some(Verdict::Pass), || Some(Verdict::Slow));
        assert!(is_success(&cases, &vec![pass(), pass(), fail()]));
        assert!(is_success(&cases, &vec![pass(), slow(), None]));
        assert!(is_success(&cases, &vec![pass(), skip(), None]));
        for first in [fail(), skip(), slow(), None] {
            assert!(!is_success(&cases, &vec![first.clone(), pass(), pass()]), "{first:?}");
        }
        assert!(!is_success(&cases, &vec![pass(), fail(), pass()]));
        assert!(!is_success(&cases, &vec![pass(), None, pass()]));
        assert!(!is_success(&cases[1..], &vec![skip(), skip()]));
    }

    #[test]
    fn what_passes_on_kvm_must_pass() {
        let cases =
            [case("a", Demand::Pass), case("b", Demand::NoFailure), case("c", Demand::Nothing)];
        let (pass, none) = (|| Some(Verdict::Pass), || None);
        let (slow, skip) = (|| Some(Verdict::Slow), || Some(Verdict::Skip(String::new())));
        let own = |a, b, c| compare(&cases, &vec![pass(), pass(), pass()], &vec![a, b, c]);
        assert!(own(pass(), pass(), pass()));
        assert!(own(pass(), slow(), slow()) && own(pass(), pass(), none()));
        assert!(!own(slow(), pass(), pass()) && !own(skip(), pass(), pass()));
        assert!(!own(none(), pass(), pass()) && !own(pass(), skip(), pass()));
        assert!(own(pass(), pass(), skip()));
        // What KVM itself doesn't pass shows nothing.
        assert!(compare(&cases, &vec![slow(), slow(), none()], &vec![skip(), none(), none()]));
    }
}
