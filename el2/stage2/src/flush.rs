//! Invalidation: the one place where the order of stores, barriers and TLB instructions is written.
//!
//! The recipe for a batch of stores that took something away (Arm ARM DDI 0487, D8.16):
//! `dsb ish`; one invalidation by IPA each; `dsb ish`; one `vmalle1is`, because the TLB may hold
//! combined stage-1+2 entries that are tagged by VA alone; `dsb ish`; once more by erratum; `isb`.
//!
//! The first barrier orders the stores before the walker's next look, for which `dsb ishst` would do;
//! but after it the VMID is *read* ([`Tlb::enter`]), and only `dsb ish` orders a load after them.

use crate::descriptor::Level;
use crate::hardware::Tlb;
use crate::range::Range;
use crate::sync::{Weakness, weakened};
use verdigris_abi::{Ipa, PAGE_SIZE};

/// What of the CPUs' features and errata the engine depends on; the same on all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// HCR_EL2.FWB is set (FEAT_S2FWB).
    pub fwb: bool,
    /// FEAT_TLBIRANGE.
    pub tlb_range: bool,
    /// FEAT_TTL: a level hint is understood. Without it none is given.
    pub ttl: bool,
    /// Broadcast invalidations need repeating (erratum).
    pub repeat: bool,
    /// CTR_EL0.DIC: instruction caches need no invalidation.
    pub dic: bool,
    /// VTCR_EL2.HD is set: the walker keeps dirty state in leaves with DBM (FEAT_HAFDBS).
    pub hd: bool,
    /// A block may give way to a table of the same translations without a break (FEAT_BBM level 2).
    pub bbm2: bool,
    /// The flush epoch may leave invalidations out: no part updates entries that are invalid already.
    pub skip: bool,
}

/// A run of pages to invalidate, all translated at one level if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first page.
    pub start: Ipa,
    /// How many pages.
    pub page_count: u64,
    /// The level of the leaves; `None` where a table was unlinked or levels differ.
    pub level: Option<Level>,
}

impl Span {
    /// Makes the span of one leaf.
    pub const fn leaf(ipa: Ipa, level: Level) -> Self {
        let start = ipa.align_down(level.bytes());
        Self { start, page_count: level.pages(), level: Some(level) }
    }

    /// Makes a span of pages that anything may have translated: the level is left unknown.
    pub const fn range(range: Range) -> Self {
        Self { start: range.ipa(), page_count: range.page_count(), level: None }
    }

    /// Returns the pages that one invalidation by IPA covers.
    const fn step(self) -> u64 {
        match self.level {
            Some(level) => level.pages(),
            None => 1,
        }
    }

    /// Tells how many instructions the targeted form takes.
    const fn cost(self, config: &Config) -> u64 {
        if self.ranged(config) { 1 } else { self.page_count.div_ceil(self.step()) }
    }

    /// Tells whether the range form is the one to use: for more than one leaf, and at most the reach
    /// of one operand (Arm ARM, RIPAS2E1IS: 32 times 2^16 pages).
    const fn ranged(self, config: &Config) -> bool {
        config.tlb_range && self.page_count > self.step() && self.page_count <= 1 << 21
    }

    /// Issues the invalidations, without barriers.
    fn issue<T: Tlb>(self, tlb: &T, config: &Config, issued: &mut Issued) {
        let hint = self.level.filter(|_| config.ttl);
        if self.ranged(config) {
            issued.range += 1;
            return tlb.range(self.start, self.page_count, hint);
        }
        for page in (0..self.page_count).step_by(self.step() as usize) {
            issued.ipa += 1;
            tlb.ipa(Ipa(self.start.0 + page * PAGE_SIZE), hint);
        }
    }
}

/// How many invalidations of each kind were issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Issued {
    /// By IPA.
    pub ipa: u64,
    /// By range of IPAs.
    pub range: u64,
    /// Of all of stage 1.
    pub stage1: u64,
    /// Of the whole VMID.
    pub vmid: u64,
    /// By IPA, on this CPU alone.
    pub local: u64,
}

/// Most invalidations by IPA or range in one batch; beyond it the whole VMID costs less.
pub const MAX_TARGETED: u64 = 64;

/// Invalidates spans on all CPUs and returns when that is complete.
///
/// The caller's stores came before; nothing that they took away is in any TLB afterwards.
pub fn spans<T: Tlb>(
    tlb: &T,
    config: &Config,
    spans: impl Iterator<Item = Span> + Clone,
) -> Issued {
    let cost: u64 = spans.clone().map(|span| span.cost(config)).sum();
    if cost > MAX_TARGETED {
        return vmid(tlb, config);
    }
    let mut issued = Issued { stage1: 1, ..Issued::default() };
    tlb.dsb_ish();
    tlb.enter();
    spans.for_each(|span| span.issue(tlb, config, &mut issued));
    tlb.dsb_ish();
    if !weakened(Weakness::CombinedStay) {
        tlb.stage1();
    }
    close(tlb, config);
    issued
}

/// Invalidates everything of the VMID on all CPUs and returns when that is complete.
pub fn vmid<T: Tlb>(tlb: &T, config: &Config) -> Issued {
    tlb.dsb_ish();
    tlb.enter();
    tlb.vmid();
    close(tlb, config);
    Issued { vmid: 1, ..Issued::default() }
}

/// Completes what was issued since `enter`.
fn close<T: Tlb>(tlb: &T, config: &Config) {
    tlb.dsb_ish();
    if config.repeat && !weakened(Weakness::NoRepeat) {
        tlb.repeat();
    }
    tlb.isb();
    tlb.leave();
}

/// Makes entries that were invalid visible to the walkers: nothing to invalidate.
pub fn publish<T: Tlb>(tlb: &T) {
    tlb.dsb_ishst();
    tlb.isb();
}

/// Makes leaves that gained a permission visible, and rids this CPU's TLB of what denies it.
///
/// In the VM's context: the host's may be in force. The VMID is read without a `dsb ish` before it: this
/// CPU walks for the VM under no VMID meanwhile, so one that the VM gets just now has nothing here.
#[inline]
pub fn relaxed<T: Tlb>(tlb: &T, ipas: impl Iterator<Item = Ipa>) -> Issued {
    publish(tlb);
    let mut issued = Issued::default();
    tlb.enter();
    for ipa in ipas.filter(|_| !weakened(Weakness::RelaxUnflushed)) {
        issued.local += 1;
        tlb.local(ipa);
    }
    tlb.leave();
    issued
}
