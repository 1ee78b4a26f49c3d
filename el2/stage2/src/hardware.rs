//! What the engine asks of the CPU, as traits: TLB invalidation.
//!
//! The words are those of the architecture, one method an instruction (or a fixed local sequence),
//! because the order of them *is* the engine's work: a fake that records the calls shows it.

use crate::descriptor::Level;
use verdigris_abi::Ipa;

/// TLB invalidation for the VM whose table is changed, and the barriers around it.
///
/// `ipa`, `range`, `stage1` and `vmid` act on the VMID in VTTBR_EL2, so they stand between
/// [`Tlb::enter`] and [`Tlb::leave`].
pub trait Tlb {
    /// Loads the VM's VTTBR_EL2 and VTCR_EL2, with barriers and against speculative walks.
    ///
    /// The VMID is read *here*, after the caller's `dsb ish`: a VM that got a new VMID meanwhile
    /// either walked the changed entry, or is invalidated under the new one.
    fn enter(&self);

    /// Loads what was there before [`Tlb::enter`].
    fn leave(&self);

    /// `tlbi ipas2e1is`: one IPA on all CPUs; `level` is the level of the leaf, `None` if unknown
    /// (tables were involved: walk caches too).
    fn ipa(&self, ipa: Ipa, level: Option<Level>);

    /// `tlbi ripas2e1is`: `page_count` pages from `ipa` on. Only called where FEAT_TLBIRANGE is.
    fn range(&self, ipa: Ipa, page_count: u64, level: Option<Level>);

    /// `tlbi vmalle1is`: all stage-1 and combined entries of the VMID, which are tagged by VA.
    fn stage1(&self);

    /// `tlbi vmalls12e1is`: everything of the VMID.
    fn vmid(&self);

    /// `tlbi ipas2e1; dsb nsh; tlbi vmalle1; dsb nsh; isb` on this CPU alone, in the VM's context:
    /// what a permission fault on a leaf that allows the access needs.
    fn local(&self, ipa: Ipa);

    /// `dsb ishst`.
    fn dsb_ishst(&self);

    /// `dsb ish`.
    fn dsb_ish(&self);

    /// One more broadcast invalidation and `dsb ish`, for parts that need it twice.
    /// Only called where the configuration says so.
    fn repeat(&self);

    /// `isb`.
    fn isb(&self);
}
