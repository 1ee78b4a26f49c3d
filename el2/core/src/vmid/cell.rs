//! What a VM keeps: its VMID, and which vCPU was on each CPU last.
//!
//! Both are valid when all their bits are 0, so zeroed memory is a VM that never ran.

use super::Entered;
use super::tag::Tag;
use crate::sync::{AtomicU64, Ordering};

/// The VMID of one VM, with its generation. Written only under the lock of the pool.
#[derive(Debug)]
#[repr(transparent)]
pub struct VmidCell(AtomicU64);

impl VmidCell {
    /// Makes the cell of a VM that never ran.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU64::new(Tag::NONE.0))
    }

    /// Makes the cell of a VM that never ran.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU64::new(Tag::NONE.0))
    }

    /// Returns the one VMID under which a TLB may hold entries of this VM, `None` before its first
    /// run.
    ///
    /// Clear the entries, then `dsb ish`, then ask: see "The race with an unmap" in the [module's
    /// documentation](super). A VMID of an old generation is answered too, and has to be: its VM may
    /// have run without a pause since before the rollover, and then it still fills TLBs under it.
    /// Where it doesn't, the VMID may be another VM's by now; that one loses entries that it can
    /// fetch again.
    pub fn current(&self) -> Option<u16> {
        let tag = self.tag();
        (tag != Tag::NONE).then_some(tag.vmid())
    }

    pub(super) fn tag(&self) -> Tag {
        Tag(self.0.load(Ordering::Acquire))
    }

    pub(super) fn set(&self, tag: Tag) {
        self.0.store(tag.0, Ordering::Release);
    }
}

impl Default for VmidCell {
    fn default() -> Self {
        Self::new()
    }
}

/// Which vCPU of one VM was on one CPU last. Each VM has one for each CPU, which alone uses it.
///
/// The vCPUs of a VM share a VMID but not their stage-1 tables, so another vCPU's entries must go
/// before this one runs. The mark counts within its generation only. It is *not* a promise that the
/// TLB is empty when the generation has changed: a vCPU that ran on over the rollover has filled it
/// again under the VMID that it kept. So whatever isn't this vCPU in this generation means a flush.
#[derive(Debug)]
#[repr(transparent)]
pub struct LastVcpu(AtomicU64);

impl LastVcpu {
    /// Makes the mark of a CPU on which the VM never ran.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Makes the mark of a CPU on which the VM never ran.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Marks that the vCPU is here now, and tells whether the CPU must do
    /// `tlbi vmalle1; ic iallu; dsb nsh` under the VM's VMID before it runs.
    #[must_use]
    pub fn replace(&self, entered: Entered, vcpu: u16) -> bool {
        let mark = Tag::new(entered.generation(), vcpu).0;
        let last = self.0.load(Ordering::Relaxed);
        self.0.store(mark, Ordering::Relaxed);
        last != mark
    }
}

impl Default for LastVcpu {
    fn default() -> Self {
        Self::new()
    }
}
