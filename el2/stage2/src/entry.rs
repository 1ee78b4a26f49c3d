//! The one type that touches table memory.
//!
//! Every write is an atomic read-modify-write, although a plain store would do in places: the
//! hardware walker updates entries too (the access flag today, the dirty state once it is turned on),
//! and a store that replaces what was never read would lose its update. What a caller knows about the
//! old entry is what the operation returned.
//!
//! An entry that another CPU can reach changes only by an exchange *from a value that was read*: from
//! a valid leaf, from a table, from invalid, or from the writer's own [`Descriptor::BUSY`]. So whoever
//! takes a leaf away is the only one who did, and nobody overwrites what became of an entry meanwhile:
//! not a table that was linked, not the link of a table that was retired.
#![allow(unsafe_code)]

use crate::descriptor::{Descriptor, GRANTED, LEAVES_ONLY, Level};
use crate::sweep::{Age, GROUP, Packed, sweep_dense, sweep_each};
use crate::sync::{Ordering, WatchedU64, Weakness, order, weakened};

/// One entry of a table, shared with the walker and with all CPUs.
#[repr(transparent)]
pub struct Entry(WatchedU64);

impl Entry {
    /// Makes an entry outside of any table, for tests and for memory built in place.
    #[cfg(not(loom))]
    pub const fn new(value: Descriptor) -> Self {
        Self(WatchedU64::new(value.0))
    }

    /// Makes an entry outside of any table, for tests and for memory built in place.
    #[cfg(loom)]
    pub fn new(value: Descriptor) -> Self {
        Self(WatchedU64::new(value.0))
    }

    /// Copies the descriptor.
    ///
    /// Acquire, so that what is reached through a table descriptor was written before it was linked.
    pub fn read(&self) -> Descriptor {
        Descriptor(self.0.load(order(Ordering::Acquire, Weakness::ReadRelaxed)))
    }

    /// Puts a descriptor in place and returns what stood there at that moment.
    ///
    /// For tables that nobody else writes: not linked yet, retired, or the host's.
    pub fn replace(&self, new: Descriptor) -> Descriptor {
        Descriptor(self.0.swap(new.0, Ordering::AcqRel))
    }

    /// Puts `new` in place if the entry still is `old`; otherwise returns what stands there.
    pub fn exchange(&self, old: Descriptor, new: Descriptor) -> Result<(), Descriptor> {
        if weakened(Weakness::ExchangeByStore) {
            return self.exchange_by_store(old, new);
        }
        let (on_success, on_failure) = (
            order(Ordering::AcqRel, Weakness::ExchangeRelaxed),
            order(Ordering::Acquire, Weakness::ExchangeRelaxed),
        );
        let changed = self.0.compare_exchange(old.0, new.0, on_success, on_failure);
        changed.map(drop).map_err(Descriptor)
    }

    /// What an exchange must not be; for the loom tests.
    fn exchange_by_store(&self, old: Descriptor, new: Descriptor) -> Result<(), Descriptor> {
        let now = self.read();
        if now != old {
            return Err(now);
        }
        self.0.store(new.0, Ordering::Release);
        Ok(())
    }

    /// Changes an entry as the hardware walker does, whatever mistake a test asks for: by one update of
    /// what stands there. `Err` with that if `change` wants nothing.
    #[cfg(loom)]
    pub fn update_by_walker(&self, change: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        self.0.update(change)
    }

    /// Takes a leaf away, leaving `instead`, and returns the leaf as it was at that moment.
    ///
    /// `None` if there is no leaf at that level. Release, like every store that removes: who sees the
    /// entry gone sees what was counted before.
    #[inline(always)]
    pub fn take_leaf(&self, level: Level, instead: Descriptor) -> Option<Descriptor> {
        self.update_leaf(level, |_| Some(instead)).ok()
    }

    /// Takes whatever leaf is in an entry of an unlinked table; returns what stood there.
    ///
    /// By clearing what only leaves have. In an unlinked table nothing is made or broken any more, but
    /// another CPU may be at the same leaves, or have retired the table already: the link in its first
    /// entry has none of those bits, and stays.
    #[inline(always)]
    pub(crate) fn take_unlinked(&self) -> Descriptor {
        Descriptor(self.clear(LEAVES_ONLY, Ordering::AcqRel))
    }

    /// Changes a leaf by an exchange from the very value that `change` was given.
    ///
    /// Returns the old leaf. `Err` with what stands there if that is no leaf, or `change` wants none.
    #[inline(always)]
    pub fn update_leaf(
        &self,
        level: Level,
        change: impl Fn(Descriptor) -> Option<Descriptor>,
    ) -> Result<Descriptor, Descriptor> {
        self.update_seen(self.read(), level, change)
    }

    /// Does the same, starting from what was just read.
    #[inline(always)]
    pub(crate) fn update_seen(
        &self,
        seen: Descriptor,
        level: Level,
        change: impl Fn(Descriptor) -> Option<Descriptor>,
    ) -> Result<Descriptor, Descriptor> {
        let mut old = seen;
        loop {
            if old.leaf_address(level).is_none() {
                return Err(old);
            }
            let new = change(old).ok_or(old)?;
            match self.exchange(old, new) {
                Ok(()) => return Ok(old),
                Err(now) => old = now,
            }
        }
    }

    /// Sets the access flag of a leaf, as the walker would: only by an exchange from a valid leaf.
    ///
    /// `Ok` with the old leaf; `Err` with what stands there if that is no leaf, or young already.
    pub fn set_young(&self, level: Level) -> Result<Descriptor, Descriptor> {
        self.set_seen_young(self.read(), level)
    }

    /// Does the same, starting from what was just read.
    #[inline(always)]
    pub(crate) fn set_seen_young(
        &self,
        seen: Descriptor,
        level: Level,
    ) -> Result<Descriptor, Descriptor> {
        if weakened(Weakness::YoungByStore) {
            self.0.store(seen.with_young(true).0, Ordering::Release);
            return Ok(seen);
        }
        let young = |old: Descriptor| (!old.is_young()).then_some(old.with_young(true));
        self.update_seen(seen, level, young)
    }

    /// Copies the bits, for a look that decides where to look closer and publishes nothing.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Clears bits that only valid leaves have, and returns what stood there at that moment.
    ///
    /// If the leaf was taken away since it was looked at, this clears bits that are clear in what stands
    /// there now, and so changes nothing.
    #[inline(always)]
    pub(crate) fn clear(&self, bits: u64, order: Ordering) -> u64 {
        if weakened(Weakness::ClearByStore) {
            let old = self.0.load(Ordering::Acquire);
            self.0.store(old & !bits, Ordering::Release);
            return old;
        }
        self.0.fetch_and(!bits, order)
    }

    /// Takes the permission to write and its grant, where the leaf `seen` still has the grant.
    ///
    /// By an exchange from what was seen, since where the dirty state goes depends on it. Returns the leaf
    /// as it was, or what stands there without a grant.
    pub(crate) fn revoke_writing(&self, seen: u64) -> u64 {
        let mut old = seen;
        while old & GRANTED != 0 {
            match self.revoke(old, Descriptor(old).write_revoked()) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
        old
    }

    /// Does the same once, for a leaf that was `seen` dirty; `false` if it changed meanwhile.
    #[inline(always)]
    pub(crate) fn try_revoke_writing_of_dirty(&self, seen: u64) -> bool {
        self.revoke(seen, Descriptor(seen).write_revoked_of_dirty()).is_ok()
    }

    /// Release, like every store that takes something away.
    #[inline(always)]
    fn revoke(&self, seen: u64, new: Descriptor) -> Result<u64, u64> {
        if weakened(Weakness::ProtectByStore) {
            self.0.store(new.0, Ordering::Release);
            return Ok(seen);
        }
        self.0.compare_exchange(seen, new.0, Ordering::Release, Ordering::Relaxed)
    }
}

/// Tests and clears the access flags of up to 64 entries; bit n tells whether entry n was young.
///
/// Out of line and under a fixed name, so that the release image can be disassembled: for the Armv8.0
/// baseline the body is loads, a test, and load-exclusive/store-exclusive loops.
// SAFETY: no other item of the firmware has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn verdigris_test_and_clear_young(entries: &[Entry]) -> u64 {
    sweep_dense::<Age>(entries).hit
}

/// Does the same to eight entries, of which few are expected to be young.
// SAFETY: no other item of the firmware has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) fn verdigris_test_and_clear_young_of_8(group: &[Entry; GROUP]) -> Packed {
    sweep_each::<Age>(group)
}
