//! TLBs as lazy as they may be.
//!
//! For a few *hot* addresses this holds not what some TLB happens to cache, but everything that a TLB
//! could: at every step of the engine each hot address is walked, and what was found stays until an
//! invalidation that must reach it is complete. A TLB that holds less is always lawful, so what is
//! wrong with any TLB is wrong here.
//!
//! - Entries are tagged by VMID, and by the CPUs that may hold them: local invalidation reaches one.
//! - A leaf is held in two ways: by IPA, and combined with stage 1, tagged by VA. Only an invalidation of
//!   all of stage 1 reaches the latter, and a combined entry is made again from one by IPA.
//! - Walk caches hold pointers to tables. Walks go on from a cached table after it was unlinked. An
//!   invalidation that names a level reaches leaves of that level alone (Arm ARM, C5.5, TTL).
//! - An entry with AF=0 is never held (D8.5.1).
//! - Walks between two barriers may find any value that stood there meanwhile: an invalidation that was
//!   issued before a barrier completed the store leaves room for the old value to come back.

use crate::memory::Memory;
use crate::walker::{Regime, Walk, bits, output, pages, walk_from};

/// CPUs, as a mask.
pub type CpuMask = u8;
/// All CPUs of the model.
pub const ALL_CPUS: CpuMask = 0b1111;

/// An invalidation by broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Of pages, at one level or at any.
    Pages {
        /// The first page.
        start: u64,
        /// The page after the last.
        end: u64,
        /// The level hint.
        level: Option<u32>,
    },
    /// Of all combined and stage-1 entries of the VMID.
    Stage1,
    /// Of everything of the VMID.
    Vmid,
}

/// What is issued and not yet complete.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Issued(Invalidation, Option<u16>),
    Barrier,
}

/// A leaf that TLBs may hold.
#[derive(Clone, Copy, Debug)]
pub struct Cached {
    /// The descriptor as it was walked.
    pub raw: u64,
    /// Its level.
    pub level: u32,
    vmid: u16,
    by_ipa: CpuMask,
    combined: CpuMask,
}

/// A table that walk caches may hold: of a level, for a VMID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CachedTable {
    level: u32,
    table: u64,
    vmid: u16,
}

/// All that TLBs may hold for one address.
struct Hot {
    ipa: u64,
    leaves: Vec<Cached>,
    tables: Vec<CachedTable>,
    /// What walks found since the last barrier.
    seen: Vec<Walk>,
    /// The last fill, if nothing was invalidated since: filling the same again changes nothing.
    last: Option<(u16, Walk)>,
}

/// The TLBs of all CPUs.
pub struct Tlb {
    regime: Regime,
    hot: Vec<Hot>,
    pending: Vec<Pending>,
    /// A barrier completes nothing: only the repeated invalidation does (erratum).
    needs_repeat: bool,
}

impl Tlb {
    /// Makes empty TLBs.
    pub fn new(regime: Regime, needs_repeat: bool) -> Self {
        Self { regime, hot: Vec::new(), pending: Vec::new(), needs_repeat }
    }

    /// Looks at another address from now on: what was held for the one that it replaces is evicted.
    pub fn watch(&mut self, slot: usize, ipa: u64) {
        let new = Hot { ipa, leaves: vec![], tables: vec![], seen: vec![], last: None };
        match self.hot.get_mut(slot) {
            Some(hot) => *hot = new,
            None => self.hot.push(new),
        }
    }

    /// Returns the hot addresses.
    pub fn hot(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.hot.iter().map(|hot| hot.ipa)
    }

    /// Returns what a CPU may hold for a hot address: each is usable on its own.
    pub fn cached(&self, slot: usize, vmid: u16, cpu: usize) -> impl Iterator<Item = &Cached> + '_ {
        let holds = move |leaf: &&Cached| {
            leaf.vmid == vmid && (leaf.by_ipa | leaf.combined) & 1 << cpu != 0
        };
        self.hot[slot].leaves.iter().filter(holds)
    }

    /// Returns the tables that walk caches may hold on the way to a hot address: level and address.
    pub fn cached_tables(&self, slot: usize, vmid: u16) -> impl Iterator<Item = (u32, u64)> + '_ {
        let own = move |held: &&CachedTable| held.vmid == vmid;
        self.hot[slot].tables.iter().filter(own).map(|held| (held.level, held.table))
    }

    /// Caches all that walks find now, on every CPU, under the VMID that the guest runs under.
    pub fn fill(&mut self, memory: &Memory, vmid: u16) {
        for hot in &mut self.hot {
            let walk = self.regime.walk(memory, hot.ipa);
            if hot.last != Some((vmid, walk)) || hot.has_unlinked(&walk) {
                hot.fill(memory, vmid, walk);
            }
        }
    }

    /// Takes note of an invalidation, for the VMID in force.
    pub fn issue(&mut self, what: Invalidation, vmid: Option<u16>) {
        self.pending.push(Pending::Issued(what, vmid));
    }

    /// Makes stores visible to walks, and completes what was issued (`dsb ish`).
    pub fn complete(&mut self) {
        if self.needs_repeat {
            self.pending.push(Pending::Barrier);
        } else {
            self.apply_pending();
        }
        self.stores_visible();
    }

    /// Completes what the repeated invalidation completes.
    pub fn repeat(&mut self) {
        self.apply_pending();
        self.stores_visible();
    }

    /// Makes stores visible to walks (`dsb ishst`): from here on only new values are found.
    pub fn stores_visible(&mut self) {
        for hot in &mut self.hot {
            // What was found until now may still get in.
            hot.readmit(ALL_CPUS);
            hot.seen.clear();
            hot.last = None;
        }
    }

    /// Invalidates one address and all of stage 1 on one CPU, complete at once.
    pub fn local(&mut self, cpu: usize, ipa: u64, vmid: Option<u16>) {
        let cpu = 1 << cpu;
        for hot in &mut self.hot {
            for leaf in hot.leaves.iter_mut().filter(|leaf| Some(leaf.vmid) == vmid) {
                if (ipa / 4096) & !(pages(leaf.level) - 1)
                    == (hot.ipa / 4096) & !(pages(leaf.level) - 1)
                {
                    leaf.by_ipa &= !cpu;
                }
                leaf.combined = leaf.combined & !cpu | leaf.by_ipa & cpu;
            }
            hot.readmit(cpu);
            hot.sweep();
        }
    }

    /// Invalidates everything of all VMIDs, complete at once.
    pub fn clear(&mut self) {
        for hot in &mut self.hot {
            hot.leaves.clear();
            hot.tables.clear();
            hot.seen.clear();
            hot.last = None;
        }
    }

    fn apply_pending(&mut self) {
        // One after the other, each group in the order that helps least: combined entries go first, and
        // are made again from entries by IPA that are still there.
        let pending = std::mem::take(&mut self.pending);
        for group in pending.split(|pending| matches!(pending, Pending::Barrier)) {
            self.apply(group, |what| matches!(what, Invalidation::Stage1));
            self.apply(group, |what| !matches!(what, Invalidation::Stage1));
        }
        for hot in &mut self.hot {
            hot.sweep();
        }
        self.pending = pending;
        self.pending.clear();
    }

    fn apply(&mut self, group: &[Pending], wanted: impl Fn(&Invalidation) -> bool) {
        for pending in group {
            if let Pending::Issued(what, Some(vmid)) = *pending
                && wanted(&what)
            {
                self.hot.iter_mut().for_each(|hot| hot.apply(what, vmid));
            }
        }
    }

    /// Checks, between two calls, that what may be held for a VMID says nothing that the tables don't.
    ///
    /// Permissions may be less: a fault mends that. The access flag may be clear by now: ageing.
    pub fn check(&self, memory: &Memory, vmid: u16) {
        for hot in &self.hot {
            let now = self.regime.walk(memory, hot.ipa);
            for leaf in hot.leaves.iter().filter(|leaf| leaf.vmid == vmid) {
                assert!(
                    leaf.agrees_with(&now),
                    "{:#x}: {leaf:x?} is held, {now:x?} stands",
                    hot.ipa
                );
            }
            for held in hot.tables.iter().filter(|held| held.vmid == vmid) {
                let table = now.tables[held.level as usize];
                assert_eq!(held.table, table, "{:#x}: a walk cache holds {held:x?}", hot.ipa);
            }
        }
    }

    /// Checks that nothing is held under a VMID that another VM is about to use.
    pub fn check_unused(&self, vmid: u16) {
        for hot in &self.hot {
            assert!(hot.leaves.iter().all(|leaf| leaf.vmid != vmid), "another VM gets its VMID");
            assert!(hot.tables.iter().all(|table| table.vmid != vmid), "another VM gets its VMID");
        }
    }

    /// Checks that nothing under a VMID leads from the pages of a leaf to the memory behind it, unless the
    /// table still does (the parts of a block that was split).
    pub fn check_gone(&self, memory: &Memory, vmid: u16, page: u64, level: u32, pa: u64) {
        let range = page..page + pages(level);
        for hot in self.hot.iter().filter(|hot| range.contains(&(hot.ipa / 4096))) {
            let now = self.regime.walk(memory, hot.ipa);
            for leaf in hot.leaves.iter().filter(|leaf| leaf.vmid == vmid) {
                let target = output(leaf.raw, leaf.level, hot.ipa);
                let gone = target == pa + (hot.ipa - page * 4096) && !leaf.agrees_with(&now);
                assert!(!gone, "{:#x}: {leaf:x?} is held when it is reported gone", hot.ipa);
            }
        }
    }

    /// Checks that no walk cache under a VMID holds a table that is given back.
    pub fn check_free(&self, vmid: u16, table: u64) {
        for hot in &self.hot {
            let held = hot.tables.iter().find(|held| held.table == table && held.vmid == vmid);
            assert_eq!(held, None, "{:#x}: a walk cache holds a table that is given back", hot.ipa);
        }
    }
}

impl Cached {
    /// Tells whether the entry says nothing that the descriptor which stands there now doesn't.
    fn agrees_with(&self, now: &Walk) -> bool {
        const SAME: u64 = bits::ADDRESS | bits::MEMORY_TYPE | bits::INNER_SHAREABLE;
        const MORE: u64 = bits::READ | bits::WRITE;
        now.is_leaf()
            && now.level == self.level
            && (now.raw ^ self.raw) & SAME == 0
            && self.raw & MORE & !now.raw == 0
            && now.raw & bits::XN_FIELD & !self.raw == 0
            // The walker would make a clean leaf dirty through it.
            && (self.raw & bits::DBM == 0 || now.raw & (bits::DBM | bits::WRITE) != 0)
    }
}

impl Hot {
    /// Tells whether a walk cache holds a table that isn't on the way any more: walks from there count too.
    fn has_unlinked(&self, walk: &Walk) -> bool {
        self.tables.iter().any(|held| walk.tables[held.level as usize] != held.table)
    }

    #[cold]
    fn fill(&mut self, memory: &Memory, vmid: u16, walk: Walk) {
        if self.last.is_some_and(|last| last.0 != vmid) {
            // Walks under the new VMID come after the barrier of the renewal.
            self.seen.clear();
        }
        self.last = Some((vmid, walk));
        self.see(vmid, walk);
        for index in 0..self.tables.len() {
            let held = self.tables[index];
            if held.vmid == vmid && walk.tables[held.level as usize] != held.table {
                // Not among what comes back after an invalidation: that rids walk caches too.
                let from_there = walk_from(memory, held.level, held.table, self.ipa);
                self.admit(vmid, &from_there, ALL_CPUS);
            }
        }
    }

    fn see(&mut self, vmid: u16, walk: Walk) {
        if !self.seen.contains(&walk) {
            self.seen.push(walk);
        }
        self.admit(vmid, &walk, ALL_CPUS);
    }

    fn admit(&mut self, vmid: u16, walk: &Walk, cpus: CpuMask) {
        // The first table is the register's and not a cache's.
        let first = walk.tables.iter().position(|&table| table != 0).unwrap_or(0);
        for level in first as u32 + 1..4 {
            let held = CachedTable { level, table: walk.tables[level as usize], vmid };
            if held.table != 0 && !self.tables.contains(&held) {
                self.tables.push(held);
            }
        }
        if !walk.is_leaf() || walk.raw & bits::AF == 0 {
            return;
        }
        let same = |leaf: &&mut Cached| {
            leaf.raw == walk.raw && leaf.level == walk.level && leaf.vmid == vmid
        };
        if let Some(leaf) = self.leaves.iter_mut().find(same) {
            leaf.by_ipa |= cpus;
            leaf.combined |= cpus;
        } else {
            let Walk { raw, level, .. } = *walk;
            self.leaves.push(Cached { raw, level, vmid, by_ipa: cpus, combined: cpus });
        }
    }

    /// Lets in again what walks found since the last barrier: they may have come after the invalidation.
    fn readmit(&mut self, cpus: CpuMask) {
        let Some((vmid, _)) = self.last else {
            return;
        };
        let seen = std::mem::take(&mut self.seen);
        for walk in &seen {
            self.admit(vmid, walk, cpus);
        }
        self.seen = seen;
    }

    fn apply(&mut self, what: Invalidation, vmid: u16) {
        match what {
            Invalidation::Vmid => {
                self.leaves.retain(|leaf| leaf.vmid != vmid);
                self.tables.retain(|held| held.vmid != vmid);
            }
            Invalidation::Stage1 => {
                let own = self.leaves.iter_mut().filter(|leaf| leaf.vmid == vmid);
                own.for_each(|leaf| leaf.combined = leaf.by_ipa);
            }
            Invalidation::Pages { start, end, level } => {
                let page = self.ipa / 4096;
                let hit = |at: u32| {
                    let first = page & !(pages(at) - 1);
                    first < end && start < first + pages(at)
                };
                for leaf in self.leaves.iter_mut().filter(|leaf| leaf.vmid == vmid) {
                    if hit(leaf.level) && level.is_none_or(|level| level == leaf.level) {
                        leaf.by_ipa = 0;
                    }
                }
                // A table of level n stands in for one entry of the level above.
                self.tables
                    .retain(|held| held.vmid != vmid || level.is_some() || !hit(held.level - 1));
            }
        }
    }

    fn sweep(&mut self) {
        self.leaves.retain(|leaf| leaf.by_ipa | leaf.combined != 0);
    }
}
