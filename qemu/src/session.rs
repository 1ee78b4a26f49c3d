//! One run of one fresh machine: its process, its console, its deadline.
//!
//! A thread of its own copies the console into the log and hands it on, so that the log is
//! complete whatever the reader does, and so that waiting has a deadline.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{Invocation, Machine, process::die_with_parent};

/// The emulator, and where it finds the libraries that came with it.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program `qemu-system-aarch64`.
    pub program: PathBuf,
    /// Directories to put before the system's library path.
    pub library_path: Option<String>,
}

/// What the console had to say.
#[derive(Debug)]
pub enum Event {
    /// Some bytes, not necessarily whole lines.
    Bytes(Vec<u8>),
    /// QEMU closed the console: it is ending.
    End,
    /// The deadline passed first.
    Timeout,
}

/// A running machine. Dropping it ends it.
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    console: Receiver<Vec<u8>>,
    reader: Option<JoinHandle<()>>,
}

impl Qemu {
    /// Makes a command of the emulator without arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(path) = &self.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        command
    }

    /// Returns what the emulator has against a machine, in its own words; nothing runs on it.
    pub fn refusal(&self, machine: &Machine) -> Result<Option<String>> {
        let mut command = self.command();
        command.args(machine.bare_arguments()).args(["-S", "-serial", "none", "-monitor", "stdio"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        die_with_parent(&mut command);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        // It may have ended already: its status tells.
        let _ = child.stdin.take().map(|mut monitor| monitor.write_all(b"quit\n"));
        let output = child.wait_with_output().context("cannot wait for QEMU")?;
        if output.status.success() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let lines = text.lines().map(|line| line.trim_start_matches("qemu-system-aarch64: "));
        Ok(Some(lines.collect::<Vec<_>>().join("\n")))
    }

    /// Starts a machine, whose console and errors go to `log` from the first byte.
    pub fn start(&self, invocation: &Invocation, log: &Path) -> Result<Session> {
        let mut file = create(log)?;
        let mut command = self.command();
        command.args(invocation.arguments()?);
        writeln!(file, "{command:?}")?;
        command.stdout(Stdio::piped()).stderr(file.try_clone()?);
        command.stdin(if invocation.interactive { Stdio::piped() } else { Stdio::null() });
        die_with_parent(&mut command);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("QEMU has no output")?;
        let (sender, console) = channel();
        let reader = std::thread::spawn(move || copy_console(output, file, sender));
        Ok(Session { child, input, console, reader: Some(reader) })
    }
}

impl Session {
    /// Waits for console output until the deadline, if there is one.
    pub fn next(&mut self, deadline: Option<Instant>) -> Event {
        let received = match deadline {
            None => self.console.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => self.console.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok(bytes) => Event::Bytes(bytes),
            Err(RecvTimeoutError::Timeout) => Event::Timeout,
            Err(RecvTimeoutError::Disconnected) => Event::End,
        }
    }

    /// Takes the console's input, of an interactive machine.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// Waits for QEMU to end and returns how it did.
    pub fn wait(mut self) -> Result<ExitStatus> {
        let status = self.child.wait().context("cannot wait for QEMU")?;
        self.join_reader();
        Ok(status)
    }

    /// Ends QEMU at once.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself: there is nothing to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_reader();
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.reader.is_some() {
            self.end();
        }
    }
}

fn create(log: &Path) -> Result<File> {
    if let Some(parent) = log.parent() {
        std::fs::create_dir_all(parent)?;
    }
    File::create(log).with_context(|| format!("cannot write {}", log.display()))
}

fn copy_console(mut output: impl Read, mut log: File, sender: Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        // A full disk must not stop the machine: the reader still sees every byte.
        let _ = log.write_all(&buffer[..count]);
        let _ = sender.send(buffer[..count].to_vec());
    }
}

/// Cuts console bytes into lines, without their ends.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
    ready: VecDeque<String>,
}

impl Lines {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                self.ready.push_back(Self::text(&line));
            } else {
                self.partial.push(byte);
            }
        }
    }

    /// Returns what stands after the last end of line, and forgets it.
    pub fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    fn text(line: &[u8]) -> String {
        String::from_utf8_lossy(line).trim_end_matches('\r').trim_start_matches('\r').to_owned()
    }
}

impl Iterator for Lines {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, Host};

    #[test]
    fn lines_are_cut_and_cleaned() {
        let mut lines = Lines::default();
        lines.push(b"one\r\ntw");
        assert_eq!(lines.next().as_deref(), Some("one"));
        assert_eq!(lines.next(), None);
        lines.push(b"o\nrest");
        assert_eq!(lines.next().as_deref(), Some("two"));
        assert_eq!(lines.take_partial(), b"rest");
    }

    /// Runs a shell in place of QEMU: the session is about processes, not about machines.
    fn shell(name: &str, script: &str) -> (Session, PathBuf) {
        let dir =
            std::env::temp_dir().join(format!("verdigris-session-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let program = dir.join("qemu");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mut mode = std::fs::metadata(&program).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let host = Host { kernel: "k".into(), ramdisk: "r".into(), args: String::new() };
        let (machine, boot) = (Machine::default(), Boot::Bare(host));
        let invocation =
            Invocation { machine, boot, disk: None, gdb_port: None, interactive: false };
        let qemu = Qemu { program, library_path: None };
        let log = dir.join("log");
        (qemu.start(&invocation, &log).unwrap(), log)
    }

    #[test]
    fn console_status_and_log_are_kept() {
        let (mut session, log) = shell("status", "echo hello; echo trouble >&2; exit 7");
        let mut lines = Lines::default();
        while let Event::Bytes(bytes) = session.next(None) {
            lines.push(&bytes);
        }
        assert_eq!(lines.next().as_deref(), Some("hello"));
        assert_eq!(session.wait().unwrap().code(), Some(7));
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("virtualization=off"), "{log}");
        assert!(log.contains("hello\n") && log.contains("trouble\n"), "{log}");
    }

    #[test]
    fn deadline_ends_the_wait_and_drop_ends_the_machine() {
        let (mut session, _) = shell("deadline", "exec sleep 600");
        let deadline = Instant::now() + std::time::Duration::from_millis(100);
        assert!(matches!(session.next(Some(deadline)), Event::Timeout));
        let started = Instant::now();
        drop(session);
        assert!(started.elapsed().as_secs() < 60);
    }
}
