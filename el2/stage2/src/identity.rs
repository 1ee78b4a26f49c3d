//! The host's stage 2: every address maps to itself, in the largest blocks that fit.
//!
//! It serves one purpose: what isn't in it, the host's CPUs can't reach. Donated pages are taken out
//! one by one, splitting blocks on the way, and come back as single pages; blocks are not built again.
//! There is no demand faulting and no ageing (the access flag is always set), hence no concurrency
//! beyond the walkers: **the caller's lock lets one writer in at a time.** Faults take no lock.
//!
//! While a block is split its entry is briefly invalid, and any host CPU may fault on any address in
//! it. Those entries are [`Descriptor::BUSY`], which [`Identity::fault`] answers with
//! [`HostFault::Retry`]: run the host again. No host memory is needed between break and make.

use crate::attributes::Attributes;
use crate::descriptor::{Descriptor, Kind, Level};
use crate::entry::Entry;
use crate::flush::{self, Config, Span};
use crate::hardware::Tlb;
use crate::memory::{PageSource, Root, Table, TableMemory, TablePage};
use crate::walk;
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Pa};

/// What to do about a translation fault of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Run the host again: the address is mapped by now, or about to be.
    Retry,
    /// The address isn't the host's: the access ends in an abort in the host.
    NotMapped,
}

/// The host's identity tree.
#[derive(Debug)]
pub struct Identity {
    root: Root,
    config: Config,
}

impl Identity {
    /// Takes a root, zeroed or with a tree that this engine built.
    pub const fn new(root: Root, config: Config) -> Self {
        Self { root, config }
    }

    /// Returns the root, for VTTBR_EL2 and VTCR_EL2.
    pub const fn root(&self) -> Root {
        self.root
    }

    /// Returns how many table pages it takes at most to split every block of `ram_bytes` of memory
    /// in `range_count` ranges into pages: what EL2's pool must be able to give.
    pub const fn split_tables(ram_bytes: u64, range_count: u64) -> u64 {
        ram_bytes.div_ceil(Level::L2.bytes()) + ram_bytes.div_ceil(Level::L1.bytes())
            // An unaligned range touches one more of each at either end; level 0 adds one a range.
            + 5 * range_count
    }

    /// Maps `[start, end)` to itself, in the largest leaves that alignment and size allow.
    ///
    /// Nothing of it may be mapped yet ([`Error::Exists`]); on an error what came before stays.
    /// Nothing is invalidated: invalid entries aren't cached.
    pub fn map<E: TableMemory + PageSource + Tlb>(
        &self,
        env: &E,
        start: Ipa,
        end: Ipa,
        attributes: Attributes,
    ) -> Result<(), Error> {
        let aligned = start.is_aligned(PAGE_SIZE) && end.is_aligned(PAGE_SIZE);
        let bytes = end.0.checked_sub(start.0).ok_or(Error::Invalid)?;
        if !aligned || !self.root.geometry().contains(start, bytes) {
            return Err(Error::Invalid);
        }
        let mut next = start;
        while next < end {
            let level = self.largest_leaf(next, end.0 - next.0);
            let entry = self.entry(env, next, level)?;
            let leaf = attributes.leaf(Pa(next.0), level, self.config.fwb, false);
            entry.exchange(Descriptor::INVALID, leaf).map_err(|_| Error::Exists)?;
            next = Ipa(next.0 + level.bytes());
        }
        flush::publish(env);
        Ok(())
    }

    /// Takes one page from the host. When this returns no CPU's TLB holds it any more.
    ///
    /// [`Error::NoEntry`] if it isn't mapped, [`Error::NoMemory`] if there is no table page to split
    /// a block with; nothing has changed then.
    pub fn take_page<E: TableMemory + PageSource + Tlb>(
        &self,
        env: &E,
        ipa: Ipa,
    ) -> Result<(), Error> {
        self.check_page(ipa)?;
        let at = walk::find(env, self.root, ipa);
        if at.old.leaf_address(at.level).is_none() {
            return Err(Error::NoEntry);
        }
        if at.level == Level::L3 {
            at.entry().replace(Descriptor::INVALID);
            self.flush(env, ipa, Level::L3);
            return Ok(());
        }
        let table = split_without(env, at.old, at.level, ipa)?;
        // Break, invalidate, make. The walker leaves the entry alone: HA is off for the host.
        at.entry().replace(Descriptor::BUSY);
        self.flush(env, ipa, at.level);
        at.entry().replace(Descriptor::table(table));
        flush::publish(env);
        Ok(())
    }

    /// Gives a page back to the host, which finds it as the caller left it.
    ///
    /// The caller has zeroed it and cleaned it to the point of coherency. [`Error::Exists`] if the
    /// host has it already, [`Error::NoMemory`] only for an address that was never mapped.
    pub fn give_page<E: TableMemory + PageSource + Tlb>(
        &self,
        env: &E,
        ipa: Ipa,
        attributes: Attributes,
    ) -> Result<(), Error> {
        self.check_page(ipa)?;
        self.map(env, ipa, Ipa(ipa.0 + PAGE_SIZE), attributes)
    }

    /// Answers a translation fault of the host at an address that is inside the tree or outside.
    pub fn fault<M: TableMemory>(&self, memory: &M, ipa: Ipa) -> HostFault {
        if !self.root.geometry().contains(ipa, 1) {
            return HostFault::NotMapped;
        }
        let at = walk::find(memory, self.root, ipa);
        match at.old.kind(at.level) {
            Kind::Invalid => HostFault::NotMapped,
            Kind::Busy | Kind::Table(_) | Kind::Leaf(_) => HostFault::Retry,
        }
    }

    /// Returns the leaf that translates an address, and its level.
    pub fn leaf<M: TableMemory>(&self, memory: &M, ipa: Ipa) -> Option<(Descriptor, Level)> {
        if !self.root.geometry().contains(ipa, 1) {
            return None;
        }
        let at = walk::find(memory, self.root, ipa);
        at.old.leaf_address(at.level).map(|_| (at.old, at.level))
    }

    fn flush<T: Tlb>(&self, tlb: &T, ipa: Ipa, level: Level) {
        flush::spans(tlb, &self.config, core::iter::once(Span::leaf(ipa, level)));
    }

    fn check_page(&self, ipa: Ipa) -> Result<(), Error> {
        let fits = self.root.geometry().contains(ipa, PAGE_SIZE);
        if fits && ipa.is_aligned(PAGE_SIZE) { Ok(()) } else { Err(Error::Invalid) }
    }

    /// Returns the level of the largest leaf that can begin at `ipa` and has no more than `bytes`.
    fn largest_leaf(&self, ipa: Ipa, bytes: u64) -> Level {
        [Level::L1, Level::L2]
            .into_iter()
            .filter(|&level| self.root.geometry().has_leaves_at(level))
            .find(|&level| ipa.is_aligned(level.bytes()) && bytes >= level.bytes())
            .unwrap_or(Level::L3)
    }

    /// Returns the entry for `ipa` at `level`, linking the tables that lead to it.
    fn entry<'a, E: TableMemory + PageSource>(
        &self,
        env: &'a E,
        ipa: Ipa,
        level: Level,
    ) -> Result<&'a Entry, Error> {
        loop {
            let at = walk::find_down_to(env, self.root, ipa, level);
            if at.level == level {
                return Ok(at.entry());
            }
            if at.old != Descriptor::INVALID {
                return Err(Error::Exists);
            }
            let page = env.alloc().ok_or(Error::NoMemory)?;
            at.entry().replace(Descriptor::table(page));
        }
    }
}

/// Builds the tables that replace a block: all of it but the page at `hole`, nothing linked yet.
fn split_without<E: TableMemory + PageSource>(
    env: &E,
    block: Descriptor,
    level: Level,
    hole: Ipa,
) -> Result<TablePage, Error> {
    let page = env.alloc().ok_or(Error::NoMemory)?;
    let next = level.next().expect("pages are not split");
    let table = env.table(page);
    fill(table, block, level);
    let entry = &table[next.index(hole.0)];
    if next == Level::L3 {
        entry.replace(Descriptor::INVALID);
        return Ok(page);
    }
    match split_without(env, entry.read(), next, hole) {
        Ok(below) => {
            entry.replace(Descriptor::table(below));
            Ok(page)
        }
        Err(error) => {
            env.free(page);
            Err(error)
        }
    }
}

/// Fills a table that nobody reaches yet with the parts of a block.
pub(crate) fn fill(table: &Table, block: Descriptor, level: Level) {
    for (index, entry) in table.iter().enumerate() {
        entry.replace(block.part(level, index));
    }
}
