//! The harness: a test is a function, run in a process of its own, reported in KTAP
//! (Documentation/dev-tools/ktap.rst of the kernel).
//!
//! A process a test means that a test may panic, hang or be killed: the kernel closes its file, and the
//! driver ends its VMs. So no test can find what another left; and where that is not to be taken on
//! trust, [`run`] has something done after each test, failed ones too.

mod process;

use std::panic;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use process::Ended;

/// One test.
pub struct Test {
    /// Its name, unique.
    pub name: &'static str,
    /// Which run it belongs to.
    pub group: &'static str,
    /// How long it may take, in seconds, where nothing is soaked ([`SOAK`]).
    pub seconds: u64,
    /// What it does: a panic is a failure, [`skip`] a skip.
    pub run: fn(),
}

/// Makes the table of a module's tests: functions, each under its own name.
#[macro_export]
macro_rules! test_table {
    ($group:literal, $seconds:literal: $($name:ident),* $(,)?) => {
        $crate::test_table! { TESTS, $group, $seconds: $($name),* }
    };
    ($table:ident, $group:literal, $seconds:literal: $($name:ident),* $(,)?) => {
        /// Tests of this module.
        pub const $table: &[$crate::Test] = &[$($crate::Test {
            name: stringify!($name), group: $group, seconds: $seconds, run: $name,
        }),*];
    };
}

/// The exit status of a skipped test: the one that the kernel's self-tests have.
const SKIPPED: i32 = 4;
const SKIP_MARK: &str = "SKIP: ";
/// Begins a line that is reported although the test passed.
pub const FIGURE: &str = "figure: ";
/// Names the variable of the environment that has tests soak, for so many seconds each.
pub const SOAK: &str = "VERDIGRIS_SOAK";
/// The exit status of a panic, as of Rust's runtime.
const PANICKED: i32 = 101;

/// Ends the test as skipped.
pub fn skip(reason: &str) -> ! {
    println!("{SKIP_MARK}{reason}");
    std::process::exit(SKIPPED);
}

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Returns how long the environment has tests soak, if it says.
pub fn soak() -> Option<Duration> {
    let text = std::env::var(SOAK).ok()?;
    text.parse().ok().map(Duration::from_secs)
}

/// Runs tests one after the other, and returns whether none failed. `afterwards` is called once a test's process is gone,
/// whatever became of it: what it finds fails a test that had passed, and hides nothing of one that had not.
pub fn run(tests: &[&Test], afterwards: &dyn Fn() -> Result<(), String>) -> bool {
    println!("KTAP version 1");
    println!("1..{}", tests.len());
    let mut failed = 0;
    for (index, test) in tests.iter().enumerate() {
        let began = Instant::now();
        let (outcome, output) = run_one(test);
        let outcome = with_rest(outcome, afterwards());
        failed += u32::from(matches!(outcome, Outcome::Failed(_)));
        for line in report(index + 1, test.name, &outcome, &output, began.elapsed()) {
            println!("{line}");
        }
    }
    failed == 0
}

/// Runs a test in this process: what [`run`] starts, by `exec NAME`.
///
/// A panic unwinds, so a test may catch it. But nobody may be waiting for a thread: its panic ends the process at once, as
/// failed.
pub fn execute(test: &Test) {
    let (own, tell) = (thread::current().id(), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        tell(info);
        if thread::current().id() != own {
            std::process::exit(PANICKED);
        }
    }));
    (test.run)();
}

fn run_one(test: &Test) -> (Outcome, String) {
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", test.name]);
    let limit = limit(test, soak());
    let (ended, output) = process::run(&mut command, limit);
    let outcome = match ended {
        Ended::By(status) => judge(status, &output),
        Ended::Killed => Outcome::Failed(too_long(limit, "and was killed")),
        Ended::Stuck => {
            Outcome::Failed(too_long(limit, "and can't be killed: a call doesn't return"))
        }
    };
    (outcome, output)
}

/// Returns how long a test may take: what it soaks comes on top.
fn limit(test: &Test, soak: Option<Duration>) -> Duration {
    Duration::from_secs(test.seconds) + soak.unwrap_or_default()
}

fn too_long(limit: Duration, end: &str) -> String {
    format!("it took more than {} s, {end}", limit.as_secs())
}

/// Adds what was found afterwards.
fn with_rest(outcome: Outcome, rest: Result<(), String>) -> Outcome {
    match (outcome, rest) {
        (outcome, Ok(())) => outcome,
        (Outcome::Failed(why), Err(rest)) => Outcome::Failed(format!("{why}; afterwards: {rest}")),
        (_, Err(rest)) => Outcome::Failed(format!("afterwards: {rest}")),
    }
}

/// Makes the lines about a test: all that a failed one wrote, and the figures of another.
fn report(
    number: usize,
    name: &str,
    outcome: &Outcome,
    output: &str,
    took: Duration,
) -> Vec<String> {
    let is_shown = |line: &&str| matches!(outcome, Outcome::Failed(_)) || line.starts_with(FIGURE);
    let mut lines: Vec<_> =
        output.lines().filter(is_shown).map(|line| format!("# {line}")).collect();
    match outcome {
        Outcome::Passed => lines.push(format!("ok {number} {name} # {} ms", took.as_millis())),
        Outcome::Skipped(reason) => lines.push(format!("ok {number} {name} # SKIP {reason}")),
        Outcome::Failed(reason) => {
            lines.extend(reason.lines().map(|line| format!("# {line}")));
            lines.push(format!("not ok {number} {name}"));
        }
    }
    lines
}

fn judge(status: ExitStatus, output: &str) -> Outcome {
    match status.code() {
        Some(0) => Outcome::Passed,
        Some(SKIPPED) => {
            let reason = output.lines().rev().find_map(|line| line.strip_prefix(SKIP_MARK));
            match reason {
                Some(reason) => Outcome::Skipped(reason.to_owned()),
                None => Outcome::Failed("skipped without a reason".to_owned()),
            }
        }
        _ => Outcome::Failed(format!("{status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_skip_needs_its_reason() {
        let status = ExitStatus::from_raw(SKIPPED << 8);
        assert!(matches!(judge(status, "SKIP: one CPU\n"), Outcome::Skipped(r) if r == "one CPU"));
        assert!(matches!(judge(status, "nothing\n"), Outcome::Failed(_)));
    }

    #[test]
    fn signals_and_panics_fail() {
        assert!(matches!(judge(ExitStatus::from_raw(6), ""), Outcome::Failed(_)));
        assert!(matches!(judge(ExitStatus::from_raw(101 << 8), ""), Outcome::Failed(_)));
        assert!(matches!(judge(ExitStatus::from_raw(0), ""), Outcome::Passed));
    }

    #[test]
    fn a_soak_comes_on_top_of_what_a_test_may_take() {
        let test = Test { name: "all", group: "memory", seconds: 600, run: || () };
        assert_eq!(limit(&test, None), Duration::from_secs(600));
        assert_eq!(limit(&test, Some(Duration::from_secs(3600))), Duration::from_secs(4200));
    }

    #[test]
    fn what_is_found_afterwards_fails_a_test_and_hides_nothing() {
        let failed = |why: &str| Outcome::Failed(why.into());
        let left = || Err("a VM is left".to_owned());
        assert_eq!(with_rest(Outcome::Passed, Ok(())), Outcome::Passed);
        assert_eq!(with_rest(Outcome::Passed, left()), failed("afterwards: a VM is left"));
        let skipped = || Outcome::Skipped("no disk".into());
        assert_eq!(with_rest(skipped(), Ok(())), skipped());
        assert_eq!(with_rest(skipped(), left()), failed("afterwards: a VM is left"));
        assert_eq!(with_rest(failed("101"), Ok(())), failed("101"));
        assert_eq!(with_rest(failed("101"), left()), failed("101; afterwards: a VM is left"));
    }

    #[test]
    fn a_failed_test_shows_all_it_wrote_and_another_its_figures() {
        let took = Duration::from_millis(12);
        let told = |outcome| report(3, "age", &outcome, "left 1\nfigure: 5 calls\n", took);
        assert_eq!(told(Outcome::Passed), ["# figure: 5 calls", "ok 3 age # 12 ms"]);
        let skipped = told(Outcome::Skipped("no disk".into()));
        assert_eq!(skipped, ["# figure: 5 calls", "ok 3 age # SKIP no disk"]);
        let failed = told(Outcome::Failed("status 101\nand more".into()));
        let expected =
            ["# left 1", "# figure: 5 calls", "# status 101", "# and more", "not ok 3 age"];
        assert_eq!(failed, expected);
    }
}
