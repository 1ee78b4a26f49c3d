//! `cargo xtask doctor`: says what is there and what is missing, and does nothing.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::json;
use crate::setup::{self, HostKernel, Tools, rust};

/// Options of the doctor.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Tell it in JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Reports; the exit status tells whether a run could start, be it after set-up.
pub fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    let mut report = Report { can_run: true, json: args.json };
    let can_fetch = setup::apt::Mirror::find();
    match &can_fetch {
        Ok(mirror) => {
            report.fine("packages", format!("from this machine's mirror, suite {}", mirror.suite));
        }
        Err(error) => report.note("packages", format!("{error:#}")),
    }
    report.rust();
    let tools = Tools::open();
    let qemu = tools.qemu().and_then(|qemu| setup::qemu_version(&qemu));
    let qemu = qemu.map(|(major, minor)| format!("version {major}.{minor}"));
    report.fetched("QEMU", qemu, can_fetch.is_ok());
    report.fetched("cross compiler", tools.compiler().map(|()| "there"), can_fetch.is_ok());
    let kernel = HostKernel::open().context("the host's kernel is not fetched");
    let kernel = kernel.map(|kernel| kernel.image.display().to_string());
    report.fetched("host kernel", kernel, can_fetch.is_ok());
    let busybox = setup::busybox().map(|file| file.display().to_string());
    report.fetched("busybox", busybox, can_fetch.is_ok());
    Ok(if report.can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Report {
    can_run: bool,
    json: bool,
}

impl Report {
    fn tell(&self, state: &str, what: &str, text: &dyn Display) {
        if self.json {
            let (state, text) = (state.to_lowercase(), text.to_string());
            println!("{}", json::object(&[("state", &state), ("what", what), ("text", &text)]));
        } else {
            println!("{state:<8} {what}: {text}");
        }
    }

    fn fine(&self, what: &str, how: impl Display) {
        self.tell("ok", what, &how);
    }

    fn note(&self, what: &str, why: impl Display) {
        self.tell("note", what, &why);
    }

    fn missing(&mut self, what: &str, why: impl Display) {
        self.tell("MISSING", what, &why);
        self.can_run = false;
    }

    /// Reports something that set-up would fetch.
    fn fetched(&mut self, what: &str, state: Result<impl Display>, can_fetch: bool) {
        match state {
            Ok(how) => self.fine(what, how),
            Err(_) if can_fetch => self.note(what, "not there yet; run, test and setup fetch it"),
            Err(why) => self.missing(what, format!("{why:#}")),
        }
    }

    fn rust(&mut self) {
        let missing = match rust::missing() {
            Ok(missing) => missing,
            Err(why) => return self.missing("Rust", format!("{why:#}")),
        };
        if missing.is_empty() {
            self.fine("Rust", "targets and source are there");
        } else if crate::command::find("rustup").is_some() {
            self.note("Rust", format!("run, test and setup add: {}", missing.join(", ")));
        } else {
            self.missing("Rust", rust::hint(&missing));
        }
    }
}
