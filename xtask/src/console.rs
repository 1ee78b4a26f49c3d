//! Follows the console of a run: finds the job's begin and status, and hands the rest on.
//!
//! Two lines are for us and carry the run's nonce; they are never shown. Output is handed on as it
//! comes, not line by line, so that prompts and progress show at once; only what could be the
//! start of one of our lines is held back.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use verdigris_qemu::{Event, Session};

/// How many of the last lines are kept to be shown after a failure.
const TAIL_LINES: usize = 25;
/// How long the machine may take to power off after the job's end.
const POWER_OFF: Duration = Duration::from_secs(20);

/// Takes what the console says.
pub trait Sink {
    /// Takes a line from before the job's begin, or from after its end.
    fn boot_line(&mut self, _line: &str) {}
    /// Is told that the job begins.
    fn begin(&mut self) {}
    /// Takes output of the job, in pieces of any size.
    fn job_bytes(&mut self, _bytes: &[u8]) {}
    /// Takes a whole line of the job; returns what is to be shown at its end.
    fn job_line(&mut self, _line: &str) -> Option<String> {
        None
    }
    /// Says until when it waits for more, where that is sooner than the end of the run's time.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The status of the job, if it came to its end.
    pub status: Option<i32>,
    /// The exit status of QEMU, if it ended by itself.
    pub qemu: Option<i32>,
    /// Whether the deadline passed.
    pub timed_out: bool,
    /// The last lines of the console.
    pub tail: VecDeque<String>,
}

/// The exit status with which the firmware ends the machine after a fault of its own.
pub const CRASH_STATUS: i32 = 70;

impl Outcome {
    /// Says in a few words how the run ended, where it is not by the job's own status.
    pub fn failure(&self) -> Option<String> {
        match (self.status, self.qemu) {
            _ if self.timed_out => Some("no end before the timeout".into()),
            (_, Some(CRASH_STATUS)) => Some("EL2 stopped the machine; see its report".into()),
            (Some(_), _) => None,
            (None, Some(code)) => Some(format!("QEMU ended (status {code}) without the job's end")),
            (None, None) => Some("QEMU was killed without the job's end".into()),
        }
    }

    /// Says what went wrong, where a status other than 0 is wrong too.
    pub fn problem(&self) -> Option<String> {
        let status = self.status.filter(|status| *status != 0);
        self.failure().or_else(|| status.map(|status| format!("the job's status is {status}")))
    }

    /// Takes the last lines from the log where the console had none: there are QEMU's own errors.
    pub fn complete_tail(&mut self, log: &Path) {
        if self.tail.is_empty() {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            // The first is the command, which fills a screen and tells no cause.
            let lines: Vec<_> = text.lines().skip(1).collect();
            let from = lines.len().saturating_sub(TAIL_LINES);
            self.tail = lines[from..].iter().map(|line| (*line).to_owned()).collect();
        }
    }

    /// Returns the last lines as one text.
    pub fn tail_text(&self) -> String {
        self.tail.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// Follows a session to its end or to its deadline.
pub fn follow(
    mut session: Session,
    nonce: &str,
    mut deadline: Option<Instant>,
    sink: &mut dyn Sink,
) -> Result<Outcome> {
    let mut splitter = Splitter::new(nonce);
    loop {
        let until = deadline.into_iter().chain(sink.deadline()).min();
        match session.next(until) {
            Event::Bytes(bytes) => {
                splitter.push(&bytes, sink);
                if splitter.outcome.status.is_some() && !splitter.ending {
                    splitter.ending = true;
                    let soon = Instant::now() + POWER_OFF;
                    deadline = Some(deadline.map_or(soon, |at| at.min(soon)));
                }
            }
            Event::End => break,
            Event::Timeout => {
                splitter.outcome.timed_out = true;
                session.kill();
                return Ok(splitter.finish(sink));
            }
        }
    }
    splitter.outcome.qemu = session.wait()?.code();
    Ok(splitter.finish(sink))
}

/// Cuts the console into lines, and those into what may be shown already and what may not yet.
struct Splitter {
    begin: String,
    exit: String,
    line: Vec<u8>,
    shown: usize,
    blank: Vec<u8>,
    begun: bool,
    ending: bool,
    outcome: Outcome,
}

impl Splitter {
    fn new(nonce: &str) -> Self {
        Self {
            begin: format!("verdigris-begin {nonce}"),
            exit: format!("verdigris-exit {nonce} "),
            line: Vec::new(),
            shown: 0,
            blank: Vec::new(),
            begun: false,
            ending: false,
            outcome: Outcome::default(),
        }
    }

    fn push(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line(sink);
            } else {
                self.line.push(byte);
            }
        }
        self.show_partial(sink);
    }

    /// Handles a complete line.
    fn end_line(&mut self, sink: &mut dyn Sink) {
        let bytes = std::mem::take(&mut self.line);
        let shown = std::mem::take(&mut self.shown);
        let text = String::from_utf8_lossy(&bytes).trim_matches('\r').to_owned();
        if self.outcome.status.is_some() {
            // The kernel's last words are as little the job's as its first.
            return sink.boot_line(&text);
        }
        if !self.begun {
            if text.contains(&self.begin) {
                self.begun = true;
                return sink.begin();
            }
            self.keep(&text);
            return sink.boot_line(&text);
        }
        if let Some(at) = find(&bytes, self.exit.as_bytes()) {
            // The kernel's last words may follow without an end of line.
            self.outcome.status = leading_number(&bytes[at + self.exit.len()..]);
            if at > 0 {
                self.show_blank(sink);
            }
            self.blank.clear();
            return sink.job_bytes(&bytes[shown..at.max(shown)]);
        }
        self.show_blank(sink);
        if shown == 0 && text.is_empty() {
            // The host ends whatever line there is before our own: an empty one may be its.
            self.blank = [&bytes[..], b"\n"].concat();
            return;
        }
        self.keep(&text);
        sink.job_bytes(&bytes[shown..]);
        if let Some(remark) = sink.job_line(&text) {
            sink.job_bytes(remark.as_bytes());
        }
        sink.job_bytes(b"\n");
    }

    /// Shows an empty line that was held back, now that it is known to be the job's.
    fn show_blank(&mut self, sink: &mut dyn Sink) {
        if !self.blank.is_empty() {
            sink.job_line("");
            sink.job_bytes(&std::mem::take(&mut self.blank));
        }
    }

    /// Shows what stands after the last end of line, as far as it cannot be one of ours.
    fn show_partial(&mut self, sink: &mut dyn Sink) {
        if !self.begun || self.outcome.status.is_some() || self.line == b"\r" {
            return;
        }
        let exit = self.exit.as_bytes();
        let safe = find(&self.line, exit).unwrap_or_else(|| {
            let held = (1..=exit.len().min(self.line.len()))
                .rev()
                .find(|&n| self.line.ends_with(&exit[..n]));
            self.line.len() - held.unwrap_or(0)
        });
        if safe > self.shown {
            self.show_blank(sink);
            sink.job_bytes(&self.line[self.shown..safe]);
            self.shown = safe;
        }
    }

    fn keep(&mut self, line: &str) {
        if self.outcome.tail.len() == TAIL_LINES {
            self.outcome.tail.pop_front();
        }
        self.outcome.tail.push_back(line.to_owned());
    }

    fn finish(mut self, sink: &mut dyn Sink) -> Outcome {
        if !self.line.is_empty() {
            self.end_line(sink);
        }
        self.show_blank(sink);
        self.outcome
    }
}

/// Reads the number that bytes begin with, whatever stands behind it.
fn leading_number(bytes: &[u8]) -> Option<i32> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder {
        boot: Vec<String>,
        shown: Vec<u8>,
        lines: Vec<String>,
    }

    impl Sink for Recorder {
        fn boot_line(&mut self, line: &str) {
            self.boot.push(line.to_owned());
        }
        fn job_bytes(&mut self, bytes: &[u8]) {
            self.shown.extend(bytes);
        }
        fn job_line(&mut self, line: &str) -> Option<String> {
            self.lines.push(line.to_owned());
            line.contains("image+0x").then(|| " = here".to_owned())
        }
    }

    const CONSOLE: &[u8] = b"boot 1\r\nverdigris-begin n\r\nhello\r\nat image+0x10\n\
        verdigris-exit m 1\r\n# verdigris-exit n 42\r\n[ 2.5] Power down\r\n";

    #[test]
    fn our_lines_are_taken_out_however_the_bytes_are_cut() {
        for size in 1..CONSOLE.len() {
            let (mut splitter, mut sink) = (Splitter::new("n"), Recorder::default());
            CONSOLE.chunks(size).for_each(|bytes| splitter.push(bytes, &mut sink));
            let outcome = splitter.finish(&mut sink);
            assert_eq!(outcome.status, Some(42));
            assert_eq!(sink.boot, ["boot 1", "[ 2.5] Power down"]);
            assert_eq!(sink.lines, ["hello", "at image+0x10", "verdigris-exit m 1"]);
            let shown = String::from_utf8(sink.shown).unwrap();
            assert_eq!(shown, "hello\r\nat image+0x10 = here\nverdigris-exit m 1\r\n# ");
        }
    }

    #[test]
    fn the_status_is_found_however_its_line_is_glued() {
        for (console, shown) in [
            ("verdigris-begin n\r\nhello\r\n\r\nverdigris-exit n 7\r\n", "hello\r\n"),
            (
                "verdigris-begin n\nno end\nverdigris-exit n 7[   17.4] reboot: Power down\n",
                "no end\n",
            ),
            ("verdigris-begin n\nverdigris-exit n 7reboot: Power down", ""),
            ("verdigris-begin n\na\n\n\n\nverdigris-exit n 7\n", "a\n\n\n"),
            ("verdigris-begin n\na\n\n\nverdigris-exit n 7\n", "a\n\n"),
            ("verdigris-begin n\na\r\n\r\n# verdigris-exit n 7\n", "a\r\n\r\n# "),
            ("verdigris-begin n\n[ 1.5] x\r\n\r\nverdigris-exit n 7\n", "[ 1.5] x\r\n"),
        ] {
            for size in 1..console.len() {
                let (mut splitter, mut sink) = (Splitter::new("n"), Recorder::default());
                console.as_bytes().chunks(size).for_each(|bytes| splitter.push(bytes, &mut sink));
                assert_eq!(splitter.finish(&mut sink).status, Some(7), "{console:?}");
                assert_eq!(String::from_utf8(sink.shown).unwrap(), shown, "{console:?}");
            }
        }
    }

    #[test]
    fn a_prompt_shows_at_once() {
        let (mut splitter, mut sink) = (Splitter::new("n"), Recorder::default());
        splitter.push(b"verdigris-begin n\nhost:~# ", &mut sink);
        assert_eq!(sink.shown, b"host:~# ");
        splitter.push(b"v", &mut sink);
        assert_eq!(sink.shown, b"host:~# ");
        splitter.push(b"i", &mut sink);
        assert_eq!(sink.shown, b"host:~# vi");
    }

    #[test]
    fn an_end_without_status_is_a_failure() {
        let outcome =
            |status, qemu, timed_out| Outcome { status, qemu, timed_out, ..Default::default() };
        assert_eq!(outcome(Some(3), Some(0), false).failure(), None);
        for failed in [
            outcome(None, Some(0), false),
            outcome(Some(0), Some(70), false),
            outcome(None, None, true),
            outcome(None, None, false),
        ] {
            assert!(failed.failure().is_some(), "{failed:?}");
        }
    }
}
