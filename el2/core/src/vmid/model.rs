//! Long random sequences of runs against TLBs that keep everything they may.
//!
//! The model's TLBs hold an entry for whatever ever ran under a VMID until an invalidation removes
//! it, and a guest that runs fills them again at once. What must hold after each step is the
//! module's invariant, read off the TLBs and not off the allocator.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::vec::Vec;

use super::{LastVcpu, Tlbs, VmidCell, VmidPool, Vmids};

const VM_COUNT: usize = 40;
const VCPU_COUNT: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    cpu: usize,
    vmid: u16,
    vm: usize,
    vcpu: u16,
}

struct State {
    entries: BTreeSet<Entry>,
    running: Vec<Option<Entry>>,
    /// VMIDs that were used since the last rollover or kept at it.
    used: BTreeSet<u16>,
    rollovers: u32,
}

struct Machine {
    vmids: Vmids,
    pool: RefCell<VmidPool>,
    cells: Vec<VmidCell>,
    last: Vec<Vec<LastVcpu>>,
    state: RefCell<State>,
    flushes_avoided: u32,
}

impl Tlbs for RefCell<State> {
    fn invalidate_all(&self) {
        let mut state = self.borrow_mut();
        assert!((1..=15).all(|vmid| state.used.contains(&vmid)), "a rollover in vain");
        state.entries = state.running.iter().flatten().copied().collect();
        state.used = state.entries.iter().map(|entry| entry.vmid).collect();
        state.rollovers += 1;
    }

    fn complete_stores(&self) {}
}

impl Machine {
    fn new(cpu_count: usize) -> Self {
        let state = State {
            entries: BTreeSet::new(),
            running: std::vec![None; cpu_count],
            used: BTreeSet::new(),
            rollovers: 0,
        };
        let marks = || (0..cpu_count).map(|_| LastVcpu::new()).collect();
        Self {
            vmids: Vmids::new(),
            pool: RefCell::new(VmidPool::new(4, cpu_count)),
            cells: (0..VM_COUNT).map(|_| VmidCell::new()).collect(),
            last: (0..VM_COUNT).map(|_| marks()).collect(),
            state: RefCell::new(state),
            flushes_avoided: 0,
        }
    }

    fn enter(&mut self, cpu: usize, vm: usize, vcpu: u16) {
        let entered =
            self.vmids.enter(cpu, &self.cells[vm], || self.pool.borrow_mut(), &self.state);
        let flush = self.last[vm][cpu].replace(entered, vcpu);
        let entry = Entry { cpu, vmid: entered.vmid(), vm, vcpu };
        let state = &mut *self.state.borrow_mut();
        if flush {
            state.entries.retain(|old| (old.cpu, old.vmid) != (cpu, entry.vmid));
        }
        self.flushes_avoided += u32::from(!flush);
        state.entries.insert(entry);
        state.used.insert(entry.vmid);
        state.running[cpu] = Some(entry);
    }

    fn leave(&mut self, cpu: usize) {
        self.state.borrow_mut().running[cpu] = None;
        self.vmids.leave(cpu);
    }

    fn check(&self, context: &str) {
        let entries = &self.state.borrow().entries;
        let mut owner = [None; 16];
        let mut vcpus = std::collections::BTreeMap::new();
        for entry in entries {
            assert!((1..=15).contains(&entry.vmid), "{context}: {entry:?}");
            let vm = *owner[usize::from(entry.vmid)].get_or_insert(entry.vm);
            assert_eq!(vm, entry.vm, "{context}: VMID {} has two VMs", entry.vmid);
            let vcpu = *vcpus.entry((entry.cpu, entry.vmid)).or_insert(entry.vcpu);
            assert_eq!(vcpu, entry.vcpu, "{context}: two vCPUs' entries, {entry:?}");
            let named = self.cells[entry.vm].current();
            assert_eq!(named, Some(entry.vmid), "{context}: an unmap would miss {entry:?}");
        }
    }
}

/// A generator that is the same everywhere (Marsaglia's xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn run(cpu_count: usize, seed: u64) {
    let (mut machine, mut random) = (Machine::new(cpu_count), Random(seed));
    for step in 0..4000 {
        let cpu = random.below(cpu_count as u64) as usize;
        if machine.state.borrow().running[cpu].is_some() {
            machine.leave(cpu);
        } else {
            // The lower half of the VMs runs more often than the rest.
            let vms = VM_COUNT as u64 / (1 + random.below(8));
            machine.enter(cpu, random.below(vms) as usize, random.below(VCPU_COUNT) as u16);
        }
        machine.check(&std::format!("{cpu_count} CPUs, seed {seed}, step {step}"));
    }
    assert!(machine.state.borrow().rollovers > 20, "{cpu_count} CPUs, seed {seed}");
    assert!(machine.flushes_avoided > 0, "{cpu_count} CPUs, seed {seed}");
}

#[test]
fn no_tlb_holds_entries_of_two_vms_under_one_vmid() {
    for cpu_count in [1, 2, 4, 14] {
        for seed in 1..=8 {
            run(cpu_count, 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        }
    }
}
