//! Faults: what EL2 answers by itself, and what goes to the host.
//!
//! The sequence number is sampled first, before the table is looked at and long before the host looks
//! at its own. Everything here starts from a valid leaf and exchanges from what it read, so that any
//! number of faults run in parallel with each other and with every call.

use crate::descriptor::{Descriptor, Kind};
use crate::hardware::Env;
use crate::stage2::{Stage2, flush_relaxed};
use crate::walk::{self, Position};
use core::iter::once;
use verdigris_abi::{Ipa, PAGE_SIZE, Stat};

/// What the guest wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read memory.
    Read,
    /// Write memory.
    Write,
    /// Fetch an instruction.
    Execute,
}

/// What the CPU says went wrong, from the fault status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No valid leaf.
    Translation,
    /// A leaf with AF=0.
    AccessFlag,
    /// A leaf that doesn't allow the access.
    Permission,
}

/// What to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Mended here: run the guest again.
    Resolved,
    /// The cause was already gone, or is about to be: run the guest again.
    Spurious,
    /// The host has to decide.
    ToHost {
        /// The number to hand to map or set.
        sequence: u64,
        /// A leaf is there, and denies the access.
        denied: bool,
    },
}

impl Stage2 {
    /// Answers a stage-2 fault at an address, from what the table says now.
    pub fn resolve_fault<E: Env>(
        &self,
        env: &E,
        ipa: Ipa,
        access: Access,
        kind: FaultKind,
    ) -> Resolution {
        let sequence = self.contract.sample();
        let to_host = |denied| Resolution::ToHost { sequence, denied };
        env.count(stat(kind), 1);
        if !self.root.geometry().contains(ipa, 1) {
            return to_host(false);
        }
        let at = walk::find_surely(env, self.root, ipa);
        let resolution = match at.old.kind(at.level) {
            Kind::Busy => Resolution::Spurious,
            Kind::Invalid | Kind::Table(_) => to_host(false),
            Kind::Leaf(_) => mend(env, &at, ipa, access, kind).unwrap_or_else(|| to_host(true)),
        };
        if resolution == Resolution::Spurious {
            env.count(Stat::FaultSpurious, 1);
        }
        resolution
    }

    /// Answers the faults that are many: those on a leaf that is there, and that needs nobody else.
    ///
    /// `false` leaves the fault, uncounted, to [`Self::resolve_fault`].
    #[inline]
    pub fn resolve_quickly<E: Env>(
        &self,
        env: &E,
        ipa: Ipa,
        access: Access,
        kind: FaultKind,
    ) -> bool {
        if !self.root.geometry().contains(ipa, 1) {
            return false;
        }
        let at = walk::find(env, self.root, ipa);
        if at.old.leaf_address(at.level).is_none()
            || mend(env, &at, ipa, access, kind) != Some(Resolution::Resolved)
        {
            return false;
        }
        env.count(stat(kind), 1);
        true
    }

    /// Sets the access flag of the leaf behind an address, if there is one.
    pub fn set_young<E: Env>(&self, env: &E, ipa: Ipa) -> Resolution {
        self.resolve_fault(env, ipa, Access::Read, FaultKind::AccessFlag)
    }
}

fn stat(kind: FaultKind) -> Stat {
    match kind {
        FaultKind::Translation => Stat::FaultTranslation,
        FaultKind::AccessFlag => Stat::FaultAccessFlag,
        FaultKind::Permission => Stat::FaultPermission,
    }
}

/// Answers a fault on a leaf. `None` if the leaf denies the access; nothing has changed then.
#[inline(always)]
fn mend<E: Env>(
    env: &E,
    at: &Position<'_>,
    ipa: Ipa,
    access: Access,
    kind: FaultKind,
) -> Option<Resolution> {
    match kind {
        FaultKind::Translation => Some(Resolution::Spurious),
        FaultKind::AccessFlag => Some(make_young(at)),
        FaultKind::Permission => relax(env, at, ipa, access),
    }
}

/// Sets the access flag. Nothing is invalidated: an entry with AF=0 is never cached.
///
/// Where the leaf is gone by now, the guest's next try takes the translation fault.
#[inline(always)]
fn make_young(at: &Position<'_>) -> Resolution {
    match at.entry().set_seen_young(at.old, at.level) {
        Ok(_) => Resolution::Resolved,
        Err(_) => Resolution::Spurious,
    }
}

/// Resolves a permission fault on a leaf that allows the access, or that the host granted it for.
///
/// The invalidation is local and always done: a cached permission fault may repeat for ever, also when
/// another CPU relaxed the leaf. `None` if the leaf denies the access.
#[inline(always)]
fn relax<E: Env>(env: &E, at: &Position<'_>, ipa: Ipa, access: Access) -> Option<Resolution> {
    let granted = |old: Descriptor| access == Access::Write && old.is_granted();
    let again = at.entry().update_seen(at.old, at.level, |old| {
        (granted(old) && !old.is_writable()).then(|| old.writable_again())
    });
    let resolution = match again {
        Ok(_) => {
            env.count(Stat::WritesLogged, 1);
            Resolution::Resolved
        }
        Err(now) if now.leaf_address(at.level).is_none() => return Some(Resolution::Spurious),
        Err(now) if allows(now, access) => Resolution::Spurious,
        Err(_) => return None,
    };
    flush_relaxed(env, once(ipa.align_down(PAGE_SIZE)));
    Some(resolution)
}

fn allows(leaf: Descriptor, access: Access) -> bool {
    match access {
        // Every leaf that is made is readable.
        Access::Read => true,
        Access::Write => leaf.is_writable(),
        Access::Execute => leaf.is_executable(),
    }
}
