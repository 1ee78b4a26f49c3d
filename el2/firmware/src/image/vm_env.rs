//! A VM's memory and the machine, as the stage-2 engine sees them during one call.
#![allow(unsafe_code)]

use core::arch::asm;
use core::cell::Cell;

use verdigris_abi::{Error, Pa, Stat};
use verdigris_core::ownership::Near;
use verdigris_stage2::hardware::{Cache, Counters, Cpus, Removed, Shares, Tlb};
use verdigris_stage2::sweep::GROUP;
use verdigris_stage2::{Entry, Level, PageSource, Table, TableMemory, TablePage};

use super::percpu::PerCpu;
use super::tlb::{self, Context, WalksOff};
use super::vm::Vm;
use super::{cache, memory, power, presence, sysreg};

/// What a call on a VM works with, on the CPU that makes it.
pub struct VmEnv<'a> {
    vm: &'a Vm,
    percpu: &'a PerCpu,
    /// What `leave` loads again; `None` where the VM's own context was in force.
    saved: Cell<Option<(Context, Option<Care>)>>,
}

impl<'a> VmEnv<'a> {
    /// Makes it for a VM on the calling CPU.
    pub fn new(vm: &'a Vm, percpu: &'a PerCpu) -> Self {
        Self { vm, percpu, saved: Cell::new(None) }
    }
}

/// What a CPU stops, beside EL1 itself, while its stage 2 is another's.
#[derive(Clone, Copy)]
struct Care(Option<WalksOff>);

impl Care {
    /// Stops the host's records, whose buffers are written through its stage 2, and speculative walks.
    #[inline(always)]
    fn begin(percpu: &PerCpu) -> Self {
        let cpu = percpu.cpu();
        if cpu.parts.stop_records() {
            percpu.host.profiling.set(cpu.stop_records());
        }
        Self(cpu.parts.stop_walks().then(WalksOff::begin))
    }

    /// Lets them go on, after the host's stage 2 is in force again.
    #[inline(always)]
    fn end(self, percpu: &PerCpu) {
        if let Some(walks) = self.0 {
            walks.end();
        }
        if percpu.cpu().parts.stop_records() {
            percpu.host.profiling.get().end();
        }
    }
}

impl TableMemory for VmEnv<'_> {
    fn table(&self, page: TablePage) -> &Table {
        // SAFETY: a `TablePage` of this VM's tree came from `alloc` below or is part of its root:
        // pages that were donated to the VM, and that are tables until the engine gives them back.
        unsafe { memory::as_table(page) }
    }

    #[inline(always)]
    fn any_bits(&self, group: &[Entry; GROUP]) -> u64 {
        let any: u64;
        // SAFETY: reads the eight entries behind the reference, and each by a single-copy atomic access of
        // its own (Arm ARM DDI 0487, B2.2.1: LDP of aligned 64-bit registers), as relaxed loads would.
        unsafe {
            asm!(
                "ldp {any}, {b}, [{group}]",
                "ldp {c}, {d}, [{group}, #16]",
                "ldp {e}, {f}, [{group}, #32]",
                "ldp {g}, {h}, [{group}, #48]",
                "orr {any}, {any}, {b}",
                "orr {c}, {c}, {d}",
                "orr {e}, {e}, {f}",
                "orr {g}, {g}, {h}",
                "orr {any}, {any}, {c}",
                "orr {e}, {e}, {g}",
                "orr {any}, {any}, {e}",
                group = in(reg) group,
                any = out(reg) any,
                b = out(reg) _,
                c = out(reg) _,
                d = out(reg) _,
                e = out(reg) _,
                f = out(reg) _,
                g = out(reg) _,
                h = out(reg) _,
                options(readonly, nostack, preserves_flags),
            );
        }
        any
    }
}

impl PageSource for VmEnv<'_> {
    fn alloc(&self) -> Option<TablePage> {
        let page = self.vm.pop_free()?;
        memory::zero(page, 1);
        self.vm.count(Stat::TablePages, 1);
        // SAFETY: a zeroed page of the VM's pool, a table from here on.
        Some(unsafe { TablePage::new(page) })
    }

    fn free(&self, page: TablePage) {
        self.vm.count(Stat::TablePages, u64::MAX);
        self.vm.push_free(page.pa());
    }
}

impl Tlb for VmEnv<'_> {
    fn enter(&self) {
        // A VM that never ran has nothing in any TLB; VMID 0 then names the host's entries, which it
        // can fetch again.
        let vmid = u64::from(self.vm.vmid.current().unwrap_or(0));
        let current = Context::current();
        if current.vttbr >> 48 == vmid {
            return;
        }
        // Only the host's own calls come here: while a guest runs, its VMID is the current one.
        let parts = self.percpu.cpu().parts;
        let care = parts.need_care_at_swap().then(|| Care::begin(self.percpu));
        self.saved.set(Some((current, care)));
        // An invalidation uses the VMID alone. Beside it stands a root without entries, so that no
        // walk under this VMID, which a rollover may give away meanwhile, leaves anything in a TLB.
        let wanted = Context {
            vttbr: vmid << 48 | memory::empty_root().0,
            vtcr: self.vm.vtcr(self.percpu.cpu()),
        };
        // SAFETY: an empty tree is live for ever; `leave` loads the former context before anyone runs.
        unsafe { wanted.load() };
    }

    fn leave(&self) {
        if let Some((context, care)) = self.saved.take() {
            // SAFETY: this was in force before.
            unsafe { context.load() };
            if let Some(care) = care {
                care.end(self.percpu);
            }
        }
    }

    tlb::instructions!();
}

impl Cache for VmEnv<'_> {
    fn clean(&self, pa: Pa, bytes: u64) {
        cache::clean(pa, bytes);
    }

    fn clean_invalidate(&self, pa: Pa, bytes: u64) {
        cache::clean_invalidate(pa, bytes);
    }

    fn invalidate_instructions(&self) {
        tlb::instruction_cache();
        sysreg::dsb_ish();
    }
}

impl Cpus for VmEnv<'_> {
    fn this_cpu(&self) -> usize {
        self.percpu.index()
    }

    fn cpu_count(&self) -> usize {
        power::cpu_count()
    }

    fn presence(&self, cpu: usize) -> u64 {
        presence::of(cpu)
    }

    fn interrupt_pending(&self) -> bool {
        sysreg::interrupt_pending()
    }
}

impl Shares for VmEnv<'_> {
    type Batch = Near<'static>;

    fn acquire(&self, pa: Pa, level: Level) -> Result<(), Error> {
        memory::share(pa, level)
    }

    fn release(&self, pa: Pa, level: Level) {
        memory::unshare(pa, level);
    }

    #[inline(always)]
    fn batch(&self, level: Level) -> Near<'static> {
        memory::near(level)
    }

    #[inline(always)]
    fn removed(&self, near: &mut Near<'static>, leaf: &Removed) {
        near.unshare(leaf.pa, memory::ownership);
    }
}

impl Counters for VmEnv<'_> {
    fn count(&self, stat: Stat, amount: u64) {
        self.vm.count(stat, amount);
    }
}
