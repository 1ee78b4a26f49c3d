//! Which VMIDs of this generation are still free. Lives behind the firmware's lock.
//!
//! No bitmap is needed: within a generation VMIDs are given out in rising order and none comes back
//! before the next. Only those that running VMs kept over the rollover lie ahead of the cursor, and
//! they are at most as many as there are CPUs.

use super::CPU_LIMIT;
use super::tag::Tag;

/// The VMIDs of the current generation.
#[derive(Debug)]
pub struct VmidPool {
    generation: u64,
    /// The next VMID to look at; beyond `last` when all are given out.
    next: u32,
    /// The highest VMID that is given out: all that the hardware takes, or fewer, for a test.
    last: u32,
    /// For each CPU, the tag *as in its VM's cell* of what ran there at the last rollover.
    kept: [Tag; CPU_LIMIT],
}

impl VmidPool {
    /// Returns how many bits a VMID needs at least on a machine with `cpu_count` CPUs, so that there are
    /// CPUs + 2 VMIDs: at a rollover every CPU may keep one, one is the host's, and one must be left for
    /// the VM that waits.
    pub const fn least_bits(cpu_count: usize) -> u32 {
        (cpu_count + 2).next_power_of_two().ilog2()
    }

    /// Makes the pool for VMIDs of `bits` bits on a machine with `cpu_count` CPUs.
    ///
    /// Panics if that is less than [`Self::least_bits`].
    pub const fn new(bits: u32, cpu_count: usize) -> Self {
        assert!(bits <= 16, "VTTBR_EL2 has at most 16 bits for a VMID");
        assert!(cpu_count <= CPU_LIMIT);
        assert!(bits >= Self::least_bits(cpu_count), "fewer VMIDs than CPUs may keep");
        Self { generation: 1, next: 1, last: (1 << bits) - 1, kept: [Tag::NONE; CPU_LIMIT] }
    }

    /// Replaces the pool of a static by one of another size, before the first VM runs.
    ///
    /// Panics when a VMID was given out already.
    pub fn resize(&mut self, bits: u32, cpu_count: usize) {
        assert!(self.generation == 1 && self.next == 1, "a VMID was given out already");
        *self = Self::new(bits, cpu_count);
    }

    /// Returns the current generation.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns a tag of this generation for the VM that has the tag `old`: the same VMID if the VM
    /// ran over the rollover, else a free one. `None` when there is none.
    pub(super) fn renew(&mut self, old: Tag) -> Option<Tag> {
        assert!(old.generation() < self.generation, "a VM has a VMID of this generation already");
        self.renew_kept(old).or_else(|| self.take())
    }

    /// Starts the next generation, in which nothing is given out; then [`Self::keep`] each CPU's.
    pub(super) fn next_generation(&mut self) {
        self.generation += 1;
        self.next = 1;
    }

    /// Notes what ran on a CPU when it was moved to this generation.
    ///
    /// A slot moves on with every rollover, a cell only with its VM's next run. So for a VM that ran
    /// on since before the *last* rollover the slot shows a newer generation than the cell, and the
    /// tag noted then, which has the same VMID, is the right one: in the generation that ends now
    /// this VMID was no other VM's.
    pub(super) fn keep(&mut self, cpu: usize, running: Tag) {
        assert!(running.generation() + 1 == self.generation, "a CPU missed a rollover");
        let kept = &mut self.kept[cpu];
        if running.vmid() == 0 {
            *kept = Tag::NONE;
        } else if kept.vmid() != running.vmid() {
            *kept = running;
        }
    }

    fn renew_kept(&mut self, old: Tag) -> Option<Tag> {
        let new = Tag::new(self.generation, old.vmid());
        let mut found = false;
        for kept in self.kept.iter_mut().filter(|kept| old != Tag::NONE && **kept == old) {
            *kept = new;
            found = true;
        }
        found.then_some(new)
    }

    fn take(&mut self) -> Option<Tag> {
        while self.next <= self.last {
            let vmid = self.next as u16;
            self.next += 1;
            if self.kept.iter().all(|kept| kept.vmid() != vmid) {
                return Some(Tag::new(self.generation, vmid));
            }
        }
        None
    }
}
