//! What calls cost, in instructions of EL2.
//!
//! The firmware counts its own instructions in a counter that it keeps from the host (its option
//! `counter=on`), and tells them as a statistic, where it has it. Without that, all there is
//! is the system counter, which under icount counts instructions too, but those of the host and of
//! the device as well: then each figure is a difference between two loops that differ in one thing.

use std::process::ExitCode;

use verdigris_abi::{STAT_NAMES, call, flags};
use verdigris_guest::{program, touch};

use crate::firmware::Statistics;
use crate::guest::{DATA, Guest};
use crate::raw::raw;
use crate::sys;
use crate::vm::RW;

/// The name of the statistic, should this version of the interface have it.
const INSTRUCTIONS: &str = "STAT_EL2_INSTRUCTIONS";
const REPEATS: u64 = 64;
const PAGES: u64 = 512;

/// What is read before and after.
enum Meter {
    /// Instructions of EL2, by the index of the statistic.
    Firmware(usize),
    /// Ticks of the system counter: of everything.
    Counter,
}

impl Meter {
    fn find() -> Self {
        match STAT_NAMES.iter().position(|name| *name == INSTRUCTIONS) {
            Some(index) if Statistics::read(0).by_index(index) > 0 => Self::Firmware(index),
            _ => Self::Counter,
        }
    }

    fn read(&self) -> u64 {
        match self {
            Self::Firmware(index) => {
                let (first, offset) = (index - index % 16, index % 16);
                raw().call(call::STATISTICS, &[0, first as u64]).0[2 + offset]
            }
            Self::Counter => sys::counter(),
        }
    }

    /// Measures an action, prepared anew each time: the least of several, less the cost of measuring.
    fn measure(&self, mut prepare: impl FnMut(), mut action: impl FnMut()) -> u64 {
        let mut nothing = u64::MAX;
        let mut least = u64::MAX;
        for _ in 0..REPEATS {
            prepare();
            let begin = self.read();
            let before = self.read();
            action();
            let after = self.read();
            nothing = nothing.min(before - begin);
            least = least.min(after - before);
        }
        least.saturating_sub(nothing)
    }
}

/// Prints a line for each figure: name and number.
pub fn run() -> ExitCode {
    _ = sys::run_on(sys::cpus()[0]);
    let meter = Meter::find();
    match meter {
        Meter::Firmware(_) => println!("# instructions of EL2"),
        Meter::Counter => println!("# ticks of the system counter, host included"),
    }
    let guest = Guest::new(1);
    let _data = guest.with_data(PAGES as usize, RW);
    for (name, value) in figures(&meter, &guest) {
        println!("{name} {value}");
    }
    ExitCode::SUCCESS
}

fn figures(meter: &Meter, guest: &Guest) -> Vec<(&'static str, u64)> {
    let (vcpu, vm) = (guest.cpu(0), guest.handle());
    let prepare_touch = || vcpu.prepare(program::TOUCH, &[DATA, PAGES, 1, touch::READ, 0]);
    let make_young = || {
        prepare_touch();
        vcpu.run();
    };
    let make_old = || _ = guest.age(DATA, PAGES, flags::AGE_FLUSH_ALL);
    let age = || _ = raw().call(call::AGE, &[vm, DATA, PAGES, flags::AGE_NO_FLUSH]);
    let run = || _ = vcpu.run();
    let null = meter.measure(|| (), || _ = raw().call(call::UID, &[]));
    let empty_run = meter.measure(|| vcpu.prepare(program::ECHO, &[]), run);
    let none_young = meter.measure(make_old, age);
    let all_young = meter.measure(make_young, age);
    let warm = || {
        make_young();
        prepare_touch();
    };
    let cold = || {
        make_old();
        prepare_touch();
    };
    let touch_young = meter.measure(warm, run);
    let touch_old = meter.measure(cold, run);
    vec![
        ("null-hypercall", null),
        ("empty-vcpu-run", empty_run),
        ("age-512-old-pages", none_young),
        ("age-512-young-pages", all_young),
        ("one-page-aged", all_young / PAGES),
        ("one-access-flag-fault", touch_old.saturating_sub(touch_young) / PAGES),
    ]
}
