//! Table memory and its pool, shared by the engine, the walker and the TLBs' walk caches.
//!
//! The tables are plain atomic numbers, owned here. The engine sees a page of them as its `Table`; the
//! walker reads and updates the numbers, as the hardware does.
#![allow(unsafe_code)]

use crate::walker;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use verdigris_stage2::{Pa, Table, TablePage};

/// Where table memory begins: above all that is mapped, so that the two never look alike.
pub const BASE: u64 = 0x00ff_0000_0000;
/// The first pages are for a root.
pub const ROOT_PAGES: u64 = 16;

type Page = Box<[AtomicU64; 512]>;

/// Table memory.
pub struct Memory {
    /// Each its own allocation, which is what keeps Miri fast.
    pages: Vec<Page>,
    /// Which pages are free, by number.
    is_free: Vec<Cell<bool>>,
    free: RefCell<Vec<u64>>,
    allocated: Cell<u64>,
}

impl Memory {
    /// Makes a root and a pool of so many pages, all zero.
    pub fn new(pool_pages: u64) -> Self {
        let page = |_| Box::new([const { AtomicU64::new(0) }; 512]);
        let all = ROOT_PAGES + pool_pages;
        Self {
            pages: (0..all).map(page).collect(),
            is_free: (0..all).map(|page| Cell::new(page >= ROOT_PAGES)).collect(),
            free: RefCell::new((ROOT_PAGES..all).rev().collect()),
            allocated: Cell::new(0),
        }
    }

    /// Returns how many pages of the pool are in use.
    pub fn allocated(&self) -> u64 {
        self.allocated.get()
    }

    /// Takes a page out of the pool and zeroes it.
    pub fn alloc(&self) -> Option<TablePage> {
        let number = self.free.borrow_mut().pop()?;
        self.is_free[number as usize].set(false);
        self.allocated.set(self.allocated.get() + 1);
        for entry in &*self.pages[number as usize] {
            entry.store(0, Ordering::Relaxed);
        }
        // SAFETY: the page is table memory, and the engine's alone until it is freed.
        Some(unsafe { TablePage::new(Pa(BASE + number * 4096)) })
    }

    /// Takes a page back into the pool.
    pub fn free(&self, page: TablePage) {
        let number = (page.pa().0 - BASE) / 4096;
        assert!(number >= ROOT_PAGES, "a page of the root is given back");
        let was_free = self.is_free[number as usize].replace(true);
        assert!(!was_free, "a page is given back twice");
        self.allocated.set(self.allocated.get() - 1);
        // The page that was freed last is used first: what still points to it is soon found out.
        self.free.borrow_mut().push(number);
    }

    /// Returns a page as the engine sees it.
    pub fn table(&self, page: TablePage) -> &Table {
        let number = ((page.pa().0 - BASE) / 4096) as usize;
        assert!(!self.is_free[number].get(), "a table is used after it was given back");
        let entries: *const [AtomicU64; 512] = &raw const *self.pages[number];
        // SAFETY: `Entry` is a transparent wrapper of the same atomic type, and the page lives as
        // long as `self` does.
        unsafe { &*entries.cast::<Table>() }
    }

    /// Reads a descriptor.
    pub fn load(&self, pa: u64) -> u64 {
        self.word(pa).load(Ordering::Acquire)
    }

    /// Updates a descriptor as the walker does: one atomic exchange, or nothing if it has changed.
    pub fn update(&self, pa: u64, old: u64, new: u64) -> bool {
        self.word(pa).compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    #[inline]
    fn word(&self, pa: u64) -> &AtomicU64 {
        let offset = pa.wrapping_sub(BASE);
        let page = self.pages.get((offset / 4096) as usize);
        let page = page.expect("a walk leads out of table memory");
        &page[(offset / 8 % 512) as usize]
    }
}

impl walker::Memory for Memory {
    #[inline]
    fn load(&self, pa: u64) -> u64 {
        Self::load(self, pa)
    }
}
