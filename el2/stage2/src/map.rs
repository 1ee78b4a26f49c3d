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
use crate::stage2::{Stage2, count_retry, flush_relaxed, permit};
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

/// A batch: part of a request, all in one table.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) ipa: Ipa,
    pub(crate) pa: Pa,
    pub(crate) level: Level,
    pub(crate) attributes: Attributes,
    pub(crate) sequence: u64,
    pub(crate) leaf_count: u64,
}

impl Batch {
    const fn leaf_pa(&self, index: u64) -> Pa {
        Pa(self.pa.0 + index * self.level.bytes())
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
        if let Err(error) = self.check_map(map) {
            return Outcome::stopped(0, error);
        }
        self.limbo.reap(env);
        let mut pages = 0;
        while pages < map.page_count {
            match self.map_batch(env, &self.next_batch(map, pages)) {
                (leaves, None) => pages += leaves * map.level.pages(),
                (leaves, Some(error)) => {
                    count_retry(env, Some(error));
                    return Outcome::stopped(pages + leaves * map.level.pages(), error);
                }
            }
            if env.interrupt_pending() {
                break;
            }
        }
        Outcome::done(pages)
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

    fn next_batch(&self, map: &Map, pages: u64) -> Batch {
        let offset = pages * PAGE_SIZE;
        let ipa = Ipa(map.ipa.0 + offset);
        let in_table = (TABLE_ENTRIES - map.level.index(ipa.0)) as u64;
        let left = (map.page_count - pages) / map.level.pages();
        Batch {
            ipa,
            pa: Pa(map.pa.0 + offset),
            level: map.level,
            attributes: map.attributes,
            sequence: map.sequence,
            leaf_count: left.min(in_table).min(self.batch_leaves(map.level)),
        }
    }

    /// Maps one batch; returns the leaves done and what stopped it.
    pub(crate) fn map_batch<E: Env>(&self, env: &E, batch: &Batch) -> (u64, Option<Error>) {
        let (shared, error) = acquire(env, batch);
        let batch = &Batch { leaf_count: shared, ..*batch };
        if shared == 0 {
            return (0, error);
        }
        let installed = self.prepare(env, batch).and_then(|mut reserve| {
            let installed = self.commit(env, batch, &mut reserve);
            reserve.give_back(env);
            installed
        });
        let new = installed.as_ref().map_or(0, |installed| installed.new.bits);
        for index in (0..shared).filter(|index| new >> index & 1 == 0) {
            env.release(batch.leaf_pa(index), batch.level);
        }
        match installed {
            Ok(installed) => (self.make_visible(env, &installed), installed.stopped.or(error)),
            Err(refused) => (0, Some(refused)),
        }
    }

    /// Allocates what the batch's path lacks, and makes the memory coherent for the guest.
    fn prepare<E: Env>(&self, env: &E, batch: &Batch) -> Result<Reserve, Error> {
        let reserve = self.reserve(env, batch.ipa, batch.level)?;
        if !self.config.fwb {
            env.clean(batch.pa, batch.leaf_count * batch.level.bytes());
        }
        if batch.attributes.is_executable() && !self.config.dic {
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
    fn commit<E: Env>(
        &self,
        env: &E,
        batch: &Batch,
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

    fn install(&self, at: &Position<'_>, batch: &Batch) -> Installed {
        let none = Mask::new(batch.ipa, batch.level);
        let mut installed = Installed { new: none, relaxed: none, done: 0, stopped: None };
        for (index, entry) in at.entries(batch.leaf_count).iter().enumerate() {
            let pa = batch.leaf_pa(index as u64);
            let leaf = self.leaf_of(batch.attributes, pa, batch.level);
            match install_leaf(entry, leaf, batch.level) {
                Ok(Change::New) => installed.new.set(index),
                Ok(Change::Relaxed) => installed.relaxed.set(index),
                Ok(Change::None) => {}
                Err(error) => {
                    installed.stopped = Some(error);
                    break;
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

/// Takes a share in each page of a batch; returns how many, and why not all.
fn acquire<E: Env>(env: &E, batch: &Batch) -> (u64, Option<Error>) {
    for index in 0..batch.leaf_count {
        if let Err(error) = env.acquire(batch.leaf_pa(index), batch.level) {
            return (index, Some(error));
        }
    }
    (batch.leaf_count, None)
}

/// Tells whether a table can be linked where a walk ended early.
fn may_link(at: &Position<'_>) -> Result<(), Error> {
    match at.old.kind(at.level) {
        Kind::Invalid => Ok(()),
        Kind::Busy => Err(Error::Retry),
        Kind::Leaf(_) | Kind::Table(_) => Err(Error::Exists),
    }
}

enum Change {
    None,
    New,
    Relaxed,
}

/// Makes one entry what was asked for, or leaves it.
fn install_leaf(entry: &Entry, leaf: Descriptor, level: Level) -> Result<Change, Error> {
    let Err(old) = entry.exchange(Descriptor::INVALID, leaf) else {
        return Ok(Change::New);
    };
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
        Ok(_) => Ok(Change::Relaxed),
        Err(now) if same(now) => Ok(Change::None),
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
