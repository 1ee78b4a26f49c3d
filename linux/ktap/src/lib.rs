//! The harness: a test is a function, run in a process of its own, reported in KTAP
//! (Documentation/dev-tools/ktap.rst of the kernel).
//!
//! A process a test means that a test may panic, hang or be killed: the kernel closes its file, and the
//! driver ends its VMs. So no test can find what another left; and where that is not to be taken on
//! trust, [`run`] asks after each test whether all is as it was.

use std::io::{Read, pipe};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// One test.
pub struct Test {
    /// Its name, unique.
    pub name: &'static str,
    /// Which run it belongs to.
    pub group: &'static str,
    /// How long it may take, in seconds.
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
const GRACE: Duration = Duration::from_secs(5);

/// Ends the test as skipped.
pub fn skip(reason: &str) -> ! {
    println!("{SKIP_MARK}{reason}");
    std::process::exit(SKIPPED);
}

/// What became of a test.
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Runs tests one after the other, and returns whether none failed. A test that passed has failed after all
/// if `left_behind`, called once its process is gone, finds something.
pub fn run(tests: &[&Test], left_behind: &dyn Fn() -> Result<(), String>) -> bool {
    println!("KTAP version 1");
    println!("1..{}", tests.len());
    let mut failed = 0;
    for (index, test) in tests.iter().enumerate() {
        let began = Instant::now();
        let (mut outcome, output) = run_one(test);
        if let (Outcome::Passed, Err(what)) = (&outcome, left_behind()) {
            outcome = Outcome::Failed(format!("afterwards: {what}"));
        }
        let (number, name) = (index + 1, test.name);
        if !matches!(outcome, Outcome::Failed(_)) {
            let figures = output.lines().filter(|line| line.starts_with(FIGURE));
            figures.for_each(|line| println!("# {line}"));
        }
        match outcome {
            Outcome::Passed => println!("ok {number} {name} # {} ms", began.elapsed().as_millis()),
            Outcome::Skipped(reason) => println!("ok {number} {name} # SKIP {reason}"),
            Outcome::Failed(reason) => {
                failed += 1;
                output.lines().for_each(|line| println!("# {line}"));
                println!("# {reason}");
                println!("not ok {number} {name}");
            }
        }
    }
    failed == 0
}

fn run_one(test: &Test) -> (Outcome, String) {
    let (mut reader, writer) = pipe().expect("a pipe");
    let output = writer.try_clone().expect("a pipe");
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", test.name]).stdin(Stdio::null()).stdout(output).stderr(writer);
    let mut child = command.spawn().expect("the suite can start itself");
    drop(command);
    let collector = thread::spawn(move || {
        let mut bytes = Vec::new();
        _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    match wait(&mut child, Duration::from_secs(test.seconds)) {
        Some(status) => {
            let output = collector.join().expect("the collector doesn't panic");
            (judge(status, &output), output)
        }
        None => (stop(child, test.seconds), String::new()),
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn stop(mut child: Child, seconds: u64) -> Outcome {
    _ = child.kill();
    let end = match wait(&mut child, GRACE) {
        Some(_) => "and was killed",
        None => "and can't be killed: a call doesn't return",
    };
    Outcome::Failed(format!("it took more than {seconds} s, {end}"))
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
}
