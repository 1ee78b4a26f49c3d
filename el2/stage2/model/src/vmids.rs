//! VMIDs: the firmware's own allocator, with other VMs that use them up.
//!
//! The guest of the model runs on one CPU, or rests; neighbours come for one run each on another CPU,
//! every one a VM of its own. So VMIDs roll over, under a VM that runs and under one that doesn't.

use std::cell::{Cell, RefCell};
use verdigris_core::vmid::{Tlbs, VmidCell, VmidPool, Vmids};

/// The CPU that the guest enters by.
const GUEST_CPU: usize = 3;
/// The CPU that the neighbours run on.
const NEIGHBOUR_CPU: usize = 2;

/// The allocator, the VM's VMID, and whether the VM runs.
pub struct VmidSpace {
    vmids: Vmids,
    pool: RefCell<VmidPool>,
    cell: VmidCell,
    running: Cell<Option<u16>>,
}

impl VmidSpace {
    /// Makes a space of so many bits, on which nothing ran yet.
    pub fn new(bits: u32) -> Self {
        let pool = RefCell::new(VmidPool::new(bits, 4));
        Self { vmids: Vmids::new(), pool, cell: VmidCell::new(), running: Cell::new(None) }
    }

    /// Returns the VMID that the guest runs under; `None` while it rests.
    pub fn running(&self) -> Option<u16> {
        self.running.get()
    }

    /// Returns the VMID to invalidate under: what a TLB may hold entries by.
    pub fn current(&self) -> Option<u16> {
        self.cell.current()
    }

    /// Runs the guest, if it rests.
    pub fn enter(&self, tlbs: &impl Tlbs) {
        if self.running.get().is_none() {
            let entered = self.vmids.enter(GUEST_CPU, &self.cell, || self.pool.borrow_mut(), tlbs);
            self.running.set(Some(entered.vmid()));
        }
    }

    /// Lets the guest rest, if it runs.
    pub fn leave(&self) {
        if self.running.take().is_some() {
            self.vmids.leave(GUEST_CPU);
        }
    }

    /// Runs a VM that never ran before, and returns its VMID.
    pub fn neighbour(&self, tlbs: &impl Tlbs) -> u16 {
        let (cell, pool) = (VmidCell::new(), || self.pool.borrow_mut());
        let entered = self.vmids.enter(NEIGHBOUR_CPU, &cell, pool, tlbs);
        self.vmids.leave(NEIGHBOUR_CPU);
        entered.vmid()
    }
}
