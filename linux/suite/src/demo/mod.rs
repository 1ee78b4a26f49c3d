//! The demonstration: a guest touches a window of its memory that moves, and the host learns which pages
//! from the firmware, without looking at the guest; then it takes away what is cold.
//!
//! The guest tells, too, which pages it touched: so every page can be counted as right or wrong. That the
//! comparison can fail is shown by a round *without* the invalidation that ageing needs: translations
//! that are still cached hide touches.

mod counters;
mod heat;
mod reclaim;

use std::process::ExitCode;

use verdigris_abi::flags;
use verdigris_guest::{program, touch, window};

use crate::firmware::Features;
use crate::guest::{DATA, Guest, Spinner};
use crate::pages::Pages;
use crate::sys;
use crate::vm::RW;
use crate::working_set::WorkingSet;

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
/// The part that the round without invalidation looks at, and how often it is tried.
const HIDDEN_PAGES: u64 = 64;
const FLUSHED_TRIES: u32 = 20;
const HIDDEN_TRIES: u32 = 300;

/// The guest, its memory, and what is known of it.
struct Demo {
    guest: Guest,
    set: WorkingSet,
    reports: Pages,
    buffer: Pages,
    memory: Pages,
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

/// Runs the demonstration: it fails if a touched page was reported old, or a reclaimed one was needed and lost.
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
    demo.reclaim(&features);
    counters::print(&demo.guest.statistics());
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
        // All pages begin young: that is no touch of the guest's, and no round.
        let buffer = Pages::single(1);
        guest.age_by_buffer(DATA, PAGES as u64, flags::AGE_FLUSH_ALL, &buffer);
        let set = WorkingSet::create(&guest, DATA, PAGES as u64).expect("a fresh range");
        Self { guest, set, reports, buffer, memory }
    }

    fn introduce(&self, features: &Features) {
        let mib = PAGES >> 8;
        println!(
            "A guest with {VCPUS} vCPUs and {mib} MiB, {PAGES} pages, touches two windows that move."
        );
        println!("The firmware keeps each page's idle rounds; the guest tells what it touched.");
        if features.has(flags::FEATURE_HW_ACCESS_FLAG) {
            println!("Access flags are set by the hardware (FEAT_HAFDBS).");
        } else {
            println!("Access flags are set by EL2: the first touch of an old page is a fault.");
        }
        println!("One cell is {} pages: {}", heat::pages_per_cell(PAGES), heat::LEGEND);
    }

    fn age(&self, mode: u64) -> Vec<bool> {
        self.guest.age_by_buffer(DATA, PAGES as u64, mode, &self.buffer)
    }

    /// Lets both vCPUs touch their windows, at the same time; returns what they touched, and how many pages they
    /// had to get back.
    fn touch(&self) -> (Vec<bool>, usize) {
        let back = std::thread::scope(|scope| {
            let vcpus = (0..VCPUS).map(|index| scope.spawn(move || self.touch_by(index)));
            let vcpus: Vec<_> = vcpus.collect();
            vcpus.into_iter().map(|vcpu| vcpu.join().expect("a vCPU of ours")).sum()
        });
        ((0..PAGES).map(|page| self.is_reported(page)).collect(), back)
    }

    fn touch_by(&self, index: usize) -> usize {
        let report = REPORTS + ((index as u64) << 12);
        let vcpu = self.guest.cpu(index);
        vcpu.prepare(program::WINDOW, &[DATA, PAGES as u64, report, WINDOW_PAGES, STEP_PAGES]);
        let mut back = 0;
        loop {
            let exit = vcpu.run();
            if exit.done().is_some() {
                return back;
            }
            self.give_back(&exit.fault());
            back += 1;
        }
    }

    fn is_reported(&self, page: usize) -> bool {
        let word = window::BITMAP_BYTES / 8 + page / 64;
        (0..VCPUS).any(|vcpu| self.reports.read(vcpu, word) >> (page % 64) & 1 == 1)
    }

    /// Shows one round, and returns how many touched pages were reported old.
    fn round(&mut self, round: u32) -> usize {
        let (touched, _) = self.touch();
        let young = self.age(flags::AGE_FLUSH_ALL);
        let tally = Tally::of(&young, &touched);
        println!(
            "\nround {round}: {:<25}    windows that the guest reports",
            "heat, as the firmware has it"
        );
        heat::print(&heat::heat(&self.set.ages(&self.buffer)), &heat::cells(&touched));
        println!("  pages by idle rounds: {}", heat::describe(&self.set.histogram()));
        println!("  {tally}");
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
