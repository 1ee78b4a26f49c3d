//! The loom tests' machine: a tree of two levels with two entries each, shared by a few CPUs.
//!
//! The barriers of the `Tlb` trait are loom fences here, and the TLB is one flag: does it still hold the
//! translation that the test is about? Where a walker fills it, walks and completed invalidations are
//! serialised by a lock, and a completed `dsb ish` comes between walks: one that begins later sees all
//! stores before it.
#![allow(dead_code, unsafe_code)]

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::cell::{Cell, RefCell};
use verdigris_abi::flags::{PROT_READ, PROT_WRITE};
use verdigris_stage2::sync::{Weakness, watch_reads, weaken, weakened};
use verdigris_stage2::{
    Attributes, Cache, Config, Counters, Cpus, Descriptor, Entry, Error, Geometry, Ipa, Level, Map,
    Outcome, Pa, PageSource, Removed, Root, Set, Shares, Stage2, Stat, Table, TableMemory,
    TablePage, Tlb,
};

const TABLES: u64 = 0x1_0000_0000;
pub const PAGE: u64 = 4096;

pub struct Shared {
    tables: Vec<Table>,
    pub vm: Stage2,
    /// A TLB holds the translation of page 0.
    pub cached: AtomicBool,
    /// The same where a walker is at work, which fills it. Where guests write: a translation of whatever
    /// page they write to, which allows it.
    pub tlb: Option<Mutex<bool>>,
    /// What guests wrote to each page.
    pub memory: [AtomicU64; 2],
    /// The last-level table was given back to the pool.
    pub freed: AtomicBool,
    /// The hardware is in the middle of a walk: an invalidation is complete only after it. `None` in
    /// scenarios without one.
    pub walking: Option<AtomicBool>,
    presence: [AtomicU64; 3],
}

/// A CPU, with the view of the machine that a call needs.
pub struct Cpu {
    pub shared: Arc<Shared>,
    number: usize,
    count: usize,
    pool: RefCell<Vec<u64>>,
    issued: Cell<bool>,
    pub removed: Cell<u64>,
    /// Shares taken less shares given back.
    pub shares: Cell<i64>,
}

impl Shared {
    /// Makes a VM whose page 1 is mapped, so that the tables are linked; page 0 isn't.
    pub fn new() -> Arc<Self> {
        Self::with(Config { fwb: true, dic: true, ..Config::default() }, None)
    }

    /// Makes one with a walker, and an epoch that may leave invalidations out.
    pub fn with_walker() -> Arc<Self> {
        let config = Config { fwb: true, dic: true, skip: true, ..Config::default() };
        Self::with(config, Some(Mutex::new(false)))
    }

    /// Makes one with guests that write, on hardware that keeps dirty state, or doesn't.
    pub fn with_writers(hd: bool) -> Arc<Self> {
        let config = Config { fwb: true, dic: true, hd, ..Config::default() };
        Self::with(config, Some(Mutex::new(false)))
    }

    fn with(config: Config, tlb: Option<Mutex<bool>>) -> Arc<Self> {
        let shared = Self::empty(config, 2, tlb, false);
        let boot = Cpu::new(&shared, 0, 1);
        boot.give_page(1);
        assert_eq!(boot.map(1, 0), Outcome::done(1));
        shared
    }

    /// Makes a VM with nothing but its root, which is the first table.
    pub fn empty(
        config: Config,
        table_count: usize,
        tlb: Option<Mutex<bool>>,
        has_walker: bool,
    ) -> Arc<Self> {
        Self::empty_with(Geometry::tiny(), config, table_count, tlb, has_walker)
    }

    /// Does the same for a tree of another height.
    pub fn empty_with(
        geometry: Geometry,
        config: Config,
        table_count: usize,
        tlb: Option<Mutex<bool>>,
        has_walker: bool,
    ) -> Arc<Self> {
        let table = || std::array::from_fn(|_| Entry::new(Descriptor::INVALID));
        // SAFETY: page 0 of the tables is never handed out.
        let root = unsafe { Root::new(Pa(TABLES), geometry) };
        Arc::new(Self {
            tables: (0..table_count).map(|_| table()).collect(),
            vm: Stage2::new(root, config),
            cached: AtomicBool::new(false),
            tlb,
            memory: std::array::from_fn(|_| AtomicU64::new(0)),
            freed: AtomicBool::new(false),
            walking: has_walker.then(|| AtomicBool::new(false)),
            presence: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// Reads an entry of any table.
    pub fn entry_of(&self, table: usize, index: usize) -> &Entry {
        &self.tables[table][index]
    }

    /// Reads the entry of a page in the last-level table.
    pub fn entry(&self, page: usize) -> &Entry {
        &self.tables[1][page]
    }

    /// Walks for page 0 as the hardware does: sets the access flag where it is clear, and caches.
    pub fn walk(&self) {
        let mut cached = self.tlb.as_ref().expect("a walker").lock().unwrap();
        let old = self.entry(0).read();
        let leaf = match self.entry(0).set_young(Level::L3) {
            _ if old.is_young() => old,
            Ok(old) => old,
            Err(now) => now,
        };
        *cached |= leaf.is_valid();
    }

    /// Writes to a page as a guest does: through the TLB, or after a walk that notes the write in the leaf
    /// as the hardware does. `false` for a fault.
    ///
    /// In one step with what completes an invalidation: that waits for writes under way.
    pub fn write(&self, page: usize, value: u64) -> bool {
        let mut cached = self.tlb.as_ref().expect("a walker").lock().unwrap();
        if !*cached {
            let root = self.entry_of(0, 0);
            let is_block = root.read().leaf_address(Level::L2).is_some();
            let entry = if is_block { root } else { self.entry(page) };
            if entry.update_by_walker(written).is_err() {
                return false;
            }
            *cached = true;
        }
        self.memory[page].store(value, Ordering::Relaxed);
        true
    }

    /// Tells whether the walker's TLB holds page 0.
    pub fn holds(&self) -> bool {
        *self.tlb.as_ref().expect("a walker").lock().unwrap()
    }

    pub fn is_mapped(&self, page: usize) -> bool {
        self.entry(page).read().is_valid()
    }
}

/// Returns the leaf that the hardware makes of one that is written to: young, and with S2AP[1] (bit 7)
/// where it has that or DBM (bit 51; Arm ARM DDI 0487, D8.5.3). `None` where the write faults.
pub fn written(old: u64) -> Option<u64> {
    const VALID: u64 = 1;
    const AF: u64 = 1 << 10;
    const WRITE: u64 = 1 << 7;
    const DBM: u64 = 1 << 51;
    (old & VALID != 0 && old & (WRITE | DBM) != 0).then_some(old | AF | WRITE)
}

impl Cpu {
    pub fn new(shared: &Arc<Shared>, number: usize, count: usize) -> Self {
        Self {
            shared: shared.clone(),
            number,
            count,
            pool: RefCell::default(),
            issued: Cell::new(false),
            removed: Cell::new(0),
            shares: Cell::new(0),
        }
    }

    /// Puts a page into the pool that this CPU takes tables from.
    pub fn give_page(&self, index: u64) {
        self.pool.borrow_mut().push(index);
    }

    pub fn free_pages(&self) -> usize {
        self.pool.borrow().len()
    }

    /// Asks for a page, with a number that was sampled before.
    pub fn map(&self, page: u64, sequence: u64) -> Outcome {
        let map = Map {
            ipa: Ipa(page * PAGE),
            pa: Pa(0x8000 + page * PAGE),
            page_count: 1,
            level: Level::L3,
            attributes: Attributes::guest(PROT_READ | PROT_WRITE),
            sequence,
        };
        self.shared.vm.map(self, &map)
    }

    /// Asks for page 0 with other permissions, or clean.
    pub fn map_as(&self, flags: u64) -> Outcome {
        let map = Map {
            ipa: Ipa(0),
            pa: Pa(0x8000),
            page_count: 1,
            level: Level::L3,
            attributes: Attributes::guest(flags),
            sequence: 0,
        };
        self.shared.vm.map(self, &map)
    }

    /// Asks for another page in the place of page 0.
    pub fn set(&self, sequence: u64) -> Result<bool, Error> {
        let set = Set {
            ipa: Ipa(0),
            pa: Pa(0x20_0000),
            level: Level::L3,
            attributes: Attributes::guest(PROT_READ | PROT_WRITE),
            sequence,
        };
        self.shared.vm.set(self, &set)
    }

    /// Enters EL2: odd, and a full barrier before any table is read.
    pub fn enter_el2(&self) {
        self.shared.presence[self.number].fetch_add(1, Ordering::Relaxed);
        if !weakened(Weakness::PresenceBarrier) {
            fence(Ordering::SeqCst);
        }
    }

    pub fn leave_el2(&self) {
        self.shared.presence[self.number].fetch_add(1, Ordering::Release);
    }
}

/// Runs a scenario with a mistake, or without, in every interleaving of up to `preemptions` switches, and
/// prints how many that were.
pub fn model(
    weakness: Option<Weakness>,
    preemptions: usize,
    scenario: impl Fn() + Sync + Send + 'static,
) {
    weaken(weakness);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 2_000;
    // Twice: see `sync::watched`.
    let executions = Executions { weakness, preemptions, count: std::sync::Arc::default() };
    let count = executions.count.clone();
    let scenario = std::sync::Arc::new(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        scenario();
    });
    for watched in [true, false] {
        watch_reads(watched);
        let scenario = scenario.clone();
        builder.check(move || scenario());
    }
    drop(executions);
    weaken(None);
}

/// Counts executions, and prints the number when the model is done or has failed.
struct Executions {
    weakness: Option<Weakness>,
    preemptions: usize,
    count: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Drop for Executions {
    fn drop(&mut self) {
        let count = self.count.load(std::sync::atomic::Ordering::Relaxed);
        let outcome = if std::thread::panicking() { "failed in the last of" } else { "passed" };
        let bound = self.preemptions;
        let weakness = match self.weakness {
            Some(weakness) => format!(", with {weakness:?}"),
            None => String::new(),
        };
        println!("loom: {outcome} {count} executions, up to {bound} preemptions{weakness}");
    }
}

impl TableMemory for Cpu {
    fn table(&self, page: TablePage) -> &Table {
        &self.shared.tables[((page.pa().0 - TABLES) / PAGE) as usize]
    }
}

impl PageSource for Cpu {
    fn alloc(&self) -> Option<TablePage> {
        let index = self.pool.borrow_mut().pop()?;
        // SAFETY: the page came out of the pool.
        Some(unsafe { TablePage::new(Pa(TABLES + index * PAGE)) })
    }

    fn free(&self, page: TablePage) {
        self.give_page((page.pa().0 - TABLES) / PAGE);
        self.shared.freed.store(true, Ordering::Relaxed);
    }
}

impl Tlb for Cpu {
    fn enter(&self) {}
    fn leave(&self) {}
    fn ipa(&self, _: Ipa, _: Option<Level>) {
        self.issued.set(true);
    }
    fn range(&self, _: Ipa, _: u64, _: Option<Level>) {
        self.issued.set(true);
    }
    fn stage1(&self) {}
    fn vmid(&self) {
        self.issued.set(true);
    }
    fn local(&self, _: Ipa) {}
    fn dsb_ishst(&self) {
        fence(Ordering::SeqCst);
    }
    fn dsb_ish(&self) {
        let issued = self.issued.take();
        if let Some(tlb) = &self.shared.tlb {
            *tlb.lock().unwrap() &= !issued;
        } else if issued {
            self.shared.cached.store(false, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if let Some(walking) = &self.shared.walking {
            while walking.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
    }
    fn repeat(&self) {}
    fn isb(&self) {}
}

impl Cache for Cpu {
    fn clean(&self, _: Pa, _: u64) {}
    fn clean_invalidate(&self, _: Pa, _: u64) {}
    fn invalidate_instructions(&self) {}
}

impl Cpus for Cpu {
    fn this_cpu(&self) -> usize {
        self.number
    }
    fn cpu_count(&self) -> usize {
        self.count
    }
    fn presence(&self, cpu: usize) -> u64 {
        self.shared.presence[cpu].load(Ordering::Acquire)
    }
    fn interrupt_pending(&self) -> bool {
        false
    }
}

impl Shares for Cpu {
    type Batch = ();

    fn acquire(&self, _: Pa, _: Level) -> Result<(), Error> {
        self.shares.set(self.shares.get() + 1);
        Ok(())
    }
    fn release(&self, _: Pa, _: Level) {
        self.shares.set(self.shares.get() - 1);
    }
    fn batch(&self, _: Level) {}
    fn removed(&self, _: &mut (), leaf: &Removed) {
        self.removed.set(self.removed.get() + 1);
        self.release(leaf.pa, leaf.level);
    }
}

impl Counters for Cpu {
    fn count(&self, _: Stat, _: u64) {}
}
