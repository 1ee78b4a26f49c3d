//! Slots much larger than what is used of them.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use verdigris_guest::{program, touch};
use verdigris_ktap::test_table;

use super::support::HAND;
use crate::inside::cgroup::Group;
use crate::inside::guest::Guest;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::PAGE;
use crate::inside::vm::{LOG, Vm};

test_table! { "memory", 120: a_sparse_slot_costs_what_is_used, killed_while_a_log_is_read }
test_table! { VICTIMS, "victim", 120: reads_a_large_log }

/// The upper half of a guest's addresses.
const START: u64 = 512 << 30;
const BYTES: usize = 512 << 30;
const SLOT: u32 = 9;

/// A slot of 512 GiB in a memory cgroup of 32 MiB, used at a few places far from each other.
fn a_sparse_slot_costs_what_is_used() {
    const PLACES: u64 = 64;
    let group = Group::join("sparse");
    group.set("memory.max", "32M");
    let guest = Guest::new(Kind::Pages, 16 * PAGE);
    let before = group.bytes();
    let memory = Region::new(Kind::Pages, BYTES).expect("addresses");
    guest.vm.add(SLOT, START, &memory, memory.all(), 0);
    let slot = group.bytes().saturating_sub(before);
    assert!(slot < 1 << 20, "a slot of which nothing is used costs {slot} bytes");
    let stride = BYTES as u64 / PAGE as u64 / PLACES;
    guest.vcpu(HAND).program(program::TOUCH, &[START, PLACES, stride, touch::WRITE, 0]);
    let used = group.bytes().saturating_sub(before);
    // A page each, tables of Linux's and of stage 2, and what comes beside them.
    assert!(used < PLACES * 32 * PAGE as u64, "{PLACES} pages cost {used} bytes");
}

/// What is killed: reads the log of such a slot, which is empty; says when it begins and when it has ended.
fn reads_a_large_log() {
    let vm = Vm::new();
    let memory = Region::new(Kind::Pages, BYTES).expect("addresses");
    vm.add(SLOT, START, &memory, memory.all(), LOG);
    println!("begins");
    vm.dirty_log(SLOT, BYTES / PAGE).expect("a log");
    println!("ends");
}

/// Starts it, up to its first line.
fn victim() -> (std::process::Child, impl Iterator<Item = String>) {
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", "reads_a_large_log"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut victim = command.spawn().expect("this program can start itself");
    let lines = BufReader::new(victim.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| line.expect("a line"));
    assert_eq!(lines.next().as_deref(), Some("begins"));
    (victim, lines)
}

/// However long a call takes, who is killed in it is gone at once.
fn killed_while_a_log_is_read() {
    const AT_ONCE: Duration = Duration::from_millis(500);
    let (mut whole, mut lines) = victim();
    let begun = Instant::now();
    assert_eq!(lines.next().as_deref(), Some("ends"));
    let undisturbed = begun.elapsed();
    assert!(whole.wait().expect("a child").success());
    let (mut killed, _) = victim();
    sleep(Duration::from_millis(50));
    killed.kill().expect("it is there");
    let begun = Instant::now();
    killed.wait().expect("a child");
    let ended = begun.elapsed();
    println!("{undisturbed:?} undisturbed; {ended:?} from the kill to the end");
    assert!(ended < AT_ONCE.max(undisturbed / 4), "{ended:?} of {undisturbed:?}");
}
