//! What a user sees of a run: the firmware's own lines, the host's boot in one line, the job.

use std::io::{IsTerminal, Write};

use indicatif::ProgressBar;

use crate::console::Sink;
use crate::symbols::Symbols;
use crate::terminal;

/// How the firmware's lines begin.
const FIRMWARE: &str = "verdigris";

/// Shows a run on standard output.
pub struct Display {
    verbose: bool,
    raw: bool,
    /// Where the job's output is known to have no such lines itself: keeps the kernel's apart.
    aside: Option<Aside>,
    uses_other_screen: bool,
    symbols: Symbols,
    spinner: Option<ProgressBar>,
    boot: BootSummary,
    on_begin: Option<Box<dyn FnOnce()>>,
}

/// What the kernel's own messages tell about the host.
#[derive(Default)]
struct BootSummary {
    version: String,
    cpus: String,
    seconds: String,
}

impl Display {
    /// Makes a display; `raw` where the terminal passes all bytes through.
    pub fn new(symbols: Symbols, verbose: bool, raw: bool, waits: Option<&str>) -> Self {
        let quiet = !verbose && std::io::stderr().is_terminal();
        let message = waits.unwrap_or("starting the machine");
        let spinner = quiet.then(|| crate::progress::spinner(message));
        let (boot, on_begin, aside, uses_other_screen) =
            (BootSummary::default(), None, None, false);
        Self { verbose, raw, aside, uses_other_screen, symbols, spinner, boot, on_begin }
    }

    /// Takes lines of the host's kernel out of the job's, which has none itself, and shows them behind it.
    pub fn keep_kernel_aside(&mut self) {
        self.aside = Some(Aside::default());
    }

    /// Does something once the job begins.
    pub fn on_begin(&mut self, action: impl FnOnce() + 'static) {
        self.on_begin = Some(Box::new(action));
    }

    fn print(&mut self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        // Nobody is there to be told where the output was closed.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    fn print_line(&mut self, line: &str) {
        let line = format!("{line}{}\n", self.job_line(line).unwrap_or_default());
        match self.spinner.take() {
            Some(spinner) => {
                spinner.suspend(|| self.print(line.as_bytes()));
                self.spinner = Some(spinner);
            }
            None => self.print(line.as_bytes()),
        }
    }
}

impl Sink for Display {
    fn boot_line(&mut self, line: &str) {
        self.boot.read(line);
        if self.verbose || line.starts_with(FIRMWARE) || line.contains("Kernel panic") {
            self.print_line(line);
        } else if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("host: {line}"));
        }
    }

    fn begin(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        self.print(format!("host: {}\n", self.boot.text()).as_bytes());
        if let Some(action) = self.on_begin.take() {
            action();
        }
    }

    fn job_bytes(&mut self, bytes: &[u8]) {
        if self.raw {
            self.uses_other_screen = terminal::uses_other_screen(self.uses_other_screen, bytes);
            return self.print(bytes);
        }
        let bytes = self.aside.as_mut().map_or_else(|| bytes.to_vec(), |aside| aside.take(bytes));
        let cooked: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
        self.print(&cooked);
    }

    fn job_line(&mut self, line: &str) -> Option<String> {
        self.symbols.explain(line).map(|name| format!("  {name}"))
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        if self.raw && std::io::stdout().is_terminal() {
            self.print(&terminal::calm(self.uses_other_screen));
        }
        if let Some(aside) = self.aside.take() {
            let (rest, lines) = aside.end();
            self.print(&rest);
            if !lines.is_empty() {
                eprintln!("The host's kernel said meanwhile:\n{}", lines.join("\n"));
            }
        }
    }
}

/// Takes lines of the kernel out of what a program writes. They come whole, at any place of a line of the program's,
/// and begin with the kernel's clock: `[   12.345678] `.
#[derive(Default)]
struct Aside {
    /// What may become a clock, or the line behind one.
    held: Vec<u8>,
    lines: Vec<String>,
}

impl Aside {
    /// Takes bytes as they come, and returns those that are the program's.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut own = Vec::new();
        for &byte in bytes {
            self.held.push(byte);
            match clock(&self.held) {
                Clock::Is if byte == b'\n' => {
                    let line =
                        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned();
                    self.lines.push(line.trim_end().to_owned());
                }
                Clock::Is | Clock::MayBe => {}
                Clock::IsNot => {
                    // The byte that it broke at may begin another.
                    let last =
                        self.held.pop().filter(|byte| *byte == b'[' && !self.held.is_empty());
                    own.append(&mut self.held);
                    match last {
                        Some(last) => self.held.push(last),
                        None => own.push(byte),
                    }
                }
            }
        }
        own
    }

    fn end(self) -> (Vec<u8>, Vec<String>) {
        (self.held, self.lines)
    }
}

/// Whether bytes begin with the kernel's clock.
#[derive(Debug, PartialEq, Eq)]
enum Clock {
    Is,
    MayBe,
    IsNot,
}

fn clock(bytes: &[u8]) -> Clock {
    /// What may come next, in its order: an opening bracket, spaces, seconds, a point, six digits, a closing bracket.
    const FRACTION_DIGITS: usize = 6;
    let Some(rest) = bytes.strip_prefix(b"[") else { return Clock::IsNot };
    let rest = rest.trim_ascii_start();
    let seconds = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let fraction = match &rest[seconds..] {
        [] => return Clock::MayBe,
        [b'.', fraction @ ..] if seconds > 0 => fraction,
        _ => return Clock::IsNot,
    };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match &fraction[digits..] {
        [] if digits <= FRACTION_DIGITS => Clock::MayBe,
        [b']', ..] if digits == FRACTION_DIGITS => Clock::Is,
        _ => Clock::IsNot,
    }
}

impl BootSummary {
    fn read(&mut self, line: &str) {
        let Some((stamp, text)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] "))
        else {
            return;
        };
        stamp.trim().clone_into(&mut self.seconds);
        if let Some(version) = text.strip_prefix("Linux version ") {
            version.split(' ').next().unwrap_or_default().clone_into(&mut self.version);
        } else if let Some(rest) = text.split("Total of ").nth(1) {
            rest.split(' ').next().unwrap_or_default().clone_into(&mut self.cpus);
        }
    }

    fn text(&self) -> String {
        let cpus = if self.cpus.is_empty() { "1" } else { &self.cpus };
        let seconds: f32 = self.seconds.parse().unwrap_or_default();
        format!("Linux {} on {cpus} CPU(s), up after {seconds:.1} s", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_is_told_in_one_line() {
        let mut boot = BootSummary::default();
        for line in [
            "verdigris: banner",
            "[    0.000000] Linux version 6.12.95+deb12-arm64 (debian-kernel@lists.debian.org) x",
            "[    0.150000] smp: Brought up 1 node, 4 CPUs",
            "[    0.160000] SMP: Total of 4 processors activated.",
            "[    2.345678] Run /init as init process",
        ] {
            boot.read(line);
        }
        assert_eq!(boot.text(), "Linux 6.12.95+deb12-arm64 on 4 CPU(s), up after 2.3 s");
    }

    #[test]
    fn lines_of_the_kernel_are_kept_out_of_pictures() {
        let console = b"  |##[   17.400000] rcu: INFO: stall\r\n##|\n[[ 1.5] [no] [12] x[3\n\
            [  118.000001] rcu: two\n[   1";
        for size in 1..console.len() {
            let mut aside = Aside::default();
            let mut own: Vec<u8> = Vec::new();
            console.chunks(size).for_each(|bytes| own.extend(aside.take(bytes)));
            let (rest, lines) = aside.end();
            own.extend(rest);
            assert_eq!(String::from_utf8(own).unwrap(), "  |####|\n[[ 1.5] [no] [12] x[3\n[   1");
            assert_eq!(lines, ["[   17.400000] rcu: INFO: stall", "[  118.000001] rcu: two"]);
        }
    }
}
