//! The driver itself: who may open the device, and what a new driver finds of an old one.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};

use verdigris_abi::Stat;
use verdigris_guest::program;

use crate::firmware::{PageState, Statistics, page_state};
use crate::guest::{DATA, Guest};
use crate::ktap::{skip, test_table};
use crate::raw::Raw;
use crate::sys;
use crate::vm::{RW, Vm};

test_table! { "suite", 40: device_needs_rawio, new_driver_starts_clean }
test_table! { LOCKDOWN, "lockdown", 20: device_refused_under_lockdown }

const MODULE: &str = "/lib/modules/verdigris.ko";
const ABANDON: &str = "/sys/module/verdigris/parameters/raw_abandon";
const LOCKDOWN_STATE: &str = "/sys/kernel/security/lockdown";
/// CAP_SYS_RAWIO (uapi/linux/capability.h).
const RAWIO: u64 = 17;

/// Helpers that tests start as processes of their own.
pub mod helpers {
    use super::*;

    test_table! { "helper", 20: device_is_refused, abandon_everything }

    fn device_is_refused() {
        let error = Raw::open().err().map(|error| error.kind());
        assert_eq!(error, Some(ErrorKind::PermissionDenied));
    }

    fn abandon_everything() {
        let guest = Guest::new(1);
        let data = guest.with_data(16, RW);
        let vms: Vec<Vm> = (0..3).map(|_| Vm::new()).collect();
        guest.invalidate_begin(DATA + 0x10_0000, 4).expect("a good range");
        let donated = vms.iter().chain([&*guest]).flat_map(Vm::donated_addresses);
        for address in data.addresses().chain(donated) {
            assert_ne!(page_state(address), PageState::FREE);
            println!("{address:#x}");
        }
        fs::write(ABANDON, "1").expect("a parameter that root can write");
        // No destructor may end what is to be left.
        std::process::exit(0);
    }
}

fn helper(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", name]).stdin(Stdio::null());
    command
}

fn device_needs_rawio() {
    Raw::open().expect("root opens it");
    sys::drop_capability(RAWIO).expect("root may drop capabilities");
    let status = helper("device_is_refused").status().expect("the suite can start itself");
    assert!(status.success(), "root without CAP_SYS_RAWIO: {status}");
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {arguments:?}");
}

/// A driver that died leaves VMs; the next one ends them when it is loaded.
fn new_driver_starts_clean() {
    if !Path::new(MODULE).exists() {
        skip("the module isn't where it could be loaded from again");
    }
    let mut child = helper("abandon_everything").stdout(Stdio::piped()).spawn().expect("a child");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let number = |line: String| u64::from_str_radix(line.trim_start_matches("0x"), 16);
    let addresses: Vec<_> =
        output.lines().map_while(Result::ok).map_while(|l| number(l).ok()).collect();
    assert!(child.wait().expect("a child").success());
    assert!(addresses.len() > 100, "{} addresses", addresses.len());
    run("rmmod", &["verdigris"]);
    run("insmod", &[MODULE, "raw=1"]);
    for address in addresses {
        assert_eq!(page_state(address), PageState::FREE, "page {address:#x}");
    }
    let sums = Statistics::read(0);
    assert_eq!((sums.get(Stat::TablePages), sums.get(Stat::FreeTablePages)), (0, 0));
    assert_eq!(Guest::new(1).cpu(0).call(program::ECHO, &[9])[0], 9);
}

/// Locks the kernel down, for good: so this has a machine of its own.
fn device_refused_under_lockdown() {
    _ = Command::new("mount")
        .args(["-t", "securityfs", "security", "/sys/kernel/security"])
        .status();
    if !Path::new(LOCKDOWN_STATE).exists() {
        skip("the kernel has no lockdown");
    }
    Raw::open().expect("root opens it before");
    fs::write(LOCKDOWN_STATE, "integrity").expect("root may lock down");
    let error = Raw::open().err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::PermissionDenied));
}
