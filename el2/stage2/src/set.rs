//! Set: replaces the page behind an IPA, without a moment in which the old one could come back.
//!
//! Break, invalidate, make, where another page stood: the old leaf is out of every TLB before the new
//! one is visible. Where nothing stood it is a map. The make half stands in a gate: if an invalidation
//! has come between, the entry stays invalid and the guest faults it in again. That is a success: the
//! old page is gone, as was asked.
//!
//! The old leaf's history carries over: its access flag, and its write-protection, whatever the caller
//! asks for. A leaf that logs writes (granted, but not writable) goes on logging.
//!
//! Without forced write-back both pages are cleaned from the caches, and interrupts wait for that: a
//! 1 GiB block is [`Error::NotSupported`] there, as it is for map.

use crate::attributes::Attributes;
use crate::batches::Counted;
use crate::descriptor::{Descriptor, Kind, Level, needs_break};
use crate::flush;
use crate::hardware::{Env, Removed};
use crate::leaves::Mask;
use crate::map::Batch;
use crate::range::Range;
use crate::source::Run;
use crate::stage2::{Stage2, count_retry, flush_relaxed, permit};
use crate::sync::{Weakness, weakened};
use crate::walk::{self, Position};
use core::iter::once;
use verdigris_abi::{Error, Ipa, Pa, Stat};

/// What to put behind an IPA.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// The address, aligned to the leaf size.
    pub ipa: Ipa,
    /// The new memory, aligned to the leaf size.
    pub pa: Pa,
    /// The size of the leaf, old and new.
    pub level: Level,
    /// Memory type and permissions; the access flag only where nothing stood.
    pub attributes: Attributes,
    /// The sequence number that was sampled before the host looked the page up.
    pub sequence: u64,
}

impl Set {
    const fn range(&self) -> Range {
        Range::new(self.ipa, self.level.pages())
    }
}

impl Stage2 {
    /// Replaces the page (or the block, by one of its size) behind an IPA, or maps it; tells whether
    /// an old one was dirty that is gone now, or no longer counts as dirty.
    ///
    /// Errors as for map; [`Error::Exists`] if a leaf of another size or a table stands there.
    pub fn set<E: Env>(&self, env: &E, set: &Set) -> Result<bool, Error> {
        self.check_set(set)?;
        self.limbo.reap(env);
        let at = walk::find_down_to(env, self.root, set.ipa, set.level);
        let result = match at.old.kind(at.level) {
            Kind::Invalid => self.set_nothing(env, set).map(|()| false),
            Kind::Leaf(_) if at.level == set.level => self.replace(env, &at, set),
            Kind::Busy => Err(Error::Retry),
            Kind::Leaf(_) | Kind::Table(_) => Err(Error::Exists),
        };
        count_retry(env, result.err());
        result
    }

    fn check_set(&self, set: &Set) -> Result<(), Error> {
        self.range(set.ipa, set.level.pages())?;
        let aligned = set.ipa.is_aligned(set.level.bytes()) && set.pa.is_aligned(set.level.bytes());
        let reachable = set.pa.0 <= (1 << 48) - set.level.bytes();
        if aligned && reachable { self.check_level(set.level) } else { Err(Error::Invalid) }
    }

    /// Maps where nothing stood.
    fn set_nothing<E: Env>(&self, env: &E, set: &Set) -> Result<(), Error> {
        let &Set { ipa, pa, level, attributes, sequence } = set;
        let source = Run { pa, level, attributes };
        let batch = Batch { ipa, level, source, first: 0, leaf_count: 1, sequence };
        self.map_all(env, &batch).error.map_or(Ok(()), Err)
    }

    /// Replaces a leaf: prepares, asks the contract, then does what can't fail.
    fn replace<E: Env>(&self, env: &E, at: &Position<'_>, set: &Set) -> Result<bool, Error> {
        env.acquire(set.pa, set.level)?;
        if !self.config.fwb {
            env.clean(set.pa, set.level.bytes());
        }
        if set.attributes.is_executable() && !self.config.dic {
            env.invalidate_instructions();
        }
        let batch = self.batches.begin();
        let broken = self.break_leaf(env, at, set);
        if let Ok((old, _)) = broken
            && !weakened(Weakness::SetUnflushed)
        {
            self.invalidate_old(env, &batch, set, old);
        }
        drop(batch);
        if matches!(broken, Ok((old, false)) if !old.is_writable()) {
            // Another CPU may have protected the leaf just now; the note that it was dirty goes with this
            // answer, so no write may come after it.
            self.finish_others(env, set.range());
        }
        let made = broken.map(|(old, busy)| busy && self.finish_break(env, at, set, old));
        if !matches!(made, Ok(true)) {
            env.release(set.pa, set.level);
        }
        let (old, busy) = made.and(broken)?;
        let lost = old.is_dirty() && (busy || !self.successor(old, set).is_dirty());
        env.count(Stat::LeavesDirty, u64::from(lost));
        Ok(lost)
    }

    /// Breaks the old leaf, or changes it in place where that is allowed, if the contract permits.
    ///
    /// Inside the gate, also for a change in place: one that adds a permission is a map. Returns the old
    /// leaf, and whether it was broken.
    fn break_leaf<E: Env>(
        &self,
        env: &E,
        at: &Position<'_>,
        set: &Set,
    ) -> Result<(Descriptor, bool), Error> {
        let inside = self.contract.enter(env);
        permit(env, self.contract.check(&inside, set.range(), set.sequence))?;
        let changed = at.entry().update_leaf(set.level, |old| {
            let new = self.successor(old, set);
            Some(if needs_break(old, new, set.level) { Descriptor::BUSY } else { new })
        });
        // Gone since the walk: by an invalidation that the check is about to see, or another set.
        let old = changed.map_err(|_| Error::Retry)?;
        Ok((old, needs_break(old, self.successor(old, set), set.level)))
    }

    /// Completes what was broken or changed: on all CPUs where something was taken away, else here.
    fn invalidate_old<E: Env>(&self, env: &E, own: &Counted<'_>, set: &Set, old: Descriptor) {
        let new = self.successor(old, set);
        if needs_break(old, new, set.level) || !new.allows_all_of(old) {
            self.flush_taken(env, own, Mask::leaf(set.ipa, set.level), u64::from(old.is_young()));
        } else if new != old {
            flush_relaxed(env, once(set.ipa));
        }
    }

    /// Makes the new leaf where the old was broken, and reports the old; tells whether it was made.
    fn finish_break<E: Env>(&self, env: &E, at: &Position<'_>, set: &Set, old: Descriptor) -> bool {
        let pa = old.leaf_address(set.level).expect("a leaf was taken");
        let removed = Removed { ipa: set.ipa, pa, level: set.level, old };
        let made = self.make_leaf(env, at, set, self.successor(old, set));
        if made {
            flush::publish(env);
            env.count(Stat::LeavesSet, 1);
            self.settle(env, set.level, once(removed));
        } else {
            self.report(env, &removed);
        }
        made
    }

    fn make_leaf<E: Env>(&self, env: &E, at: &Position<'_>, set: &Set, new: Descriptor) -> bool {
        let inside = self.contract.enter(env);
        let clear = self.contract.check(&inside, set.range(), set.sequence).lets_make();
        let new = if clear { new } else { Descriptor::INVALID };
        at.entry().exchange(Descriptor::BUSY, new).is_ok() && clear
    }

    /// Returns the leaf that follows `old`: what was asked for, with the history of the old one.
    fn successor(&self, old: Descriptor, set: &Set) -> Descriptor {
        let asked = self.leaf_of(set.attributes, set.pa, set.level);
        let new = match (old.is_granted(), old.is_writable()) {
            (true, true) => asked,
            (true, false) => asked.write_logged(),
            (false, _) => asked.write_protected(),
        };
        new.with_young(old.is_young())
    }
}
