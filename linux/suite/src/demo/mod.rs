//! The demonstration: a guest touches a window of its memory that moves, and the host learns which pages
//! from the access flags in the firmware's tables, without looking at the guest.
//!
//! The guest tells, too, which pages it touched: so every page can be counted as right or wrong.
//! At the end comes one round *without* the invalidation that ageing needs, as proof that the
//! comparison can fail: translations that are still cached hide touches.

mod heat;

use std::process::ExitCode;

use verdigris_abi::{Stat, flags};
use verdigris_guest::{program, touch, window};

use crate::firmware::{Features, Statistics};
use crate::guest::{DATA, Guest, Spinner};
use crate::pages::Pages;
use crate::sys;
use crate::vm::RW;
use heat::Heat;

const PAGES: usize = 64 << 20 >> 12;
const VCPUS: usize = 2;
const ROUNDS: u32 = 6;
/// The window of one vCPU, and how far it moves a round.
const WINDOW_PAGES: u64 = 1200;
const STEP_PAGES: u64 = 800;
/// IPA of the first report page.
const REPORTS: u64 = 0x4060_0000;
/// Pages of the chunks that the guest's memory is allocated in.
const CHUNK_ORDER: u32 = 9;
/// The part that the last round looks at, and how often it is tried.
const HIDDEN_PAGES: u64 = 64;
const FLUSHED_TRIES: u32 = 20;
const HIDDEN_TRIES: u32 = 300;

/// The guest, its memory, and what is known of it.
struct Demo {
    guest: Guest,
    reports: Pages,
    buffer: Pages,
    heat: Heat,
    _memory: Pages,
}

/// How the pages of a round compare with what the guest says.
#[derive(Default)]
struct Tally {
    right: usize,
    /// Touched and reported old: must not be.
    missed: usize,
    /// Not touched and reported young: allowed, the CPU may fetch on speculation.
    extra: usize,
}

/// Runs the demonstration: it fails if a touched page was reported old.
pub fn run() -> ExitCode {
    let features = Features::read();
    let mut demo = Demo::new();
    demo.introduce(&features);
    let mut missed = 0;
    for round in 1..=ROUNDS {
        missed += demo.round(round);
    }
    let (hidden, with_flush) = demo.round_without_invalidation();
    missed += with_flush;
    println!();
    demo.print_counters();
    if missed > 0 {
        println!("\nWRONG: {missed} touched pages were reported old after an invalidation.");
        return ExitCode::FAILURE;
    }
    println!("\nNo touched page was reported old after an invalidation.");
    if hidden == 0 {
        println!("(This machine's TLB hid no touch in the round without one.)");
    }
    ExitCode::SUCCESS
}

impl Demo {
    fn new() -> Self {
        let guest = Guest::new(VCPUS);
        let memory = Pages::chunks(CHUNK_ORDER, PAGES >> CHUNK_ORDER);
        guest.map_pages(DATA, &memory, RW);
        let reports = Pages::single(VCPUS);
        guest.map_pages(REPORTS, &reports, RW);
        for vcpu in 0..VCPUS {
            reports.write(vcpu, window::NEXT, (vcpu * PAGES / VCPUS + 1000) as u64);
            reports.write(vcpu, window::STATE, vcpu as u64 + 1);
        }
        Self { guest, reports, buffer: Pages::single(1), heat: Heat::new(PAGES), _memory: memory }
    }

    fn introduce(&mut self, features: &Features) {
        let mib = PAGES >> 8;
        println!(
            "A guest with {VCPUS} vCPUs and {mib} MiB in {PAGES} pages of 4 KiB touches two windows"
        );
        println!(
            "that move. Between ages: what the firmware's access flags say, and what the guest says."
        );
        if features.has(flags::FEATURE_HW_ACCESS_FLAG) {
            println!("Access flags are set by the hardware (FEAT_HAFDBS).");
        } else {
            println!("Access flags are set by EL2: the first touch of an old page is a fault.");
        }
        println!("One cell is {} pages: {}", self.heat.pages_per_cell(), Heat::LEGEND);
        // All pages begin young.
        self.age(flags::AGE_FLUSH_ALL);
    }

    fn age(&mut self, mode: u64) -> Vec<bool> {
        self.guest.age_by_buffer(DATA, PAGES as u64, mode, &self.buffer)
    }

    /// Lets both vCPUs touch their windows, at the same time.
    fn touch(&self) -> Vec<bool> {
        std::thread::scope(|scope| {
            for (index, vcpu) in self.guest.cpus().iter().enumerate() {
                let report = REPORTS + ((index as u64) << 12);
                let arguments = [DATA, PAGES as u64, report, WINDOW_PAGES, STEP_PAGES];
                scope.spawn(move || vcpu.call(program::WINDOW, &arguments));
            }
        });
        (0..PAGES).map(|page| self.is_reported(page)).collect()
    }

    fn is_reported(&self, page: usize) -> bool {
        let word = window::BITMAP_BYTES / 8 + page / 64;
        (0..VCPUS).any(|vcpu| self.reports.read(vcpu, word) >> (page % 64) & 1 == 1)
    }

    /// Shows one round, and returns how many touched pages were reported old.
    fn round(&mut self, round: u32) -> usize {
        let touched = self.touch();
        let young = self.age(flags::AGE_FLUSH_ALL);
        self.heat.update(&young);
        let tally = Tally::of(&young, &touched);
        println!(
            "\nround {round}: {:<32}    windows that the guest reports",
            "heat of the guest's memory"
        );
        self.heat.print_beside(&touched);
        println!("{tally}");
        tally.missed
    }

    /// Ages with the invalidation while a vCPU touches pages all the time, and then without it.
    ///
    /// Returns how many touches were hidden, without and with. A vCPU that is interrupted between age and
    /// test may lose its translations, and then nothing is hidden: so it is tried again.
    fn round_without_invalidation(&self) -> (usize, usize) {
        let cpus = sys::cpus();
        _ = sys::run_on(cpus[0]);
        let arguments = [DATA, HIDDEN_PAGES, 1, touch::READ];
        let spinner = self.guest.spin(0, cpus[cpus.len() - 1], program::SPIN, &arguments);
        let with = (0..FLUSHED_TRIES).map(|_| self.hidden(&spinner, flags::AGE_FLUSH_ALL)).sum();
        let mut tries = (0..HIDDEN_TRIES).map(|_| self.hidden(&spinner, flags::AGE_NO_FLUSH));
        let hidden = tries.find(|&hidden| hidden > 0).unwrap_or(0);
        println!(
            "\nA vCPU touches {HIDDEN_PAGES} pages all the time, and they are aged meanwhile:"
        );
        println!("  with the invalidation:    {with} touches hidden, in {FLUSHED_TRIES} rounds");
        println!("  one round without it:     {hidden} touches hidden by cached translations");
        (hidden, with)
    }

    fn hidden(&self, spinner: &Spinner, mode: u64) -> usize {
        self.guest.age(DATA, HIDDEN_PAGES, mode);
        spinner.wait_a_round();
        self.guest.test_age(DATA, HIDDEN_PAGES).into_iter().filter(|young| !young).count()
    }

    fn print_counters(&self) {
        let statistics = self.guest.statistics();
        let rows: [(&str, &[(&str, Stat)]); 4] = [
            (
                "ages",
                &[
                    ("calls", Stat::Ages),
                    ("leaves visited", Stat::LeavesVisited),
                    ("found young", Stat::LeavesYoung),
                ],
            ),
            (
                "faults",
                &[
                    ("access flag", Stat::FaultAccessFlag),
                    ("translation", Stat::FaultTranslation),
                    ("permission", Stat::FaultPermission),
                ],
            ),
            (
                "TLB",
                &[
                    ("whole VM", Stat::TlbiVmid),
                    ("ranges", Stat::TlbiRange),
                    ("pages", Stat::TlbiIpa),
                    ("local", Stat::TlbiLocal),
                ],
            ),
            (
                "exits",
                &[
                    ("interrupt", Stat::ExitInterrupt),
                    ("call", Stat::ExitHypercall),
                    ("fault", Stat::ExitFault),
                    ("runs", Stat::Runs),
                ],
            ),
        ];
        for (name, counters) in rows {
            println!("{name:>7}: {}", describe(&statistics, counters));
        }
    }
}

fn describe(statistics: &Statistics, counters: &[(&str, Stat)]) -> String {
    let one = |&(name, stat): &(&str, Stat)| format!("{name} {}", statistics.get(stat));
    counters.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Tally {
    fn of(young: &[bool], touched: &[bool]) -> Self {
        let mut tally = Self::default();
        for (young, touched) in young.iter().zip(touched) {
            match (young, touched) {
                (false, true) => tally.missed += 1,
                (true, false) => tally.extra += 1,
                _ => tally.right += 1,
            }
        }
        tally
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { right, missed, extra } = self;
        write!(f, "pages right {right}, wrong {} (touched but old {missed}, ", missed + extra)?;
        write!(f, "young but untouched {extra})")
    }
}
