//! What was found out about the machine at boot, and what was chosen.
//!
//! The selection is made from the boot CPU and the command line, and never changes: tables and
//! invalidations follow it from then on. CPUs that come later are measured against it; one that has
//! less, or one more of the errata that all have to answer, can't run beside the others.

use core::fmt;

use spin::Once;
use verdigris_core::cpu::{
    Controls, CpuSelection, Errata, Fixed, IdRegisters, Mismatch, Selection, vtcr,
};
use verdigris_core::exception::PstateFeatures;
use verdigris_core::options::Options;
use verdigris_stage2::flush;

use super::controls::Prepared;
use super::profiling::Stopped;
use super::switch::Parts;
use super::{boot, cache};

static SELECTION: Once<Selection> = Once::new();
/// What follows from the ID registers of one CPU.
pub struct Cpu {
    /// The raw registers.
    pub id: IdRegisters,
    /// What this CPU does of what it may do for itself.
    pub selection: CpuSelection,
    /// Control registers while the host runs.
    pub host: Controls,
    /// Control registers while a guest runs.
    pub guest: Controls,
    /// Registers written once.
    pub fixed: Fixed,
    /// What the world switch does here.
    pub parts: Parts,
    /// The control registers that a switch to the host writes.
    pub to_host: Prepared,
    /// The control registers that a switch to a guest writes.
    pub to_guest: Prepared,
    /// Its own bits of VTCR_EL2 while a guest runs.
    pub vtcr: u64,
}

impl Cpu {
    /// Stops the host's records on this CPU.
    pub fn stop_records(&self) -> Stopped {
        Stopped::begin(&self.id, &self.fixed, &self.selection.errata)
    }
}

/// Chooses from what the boot CPU has and what the command line allows.
pub fn init(id: &IdRegisters, options: &Options) -> Result<(), Mismatch> {
    let selection = Selection::new(id, options.mask)?.reserving_counter(options.reserve_counter);
    SELECTION.call_once(|| selection);
    Ok(())
}

/// Returns the selection.
pub fn selection() -> &'static Selection {
    SELECTION.get().expect("features are selected before they are asked for")
}

/// Why a CPU can't run beside the others.
pub enum Refusal {
    /// It has less than was chosen.
    Less(Mismatch),
    /// It has errata that were not reckoned with.
    Errata(Errata),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Less(mismatch) => mismatch.fmt(f),
            Self::Errata(errata) => write!(f, "errata that the boot CPU has not: {errata}"),
        }
    }
}

/// Lets a CPU in, or says why it can't run beside the others.
pub fn admit(id: IdRegisters) -> Result<Cpu, Refusal> {
    let chosen = selection();
    let selection = chosen.admit(&id).map_err(Refusal::Less)?;
    let shared = selection.errata.of_all();
    if chosen.errata.union(shared) != chosen.errata {
        return Err(Refusal::Errata(shared));
    }
    cache::reckon_with(&id);
    let (host, guest) = (Controls::host(&id, chosen), Controls::guest(&id, chosen));
    let fixed = Fixed::new(&id);
    Ok(Cpu {
        parts: Parts::of(&id, &fixed, &selection),
        to_host: Prepared::differing(&host, boot::host_vectors_address(&id), &guest)
            .with_errata(&selection.errata),
        to_guest: Prepared::differing(&guest, boot::guest_vectors_address(&id), &host)
            .with_errata(&selection.errata),
        vtcr: vtcr::updates(&selection),
        selection,
        host,
        guest,
        fixed,
        id,
    })
}

/// Returns what the engine depends on.
pub fn flush_config() -> flush::Config {
    let used = &selection().used;
    flush::Config {
        fwb: used.forced_write_back,
        tlb_range: used.tlb_range,
        ttl: used.ttl,
        repeat: selection().errata.repeat_tlbi,
        // The bit in CTR_EL0 lies on parts with an erratum (Neoverse N1, 1542419).
        dic: false,
        hd: used.hardware_dirty,
        bbm2: used.bbm_level == 2,
        skip: used.flush_epoch,
    }
}

/// Returns what an exception given to a guest makes of its PSTATE: guests have no memory tagging.
pub fn guest_pstate_features(id: &IdRegisters) -> PstateFeatures {
    PstateFeatures { mte: false, nmi: false, ebep: false, ..pstate_features(id) }
}

/// Returns what an exception given to the host makes of its PSTATE on a CPU.
pub fn pstate_features(id: &IdRegisters) -> PstateFeatures {
    PstateFeatures {
        pan: id.mmfr1 >> 20 & 0xf != 0, // ID_AA64MMFR1_EL1.PAN
        ssbs: id.has_ssbs(),
        mte: id.has_mte2(),
        nmi: id.has_nmi(),
        ebep: id.has_ebep(),
        exlock: false,
    }
}

/// Returns how many bits a physical address has that every CPU handles (PARange, Arm ARM D24.2).
pub fn pa_bits() -> u32 {
    match selection().pa_range {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}
