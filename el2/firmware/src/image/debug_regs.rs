//! The CPU's breakpoint and watchpoint registers.
#![allow(unsafe_code)]

use verdigris_core::cpu::IdRegisters;
use verdigris_core::guest::DebugRegisters;

use super::sysreg::{read, write};

/// Calls a macro for each number of a breakpoint or watchpoint.
macro_rules! for_each_number {
    ($callback:ident $($arguments:tt)*) => {
        $callback! { $($arguments)*:
            0 "0", 1 "1", 2 "2", 3 "3", 4 "4", 5 "5", 6 "6", 7 "7",
            8 "8", 9 "9", 10 "10", 11 "11", 12 "12", 13 "13", 14 "14", 15 "15"
        }
    };
}

macro_rules! save_all {
    ($to:ident $breakpoints:ident $watchpoints:ident: $( $n:literal $name:literal ),*) => { $(
        if $n < $breakpoints {
            $to.breakpoint_values[$n] = read!(concat!("dbgbvr", $name, "_el1"));
            $to.breakpoint_controls[$n] = read!(concat!("dbgbcr", $name, "_el1"));
        }
        if $n < $watchpoints {
            $to.watchpoint_values[$n] = read!(concat!("dbgwvr", $name, "_el1"));
            $to.watchpoint_controls[$n] = read!(concat!("dbgwcr", $name, "_el1"));
        }
    )* };
}

macro_rules! load_all {
    ($from:ident $breakpoints:ident $watchpoints:ident: $( $n:literal $name:literal ),*) => { $(
        if $n < $breakpoints {
            write!(concat!("dbgbvr", $name, "_el1"), $from.breakpoint_values[$n]);
            write!(concat!("dbgbcr", $name, "_el1"), $from.breakpoint_controls[$n]);
        }
        if $n < $watchpoints {
            write!(concat!("dbgwvr", $name, "_el1"), $from.watchpoint_values[$n]);
            write!(concat!("dbgwcr", $name, "_el1"), $from.watchpoint_controls[$n]);
        }
    )* };
}

/// Returns how many breakpoints and watchpoints a CPU has (ID_AA64DFR0_EL1.BRPs and WRPs).
fn counts(id: &IdRegisters) -> (u64, u64) {
    ((id.dfr0 >> 12 & 0xf) + 1, (id.dfr0 >> 20 & 0xf) + 1)
}

/// Saves the registers of whoever ran last.
pub fn save(id: &IdRegisters) -> DebugRegisters {
    let (breakpoints, watchpoints) = counts(id);
    let mut saved = DebugRegisters::reset();
    for_each_number!(save_all saved breakpoints watchpoints);
    saved
}

/// Loads the registers of whoever runs next.
pub fn load(registers: &DebugRegisters, id: &IdRegisters) {
    let (breakpoints, watchpoints) = counts(id);
    // SAFETY: breakpoints and watchpoints match below EL2 only: MDCR_EL2.TDE is 0, and EL2 runs with
    // debug exceptions masked.
    unsafe {
        for_each_number!(load_all registers breakpoints watchpoints);
    }
}
