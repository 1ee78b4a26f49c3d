//! The firmware's own command line: log level, crash action, feature mask.
//!
//! The line is `/chosen/bootargs` of the device tree that the firmware was started with. A word that
//! is not understood never stops the boot: a machine that comes up with a warning can be mended, one
//! that does not cannot. Each such word is reported, with what would have been understood.

use crate::cpu::Features;
use core::fmt;

#[cfg(test)]
mod tests;

/// How much the firmware says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing but the banner and a report of a crash.
    Off,
    /// What is wrong with EL2 itself.
    Error,
    /// What the host does wrong.
    Warn,
    /// What a user may want to know.
    Info,
    /// What a developer may want to know.
    Debug,
    /// Each call.
    Trace,
}

/// What the machine does after the report of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashAction {
    /// Stays as it is: safe everywhere, and the report stays on the screen.
    Spin,
    /// Ends the emulator with a code of its own, by semihosting. Needs an emulator that offers it.
    Semihosting,
    /// Switches the machine off by PSCI.
    Off,
    /// Resets the machine by PSCI.
    Reset,
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `log=`.
    pub log: LogLevel,
    /// `crash=`.
    pub crash: CrashAction,
    /// `ha=`, `hd=`, `tlbirange=`, `ttl=`, `fwb=`, `vmid=`, `bbm=`, `epoch=`.
    pub mask: Features,
    /// `counter=`: keeps one event counter from the host, to count instructions of EL2 with.
    pub reserve_counter: bool,
    /// `hot=`: for how many GiB that may come after boot there is to be room; `None`: for as much as there is.
    pub hot_gib: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: LogLevel::Warn,
            crash: CrashAction::Spin,
            mask: Features::ALL,
            reserve_counter: false,
            hot_gib: None,
        }
    }
}

/// A word that was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem<'a> {
    /// The word.
    pub word: &'a str,
    /// The values that its name takes; `None` where the name itself is unknown.
    pub values: Option<&'static str>,
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.values {
            Some(values) => {
                write!(f, "option `{}` ignored: the value is one of {values}", self.word)
            }
            None => {
                write!(f, "option `{}` ignored: known are", self.word)?;
                KNOWN.iter().try_for_each(|option| write!(f, " {}={}", option.name, option.values))
            }
        }
    }
}

/// Sets the option to a value; `None` where it takes no such value.
type Set = fn(&mut Options, &str) -> Option<()>;

/// An option of the command line.
struct Known {
    name: &'static str,
    values: &'static str,
    set: Set,
}

const SWITCH: &str = "on|off";

const KNOWN: &[Known] = &[
    Known {
        name: "log",
        values: "off|error|warn|info|debug|trace",
        set: |options, value| log_level(value).map(|level| options.log = level),
    },
    Known {
        name: "crash",
        values: "spin|semihosting|off|reset",
        set: |options, value| crash_action(value).map(|action| options.crash = action),
    },
    Known {
        name: "ha",
        values: SWITCH,
        set: |options, value| switch(value).map(|on| options.mask.hardware_access_flag = on),
    },
    Known {
        name: "hd",
        values: SWITCH,
        set: |options, value| switch(value).map(|on| options.mask.hardware_dirty = on),
    },
    Known {
        name: "tlbirange",
        values: SWITCH,
        set: |options, value| switch(value).map(|on| options.mask.tlb_range = on),
    },
    Known {
        name: "ttl",
        values: SWITCH,
        set: |options, value| switch(value).map(|on| options.mask.ttl = on),
    },
    Known {
        name: "fwb",
        values: SWITCH,
        set: |options, value| switch(value).map(|on| options.mask.forced_write_back = on),
    },
    Known {
        name: "vmid",
        values: "3|4|5|6|7|8|16",
        set: |options, value| {
            one_of(value, &[3, 4, 5, 6, 7, 8, 16]).map(|bits| options.mask.vmid_bits = bits)
        },
    },
    Known {
        name: "bbm",
        values: "0|1|2",
        set: |options, value| one_of(value, &[0, 1, 2]).map(|level| options.mask.bbm_level = level),
    },
    Known {
        name: "epoch",
        values: SWITCH,
        set: |options, value| switch(value).map(|on| options.mask.flush_epoch = on),
    },
    Known {
        name: "counter",
        values: SWITCH,
        set: |options, value| switch(value).map(|on| options.reserve_counter = on),
    },
    Known {
        name: "hot",
        values: "0..1024",
        set: |options, value| {
            let gib = value.parse().ok().filter(|&gib| gib <= 1024);
            gib.map(|gib| options.hot_gib = Some(gib))
        },
    },
];

impl Options {
    /// Reads a command line, and reports each word that it does not understand.
    pub fn parse<'a>(line: &'a str, mut report: impl FnMut(Problem<'a>)) -> Self {
        let mut options = Self::default();
        for word in line.split_ascii_whitespace() {
            if let Err(problem) = options.apply(word) {
                report(problem);
            }
        }
        options
    }

    fn apply<'a>(&mut self, word: &'a str) -> Result<(), Problem<'a>> {
        let unknown = Problem { word, values: None };
        let (name, value) = word.split_once('=').ok_or(unknown)?;
        let known = KNOWN.iter().find(|known| known.name == name).ok_or(unknown)?;
        (known.set)(self, value).ok_or(Problem { word, values: Some(known.values) })
    }
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn one_of(value: &str, allowed: &[u32]) -> Option<u32> {
    value.parse().ok().filter(|number| allowed.contains(number))
}

fn log_level(value: &str) -> Option<LogLevel> {
    Some(match value {
        "off" => LogLevel::Off,
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => return None,
    })
}

fn crash_action(value: &str) -> Option<CrashAction> {
    Some(match value {
        "spin" => CrashAction::Spin,
        "semihosting" => CrashAction::Semihosting,
        "off" => CrashAction::Off,
        "reset" => CrashAction::Reset,
        _ => return None,
    })
}
