//! What several tests need.

use std::process::{Command, Stdio};

use verdigris_abi::{Error, Status};

use crate::ktap::skip;
use crate::pages::PAGE;
use crate::sys;

/// Bytes of a number of pages.
pub const fn bytes(pages: usize) -> u64 {
    (pages * PAGE) as u64
}

/// Binds the caller to the first CPU, and chooses CPUs for `count` others: different ones while there are.
pub fn spread(count: usize) -> Vec<usize> {
    let cpus = sys::cpus();
    sys::run_on(cpus[0]).expect("the first CPU is there");
    (1..=count).map(|index| cpus[index % cpus.len()]).collect()
}

/// Returns how many vCPUs spin at once in tests that like many: one a CPU but ours, at least one.
pub fn vcpus_at_once() -> usize {
    sys::cpus().len().saturating_sub(1).clamp(1, 3)
}

/// Skips the test on a machine with one CPU.
pub fn needs_two_cpus() {
    if sys::cpus().len() < 2 {
        skip("needs two CPUs");
    }
}

/// Expects an error of several that may be returned.
#[track_caller]
pub fn one_of<T: std::fmt::Debug>(result: Status<T>, errors: &[Error], what: &str) {
    match result {
        Err(error) if errors.contains(&error) => {}
        other => panic!("{what}: {other:?} instead of {errors:?}"),
    }
}

/// Compares bits with what a rule says of each page.
#[track_caller]
pub fn assert_bits(bits: &[bool], what: &str, rule: impl Fn(usize) -> bool) {
    let wrong: Vec<_> = (0..bits.len()).filter(|&page| bits[page] != rule(page)).collect();
    let some = &wrong[..wrong.len().min(8)];
    assert!(
        wrong.is_empty(),
        "{what}: {} pages of {} wrong, such as {some:?}",
        wrong.len(),
        bits.len()
    );
}

/// Makes a call until it answers something else than RETRY: while table pages are on their way to the
/// pool, or a tick of the clock stopped the search for them.
pub fn settled<T>(mut call: impl FnMut() -> Status<T>) -> Status<T> {
    const TRIES: usize = 10_000;
    for _ in 0..TRIES {
        match call() {
            Err(Error::Retry) => {}
            answer => return answer,
        }
    }
    Err(Error::Retry)
}

/// Prepares to start a helper: a test that is meant to die, as a process of its own.
pub fn helper(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", name]).stdin(Stdio::null()).stderr(Stdio::null());
    command
}
