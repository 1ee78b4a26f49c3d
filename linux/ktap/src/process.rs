//! Runs one process to its end, or for as long as it may take, with all that it starts.
//!
//! A test starts processes itself, and those can outlive it: they hold the pipe that its output comes through, and would hold
//! up whoever waits for the end of that. So a test is a process group, and nothing of the group outlives the test's own
//! process; what was written until then is kept however it ended.
#![allow(unsafe_code)]

use std::io::{PipeReader, Read, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process may take to go that was killed, and its output to come to an end.
const GRACE: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// In its time.
    By(ExitStatus),
    /// It was killed, since its time was over.
    Killed,
    /// Its time was over, and the kernel doesn't let go of it.
    Stuck,
}

/// Runs a command as a group of its own; returns how it ended, and what it wrote to both of its outputs.
pub fn run(command: &mut Command, limit: Duration) -> (Ended, String) {
    let (reader, writer) = pipe().expect("a pipe");
    command.stdin(Stdio::null()).process_group(0);
    command.stdout(writer.try_clone().expect("a pipe")).stderr(writer);
    let mut child = command.spawn().expect("the program can be started");
    // The command holds two ends of the pipe for as long as it is set so.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let output = Output::collect(reader);
    let status = wait(&mut child, limit);
    kill_group(&child);
    let ended = match status {
        Some(status) => Ended::By(status),
        None if wait(&mut child, GRACE).is_some() => Ended::Killed,
        None => Ended::Stuck,
    };
    (ended, output.take())
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

/// Kills what is left of a child's group.
fn kill_group(child: &Child) {
    // SAFETY: two numbers. The group has the number of the child that began it, and as long as somebody is in it the kernel
    // gives that number to nobody else; where nobody is, this is an error that changes nothing.
    unsafe { libc::killpg(child.id().cast_signed(), libc::SIGKILL) };
}

/// What comes out of a pipe.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Output {
    /// Begins to collect, on a thread.
    fn collect(reader: PipeReader) -> Self {
        let (bytes, (at_end, end)) = (Arc::default(), channel());
        let into = Arc::clone(&bytes);
        thread::spawn(move || copy(reader, &into, &at_end));
        Self { bytes, end }
    }

    /// Waits for the end, but not for ever, and returns what has come.
    fn take(self) -> String {
        _ = self.end.recv_timeout(GRACE);
        let bytes = self.bytes.lock().expect("the collector doesn't panic");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn copy(mut reader: PipeReader, into: &Mutex<Vec<u8>>, at_end: &Sender<()>) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        into.lock().expect("nobody panics with the bytes").extend(&piece[..count]);
    }
    // Nobody may be left to be told.
    _ = at_end.send(());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (Ended, String, Duration) {
        let began = Instant::now();
        let (ended, output) = run(Command::new("sh").args(["-c", script]), limit);
        (ended, output, began.elapsed())
    }

    const LONG: Duration = Duration::from_secs(100);
    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn both_outputs_and_the_status_arrive() {
        let (ended, output, _) = shell("echo one; echo two >&2; exit 3", LONG);
        assert!(matches!(ended, Ended::By(status) if status.code() == Some(3)), "{ended:?}");
        assert_eq!(output, "one\ntwo\n");
    }

    #[test]
    fn a_child_that_is_left_behind_holds_nobody_up() {
        let (ended, output, took) = shell("sleep 100 & echo $!", LONG);
        assert!(matches!(ended, Ended::By(status) if status.success()), "{ended:?}");
        assert!(took < GRACE, "{took:?}");
        wait_for_the_end_of(output.trim());
    }

    #[test]
    fn a_time_that_is_over_ends_the_whole_group_and_keeps_what_it_wrote() {
        let (ended, output, took) = shell("sleep 100 & echo $!; wait", SHORT);
        assert_eq!(ended, Ended::Killed);
        assert!(took >= SHORT && took < GRACE, "{took:?}");
        wait_for_the_end_of(output.trim());
    }

    /// Waits until a process is gone, or dead and not yet buried by whoever inherited it.
    fn wait_for_the_end_of(process: &str) {
        assert!(process.parse::<u32>().is_ok(), "{process:?} is no process");
        let is_alive = || {
            let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            text.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
        };
        let end = Instant::now() + GRACE;
        while is_alive() {
            assert!(Instant::now() < end, "{process} lives on");
            thread::sleep(Duration::from_millis(2));
        }
    }
}
