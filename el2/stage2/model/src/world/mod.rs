//! A world: the engine on its machine, and beside it what the host should believe.
//!
//! Each step chooses an operation, predicts what may come out of it, calls the engine, and then looks at
//! everything that the operation could have touched: what the walker finds in the real tables is what the
//! model says, bit by bit; TLBs hold nothing that the tables don't say; each leaf that is gone was reported
//! once; no write is lost; and nothing was invalidated that didn't have to be. Now and then, and at the end, it
//! looks at all of it.
//!
//! Where the engine is free (a call may stop at an interrupt; a block is dropped where a table page is
//! lacking) the model asks the walker which way it went, and checks that there was a reason.

mod age;
mod collapse;
mod compare;
mod contract;
mod guest;
mod harvest;
mod judge;
mod map;
mod map_list;
mod protect;
mod reclaim;
mod remove;
mod set;
mod split;

use crate::agent::Agent;
use crate::choices::Choices;
use crate::machine::{CPUS, Machine};
use crate::settings::Settings;
use crate::shares::{MEMORY_BASE, VARIANTS};
use crate::space::{Leaf, Space};
use contract::Contract;
use judge::Proof;
use std::collections::BTreeSet;
use verdigris_stage2::{DirtySink, Error, Ipa, Range, Stat};

/// Hot addresses at a time.
const HOT: usize = 5;
/// Operations between two looks at everything.
const LOOK_EVERY: u64 = 512;

/// A run of pages that operations choose from.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: u64,
    pages: u64,
}

/// The engine, its machine, and the model of it.
pub struct World {
    machine: Machine,
    space: Space,
    /// Leaves that are out of the tables and not reported yet.
    parked: Vec<Parked>,
    /// Pages that were parked with flags of which the model isn't sure: of two reports of one such page
    /// either may be the other's, as far as flags go.
    mixed_up: BTreeSet<u64>,
    contract: Contract,
    choices: Choices,
    windows: Vec<Window>,
    /// Pages that the guest wrote, and that no answer has reported since.
    owed: BTreeSet<u64>,
    /// Pages that the guest wrote in the middle of the call.
    answered: Vec<u64>,
    /// Pages that have to come back as dirty without a dirty leaf.
    orphans: Vec<(u64, u64)>,
    /// Covers the pages that may.
    orphan_hull: Option<(u64, u64)>,
    proof: Proof,
    /// What calls of unmap have left.
    unfinished: Vec<(u64, u64)>,
    /// The block whose parts were mapped last.
    filled: Option<u64>,
    steps: u64,
    /// The leaves at the hot addresses before the last operation.
    before: [Option<Leaf>; HOT],
    /// What the last operation may have touched.
    touched: (u64, u64),
    /// The last operations, for who looks at a failure.
    journal: [Note; 8],
}

/// An operation that was tried: its name and arguments.
#[derive(Clone, Copy, Debug, Default)]
#[allow(dead_code, reason = "it is there to be printed")]
struct Note {
    step: u64,
    name: &'static str,
    page: u64,
    count: u64,
    detail: u64,
}

/// A leaf of a table that was unlinked, and that no call has reported yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parked {
    first: u64,
    leaf: Leaf,
    /// The hardware set flags of it at the last moment, or didn't.
    is_unsure: bool,
}

/// Takes the dirty bits of a call.
struct Bits {
    capacity: u64,
    words: Vec<u64>,
}

impl Bits {
    fn new(capacity: u64) -> Self {
        Self { capacity, words: Vec::new() }
    }
}

impl DirtySink for Bits {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn dirty(&mut self, first: u64, bits: u64) {
        if self.capacity == 0 {
            return;
        }
        assert!(first < self.capacity || bits == 0, "bits past what the call can carry");
        let (word, shift) = ((first / 64) as usize, first % 64);
        if self.words.len() < word + 2 {
            self.words.resize(word + 2, 0);
        }
        self.words[word] |= bits << shift;
        self.words[word + 1] |= bits.checked_shr(64 - shift as u32).unwrap_or(0);
    }
}

impl World {
    /// Makes a world from settings and a source of choices.
    pub fn new(settings: Settings, mut choices: Choices) -> Self {
        let agent = Agent::new(choices.fork());
        let machine = Machine::new(settings, settings.pool_pages, agent);
        machine.vmids.enter(&machine);
        let windows = windows(settings.ipa_bits);
        let mut world = Self {
            machine,
            space: Space::default(),
            parked: Vec::new(),
            mixed_up: BTreeSet::new(),
            contract: Contract::default(),
            choices,
            windows,
            owed: BTreeSet::new(),
            answered: Vec::new(),
            orphans: Vec::new(),
            orphan_hull: None,
            proof: Proof::Yes,
            unfinished: Vec::new(),
            filled: None,
            steps: 0,
            before: [None; HOT],
            touched: (0, 0),
            journal: Default::default(),
        };
        for slot in 0..HOT {
            world.watch(slot);
        }
        world
    }

    /// Returns what the engine has counted.
    pub fn stat(&self, stat: Stat) -> u64 {
        self.machine.stat(stat)
    }

    /// Tells whether the choices are used up.
    pub fn is_over(&self) -> bool {
        self.choices.is_over()
    }

    /// Does one operation and checks it.
    pub fn step(&mut self) {
        self.steps += 1;
        self.prepare();
        match self.choices.below(64) {
            0..=13 => self.map(),
            14..=15 => self.map_list(),
            16..=23 => self.unmap(),
            24..=31 => self.invalidate(),
            32..=36 => self.set(),
            37..=42 => self.age(),
            43..=44 => self.test_age(),
            45..=47 => self.protect(),
            48 => self.flush(),
            49 => self.rest(),
            50..=52 => self.harvest(),
            53 => self.split(),
            54..=55 => self.collapse(),
            56 => self.reclaim(),
            _ => self.guest(),
        }
        self.conclude();
        if self.steps.is_multiple_of(LOOK_EVERY) {
            self.look_at_everything();
        }
    }

    /// Sets the stage for one operation.
    fn prepare(&mut self) {
        self.machine.record.borrow_mut().clear();
        if self.choices.one_in(24) {
            let slot = self.choices.below(HOT as u64) as usize;
            self.watch(slot);
        }
        let polls = self.choices.one_in(4).then(|| self.choices.below(8));
        self.machine.interrupt_after(polls);
        let error = self.choices.pick(&[Error::NotOwner, Error::Limit]);
        let refusal = self.choices.one_in(24).then(|| (self.choices.below(96), error));
        self.machine.shares.refuse_after(refusal);
        self.touched = (0, 0);
        // Sometimes hardly a moment passes without something.
        self.machine.agent.act_every(if self.choices.one_in(8) { 4 } else { 60 });
        self.machine.fill();
        self.look_at_hot();
    }

    /// Takes note of what stands at the hot addresses before an operation.
    pub(super) fn look_at_hot(&mut self) {
        let tlb = self.machine.tlb.borrow();
        self.before = std::array::from_fn(|slot| {
            let page = tlb.hot().nth(slot).expect("a hot address") / 4096;
            self.space.at(page).map(|(_, leaf)| leaf)
        });
    }

    /// Looks at another hot address, in some window.
    fn watch(&mut self, slot: usize) {
        let window = self.choices.pick(&self.windows);
        let page = window.start + self.choices.below(window.pages.min(2048));
        self.machine.tlb.borrow_mut().watch(slot, page * 4096);
    }

    /// Chooses a CPU and calls the engine on it.
    fn call<T>(&mut self, call: impl FnOnce(&Machine) -> T) -> T {
        let cpu = self.choices.below(4) as usize;
        let cpu = if self.machine.is_inside(cpu) { (cpu + 1) % CPUS } else { cpu };
        self.machine.on_cpu(cpu, |_| call(&self.machine))
    }

    /// Chooses a range, mostly short, often around a hot address.
    fn range(&mut self) -> (u64, u64) {
        let window = self.choices.pick(&self.windows);
        let longest = self.choices.pick(&[1, 1, 1, 4, 4, 16, 64, 64, 130, 700]);
        let mut pages = 1 + self.choices.below(longest);
        let mut start = window.start + self.choices.below(window.pages.min(2048));
        let mut window = window;
        if self.choices.one_in(2) {
            (start, window) = self.near_hot();
            start = start.saturating_sub(self.choices.below(pages)).max(window.start);
        }
        if self.choices.one_in(8) {
            // Whole tables are what ends up in walk caches.
            start = (start & !511).max(window.start);
            pages = 512 * (1 + self.choices.below(2));
        }
        if self.choices.one_in(400) {
            (start, pages) = (window.start, window.pages);
        }
        (start, pages.min(window.start + window.pages - start))
    }

    /// Returns the page of a hot address, and the window that it is in.
    fn near_hot(&mut self) -> (u64, Window) {
        let slot = self.choices.below(HOT as u64) as usize;
        let page = self.machine.tlb.borrow().hot().nth(slot).expect("hot addresses") / 4096;
        let inside = |window: &&Window| (window.start..window.start + window.pages).contains(&page);
        (page, *self.windows.iter().find(inside).expect("hot addresses are in windows"))
    }

    fn engine_range(&self, start: u64, pages: u64) -> Range {
        self.machine.vm().range(Ipa(start * 4096), pages).expect("a range of the IPA space")
    }

    /// Tells whether hardware or another CPU changed a leaf in the middle of the call.
    fn is_disturbed(&self, first: u64, leaf: &Leaf) -> bool {
        let pages = first..first + leaf.pages();
        self.machine.record.borrow().disturbed.iter().any(|page| pages.contains(page))
    }

    /// Writes an operation into the journal.
    fn note(&mut self, name: &'static str, page: u64, count: u64, detail: u64) {
        let step = self.steps;
        self.journal.rotate_left(1);
        self.journal[7] = Note { step, name, page, count, detail };
    }

    /// Describes the last operations.
    pub fn journal(&self) -> String {
        let line = |note: &Note| {
            let Note { step, name, page, count, detail } = note;
            format!("  {step}: {name} page {page:#x}, {count} pages, {detail:#x}\n")
        };
        self.journal.iter().filter(|note| note.step != 0).map(line).collect()
    }

    /// Takes notice of everything that may have changed in `[start, end)`.
    fn touch(&mut self, start: u64, end: u64) {
        self.touched = (start, end);
    }

    /// Lets the guest rest or run, or a neighbour come by.
    fn rest(&mut self) {
        self.machine.agent.act(&self.machine);
    }
}

/// Chooses the windows: the ends of the address space, and a seam between tables of each level.
fn windows(ipa_bits: u32) -> Vec<Window> {
    let end = 1u64 << (ipa_bits - 12);
    let gib = 1 << 18;
    let mut windows = vec![
        Window { start: 0, pages: 3 * 512 },
        Window { start: end - 3 * 512, pages: 3 * 512 },
        // A seam between two tables of level 2, and room for a block of 1 GiB behind it.
        Window { start: gib - 1024, pages: 1024 + gib },
    ];
    if ipa_bits > 40 {
        let seam = 1 << 27;
        windows.push(Window { start: seam - 1024, pages: 2048 });
    }
    windows
}

/// Returns the memory that a page has behind it, in one of its variants.
const fn memory_of(page: u64, variant: u64) -> u64 {
    MEMORY_BASE + ((variant % VARIANTS) << 31) + (page % (1 << 19)) * 4096
}
