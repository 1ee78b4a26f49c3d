//! Ties a child's life to ours.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Makes the kernel end the child when the thread that starts it ends, however it does.
///
/// A machine whose launcher was killed would otherwise run on, with nobody to read its console.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call (prctl) and touches neither
    // the heap nor a lock, so it is async-signal-safe as `pre_exec` requires.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}
