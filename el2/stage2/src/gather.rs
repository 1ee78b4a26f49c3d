//! Gather: the leaves that a call changed in place, invalidated together at its end.
//!
//! Ageing, harvest and write-protection change leaves and leave them where they are. Nothing waits for
//! their invalidation but the caller, so one at the end of the call serves all: what was changed is
//! remembered, a stretch of up to 64 leaves each, as long as naming it costs less than invalidating the
//! whole VM. The answer is the caller's only after that.

use crate::descriptor::Level;
use crate::flush::MAX_TARGETED;
use crate::hardware::Env;
use crate::leaves::Mask;
use crate::stage2::Stage2;
use crate::sweep::Swept;
use crate::sync::{Weakness, weakened};
use verdigris_abi::{Ipa, Stat};

/// Most stretches that are remembered; with more the whole VMID is invalidated.
const STRETCHES: usize = 32;

/// What a call changed.
pub(crate) struct Gathered {
    /// The leaves of each stretch, and which of them were young when they were changed. Made when there is
    /// something to remember: filling it costs as much as some forty leaves.
    stretches: Option<[(Mask, u64); STRETCHES]>,
    /// How many stretches there are, remembered or not.
    count: usize,
    is_counting: bool,
    leaves: u64,
    young: u64,
}

impl Gathered {
    /// Remembers what is added.
    pub(crate) const fn new() -> Self {
        Self { stretches: None, count: 0, is_counting: false, leaves: 0, young: 0 }
    }

    /// Counts what is added, for a call that invalidates nothing, or everything.
    pub(crate) const fn counting() -> Self {
        Self { is_counting: true, ..Self::new() }
    }

    /// Returns how many leaves were changed.
    pub(crate) const fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Remembers the leaves of a stretch that a sweep hit; returns which they are.
    #[inline(always)]
    pub(crate) fn add(&mut self, start: Ipa, level: Level, swept: Swept) -> u64 {
        let Swept { hit, young, .. } = swept;
        if hit != 0 {
            let count = count_ones(hit);
            self.leaves += count;
            self.young += if young == hit { count } else { count_ones(young) };
            if !self.is_counting {
                self.remember(Mask { start, level, bits: hit }, young);
            }
        }
        hit
    }

    #[inline(never)]
    fn remember(&mut self, mask: Mask, young: u64) {
        let none = (Mask::new(Ipa(0), Level::L0), 0);
        let stretches = self.stretches.get_or_insert([none; STRETCHES]);
        if let Some(slot) = stretches.get_mut(self.count) {
            *slot = (mask, young);
        }
        self.count += 1;
    }

    /// Invalidates what was changed, young or not.
    pub(crate) fn flush<E: Env>(&self, env: &E, stage2: &Stage2) {
        if self.leaves != 0 {
            self.flush_some(env, stage2, self.leaves, |mask, _| mask);
        }
    }

    /// Invalidates what was changed and may be in a TLB; complete when it returns.
    ///
    /// A leaf that the exchange returned old is left out where the epoch proves it absent. Without a
    /// proof an invalidation of the whole VM makes one, unless a pass is under way. Between the caller's
    /// `batches.begin` and `finish`.
    pub(crate) fn flush_changed<E: Env>(&self, env: &E, stage2: &Stage2) {
        if self.leaves == 0 || weakened(Weakness::AnswerEarly) {
            return;
        }
        let (skip, old) = (stage2.config.skip, self.leaves - self.young);
        let left_out = if skip && old != 0 && stage2.epoch.proves_absence() { old } else { 0 };
        let named = self.leaves - left_out;
        if named == 0 {
            // What was taken is taken for every walk that begins after this.
            env.dsb_ish();
        } else if skip && old != left_out && stage2.epoch.can_be_proved() {
            stage2.flush_all(env);
        } else {
            let is_named = |mask: Mask, young: u64| {
                if left_out == 0 { mask } else { Mask { bits: young, ..mask } }
            };
            self.flush_some(env, stage2, named, is_named);
        }
        env.count(Stat::FlushesSkipped, left_out);
        env.count(Stat::FlushesDone, named);
    }

    /// Invalidates `count` leaves, which `which` chooses from each stretch.
    fn flush_some<E: Env>(
        &self,
        env: &E,
        stage2: &Stage2,
        count: u64,
        which: impl Fn(Mask, u64) -> Mask + Copy,
    ) {
        let stretches = self.stretches.as_ref().and_then(|stretches| stretches.get(..self.count));
        match stretches {
            Some(stretches) if stage2.config.tlb_range || count <= MAX_TARGETED => {
                let spans =
                    stretches.iter().flat_map(move |&(mask, young)| which(mask, young).spans());
                stage2.flush(env, spans);
            }
            _ => stage2.flush_all(env),
        }
    }
}

/// Counts bits. Without FP registers that takes a dozen instructions, so the usual words come first.
const fn count_ones(bits: u64) -> u64 {
    match bits {
        u64::MAX => 64,
        _ if bits & bits.wrapping_sub(1) == 0 => (bits != 0) as u64,
        _ => bits.count_ones() as u64,
    }
}
