//! The payload that suite guests run: bare EL1 code without an operating system.
//!
//! What it does and how it is talked to is in the library beside it. On a developer's machine this
//! builds as a program that says so.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod payload;

/// Says what this is.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "the guest payload runs on the bare machine: build it for aarch64-unknown-none-softfloat"
    );
    std::process::exit(1);
}
