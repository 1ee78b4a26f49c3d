//! What a user sees of a run: the firmware's own lines, the host's boot in one line, the job.

use std::io::{IsTerminal, Write};

use indicatif::ProgressBar;

use crate::console::Sink;
use crate::symbols::Symbols;

/// How the firmware's lines begin.
const FIRMWARE: &str = "verdigris";

/// Shows a run on standard output.
pub struct Display {
    verbose: bool,
    raw: bool,
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
    pub fn new(symbols: Symbols, verbose: bool, raw: bool) -> Self {
        let quiet = !verbose && std::io::stderr().is_terminal();
        let spinner = quiet.then(|| crate::progress::spinner("starting the machine"));
        Self { verbose, raw, symbols, spinner, boot: BootSummary::default(), on_begin: None }
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
            return self.print(bytes);
        }
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
}
