//! The Verdigris firmware: the one binary that runs at EL2.
//!
//! Everything that can be decided without the machine is decided elsewhere (`verdigris-core`,
//! `verdigris-stage2`, `verdigris-platform`), where tests reach it. What is left here is the machine:
//! boot, exception entries, EL2's own translation, registers, and the order in which things happen.
//!
//! The invariants that every module leans on:
//! - EL2 runs with exceptions masked, on the stack of the CPU that it is on, and never waits.
//! - Memory is reached by identity mapping, and only through the page source (EL2's own pages and the
//!   tables of VMs) or for the length of one call (a page of the host that holds a share meanwhile).
//! - The host is whatever EL1 runs: nothing that it does is trusted, everything that it may do works
//!   as it would without the firmware.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod image {
    pub mod access;
    pub mod banner;
    pub mod bits;
    pub mod boot;
    pub mod cache;
    pub mod console;
    pub mod controls;
    pub mod counter;
    pub mod crash;
    pub mod debug;
    pub mod debug_regs;
    pub mod fault;
    pub mod frame;
    pub mod host;
    pub mod hypercall;
    pub mod identify;
    pub mod memory;
    pub mod mmu;
    pub mod percpu;
    pub mod power;
    pub mod presence;
    pub mod profiling;
    pub mod recover;
    pub mod room;
    pub mod stage2;
    pub mod start;
    pub mod statistics;
    pub mod switch;
    pub mod sysreg;
    pub mod system;
    pub mod tlb;
    pub mod trap;
    pub mod vcpu;
    pub mod vm;
    pub mod vm_env;
    pub mod vmids;
    pub mod working_set;
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("The firmware runs at EL2 of a 64-bit Arm machine, not here. Try: cargo xtask run");
    std::process::exit(2);
}
