//! `verdigris-vmm`: a virtual machine monitor of one's own on `/dev/kvm`, and what can be shown with one.
//!
//! `machine` is the monitor: VM, memory, vCPUs, the loop that runs them. It knows nothing of Verdigris, and runs on
//! Linux's own KVM as well. `guest` is what it runs. `demo` is the demonstration of `cargo xtask run`:
//! Linux watches the guest's memory, and takes away what is cold.

// A host of another kind builds and tests the demonstration's arithmetic, and nothing else of it.
#![cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]

mod demo;

#[cfg(target_arch = "aarch64")]
mod guest;
#[cfg(target_arch = "aarch64")]
mod machine;

use std::process::ExitCode;

#[cfg(target_arch = "aarch64")]
fn main() -> ExitCode {
    if std::env::args().skip(1).ne(["demo"]) {
        eprintln!("usage: verdigris-vmm demo");
        return ExitCode::from(2);
    }
    match demo::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("This can't be shown: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Says what this is.
#[cfg(not(target_arch = "aarch64"))]
fn main() -> ExitCode {
    eprintln!("this program runs in a host of 64-bit Arm: cargo xtask run");
    ExitCode::FAILURE
}
