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
use verdigris_abi::{Ipa, Stat};

/// Most stretches that are remembered; with more the whole VMID is invalidated.
const STRETCHES: usize = 32;

/// What a call changed.
pub(crate) struct Gathered {
    /// The leaves of each stretch, and which of them were young when they were changed.
    stretches: [(Mask, u64); STRETCHES],
    count: usize,
    leaves: u64,
    young: u64,
}

impl Gathered {
    pub(crate) const fn new() -> Self {
        let stretches = [(Mask::new(Ipa(0), Level::L0), 0); STRETCHES];
        Self { stretches, count: 0, leaves: 0, young: 0 }
    }

    /// Returns how many leaves were changed.
    pub(crate) const fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Remembers the leaves `bits` of a stretch, of which those in `young` were young.
    #[inline(always)]
    pub(crate) fn add(&mut self, start: Ipa, level: Level, bits: u64, young: u64) {
        if let Some(slot) = self.stretches.get_mut(self.count) {
            *slot = (Mask { start, level, bits }, young);
        }
        self.count += 1;
        self.leaves += u64::from(bits.count_ones());
        self.young += u64::from(young.count_ones());
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
        if self.leaves == 0 {
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
        match self.stretches.get(..self.count) {
            Some(stretches) if stage2.config.tlb_range || count <= MAX_TARGETED => {
                let spans =
                    stretches.iter().flat_map(move |&(mask, young)| which(mask, young).spans());
                stage2.flush(env, spans);
            }
            _ => stage2.flush_all(env),
        }
    }
}
