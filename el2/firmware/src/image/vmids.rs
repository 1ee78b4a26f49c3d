//! VMIDs in the CPU: who runs under which, and the invalidation at a rollover.

use log::warn;
use spin::mutex::TicketMutex;
use verdigris_core::vmid::{Entered, Tlbs, VmidPool, Vmids};

use super::percpu::PerCpu;
use super::sysreg::dsb_ish;
use super::system::Cpu;
use super::tlb::{self, Context};
use super::vm::Vm;
use super::{power, system};

static VMIDS: Vmids = Vmids::new();
static POOL: TicketMutex<VmidPool> = TicketMutex::new(VmidPool::new(8, 1));

/// Sizes the pool for the machine, once, before the first VM runs.
pub fn init() {
    let (wanted, cpu_count) = (system::selection().used.vmid_bits, power::cpu_count());
    let least = VmidPool::least_bits(cpu_count);
    if wanted < least {
        warn!(
            "vmid={wanted} leaves too few VMIDs for {cpu_count} CPUs, which need {} at least: \
             {least} bits are used",
            cpu_count + 2,
        );
    }
    POOL.lock().resize(wanted.max(least), cpu_count);
}

/// Returns how often all VMIDs were used up, so that everything was invalidated.
pub fn rollovers() -> u64 {
    VMIDS.rollovers()
}

struct AllTlbs;

impl Tlbs for AllTlbs {
    fn invalidate_all(&self) {
        dsb_ish();
        tlb::all();
        dsb_ish();
        if system::selection().errata.repeat_tlbi {
            tlb::repeat();
        }
    }

    fn complete_stores(&self) {
        dsb_ish();
    }
}

/// Makes this CPU one that runs the VM.
#[inline]
pub fn enter(percpu: &PerCpu, vm: &Vm) -> Entered {
    VMIDS.enter(percpu.index(), &vm.vmid, || POOL.lock(), &AllTlbs)
}

/// Returns the VM's stage 2 as this CPU walks it.
pub fn context(vm: &Vm, entered: Entered, cpu: &Cpu) -> Context {
    let vttbr = u64::from(entered.vmid()) << 48 | vm.stage2.root().pa().0;
    Context { vttbr, vtcr: vm.vtcr(cpu) }
}

/// Marks that this CPU runs no guest; the host's stage 2 is in force, and an ISB came after that.
pub fn leave(percpu: &PerCpu) {
    VMIDS.leave(percpu.index());
}
