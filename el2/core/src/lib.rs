//! The pure state machines of the firmware: all policy that needs no hardware to decide.
//!
//! Nothing here reads a register, holds a static or contains assembly: the firmware copies what the
//! CPU says into plain values, asks, and does what the answer says. So all of it runs under
//! `cargo test` on any machine.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod call;
pub mod cpu;
pub mod esr;
pub mod exception;
pub mod guest;
#[cfg(all(test, loom))]
mod models;
pub mod options;
pub mod ownership;
pub mod psci;
pub mod smccc;
mod sync;
pub mod sysreg;
pub mod vmid;
pub mod working_set;
