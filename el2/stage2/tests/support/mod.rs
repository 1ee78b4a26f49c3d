//! A machine for the tests: table memory, a pool of pages, shares, counters, CPUs, and a TLB.
//!
//! The TLB is as lazy as the architecture lets it be: at every step that the engine takes it caches
//! whatever a walk of the hot addresses yields, tables included, and keeps it until an invalidation that
//! must reach it is complete. It has its own walker with its own constants (Arm ARM DDI 0487, D8.3).
#![allow(dead_code, unsafe_code)]

pub mod model;
pub mod tlb;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use tlb::LazyTlb;
use verdigris_stage2::sweep::GROUP;
use verdigris_stage2::{
    Cache, Config, Counters, Cpus, Descriptor, Entry, Error, Geometry, Ipa, Level, Pa, PageSource,
    Removed, Root, Shares, Stage2, Stat, Table, TableMemory, TablePage, Tlb,
};

/// Where table memory begins: above every address that the tests map, so that they never look alike.
pub const TABLES: u64 = 0x00ff_0000_0000;

/// What the engine asked for, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Enter,
    Leave,
    Ipa(u64, Option<u8>),
    Range(u64, u64, Option<u8>),
    Stage1,
    Vmid,
    Local(u64),
    DsbIshst,
    DsbIsh,
    Repeat,
    Isb,
    Clean(u64, u64),
    CleanInvalidate(u64, u64),
    InvalidateInstructions,
    Removed(u64),
}

/// What a test looks at, or does as another CPU, while the engine works.
type Watch = Box<dyn Fn(&Machine, Step)>;
/// The same, whenever a page is looked at as a table.
type AtTable = Box<dyn Fn(&Machine, TablePage)>;
/// The same, once.
pub type Meanwhile = Box<dyn FnOnce(&Machine)>;

pub struct Machine {
    /// Each its own allocation, which is what keeps Miri fast.
    tables: Vec<Box<Table>>,
    free: RefCell<Vec<u64>>,
    /// Pages that were handed out before, and are not zero any more.
    used: RefCell<HashSet<u64>>,
    pub steps: RefCell<Vec<Step>>,
    pub watch: RefCell<Option<Watch>>,
    pub allocated: Cell<usize>,
    pub tlb: RefCell<Option<LazyTlb>>,
    pub removed: RefCell<Vec<Removed>>,
    /// Shares held, by address and level.
    pub shares: RefCell<HashMap<(u64, u8), u64>>,
    /// Memory from here on isn't the host's.
    pub owned_below: Cell<u64>,
    pub stats: RefCell<[u64; Stat::COUNT]>,
    pub cpu: Cell<usize>,
    pub presence: RefCell<Vec<u64>>,
    /// Looks at interrupts until one is pending; `None` for never.
    pub interrupt_after: Cell<Option<u64>>,
    /// What another CPU does when this one looks at interrupts next: between two stretches of leaves.
    pub meanwhile: RefCell<Option<Meanwhile>>,
    /// What another CPU does before this one looks at the n-th group of eight entries from now on.
    pub before_look: RefCell<Option<(usize, Meanwhile)>>,
    /// What other CPUs do whenever this one makes a page a table: nothing of it may look at tables.
    pub at_table: RefCell<Option<AtTable>>,
    /// The step before, and whether the VMID was read right after a `dsb ish`.
    last: Cell<Option<Step>>,
    is_ordered: Cell<bool>,
}

impl Machine {
    /// Makes a machine with so many table pages, of which the first 16 are for a root.
    pub fn new(page_count: usize) -> Self {
        // SAFETY: an entry is an atomic number, for which zero is a value.
        let empty = || Box::new(unsafe { std::mem::zeroed::<Table>() });
        Self {
            tables: (0..page_count).map(|_| empty()).collect(),
            free: RefCell::new((16..page_count as u64).rev().collect()),
            used: RefCell::default(),
            steps: RefCell::default(),
            watch: RefCell::default(),
            allocated: Cell::new(0),
            tlb: RefCell::default(),
            removed: RefCell::default(),
            shares: RefCell::default(),
            owned_below: Cell::new(u64::MAX),
            stats: RefCell::new([0; Stat::COUNT]),
            cpu: Cell::new(0),
            presence: RefCell::new(vec![1, 0, 0, 0]),
            interrupt_after: Cell::new(None),
            meanwhile: RefCell::default(),
            before_look: RefCell::default(),
            at_table: RefCell::default(),
            last: Cell::new(None),
            is_ordered: Cell::new(false),
        }
    }

    /// Makes a machine and a VM with a lazy TLB that looks at `hot` addresses.
    pub fn with_vm(
        page_count: usize,
        ipa_bits: u32,
        config: Config,
        hot: &[u64],
    ) -> (Self, Stage2) {
        let machine = Self::new(page_count);
        let geometry = Geometry::new(ipa_bits, 48).unwrap();
        *machine.tlb.borrow_mut() = Some(LazyTlb::new(geometry, hot));
        let vm = Stage2::new(machine.root(geometry), config);
        (machine, vm)
    }

    /// Makes a root in the first pages.
    pub fn root(&self, geometry: Geometry) -> Root {
        // SAFETY: the first 16 pages are never handed out, and `table` reaches all pages.
        unsafe { Root::new(Pa(TABLES), geometry) }
    }

    pub fn take_steps(&self) -> Vec<Step> {
        self.steps.take()
    }

    pub fn take_removed(&self) -> Vec<Removed> {
        self.removed.take()
    }

    pub fn stat(&self, stat: Stat) -> u64 {
        self.stats.borrow()[stat as usize]
    }

    pub fn free_pages(&self) -> usize {
        self.free.borrow().len()
    }

    /// Leaves only so many pages in the pool.
    pub fn keep_free(&self, count: usize) {
        self.free.borrow_mut().truncate(count);
    }

    /// Leaves EL2 on this CPU and enters it again.
    pub fn reenter(&self) {
        self.presence.borrow_mut()[self.cpu.get()] += 2;
    }

    pub fn watch(&self, watch: impl Fn(&Machine, Step) + 'static) {
        *self.watch.borrow_mut() = Some(Box::new(watch));
    }

    pub fn unwatch(&self) {
        *self.watch.borrow_mut() = None;
    }

    /// Walks as the hardware does, from the root.
    pub fn walk(&self, geometry: Geometry, ipa: u64) -> Option<(u64, u32)> {
        tlb::walk(self, tlb::root(geometry, ipa), ipa, |_, _| {})
    }

    /// Reads one entry of a table page.
    pub fn raw(&self, table: u64, index: usize) -> u64 {
        self.entry(table, index).read().raw()
    }

    pub fn entry(&self, table: u64, index: usize) -> &Entry {
        &self.tables[((table - TABLES) / 4096) as usize][index]
    }

    /// Ages a leaf if it is young, else touches it.
    pub fn toggle_young(&self, geometry: Geometry, ipa: u64) {
        let (_, level) = self.walk(geometry, ipa).expect("it is mapped");
        let entry = tlb::entry(self, geometry, ipa, level);
        let old = entry.read();
        entry.replace(old.with_young(!old.is_young()));
    }

    /// Lets the hardware use an address: AF is set where it was clear. Tells whether it is mapped.
    pub fn touch(&self, geometry: Geometry, ipa: u64) -> bool {
        let Some((raw, level)) = self.walk(geometry, ipa) else {
            return false;
        };
        if raw & 1 << 10 == 0 {
            let entry = tlb::entry(self, geometry, ipa, level);
            let level = [Level::L0, Level::L1, Level::L2, Level::L3][level as usize];
            entry.set_young(level).unwrap();
        }
        true
    }

    /// Takes note of a step. An invalidation for other CPUs acts on the VMID that was read at `Enter`, which
    /// counts only if stores from before it are visible by then (`verdigris_core::vmid`).
    fn step(&self, step: Step) {
        self.steps.borrow_mut().push(step);
        match step {
            Step::Enter => self.is_ordered.set(self.last.get() == Some(Step::DsbIsh)),
            Step::Ipa(..) | Step::Range(..) | Step::Stage1 | Step::Vmid => {
                assert!(self.is_ordered.get(), "the VMID was read before a `dsb ish`: {step:?}");
            }
            _ => {}
        }
        if let Some(tlb) = self.tlb.borrow_mut().as_mut() {
            tlb.step(self, step);
        }
        if let Some(watch) = self.watch.borrow().as_ref() {
            watch(self, step);
        }
        // What another CPU did meanwhile is no step of this one.
        self.last.set(Some(step));
    }

    /// Lets another CPU do something.
    fn as_other_cpu(&self, act: Meanwhile) {
        let cpu = self.cpu.replace(1);
        act(self);
        self.cpu.set(cpu);
    }
}

impl TableMemory for Machine {
    fn table(&self, page: TablePage) -> &Table {
        if let Some(act) = self.at_table.borrow().as_ref() {
            act(self, page);
        }
        &self.tables[((page.pa().0 - TABLES) / 4096) as usize]
    }

    fn any_bits(&self, group: &[Entry; GROUP]) -> u64 {
        let next = self.before_look.take();
        match next {
            Some((1, act)) => self.as_other_cpu(act),
            Some((left, act)) => *self.before_look.borrow_mut() = Some((left - 1, act)),
            None => {}
        }
        group.iter().fold(0, |bits, entry| bits | entry.read().raw())
    }
}

impl PageSource for Machine {
    fn alloc(&self) -> Option<TablePage> {
        let index = self.free.borrow_mut().pop()?;
        self.allocated.set(self.allocated.get() + 1);
        if self.used.borrow_mut().insert(index) {
            // SAFETY: the page came out of the pool and is a table's until it is freed.
            return Some(unsafe { TablePage::new(Pa(TABLES + index * 4096)) });
        }
        for entry in &*self.tables[index as usize] {
            entry.replace(Descriptor::INVALID);
        }
        // SAFETY: the page came out of the pool and is a table's until it is freed.
        Some(unsafe { TablePage::new(Pa(TABLES + index * 4096)) })
    }

    fn free(&self, page: TablePage) {
        let index = (page.pa().0 - TABLES) / 4096;
        assert!(!self.free.borrow().contains(&index), "freed twice");
        if let Some(tlb) = self.tlb.borrow().as_ref() {
            tlb.assert_no_walk_through(page.pa().0);
        }
        self.allocated.set(self.allocated.get() - 1);
        self.free.borrow_mut().push(index);
    }
}

fn number(level: Option<Level>) -> Option<u8> {
    level.map(|level| level as u8)
}

impl Tlb for Machine {
    fn enter(&self) {
        self.step(Step::Enter);
    }
    fn leave(&self) {
        self.step(Step::Leave);
    }
    fn ipa(&self, ipa: Ipa, level: Option<Level>) {
        self.step(Step::Ipa(ipa.0, number(level)));
    }
    fn range(&self, ipa: Ipa, page_count: u64, level: Option<Level>) {
        self.step(Step::Range(ipa.0, page_count, number(level)));
    }
    fn stage1(&self) {
        self.step(Step::Stage1);
    }
    fn vmid(&self) {
        self.step(Step::Vmid);
    }
    fn local(&self, ipa: Ipa) {
        self.step(Step::Local(ipa.0));
    }
    fn dsb_ishst(&self) {
        self.step(Step::DsbIshst);
    }
    fn dsb_ish(&self) {
        self.step(Step::DsbIsh);
    }
    fn repeat(&self) {
        self.step(Step::Repeat);
    }
    fn isb(&self) {
        self.step(Step::Isb);
    }
}

impl Cache for Machine {
    fn clean(&self, pa: Pa, bytes: u64) {
        self.step(Step::Clean(pa.0, bytes));
    }
    fn clean_invalidate(&self, pa: Pa, bytes: u64) {
        self.step(Step::CleanInvalidate(pa.0, bytes));
    }
    fn invalidate_instructions(&self) {
        self.step(Step::InvalidateInstructions);
    }
}

impl Cpus for Machine {
    fn this_cpu(&self) -> usize {
        self.cpu.get()
    }
    fn cpu_count(&self) -> usize {
        self.presence.borrow().len()
    }
    fn presence(&self, cpu: usize) -> u64 {
        self.presence.borrow()[cpu]
    }
    fn interrupt_pending(&self) -> bool {
        let act = self.meanwhile.take();
        if let Some(act) = act {
            self.as_other_cpu(act);
        }
        match self.interrupt_after.get() {
            None => false,
            Some(0) => true,
            Some(left) => {
                self.interrupt_after.set(Some(left - 1));
                false
            }
        }
    }
}

impl Shares for Machine {
    type Batch = ();

    fn acquire(&self, pa: Pa, level: Level) -> Result<(), Error> {
        if pa.0 >= self.owned_below.get() {
            return Err(Error::NotOwner);
        }
        *self.shares.borrow_mut().entry((pa.0, level as u8)).or_default() += 1;
        Ok(())
    }

    fn release(&self, pa: Pa, level: Level) {
        let mut shares = self.shares.borrow_mut();
        let count = shares.get_mut(&(pa.0, level as u8)).expect("released what was acquired");
        *count -= 1;
        if *count == 0 {
            shares.remove(&(pa.0, level as u8));
        }
    }

    fn batch(&self, _: Level) {}

    fn removed(&self, _: &mut (), leaf: &Removed) {
        self.step(Step::Removed(leaf.ipa.0));
        if let Some(tlb) = self.tlb.borrow().as_ref() {
            tlb.assert_unreachable(self, leaf.ipa.0, leaf.level.bytes(), leaf.pa.0);
        }
        self.removed.borrow_mut().push(*leaf);
        self.release(leaf.pa, leaf.level);
    }
}

impl Counters for Machine {
    fn count(&self, stat: Stat, amount: u64) {
        let sum = &mut self.stats.borrow_mut()[stat as usize];
        *sum = sum.wrapping_add(amount);
    }
}
