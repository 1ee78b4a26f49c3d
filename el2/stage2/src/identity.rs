//! The host's stage 2: every address maps to itself, in the largest blocks that fit.
//!
//! It serves one purpose: what isn't in it, the host's CPUs can't reach. Donated pages are taken out one
//! by one, splitting blocks on the way. There is no ageing (the access flag is always set), hence no
//! concurrency beyond the walkers: **the caller's lock lets one caller in at a time**, faults included. So
//! a table that no walker reaches any more may be freed at once.
//!
//! *Zeroes.* A page that was taken has an invalid entry. A host that only reads it (all of memory, as
//! `/proc/kcore` does; the eight bytes behind a string, as `load_unaligned_zeropad()` does) is given a page of
//! zeroes there, read-only, by the fault: invalid to valid, so nothing is invalidated. Memory that was never
//! the host's has the page of zeroes from the start, by tables that all of it shares.
//!
//! *Counts.* The link to a table that replaces a block counts, in bits that the walker ignores, the parts
//! that aren't whole: pages that are away, or blocks that are tables themselves. When the last part comes
//! back the block is built again, and the table freed. Tables that no block stood for count nothing.
//!
//! While a block is split or built its entry is briefly invalid, and any host CPU may fault on any address
//! in it. The entry is [`Descriptor::BUSY`] then; the fault waits for the lock, finds what was made, and
//! answers [`HostFault::Retry`]. No host memory is needed between break and make.

use crate::attributes::Attributes;
use crate::descriptor::{Descriptor, Kind, Level};
use crate::entry::Entry;
use crate::flush::{self, Config, Span};
use crate::hardware::Tlb;
use crate::memory::{PageSource, Root, Table, TableMemory, TablePage};
use crate::walk::{self, Position};
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Pa};

/// What to do about a translation fault of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Run the host again: the address is mapped by now.
    Retry,
    /// The host may not do that: the access ends in an abort in the host.
    Denied,
}

/// The host's identity tree.
#[derive(Debug)]
pub struct Identity {
    root: Root,
    config: Config,
    /// What stands for a page that isn't the host's, once the host has read it.
    zeroes: Descriptor,
}

impl Identity {
    /// Takes a root, zeroed or with a tree that this engine built, and a page of zeroes.
    ///
    /// The page stays zero and is clean to the point of coherency: without FEAT_S2FWB the host may read
    /// it past the caches.
    pub fn new(root: Root, config: Config, zero_page: Pa) -> Self {
        let zeroes = Attributes::HOST_ZEROES.leaf(zero_page, Level::L3, config.fwb, false);
        Self { root, config, zeroes }
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
        self.check_range(start, end)?;
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

    /// Maps `[start, end)` to zeroes, for reading: memory that the host never has.
    ///
    /// Whole spans of a table share one. Errors are those of [`Identity::map`].
    pub fn map_zeroes<E: TableMemory + PageSource + Tlb>(
        &self,
        env: &E,
        start: Ipa,
        end: Ipa,
    ) -> Result<(), Error> {
        self.check_range(start, end)?;
        let mut shared = [None; 2];
        let mut next = start;
        while next < end {
            let level = self.largest_leaf(next, end.0 - next.0);
            let entry = self.entry(env, next, level)?;
            let zeroes = self.zeroes_at(env, level, &mut shared)?;
            entry.exchange(Descriptor::INVALID, zeroes).map_err(|_| Error::Exists)?;
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
        if !is_hosts(&at) {
            return Err(Error::NoEntry);
        }
        if at.level == Level::L3 {
            at.entry().replace(Descriptor::INVALID);
            self.flush(env, Span::leaf(ipa, Level::L3));
        } else {
            let table = split_without(env, at.old, at.level, ipa)?;
            // Break, invalidate, make. The walker leaves the entry alone: HA is off for the host.
            at.entry().replace(Descriptor::BUSY);
            self.flush(env, Span::leaf(ipa, at.level));
            at.entry().replace(Descriptor::table(table).with_missing(1));
            flush::publish(env);
        }
        self.count_missing(env, ipa, at.level, |missing| missing + 1);
        Ok(())
    }

    /// Gives a page that was taken back to the host, which finds it as the caller left it. If that was all
    /// that was missing of a block, the block is there again, and its tables are free.
    ///
    /// The caller has zeroed it and cleaned it to the point of coherency, and names the attributes that the
    /// block had. [`Error::Exists`] if the host has it, [`Error::NoEntry`] for what was never taken.
    pub fn give_page<E: TableMemory + PageSource + Tlb>(
        &self,
        env: &E,
        ipa: Ipa,
        attributes: Attributes,
    ) -> Result<(), Error> {
        self.check_page(ipa)?;
        let at = walk::find(env, self.root, ipa);
        if is_hosts(&at) {
            return Err(Error::Exists);
        }
        let link = self.link(env, ipa, Level::L3).filter(|_| at.level == Level::L3);
        let link = link.filter(|link| !link.old.is_shared_table()).ok_or(Error::NoEntry)?;
        if link.old.missing() == 1 {
            self.make_whole(env, ipa, link, attributes);
            return Ok(());
        }
        if at.old.is_valid() {
            // From the page of zeroes to its own: another output address needs a break.
            at.entry().replace(Descriptor::INVALID);
            self.flush(env, Span::leaf(ipa, Level::L3));
        }
        at.entry().replace(attributes.leaf(Pa(ipa.0), Level::L3, self.config.fwb, false));
        flush::publish(env);
        self.count_missing(env, ipa, Level::L3, |missing| missing - 1);
        Ok(())
    }

    /// Answers a translation fault of the host at an address that is inside the tree or outside.
    ///
    /// A page that isn't the host's is zeroes to it from the first time on that it `reads` there.
    pub fn fault<E: TableMemory + Tlb>(&self, env: &E, ipa: Ipa, reads: bool) -> HostFault {
        if !self.root.geometry().contains(ipa, 1) {
            return HostFault::Denied;
        }
        let at = walk::find(env, self.root, ipa);
        match at.old.kind(at.level) {
            // Another CPU's read was faster.
            Kind::Leaf(_) if !at.old.is_granted() && !reads => HostFault::Denied,
            Kind::Leaf(_) | Kind::Busy | Kind::Table(_) => HostFault::Retry,
            Kind::Invalid if at.level == Level::L3 && reads => {
                at.entry().replace(self.zeroes);
                flush::publish(env);
                HostFault::Retry
            }
            Kind::Invalid => HostFault::Denied,
        }
    }

    /// Builds the block again that lacks only `ipa`, and the block above if that is then whole too.
    fn make_whole<E: TableMemory + PageSource + Tlb>(
        &self,
        env: &E,
        ipa: Ipa,
        link: Position<'_>,
        attributes: Attributes,
    ) {
        let above = self.link(env, ipa, link.level);
        let top = above.filter(|above| above.old.missing() == 1).unwrap_or(link);
        let (start, level) = (ipa.align_down(top.level.bytes()), top.level);
        top.entry().replace(Descriptor::BUSY);
        // Of unknown levels, tables among them.
        self.flush(env, Span { start, page_count: level.pages(), level: None });
        top.entry().replace(attributes.leaf(Pa(start.0), level, self.config.fwb, false));
        flush::publish(env);
        self.count_missing(env, ipa, level, |missing| missing - 1);
        free_tables(env, top.old, level, ipa);
    }

    /// Changes how many parts of the table that has the entry for `ipa` at `level` are missing, if it counts.
    fn count_missing<M: TableMemory>(
        &self,
        memory: &M,
        ipa: Ipa,
        level: Level,
        change: fn(u64) -> u64,
    ) {
        if let Some(link) = self.link(memory, ipa, level).filter(|link| link.old.missing() > 0) {
            // The walker ignores the count, so nothing changes for it.
            link.entry().replace(link.old.with_missing(change(link.old.missing())));
        }
    }

    /// Returns the entry that links the table of `level` on the way to `ipa`; `None` if that is the root.
    fn link<'m, M: TableMemory>(
        &self,
        memory: &'m M,
        ipa: Ipa,
        level: Level,
    ) -> Option<Position<'m>> {
        let above = level.above()?;
        if level <= self.root.geometry().start_level() {
            return None;
        }
        Some(walk::find_down_to(memory, self.root, ipa, above)).filter(|at| at.level == above)
    }

    /// Returns what maps the span of an entry to zeroes: a page, or a shared table of such entries.
    fn zeroes_at<E: TableMemory + PageSource>(
        &self,
        env: &E,
        level: Level,
        shared: &mut [Option<TablePage>; 2],
    ) -> Result<Descriptor, Error> {
        let Some(below) = level.next() else { return Ok(self.zeroes) };
        let index = level as usize - 1;
        if shared[index].is_none() {
            let part = self.zeroes_at(env, below, shared)?;
            let page = env.alloc().ok_or(Error::NoMemory)?;
            for entry in env.table(page) {
                entry.replace(part);
            }
            shared[index] = Some(page);
        }
        let page = shared[index].expect("made above");
        Ok(Descriptor::table(page).with_shared_table())
    }

    fn flush<T: Tlb>(&self, tlb: &T, span: Span) {
        flush::spans(tlb, &self.config, core::iter::once(span));
    }

    fn check_range(&self, start: Ipa, end: Ipa) -> Result<(), Error> {
        let aligned = start.is_aligned(PAGE_SIZE) && end.is_aligned(PAGE_SIZE);
        let bytes = end.0.checked_sub(start.0).ok_or(Error::Invalid)?;
        let fits = aligned && self.root.geometry().contains(start, bytes);
        if fits { Ok(()) } else { Err(Error::Invalid) }
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

/// Tells whether an entry is memory of the host's: it may write all that is its own.
fn is_hosts(at: &Position<'_>) -> bool {
    at.old.leaf_address(at.level).is_some() && at.old.is_granted()
}

/// Frees the table that an entry of `level` linked, and the one in it on the way to `ipa`: all others there
/// are blocks again.
fn free_tables<E: TableMemory + PageSource>(env: &E, link: Descriptor, level: Level, ipa: Ipa) {
    let (Some(page), Some(next)) = (link.table_below(level), level.next()) else { return };
    free_tables(env, env.table(page)[next.index(ipa.0)].read(), next, ipa);
    env.free(page);
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
            entry.replace(Descriptor::table(below).with_missing(1));
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
