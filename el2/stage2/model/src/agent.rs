//! The rest of the machine: the guest, its walkers, and other CPUs in EL2.
//!
//! They act at random moments, between two calls of the engine or in the middle of one. A guest's access
//! goes through whatever a TLB may hold or through a fresh walk; where the walker sets no flags, or the access is
//! denied, it faults into the engine on its own CPU, as often as it takes. A guest that faults for ever is a bug:
//! either of the engine, or of a TLB that was not emptied locally.

use crate::choices::Choices;
use crate::machine::{CPUS, Machine};
use crate::tlb::Cached;
use crate::walker::{Walk, bits, walk_from};
use std::cell::{Cell, RefCell};
use verdigris_stage2::{Access, AgeFlush, FaultKind, Ipa, Resolution, Stage2};

/// How an access of the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It was done.
    Done,
    /// The host has to decide; whether a leaf denied it.
    Host(bool),
    /// It would fault again: another CPU is between break and make.
    NotYet,
    /// The guest doesn't run.
    Rests,
}

/// Faults of one access until it is given up.
const PATIENCE: u32 = 6;

/// Who acts, and when.
pub struct Agent {
    choices: RefCell<Choices>,
    /// Moments until something happens.
    left: Cell<u64>,
    /// The longest wait.
    calm: Cell<u64>,
}

impl Agent {
    /// Makes an agent that hardly ever acts.
    pub const fn new(choices: Choices) -> Self {
        Self { choices: RefCell::new(choices), left: Cell::new(1000), calm: Cell::new(1000) }
    }

    /// Acts once in `calm / 2` moments from now on.
    pub fn act_every(&self, calm: u64) {
        self.calm.set(calm);
        self.left.set(self.left.get().min(calm));
    }

    /// Passes a moment.
    #[inline]
    pub(crate) fn pass(&self, machine: &Machine) {
        if machine.depth.get() != 1 {
            return;
        }
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 0 {
            self.left.set(self.below(self.calm.get()));
            self.act(machine);
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.choices.borrow_mut().below(bound)
    }

    /// Lets something happen.
    #[cold]
    pub(crate) fn act(&self, machine: &Machine) {
        machine.fill();
        let slot = self.below(machine.tlb.borrow().hot().len() as u64) as usize;
        match self.below(17) {
            0..=8 => drop(self.access_somehow(machine, slot)),
            9..=10 => speculate(machine, slot),
            11 => self.age(machine, slot),
            12 => machine.vmids.leave(),
            13 => neighbour(machine),
            14 => self.stray_fault(machine, slot),
            15 => self.loiter(machine, slot),
            _ => machine.vmids.enter(machine),
        }
        machine.fill();
    }

    /// Chooses another CPU than the one that is in EL2.
    fn other_cpu(&self, machine: &Machine) -> usize {
        let next = |after: u64| (machine.cpu() + 1 + after as usize) % CPUS;
        let after = self.below(CPUS as u64 - 1);
        let cpu = next(after);
        if machine.is_inside(cpu) { next((after + 1) % (CPUS as u64 - 1)) } else { cpu }
    }

    /// Lets another CPU come into EL2 and stay for a while, or leave.
    fn loiter(&self, machine: &Machine, slot: usize) {
        let ipa = machine.tlb.borrow().hot().nth(slot).expect("a hot address");
        machine.loiter(self.other_cpu(machine), ipa);
    }

    fn access_somehow(&self, machine: &Machine, slot: usize) -> Reached {
        let access =
            self.choices.borrow_mut().pick(&[Access::Read, Access::Write, Access::Execute]);
        self.access(machine, slot, self.other_cpu(machine), access)
    }

    /// Lets the guest access a hot address on a CPU, through all faults that EL2 resolves.
    pub(crate) fn access(
        &self,
        machine: &Machine,
        slot: usize,
        cpu: usize,
        access: Access,
    ) -> Reached {
        let Some(vmid) = machine.vmids.running() else {
            return Reached::Rests;
        };
        let ipa = machine.tlb.borrow().hot().nth(slot).expect("a hot address");
        let stubborn = self.below(2) == 0;
        for _ in 0..PATIENCE {
            machine.fill();
            let kind = match self.try_access(machine, slot, (ipa, vmid, cpu, access), stubborn) {
                Ok(()) => return Reached::Done,
                Err(kind) => kind,
            };
            match machine.on_cpu(cpu, |vm| answer(machine, vm, ipa, access, kind)) {
                Resolution::ToHost { denied, .. } => {
                    machine.record.borrow_mut().refused.push((slot, access));
                    return Reached::Host(denied);
                }
                Resolution::Resolved => disturb(machine, ipa),
                Resolution::Spurious => {}
            }
        }
        Reached::NotYet
    }

    /// Tries an access once: by an entry that a TLB may hold, or by a walk.
    fn try_access(
        &self,
        machine: &Machine,
        slot: usize,
        (ipa, vmid, cpu, access): (u64, u16, usize, Access),
        stubborn: bool,
    ) -> Result<(), FaultKind> {
        let held = {
            let tlb = machine.tlb.borrow();
            let count = tlb.cached(slot, vmid, cpu).count() as u64;
            let denied = |leaf: &&Cached| !allows(leaf.raw, access);
            match stubborn.then(|| tlb.cached(slot, vmid, cpu).find(denied)).flatten() {
                Some(leaf) => Some(leaf.raw),
                None => {
                    let number = self.below(count + 1) as usize;
                    tlb.cached(slot, vmid, cpu).nth(number).map(|leaf| leaf.raw)
                }
            }
        };
        match held {
            Some(raw) if allows(raw, access) => {
                note_write(machine, ipa, access);
                Ok(())
            }
            // A clean leaf that the walker may make dirty: it goes to memory for that.
            Some(raw) if !(raw & bits::DBM != 0 && access == Access::Write) => {
                Err(FaultKind::Permission)
            }
            _ => walk_for(machine, ipa, access, &self.walk(machine, slot, vmid, ipa)),
        }
    }

    /// Walks for a hot address: from the root, or from where a walk cache leads.
    fn walk(&self, machine: &Machine, slot: usize, vmid: u16, ipa: u64) -> Walk {
        let tlb = machine.tlb.borrow();
        let count = tlb.cached_tables(slot, vmid).count() as u64;
        match tlb.cached_tables(slot, vmid).nth(self.below(count + 1) as usize) {
            Some((level, table)) => walk_from(&machine.memory, level, table, ipa),
            None => machine.walk(ipa / 4096),
        }
    }

    /// Ages a few pages around a hot address on another CPU, without a flush.
    fn age(&self, machine: &Machine, slot: usize) {
        let ipa = machine.tlb.borrow().hot().nth(slot).expect("a hot address");
        let page = (ipa / 4096).saturating_sub(self.below(3));
        let pages = 1 + self.below(4);
        let Ok(range) = machine.vm().range(Ipa(page * 4096), pages) else {
            return;
        };
        let cpu = self.other_cpu(machine);
        machine.record.borrow_mut().aged = true;
        let _ = machine.on_cpu(cpu, |vm| vm.age(machine, range, AgeFlush::None, |_, _| {}));
        machine.record.borrow_mut().disturbed.extend(page..page + pages);
    }

    /// A fault whose cause may be gone, or never was.
    fn stray_fault(&self, machine: &Machine, slot: usize) {
        let ipa = machine.tlb.borrow().hot().nth(slot).expect("a hot address");
        let kind = [FaultKind::Translation, FaultKind::AccessFlag, FaultKind::Permission];
        let (kind, access) = {
            let mut choices = self.choices.borrow_mut();
            let access = choices.pick(&[Access::Read, Access::Write, Access::Execute]);
            (choices.pick(&kind), access)
        };
        let cpu = self.other_cpu(machine);
        let _ = machine.on_cpu(cpu, |vm| answer(machine, vm, ipa, access, kind));
        disturb(machine, ipa);
    }
}

/// Answers a fault as the firmware does: the quick way first.
fn answer(machine: &Machine, vm: &Stage2, ipa: u64, access: Access, kind: FaultKind) -> Resolution {
    if kind != FaultKind::Translation && vm.resolve_quickly(machine, Ipa(ipa), access, kind) {
        return Resolution::Resolved;
    }
    vm.resolve_fault(machine, Ipa(ipa), access, kind)
}

/// Runs another VM once, on another CPU: nothing of ours may be held under its VMID.
fn neighbour(machine: &Machine) {
    let vmid = machine.vmids.neighbour(machine);
    machine.tlb.borrow().check_unused(vmid);
}

/// Sets an access flag as a speculative walk does.
fn speculate(machine: &Machine, slot: usize) {
    if machine.settings.access_flag && machine.vmids.running().is_some() {
        let ipa = machine.tlb.borrow().hot().nth(slot).expect("a hot address");
        let walk = machine.walk(ipa / 4096);
        if walk.is_leaf() {
            let _ = update(machine, ipa, &walk, walk.raw | bits::AF);
        }
    }
}

/// Accesses memory by a walk, which sets access flag and dirty state where it is made to.
fn walk_for(machine: &Machine, ipa: u64, access: Access, walk: &Walk) -> Result<(), FaultKind> {
    if !walk.is_leaf() {
        return Err(FaultKind::Translation);
    }
    let mut new = walk.raw;
    if new & bits::AF == 0 {
        if !machine.settings.access_flag {
            return Err(FaultKind::AccessFlag);
        }
        new |= bits::AF;
    }
    if access == Access::Write && machine.settings.dirty_state && new & bits::DBM != 0 {
        new |= bits::WRITE;
    }
    if !allows(new, access) {
        return Err(FaultKind::Permission);
    }
    if update(machine, ipa, walk, new) {
        note_write(machine, ipa, access);
    }
    Ok(())
}

fn update(machine: &Machine, ipa: u64, walk: &Walk, new: u64) -> bool {
    if new != walk.raw {
        disturb(machine, ipa);
        return machine.memory.update(walk.at, walk.raw, new);
    }
    true
}

fn disturb(machine: &Machine, ipa: u64) {
    machine.record.borrow_mut().disturbed.push(ipa / 4096);
}

fn note_write(machine: &Machine, ipa: u64, access: Access) {
    if access == Access::Write {
        machine.record.borrow_mut().written.push(ipa / 4096);
    }
}

fn allows(raw: u64, access: Access) -> bool {
    match access {
        Access::Read => raw & bits::READ != 0,
        Access::Write => raw & bits::WRITE != 0,
        Access::Execute => raw & bits::XN == 0,
    }
}
