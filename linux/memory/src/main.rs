//! `verdigris-memory`: runs inside the host Linux and lets Linux's own memory management loose on guests.
//!
//! It speaks the KVM user interface and nothing else, so that the same program runs on Verdigris and on
//! Linux's own KVM. That is the test of the tests: what passes there is right about Linux, and what then
//! fails here is the driver's or the firmware's.

mod choice;
mod settings;
mod stats;

#[cfg(target_arch = "aarch64")]
mod inside;

#[cfg(target_arch = "aarch64")]
fn main() -> std::process::ExitCode {
    inside::main()
}

/// Says what this is.
#[cfg(not(target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    eprintln!("this program runs in a host of 64-bit Arm: cargo xtask test memory");
    std::process::ExitCode::FAILURE
}
