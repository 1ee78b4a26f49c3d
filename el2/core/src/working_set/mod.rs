//! Which ranges of a VM have their idle ages kept, and who is using a range's array at this moment.
//!
//! The array of a range (a *working set*) lies in a region that the host donated, and the host may ask
//! for it back at any time, while other CPUs age the same VM. The invariant: **nobody touches the array
//! but who holds a [`Use`] of its set, or the one [`Claim`] on it; and the two never exist together.** One
//! word decides: a use is taken by adding 1 to the word of a live set, a claim by exchanging a word
//! that says "live, no uses". So ageing takes no lock, and needs one atomic for each set that its range
//! meets, none where the VM has no working set. A claim on a set that is in use fails, and the host asks
//! again: an age is over soon, and nobody waits inside EL2.
//!
//! A region can be large, so donating it and giving it back are done in steps, between which interrupts
//! are looked at. A set that is *growing* or *ending* belongs to nobody between two calls, and keeps its
//! range from others. Its pages in hand are always the first ones of its region.

#[cfg(all(test, loom))]
mod interleavings;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::call::{IpaRange, PaRange};
use crate::sync::{AtomicU64, Ordering, spin_loop};
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Pa, Status};

/// How many working sets a VM has room for; in loom's models, where each costs time, only two.
const SLOTS: usize = if cfg!(loom) { 2 } else { verdigris_abi::MAX_WORKING_SETS as usize };

/// There is no set.
const FREE: u64 = 0;
/// One call is at work on the set.
const CLAIMED: u64 = 1;
/// Its region is not all donated yet.
const GROWING: u64 = 2;
/// Its region is not all given back yet.
const ENDING: u64 = 3;
/// The set is whole; the low bits count uses.
const LIVE: u64 = 1 << 63;

/// The working sets of one VM.
#[derive(Debug)]
pub struct WorkingSets {
    slots: [Slot; SLOTS],
    /// How many slots are not free: a hint, so that ageing a VM without any costs one load.
    taken: AtomicU64,
    /// 1 while a call looks for overlaps or for a name, and takes a slot: for a few loads and stores.
    lock: AtomicU64,
}

/// One set. All but `state` is written under a claim only.
#[derive(Debug)]
struct Slot {
    state: AtomicU64,
    start: AtomicU64,
    /// Pages of the range; 0 in a free slot.
    page_count: AtomicU64,
    region: AtomicU64,
    /// Pages of the region that are donated.
    in_hand: AtomicU64,
}

/// The right to use the array of a live set; it stays live meanwhile.
#[derive(Debug)]
pub struct Use<'a>(&'a Slot);

/// The sole right to a set, whatever state it was in.
#[derive(Debug)]
#[must_use]
pub struct Claim<'a> {
    sets: &'a WorkingSets,
    slot: &'a Slot,
}

impl WorkingSets {
    /// Makes the sets of a new VM: none.
    pub fn new() -> Self {
        Self {
            slots: core::array::from_fn(|_| Slot::new()),
            taken: AtomicU64::new(0),
            lock: AtomicU64::new(0),
        }
    }

    /// Claims a new set, or one that is growing and was asked for by the same words.
    ///
    /// EXISTS: another set has one of the pages. LIMIT: there is room for no more.
    pub fn create(&self, range: IpaRange, region: PaRange) -> Status<Claim<'_>> {
        let _locked = Locked::new(&self.lock);
        let mut free = None;
        for slot in &self.slots {
            if slot.state.load(Ordering::Acquire) == FREE {
                free = free.or(Some(slot));
            } else if slot.is(range, region) && slot.exchange(GROWING, CLAIMED) {
                return Ok(Claim { sets: self, slot });
            } else if slot.overlaps(range) {
                return Err(Error::Exists);
            }
        }
        let slot = free.ok_or(Error::Limit)?;
        slot.name(range, region);
        // Only under the lock does a slot stop being free.
        slot.state.store(CLAIMED, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(Claim { sets: self, slot })
    }

    /// Claims the set that starts at an address, to end it.
    ///
    /// NO_ENTRY: there is none. BUSY: a call on another CPU is using it.
    pub fn end(&self, start: Ipa) -> Status<Claim<'_>> {
        // No slot gets another name meanwhile: what is claimed is the set that was found.
        let _locked = Locked::new(&self.lock);
        let found = self
            .slots
            .iter()
            .find(|slot| slot.state.load(Ordering::Acquire) != FREE && slot.range().0 == start.0);
        let slot = found.ok_or(Error::NoEntry)?;
        slot.claim().then_some(Claim { sets: self, slot }).ok_or(Error::Busy)
    }

    /// Claims any set there is. For the end of a VM, when no other call is on it.
    pub fn end_any(&self) -> Option<Claim<'_>> {
        self.slots.iter().find(|slot| slot.claim()).map(|slot| Claim { sets: self, slot })
    }

    /// Tells whether the VM may have working sets at all.
    #[inline]
    pub fn any(&self) -> bool {
        self.taken.load(Ordering::Relaxed) != 0
    }

    /// Begins to use every live set that has one of the pages.
    pub fn using(&self, range: IpaRange) -> [Option<Use<'_>>; SLOTS] {
        core::array::from_fn(|index| self.slots[index].begin_use(range))
    }

    /// Begins to use the live set that has all of the pages. NO_ENTRY: there is none.
    pub fn using_all_of(&self, range: IpaRange) -> Status<Use<'_>> {
        let covers = |set: &Use<'_>| {
            let (start, end) = set.bounds();
            start <= range.start().0 && range.end().0 <= end
        };
        let mut live = self.slots.iter().filter_map(|slot| slot.begin_use(range));
        live.find(covers).ok_or(Error::NoEntry)
    }
}

impl Default for WorkingSets {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            state: AtomicU64::new(FREE),
            start: AtomicU64::new(0),
            page_count: AtomicU64::new(0),
            region: AtomicU64::new(0),
            in_hand: AtomicU64::new(0),
        }
    }

    /// Returns the addresses of the range: the first, and the one behind the last.
    fn range(&self) -> (u64, u64) {
        let start = self.start.load(Ordering::Relaxed);
        (start, start + self.page_count.load(Ordering::Relaxed) * PAGE_SIZE)
    }

    fn region(&self) -> (Pa, u64) {
        let bytes = self.page_count.load(Ordering::Relaxed);
        (Pa(self.region.load(Ordering::Relaxed)), bytes.div_ceil(PAGE_SIZE))
    }

    fn overlaps(&self, range: IpaRange) -> bool {
        let (start, end) = self.range();
        start < range.end().0 && range.start().0 < end
    }

    fn is(&self, range: IpaRange, region: PaRange) -> bool {
        self.range() == (range.start().0, range.end().0)
            && self.region.load(Ordering::Relaxed) == region.start().0
    }

    fn name(&self, range: IpaRange, region: PaRange) {
        self.start.store(range.start().0, Ordering::Relaxed);
        self.page_count.store(range.page_count(), Ordering::Relaxed);
        self.region.store(region.start().0, Ordering::Relaxed);
        self.in_hand.store(0, Ordering::Relaxed);
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        // Acquire: what the last claim or use did with the array comes before this claim.
        self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Claims a set that no call is at work on and nobody uses.
    fn claim(&self) -> bool {
        [LIVE, GROWING, ENDING].into_iter().any(|state| self.exchange(state, CLAIMED))
    }

    fn begin_use(&self, range: IpaRange) -> Option<Use<'_>> {
        // A look without the right to look: where it misses a set, that set is being made or ended just
        // now, and the call may as well have come before or after that.
        if !self.overlaps(range) {
            return None;
        }
        let more = |state| (state & LIVE != 0).then(|| state + 1);
        // Acquire: the array was filled before the set went live.
        self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, more).ok()?;
        let set = Use(self);
        self.overlaps(range).then_some(set)
    }
}

impl Use<'_> {
    /// Returns the first address of the set, and the one behind the last.
    pub fn bounds(&self) -> (u64, u64) {
        self.0.range()
    }

    /// Returns where the array lies, one byte a page of the set, and its number of pages.
    pub fn region(&self) -> (Pa, u64) {
        self.0.region()
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        // Release: all that was done with the array comes before the claim that finds nobody using it.
        self.0.state.fetch_sub(1, Ordering::Release);
    }
}

impl Claim<'_> {
    /// Returns the first address of the region, and its number of pages.
    pub fn region(&self) -> (Pa, u64) {
        self.slot.region()
    }

    /// Returns how many pages of the region are in hand.
    pub fn in_hand(&self) -> u64 {
        self.slot.in_hand.load(Ordering::Relaxed)
    }

    /// Takes note of how many pages of the region are in hand now.
    pub fn set_in_hand(&self, page_count: u64) {
        self.slot.in_hand.store(page_count, Ordering::Relaxed);
    }

    /// Lets everyone use the set: its region is in hand and filled.
    pub fn go_live(self) {
        self.release(LIVE);
    }

    /// Leaves the set to the next call that creates it by the same words.
    pub fn go_on_growing(self) {
        self.release(GROWING);
    }

    /// Leaves the set to the next call that ends it.
    pub fn go_on_ending(self) {
        self.release(ENDING);
    }

    /// Forgets the set, of which nothing is in hand any more.
    pub fn forget(self) {
        assert!(self.in_hand() == 0, "a working set is forgotten with memory in it");
        self.slot.page_count.store(0, Ordering::Relaxed);
        self.sets.taken.fetch_sub(1, Ordering::Relaxed);
        self.release(FREE);
    }

    fn release(&self, state: u64) {
        self.slot.state.store(state, Ordering::Release);
    }
}

/// The lock, held until this is dropped.
struct Locked<'a>(&'a AtomicU64);

impl<'a> Locked<'a> {
    fn new(word: &'a AtomicU64) -> Self {
        while word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin_loop();
        }
        Self(word)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}
