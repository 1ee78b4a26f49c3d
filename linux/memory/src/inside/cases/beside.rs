//! A vCPU that is inside the guest, at work on some pages, while a test acts on their memory.
//!
//! The one invariant under test: when a call that takes memory away has returned, no vCPU uses that memory any more. A
//! vCPU that is outside meanwhile says little of it, since on its way back in everything is looked up anew. One
//! that is inside has the translation of each of its pages, and goes on with them unless it is stopped.
//!
//! Not for long, though: the host's next tick ends its run, and that may empty its TLB. So to see in the end what the guest
//! should see proves nothing. The vCPU goes round its pages without an exit, in some microseconds a round, and what counts is the first
//! round that began after the call had returned: what it saw is kept, and nothing that was taken away lasts for all of it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use verdigris_guest::{control, event, program, touch};

use super::support::HAND;
use crate::inside::guest::{Guest, MOST_PAGES};
use crate::inside::sys::{self, PAGE};
use crate::inside::vcpu::{Exit, Vcpu};

/// Bytes from one doubleword to the next for whoever looks closely.
pub const LINE_BYTES: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks. Whoever spins takes the time from the vCPU, where CPUs are few.
const NAP: Duration = Duration::from_micros(50);

/// What the vCPU does in each round.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    program: u64,
    start: u64,
    count: usize,
    stride_bytes: usize,
}

impl Job {
    /// Reads the first doubleword of each page of a part of the guest's addresses, and shows it.
    pub fn look(addresses: &Range<u64>) -> Self {
        Self::of(program::MIRROR, addresses, PAGE)
    }

    /// Reads one doubleword of each [`LINE_BYTES`], and shows it.
    pub fn look_at_lines(addresses: &Range<u64>) -> Self {
        Self::of(program::MIRROR, addresses, LINE_BYTES)
    }

    /// Writes the number of the round to the first doubleword of each page.
    pub fn write(addresses: &Range<u64>) -> Self {
        Self::of(program::SPIN, addresses, PAGE)
    }

    fn of(program: u64, addresses: &Range<u64>, stride_bytes: usize) -> Self {
        let count = (addresses.end - addresses.start) as usize / stride_bytes;
        Self { program, start: addresses.start, count, stride_bytes }
    }

    /// The program's arguments; what it shows goes to `shown` and what follows.
    fn words(&self, guest: &Guest) -> [u64; 5] {
        let (control, shown) = (guest.control_address(HAND), first_shown(guest));
        match self.program {
            program::SPIN => [self.start, self.count as u64, 1, touch::WRITE, control],
            _ => {
                assert!(self.count <= most_shown(guest), "there is no room to show that much");
                let at = guest.versions_address() + shown as u64 * 8;
                [self.start, self.count as u64, self.stride_bytes as u64, at, control]
            }
        }
    }
}

/// Which version is the first that no ledger uses: that of the second half's first page.
fn first_shown(guest: &Guest) -> usize {
    guest.data.pages() / 2
}

/// How many doublewords can be shown to the test.
fn most_shown(guest: &Guest) -> usize {
    MOST_PAGES - first_shown(guest)
}

/// Returns what a job of looking has shown of each place.
pub fn shown(guest: &Guest, job: Job) -> Vec<u64> {
    let first = first_shown(guest);
    (first..first + job.count).map(|index| guest.version(index)).collect()
}

/// Has a vCPU look at each place once; returns what it saw.
pub fn look_once(guest: &Guest, hand: &mut Vcpu, job: Job) -> Vec<u64> {
    guest.reset_control(HAND);
    guest.set_control(HAND, control::STOP, 1);
    hand.program(job.program, &job.words(guest));
    shown(guest, job)
}

/// The vCPU's work, while the test acts.
pub struct Work<'a> {
    /// The guest in which it goes on.
    pub guest: &'a Guest,
    has_ended: AtomicBool,
}

impl Work<'_> {
    /// Returns how many rounds are done.
    pub fn rounds(&self) -> u64 {
        self.guest.control(HAND, control::ROUNDS)
    }

    /// Waits until a round is done that began after now: the one that goes on doesn't count.
    pub fn go_round(&self) {
        let (end, target) = (Instant::now() + PATIENCE, self.rounds() + 2);
        while self.rounds() < target {
            assert!(!self.has_ended.load(SeqCst), "the vCPU has ended by itself");
            assert!(Instant::now() < end, "the vCPU is stuck at {} rounds", self.rounds());
            thread::sleep(NAP);
        }
    }

    /// Waits until the run has ended by itself.
    pub fn wait_for_end(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.has_ended.load(SeqCst) {
            assert!(Instant::now() < end, "the vCPU goes on, by now for {} rounds", self.rounds());
            thread::sleep(NAP);
        }
    }
}

/// How a run has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// With what; the event of a program that is done, if the test stopped it.
    pub exit: Exit,
    /// Rounds that are whole.
    pub rounds: u64,
}

/// Stops the vCPU when dropped, so that nobody waits for it in vain, also not after a panic.
struct Stop<'a>(&'a Guest);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.set_control(HAND, control::STOP, 1);
    }
}

/// Has a vCPU do its job while `act` acts, and stops it then, unless it has ended.
pub fn run(guest: &Guest, hand: &mut Vcpu, job: Job, act: impl FnOnce(&Work)) -> End {
    guest.reset_control(HAND);
    hand.begin(job.program, &job.words(guest));
    let work = Work { guest, has_ended: AtomicBool::new(false) };
    let exit = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let exit = run_to_end(hand);
            work.has_ended.store(true, SeqCst);
            exit
        });
        let stop = Stop(guest);
        act(&work);
        drop(stop);
        thread.join().expect("no panic on the vCPU's thread")
    });
    End { exit, rounds: work.rounds() }
}

/// Runs through interruptions, unless it is a bus error that interrupts.
fn run_to_end(hand: &mut Vcpu) -> Exit {
    let (before, ..) = sys::bus_errors();
    loop {
        match hand.run() {
            Exit::Interrupted if sys::bus_errors().0 == before => {}
            exit => return exit,
        }
    }
}

/// What a vCPU saw.
pub struct Seen {
    /// Before something was done to the memory.
    pub before: Vec<u64>,
    /// In a whole round that began when that was done.
    pub after: Vec<u64>,
}

/// Has a vCPU look at places while `act` acts.
pub fn watch(guest: &Guest, hand: &mut Vcpu, job: Job, act: impl FnOnce(&Guest)) -> Seen {
    let mut before = Vec::new();
    let end = run(guest, hand, job, |work| {
        work.go_round();
        before = shown(guest, job);
        act(guest);
    });
    assert_eq!(end.exit, Exit::Event(event::DONE), "the vCPU has ended by itself");
    Seen { before, after: shown(guest, job) }
}

/// Has a vCPU do its job until `take` takes its memory away; it ends the run, and whoever was in a round goes no further.
pub fn run_until_taken(
    guest: &Guest,
    hand: &mut Vcpu,
    job: Job,
    take: impl FnOnce(&Guest),
) -> Exit {
    let mut rounds = 0;
    let end = run(guest, hand, job, |work| {
        work.go_round();
        take(work.guest);
        rounds = work.rounds();
        work.wait_for_end();
    });
    // The one that went on may have been past the memory that is gone; the next begins with it.
    assert!(end.rounds <= rounds + 1, "{} rounds on what was gone", end.rounds - rounds);
    end.exit
}

/// Lets a program that was stopped midway come to its end, whatever is in its way.
pub fn drain(hand: &mut Vcpu) {
    loop {
        match hand.run() {
            Exit::Event(number) => return assert_eq!(number, event::DONE),
            Exit::Interrupted | Exit::Load(..) | Exit::Store(..) => {}
            other => panic!("{other:x?}, where memory is again"),
        }
    }
}
