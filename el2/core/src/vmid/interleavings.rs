//! All interleavings of two CPUs, under loom: `RUSTFLAGS="--cfg loom" cargo test --release`.
//!
//! The TLBs of the model lie in an ordinary mutex, which loom does not know: so looking at them
//! orders nothing, and a missing order in the allocator stays missing. But loom tries two orders only
//! where it sees that they can differ; so each look at the TLBs comes with a relaxed
//! read-modify-write of one atomic, which is the table entry that a walk reads. Each scenario is also
//! run with a mistake in it, and that run must fail: else it would prove nothing.

use std::sync::{Arc, Mutex, PoisonError};

use crate::models::model;
use loom::sync::Mutex as LoomMutex;
use loom::sync::atomic::fence;
use loom::thread;

use super::{Entered, Tag, Tlbs, VmidCell, VmidPool, Vmids};
use crate::sync::{AtomicU64, Ordering};

/// A VM: its index among the cells.
type Vm = usize;

/// Mistakes that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Enter looks at the slot, then stores into it.
    EnterByStore,
    /// The caller leaves while VTTBR_EL2 still names the guest.
    LeaveTooEarly,
    /// The rollover invalidates before it looks at who runs.
    InvalidateFirst,
    /// The renewal has no barrier behind its store.
    NoBarrierInRenewal,
    /// The unmap has no barrier between clearing the entry and reading the VMID.
    NoBarrierInUnmap,
    /// The unmap reads the VMID, then clears the entry.
    VmidReadFirst,
    /// The unmap takes a VMID of an old generation for one without entries.
    OldMeansNone,
}

struct Machine {
    mistake: Mistake,
    vmids: Vmids,
    pool: LoomMutex<VmidPool>,
    cells: [VmidCell; 4],
    /// The entry of VM 0's table that is unmapped; 1 while it is valid.
    entry: AtomicU64,
    /// Whose entries the TLBs hold under each VMID.
    tlbs: Mutex<[Option<Vm>; 4]>,
}

impl Tlbs for Machine {
    fn invalidate_all(&self) {
        if self.mistake != Mistake::InvalidateFirst {
            self.empty_tlbs();
        }
    }

    fn complete_stores(&self) {
        if self.mistake != Mistake::NoBarrierInRenewal {
            fence(Ordering::SeqCst);
        }
    }
}

impl Machine {
    /// Two CPUs and four VMIDs, of which 1 to 3 are given out: to the VMs 0 to 2.
    fn new(mistake: Mistake) -> Arc<Self> {
        let machine = Self {
            mistake,
            vmids: Vmids::new(),
            pool: LoomMutex::new(VmidPool::new(2, 2)),
            cells: Default::default(),
            entry: AtomicU64::new(1),
            tlbs: Mutex::new([None; 4]),
        };
        for vm in 0..3 {
            machine.run(0, vm);
        }
        Arc::new(machine)
    }

    /// Reads the entry as a walk does, and in the same step does something with the TLBs.
    ///
    /// A read-modify-write sees the last store, as a walk sees every store that a `dsb ish` completed.
    fn with_tlbs<R>(&self, step: impl FnOnce(&mut [Option<Vm>; 4], bool) -> R) -> R {
        let valid = self.entry.fetch_add(0, Ordering::Relaxed) == 1;
        step(&mut self.tlbs.lock().unwrap_or_else(PoisonError::into_inner), valid)
    }

    fn empty_tlbs(&self) {
        self.with_tlbs(|tlbs, _| *tlbs = [None; 4]);
    }

    fn enter(&self, cpu: usize, vm: Vm) -> Entered {
        let cell = &self.cells[vm];
        match self.mistake {
            Mistake::EnterByStore => {
                let (tag, slot) = (cell.tag(), &self.vmids.slots[cpu].0);
                if tag != Tag::NONE && slot.load(Ordering::Acquire) == tag.host().0 {
                    slot.store(tag.0, Ordering::Release);
                    return Entered(tag);
                }
            }
            Mistake::InvalidateFirst if cell.tag() == Tag::NONE => self.empty_tlbs(),
            _ => {}
        }
        self.vmids.enter(cpu, cell, || self.pool.lock().unwrap(), self)
    }

    /// Fetches an entry of the VM.
    fn walk(&self, vm: Vm, vmid: u16) {
        let found = self.with_tlbs(|tlbs, _| tlbs[usize::from(vmid)].replace(vm));
        assert!(found.is_none_or(|owner| owner == vm), "entries of two VMs under one VMID");
    }

    fn run(&self, cpu: usize, vm: Vm) -> u16 {
        let vmid = self.enter(cpu, vm).vmid();
        self.walk(vm, vmid);
        if self.mistake == Mistake::LeaveTooEarly {
            self.vmids.leave(cpu);
        }
        self.walk(vm, vmid);
        if self.mistake != Mistake::LeaveTooEarly {
            self.vmids.leave(cpu);
        }
        vmid
    }

    /// Runs VM 0, which fetches the entry that is being unmapped if it is still there.
    fn run_and_fetch(&self, cpu: usize) {
        let vmid = self.enter(cpu, 0).vmid();
        self.with_tlbs(|tlbs, valid| {
            if valid {
                tlbs[usize::from(vmid)] = Some(0);
            }
        });
        self.vmids.leave(cpu);
    }

    /// Unmaps the entry and invalidates under VM 0's VMID.
    fn unmap(&self) {
        let early = (self.mistake == Mistake::VmidReadFirst).then(|| self.cells[0].current());
        self.entry.swap(0, Ordering::Relaxed);
        if self.mistake != Mistake::NoBarrierInUnmap {
            fence(Ordering::SeqCst);
        }
        let vmid = match self.mistake {
            Mistake::VmidReadFirst => early.flatten(),
            Mistake::OldMeansNone if self.cells[0].tag().generation() == 1 => None,
            _ => self.cells[0].current(),
        };
        if let Some(vmid) = vmid {
            self.with_tlbs(|tlbs, _| tlbs[usize::from(vmid)] = None);
        }
    }

    fn assert_unmapped(&self) {
        let held = self.with_tlbs(|tlbs, _| tlbs.contains(&Some(0)));
        assert!(!held, "an entry is left after its unmap");
    }
}

fn both(machine: &Arc<Machine>, other: impl FnOnce(&Machine) + Send + 'static) -> Join {
    let shared = machine.clone();
    Join(thread::spawn(move || other(&shared)))
}

struct Join(thread::JoinHandle<()>);

impl Join {
    fn wait(self) {
        self.0.join().unwrap();
    }
}

/// CPU 1 runs VM 0, which has VMID 1; CPU 0 runs a VM that needs a rollover and gets the first free.
fn rollover_against_run(mistake: Mistake) {
    model(move || {
        let machine = Machine::new(mistake);
        let other = both(&machine, |machine| {
            machine.run(1, 0);
        });
        machine.run(0, 3);
        other.wait();
    });
}

/// The same, and then both run the VM that may have kept its VMID.
fn rollover_against_two_vcpus() {
    model(|| {
        let machine = Machine::new(Mistake::None);
        let other = both(&machine, |machine| {
            let first = machine.enter(1, 0).vmid();
            machine.walk(0, first);
            machine.walk(0, first);
            machine.vmids.leave(1);
            machine.run(1, 1);
        });
        machine.run(0, 3);
        machine.run(0, 0);
        other.wait();
    });
}

/// CPU 1 renews VM 0's VMID, which is of an old generation, and walks; CPU 0 unmaps.
fn renewal_against_unmap(mistake: Mistake) {
    model(move || {
        let machine = Machine::new(mistake);
        machine.run(0, 3);
        // The rollover has removed what VM 0 had; it gets VMID 2 now.
        let other = both(&machine, |machine| machine.run_and_fetch(1));
        machine.unmap();
        other.wait();
        machine.assert_unmapped();
    });
}

/// CPU 1 runs VM 0 all the time, over a rollover of CPU 0, which then unmaps.
fn kept_vmid_against_unmap(mistake: Mistake) {
    model(move || {
        let machine = Machine::new(mistake);
        let other = both(&machine, |machine| machine.run_and_fetch(1));
        machine.run(0, 3);
        machine.unmap();
        other.wait();
        machine.assert_unmapped();
    });
}

#[test]
fn a_rollover_and_a_run_share_no_vmid() {
    rollover_against_run(Mistake::None);
}

#[test]
fn a_rollover_and_two_vcpus_share_no_vmid() {
    rollover_against_two_vcpus();
}

#[test]
#[should_panic(expected = "entries of two VMs under one VMID")]
fn entering_by_a_store_is_found() {
    rollover_against_run(Mistake::EnterByStore);
}

#[test]
#[should_panic(expected = "entries of two VMs under one VMID")]
fn leaving_before_vttbr_is_switched_is_found() {
    rollover_against_run(Mistake::LeaveTooEarly);
}

#[test]
#[should_panic(expected = "entries of two VMs under one VMID")]
fn invalidating_before_the_slots_are_read_is_found() {
    rollover_against_run(Mistake::InvalidateFirst);
}

#[test]
fn an_unmap_finds_the_vmid_of_a_renewal() {
    renewal_against_unmap(Mistake::None);
}

#[test]
fn an_unmap_finds_the_vmid_that_was_kept() {
    kept_vmid_against_unmap(Mistake::None);
}

#[test]
#[should_panic(expected = "an entry is left after its unmap")]
fn a_renewal_without_its_barrier_is_found() {
    renewal_against_unmap(Mistake::NoBarrierInRenewal);
}

#[test]
#[should_panic(expected = "an entry is left after its unmap")]
fn an_unmap_without_its_barrier_is_found() {
    renewal_against_unmap(Mistake::NoBarrierInUnmap);
}

#[test]
#[should_panic(expected = "an entry is left after its unmap")]
fn reading_the_vmid_before_the_clearing_is_found() {
    renewal_against_unmap(Mistake::VmidReadFirst);
}

#[test]
#[should_panic(expected = "an entry is left after its unmap")]
fn taking_an_old_generation_for_no_entries_is_found() {
    kept_vmid_against_unmap(Mistake::OldMeansNone);
}
