//! Guests that run while the kernel goes: each has one vCPU inside all the time, and others have been made, so
//! that the firmware has pages in many places.

use std::io::Result;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use crate::inside::cases::uapi::code::{CREATE_VCPU, PSCI_0_2, Tiny, file};
use crate::inside::sys;

/// `b .`
const FOREVER: &[u32] = &[0x1400_0000];
const GUESTS: u32 = 3;
/// Of each guest, beside the one that runs.
const IDLE_VCPUS: u64 = 32;

/// Makes them, each in a process that goes on until the kernel does not.
pub fn run() -> Result<()> {
    for _ in 0..GUESTS {
        sys::fork(guest)?;
    }
    thread::sleep(Duration::from_secs(1));
    Ok(())
}

fn guest() -> i32 {
    let tiny = Tiny::new(FOREVER, PSCI_0_2);
    let make = |index| file(tiny.vm.as_raw_fd(), CREATE_VCPU, index).expect("a vCPU");
    let _idle: Vec<_> = (1..=IDLE_VCPUS).map(make).collect();
    // Nothing but the end of the kernel, or of all VMs before it, ends this run.
    let ended = tiny.run();
    println!("a guest's run has ended: {ended:?}");
    1
}
