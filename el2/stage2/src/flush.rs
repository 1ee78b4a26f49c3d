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
use verdigris_abi::{Ipa, PAGE_SIZE};

/// What of the CPUs' features and errata invalidation depends on; the same on all CPUs.
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
    /// The walker sets the access flag (VTCR_EL2.HA).
    pub hw_access_flag: bool,
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

    /// Makes the span of an entry of whatever kind, tables included: the level is left unknown.
    pub const fn whole(ipa: Ipa, level: Level) -> Self {
        Self { level: None, ..Self::leaf(ipa, level) }
    }
}

/// Most invalidations by IPA in one batch; beyond it the whole VMID costs less.
pub const MAX_TARGETED: u64 = 64;

/// Tells how many instructions the targeted form takes for a span.
fn cost(config: &Config, span: Span) -> u64 {
    let step = span.level.map_or(1, |level| level.pages());
    if config.tlb_range { 1 } else { span.page_count.div_ceil(step) }
}

/// Invalidates one span on all CPUs and returns when that is complete.
///
/// The caller's stores came before; no entry of the span is in any TLB afterwards.
pub fn span<T: Tlb>(tlb: &T, config: &Config, span: Span) {
    tlb.dsb_ish();
    tlb.enter();
    if cost(config, span) > MAX_TARGETED {
        tlb.vmid();
    } else {
        targeted(tlb, config, span);
        tlb.dsb_ish();
        tlb.stage1();
    }
    close(tlb, config);
}

/// Issues the invalidations by IPA for a span, without barriers.
fn targeted<T: Tlb>(tlb: &T, config: &Config, span: Span) {
    let hint = span.level.filter(|_| config.ttl);
    if config.tlb_range && span.page_count > 1 {
        return tlb.range(span.start, span.page_count, hint);
    }
    let step = span.level.map_or(1, |level| level.pages());
    for page in (0..span.page_count).step_by(step as usize) {
        tlb.ipa(Ipa(span.start.0 + page * PAGE_SIZE), hint);
    }
}

/// Completes what was issued since `enter`.
fn close<T: Tlb>(tlb: &T, config: &Config) {
    tlb.dsb_ish();
    if config.repeat {
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
