//! vCPUs that write, host CPUs that work, and somebody who watches the clock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use verdigris_abi::Error;
use verdigris_guest::{control, program};

use super::operations::Worker;
use super::{Memory, Operation, Random};
use crate::pages::Pages;
use crate::vcpu::Exit;

/// How long a vCPU may take for a round, while all the host works against it.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);

/// What a run does, and for how long.
pub struct Limits<'work> {
    /// Seconds.
    pub duration: Duration,
    /// What each worker does.
    pub workers: Vec<Duty>,
    /// Called about ten times a second by the thread that watches.
    pub tick: &'work mut dyn FnMut(&Report),
}

/// What one worker does.
#[derive(Clone)]
pub struct Duty {
    /// One of these at a time, at random.
    pub operations: Vec<&'static Operation>,
    /// It waits for the others after each few, so that it does at most one in so many of all operations: some are
    /// so quick that nothing else would get its turn.
    pub one_in: u64,
}

/// Operations between two waits, and how long to sleep before the next look.
const BURST: u64 = 4;
const NAP: Duration = Duration::from_millis(5);

impl Duty {
    /// Does some operations without waiting for anybody.
    pub fn of(operations: Vec<&'static Operation>) -> Self {
        Self { operations, one_in: 1 }
    }
}

/// How often an operation was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// In all.
    pub all: u64,
    /// With something to work on.
    pub fruitful: u64,
}

/// A count that all threads add to.
#[derive(Default)]
struct Counter {
    all: AtomicU64,
    fruitful: AtomicU64,
}

/// What was done so far.
pub struct Report {
    began: Instant,
    /// How often each operation was done, with its name.
    calls: Vec<(&'static str, Counter)>,
    /// Faults of the guest that were answered.
    faults: AtomicU64,
    /// Rounds of all vCPUs.
    rounds: AtomicU64,
    stop: AtomicBool,
}

impl Counter {
    fn add(&self, fruitful: bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.fruitful.fetch_add(fruitful.into(), Ordering::Relaxed);
    }

    fn read(&self) -> Count {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count { all: read(&self.all), fruitful: read(&self.fruitful) }
    }
}

impl Report {
    fn new() -> Self {
        let calls = super::ALL.iter().map(|operation| (operation.name, Counter::default()));
        Self {
            began: Instant::now(),
            calls: calls.collect(),
            faults: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Returns the time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns how often each operation was done.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, Count)> {
        self.calls.iter().map(|(name, counter)| (*name, counter.read()))
    }

    /// Returns how many operations were done.
    pub fn total(&self) -> u64 {
        self.calls().map(|(_, count)| count.all).sum()
    }

    /// Returns how many faults were answered.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Returns how many rounds the vCPUs made.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn count(&self, name: &str, fruitful: bool) {
        let counter = self.calls.iter().find(|(own, _)| *own == name);
        counter.expect("every operation has one").1.add(fruitful);
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs all of it, then checks every byte, and returns what was done.
pub fn run(memory: &Memory, limits: Limits) -> Report {
    let report = Report::new();
    thread::scope(|scope| {
        // Whoever panics ends all the others: a scope waits for each of its threads.
        let _stop = StopOnDrop(memory, &report);
        for vcpu in 0..memory.guest().cpus().len() {
            let report = &report;
            scope.spawn(move || guarded(memory, report, || memory.drive(vcpu, report)));
        }
        for (seed, duty) in limits.workers.iter().enumerate() {
            let report = &report;
            scope.spawn(move || guarded(memory, report, || work(memory, seed, duty, report)));
        }
        watch(memory, &report, limits.duration, limits.tick);
    });
    memory.finish(&Pages::single(1));
    report
}

/// Ends everything when it is dropped, by a panic too.
struct StopOnDrop<'run>(&'run Memory, &'run Report);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.1.stop.store(true, Ordering::Relaxed);
        (0..self.0.guest.cpus().len()).for_each(|vcpu| self.0.guest.tell_stop(vcpu));
    }
}

/// Does a thread's work; a panic in it ends the run.
fn guarded(memory: &Memory, report: &Report, work: impl FnOnce()) {
    let stop = StopOnDrop(memory, report);
    work();
    std::mem::forget(stop);
}

fn work(memory: &Memory, seed: usize, duty: &Duty, report: &Report) {
    let random = Random::new(seed as u64 + 1000);
    let mut worker = Worker { memory, random, buffer: Pages::single(1) };
    for turn in 1_u64.. {
        let operation = duty.operations[worker.random.below(duty.operations.len())];
        let fruitful = (operation.run)(&mut worker);
        report.count(operation.name, fruitful);
        while turn.is_multiple_of(BURST) && turn * duty.one_in > report.total() && !report.is_over()
        {
            thread::sleep(NAP);
        }
        if report.is_over() {
            return;
        }
    }
}

fn watch(memory: &Memory, report: &Report, duration: Duration, tick: &mut dyn FnMut(&Report)) {
    let vcpus = 0..memory.guest.cpus().len();
    let rounds = |vcpu| memory.guest.control(vcpu, control::ROUNDS);
    let mut seen: Vec<_> = vcpus.clone().map(|_| (0, Instant::now())).collect();
    while report.elapsed() < duration && !report.is_over() {
        thread::sleep(TICK);
        memory.check_vcpus();
        for vcpu in vcpus.clone() {
            let now = rounds(vcpu);
            if now != seen[vcpu].0 {
                seen[vcpu] = (now, Instant::now());
            }
            let idle = seen[vcpu].1.elapsed();
            assert!(idle < PATIENCE, "vCPU {vcpu} makes no progress after round {now}");
        }
        report.rounds.store(vcpus.clone().map(rounds).sum(), Ordering::Relaxed);
        tick(report);
    }
}

impl Memory {
    /// Runs a vCPU until it is told to stop, and answers its faults.
    fn drive(&self, vcpu: usize, report: &Report) {
        let runner = self.guest.start(vcpu, program::LEDGER, &self.arguments(vcpu));
        let mut random = Random::new(vcpu as u64 + 1);
        loop {
            match runner.enter(0, 0) {
                // It may have been started after all were told.
                Ok(Exit::Interrupt) if report.is_over() => self.guest.tell_stop(vcpu),
                Ok(Exit::Interrupt) | Err(Error::Busy) => {}
                Ok(Exit::Fault(fault)) => {
                    self.resolve(&fault, &mut random);
                    report.faults.fetch_add(1, Ordering::Relaxed);
                }
                Ok(exit) if exit.done().is_some() => return,
                other => panic!("vCPU {vcpu} ended in {other:x?}"),
            }
        }
    }
}
