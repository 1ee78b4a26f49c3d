//! Drain: the leaves of a table that is unlinked and invalidated, taken 64 pages at a time.
//!
//! A last-level table has up to 512 leaves, and each may have to be cleaned from the caches: too many
//! between two looks at interrupts. But once unlinked, the table can't be found again by a walk. So it is
//! *parked* in the VM: every call that passes those pages, this one or a later one, takes what the table
//! still holds of them. A call takes leaves of its own pages only, so that each dirty bit goes to a call
//! that asked for that page; and its progress stays before the leaves that are left. Whoever takes the
//! last leaf retires the table.
//!
//! Leaves are taken by one atomic step each: a call that overlaps may have found the table before it was
//! unlinked, or may be draining it too, and each leaf is to be reported once.
//!
//! There are a few slots, so that a way past them is short. A call that finds none free takes all leaves
//! of its table at once, interrupts or not; and what parked tables hold of the same pages too, if it is to
//! return dirty bits: none of these may be ahead of its progress.

use crate::descriptor::{Level, TABLE_ENTRIES};
use crate::dirty::DirtySink;
use crate::entry::Entry;
use crate::hardware::{Env, Removed};
use crate::leaves::Mask;
use crate::memory::TablePage;
use crate::range::Range;
use crate::stage2::{BATCH, Stage2};
use crate::sync::{AtomicU64, Lock, Ordering, Weakness, weakened};
use crate::unmap::Strip;
use verdigris_abi::{Ipa, PAGE_SIZE, Pa};

/// Most tables that are parked at a time.
const SLOTS: usize = if cfg!(loom) { 1 } else { 8 };
/// A bit for each 64 pages of a table.
const ALL_PARTS: u64 = (1 << (TABLE_ENTRIES as u64).div_ceil(BATCH)) - 1;

/// A parked table; only read and written under the lock.
struct Slot {
    /// The address of the table, or 0.
    table: AtomicU64,
    /// The first page that it translated.
    start: AtomicU64,
    /// The parts that may still have leaves.
    left: AtomicU64,
}

/// Tables whose leaves are yet to be reported.
pub struct Parked {
    lock: Lock,
    count: AtomicU64,
    slots: [Slot; SLOTS],
}

/// The parked tables of one span: there may be several, where pages were mapped anew meanwhile.
#[derive(Clone, Copy)]
struct Drains {
    span: Range,
    tables: [Option<TablePage>; SLOTS],
}

impl Slot {
    fn new() -> Self {
        Self { table: AtomicU64::new(0), start: AtomicU64::new(0), left: AtomicU64::new(0) }
    }

    fn table(&self) -> Option<TablePage> {
        let pa = self.table.load(Ordering::Relaxed);
        (pa != 0).then(|| TablePage::linked(Pa(pa)))
    }

    fn span(&self) -> Range {
        Range::span(self.start.load(Ordering::Relaxed), Level::L2)
    }
}

impl Parked {
    /// Makes an empty list.
    pub fn new() -> Self {
        let slots = core::array::from_fn(|_| Slot::new());
        Self { lock: Lock::new(), count: AtomicU64::new(0), slots }
    }

    /// Tells whether nothing is parked, as far as this CPU has to know.
    ///
    /// Relaxed: a call that still drains a table of its own covers all of it. What was left parked was
    /// so before its caller could make the next call.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Parks a table; `false` if there is no slot.
    fn park(&self, table: TablePage, span: Range) -> bool {
        let _held = self.lock.lock();
        let Some(slot) = self.slots.iter().find(|slot| slot.table().is_none()) else {
            return false;
        };
        slot.table.store(table.pa().0, Ordering::Relaxed);
        slot.start.store(span.start, Ordering::Relaxed);
        slot.left.store(ALL_PARTS, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Returns the parked tables of the first span that has pages in `range` and any.
    fn first_in(&self, range: Range) -> Option<Drains> {
        if range.start >= range.end || self.is_empty() {
            return None;
        }
        let _held = self.lock.lock();
        let parked = || self.slots.iter().filter(|slot| slot.table().is_some());
        let spans = parked().map(Slot::span).filter(|span| span.overlaps(range));
        let span = spans.min_by_key(|span| span.start)?;
        let tables = core::array::from_fn(|index| {
            self.slots[index].table().filter(|_| self.slots[index].span() == span)
        });
        Some(Drains { span, tables })
    }

    /// Takes note that a part of a table has no leaves any more; `true` for one caller, if it was the last.
    ///
    /// A table that was unparked meanwhile is found in no slot: while this CPU is in EL2 it doesn't come
    /// free, so it can't have been parked a second time.
    fn finish(&self, table: TablePage, part: u64) -> bool {
        let _held = self.lock.lock();
        let Some(slot) = self.slots.iter().find(|slot| slot.table() == Some(table)) else {
            return false;
        };
        let left = slot.left.load(Ordering::Relaxed) & !(1 << part);
        slot.left.store(left, Ordering::Relaxed);
        if left == 0 {
            slot.table.store(0, Ordering::Relaxed);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        left == 0
    }
}

impl Default for Parked {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage2 {
    /// Takes the leaves of a table that was unlinked inside the call's window, as far as interrupts let it.
    pub(crate) fn drain<E: Env>(
        &self,
        env: &E,
        strip: &mut Strip<impl DirtySink>,
        table: TablePage,
        span: Range,
    ) {
        let is_parked = self.parked.park(table, span);
        // The host may have named progress inside the table.
        let at_once = if is_parked { strip.page } else { span.end };
        for part in parts(Range { start: span.start, end: at_once }) {
            self.drain_part(env, strip, table, part);
        }
        if !is_parked {
            self.limbo.retire(env, table);
        }
        // The bits of what was taken at once are in the answer, so the progress goes past them.
        self.pass(env, strip, span.end, is_parked || !strip.wants_bits());
    }

    /// Moves on to page `to`, and takes on the way what parked tables hold of these pages.
    ///
    /// With `may_stop` an interrupt ends that after 64 pages, and the call.
    pub(crate) fn pass<E: Env>(
        &self,
        env: &E,
        strip: &mut Strip<impl DirtySink>,
        to: u64,
        may_stop: bool,
    ) {
        let end = to.min(strip.window.end);
        while let Some(drains) = self.parked.first_in(Range { start: strip.page, end }) {
            strip.page = strip.page.max(drains.span.start);
            for part in parts(Range { start: strip.page, end: end.min(drains.span.end) }) {
                for &table in drains.tables.iter().flatten() {
                    self.drain_part(env, strip, table, part);
                }
                strip.page = part.end;
                if may_stop && strip.page < to && env.interrupt_pending() {
                    strip.is_stopped = true;
                    if weakened(Weakness::InterruptIsDone) {
                        strip.page = to;
                    }
                    return;
                }
            }
        }
        strip.page = to;
    }

    /// Takes and reports up to 64 leaves of an unlinked table; retires it if nothing is left then.
    fn drain_part<E: Env>(
        &self,
        env: &E,
        strip: &mut Strip<impl DirtySink>,
        table: TablePage,
        part: Range,
    ) {
        let index = Level::L3.index(part.start * PAGE_SIZE);
        let entries = &env.table(table)[index..][..part.page_count() as usize];
        let dirty = self.drain_entries(env, strip, entries, part.ipa());
        strip.note_leaves(&self.orphans, dirty);
        let whole = index as u64 & !(BATCH - 1);
        let all = &env.table(table)[whole as usize..];
        let all = &all[..all.len().min(BATCH as usize)];
        let is_drained =
            all.len() == entries.len() || all.iter().all(|entry| !entry.read().is_valid());
        if is_drained && self.parked.finish(table, whole / BATCH) {
            self.limbo.retire(env, table);
        }
    }

    /// Takes leaves and gives their memory back; returns which were dirty.
    #[inline(always)]
    fn drain_entries<E: Env>(
        &self,
        env: &E,
        strip: &mut Strip<impl DirtySink>,
        entries: &[Entry],
        first: Ipa,
    ) -> Mask {
        let batch = env.batch(Level::L3);
        let mut drain = Drain { env, batch, next: first, taken: 0, dirty: 0 };
        match self.config.fwb {
            true => drain.take_all::<false>(entries),
            false => drain.take_all::<true>(entries),
        }
        let bits = drain.dirty >> (BATCH - entries.len() as u64);
        // One invalidation, of the table's span, was for all of them.
        strip.count_taken(drain.taken, 1, drain.taken);
        Mask { bits, ..Mask::new(first, Level::L3) }
    }
}

/// The way through up to 64 entries of an unlinked table.
struct Drain<'a, E: Env> {
    env: &'a E,
    batch: E::Batch,
    /// What the next entry translated.
    next: Ipa,
    taken: u64,
    /// A bit for each entry, the last one's at the top.
    dirty: u64,
}

impl<E: Env> Drain<'_, E> {
    /// Takes the leaves of all entries, and cleans them from the caches if that is asked for.
    #[inline(always)]
    fn take_all<const CLEAN: bool>(&mut self, entries: &[Entry]) {
        // By groups, so that most of the way is without a loop's end.
        let (groups, rest) = entries.as_chunks();
        for [a, b, c, d, e, f, g, h] in groups {
            self.take::<CLEAN>(a);
            self.take::<CLEAN>(b);
            self.take::<CLEAN>(c);
            self.take::<CLEAN>(d);
            self.take::<CLEAN>(e);
            self.take::<CLEAN>(f);
            self.take::<CLEAN>(g);
            self.take::<CLEAN>(h);
        }
        rest.iter().for_each(|entry| self.take::<CLEAN>(entry));
    }

    #[inline(always)]
    fn take<const CLEAN: bool>(&mut self, entry: &Entry) {
        let (level, ipa) = (Level::L3, self.next);
        let old = entry.take_unlinked();
        self.next = Ipa(ipa.0 + level.bytes());
        self.dirty = self.dirty >> 1 | old.dirty_bit() << (BATCH - 1);
        if let Some(pa) = old.page_address() {
            self.taken += 1;
            let leaf = Removed { ipa, pa, level, old };
            if CLEAN {
                self.env.clean_invalidate(pa, level.bytes());
            }
            self.env.removed(&mut self.batch, &leaf);
        }
    }
}

/// Returns a range in parts, each inside 64 pages of a table.
fn parts(range: Range) -> impl Iterator<Item = Range> {
    let mut start = range.start;
    core::iter::from_fn(move || {
        let part = Range { start, end: range.end.min((start | (BATCH - 1)) + 1) };
        start = part.end;
        (part.start < part.end).then_some(part)
    })
}
