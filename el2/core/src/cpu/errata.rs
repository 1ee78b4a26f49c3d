//! Which errata a CPU has that reach EL2, from its MIDR_EL1.
//!
//! One table, [`ROWS`], names each erratum: the parts and revisions that have it, what it does to the
//! firmware, and where that is written. A test walks it. Linux's own list is `arch/arm64/kernel/cpu_errata.c`,
//! TF-A's is `docs/design/cpu-specific-build-macros.rst`.
//!
//! Broadcast invalidations are the exception: there, the parts that are *free* of the erratum are named. A part
//! that no list names is taken to have it, because the cost is one more `TLBI` and `DSB` a batch and the
//! alternative is memory that a guest can still reach.

use super::midr::{AMPERE, ARM, MICROSOFT, Midr, QUALCOMM};
use core::fmt;

/// Makes the type, its union and its text from one list: field, word of the banner, meaning.
macro_rules! errata {
    ($( $(#[doc = $doc:literal])+ $field:ident $variant:ident $word:literal; )*) => {
        /// The errata that change what the firmware does.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Errata { $( $(#[doc = $doc])+ pub $field: bool, )* }

        /// What a row of the table does to the firmware: a field of [`Errata`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Effect { $( #[doc = concat!("[`Errata::", stringify!($field), "`]")] $variant, )* }

        impl Errata {
            /// Adds the errata of another CPU of the same machine.
            pub const fn union(self, other: Self) -> Self {
                Self { $( $field: self.$field || other.$field, )* }
            }

            const fn set(&mut self, effect: Effect) {
                match effect { $( Effect::$variant => self.$field = true, )* }
            }

            /// Lists each with its word.
            fn words(&self) -> impl Iterator<Item = (bool, &'static str)> {
                [ $( (self.$field, $word), )* ].into_iter()
            }
        }
    };
}

errata! {
    /// A broadcast invalidation may complete before accesses that used the old translation: each
    /// batch ends in one more `TLBI; DSB`.
    repeat_tlbi RepeatTlbi "repeat-tlbi";
    /// A speculative `AT` may use a mix of two translation regimes: their walks are disabled around
    /// a change of VTTBR_EL2 and VTCR_EL2.
    speculative_at SpeculativeAt "speculative-at";
    /// A stage-2 fault may be reported although a stage-1 fault has priority, or with a wrong
    /// address: the translation is walked again.
    rewalk_on_fault RewalkOnFault "rewalk-on-fault";
    /// Hardware updates of the dirty state do not work.
    no_hardware_dirty NoHardwareDirty "no-hd";
    /// The walker may update an entry that has become invalid: hardware updates of the access flag
    /// and of the dirty state stay off.
    no_hardware_access_flag NoHardwareAccessFlag "no-ha";
    /// A write of HCR_EL2 may corrupt translations of loads and stores around it: it stands between a
    /// DSB and an ISB.
    hcr_barriers HcrBarriers "hcr-barriers";
    /// A read of PAR_EL1 near loads of Device or non-cacheable memory may deadlock: it stands between
    /// two `DMB SY`.
    par_barriers ParBarriers "par-barriers";
    /// A cache clean may lose or corrupt data: it is made a clean and invalidate.
    clean_invalidates CleanInvalidates "clean-invalidates";
    /// One `TSB CSYNC` may not drain the trace buffer: there are two.
    drain_twice DrainTwice "drain-twice";
    /// The trace unit may still write after it was switched off, and be on later than it says: it is drained
    /// once more, and waited for twice.
    slow_trace SlowTrace "slow-trace";
    /// `CPP RCTX` can keep broadcast invalidations of others from taking effect: no host runs it.
    cpp_holds_tlbi CppHoldsTlbi "cpp-trapped";
}

/// A range of revisions of a part, an erratum that it has, and the source of that.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Who made the part.
    pub implementer: u8,
    /// Its number.
    pub part: u16,
    /// The first and last revision, as [`Midr::revision`] has them.
    pub revisions: (u8, u8),
    /// What it does.
    pub effect: Effect,
    /// Where it is written.
    #[cfg_attr(not(test), expect(dead_code, reason = "for those who check the table"))]
    pub source: &'static str,
}

/// All revisions.
const ALL: (u8, u8) = (0, 0xff);

const fn row(
    implementer: u8,
    part: u16,
    revisions: (u8, u8),
    effect: Effect,
    source: &'static str,
) -> Row {
    Row { implementer, part, revisions, effect, source }
}

/// The errata, but for the invalidation's.
pub const ROWS: &[Row] = &[
    row(ARM, 0xd03, ALL, Effect::SpeculativeAt, "Cortex-A53 1530924; TF-A ERRATA_A53_1530924"),
    row(ARM, 0xd05, (0, 0x20), Effect::SpeculativeAt, "Cortex-A55 1530923; Linux, cpu_errata.c"),
    row(ARM, 0xd07, ALL, Effect::SpeculativeAt, "Cortex-A57 1319537; Linux, cpu_errata.c"),
    row(ARM, 0xd08, ALL, Effect::SpeculativeAt, "Cortex-A72 1319367; Linux, cpu_errata.c"),
    row(ARM, 0xd0b, (0, 0x20), Effect::SpeculativeAt, "Cortex-A76 1165522; Linux, cpu_errata.c"),
    row(
        QUALCOMM,
        0x805,
        (0xde, 0xde),
        Effect::SpeculativeAt,
        "Kryo 4xx Silver, as Cortex-A55 r1p0: 1530923; Linux, cpu_errata.c",
    ),
    // Linux names r0p0 to r1p2, which are all that were made.
    row(ARM, 0xd07, ALL, Effect::RewalkOnFault, "Cortex-A57 834220; Linux, cpu_errata.c"),
    row(ARM, 0xd05, ALL, Effect::NoHardwareDirty, "Cortex-A55 1024718; Linux, cpufeature.c"),
    row(
        QUALCOMM,
        0x805,
        (0xde, 0xde),
        Effect::NoHardwareDirty,
        "Kryo 4xx Silver, as Cortex-A55 r1p0: 1024718; Linux, cpufeature.c",
    ),
    row(ARM, 0xd46, (0, 0x02), Effect::NoHardwareDirty, "Cortex-A510 2051678; Linux, cpufeature.c"),
    row(AMPERE, 0xac3, ALL, Effect::NoHardwareDirty, "AmpereOne AC03_CPU_38; Linux"),
    row(AMPERE, 0xac3, ALL, Effect::NoHardwareAccessFlag, "AmpereOne AC03_CPU_38; Linux"),
    row(AMPERE, 0xac4, ALL, Effect::NoHardwareDirty, "AmpereOne AC04_CPU_10; Linux"),
    row(AMPERE, 0xac4, ALL, Effect::NoHardwareAccessFlag, "AmpereOne AC04_CPU_10; Linux"),
    row(AMPERE, 0xac4, ALL, Effect::HcrBarriers, "AmpereOne AC04_CPU_23; Linux fed55f49fad1"),
    row(ARM, 0xd0d, (0, 0x10), Effect::ParBarriers, "Cortex-A77 1508412; Linux, cpu_errata.c"),
    row(
        ARM,
        0xd03,
        (0, 0x02),
        Effect::CleanInvalidates,
        "Cortex-A53 826319, 827319, 824069, 819472; Linux, cpu_errata.c",
    ),
    row(ARM, 0xd47, ALL, Effect::DrainTwice, "Cortex-A710 2054223; Linux, cpu_errata.c"),
    row(ARM, 0xd49, ALL, Effect::DrainTwice, "Neoverse N2 2067961; Linux, cpu_errata.c"),
    row(MICROSOFT, 0xd49, ALL, Effect::DrainTwice, "Cobalt 100, as Neoverse N2: 2067961; Linux"),
    row(ARM, 0xd46, (0, 0x02), Effect::SlowTrace, "Cortex-A510 2064142, 2038923; Linux"),
    // The parts of which TF-A has a workaround: lib/cpus/aarch64, CVE(2025, 647).
    row(ARM, 0xd47, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Cortex-A710; TF-A"),
    row(ARM, 0xd48, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Cortex-X2; TF-A"),
    row(ARM, 0xd4e, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Cortex-X3; TF-A"),
    row(ARM, 0xd82, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Cortex-X4; TF-A"),
    row(ARM, 0xd85, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Cortex-X925; TF-A"),
    row(ARM, 0xd49, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Neoverse N2; TF-A"),
    row(MICROSOFT, 0xd49, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Cobalt 100 as Neoverse N2"),
    row(ARM, 0xd4f, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Neoverse V2; TF-A"),
    row(ARM, 0xd84, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Neoverse V3; TF-A"),
    row(ARM, 0xd83, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, Neoverse V3AE; TF-A"),
    row(ARM, 0xd8c, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, C1-Ultra; TF-A"),
    row(ARM, 0xd90, ALL, Effect::CppHoldsTlbi, "CVE-2025-0647, C1-Premium; TF-A"),
];

impl Errata {
    /// Finds the errata of the part with this MIDR_EL1.
    pub const fn of(midr: u64) -> Self {
        let part = Midr::new(midr);
        let mut errata = Self::NONE;
        if !invalidation_completes(part) {
            errata.set(Effect::RepeatTlbi);
        }
        let mut at = 0;
        while at < ROWS.len() {
            let Row { implementer, part: number, revisions: (first, last), effect, .. } = ROWS[at];
            let has_revision = first <= part.revision && part.revision <= last;
            if part.is(implementer, number) && has_revision {
                errata.set(effect);
            }
            at += 1;
        }
        errata
    }

    const NONE: Self = Self {
        repeat_tlbi: false,
        speculative_at: false,
        rewalk_on_fault: false,
        no_hardware_dirty: false,
        no_hardware_access_flag: false,
        hcr_barriers: false,
        par_barriers: false,
        clean_invalidates: false,
        drain_twice: false,
        slow_trace: false,
        cpp_holds_tlbi: false,
    };

    /// Finds what a machine has to reckon with that boots on a part, before its other CPUs are known: parts
    /// that are built beside others which don't wait for accesses make the whole machine repeat.
    pub const fn of_machine(boot_midr: u64) -> Self {
        let mut errata = Self::of(boot_midr);
        errata.repeat_tlbi |= stands_beside_others(Midr::new(boot_midr));
        errata
    }

    /// Keeps those that one CPU can't answer for itself: whoever invalidates has to repeat that, wherever the
    /// accesses were made, and the flush epoch takes invalid entries to stay so.
    ///
    /// All others are answered on the CPU that has them, whatever the others do.
    pub const fn of_all(self) -> Self {
        Self {
            repeat_tlbi: self.repeat_tlbi,
            no_hardware_access_flag: self.no_hardware_access_flag,
            ..Self::NONE
        }
    }
}

/// Lists the active errata by name, for the banner; "none" where there is none.
impl fmt::Display for Errata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, word) in self.words().filter(|(active, _)| *active) {
            f.write_str(if first { "" } else { " " })?;
            f.write_str(word)?;
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

/// Tells whether a part is built in clusters with larger ones that have the invalidation's erratum: Cortex-A510,
/// A715, A520, A720, A725, A520AE and A720AE, beside Cortex-X2 to X925 and A710.
const fn stands_beside_others(part: Midr) -> bool {
    part.implementer == ARM
        && matches!(part.part, 0xd46 | 0xd4d | 0xd80 | 0xd81 | 0xd87 | 0xd88 | 0xd89)
}
