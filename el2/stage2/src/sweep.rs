//! Sweeps: the loops over up to 64 entries of a table that ageing, harvest and write-protection are.
//!
//! Each looks at a few bits of every entry, changes the entries that have them, and says which did. What
//! an entry had is what the exchange *returned*; the plain loads before it only tell where to look. Most
//! entries have nothing to change, so eight are loaded and or-ed at a time, and a group without the bits
//! is left behind after some twenty instructions. Nothing is written there: an untouched table stays
//! clean in the caches, and the walkers of other CPUs keep their copies.
//!
//! Bits 7, 10, 51, 55 and 56 stand in valid leaves only, bit 57 in BUSY entries only. So a sweep needs to
//! know nothing of levels and kinds, and what became of an entry between load and exchange can't be hurt.

use crate::descriptor::{AF, BUSY, DIRTY, GRANTED};
use crate::entry::Entry;
use crate::sync::{Ordering, pause};

/// What a sweep found; bit n is entry n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The leaves that had what the sweep is about, and lost it here.
    pub hit: u64,
    /// The leaves of these whose access flag was set at that moment.
    pub young: u64,
    /// Entries between break and make: what is being made there may have it too.
    pub busy: u64,
}

/// One kind of sweep.
pub(crate) trait Sweep {
    /// A leaf with one of these bits is changed.
    const WANTED: u64;
    /// One of them, which all leaves have at times: such groups are counted without a look at each.
    const COMMON: u64;
    /// Whether entries between break and make are to be told of.
    const TELLS_BUSY: bool;

    /// Changes an entry that was `seen` with a wanted bit; returns what the exchange found.
    fn change(entry: &Entry, seen: u64) -> u64;
}

/// Clears access flags. Relaxed: ageing publishes nothing; the order of a pass is its epoch's.
pub(crate) struct Age;

impl Sweep for Age {
    const WANTED: u64 = AF;
    const COMMON: u64 = AF;
    const TELLS_BUSY: bool = false;

    #[inline(always)]
    fn change(entry: &Entry, _: u64) -> u64 {
        entry.clear(AF, Ordering::Relaxed)
    }
}

/// Makes dirty leaves clean, so that their next write is noted again.
///
/// Release, as every store that takes something away: who finds a leaf clean sees the batch counted.
pub(crate) struct Harvest;

impl Sweep for Harvest {
    const WANTED: u64 = DIRTY;
    const COMMON: u64 = crate::descriptor::S2AP_WRITE;
    const TELLS_BUSY: bool = true;

    #[inline(always)]
    fn change(entry: &Entry, _: u64) -> u64 {
        entry.clear(DIRTY, Ordering::Release)
    }
}

/// Takes the permission to write and the grant of it, and notes in the leaf that it was dirty.
pub(crate) struct Protect;

impl Sweep for Protect {
    const WANTED: u64 = GRANTED;
    const COMMON: u64 = GRANTED;
    const TELLS_BUSY: bool = true;

    #[inline(always)]
    fn change(entry: &Entry, seen: u64) -> u64 {
        entry.revoke_writing(seen)
    }
}

/// Entries that are looked at together.
const GROUP: usize = 8;

/// Sweeps over up to 64 entries.
#[inline(always)]
pub(crate) fn sweep<S: Sweep>(entries: &[Entry]) -> Swept {
    assert!(entries.len() <= 64);
    let mut swept = Swept::default();
    let (groups, rest) = entries.as_chunks::<GROUP>();
    let mut first = 0;
    for group in groups {
        sweep_group::<S>(group, first, &mut swept);
        first += GROUP as u32;
    }
    for (entry, index) in rest.iter().zip(first..) {
        let old = sweep_one::<S>(entry, entry.peek());
        swept.add::<S>(old, index);
    }
    swept
}

/// Sweeps over up to 64 entries, and waits for those between break and make: their maker waits for nobody.
#[inline(never)]
pub(crate) fn sweep_all<S: Sweep>(entries: &[Entry]) -> Swept {
    let mut swept = sweep::<S>(entries);
    while swept.busy != 0 {
        pause();
        let index = swept.busy.trailing_zeros();
        swept.busy &= swept.busy - 1;
        let entry = &entries[index as usize];
        swept.add::<S>(sweep_one::<S>(entry, entry.peek()), index);
    }
    swept
}

/// Sweeps over eight entries, of which the first is number `first`.
#[inline(always)]
fn sweep_group<S: Sweep>(group: &[Entry; GROUP], first: u32, swept: &mut Swept) {
    let seen: [u64; GROUP] = core::array::from_fn(|index| group[index].peek());
    let any = seen.iter().fold(0, |any, seen| any | seen);
    if any & looked_for::<S>() == 0 {
        return;
    }
    let old: [u64; GROUP] =
        core::array::from_fn(|index| sweep_one::<S>(&group[index], seen[index]));
    let all = old.iter().fold(u64::MAX, |all, old| all & old);
    if all & S::COMMON != 0 && all & AF != 0 {
        swept.hit |= 0xff << first;
        swept.young |= 0xff << first;
        return;
    }
    for (old, index) in old.into_iter().zip(first..) {
        swept.add::<S>(old, index);
    }
}

/// Changes an entry if it was seen with a wanted bit; returns what was found, 0 for nothing of interest.
#[inline(always)]
fn sweep_one<S: Sweep>(entry: &Entry, seen: u64) -> u64 {
    if seen & S::WANTED != 0 { S::change(entry, seen) } else { seen & looked_for::<S>() }
}

const fn looked_for<S: Sweep>() -> u64 {
    S::WANTED | if S::TELLS_BUSY { BUSY } else { 0 }
}

impl Swept {
    /// Adds what was found in one entry.
    #[inline(always)]
    fn add<S: Sweep>(&mut self, old: u64, index: u32) {
        let is_hit = old & S::WANTED != 0;
        self.hit |= u64::from(is_hit) << index;
        self.young |= u64::from(is_hit && old & AF != 0) << index;
        if S::TELLS_BUSY {
            self.busy |= u64::from(old & BUSY != 0) << index;
        }
    }
}

/// Tests the access flags of up to 64 entries and changes nothing.
#[inline(always)]
pub fn test_young(entries: &[Entry]) -> u64 {
    assert!(entries.len() <= 64);
    let mut young = 0;
    let (groups, rest) = entries.as_chunks::<GROUP>();
    let mut first = 0;
    for group in groups {
        let seen: [u64; GROUP] = core::array::from_fn(|index| group[index].peek());
        if seen.iter().fold(0, |any, seen| any | seen) & AF != 0 {
            for (seen, index) in seen.iter().zip(first..) {
                young |= ((seen / AF) & 1) << index;
            }
        }
        first += GROUP as u32;
    }
    for (entry, index) in rest.iter().zip(first..) {
        young |= ((entry.peek() / AF) & 1) << index;
    }
    young
}
