//! Which errata of stage 2 a CPU has, from its MIDR_EL1.
//!
//! Where two answers are possible the slower one is given: a part that is not known to be free of the
//! invalidation erratum is taken to have it, because the cost is one more `TLBI` and `DSB` a batch and
//! the alternative is memory that a guest can still reach.

use super::midr::{AMPERE, ARM, Midr};
use core::fmt;

/// The errata that change what the firmware does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errata {
    /// A broadcast invalidation may complete before accesses that used the old translation: each
    /// batch ends in one more `TLBI; DSB`.
    pub repeat_tlbi: bool,
    /// A speculative `AT` may use a mix of two translation regimes: their walks are disabled around
    /// a change of VTTBR_EL2 and VTCR_EL2.
    pub speculative_at: bool,
    /// A stage-2 fault may be reported although a stage-1 fault has priority, or with a wrong
    /// address: the translation is walked again (Cortex-A57, 834220).
    pub rewalk_on_fault: bool,
    /// Hardware updates of the dirty state do not work.
    pub no_hardware_dirty: bool,
    /// The walker may update an entry that has become invalid: hardware updates of the access flag
    /// and of the dirty state stay off.
    pub no_hardware_access_flag: bool,
}

impl Errata {
    /// Finds the errata of the part with this MIDR_EL1.
    pub const fn of(midr: u64) -> Self {
        let part = Midr::new(midr);
        let walker_updates_invalid = updates_invalid_entries(part);
        Self {
            repeat_tlbi: !invalidation_completes(part),
            speculative_at: has_speculative_at(part),
            rewalk_on_fault: part.is(ARM, 0xd07),
            no_hardware_dirty: walker_updates_invalid || has_broken_dirty(part),
            no_hardware_access_flag: walker_updates_invalid,
        }
    }

    /// Adds the errata of another CPU of the same machine.
    pub const fn union(self, other: Self) -> Self {
        Self {
            repeat_tlbi: self.repeat_tlbi || other.repeat_tlbi,
            speculative_at: self.speculative_at || other.speculative_at,
            rewalk_on_fault: self.rewalk_on_fault || other.rewalk_on_fault,
            no_hardware_dirty: self.no_hardware_dirty || other.no_hardware_dirty,
            no_hardware_access_flag: self.no_hardware_access_flag || other.no_hardware_access_flag,
        }
    }
}

/// Lists the active errata by name, for the banner; "none" where there is none.
impl fmt::Display for Errata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.repeat_tlbi, "repeat-tlbi"),
            (self.speculative_at, "speculative-at"),
            (self.rewalk_on_fault, "rewalk-on-fault"),
            (self.no_hardware_dirty, "no-hd"),
            (self.no_hardware_access_flag, "no-ha"),
        ];
        let mut first = true;
        for (_, name) in names.into_iter().filter(|(active, _)| *active) {
            f.write_str(if first { "" } else { " " })?;
            f.write_str(name)?;
            first = false;
        }
        f.write_str(if first { "none" } else { "" })
    }
}

/// Tells whether a completed broadcast invalidation has also waited for all accesses that used it.
///
/// CVE-2025-10263 lists the parts of Arm that do not wait (Arm security bulletin 112137), to which
/// NVIDIA (T410-OLY-1029) and Microsoft have added theirs. Older errata of the same effect are
/// Cortex-A55 2441007, Cortex-A510 2441009 and Cortex-A76 1286807. The parts named here are in none
/// of those lists; whatever is named nowhere is taken to be affected. Implementer 0 is "reserved for
/// software use", and `Q` there is QEMU's `max`: an emulator, which completes what it invalidates.
const fn invalidation_completes(part: Midr) -> bool {
    match part.implementer {
        0 => part.part == b'Q' as u16,
        ARM => match part.part {
            // Cortex-A35, A53, A57, A65, A72, A73, A75, Neoverse E1, Cortex-A65AE.
            0xd04 | 0xd03 | 0xd07 | 0xd06 | 0xd08 | 0xd09 | 0xd0a | 0xd4a | 0xd43 => true,
            // Cortex-A510: 2441009 is repaired in r1p2.
            0xd46 => part.revision >= 0x12,
            // Cortex-A715, A520, A720, A725, Neoverse N3, Cortex-A520AE, A720AE.
            0xd4d | 0xd80 | 0xd81 | 0xd87 | 0xd8e | 0xd88 | 0xd89 => true,
            _ => false,
        },
        // NVIDIA Olympus and Microsoft Azure Cobalt 100 are affected; the rest is unknown.
        _ => false,
    }
}

/// Tells whether a speculative `AT` can mix two translation regimes.
///
/// Cortex-A57 1319537, Cortex-A72 1319367, Cortex-A76 r0p0 to r2p0 1165522, Cortex-A55 r0p0 to r2p0
/// 1530923 (Software Developers Errata Notices of the parts).
const fn has_speculative_at(part: Midr) -> bool {
    part.is(ARM, 0xd07)
        || part.is(ARM, 0xd08)
        || part.is_arm_up_to(0xd0b, 0x20)
        || part.is_arm_up_to(0xd05, 0x20)
}

/// Tells whether hardware dirty state does not work: Cortex-A55 1024718, Cortex-A510 r0p0 to r0p2
/// 2051678.
const fn has_broken_dirty(part: Midr) -> bool {
    part.is(ARM, 0xd05) || part.is_arm_up_to(0xd46, 0x02)
}

/// Tells whether the walker can write an entry that has become invalid: AmpereOne AC03_CPU_38 and
/// AC04_CPU_10.
const fn updates_invalid_entries(part: Midr) -> bool {
    part.is(AMPERE, 0xac3) || part.is(AMPERE, 0xac4)
}
