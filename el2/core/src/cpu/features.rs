//! The optional features that stage 2 can use: what a CPU has, what a mask leaves, what remains.

use super::IdRegisters;
use core::fmt;

/// A set of the features that the firmware can do without.
///
/// The same type says what a CPU has ([`Features::found`]), what the command line allows (a mask,
/// whose neutral element is [`Features::ALL`]) and what is used (the [`common`](Self::common) part).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `ha`: the walker sets access flags (FEAT_HAFDBS).
    pub hardware_access_flag: bool,
    /// `hd`: the walker keeps dirty state (FEAT_HAFDBS).
    pub hardware_dirty: bool,
    /// `tlbirange`: invalidation by range (FEAT_TLBIRANGE).
    pub tlb_range: bool,
    /// `ttl`: invalidation with a level hint (FEAT_TTL).
    pub ttl: bool,
    /// `fwb`: stage 2 forces write-back (FEAT_S2FWB).
    pub forced_write_back: bool,
    /// `vmid`: width of a VMID in bits, 8 or 16 (FEAT_VMID16); a mask may leave as few as 3.
    pub vmid_bits: u32,
    /// `bbm`: level of FEAT_BBM, 0 to 2: how freely block sizes change without a break.
    pub bbm_level: u32,
    /// `epoch`: cold leaves are removed without invalidation, where the flush epoch allows it. Any CPU
    /// can, save by an erratum.
    pub flush_epoch: bool,
}

impl Features {
    /// Everything: the mask that masks nothing.
    pub const ALL: Self = Self {
        hardware_access_flag: true,
        hardware_dirty: true,
        tlb_range: true,
        ttl: true,
        forced_write_back: true,
        vmid_bits: 16,
        bbm_level: 2,
        flush_epoch: true,
    };

    /// Finds what a CPU has.
    pub const fn found(id: &IdRegisters) -> Self {
        Self {
            hardware_access_flag: id.has_hardware_access_flag(),
            hardware_dirty: id.has_hardware_dirty_state(),
            tlb_range: id.has_tlbi_range(),
            ttl: id.has_ttl(),
            forced_write_back: id.has_forced_write_back(),
            vmid_bits: id.vmid_bits(),
            bbm_level: id.bbm_level(),
            flush_epoch: true,
        }
    }

    /// Returns what is in both sets. Dirty state needs access flags (Arm ARM, VTCR_EL2.HD).
    pub const fn common(self, other: Self) -> Self {
        let access_flag = self.hardware_access_flag && other.hardware_access_flag;
        Self {
            hardware_access_flag: access_flag,
            hardware_dirty: access_flag && self.hardware_dirty && other.hardware_dirty,
            tlb_range: self.tlb_range && other.tlb_range,
            ttl: self.ttl && other.ttl,
            forced_write_back: self.forced_write_back && other.forced_write_back,
            vmid_bits: smaller(self.vmid_bits, other.vmid_bits),
            bbm_level: smaller(self.bbm_level, other.bbm_level),
            flush_epoch: self.flush_epoch && other.flush_epoch,
        }
    }

    /// Lists, by the words of the command line, what this set has and `other` has not.
    pub const fn beyond(self, other: Self) -> Difference {
        Difference { more: self, less: other }
    }
}

const fn smaller(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

/// The set with nothing in it beyond the baseline of Armv8.0, which is all that the flush epoch needs.
const BASELINE: Features = Features {
    hardware_access_flag: false,
    hardware_dirty: false,
    tlb_range: false,
    ttl: false,
    forced_write_back: false,
    vmid_bits: 8,
    bbm_level: 0,
    flush_epoch: true,
};

/// Lists what the set has beyond Armv8.0, by the words of the command line.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.beyond(BASELINE).fmt(f)
    }
}

/// What one set has and another has not; prints as a list of words, or "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    more: Features,
    less: Features,
}

impl Difference {
    /// Tells whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.words().all(|word| word.is_none())
    }

    fn words(&self) -> impl Iterator<Item = Option<&'static str>> {
        let (more, less) = (&self.more, &self.less);
        let flag = |more: bool, less: bool, word| (more && !less).then_some(word);
        [
            flag(more.hardware_access_flag, less.hardware_access_flag, "ha"),
            flag(more.hardware_dirty, less.hardware_dirty, "hd"),
            flag(more.tlb_range, less.tlb_range, "tlbirange"),
            flag(more.ttl, less.ttl, "ttl"),
            flag(more.forced_write_back, less.forced_write_back, "fwb"),
            flag(more.vmid_bits == 16, less.vmid_bits == 16, "vmid=16"),
            flag(more.vmid_bits == 8, less.vmid_bits >= 8, "vmid=8"),
            flag(more.bbm_level >= 1, less.bbm_level >= 1, "bbm=1"),
            flag(more.bbm_level >= 2, less.bbm_level >= 2, "bbm=2"),
            flag(more.flush_epoch, less.flush_epoch, "epoch"),
        ]
        .into_iter()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, word) in self.words().flatten().enumerate() {
            f.write_str(if index == 0 { "" } else { " " })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}
