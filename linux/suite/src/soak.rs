//! Everything at once, for as long as the user likes: every operation on several host CPUs, two of which do
//! nothing but take pages away, while vCPUs check and write the memory, and CPUs come and go.
//!
//! Every byte is checked, all the time by the guest and at the end by the host; what was lent to the
//! firmware must then be back.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use verdigris_abi::{Stat, flags};

use crate::cases::hotplug_switch;
use crate::firmware::{Features, PageState, Statistics, page_state};
use crate::memory::{self, ALL, Duty, Limits, Memory, Report, Size};
use crate::pages::Pages;
use crate::sys;

const SIZE: Size = Size { loose_blocks: 2, blocks: 6, vcpus: 3, table_pages: 16 };
/// Workers that only take pages away, and those that do everything.
const UNMAPPERS: usize = 2;
const WORKERS: usize = 3;
/// What lets the others come to something, and the guest to memory that stays for a while: each of the unmappers
/// does at most one in so many of all operations.
const UNMAPPERS_ONE_IN: u64 = 5;
/// Seconds between two lines of progress, and ticks between two changes of CPUs.
const LINE_SECONDS: u64 = 5;
const HOTPLUG_TICKS: u32 = 10;
/// What the unmappers do.
const UNMAPPING: &[&str] = &["unmap", "begin and end", "begin left to end"];
/// Counters told at the end.
const TOLD: [Stat; 20] = [
    Stat::FaultTranslation,
    Stat::FaultPermission,
    Stat::FaultAccessFlag,
    Stat::WritesLogged,
    Stat::LeavesMapped,
    Stat::LeavesUnmapped,
    Stat::LeavesSet,
    Stat::LeavesProtected,
    Stat::LeavesYoung,
    Stat::LeavesDirty,
    Stat::FlushesSkipped,
    Stat::FlushesDone,
    Stat::TlbiVmid,
    Stat::BlocksDropped,
    Stat::BlocksSplit,
    Stat::BlocksCollapsed,
    Stat::TablesReclaimed,
    Stat::Retries,
    Stat::FalseRetries,
    Stat::VmidRollovers,
];

/// Counters that must have moved; below, those that do so only without a feature, or with one.
const MOVED: [Stat; 11] = [
    Stat::FaultTranslation,
    Stat::FaultPermission,
    Stat::LeavesMapped,
    Stat::LeavesUnmapped,
    Stat::LeavesSet,
    Stat::LeavesProtected,
    Stat::LeavesYoung,
    Stat::LeavesDirty,
    Stat::BlocksSplit,
    Stat::BlocksCollapsed,
    Stat::TablesReclaimed,
];
const MOVED_WITHOUT: [(Stat, u64); 2] = [
    (Stat::FaultAccessFlag, flags::FEATURE_HW_ACCESS_FLAG),
    (Stat::WritesLogged, flags::FEATURE_HW_DIRTY),
];
const MOVED_WITH: [(Stat, u64); 1] = [(Stat::FlushesSkipped, flags::FEATURE_FLUSH_EPOCH)];

/// Soaks for some seconds.
pub fn run(seconds: u64) -> ExitCode {
    let before = Statistics::read(0);
    let memory = Memory::new(Size { vcpus: SIZE.vcpus.min(sys::cpus().len()), ..SIZE });
    let unmapping = Duty { operations: memory::named(UNMAPPING), one_in: UNMAPPERS_ONE_IN };
    let mut workers = vec![unmapping; UNMAPPERS];
    workers.extend(vec![Duty::of(ALL.iter().collect()); WORKERS]);
    let mut hotplug = Hotplug::new();
    let mut next_line = LINE_SECONDS;
    let mut tick = |report: &Report| {
        hotplug.tick();
        if report.elapsed().as_secs() >= next_line {
            next_line += LINE_SECONDS;
            println!("soak: {}", line(report));
        }
    };
    let duration = Duration::from_secs(seconds);
    let report = memory::run(&memory, Limits { duration, workers, tick: &mut tick });
    hotplug.bring_back();
    print(&report, &before, &hotplug);
    check_returned(memory, &before);
    check_done(&report, &before);
    println!("soak: every byte is right, and all that was lent is back");
    ExitCode::SUCCESS
}

fn line(report: &Report) -> String {
    let calls = report.total();
    let seconds = report.elapsed().as_secs();
    let (faults, rounds) = (report.faults(), report.rounds());
    format!("{seconds} s: {calls} operations, {faults} faults, {rounds} rounds of the guest")
}

fn print(report: &Report, before: &Statistics, hotplug: &Hotplug) {
    println!("soak: in {}", line(report));
    for (name, count) in report.calls() {
        println!("  {:>9} {name}, {} of them with something to do", count.all, count.fruitful);
    }
    println!("  {:>9} CPUs taken away and brought back", hotplug.changes);
    let now = Statistics::read(0);
    for stat in TOLD {
        let name = verdigris_abi::STAT_NAMES[stat as usize];
        println!("  {:>9} {name}", now.since(before, stat));
    }
}

/// Fails if an operation never found what it works on, or the firmware never did what it asks for.
fn check_done(report: &Report, before: &Statistics) {
    let idle: Vec<_> = report.calls().filter(|(_, count)| count.fruitful == 0).collect();
    assert!(idle.is_empty(), "never done with something to do: {idle:?}");
    let (now, features) = (Statistics::read(0), Features::read());
    let without = MOVED_WITHOUT.iter().filter(|(_, feature)| !features.has(*feature));
    let with = MOVED_WITH.iter().filter(|(_, feature)| features.has(*feature));
    let expected = MOVED.iter().chain(without.chain(with).map(|(stat, _)| stat));
    let still: Vec<_> = expected.filter(|stat| now.since(before, **stat) == 0).collect();
    assert!(still.is_empty(), "the firmware never counted {still:?}");
}

/// Ends the VM, and looks for what is not as it was.
fn check_returned(memory: Memory, before: &Statistics) {
    let (guest, lent) = memory.into_parts();
    let donated = guest.donated_addresses();
    drop(guest);
    for address in lent.iter().flat_map(Pages::addresses).chain(donated) {
        assert_eq!(page_state(address), PageState::FREE, "page {address:#x}");
    }
    let now = Statistics::read(0);
    for stat in [Stat::TablePages, Stat::FreeTablePages, Stat::PagesMapped] {
        assert_eq!(now.get(stat), before.get(stat), "{stat:?}");
    }
}

/// Takes a CPU away and brings it back, in turns.
struct Hotplug {
    cpus: Vec<usize>,
    ticks: u32,
    away: Option<usize>,
    changes: usize,
}

impl Hotplug {
    fn new() -> Self {
        let has_switch = |cpu: &usize| hotplug_switch(*cpu).exists();
        let cpus = sys::cpus().into_iter().skip(1).filter(has_switch).collect();
        Self { cpus, ticks: 0, away: None, changes: 0 }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(HOTPLUG_TICKS) || self.cpus.is_empty() {
            return;
        }
        if self.away.is_some() {
            return self.bring_back();
        }
        let cpu = self.cpus[self.changes % self.cpus.len()];
        switch(cpu, "0");
        self.away = Some(cpu);
    }

    fn bring_back(&mut self) {
        if let Some(cpu) = self.away.take() {
            switch(cpu, "1");
            self.changes += 1;
        }
    }
}

fn switch(cpu: usize, state: &str) {
    let result = fs::write(hotplug_switch(cpu), state);
    result.unwrap_or_else(|error| panic!("CPU {cpu} to {state}: {error}"));
}
