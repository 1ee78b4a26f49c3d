//! The judge: was each invalidation needed, by the rules of docs/stage2.md?
//!
//! That enough was invalidated shows in the TLBs. Here the question is whether it was too much: an
//! invalidation by IPA has to lie within what an operation took away, changed or unlinked, and where the flush
//! epoch proves that no TLB holds the leaf, nothing is left to invalidate.

use super::World;
use crate::tlb::Invalidation;
use crate::walker::pages;
use verdigris_stage2::Removed;

/// Whether a leaf with AF=0 is in no TLB: nothing was aged since the last invalidation of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is not.
    Yes,
    /// It may be.
    No,
    /// Another CPU aged in the middle of a call.
    Unknown,
}

/// The most invalidations by IPA before one of the whole VMID costs less.
pub const MAX_TARGETED: u64 = 64;

/// Runs that an operation remembers.
pub const RUNS: u64 = 64;

/// What an operation may invalidate.
#[derive(Default)]
pub struct Warrant {
    /// Pages, each run as it may be named.
    pub spans: Vec<(u64, u64)>,
    /// Everything, once or more.
    pub all: bool,
    /// Pages on the calling CPU alone.
    pub local: Vec<u64>,
    /// The operation remembers what it changed, up to [`RUNS`] runs, and invalidates at its end.
    pub is_gathered: bool,
    /// Leaves that it remembers too, and that turn out to be in no TLB.
    pub proven: u64,
}

impl Warrant {
    /// A warrant for nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds the pages of a leaf.
    pub fn leaf(&mut self, first: u64, level: u32) {
        self.spans.push((first, first + pages(level)));
    }
}

impl World {
    /// Adds to a warrant leaves that were taken away, as they were reported.
    pub(super) fn warrant_removed(&self, warrant: &mut Warrant, removed: &[Removed]) {
        for leaf in removed {
            let young = leaf.old.raw() & crate::walker::bits::AF != 0;
            self.warrant_change(warrant, leaf.ipa.0 / 4096, leaf.level as u32, Some(young));
        }
    }

    /// Adds a leaf that lost something, and had its access flag set or not, or nobody knows.
    pub(super) fn warrant_change(
        &self,
        warrant: &mut Warrant,
        first: u64,
        level: u32,
        young: Option<bool>,
    ) {
        let proven = self.proof == Proof::Yes && !self.machine.record.borrow().aged;
        let skips = self.machine.settings.config.skip;
        if young != Some(false) || !skips || !proven {
            warrant.leaf(first, level);
        } else {
            warrant.proven += 1;
        }
        // An old leaf without proof is a reason to renew it.
        warrant.all |= skips && young != Some(true) && !proven;
    }

    /// Checks what an operation invalidated against its warrant, and keeps the proof.
    pub(super) fn judge(&mut self, mut warrant: Warrant) {
        let record = self.machine.record.borrow();
        if record.invalidations.is_empty() && record.local.is_empty() {
            return;
        }
        let leaves = warrant.spans.len() as u64;
        merge(&mut warrant.spans);
        let ranges = self.machine.settings.config.tlb_range;
        let most = if ranges { warrant.spans.len() as u64 } else { leaves };
        warrant.all |= most > MAX_TARGETED || warrant.is_gathered && leaves + warrant.proven > RUNS;
        // Without FEAT_TLBIRANGE a table that is given back for want of a page costs everything.
        warrant.all |= record.out_of_pages;
        let mut targeted_batch = 0;
        for &(batch, what) in &record.invalidations {
            match what {
                Invalidation::Pages { start, end, .. } => {
                    let within = |span: &(u64, u64)| span.0 <= start && end <= span.1;
                    let warranted = warrant.spans.iter().any(within) || self.was_empty(start, end);
                    assert!(warranted, "needless: {what:x?}, of {:x?}", warrant.spans);
                    targeted_batch = batch;
                }
                Invalidation::Stage1 => {
                    assert_eq!(targeted_batch, batch, "needless: {what:?} after nothing by IPA");
                }
                Invalidation::Vmid => assert!(warrant.all, "needless: {what:?}"),
            }
        }
        for page in &record.local {
            assert!(warrant.local.contains(page), "needless: local {page:x}");
        }
        if record.invalidations.iter().any(|(_, what)| *what == Invalidation::Vmid) {
            self.proof = if record.aged { Proof::Unknown } else { Proof::Yes };
        }
    }

    /// Tells whether that may have been an empty table, given back for want of a page.
    fn was_empty(&self, start: u64, end: u64) -> bool {
        let is_span = end - start >= 512 && start.is_multiple_of(512);
        let out_of_pages = self.machine.record.borrow().out_of_pages;
        out_of_pages && is_span && self.space.overlapping(start, end).next().is_none()
    }

    /// Counts the invalidations of everything in this operation.
    pub(super) fn whole_invalidations(&self) -> usize {
        let record = self.machine.record.borrow();
        record.invalidations.iter().filter(|(_, what)| *what == Invalidation::Vmid).count()
    }
}

/// Sorts runs and joins those that touch.
fn merge(spans: &mut Vec<(u64, u64)>) {
    spans.sort_unstable();
    spans.dedup_by(|next, last| {
        let joins = next.0 <= last.1;
        if joins {
            last.1 = last.1.max(next.1);
        }
        joins
    });
}
