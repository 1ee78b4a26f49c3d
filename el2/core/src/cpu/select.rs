//! What is used on this machine, chosen from the boot CPU, and who may join it.
//!
//! The invariant: **what stage 2 relies on, every CPU that runs has.** Invalidations are broadcast and
//! tables are shared, so a CPU that lacks what was chosen can't be allowed in: it is refused when the
//! host switches it on, with the reason. Hardware access flags and dirty state are the exception, because
//! the architecture gates them on each CPU: one without them takes a fault and does the same by software.

use super::granularity::never_conflicts;
use super::{Errata, Features, IdRegisters, Midr};
use core::fmt;
use verdigris_abi::flags;

/// What all CPUs of this machine have in common, as far as the firmware relies on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// What the boot CPU has.
    pub found: Features,
    /// What the command line allows.
    pub mask: Features,
    /// What is used: the common part of both, less what errata forbid on the boot CPU, and level 2 of
    /// FEAT_BBM where it may end in an abort.
    pub used: Features,
    /// The errata of all CPUs seen so far.
    pub errata: Errata,
    /// The field PARange of the boot CPU, capped at 48 bits: no CPU may have less.
    pub pa_range: u64,
    /// How many event counters are kept from the host for EL2's own use.
    pub reserved_counters: u64,
}

/// What the architecture lets each CPU decide for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSelection {
    /// This CPU's walker sets access flags in stage 2 of guests.
    pub hardware_access_flag: bool,
    /// This CPU's walker keeps dirty state in stage 2 of guests.
    pub hardware_dirty: bool,
    /// The errata of this CPU alone.
    pub errata: Errata,
}

/// Why a CPU can't run under this firmware, or not beside the CPUs that run already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// HCR_EL2.E2H can't be 0 there.
    OnlyE2h,
    /// There is no EL2 in AArch64.
    NoEl2,
    /// Tables of 4 KiB pages don't work there.
    NoSmallPages,
    /// Its physical addresses are narrower than the boot CPU's.
    NarrowAddresses,
    /// Its VMIDs are narrower than those in use.
    NarrowVmids,
    /// It lacks FEAT_S2FWB, which is in use.
    NoForcedWriteBack,
    /// It lacks FEAT_TLBIRANGE, which is in use.
    NoTlbRange,
    /// It lacks FEAT_TTL, which is in use.
    NoTtl,
    /// Its level of FEAT_BBM is lower than the one in use.
    LowerBbm,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyE2h => "HCR_EL2.E2H can't be cleared",
            Self::NoEl2 => "no EL2 in AArch64",
            Self::NoSmallPages => "no 4 KiB pages",
            Self::NarrowAddresses => "physical addresses narrower than the boot CPU's",
            Self::NarrowVmids => "VMIDs narrower than in use (try vmid=8)",
            Self::NoForcedWriteBack => "no FEAT_S2FWB, which is in use (try fwb=off)",
            Self::NoTlbRange => "no FEAT_TLBIRANGE, which is in use (try tlbirange=off)",
            Self::NoTtl => "no FEAT_TTL, which is in use (try ttl=off)",
            Self::LowerBbm => "a lower level of FEAT_BBM than in use (try bbm=0)",
        })
    }
}

impl Selection {
    /// Chooses from what the boot CPU has and what the mask allows.
    pub const fn new(boot: &IdRegisters, mask: Features) -> Result<Self, Mismatch> {
        if let Err(reason) = can_run(boot) {
            return Err(reason);
        }
        let found = Features::found(boot);
        let errata = Errata::of_machine(boot.midr);
        Ok(Self {
            found,
            mask,
            used: found.common(mask).common(allowed(boot.midr)),
            errata,
            pa_range: boot.pa_range(),
            reserved_counters: 0,
        })
    }

    /// Keeps one event counter from the host, for EL2 to count its own instructions with.
    pub const fn reserving_counter(mut self, reserve: bool) -> Self {
        self.reserved_counters = if reserve { 1 } else { 0 };
        self
    }

    /// Lets a CPU in, or says what it lacks. The boot CPU is let in by its own choice.
    pub const fn admit(&self, this: &IdRegisters) -> Result<CpuSelection, Mismatch> {
        if let Err(reason) = can_run(this) {
            return Err(reason);
        }
        if let Err(reason) = self.agrees(this) {
            return Err(reason);
        }
        let errata = Errata::of(this.midr);
        let own = Features::found(this).common(self.mask).common(allowed(this.midr));
        Ok(CpuSelection {
            hardware_access_flag: own.hardware_access_flag,
            hardware_dirty: own.hardware_dirty,
            errata,
        })
    }

    /// Takes the errata of a CPU that was let in into account for the whole machine.
    pub const fn with_errata(mut self, errata: Errata) -> Self {
        self.errata = self.errata.union(errata);
        self
    }

    /// Returns the feature bits that the hypercall FEATURES answers on a CPU.
    pub const fn feature_flags(&self, cpu: &CpuSelection) -> u64 {
        flag(cpu.hardware_access_flag, flags::FEATURE_HW_ACCESS_FLAG)
            | flag(self.used.ttl, flags::FEATURE_TTL)
            | flag(self.used.tlb_range, flags::FEATURE_TLB_RANGE)
            | flag(self.used.forced_write_back, flags::FEATURE_FORCED_WRITE_BACK)
            | flag(self.used.vmid_bits == 16, flags::FEATURE_VMID16)
            | flag(self.errata.repeat_tlbi, flags::FEATURE_REPEAT_TLBI)
            | flag(self.used.hardware_dirty && cpu.hardware_dirty, flags::FEATURE_HW_DIRTY)
            | flag(self.used.bbm_level == 2, flags::FEATURE_BBM2)
            | flag(self.used.flush_epoch, flags::FEATURE_FLUSH_EPOCH)
    }

    const fn agrees(&self, this: &IdRegisters) -> Result<(), Mismatch> {
        let has = Features::found(this).common(allowed(this.midr));
        if this.pa_range() < self.pa_range {
            Err(Mismatch::NarrowAddresses)
        } else if has.vmid_bits < self.used.vmid_bits {
            Err(Mismatch::NarrowVmids)
        } else if self.used.forced_write_back && !has.forced_write_back {
            Err(Mismatch::NoForcedWriteBack)
        } else if self.used.tlb_range && !has.tlb_range {
            Err(Mismatch::NoTlbRange)
        } else if self.used.ttl && !has.ttl {
            Err(Mismatch::NoTtl)
        } else if has.bbm_level < self.used.bbm_level {
            Err(Mismatch::LowerBbm)
        } else {
            Ok(())
        }
    }
}

/// Tells whether the firmware can run on a CPU at all.
const fn can_run(id: &IdRegisters) -> Result<(), Mismatch> {
    if !id.has_el2() {
        Err(Mismatch::NoEl2)
    } else if !id.allows_e2h_clear() {
        Err(Mismatch::OnlyE2h)
    } else if !id.has_4k_stage1() || !id.has_4k_stage2() {
        Err(Mismatch::NoSmallPages)
    } else {
        Ok(())
    }
}

/// Returns the mask that a part amounts to, by its errata and by how its TLB takes blocks that change.
const fn allowed(midr: u64) -> Features {
    let errata = Errata::of(midr);
    Features {
        bbm_level: if never_conflicts(Midr::new(midr)) { 2 } else { 1 },
        hardware_access_flag: !errata.no_hardware_access_flag,
        hardware_dirty: !errata.no_hardware_dirty,
        // The epoch takes an entry that was exchanged for an invalid one to stay so.
        flush_epoch: !errata.no_hardware_access_flag,
        ..Features::ALL
    }
}

const fn flag(condition: bool, bit: u64) -> u64 {
    if condition { bit } else { 0 }
}
