//! All of it at once, in a process of its own that is stopped and killed, at named points of the driver and at random;
//! and everything that it had is back afterwards.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use verdigris_guest::scramble;
use verdigris_ktap::test_table;

use crate::inside::counters::{Counters, write};
use crate::inside::disturb::{Disturber, KINDS};
use crate::inside::guest::{DATA, DATA_SLOT, Guest};
use crate::inside::ledger::{Ledger, check_every_byte};
use crate::inside::leftovers::Leftovers;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::{self, BLOCK, PAGE};
use crate::inside::vm::{LOG, pages_of};
use crate::inside::{region, swap};

test_table! { "memory", 600:
    everything_at_once, killed_at_any_moment, stopped_at_any_moment, a_wrong_byte_is_found,
}
test_table! { VICTIMS, "victim", 600: victim }

/// How long everything goes on; the soak's length where the environment has one.
const SECONDS: u64 = 20;
const VCPUS: usize = 3;
/// Where a driver with fault injection has threads sleep.
const POINTS: [&str; 5] = ["after_lookup", "before_map", "after_map", "in_wait", "after_begin"];
const PARAMETERS: &str = "/sys/module/verdigris/parameters";

fn length() -> Duration {
    verdigris_ktap::soak().unwrap_or(Duration::from_secs(SECONDS))
}

fn disturber(seed: u64) -> Disturber {
    Disturber::new(&group_of(std::process::id()), seed)
}

fn group_of(process: u32) -> String {
    format!("memory-all-{process}")
}

/// Everything that keeps the guest's bytes: disturbances of all kinds, a log that is copied by, slots that come and go;
/// for some time, and until each kind of disturbance had its turn.
fn run(disturber: &Disturber, kind: Kind, time: Option<Duration>) {
    let guest = Arc::new(Guest::new(kind, 3 * BLOCK));
    let other = Region::new(Kind::Pages, 16 * PAGE).expect("memory");
    let ledger = Ledger::start(&guest, VCPUS);
    let began = Instant::now();
    let (mut copied, mut done) = (0, 0);
    while time.is_none_or(|time| began.elapsed() < time) || done < KINDS.len() {
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
}

/// For as long as it takes, each kind of memory its share.
fn everything_at_once() {
    swap::ensure();
    sys::make_interruptible();
    let disturber = disturber(1);
    let time = length() / region::KINDS.len() as u32;
    region::KINDS.into_iter().for_each(|kind| run(&disturber, kind, Some(time)));
    disturber.prove();
}

/// What is killed: as `everything_at_once`, without an end.
fn victim() {
    sys::make_interruptible();
    let seed = u64::from(std::process::id());
    let kind = region::KINDS[seed as usize % region::KINDS.len()];
    run(&disturber(seed), kind, None);
}

fn start_victim() -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", "victim"]).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("this program can start itself")
}

/// Threads of the driver sleep at a point as long as this lives. Linux's own KVM has no such points.
struct Pause {
    point: &'static str,
}

impl Pause {
    fn are_there() -> bool {
        Path::new(PARAMETERS).join("pauses").exists()
    }

    fn at(point: &'static str) -> Self {
        write(Path::new(PARAMETERS).join("pause_ms"), "30");
        write(Path::new(PARAMETERS).join("pause_point"), point);
        Self { point }
    }

    /// Returns how often a thread has slept there.
    fn count(&self) -> u64 {
        Counters::read(Path::new(PARAMETERS).join("pauses")).get(self.point)
    }

    /// Waits until a thread has just gone to sleep there.
    fn wait(&self) {
        let (before, end) = (self.count(), Instant::now() + Duration::from_secs(100));
        while self.count() == before {
            assert!(Instant::now() < end, "no thread comes to {}", self.point);
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // An empty word is no point.
        _ = fs::write(Path::new(PARAMETERS).join("pause_point"), "\n");
    }
}

/// Does something to a victim at a time that a seed chooses, in every other round when one of its threads sleeps at a named
/// point of the driver; it must not have ended by itself.
fn at_some_moment(victim: &mut Child, round: u64, act: impl FnOnce(i32)) {
    let is_named = round.is_multiple_of(2) && Pause::are_there();
    let pause = is_named.then(|| Pause::at(POINTS[round as usize / 2 % POINTS.len()]));
    sleep(Duration::from_millis(300 + scramble(round) % 1500));
    if let Some(pause) = &pause {
        pause.wait();
    }
    let ended = victim.try_wait().expect("a child");
    assert!(ended.is_none(), "the victim has ended by itself: {ended:?}");
    act(victim.id() as i32);
}

/// Counts rounds: so many that each point is named, and then for as long as a soak is.
fn rounds() -> impl Iterator<Item = u64> {
    let (began, soak) = (Instant::now(), verdigris_ktap::soak().unwrap_or_default());
    (0..).take_while(move |&round| round < 2 * POINTS.len() as u64 || began.elapsed() < soak)
}

fn threads(process: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).expect("procfs").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Kills a process, mostly through one of its threads; all that it had must come back.
fn killed_at_any_moment() {
    swap::ensure();
    let before = Leftovers::read_all();
    for round in rounds() {
        let mut victim = start_victim();
        at_some_moment(&mut victim, round, |process| {
            let threads = threads(process);
            let thread = threads[scramble(round + 77) as usize % threads.len()];
            sys::signal_thread_of(process, thread, libc::SIGKILL);
        });
        victim.wait().expect("a child");
        remove_group(victim.id());
        before.compare().unwrap_or_else(|what| panic!("round {round}: {what}"));
    }
}

/// Stops a process for a while, under pressure that takes its memory meanwhile, and lets it go on.
fn stopped_at_any_moment() {
    swap::ensure();
    let before = Leftovers::read_all();
    let mut victim = start_victim();
    for round in rounds() {
        at_some_moment(&mut victim, round, |process| sys::signal_process(process, libc::SIGSTOP));
        let group = format!("/sys/fs/cgroup/{}", group_of(victim.id()));
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
    _ = fs::remove_dir(format!("/sys/fs/cgroup/{}", group_of(process)));
}

/// What all of this rests on: a doubleword that is wrong is found, by the guest while it runs, and by the host afterwards.
fn a_wrong_byte_is_found() {
    let guest = Arc::new(Guest::new(Kind::Pages, 16 * PAGE));
    let ledger = Ledger::start(&guest, 2);
    ledger.wait(20);
    let vcpus = ledger.pause();
    check_every_byte(&guest, 16);
    let (at, right) = (5 * PAGE + 0x18, guest.data.read(5 * PAGE + 0x18));
    guest.data.write(at, right ^ 1 << 40);
    let found = catch_unwind(AssertUnwindSafe(|| check_every_byte(&guest, 16)));
    assert!(found.is_err(), "the host did not find it");
    let ledger = Ledger::resume(&guest, vcpus, 16);
    let found = catch_unwind(AssertUnwindSafe(|| ledger.wait(1000)));
    assert!(found.is_err(), "the guest did not find it");
    println!("both panics above are as they should be");
    ledger.pause();
}
