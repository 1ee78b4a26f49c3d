//! A VM's stage 2: the root of its tree and what keeps concurrent calls on it apart.
//!
//! There is no VM-wide lock. Any CPU may make any call at any time; each module says what its part of
//! that argument is:
//! - entries change by exchange from what was read ([`crate::entry`]), so that a leaf is taken away once;
//! - making entries valid happens in a gate, which invalidations wait for ([`crate::contract`]);
//! - tables are unlinked only under a mark over their whole span, after that wait, so that no map can
//!   be about to install into one; and are freed when no CPU can hold a reference ([`crate::limbo`]);
//! - whoever relies on another CPU's removal makes sure that it is complete ([`crate::batches`]).
//!
//! The operations are methods, a module each: map, unmap, set, age, protect, fault.

use crate::attributes::Attributes;
use crate::batches::{Batches, Counted};
use crate::contract::{Contract, Verdict};
use crate::descriptor::{Descriptor, Level};
use crate::dirty::Orphans;
use crate::drain::Parked;
use crate::epoch::Epoch;
use crate::flush::{self, Config, Issued, Span};
use crate::hardware::{Counters, Env};
use crate::limbo::Limbo;
use crate::memory::{Root, TableMemory, TablePage};
use crate::range::Range;
use crate::reclaim::Search;
use crate::sync::{Weakness, weakened};
use crate::walk;
use verdigris_abi::{Error, Ipa, PAGE_SIZE, Pa, Stat};

/// Most leaves between two looks at pending interrupts, and most that one gate or batch changes.
pub const BATCH: u64 = 64;

/// The stage 2 of one VM.
///
/// Some 7 KiB, most of it the map counters: it lives in the VM's own donated memory.
pub struct Stage2 {
    pub(crate) root: Root,
    pub(crate) config: Config,
    pub(crate) contract: Contract,
    pub(crate) batches: Batches,
    pub(crate) epoch: Epoch,
    pub(crate) parked: Parked,
    pub(crate) orphans: Orphans,
    pub(crate) limbo: Limbo,
    pub(crate) search: Search,
}

impl Stage2 {
    /// Makes the stage 2 of a new VM from a zeroed root.
    pub fn new(root: Root, config: Config) -> Self {
        Self {
            root,
            config,
            contract: Contract::new(),
            batches: Batches::new(),
            epoch: Epoch::new(),
            parked: Parked::new(),
            orphans: Orphans::new(),
            limbo: Limbo::new(),
            search: Search::new(),
        }
    }

    /// Returns the dirty bits that have lost their pages: for harvest to report.
    pub const fn orphans(&self) -> &Orphans {
        &self.orphans
    }

    /// Returns the root, for VTTBR_EL2 and VTCR_EL2.
    pub const fn root(&self) -> Root {
        self.root
    }

    /// Returns the sequence number for an exit: before the host looks at its own page tables.
    pub fn sequence(&self) -> u64 {
        self.contract.sample()
    }

    /// Checks a range that a call names: aligned, not empty, inside the IPA space, no overflow.
    pub fn range(&self, ipa: Ipa, page_count: u64) -> Result<Range, Error> {
        let bytes = page_count.checked_mul(PAGE_SIZE).ok_or(Error::Invalid)?;
        let fits = self.root.geometry().contains(ipa, bytes);
        if page_count == 0 || !fits || !ipa.is_aligned(PAGE_SIZE) {
            return Err(Error::Invalid);
        }
        Ok(Range::new(ipa, page_count))
    }

    /// Returns the leaf that translates an address at this moment, and its level.
    pub fn leaf<M: TableMemory>(&self, memory: &M, ipa: Ipa) -> Option<(Descriptor, Level)> {
        if !self.root.geometry().contains(ipa, 1) {
            return None;
        }
        let at = walk::find_surely(memory, self.root, ipa);
        at.old.leaf_address(at.level).map(|_| (at.old, at.level))
    }

    /// Gives back retired tables that no CPU can hold any more; tells whether none is left.
    ///
    /// Every call that needs it does so by itself. To end a VM: unmap all of it, then call this, from
    /// one stay in EL2 after the other, until it says so.
    pub fn reap<E: Env>(&self, env: &E) -> bool {
        self.limbo.reap(env) && self.parked.is_empty()
    }

    /// Invalidates all that any TLB holds for the VM, and takes note of what that proves.
    pub fn flush_all<E: Env>(&self, env: &E) {
        let early = self.epoch.before_flush();
        if weakened(Weakness::FlushNotAwaited) {
            self.epoch.flushed(early);
        }
        count_issued(env, flush::vmid(env, &self.config));
        let late = weakened(Weakness::ProofReadLate).then(|| self.epoch.before_flush());
        self.epoch.flushed(late.unwrap_or(early));
    }

    /// Invalidates spans whose entries the batch took away; complete when it returns.
    pub(crate) fn flush<E: Env>(
        &self,
        env: &E,
        own: &Counted<'_>,
        spans: impl Iterator<Item = Span> + Clone,
    ) {
        self.flush_spans(env, spans, || self.batches.others_under_way(own));
    }

    /// Invalidates spans of which the caller took nothing away itself; complete when it returns.
    pub(crate) fn flush_again<E: Env>(&self, env: &E, spans: impl Iterator<Item = Span> + Clone) {
        self.flush_spans(env, spans, || self.batches.under_way());
    }

    /// Invalidates spans.
    ///
    /// While a block gives way to a table without a break, the parts of the table are there and TLBs
    /// still hold the block. So no level is named as long as another batch may be such a split.
    fn flush_spans<E: Env>(
        &self,
        env: &E,
        spans: impl Iterator<Item = Span> + Clone,
        meets_others: impl Fn() -> bool,
    ) {
        let proof = self.epoch.before_flush();
        let ttl = self.config.ttl && !(self.config.bbm2 && meets_others());
        let issued = flush::spans(env, &Config { ttl, ..self.config }, spans);
        count_issued(env, issued);
        if issued.vmid != 0 {
            self.epoch.flushed(proof);
        }
    }

    /// Invalidates a range that held entries which another CPU is still invalidating, if so.
    pub(crate) fn finish_others<E: Env>(&self, env: &E, range: Range) {
        if self.batches.under_way() {
            self.flush_again(env, core::iter::once(Span::range(range)));
        }
    }

    /// Returns how many leaves of a level one batch may make or take away.
    ///
    /// Without forced write-back each is cleaned from the caches, line by line: 2 MiB at a time.
    pub(crate) fn batch_leaves(&self, level: Level) -> u64 {
        if level == Level::L3 || self.config.fwb { BATCH } else { 1 }
    }

    /// Tells whether leaves of a level may be made: [`Error::Invalid`] where the tree can't have any,
    /// [`Error::NotSupported`] where one would be too much to clean from the caches in one batch.
    pub(crate) fn check_level(&self, level: Level) -> Result<(), Error> {
        if !self.root.geometry().has_leaves_at(level) {
            return Err(Error::Invalid);
        }
        if level < Level::L2 && !self.config.fwb { Err(Error::NotSupported) } else { Ok(()) }
    }

    /// Makes the leaf of some attributes, as this VM's CPUs read them.
    pub(crate) fn leaf_of(&self, attributes: Attributes, pa: Pa, level: Level) -> Descriptor {
        attributes.leaf(pa, level, self.config.fwb, self.config.hd)
    }

    /// Takes a table page from the VM's pool, after a look into limbo if that is empty.
    pub(crate) fn alloc<E: Env>(&self, env: &E) -> Option<TablePage> {
        env.alloc().or_else(|| {
            self.limbo.reap(env);
            env.alloc()
        })
    }
}

/// Makes permissions that were added hold for the walkers, and on this CPU at once.
#[inline]
pub(crate) fn flush_relaxed<E: Env>(env: &E, ipas: impl Iterator<Item = Ipa>) {
    count_issued(env, flush::relaxed(env, ipas));
}

/// Turns the contract's verdict into the answer to the host, and counts what was refused in vain.
pub(crate) fn permit<C: Counters>(counters: &C, verdict: Verdict) -> Result<(), Error> {
    counters.count(Stat::FalseRetries, u64::from(verdict == Verdict::Forgotten));
    if verdict == Verdict::Clear { Ok(()) } else { Err(Error::Retry) }
}

/// Counts a call that was refused with [`Error::Retry`], for whatever reason.
pub(crate) fn count_retry<C: Counters>(counters: &C, error: Option<Error>) {
    counters.count(Stat::Retries, u64::from(error == Some(Error::Retry)));
}

#[inline]
fn count_issued<C: Counters>(counters: &C, issued: Issued) {
    let kinds = [
        (Stat::TlbiIpa, issued.ipa),
        (Stat::TlbiRange, issued.range),
        (Stat::TlbiStage1, issued.stage1),
        (Stat::TlbiVmid, issued.vmid),
        (Stat::TlbiLocal, issued.local),
    ];
    for (stat, amount) in kinds.into_iter().filter(|&(_, amount)| amount != 0) {
        counters.count(stat, amount);
    }
}
