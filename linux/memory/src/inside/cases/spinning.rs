//! vCPUs that spin in their guests are no burden to the rest of the host.
//!
//! To RCU a CPU in a guest is what one in user space is: nobody waits for it. And the time that it spends there is the
//! guest's.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use verdigris_guest::{control, program, touch};
use verdigris_ktap::{FIGURE, test_table};

use crate::inside::counters::{wait_until, write};
use crate::inside::guest::Guest;
use crate::inside::region::Kind;
use crate::inside::sys::{self, PAGE};
use crate::stats;

test_table! { "memory", 300:
    grace_periods_pass_by_spinning_vcpus, hooks_go_while_vcpus_spin, time_in_a_guest_is_the_guests,
}

const SPINNERS: usize = 3;

/// Stops the vCPUs when dropped, also after a panic: else nobody would end.
struct Stop<'a>(&'a Guest);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        (0..SPINNERS).for_each(|index| self.0.set_control(index, control::STOP, 1));
    }
}

/// Has vCPUs spin, without a fault, while `act` acts; it is given the statistics of each.
fn while_spinning(act: impl FnOnce(&[File])) {
    let guest = Guest::new(Kind::Pages, SPINNERS * PAGE);
    let mut vcpus: Vec<_> = (0..SPINNERS).map(|index| guest.vcpu(index)).collect();
    let statistics: Vec<_> = vcpus.iter().map(|vcpu| vcpu.statistics()).collect();
    thread::scope(|scope| {
        for (index, vcpu) in vcpus.iter_mut().enumerate() {
            guest.reset_control(index);
            let (ipa, control) = (guest.page_address(index), guest.control_address(index));
            vcpu.begin(program::SPIN, &[ipa, 1, 1, touch::WRITE, control]);
            scope.spawn(move || vcpu.finish());
        }
        let stop = Stop(&guest);
        let rounds = |index| guest.control(index, control::ROUNDS);
        wait_until("all vCPUs spin", || (0..SPINNERS).all(|index| rounds(index) > 1000));
        act(&statistics);
        drop(stop);
    });
}

/// Reads how often a vCPU has left its guest.
fn exits(file: &File) -> u64 {
    let mut bytes = vec![0; 1 << 16];
    let length = file.read_at(&mut bytes, 0).expect("statistics can be read");
    stats::parse(&bytes[..length]).expect("statistics are well formed")["exits"]
}

/// How often the vCPU that left its guest least did so, while something was done.
fn fewest_exits(vcpus: &[File], act: impl FnOnce()) -> u64 {
    let before: Vec<_> = vcpus.iter().map(exits).collect();
    act();
    let since = vcpus.iter().zip(before).map(|(vcpu, before)| exits(vcpu) - before);
    since.min().expect("there are vCPUs")
}

/// A vCPU that spins leaves its guest with each tick, and with each return RCU has what it waits for; where it has not, RCU
/// forces the thread to be scheduled, after a tenth of a second. Counted in exits, since a loaded machine has time
/// of its own: the CPU for which a grace period waits has few.
fn grace_periods_pass_by_spinning_vcpus() {
    const TIMES: usize = 25;
    /// A tenth of a second has 25 ticks of the host.
    const MOST: u64 = 18;
    while_spinning(|vcpus| {
        let mut counts: Vec<_> = (0..TIMES)
            .map(|_| fewest_exits(vcpus, || sys::synchronize_rcu().expect("membarrier")))
            .collect();
        counts.sort_unstable();
        let median = counts[TIMES / 2];
        println!("{FIGURE}{median} exits of a vCPU in a grace period, of {counts:?}");
        assert!(median <= MOST, "grace periods wait until RCU forces a vCPU out");
    });
}

/// Runs something in a thread; tells whether it is done in time, however loaded the machine.
fn is_done(act: impl FnOnce() + Send + 'static) -> bool {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        act();
        done.send(()).expect("somebody waits");
    });
    wait.recv_timeout(Duration::from_secs(100)).is_ok()
}

/// Whoever takes a hook of ftrace out of the kernel waits for all tasks that may be in it (RCU-tasks). Where preemption is lazy,
/// as it is from 7.0 on, that is until each was scheduled, or in user space, or in a guest.
fn hooks_go_while_vcpus_spin() {
    sys::mount_tracefs().expect("tracefs");
    let instance = Path::new("/sys/kernel/tracing/instances/verdigris");
    fs::create_dir(instance).expect("an instance of ftrace");
    while_spinning(|_| {
        write(instance.join("set_ftrace_filter"), "vfs_read");
        write(instance.join("current_tracer"), "function");
        assert!(is_done(|| write(instance.join("current_tracer"), "nop")), "the hook stays");
    });
    fs::remove_dir(instance).expect("the instance goes");
}

/// Reads in ticks how long the vCPUs' threads ran, and how long of that in guests (proc_pid_stat(5): fields 14, 15, 43).
fn times() -> (u64, u64) {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let others = entries.filter(|entry| entry.file_name().to_str() != Some(&own));
    let times = others.map(|entry| times_of(&entry.path().join("stat")));
    times.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn times_of(stat: &Path) -> (u64, u64) {
    let text = fs::read_to_string(stat).expect("a thread that is there");
    let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<_> = fields.split_whitespace().collect();
    // What follows the name is field 3.
    let field = |number: usize| fields[number - 3].parse::<u64>().expect("a number");
    (field(14) + field(15), field(43))
}

fn time_in_a_guest_is_the_guests() {
    while_spinning(|_| {
        let before = times();
        wait_until("the vCPUs ran for a while", || times().0 > before.0 + 200);
        let (all, guest) = (times().0 - before.0, times().1 - before.1);
        println!("{guest} ticks of {all} in the guest");
        // Of a loaded emulator's time much goes by in exits. What isn't told at all is 0.
        assert!(guest > all / 8, "{guest} ticks of {all}");
    });
}
