//! Gives VMIDs to VMs: more VMs than the hardware has VMIDs, and a lock only where one is renewed.
//!
//! The one invariant: while a TLB may hold an entry of a VM under a VMID, no other VM runs under that
//! VMID. VMID 0 is the host's and is never given out. The others are given out until none is left;
//! then a **rollover** starts a new generation: one invalidation of everything, after which they can
//! all be given out again, save those under which a CPU runs a guest right now. Such a guest fills
//! the TLBs again from its next access on, so its VM keeps its VMID; every other VM gets a new one at
//! its next run. A VMID is never given back in between: a VM that is destroyed leaves it to the next
//! rollover, whose invalidation is needed anyway.
//!
//! # One word for each CPU
//!
//! A CPU's **slot** says in which generation it is and whose VMID it runs under: `(g, v)` inside a
//! guest, `(g, 0)` in the host. There is no other copy of the generation for the CPUs to read.
//! - `enter` exchanges `(g, 0)` for the VM's tag `(g, v)`, if the slot holds exactly that.
//! - `leave` clears the VMID in the slot, whatever the generation is by then.
//! - a rollover adds 1 to the generation in every slot, and looks at the VMID that it found.
//!
//! Each is one atomic read-modify-write, so for each CPU it is settled which came first. Entering
//! first: the rollover sees the VMID and lets the VM keep it. The rollover first: the exchange fails,
//! because the VM's tag is of the old generation, and the CPU takes the lock. A check of a shared
//! generation followed by a store into the slot would have a gap between the two. A CPU can't get
//! ahead either: a tag of the new generation exists only once the invalidation is complete, since
//! tags are made under the lock of the pool, and the rollover holds it throughout.
//!
//! # What the caller owes
//!
//! - `enter`, then VTTBR_EL2 with this VMID, `isb`, the guest. Afterwards VTTBR_EL2 with the host's
//!   VMID, `isb`, and only then `leave`: a CPU may walk speculatively for as long as the register
//!   names the guest, and a rollover after `leave` would not know of it.
//! - An invalidation on behalf of a VM that doesn't run here loads its VMID without `enter`. It must
//!   be sure that nothing is fetched meanwhile (no speculative walk, or a root without a valid entry
//!   beside that VMID), since a rollover may give the VMID away at that moment.
//!
//! # The race with an unmap
//!
//! A CPU that unmaps clears entries, `dsb ish`, *then* reads the VMID ([`VmidCell::current`]) and
//! invalidates under it. A CPU that renews stores the new tag into the cell, `dsb ish`
//! ([`Tlbs::complete_stores`]), then loads VTTBR_EL2 and walks. One of the two reads comes after the
//! other side's `dsb ish`:
//! - the unmap reads the new VMID: it invalidates where the stale entry may be. Under the old one
//!   there is none: the VM gets a different VMID only if no CPU ran it at the last rollover, whose
//!   invalidation removed the entries, and none has entered under it since.
//! - the unmap reads the old VMID: then the new one was not yet visible to it, and every walk under
//!   the new one comes later than that store, so it finds the cleared entry. That holds for a third
//!   CPU too, which finds the new tag in the cell: a store that one CPU has seen, all have seen
//!   (Arm ARM, B2.3, other-multi-copy atomicity), and its walks need the tag that it read.
//!
//! The store barrier that suffices before a TLBI, `dsb ishst`, is not enough here: it orders no load.

mod cell;
mod pool;
mod tag;

#[cfg(all(test, loom))]
mod interleavings;
#[cfg(all(test, not(loom)))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

use core::ops::DerefMut;

use crate::sync::{AtomicU64, Ordering};
pub use cell::{LastVcpu, VmidCell};
pub use pool::VmidPool;
use tag::Tag;

/// How many CPUs there is room for; in loom's models, where each costs time, only two.
const CPU_LIMIT: usize = if cfg!(loom) { 2 } else { verdigris_abi::MAX_CPUS as usize };

/// What the allocator asks of the hardware. Both are called with the pool locked.
pub trait Tlbs {
    /// Empties all TLBs of all VMIDs: `dsb ish; tlbi alle1is; dsb ish`, repeated where an erratum
    /// wants it. Complete when it returns.
    fn invalidate_all(&self);

    /// Makes earlier stores visible to every CPU before any later walk of this one: `dsb ish`.
    fn complete_stores(&self);
}

/// The right to run a VM on this CPU under a VMID, until [`Vmids::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered(Tag);

impl Entered {
    /// Returns the VMID, for VTTBR_EL2.
    pub const fn vmid(self) -> u16 {
        self.0.vmid()
    }

    /// Returns the generation in which the VM has it.
    pub const fn generation(self) -> u64 {
        self.0.generation()
    }
}

/// A CPU's slot, alone in its cache line: each run of a guest writes it twice.
#[derive(Debug)]
#[repr(align(64))]
struct Slot(AtomicU64);

/// The first generation, in which every CPU starts, in the host.
const FIRST: Tag = Tag::new(1, 0);

/// What runs on each CPU. Shared by all CPUs; the [`VmidPool`] is the part behind a lock.
#[derive(Debug)]
pub struct Vmids {
    slots: [Slot; CPU_LIMIT],
}

impl Vmids {
    /// Makes the slots, with the host on every CPU. Goes with one fresh [`VmidPool`].
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { slots: [const { Slot(AtomicU64::new(FIRST.0)) }; CPU_LIMIT] }
    }

    /// Makes the slots, with the host on every CPU. Goes with one fresh [`VmidPool`].
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { slots: core::array::from_fn(|_| Slot(AtomicU64::new(FIRST.0))) }
    }

    /// Makes this CPU one that runs the VM, and says under which VMID.
    ///
    /// `lock` is called only where the VM has no VMID of this generation, and locks the pool. Not to
    /// be called again before [`Self::leave`]: that is a panic.
    pub fn enter<G: DerefMut<Target = VmidPool>>(
        &self,
        cpu: usize,
        cell: &VmidCell,
        lock: impl FnOnce() -> G,
        tlbs: &impl Tlbs,
    ) -> Entered {
        let tag = cell.tag();
        if tag != Tag::NONE && self.occupy(cpu, tag) {
            return Entered(tag);
        }
        self.enter_locked(cpu, cell, &mut lock(), tlbs)
    }

    /// Marks that this CPU runs no guest. VTTBR_EL2 no longer names the guest's VMID, and an ISB
    /// came after that.
    ///
    /// A rollover from here on lets the VM keep its VMID only for other CPUs that run it. Without
    /// one, the next run finds the VMID still valid, and with it what the TLBs hold.
    pub fn leave(&self, cpu: usize) {
        // Release: what was fetched for the guest comes before the invalidation of a rollover that
        // finds the slot empty.
        self.slots[cpu].0.fetch_and(!u64::from(u16::MAX), Ordering::Release);
    }

    /// Returns how many rollovers there have been.
    pub fn rollovers(&self) -> u64 {
        let slot = Tag(self.slots[0].0.load(Ordering::Relaxed));
        slot.generation() - FIRST.generation()
    }

    /// Exchanges the host's tag of that generation for the VM's.
    fn occupy(&self, cpu: usize, tag: Tag) -> bool {
        // Relaxed will do: which of this and a rollover's addition comes first is settled by both
        // being read-modify-writes of one word, and the order of walks by VTTBR_EL2 and ISB.
        self.slots[cpu]
            .0
            .compare_exchange(tag.host().0, tag.0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn enter_locked(
        &self,
        cpu: usize,
        cell: &VmidCell,
        pool: &mut VmidPool,
        tlbs: &impl Tlbs,
    ) -> Entered {
        // Another CPU may have renewed it since: its vCPU of this VM was faster.
        let mut tag = cell.tag();
        if tag.generation() != pool.generation() {
            tag = self.renew(tag, pool, tlbs);
            cell.set(tag);
            tlbs.complete_stores();
        }
        assert!(self.occupy(cpu, tag), "a CPU enters a guest before it has left the last one");
        Entered(tag)
    }

    fn renew(&self, old: Tag, pool: &mut VmidPool, tlbs: &impl Tlbs) -> Tag {
        pool.renew(old).unwrap_or_else(|| {
            self.begin_generation(pool);
            tlbs.invalidate_all();
            pool.renew(old).expect("more VMIDs than CPUs + 1")
        })
    }

    /// Moves every CPU to the next generation and lets running VMs keep their VMIDs.
    ///
    /// Before the invalidation: a guest that leaves in between keeps its VMID in vain, but one that
    /// was seen to have left fetches nothing after it.
    fn begin_generation(&self, pool: &mut VmidPool) {
        pool.next_generation();
        for (cpu, slot) in self.slots.iter().enumerate() {
            let running = slot.0.fetch_add(Tag::GENERATION_STEP, Ordering::AcqRel);
            pool.keep(cpu, Tag(running));
        }
    }
}

impl Default for Vmids {
    fn default() -> Self {
        Self::new()
    }
}
