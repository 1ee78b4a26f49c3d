//! All of it at once, in a process of its own that is stopped and killed, at named points of the driver and at random;
//! and everything that it had is back afterwards.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use verdigris_guest::scramble;
use verdigris_ktap::test_table;

use crate::inside::counters::write;
use crate::inside::disturb::Disturber;
use crate::inside::guest::{DATA, DATA_SLOT, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::leftovers::Leftovers;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::{self, BLOCK, PAGE};
use crate::inside::vm::{LOG, pages_of};
use crate::inside::{region, swap};

test_table! { "memory", 600: everything_at_once, killed_at_any_moment, stopped_at_any_moment }
test_table! { VICTIMS, "victim", 600: victim }

/// How long everything goes on; the soak's length where the environment has one.
const SECONDS: u64 = 20;
const VCPUS: usize = 3;
/// Where a driver with fault injection has threads sleep.
const POINTS: [&str; 5] = ["after_lookup", "before_map", "after_map", "in_wait", "after_begin"];
const PARAMETERS: &str = "/sys/module/verdigris/parameters";

fn seconds() -> u64 {
    let text = std::env::var("VERDIGRIS_SOAK").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(SECONDS)
}

/// Everything that keeps the guest's bytes: disturbances of all kinds, a log that is copied by, slots that come and go.
fn run(kind: Kind, seed: u64, time: Duration) {
    let disturber = Disturber::new(&format!("memory-all-{}", std::process::id()), seed);
    let guest = Arc::new(Guest::new(kind, 3 * BLOCK));
    let other = Region::new(Kind::Pages, 16 * PAGE).expect("memory");
    let ledger = Ledger::start(&guest, VCPUS);
    let end = Instant::now() + time;
    let (mut copied, mut done) = (0, 0);
    while Instant::now() < end {
        disturber.disturb(&guest.data, None);
        done += 1;
        match disturber.random(8) {
            0 => guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), LOG),
            1 => guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), 0),
            2 => {
                guest.vm.add(7, 0x9000_0000, &other, other.all(), 0);
                guest.vm.delete(7);
            }
            3 => ledger.kick(),
            4 => {
                // Where there is no log now, that is an error and nothing else.
                let log = guest.vm.dirty_log(DATA_SLOT, guest.data.pages());
                copied += log.map_or(0, |log| pages_of(&log).len());
            }
            _ => ledger.wait(1),
        }
    }
    println!("{kind:?}: {done} disturbances, {copied} dirty pages");
    ledger.finish();
    // At random, so not everything comes in a short time.
    if time > Duration::from_secs(60) {
        disturber.prove();
    }
}

/// For as long as it takes, each kind of memory its share.
fn everything_at_once() {
    swap::ensure();
    sys::make_interruptible();
    let kinds = region::KINDS;
    for (index, kind) in kinds.into_iter().enumerate() {
        run(kind, index as u64 + 1, Duration::from_secs(seconds()) / kinds.len() as u32);
    }
}

/// What is killed: as `everything_at_once`, without an end.
fn victim() {
    sys::make_interruptible();
    let seed = u64::from(std::process::id());
    let kind = region::KINDS[seed as usize % region::KINDS.len()];
    run(kind, seed, Duration::from_secs(500));
}

fn start_victim() -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", "victim"]).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("this program can start itself")
}

/// Has threads of the driver sleep at a point from now on; none ends that. Linux's own KVM has no such points.
fn pause_at(point: Option<&str>) {
    if !Path::new(PARAMETERS).exists() {
        return;
    }
    write(Path::new(PARAMETERS).join("pause_ms"), "20");
    // An empty word is none.
    write(Path::new(PARAMETERS).join("pause_point"), point.unwrap_or("\n"));
}

/// Does something to a victim at a time that a seed chooses; it must not have ended by itself.
fn at_some_moment(victim: &mut Child, seed: u64, act: impl FnOnce(i32)) {
    sleep(Duration::from_millis(300 + scramble(seed) % 1500));
    let ended = victim.try_wait().expect("a child");
    assert!(ended.is_none(), "the victim has ended by itself: {ended:?}");
    act(victim.id() as i32);
}

fn threads(process: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).expect("procfs").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Kills a process, mostly through one of its threads; all that it had must come back.
fn killed_at_any_moment() {
    swap::ensure();
    let before = Leftovers::read();
    let rounds = 6.max(seconds() / 5);
    for round in 0..rounds {
        let point = POINTS[round as usize % POINTS.len()];
        pause_at(Some(point));
        let mut victim = start_victim();
        at_some_moment(&mut victim, round, |process| {
            let threads = threads(process);
            let thread = threads[scramble(round + 77) as usize % threads.len()];
            sys::signal_thread_of(process, thread, libc::SIGKILL);
        });
        victim.wait().expect("a child");
        pause_at(None);
        remove_group(victim.id());
        before.compare().unwrap_or_else(|what| panic!("round {round}, paused {point}: {what}"));
    }
}

/// Stops a process for a while, under pressure that takes its memory meanwhile, and lets it go on.
fn stopped_at_any_moment() {
    swap::ensure();
    let before = Leftovers::read();
    let mut victim = start_victim();
    for round in 0..8.max(seconds() / 4) {
        let point = POINTS[round as usize % POINTS.len()];
        pause_at(Some(point));
        at_some_moment(&mut victim, round, |process| sys::signal_process(process, libc::SIGSTOP));
        pause_at(None);
        let group = format!("/sys/fs/cgroup/memory-all-{}", victim.id());
        _ = fs::write(format!("{group}/memory.reclaim"), "4M");
        write("/proc/sys/vm/compact_memory", "1");
        sys::signal_process(victim.id() as i32, libc::SIGCONT);
    }
    at_some_moment(&mut victim, 1, |process| sys::signal_process(process, libc::SIGTERM));
    let status = victim.wait().expect("a child");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGTERM));
    remove_group(victim.id());
    before.compare().unwrap_or_else(|what| panic!("{what}"));
    _ = fs::write("/sys/kernel/mm/ksm/run", "2");
    _ = fs::write("/sys/kernel/mm/ksm/run", "0");
}

/// The victim had no time to remove its cgroup.
fn remove_group(process: u32) {
    _ = fs::remove_dir(format!("/sys/fs/cgroup/memory-all-{process}"));
}
