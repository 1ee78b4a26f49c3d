//! vCPUs: where their registers live, and the loop that runs them.
//!
//! A vCPU is a page of donated memory. Its lock is taken for a whole run, so that nobody reads or
//! changes registers that a CPU holds. A run ends when the host is needed: what EL2 can answer alone
//! (access flags, relaxed permissions, traps, lazily switched registers) never leaves the loop.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, Readable, SPSR_EL2};
use log::LevelFilter;
use verdigris_abi::{Error, ExitReason, Ipa, PAGE_SIZE, Pa, REGS_PER_CALL, Stat, Status};
use verdigris_core::call::{Call, Registers, VcpuHandle};
use verdigris_core::esr::{Abort, FaultStatus, Syndrome};
use verdigris_core::guest::{
    Context, ExitRecord, Machine, Outcome, Pending, Slot, StageTwoFault, call_exit, decide, resume,
};
use verdigris_stage2::hardware::Cache;
use verdigris_stage2::{FaultKind, Resolution};

use super::fault::{translate, wanted};
use super::percpu::PerCpu;
use super::presence::Stay;
use super::switch::World;
use super::vm::{Held, Vm};
use super::vm_env::VmEnv;
use super::{boot, crash, hypercall, memory, sysreg, tlb};

/// log2 of the number of pages of a vCPU's region.
pub const REGION_ORDER: u32 = 0;

/// A vCPU, in its donated page.
pub struct Vcpu {
    busy: AtomicBool,
    state: UnsafeCell<State>,
}

/// What a run changes.
pub struct State {
    /// The registers.
    pub context: Context,
    /// What the last exit left open.
    pending: Pending,
}

impl State {
    /// Returns the state in which a vCPU starts: all of it, so that nothing of a former life can stay.
    fn reset(midr: u64, index: u8) -> Self {
        Self { context: Context::reset(midr, index.into()), pending: None }
    }
}

const _: () = assert!(size_of::<Vcpu>() <= (PAGE_SIZE as usize) << REGION_ORDER);

// SAFETY: `state` is reached through `Guard` alone, of which there is one at a time.
unsafe impl Sync for Vcpu {}

/// The right to use a vCPU's state.
pub struct Guard(&'static Vcpu);

impl Guard {
    /// Finds a vCPU of a VM and takes it; BUSY where another CPU has it.
    pub fn take(vm: &Vm, index: u8) -> Status<Self> {
        let vcpu = find(vm, index)?;
        if vcpu.busy.swap(true, Ordering::Acquire) {
            return Err(Error::Busy);
        }
        Ok(Self(vcpu))
    }

    /// Borrows the state.
    pub fn state(&mut self) -> &mut State {
        // SAFETY: this is the only guard, and it is borrowed mutably.
        unsafe { &mut *self.0.state.get() }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Finds a vCPU of a VM, in use or not.
fn find(vm: &Vm, index: u8) -> Status<&'static Vcpu> {
    let address = vm.vcpus[usize::from(index)].load(Ordering::Acquire);
    if address <= CLAIMED {
        return Err(Error::NoEntry);
    }
    // SAFETY: a page that `create` made a `Vcpu` of; it stays one until the VM ends, and the
    // caller's reference to the VM keeps that from happening.
    Ok(unsafe { &*(address as *const Vcpu) })
}

/// In the table of vCPUs: being created.
const CLAIMED: u64 = 1;

/// Creates a vCPU in a region of the host's memory, which is donated to its VM.
pub fn create(vm: &Vm, handle: VcpuHandle, region: Pa) -> Status {
    let entry = &vm.vcpus[usize::from(handle.index)];
    entry
        .compare_exchange(0, CLAIMED, Ordering::Relaxed, Ordering::Relaxed)
        .map_err(|_| Error::Exists)?;
    if let Err(error) = memory::donate(region, 1 << REGION_ORDER, vm.handle) {
        entry.store(0, Ordering::Relaxed);
        return Err(error);
    }
    vm.count_donated(1 << REGION_ORDER);
    let vcpu = Vcpu {
        busy: AtomicBool::new(false),
        state: UnsafeCell::new(State::reset(sysreg::read!("midr_el1"), handle.index)),
    };
    // SAFETY: a page that belongs to this VM from now on and that nobody else uses.
    unsafe { (region.0 as *mut Vcpu).write(vcpu) };
    entry.store(region.0, Ordering::Release);
    Ok(())
}

/// Reads a register by its identifier.
pub fn get_register(vm: &Vm, index: u8, register: u64, percpu: &PerCpu) -> Status<u64> {
    Guard::take(vm, index)?.state().context.get(register, &machine(vm, percpu))
}

/// Writes a register by its identifier.
pub fn set_register(vm: &Vm, index: u8, register: u64, value: u64, percpu: &PerCpu) -> Status {
    Guard::take(vm, index)?.state().context.set(register, value, &machine(vm, percpu))
}

/// Writes the identifiers of a vCPU's registers to x2 and up, from number `first` on, and how many there
/// are to x1. They are not part of its state: a vCPU that runs has the same.
pub fn list_registers(
    vm: &Vm,
    index: u8,
    first: u64,
    x: &mut Registers,
    percpu: &PerCpu,
) -> Status {
    find(vm, index)?;
    let mut listed = [u64::MAX; REGS_PER_CALL as usize];
    let mut count = 0;
    for identifier in Context::identifiers(machine(vm, percpu)) {
        if count >= first
            && let Some(place) = listed.get_mut((count - first) as usize)
        {
            *place = identifier;
        }
        count += 1;
    }
    if first >= count {
        return Err(Error::Invalid);
    }
    x[1] = count;
    x[2..].copy_from_slice(&listed);
    Ok(())
}

/// Gives a vCPU the state in which it was created.
///
/// The model of the CPU stays what the guest was told. What other CPUs' TLBs and instruction caches
/// hold of its former life goes too: its new one starts with its MMU off, and the host may have put
/// another program into the memory that it starts in.
pub fn reset(vm: &Vm, index: u8, percpu: &PerCpu) -> Status {
    let mut guard = Guard::take(vm, index)?;
    let state = guard.state();
    *state = State::reset(state.context.system.get(Slot::Vpidr), index);
    let env = VmEnv::new(vm, percpu);
    vm.stage2.flush_all(&env);
    env.invalidate_instructions();
    Ok(())
}

fn machine<'a>(vm: &Vm, percpu: &'a PerCpu) -> Machine<'a> {
    Machine { raw: &percpu.cpu().id, ipa_bits: vm.ipa_bits() as u8 }
}

/// Answers VCPU_RUN: runs a vCPU on this CPU until the host is needed, and writes why to x1 and on.
#[inline(never)]
pub fn answer_run(x: &mut Registers, percpu: &PerCpu) {
    if log::max_level() == LevelFilter::Trace {
        hypercall::trace_call(x, percpu);
    }
    x[0] = match run(x, percpu) {
        Ok(()) => 0,
        Err(error) => error.code() as u64,
    };
}

#[inline(always)]
fn run(x: &mut Registers, percpu: &PerCpu) -> Status {
    let vcpu = Call::decode_run(x)?;
    let cpu = percpu.cpu();
    if cpu.parts.is_host_streaming() {
        return Err(Error::Busy);
    }
    let held = Held::get(vcpu.vm)?;
    let vm = held.vm();
    let mut guard = Guard::take(vm, vcpu.index)?;
    let State { context, pending } = guard.state();
    let exception = resume(context, pending, x[3], x[4])?;
    vm.count(Stat::Runs, 1);
    percpu.running.set(Some(vm));
    let mut world = World::enter(vm, vcpu.index.into(), context, percpu, cpu);
    if context.debug.is_active() {
        world.load_debug(&context.debug);
    }
    if let Some(exception) = exception {
        world.inject(context, exception);
    }
    let mut runner = Runner { vm, percpu, world: &mut world };
    let reason = loop {
        let kind = runner.enter(context);
        crash::stop_if_reporting();
        let syndrome = Syndrome(ESR_EL2.get());
        // The most frequent of exits needs no decoding.
        if kind == KIND_SYNCHRONOUS && syndrome.class() == CLASS_HVC {
            break call_exit(syndrome.immediate(), false, context).put(x);
        }
        if let Some(record) = runner.handle(kind, syndrome, context, pending) {
            break record.put(x);
        }
    };
    world.leave(context);
    percpu.running.set(None);
    vm.count(exit_stat(reason), 1);
    Ok(())
}

/// The exception class of HVC (Arm ARM D24.2.40).
const CLASS_HVC: u8 = 0x16;

fn exit_stat(reason: ExitReason) -> Stat {
    match reason {
        ExitReason::Interrupt => Stat::ExitInterrupt,
        ExitReason::Fault => Stat::ExitFault,
        ExitReason::Hypercall => Stat::ExitHypercall,
        ExitReason::Wait => Stat::ExitWait,
        ExitReason::Shutdown => Stat::ExitShutdown,
        ExitReason::SError => Stat::ExitSError,
        ExitReason::Unhandled => Stat::ExitUnhandled,
    }
}

/// A run in progress.
struct Runner<'a, 'w> {
    vm: &'static Vm,
    percpu: &'a PerCpu,
    world: &'w mut World<'a>,
}

/// The vector that an exit took, as `guest.S` numbers them.
const KIND_SYNCHRONOUS: u64 = 0;
const KIND_SERROR: u64 = 3;

impl Runner<'_, '_> {
    /// Enters the guest and returns the kind of its next exception.
    fn enter(&mut self, context: &mut Context) -> u64 {
        // SAFETY: the guest's context is loaded; PSTATE was checked to be one of EL1 or EL0.
        unsafe {
            sysreg::write!("elr_el2", context.general.pc);
            sysreg::write!("spsr_el2", context.general.pstate);
            let kind = boot::enter_guest(context, self.percpu);
            context.general.pc = ELR_EL2.get();
            context.general.pstate = SPSR_EL2.get();
            kind
        }
    }

    /// Handles an exception of the guest; `None` lets it run on.
    #[inline(never)]
    fn handle(
        &mut self,
        kind: u64,
        syndrome: Syndrome,
        context: &mut Context,
        pending: &mut Pending,
    ) -> Option<ExitRecord> {
        match kind {
            KIND_SYNCHRONOUS => {}
            KIND_SERROR => return Some(ExitRecord::new(ExitReason::SError).with(4, syndrome.0)),
            _ => return Some(ExitRecord::new(ExitReason::Interrupt)),
        }
        let far = FAR_EL2.get();
        match decide(syndrome, far, context, &machine(self.vm, self.percpu)) {
            Outcome::Resume => self.vm.count(Stat::Traps, 1),
            Outcome::Inject(exception) => {
                self.vm.count(Stat::Traps, 1);
                self.world.inject(context, exception);
            }
            Outcome::Exit(record) => return Some(record),
            Outcome::LoadFp => self.world.load_fp(&context.fp),
            Outcome::LoadDebug => {
                self.vm.count(Stat::Traps, 1);
                self.world.load_debug(&context.debug);
            }
            Outcome::StageTwo(fault) => return self.stage_two(fault, pending),
            Outcome::TlbConflict => {
                self.vm.count(Stat::FaultOther, 1);
                tlb::vmid_local();
                sysreg::dsb_nsh();
                sysreg::isb();
            }
        }
        None
    }

    /// Answers a stage-2 fault from the tables, or makes the exit that asks the host.
    fn stage_two(&self, fault: StageTwoFault, pending: &mut Pending) -> Option<ExitRecord> {
        let Some(ipa) = self.fault_ipa(&fault.abort, fault.far) else {
            // The guest's own tables changed under its access: it will try again.
            self.vm.count(Stat::FaultSpurious, 1);
            return None;
        };
        let kind = match fault.abort.status {
            FaultStatus::AccessFlag(_) => FaultKind::AccessFlag,
            FaultStatus::Permission(_) => FaultKind::Permission,
            _ => FaultKind::Translation,
        };
        if matches!(fault.abort.status, FaultStatus::AddressSize(_)) {
            self.vm.count(Stat::FaultOther, 1);
            *pending = Some(fault);
            return Some(ExitRecord::fault(&fault, ipa, self.vm.stage2.sequence()));
        }
        let _stay = Stay::begin(self.percpu.index());
        let env = VmEnv::new(self.vm, self.percpu);
        match self.vm.stage2.resolve_fault(&env, ipa, wanted(&fault.abort), kind) {
            Resolution::Resolved | Resolution::Spurious => None,
            Resolution::ToHost { sequence, .. } => {
                *pending = Some(fault);
                Some(ExitRecord::fault(&fault, ipa, sequence))
            }
        }
    }

    /// Finds the faulting IPA; `None` where stage 1 no longer leads there.
    fn fault_ipa(&self, abort: &Abort, far: u64) -> Option<Ipa> {
        let walk_again = self.percpu.cpu().selection.errata.rewalk_on_fault
            && matches!(abort.status, FaultStatus::Translation(_))
            && !abort.table_walk;
        if abort.is_hpfar_valid() && !walk_again {
            return Some(abort.ipa(HPFAR_EL2.get(), far));
        }
        translate(far, self.percpu.cpu().parts)
    }
}
