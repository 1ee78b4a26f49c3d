//! Reads what a machine's console says of each test, and judges it.
//!
//! The script that runs the tests in the host writes a line before and a line after each
//! ([`BEGIN`], [`END`]); what stands between is the test's own. A test whose end never came has
//! failed with whatever ended the machine. A warning of the host's kernel fails the test in which
//! it came, whatever the test says.

use std::time::{Duration, Instant};

use crate::complaints::is_complaint;
use crate::console::Sink;

/// `BEGIN number`, at the start of a line.
pub const BEGIN: &str = "conformance-begin";
/// `END number status seconds cpu-seconds`, at the start of a line.
pub const END: &str = "conformance-end";
/// What a test may take, in the host.
pub const LIMIT: Duration = Duration::from_secs(120);
/// What the host may take beyond that to end it, before the machine counts as hung.
const GRACE: Duration = Duration::from_secs(40);
/// A test that was ended by the limit, and computed for a smaller part of the time than this, did
/// not compute slowly: it waited for what never came.
const BUSY_SHARE: f32 = 0.25;
/// Exit status of a skipped test (kselftest.h).
const SKIPPED: i32 = 4;
/// How much is told of a failure.
const SHOWN_LINES: usize = 12;

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Pass,
    /// It says that it cannot run here, and why.
    Skip(String),
    /// It failed, and how.
    Fail(String),
    /// It was still busy when its time was over.
    Slow,
}

/// A test that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Its number in the list of the run.
    pub number: usize,
    /// What became of it.
    pub verdict: Verdict,
    /// How long it took, by the host's clock.
    pub seconds: f32,
}

/// Follows the tests of one machine, and hands each on as it ends.
pub struct Reader<F: FnMut(Ended)> {
    current: Option<Current>,
    told: F,
}

struct Current {
    number: usize,
    lines: Vec<String>,
    deadline: Instant,
}

impl<F: FnMut(Ended)> Reader<F> {
    /// Makes a reader that tells of each test that ended.
    pub fn new(told: F) -> Self {
        Self { current: None, told }
    }

    /// Ends the test that was under way when the machine ended, if one was.
    pub fn finish(&mut self, why: &str) {
        if let Some(Current { number, lines, .. }) = self.current.take() {
            let verdict = Verdict::Fail(format!("{why}\n{}", failure(&lines)));
            (self.told)(Ended { number, verdict, seconds: 0.0 });
        }
    }

    fn end(&mut self, words: &str) {
        let words: Vec<_> = words.split_whitespace().collect();
        let Some(current) = self.current.take() else { return };
        let [_, status, seconds, busy_seconds] = words[..] else { return };
        let seconds = seconds.parse().unwrap_or(0.0);
        let busy_seconds = busy_seconds.parse().unwrap_or(0.0);
        let status = status.parse().unwrap_or(-1);
        let verdict = judge(status, seconds, busy_seconds, &current.lines);
        (self.told)(Ended { number: current.number, verdict, seconds });
    }
}

impl<F: FnMut(Ended)> Sink for Reader<F> {
    fn job_line(&mut self, line: &str) -> Option<String> {
        if let Some(number) = line.strip_prefix(BEGIN) {
            let deadline = Instant::now() + LIMIT + GRACE;
            let number = number.trim().parse().unwrap_or(0);
            self.current = Some(Current { number, lines: Vec::new(), deadline });
        } else if let Some(words) = line.strip_prefix(END) {
            self.end(words);
        } else if let Some(current) = &mut self.current {
            current.lines.push(line.to_owned());
        }
        None
    }

    fn deadline(&self) -> Option<Instant> {
        self.current.as_ref().map(|current| current.deadline)
    }
}

fn judge(status: i32, seconds: f32, busy_seconds: f32, lines: &[String]) -> Verdict {
    let limit = LIMIT.as_secs_f32();
    if let Some(warning) = lines.iter().position(|line| is_complaint(line)) {
        return Verdict::Fail(format!(
            "the host's kernel complains\n{}",
            failure(&lines[warning..])
        ));
    }
    match status {
        0 => skip_reason(lines).map_or(Verdict::Pass, Verdict::Skip),
        SKIPPED => Verdict::Skip(skip_reason(lines).unwrap_or_else(|| "no reason given".into())),
        _ if seconds >= limit && busy_seconds >= limit * BUSY_SHARE => Verdict::Slow,
        _ if seconds >= limit => Verdict::Fail(format!(
            "it hung: {busy_seconds} s of computing in {limit} s\n{}",
            failure(lines)
        )),
        _ => Verdict::Fail(format!("status {status}\n{}", failure(lines))),
    }
}

/// Finds why a test was skipped: `1..0 # SKIP - reason`, or `reason, skipping test`.
fn skip_reason(lines: &[String]) -> Option<String> {
    lines.iter().find_map(|line| {
        let reason = match line.split_once("1..0 # SKIP") {
            Some((_, reason)) => reason,
            None => line.trim().strip_suffix("skipping test")?,
        };
        Some(reason.trim_matches(|c: char| c == '-' || c == ',' || c.is_whitespace()).to_owned())
    })
}

/// Picks what tells of a failure: from the last assertion on, or else the last lines.
fn failure(lines: &[String]) -> String {
    let told = |line: &&String| !line.trim().is_empty() && !line.contains("addr2line");
    let assertion = lines.iter().rposition(|line| line.contains("Test Assertion Failure"));
    let kernel = lines.first().is_some_and(|line| is_complaint(line));
    let from = match assertion {
        _ if kernel => 0,
        Some(at) => at,
        None => lines.len().saturating_sub(SHOWN_LINES),
    };
    let shown = lines[from..].iter().filter(told).take(SHOWN_LINES);
    shown.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Ended> {
        let mut ended = Vec::new();
        let mut reader = Reader::new(|test| ended.push(test));
        for line in text.lines() {
            reader.job_line(line);
        }
        reader.finish("the machine ended");
        ended
    }

    fn verdict(text: &str, end: &str) -> Verdict {
        let ended = read(&format!("{BEGIN} 7\n{text}\n{END} 7 {end}"));
        assert_eq!((ended.len(), ended[0].number), (1, 7));
        ended[0].verdict.clone()
    }

    #[test]
    fn statuses_are_judged() {
        assert_eq!(verdict("All good", "0 3.5 2.0"), Verdict::Pass);
        assert_eq!(verdict("...", "137 120.1 100.5"), Verdict::Slow);
        let hung = verdict("waits", "137 120.1 0.5");
        assert!(matches!(&hung, Verdict::Fail(why) if why.contains("hung")), "{hung:?}");
        let failed = verdict("noise\n==== Test Assertion Failure ====\n  a.c:1: x == y", "254 1 1");
        let expected = "status 254\n==== Test Assertion Failure ====\n  a.c:1: x == y";
        assert_eq!(failed, Verdict::Fail(expected.into()));
    }

    #[test]
    fn skips_have_their_reasons() {
        let skip = |why: &str| Verdict::Skip(why.into());
        let text = "TAP version 13\n1..0 # SKIP - Requirement not met: kvm_has_cap(KVM_CAP_X)";
        assert_eq!(verdict(text, "4 0.1 0"), skip("Requirement not met: kvm_has_cap(KVM_CAP_X)"));
        let text = "Log mode 'clear-log' not supported, skipping test";
        assert_eq!(verdict(text, "0 0.1 0"), skip("Log mode 'clear-log' not supported"));
        assert_eq!(verdict("", "4 0.1 0"), skip("no reason given"));
    }

    #[test]
    fn a_warning_of_the_kernel_fails_what_passed() {
        let text = "fine\n[   12.5] WARNING: CPU: 1 PID: 7 at kvm_age.c:1\n[   12.5] Call trace:";
        let failed = verdict(text, "0 1 1");
        assert!(matches!(&failed, Verdict::Fail(why) if why.contains("kvm_age.c")), "{failed:?}");
        assert_eq!(verdict("WARNING: CPU is slow", "0 1 1"), Verdict::Pass);
    }

    #[test]
    fn a_test_without_an_end_has_failed_with_the_machine() {
        let ended = read(&format!("{BEGIN} 0\n{END} 0 0 1 1\n{BEGIN} 1\nhalf way"));
        assert_eq!(ended.len(), 2);
        let expected = Verdict::Fail("the machine ended\nhalf way".into());
        assert_eq!((ended[1].number, &ended[1].verdict), (1, &expected));
    }
}
