//! Sweeps: the loops over up to 64 entries of a table that ageing, harvest and write-protection are.
//!
//! Each looks at a few bits of every entry, changes the entries that have them, and says which did. What
//! an entry had is what the exchange *returned*; the plain loads before it only tell where to look. Bits
//! 7, 10, 51, 55 and 56 stand in valid leaves only, bit 57 in BUSY entries only. So a sweep needs to know
//! nothing of levels and kinds, and what became of an entry between load and exchange can't be hurt.
//!
//! Most entries have nothing to change, or all have. Where few are expected, eight entries are or-ed
//! together, and a group without the bits is left behind after a dozen instructions: nothing is written
//! there, and the walkers of other CPUs keep their copies of the table. Where most are expected, groups in
//! which all have them are changed without a look at each. A wrong guess costs instructions, no more.

use crate::descriptor::{AF, BUSY, DBM, DIRTY, GRANTED, S2AP_WRITE};
use crate::entry::Entry;
use crate::memory::TableMemory;
use crate::sync::{Ordering, Weakness, pause, weakened};
use core::array;

/// What a sweep found; bit n is entry n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The leaves that had what the sweep is about, and lost it here.
    pub hit: u64,
    /// The leaves of these whose access flag was set at that moment.
    pub young: u64,
    /// The leaves of these that lost bits of the software's alone: to a TLB they are what they were.
    pub quiet: u64,
    /// Entries between break and make: what is being made there may have it too.
    pub busy: u64,
}

/// One kind of sweep.
pub(crate) trait Sweep {
    /// A leaf with one of these bits is changed.
    const WANTED: u64;
    /// The bits of these, and with them changed, that a TLB may hold.
    const CACHED: u64;
    /// What a leaf usually has that is to be changed; a group in which each has it is changed in one go.
    const COMMON: u64;
    /// Whether entries between break and make are to be told of.
    const TELLS_BUSY: bool;

    /// Changes an entry that was `seen` with a wanted bit; returns what the exchange found.
    fn change(entry: &Entry, seen: u64) -> u64;

    /// Changes a group that was `seen` with the common bits in each entry. `None` if every exchange found
    /// a young leaf with a wanted bit, as most do; else what they found.
    #[inline(always)]
    fn change_group(group: &[Entry; GROUP], seen: &[u64; GROUP]) -> Option<Swept> {
        let old: [u64; GROUP] = array::from_fn(|index| Self::change(&group[index], seen[index]));
        let common = Self::COMMON | AF;
        (all_bits(&old) & common != common).then(|| found::<Self>(&old))
    }
}

/// Clears access flags. Relaxed: ageing publishes nothing; the order of a pass is its epoch's.
pub(crate) struct Age;

impl Sweep for Age {
    const WANTED: u64 = AF;
    const CACHED: u64 = AF;
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
    const CACHED: u64 = S2AP_WRITE;
    const COMMON: u64 = S2AP_WRITE;
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
    const CACHED: u64 = S2AP_WRITE | DBM;
    const COMMON: u64 = GRANTED | S2AP_WRITE;
    const TELLS_BUSY: bool = true;

    #[inline(always)]
    fn change(entry: &Entry, seen: u64) -> u64 {
        entry.revoke_writing(seen)
    }

    /// An exchange that succeeds found what was seen.
    #[inline(always)]
    fn change_group(group: &[Entry; GROUP], seen: &[u64; GROUP]) -> Option<Swept> {
        for index in 0..GROUP {
            if !group[index].try_revoke_writing_of_dirty(seen[index]) {
                return Some(go_on(group, bits(seen, AF), index));
            }
        }
        let is_young = all_bits(seen) & AF != 0;
        (!is_young).then(|| Swept { hit: ALL, young: bits(seen, AF), ..Swept::default() })
    }
}

/// Write-protects a group from entry `from` on, which was changed by another; those before are done, and
/// were `young`.
#[cold]
fn go_on(group: &[Entry; GROUP], young: u64, from: usize) -> Swept {
    let hit = (1 << from) - 1;
    let mut swept = Swept { hit, young: young & hit, ..Swept::default() };
    for (index, entry) in group.iter().enumerate().skip(from) {
        swept.add(sweep_one::<Protect>(entry, entry.peek()), index as u32);
    }
    swept
}

/// Entries that are looked at together.
pub const GROUP: usize = 8;
/// The bits of a whole group.
const ALL: u64 = (1 << GROUP) - 1;
/// Entries that one word of an answer is about.
pub const WORD: usize = 64;

/// Sweeps over up to 64 entries of which most are wanted, and waits for those between break and make:
/// their maker waits for nobody.
#[inline(never)]
pub(crate) fn sweep_all<S: Sweep>(entries: &[Entry]) -> Swept {
    wait_for_busy::<S>(entries, sweep_dense::<S>(entries))
}

/// Sweeps over 64 entries and waits for those between break and make.
///
/// `is_dense` says what is expected, and decides nothing but the cost.
#[inline(always)]
pub(crate) fn sweep_word<S: Sweep, M: TableMemory>(
    memory: &M,
    word: &[Entry; WORD],
    is_dense: bool,
) -> Swept {
    if is_dense {
        return sweep_all::<S>(word);
    }
    wait_for_busy::<S>(word, sweep_sparse::<S, M>(memory, word, sweep_group::<S>))
}

#[inline(always)]
fn wait_for_busy<S: Sweep>(entries: &[Entry], mut swept: Swept) -> Swept {
    while swept.busy != 0 && !weakened(Weakness::PassBusy) {
        look_again::<S>(entries, &mut swept);
    }
    swept
}

/// Looks again at the first of the entries that were between break and make.
#[cold]
#[inline(never)]
fn look_again<S: Sweep>(entries: &[Entry], swept: &mut Swept) {
    pause();
    let index = swept.busy.trailing_zeros();
    swept.busy &= swept.busy - 1;
    let entry = &entries[index as usize];
    swept.add(sweep_one::<S>(entry, entry.peek()), index);
}

/// Sweeps over 64 entries of which few are wanted; `group` sweeps over those that have some.
#[inline(always)]
pub(crate) fn sweep_sparse<S: Sweep, M: TableMemory>(
    memory: &M,
    word: &[Entry; WORD],
    mut group: impl FnMut(&[Entry; GROUP]) -> Packed,
) -> Swept {
    let mut swept = Swept::default();
    let (groups, _) = word.as_chunks::<GROUP>();
    let groups: &[[Entry; GROUP]; WORD / GROUP] =
        groups.first_chunk().expect("a word is eight groups");
    for (index, entries) in groups.iter().enumerate() {
        if memory.any_bits(entries) & looked_for::<S>() != 0 {
            swept.add(group(entries).unpack(), (index * GROUP) as u32);
        }
    }
    swept
}

/// Sweeps over up to 64 entries of which most are wanted.
#[inline(always)]
pub(crate) fn sweep_dense<S: Sweep>(entries: &[Entry]) -> Swept {
    assert!(entries.len() <= WORD);
    let (groups, rest) = entries.as_chunks::<GROUP>();
    // Every entry hit and young, until a group is found to be otherwise.
    let all = u64::MAX.checked_shr((WORD - groups.len() * GROUP) as u32).unwrap_or(0);
    let mut swept = Swept { hit: all, young: all, ..Swept::default() };
    for (index, group) in groups.iter().enumerate() {
        let seen: [u64; GROUP] = array::from_fn(|index| group[index].peek());
        let found = match all_bits(&seen) & S::COMMON == S::COMMON {
            true => S::change_group(group, &seen),
            false => Some(sweep_group::<S>(group).unpack()),
        };
        if let Some(found) = found {
            swept.correct(found, (index * GROUP) as u32);
        }
    }
    for (entry, index) in rest.iter().zip(entries.len() as u32 - rest.len() as u32..) {
        swept.add(sweep_one::<S>(entry, entry.peek()), index);
    }
    swept
}

/// Sweeps over eight entries, each for itself.
#[inline(never)]
fn sweep_group<S: Sweep>(group: &[Entry; GROUP]) -> Packed {
    sweep_each::<S>(group)
}

#[inline(always)]
pub(crate) fn sweep_each<S: Sweep>(group: &[Entry; GROUP]) -> Packed {
    let mut swept = Swept::default();
    for (index, entry) in group.iter().enumerate() {
        swept.add(sweep_one::<S>(entry, entry.peek()), index as u32);
    }
    swept.pack::<S>()
}

/// Changes an entry if it was seen with a wanted bit; tells by bit 0 what was found.
#[inline(always)]
fn sweep_one<S: Sweep>(entry: &Entry, seen: u64) -> Swept {
    let is_wanted = seen & S::WANTED != 0;
    let old = if is_wanted { S::change(entry, seen) } else { seen };
    let is_hit = is_wanted && old & S::WANTED != 0;
    Swept {
        hit: u64::from(is_hit),
        young: u64::from(is_hit && old & AF != 0),
        quiet: u64::from(is_hit && old & S::CACHED == 0),
        busy: u64::from(S::TELLS_BUSY && old & BUSY != 0),
    }
}

/// Tells what the exchanges of a group found.
#[inline(always)]
fn found<S: Sweep + ?Sized>(old: &[u64; GROUP]) -> Swept {
    let hit = bits(old, S::WANTED);
    let busy = if S::TELLS_BUSY && hit != ALL { bits(old, BUSY) } else { 0 };
    Swept { hit, young: hit & bits(old, AF), quiet: hit & !bits(old, S::CACHED), busy }
}

/// Returns which values of a group have one of the bits of `mask`.
#[inline(always)]
fn bits(values: &[u64; GROUP], mask: u64) -> u64 {
    if all_bits(values) & mask != 0 {
        return ALL;
    }
    if values.iter().fold(0, |any, value| any | value) & mask == 0 {
        return 0;
    }
    let one = |(index, value): (usize, &u64)| u64::from(value & mask != 0) << index;
    values.iter().enumerate().map(one).fold(0, |bits, bit| bits | bit)
}

/// Returns the bits that every value of a group has.
#[inline(always)]
fn all_bits(values: &[u64; GROUP]) -> u64 {
    values.iter().fold(u64::MAX, |all, value| all & value)
}

const fn looked_for<S: Sweep>() -> u64 {
    S::WANTED | if S::TELLS_BUSY { BUSY } else { 0 }
}

/// What a sweep over a group found, in one register: `hit`, then the others eight bits up each.
#[derive(Clone, Copy)]
pub(crate) struct Packed(pub(crate) u64);

impl Packed {
    #[inline(always)]
    fn unpack(self) -> Swept {
        let part = |at: u32| self.0 >> at & ALL;
        Swept { hit: part(0), young: part(8), quiet: part(16), busy: part(24) }
    }
}

impl Swept {
    /// Makes what ageing finds, which is about young leaves alone.
    pub(crate) const fn young(hit: u64) -> Self {
        Self { hit, young: hit, quiet: 0, busy: 0 }
    }

    /// Returns the leaves of which a TLB may hold what they lost.
    pub(crate) const fn changed(self) -> u64 {
        self.hit & !self.quiet
    }

    /// Adds what was found from entry `first` on.
    #[inline(always)]
    fn add(&mut self, found: Self, first: u32) {
        self.hit |= found.hit << first;
        self.young |= found.young << first;
        self.quiet |= found.quiet << first;
        self.busy |= found.busy << first;
    }

    /// Puts what was found in the group from entry `first` on in the place of "all".
    #[cold]
    #[inline(always)]
    fn correct(&mut self, found: Self, first: u32) {
        self.hit &= !((ALL & !found.hit) << first);
        self.young &= !((ALL & !found.young) << first);
        self.quiet |= found.quiet << first;
        self.busy |= found.busy << first;
    }

    #[inline(always)]
    fn pack<S: Sweep>(self) -> Packed {
        let rest = self.young << 8 | self.quiet << 16 | self.busy << 24;
        // Ageing has no use for more.
        Packed(if S::TELLS_BUSY { self.hit | rest } else { self.hit })
    }
}

/// Tests the access flags of up to 64 entries and changes nothing.
pub(crate) fn test_young(entries: &[Entry]) -> u64 {
    let young = |(index, entry): (usize, &Entry)| ((entry.peek() / AF) & 1) << index;
    entries.iter().enumerate().map(young).fold(0, |bits, bit| bits | bit)
}

/// Tests the access flags of 64 entries of which few are expected to be young.
#[inline(always)]
pub(crate) fn test_young_word<M: TableMemory>(memory: &M, word: &[Entry; WORD]) -> u64 {
    sweep_sparse::<Age, M>(memory, word, |group| Packed(test_young(group))).hit
}
