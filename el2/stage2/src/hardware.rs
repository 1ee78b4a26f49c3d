//! What the engine asks of the CPU and of the firmware around it, as traits.
//!
//! The words of [`Tlb`] are those of the architecture, one method an instruction (or a fixed local
//! sequence), because the order of them *is* the engine's work: a fake that records the calls shows it.
//! [`Env`] is all that a call on a VM needs: the firmware makes one for each call, with the VM's pool,
//! its VMID, and the calling CPU.

use crate::descriptor::{Descriptor, Level};
use crate::memory::{PageSource, TableMemory};
use verdigris_abi::{Error, Ipa, Pa, Stat};

/// TLB invalidation for the VM whose table is changed, and the barriers around it.
///
/// `ipa`, `range`, `stage1`, `vmid` and `local` act on the VMID in VTTBR_EL2, so they stand between
/// [`Tlb::enter`] and [`Tlb::leave`].
pub trait Tlb {
    /// Loads the VM's VTTBR_EL2 and VTCR_EL2, with barriers and against speculative walks.
    ///
    /// The VMID is read *here*, after the caller's `dsb ish`: a VM that got a new VMID meanwhile
    /// either walked the changed entry, or is invalidated under the new one. Where the VM's own context
    /// is in force already, there is nothing to do.
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

    /// `tlbi ipas2e1; dsb nsh; tlbi vmalle1; dsb nsh; isb` on this CPU alone: what a permission fault
    /// on a leaf that allows the access needs.
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

/// Cache maintenance, over memory of a VM named by physical address.
pub trait Cache {
    /// Cleans to the point of coherency. Complete when it returns.
    fn clean(&self, pa: Pa, bytes: u64);

    /// Cleans and invalidates to the point of coherency. Complete when it returns.
    fn clean_invalidate(&self, pa: Pa, bytes: u64);

    /// `ic ialluis; dsb ish`, for a page that is about to be mapped executable.
    fn invalidate_instructions(&self);
}

/// The CPUs, as far as protocols between them go.
pub trait Cpus {
    /// Returns the number of the calling CPU, below [`Cpus::cpu_count`].
    fn this_cpu(&self) -> usize;

    /// Returns how many CPUs there are, off or on: at most `MAX_CPUS`.
    fn cpu_count(&self) -> usize;

    /// Reads, by load-acquire, a CPU's in-EL2 counter: odd while it is inside.
    ///
    /// A CPU stores the odd value and then `dmb ish` before it reads any table, and is outside, even,
    /// before ERET and before every SMC that can block. No reference into a table outlives its stay.
    fn presence(&self, cpu: usize) -> u64;

    /// Tells whether an interrupt is pending on this CPU (ISR_EL1).
    fn interrupt_pending(&self) -> bool;
}

/// A leaf that was taken out of a table; no TLB holds it any more when this is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The first address that it translated.
    pub ipa: Ipa,
    /// The memory that it mapped.
    pub pa: Pa,
    /// Its level, and so its size.
    pub level: Level,
    /// The descriptor as it was taken: with its last access flag and dirty state.
    pub old: Descriptor,
}

/// Who may map what: the shares that a VM's leaves hold in pages of the host.
pub trait Shares {
    /// What helps from one leaf that is gone to the next.
    type Batch;

    /// Takes a share in memory that is about to be mapped, of the size of a leaf at that level.
    ///
    /// [`Error::NotOwner`] if it isn't the host's to share, [`Error::Limit`] if the count is full.
    fn acquire(&self, pa: Pa, level: Level) -> Result<(), Error>;

    /// Gives a share back.
    fn release(&self, pa: Pa, level: Level);

    /// Begins a batch of leaves of one level that are gone.
    fn batch(&self, level: Level) -> Self::Batch;

    /// Takes note of a leaf of the batch, and gives its share back.
    fn removed(&self, batch: &mut Self::Batch, leaf: &Removed);
}

/// Statistics of the VM.
pub trait Counters {
    /// Adds to a counter.
    fn count(&self, stat: Stat, amount: u64);
}

/// Everything that a call on a VM needs.
pub trait Env: TableMemory + PageSource + Tlb + Cache + Cpus + Shares + Counters {}

impl<T: TableMemory + PageSource + Tlb + Cache + Cpus + Shares + Counters> Env for T {}
