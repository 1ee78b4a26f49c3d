//! Counts tests, and tells of each that did not pass.

use std::time::Duration;

use crate::json;

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed, and why.
    Failed(String),
    /// It could not run here, and why.
    Skipped(String),
}

/// One test that ran, or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Its name within its part.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// Tests counted so far.
pub struct Tally {
    verbose: bool,
    json: bool,
    part: &'static str,
    counts: Counts,
    before: Counts,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Tally {
    /// Starts to count.
    pub fn new(verbose: bool) -> Self {
        let (counts, before) = Default::default();
        Self { verbose, json: false, part: "", counts, before }
    }

    /// Tells each test, passed or not, as an object of JSON in a line of its own.
    pub fn in_json(self, json: bool) -> Self {
        Self { json, ..self }
    }

    fn tell(&self, verdict: &str, name: &str, why: &str) {
        if self.json {
            let fields = [("part", self.part), ("test", name), ("verdict", verdict), ("why", why)];
            return println!("{}", json::object(&fields));
        }
        match why {
            "" => println!("{verdict}  {}: {name}", self.part),
            _ => println!("{verdict}  {}: {name}: {why}", self.part),
        }
    }

    /// Begins a part.
    pub fn begin(&mut self, part: &'static str) {
        self.part = part;
        self.before = self.counts;
    }

    /// Ends a part, and tells its counts.
    pub fn end(&self, took: Duration) {
        let (now, before) = (self.counts, self.before);
        let part = Counts {
            passed: now.passed - before.passed,
            failed: now.failed - before.failed,
            skipped: now.skipped - before.skipped,
        };
        if !self.json {
            println!("{:<10} {} in {:.1} s", self.part, part.text(), took.as_secs_f32());
        }
    }

    /// Counts a test.
    pub fn add(&mut self, test: &Test) {
        match &test.verdict {
            Verdict::Passed => self.pass(&test.name),
            Verdict::Failed(why) => self.fail(&test.name, why),
            Verdict::Skipped(why) => self.skip(&test.name, why),
        }
    }

    /// Counts a test that passed.
    pub fn pass(&mut self, name: &str) {
        self.counts.passed += 1;
        if self.verbose || self.json {
            self.tell("pass", name, "");
        }
    }

    /// Counts a test that failed, and says why.
    pub fn fail(&mut self, name: &str, why: &str) {
        self.counts.failed += 1;
        self.tell("FAIL", name, why);
    }

    /// Counts a test that could not run here; without a reason that is a failure.
    pub fn skip(&mut self, name: &str, why: &str) {
        if why.trim().is_empty() {
            return self.fail(name, "it was skipped without a reason");
        }
        self.counts.skipped += 1;
        self.tell("skip", name, why);
    }

    /// Tells something of the part that counts as no test.
    pub fn note(&self, text: &str) {
        self.tell("note", text, "");
    }

    /// Counts a test by what it returned.
    pub fn judge(&mut self, name: &str, result: &anyhow::Result<()>) {
        match result {
            Ok(()) => self.pass(name),
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    /// Tells whether something passed and nothing failed.
    pub fn is_success(&self) -> bool {
        self.counts.failed == 0 && self.counts.passed > 0
    }

    /// Returns the last line of all.
    pub fn closing_line(&self) -> String {
        self.counts.text()
    }
}

impl Counts {
    fn text(self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_line_counts_everything_once() {
        let mut tally = Tally::new(false);
        tally.begin("part");
        tally.pass("a");
        tally.skip("b", "no such CPU");
        assert!(tally.is_success());
        assert_eq!(tally.closing_line(), "1 passed, 0 failed, 1 skipped");
        tally.skip("c", " ");
        tally.fail("d", "it did");
        assert!(!tally.is_success());
        assert_eq!(tally.closing_line(), "1 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn nothing_at_all_is_no_success() {
        assert!(!Tally::new(false).is_success());
    }
}
