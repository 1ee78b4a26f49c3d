//! The shares that leaves hold in memory of the host, counted at the size of the leaf.

use std::cell::{Cell, RefCell, RefMut};
use verdigris_stage2::Error;

/// Where the memory that is mapped begins.
pub const MEMORY_BASE: u64 = 4 << 30;
/// How much of it there is: 2 GiB for each of [`VARIANTS`], and as much behind the last.
pub const MEMORY_BYTES: u64 = (VARIANTS + 1) << 31;
/// How many different pages an IPA can have behind it.
pub const VARIANTS: u64 = 3;

/// Counts, by level.
pub struct Shares {
    counts: [RefCell<Vec<u8>>; 4],
    held: Cell<u64>,
    /// Shares that can be taken until one is refused; `None` for all.
    until_refusal: Cell<Option<(u64, Error)>>,
    refused: Cell<bool>,
}

impl Shares {
    /// Makes memory that nobody shares.
    pub fn new() -> Self {
        let counts = |level: usize| {
            let leaves = if level == 0 { 0 } else { MEMORY_BYTES >> (39 - 9 * level) };
            // Plain zeros cost nothing until they are touched.
            RefCell::new(vec![0; leaves as usize])
        };
        Self {
            counts: std::array::from_fn(counts),
            held: Cell::new(0),
            until_refusal: Cell::new(None),
            refused: Cell::new(false),
        }
    }

    /// Returns how many are held in all.
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// Returns how many are held in memory of one leaf.
    pub fn count(&self, pa: u64, level: u32) -> u8 {
        *self.count_mut(pa, level)
    }

    /// Refuses a share after so many, once.
    pub fn refuse_after(&self, refusal: Option<(u64, Error)>) {
        self.until_refusal.set(refusal);
        self.refused.set(false);
    }

    /// Tells whether a share was refused since [`Self::refuse_after`].
    pub fn was_refused(&self) -> bool {
        self.refused.get()
    }

    /// Takes a share.
    pub fn acquire(&self, pa: u64, level: u32) -> Result<(), Error> {
        match self.until_refusal.get() {
            Some((0, error)) => {
                self.until_refusal.set(None);
                self.refused.set(true);
                return Err(error);
            }
            Some((left, error)) => self.until_refusal.set(Some((left - 1, error))),
            None => {}
        }
        let mut count = self.count_mut(pa, level);
        *count = count.checked_add(1).expect("a few leaves share a page");
        self.held.set(self.held.get() + 1);
        Ok(())
    }

    /// Gives a share back.
    pub fn release(&self, pa: u64, level: u32) {
        let mut count = self.count_mut(pa, level);
        *count = count.checked_sub(1).expect("what is given back was taken");
        self.held.set(self.held.get() - 1);
    }

    fn count_mut(&self, pa: u64, level: u32) -> RefMut<'_, u8> {
        assert!(pa >= MEMORY_BASE, "a share of what nobody mapped");
        let index = ((pa - MEMORY_BASE) >> (39 - 9 * level)) as usize;
        RefMut::map(self.counts[level as usize].borrow_mut(), |counts| &mut counts[index])
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self::new()
    }
}
