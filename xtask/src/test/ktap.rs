//! Reads KTAP, the format in which the suite reports from inside the host
//! (Linux, Documentation/dev-tools/ktap.rst).
//!
//! What is missing counts: a test that the plan promises and no line reports has failed. A plan of no tests
//! is kept to by none.

use super::tally::{Test, Verdict};

/// Reads the tests of a transcript.
pub fn read(lines: &[String]) -> Vec<Test> {
    let mut tests = Vec::new();
    let mut planned = None;
    let mut notes = Vec::new();
    for line in lines {
        let line = line.trim();
        if let Some(count) = plan(line) {
            planned = Some(planned.unwrap_or(0) + count);
        } else if let Some(note) = line.strip_prefix("# ") {
            notes.push(note.to_owned());
        } else if let Some(test) = result(line, &notes) {
            tests.push(test);
            notes.clear();
        }
    }
    match planned {
        None => tests.push(failed("the plan", "no test was reported at all".into())),
        Some(count) if count != tests.len() => {
            let why = format!("{} of {count} tests were reported", tests.len());
            tests.push(failed("the plan", why));
        }
        Some(_) => {}
    }
    tests
}

/// Reads `1..N`, behind which a remark may stand.
fn plan(line: &str) -> Option<usize> {
    let (count, _remark) = line.strip_prefix("1..")?.split_once('#').unwrap_or((&line[3..], ""));
    count.trim().parse().ok()
}

fn failed(name: &str, why: String) -> Test {
    Test { name: name.into(), verdict: Verdict::Failed(why) }
}

/// Reads `ok N name`, `ok N name # SKIP reason`, `not ok N name`.
fn result(line: &str, notes: &[String]) -> Option<Test> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let (name, remark) = rest.split_once('#').unwrap_or((rest, ""));
    let name = name.trim().trim_start_matches("- ").to_owned();
    let skip = remark.trim().strip_prefix("SKIP");
    let verdict = match (passed, skip) {
        (true, Some(why)) => Verdict::Skipped(why.trim().to_owned()),
        (true, None) => Verdict::Passed,
        (false, _) => Verdict::Failed(notes.join("\n      ")),
    };
    Some(Test { name, verdict })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(text: &str) -> Vec<(String, Verdict)> {
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        read(&lines).into_iter().map(|test| (test.name, test.verdict)).collect()
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let text = "KTAP version 1\n1..3\nok 1 map # 12 ms\n[  3.1] a kernel message\n\
                    ok 2 mops # SKIP the CPU has no FEAT_MOPS\n# left 1\n# right 2\nnot ok 3 age\n";
        assert_eq!(
            verdicts(text),
            [
                ("map".into(), Verdict::Passed),
                ("mops".into(), Verdict::Skipped("the CPU has no FEAT_MOPS".into())),
                ("age".into(), Verdict::Failed("left 1\n      right 2".into())),
            ]
        );
    }

    #[test]
    fn what_is_missing_has_failed() {
        assert!(matches!(verdicts("KTAP version 1")[0].1, Verdict::Failed(_)));
        assert!(matches!(verdicts("1.. # 0")[0].1, Verdict::Failed(_)));
        let cut = verdicts("1..2\nok 1 map\nok");
        assert!(matches!(cut[1].1, Verdict::Failed(_)), "{cut:?}");
    }

    #[test]
    fn a_plan_of_nothing_is_kept_by_nothing() {
        assert_eq!(verdicts("KTAP version 1\n1..0 # SKIP no test has such a name"), []);
        assert_eq!(verdicts("KTAP version 1\n1..0"), []);
        let more = verdicts("1..0\nok 1 map");
        assert!(matches!(more[1].1, Verdict::Failed(_)), "{more:?}");
    }
}
