//! Map: makes entries valid for the host, which looked up the pages before.
//!
//! Prepare, then commit what can't fail. For each batch of up to 64 leaves of one table: shares are
//! taken, table pages allocated, caches cleaned; then, inside the gate, the contract is asked, and
//! tables and leaves are installed, each by an exchange from an invalid entry. What was prepared in vain
//! goes back afterwards. So an error has changed nothing of its batch; and nothing in the gate takes a
//! lock, waits, or runs out of anything.
//!
//! A page that is there already is left alone if it is the same page with the permissions asked for, or
//! more. Less becomes more in place: no CPU but the one that faulted needs to hear of it at once, since
//! any other repeats its fault at worst, and is answered then.
//!
//! A request is a run of consecutive memory or a list of pages ([`crate::source`]); the path is the same.
//!
//! Without forced write-back (FEAT_S2FWB) a leaf's memory is cleaned from the caches before it is visible.
//! Interrupts wait for that, so a batch is 64 pages or a single 2 MiB block there, and a 1 GiB block is
//! [`Error::NotSupported`], as it is for set.

use crate::attributes::Attributes;
use crate::descriptor::{Descriptor, Kind, Level, TABLE_ENTRIES};
use crate::entry::Entry;
use crate::flush;
use crate::hardware::Env;
use crate::leaves::Mask;
use crate::memory::TablePage;
use crate::range::{Outcome, Range};
use crate::source::{List, Run, Source, Wanted};
use crate::stage2::{BATCH, Stage2, count_retry, flush_relaxed, permit};
use crate::walk::{self, Position};
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Pa, Stat};

/// What to map.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// The first address, aligned to the leaf size.
    pub ipa: Ipa,
    /// The memory behind it, aligned to the leaf size.
    pub pa: Pa,
    /// How many 4 KiB pages, in whole leaves.
    pub page_count: u64,
    /// The size of the leaves.
    pub level: Level,
    /// Memory type, permissions and access flag.
    pub attributes: Attributes,
    /// The sequence number that was sampled before the host looked the pages up.
    pub sequence: u64,
}

/// Pages to map that may lie anywhere.
#[derive(Clone, Copy, Debug)]
pub struct MapList<'a> {
    /// The first address, aligned to a page.
    pub ipa: Ipa,
    /// What stands behind each page from there on, if anything.
    pub pages: List<'a>,
    /// The sequence number that was sampled before the host looked the pages up.
    pub sequence: u64,
}

/// Leaves that follow each other: a whole request, or the part of one that is made in one gate. Such a
/// part, a batch, is all in one table.
#[derive(Clone, Copy)]
pub(crate) struct Batch<S> {
    pub(crate) ipa: Ipa,
    pub(crate) level: Level,
    pub(crate) source: S,
    /// The number of the first leaf in the source.
    pub(crate) first: u64,
    pub(crate) leaf_count: u64,
    pub(crate) sequence: u64,
}

impl<S: Source> Batch<S> {
    #[inline(always)]
    fn leaf(&self, index: u64) -> Option<Wanted> {
        self.source.leaf(self.first + index)
    }

    fn leaves(&self) -> impl Iterator<Item = Wanted> {
        (0..self.leaf_count).filter_map(|index| self.leaf(index))
    }

    const fn range(&self) -> Range {
        Range::new(self.ipa, self.leaf_count * self.level.pages())
    }
}

/// Table pages for one path, taken from the pool before the gate.
pub(crate) struct Reserve([Option<TablePage>; 3]);

/// What installing did with a batch.
struct Installed {
    new: Mask,
    relaxed: Mask,
    /// Leaves from the start that are as asked for now.
    done: u64,
    stopped: Option<Error>,
}

impl Stage2 {
    /// Maps consecutive pages to consecutive IPAs, as far as it comes.
    ///
    /// Errors: [`Error::Invalid`], [`Error::NotSupported`], [`Error::NotOwner`], [`Error::Limit`],
    /// [`Error::Retry`], [`Error::NoMemory`], [`Error::Exists`].
    pub fn map<E: Env>(&self, env: &E, map: &Map) -> Outcome {
        let &Map { ipa, pa, level, attributes, sequence, page_count } = map;
        if let Err(error) = self.check_map(map) {
            return Outcome::stopped(0, error);
        }
        self.limbo.reap(env);
        let source = Run { pa, level, attributes };
        let leaf_count = page_count / level.pages();
        let all = Batch { ipa, level, source, first: 0, leaf_count, sequence };
        counted(env, self.map_all(env, &all))
    }

    /// Maps the pages of a list to consecutive IPAs, as far as it comes. Errors as for [`Self::map`].
    pub fn map_list<E: Env>(&self, env: &E, map: &MapList<'_>) -> Outcome {
        let &MapList { ipa, pages: source, sequence } = map;
        let leaf_count = source.len();
        if let Err(error) = self.range(ipa, leaf_count) {
            return Outcome::stopped(0, error);
        }
        self.limbo.reap(env);
        let all = Batch { ipa, level: Level::L3, source, first: 0, leaf_count, sequence };
        counted(env, self.map_all(env, &all))
    }

    /// Maps as much of a request as it comes to.
    #[inline(never)]
    pub(crate) fn map_all<E: Env, S: Source>(&self, env: &E, all: &Batch<S>) -> Outcome {
        let mut done = 0;
        while done < all.leaf_count {
            let (leaves, error) = self.map_batch(env, &self.next_batch(all, done));
            done += leaves;
            if let Some(error) = error {
                return Outcome::stopped(done * all.level.pages(), error);
            }
            if env.interrupt_pending() {
                break;
            }
        }
        Outcome::done(done * all.level.pages())
    }

    fn check_map(&self, map: &Map) -> Result<(), Error> {
        self.range(map.ipa, map.page_count)?;
        let aligned = map.ipa.is_aligned(map.level.bytes())
            && map.pa.is_aligned(map.level.bytes())
            && map.page_count.is_multiple_of(map.level.pages());
        let end = map.pa.checked_add(map.page_count * PAGE_SIZE);
        let reachable = end.is_some_and(|end| end.0 <= 1 << 48);
        if aligned && reachable { self.check_level(map.level) } else { Err(Error::Invalid) }
    }

    fn next_batch<S: Source>(&self, all: &Batch<S>, done: u64) -> Batch<S> {
        let ipa = Ipa(all.ipa.0 + done * all.level.bytes());
        let in_table = (TABLE_ENTRIES - all.level.index(ipa.0)) as u64;
        let left = all.leaf_count - done;
        let leaf_count = left.min(in_table).min(self.batch_leaves(all.level));
        Batch { ipa, first: done, leaf_count, ..*all }
    }

    /// Maps one batch; returns the leaves done and what stopped it.
    #[inline(always)]
    fn map_batch<E: Env, S: Source>(&self, env: &E, batch: &Batch<S>) -> (u64, Option<Error>) {
        let (shared, error) = acquire(env, batch);
        let batch = &Batch { leaf_count: shared, ..*batch };
        if batch.leaves().next().is_none() {
            return (shared, error);
        }
        let installed = self.prepare(env, batch).and_then(|mut reserve| {
            let installed = self.commit(env, batch, &mut reserve);
            reserve.give_back(env);
            installed
        });
        let new = installed.as_ref().map_or(0, |installed| installed.new.bits);
        release(env, batch, !new);
        match installed {
            Ok(installed) => (self.make_visible(env, &installed), installed.stopped.or(error)),
            Err(refused) => (0, Some(refused)),
        }
    }

    /// Allocates what the batch's path lacks, and makes the memory coherent for the guest.
    fn prepare<E: Env, S: Source>(&self, env: &E, batch: &Batch<S>) -> Result<Reserve, Error> {
        let reserve = self.reserve(env, batch.ipa, batch.level)?;
        if !self.config.fwb {
            clean(env, batch);
        }
        if !self.config.dic && batch.leaves().any(|wanted| wanted.attributes.is_executable()) {
            env.invalidate_instructions();
        }
        Ok(reserve)
    }

    /// Takes pages for the tables that are missing on the way to `level`.
    pub(crate) fn reserve<E: Env>(
        &self,
        env: &E,
        ipa: Ipa,
        level: Level,
    ) -> Result<Reserve, Error> {
        let at = walk::find_down_to(env, self.root, ipa, level);
        let missing = level as usize - at.level as usize;
        if missing != 0 {
            may_link(&at)?;
        }
        let mut reserve = Reserve([None; 3]);
        for slot in &mut reserve.0[..missing] {
            *slot = self.alloc(env);
            if slot.is_none() {
                // First the search: a page in hand here is none that a second try could count on.
                let error = self.out_of_tables(env);
                reserve.give_back(env);
                return Err(error);
            }
        }
        Ok(reserve)
    }

    /// Installs tables and leaves inside the gate, if the contract permits.
    fn commit<E: Env, S: Source>(
        &self,
        env: &E,
        batch: &Batch<S>,
        reserve: &mut Reserve,
    ) -> Result<Installed, Error> {
        let inside = self.contract.enter(env);
        permit(env, self.contract.check(&inside, batch.range(), batch.sequence))?;
        let at = self.link(env, batch.ipa, batch.level, reserve)?;
        let installed = self.install(&at, batch);
        drop(inside);
        Ok(installed)
    }

    /// Walks down to `level`, linking reserved tables where there are none. Inside the gate.
    ///
    /// Running out of reserved pages means that a table of the path was unlinked since: under a mark
    /// that the check found lowered or is about to find. Refused, then.
    pub(crate) fn link<'a, E: Env>(
        &self,
        env: &'a E,
        ipa: Ipa,
        level: Level,
        reserve: &mut Reserve,
    ) -> Result<Position<'a>, Error> {
        loop {
            let at = walk::find_down_to(env, self.root, ipa, level);
            if at.level == level {
                return Ok(at);
            }
            may_link(&at)?;
            let page = reserve.take().ok_or(Error::Retry)?;
            match at.entry().exchange(Descriptor::INVALID, Descriptor::table(page)) {
                Ok(_) => self.search.restart(),
                Err(_) => reserve.put_back(page),
            }
        }
    }

    fn install<S: Source>(&self, at: &Position<'_>, batch: &Batch<S>) -> Installed {
        let none = Mask::new(batch.ipa, batch.level);
        let mut installed = Installed { new: none, relaxed: none, done: 0, stopped: None };
        // Copied, since no exchange below changes them, which the compiler can't know.
        let (level, fwb, hd) = (batch.level, self.config.fwb, self.config.hd);
        for (index, entry) in at.entries(batch.leaf_count).iter().enumerate() {
            if let Some(wanted) = batch.leaf(index as u64) {
                let leaf = wanted.attributes.leaf(wanted.pa, level, fwb, hd);
                match entry.exchange(Descriptor::INVALID, leaf) {
                    Ok(_) => installed.new.set(index),
                    Err(old) => match relax(entry, old, leaf, level) {
                        Ok(true) => installed.relaxed.set(index),
                        Ok(false) => {}
                        Err(error) => {
                            installed.stopped = Some(error);
                            break;
                        }
                    },
                }
            }
            installed.done += 1;
        }
        installed
    }

    /// Makes the walkers see what was installed; invalidates locally where permissions were added.
    fn make_visible<E: Env>(&self, env: &E, installed: &Installed) -> u64 {
        let Installed { new, relaxed, done, .. } = *installed;
        if relaxed.bits == 0 {
            flush::publish(env);
        } else {
            flush_relaxed(env, relaxed.indices().map(|index| relaxed.ipa(index)));
        }
        env.count(Stat::LeavesMapped, new.count());
        env.count(Stat::PagesMapped, new.count() * new.level.pages());
        done
    }
}

/// Takes a share in the memory of each leaf of a batch; returns of how many, and why not all.
fn acquire<E: Env, S: Source>(env: &E, batch: &Batch<S>) -> (u64, Option<Error>) {
    for index in 0..batch.leaf_count {
        if let Some(wanted) = batch.leaf(index)
            && let Err(error) = env.acquire(wanted.pa, batch.level)
        {
            return (index, Some(error));
        }
    }
    (batch.leaf_count, None)
}

/// Cleans a batch's memory from the caches, as much at a time as lies together.
fn clean<E: Env, S: Source>(env: &E, batch: &Batch<S>) {
    let (mut start, mut end) = (Pa(0), Pa(0));
    for wanted in batch.leaves() {
        if wanted.pa != end {
            clean_between(env, start, end);
            start = wanted.pa;
        }
        end = Pa(wanted.pa.0 + batch.level.bytes());
    }
    clean_between(env, start, end);
}

fn clean_between<E: Env>(env: &E, start: Pa, end: Pa) {
    if start != end {
        env.clean(start, end.0 - start.0);
    }
}

/// Tells whether a table can be linked where a walk ended early.
fn may_link(at: &Position<'_>) -> Result<(), Error> {
    match at.old.kind(at.level) {
        Kind::Invalid => Ok(()),
        Kind::Busy => Err(Error::Retry),
        Kind::Leaf(_) | Kind::Table(_) => Err(Error::Exists),
    }
}

/// Gives back the shares of those leaves of a batch whose bit is set.
#[inline(always)]
fn release<E: Env, S: Source>(env: &E, batch: &Batch<S>, leaves: u64) {
    let mut rest = leaves & u64::MAX >> (BATCH - batch.leaf_count);
    while rest != 0 {
        if let Some(wanted) = batch.leaf(rest.trailing_zeros().into()) {
            env.release(wanted.pa, batch.level);
        }
        rest &= rest - 1;
    }
}

/// Counts a refusal.
fn counted<E: Env>(env: &E, outcome: Outcome) -> Outcome {
    count_retry(env, outcome.error);
    outcome
}

/// Adds permissions to a leaf that is there already, if it is the same; tells whether it lacked any. Out of
/// line, so that a leaf where nothing was costs a few instructions.
#[inline(never)]
fn relax(entry: &Entry, old: Descriptor, leaf: Descriptor, level: Level) -> Result<bool, Error> {
    let same = |old: Descriptor| old.leaf_address(level) == leaf.leaf_address(level);
    match old.kind(level) {
        Kind::Leaf(_) if same(old) => {}
        Kind::Leaf(_) | Kind::Table(_) => return Err(Error::Exists),
        Kind::Busy | Kind::Invalid => return Err(Error::Retry),
    }
    let relaxed = entry.update_leaf(level, |old| {
        // Where writing is granted already, the first write makes the leaf writable, and is noted.
        let asked = if old.is_granted() { leaf.write_logged() } else { leaf };
        let more = same(old) && !old.allows_all_of(asked);
        more.then(|| old.with_permissions_of(asked))
    });
    match relaxed {
        Ok(_) => Ok(true),
        Err(now) if same(now) => Ok(false),
        // Taken away or replaced between the two looks: an invalidation is at work.
        Err(_) => Err(Error::Retry),
    }
}

impl Reserve {
    fn take(&mut self) -> Option<TablePage> {
        self.0.iter_mut().find_map(Option::take)
    }

    fn put_back(&mut self, page: TablePage) {
        let free = self.0.iter_mut().find(|slot| slot.is_none());
        *free.expect("a slot is free for what was taken from it") = Some(page);
    }

    pub(crate) fn give_back<E: Env>(&mut self, env: &E) {
        while let Some(page) = self.take() {
            env.free(page);
        }
    }
}
