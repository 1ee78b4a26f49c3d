//! A machine for the tests: table memory, a pool of pages, and a TLB that records every step.
#![allow(dead_code, unsafe_code)]

use std::cell::{Cell, RefCell};
use verdigris_stage2::hardware::Tlb;
use verdigris_stage2::{
    Descriptor, Entry, Geometry, Ipa, Level, Pa, PageSource, Root, Table, TableMemory, TablePage,
};

/// Where table memory begins: above every IPA that the tests map, so that the two never look alike.
pub const TABLES: u64 = 0x00ff_0000_0000;

/// What the engine asked of the TLB, in its order.
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
}

/// What a test looks at while the engine works.
type Watch = Box<dyn Fn(&Machine, Step)>;

/// Table memory, its pool, and the log of TLB steps.
pub struct Machine {
    tables: Vec<Table>,
    free: RefCell<Vec<u64>>,
    pub steps: RefCell<Vec<Step>>,
    /// Runs at each step, with the machine as it is at that moment.
    pub watch: RefCell<Option<Watch>>,
    pub allocated: Cell<usize>,
}

impl Machine {
    /// Makes a machine with so many table pages, of which the first 16 are for a root.
    pub fn new(page_count: usize) -> Self {
        let empty = || std::array::from_fn(|_| Entry::new(Descriptor::INVALID));
        Self {
            tables: (0..page_count).map(|_| empty()).collect(),
            free: RefCell::new((16..page_count as u64).rev().collect()),
            steps: RefCell::default(),
            watch: RefCell::default(),
            allocated: Cell::new(0),
        }
    }

    /// Makes a root in the first pages.
    pub fn root(&self, geometry: Geometry) -> Root {
        // SAFETY: the first 16 pages are never handed out, and `table` reaches all pages.
        unsafe { Root::new(Pa(TABLES), geometry) }
    }

    /// Takes the steps recorded so far.
    pub fn take_steps(&self) -> Vec<Step> {
        self.steps.take()
    }

    /// Returns how many pages the pool still has.
    pub fn free_pages(&self) -> usize {
        self.free.borrow().len()
    }

    /// Leaves only so many pages in the pool.
    pub fn keep_free(&self, count: usize) {
        self.free.borrow_mut().truncate(count);
    }

    /// Reads a raw descriptor as the walker would: own code, own constants (Arm ARM D8.3).
    ///
    /// Returns it with its level; `None` where the walk ends in a translation fault.
    pub fn walk(&self, geometry: Geometry, ipa: u64) -> Option<(u64, u32)> {
        let mut level = match geometry.sl0() {
            2 => 0,
            1 => 1,
            _ => 2,
        };
        let shift = |level: u32| 39 - 9 * level;
        let mut table = TABLES + (ipa >> (shift(level) + 9)) * 4096;
        loop {
            let index = (ipa >> shift(level)) % 512;
            let raw = self.raw(table, index as usize);
            match (raw & 3, level) {
                (3, 0..=2) => (table, level) = (raw & 0xffff_ffff_f000, level + 1),
                (3, 3) | (1, 1 | 2) => return Some((raw, level)),
                _ => return None,
            }
        }
    }

    /// Reads one entry of a table page.
    pub fn raw(&self, table: u64, index: usize) -> u64 {
        self.tables[((table - TABLES) / 4096) as usize][index].read().raw()
    }

    fn step(&self, step: Step) {
        self.steps.borrow_mut().push(step);
        if let Some(watch) = self.watch.borrow().as_ref() {
            watch(self, step);
        }
    }
}

impl TableMemory for Machine {
    fn table(&self, page: TablePage) -> &Table {
        &self.tables[((page.pa().0 - TABLES) / 4096) as usize]
    }
}

impl PageSource for Machine {
    fn alloc(&self) -> Option<TablePage> {
        let index = self.free.borrow_mut().pop()?;
        self.allocated.set(self.allocated.get() + 1);
        for entry in &self.tables[index as usize] {
            entry.replace(Descriptor::INVALID);
        }
        // SAFETY: the page came out of the pool and is a table's until it is freed.
        Some(unsafe { TablePage::new(Pa(TABLES + index * 4096)) })
    }

    fn free(&self, page: TablePage) {
        let index = (page.pa().0 - TABLES) / 4096;
        assert!(!self.free.borrow().contains(&index), "freed twice");
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
