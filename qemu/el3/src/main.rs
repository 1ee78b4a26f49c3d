//! An EL3 for the tests: the least that a machine needs below Verdigris, and no bit more.
//!
//! QEMU starts all CPUs of a machine with a secure world here, at address 0, MMU off. The boot CPU copies
//! the device tree to where the firmware wants it and adds PSCI to it; then each CPU is given the words at
//! its head, which the launcher fills in (SCR_EL3, CPTR_EL3, MDCR_EL3), and enters the firmware at EL2.
//! What they withhold comes back as a trap: that is told on the console, and answered by an UNDEFINED
//! instruction at EL2, as TF-A does since 2.11, or ends the machine.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod monitor;

/// Says what this is.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("an EL3 runs on the bare machine: build it for aarch64-unknown-none-softfloat");
    std::process::exit(1);
}
