//! The world switch: everything of EL1 that differs between the host and a guest.
//!
//! One list in `verdigris_core::guest` names the registers that are saved and loaded, so none can be
//! forgotten on one side. What the host has is kept in its CPU's [`HostState`], what a guest has in its
//! context; both in place, so that a switch copies nothing twice.
//!
//! # Order
//!
//! When EL2 is entered, walks of EL1&0 that began before may go on. So a DSB comes before the first
//! register of that regime is changed; after it, nothing is walked or fetched through EL1&0 until the
//! ERET (Arm ARM D8.1.5, out-of-context translation regimes, R_LFHQG and what follows it). On the way in
//! it is the `dsb nsh` here, on the way out the `dsb sy` of `guest_leave`. Between it and the ERET, which
//! synchronises all that was written (SCTLR_EL2.EOS is 1), the order of writes means nothing, and no
//! ISB is needed but before an instruction that works on what was written: a local invalidation.
//!
//! Some parts walk all the same, by an AT that they execute speculatively. There, stage-1 walks are
//! off for the whole of it ([`WalksOff`]), stage 2 changes before stage 1, and each step is
//! synchronised by an ISB of its own.
#![allow(unsafe_code)]

use core::cell::Cell;

use aarch64_cpu::registers::{ELR_EL2, Readable, SPSR_EL2};
use verdigris_abi::Stat;
use verdigris_core::cpu::{Controls, CpuSelection, Fixed, IdRegisters};
use verdigris_core::exception::{Exception, Interrupted, enter};
use verdigris_core::for_each_switched;
use verdigris_core::guest::{Context, DebugRegisters, FpRegisters, Group, Slot, SystemRegisters};

use super::percpu::PerCpu;
use super::profiling::{self, Stopped};
use super::system::Cpu;
use super::tlb::{self, WalksOff};
use super::vm::Vm;
use super::{boot, debug_regs, sysreg, system, vmids};

/// Places of the switched registers, of the host or of a guest.
type Registers = [Cell<u64>; Slot::COUNT];

/// Looks at a guest's places as at the host's.
fn places(registers: &mut SystemRegisters) -> &Registers {
    let cells = Cell::from_mut(&mut registers.0[..]).as_slice_of_cells();
    cells.try_into().expect("a cell for each place")
}

/// Makes a function that reads the registers of a group into their places: two at a time, which go to
/// memory by one instruction.
macro_rules! save_pairs {
    (@rows $to:ident) => {};
    (@rows $to:ident $group:ident $a:ident $asm_a:literal $code_a:tt = $reset_a:literal;
            $same:ident $b:ident $asm_b:literal $code_b:tt = $reset_b:literal; $($rest:tt)*) => {
        if Group::$group as usize == GROUP && Group::$same as usize == GROUP {
            let (a, b) = (sysreg::read!($asm_a), sysreg::read!($asm_b));
            $to[Slot::$a as usize].set(a);
            $to[Slot::$b as usize].set(b);
        } else if Group::$group as usize == GROUP {
            $to[Slot::$a as usize].set(sysreg::read!($asm_a));
        } else if Group::$same as usize == GROUP {
            $to[Slot::$b as usize].set(sysreg::read!($asm_b));
        }
        save_pairs!(@rows $to $($rest)*);
    };
    (@rows $to:ident $group:ident $a:ident $asm_a:literal $code_a:tt = $reset_a:literal;) => {
        if Group::$group as usize == GROUP {
            $to[Slot::$a as usize].set(sysreg::read!($asm_a));
        }
    };
    ($($rows:tt)*) => {
        #[inline(always)]
        fn save_group<const GROUP: usize>(to: &Registers) {
            save_pairs!(@rows to $($rows)*);
        }
    };
}

/// Makes a function that loads the registers of a group from their places.
macro_rules! load_pairs {
    (@rows $from:ident) => {};
    (@rows $from:ident $group:ident $a:ident $asm_a:literal $code_a:tt = $reset_a:literal;
            $same:ident $b:ident $asm_b:literal $code_b:tt = $reset_b:literal; $($rest:tt)*) => {
        let (a, b) = ($from[Slot::$a as usize].get(), $from[Slot::$b as usize].get());
        // SAFETY: the caller's word; registers of EL1, or of EL2 that speak of EL1.
        unsafe {
            if Group::$group as usize == GROUP {
                sysreg::write!($asm_a, a);
            }
            if Group::$same as usize == GROUP {
                sysreg::write!($asm_b, b);
            }
        }
        load_pairs!(@rows $from $($rest)*);
    };
    (@rows $from:ident $group:ident $a:ident $asm_a:literal $code_a:tt = $reset_a:literal;) => {
        if Group::$group as usize == GROUP {
            // SAFETY: as above.
            unsafe { sysreg::write!($asm_a, $from[Slot::$a as usize].get()) };
        }
    };
    ($($rows:tt)*) => {
        /// # Safety
        /// EL1 does not run before all of its context is loaded.
        #[inline(always)]
        unsafe fn load_group<const GROUP: usize>(from: &Registers) {
            load_pairs!(@rows from $($rows)*);
        }
    };
}

for_each_switched!(save_pairs);
for_each_switched!(load_pairs);

const WALKS: usize = Group::Walks as usize;
const BASE: usize = Group::Base as usize;
const POINTER_AUTH: usize = Group::PointerAuth as usize;
const RAS: usize = Group::Ras as usize;
const VIRTUAL: usize = Group::Virtual as usize;
const AUXILIARY: usize = Group::Auxiliary as usize;

/// What the switch does on a CPU beside what it does on all, as bits: one load answers all questions.
#[derive(Clone, Copy)]
pub struct Parts(u32);

impl Parts {
    /// Of a CPU that doesn't know itself yet.
    pub const NONE: Self = Self(0);

    const POINTER_AUTH: u32 = 1 << 0;
    const RAS: u32 = 1 << 1;
    /// The host's records of its own run are stopped.
    const RECORDS: u32 = 1 << 2;
    /// Walks are off while contexts are mixed.
    const WALKS_OFF: u32 = 1 << 3;
    /// The host may be in streaming mode.
    const STREAMING: u32 = 1 << 4;
    /// The part has something in its auxiliary registers.
    const AUXILIARY: u32 = 1 << 5;
    /// Reads of PAR_EL1 stand between barriers.
    const PAR_BARRIERS: u32 = 1 << 6;

    /// Finds them, on the CPU itself.
    pub fn of(id: &IdRegisters, fixed: &Fixed, selection: &CpuSelection) -> Self {
        let parts = [
            (Group::PointerAuth.is_present(id), Self::POINTER_AUTH),
            (Group::Ras.is_present(id), Self::RAS),
            (profiling::is_present(id, fixed), Self::RECORDS),
            (selection.errata.speculative_at, Self::WALKS_OFF),
            (id.has_sme(), Self::STREAMING),
            (has_auxiliary(), Self::AUXILIARY),
            (selection.errata.par_barriers, Self::PAR_BARRIERS),
        ];
        Self(parts.iter().filter(|(has, _)| *has).fold(0, |bits, (_, bit)| bits | bit))
    }

    /// Keeps a read of PAR_EL1 apart from loads before or behind it, where an erratum asks for that
    /// (Cortex-A77, 1508412): to be called on both sides.
    #[inline(always)]
    pub fn keep_par_apart(self) {
        if self.has(Self::PAR_BARRIERS) {
            sysreg::dmb_sy();
        }
    }

    /// Tells whether a change of stage 2 alone, for a call, needs care: records stop, or walks do.
    #[inline(always)]
    pub const fn need_care_at_swap(self) -> bool {
        self.0 & (Self::RECORDS | Self::WALKS_OFF) != 0
    }

    /// Tells whether the host's records of its own run are stopped.
    pub const fn stop_records(self) -> bool {
        self.has(Self::RECORDS)
    }

    /// Tells whether walks are off while contexts are mixed.
    pub const fn stop_walks(self) -> bool {
        self.has(Self::WALKS_OFF)
    }

    const fn has(self, part: u32) -> bool {
        self.0 & part != 0
    }

    /// Tells whether the host is in streaming mode (SVCR.SM), where FP registers are not what they seem.
    pub fn is_host_streaming(self) -> bool {
        self.has(Self::STREAMING) && sysreg::read!("s3_3_c4_c2_2") & 1 != 0
    }
}

/// Tells whether a bit of a register can be set, and leaves the register as it was.
macro_rules! holds_anything {
    ($name:literal) => {{
        let saved = sysreg::read!($name);
        // SAFETY: a register of EL1, which doesn't run meanwhile.
        unsafe { sysreg::write!($name, u64::MAX) };
        let ones = sysreg::read!($name);
        // SAFETY: what was there before.
        unsafe { sysreg::write!($name, saved) };
        ones != 0
    }};
}

/// Tells whether this CPU has anything in its auxiliary registers, which no ID register says.
fn has_auxiliary() -> bool {
    let has =
        [holds_anything!("afsr0_el1"), holds_anything!("afsr1_el1"), holds_anything!("amair_el1")];
    has.contains(&true)
}

/// What the host has in a CPU, while a guest runs there. The registers come first, where they are
/// reached by instructions that move two.
#[repr(C)]
pub struct HostState {
    registers: Registers,
    /// Its stage 2, which never changes.
    stage2: Cell<tlb::Context>,
    /// Saved where the guest has debug registers in the CPU.
    debug: Cell<DebugRegisters>,
    /// Saved where the CPU records the host's run, while a guest's stage 2 is in force.
    pub profiling: Cell<Stopped>,
}

impl HostState {
    /// Makes the place of a CPU that has not run yet.
    pub const fn new() -> Self {
        Self {
            stage2: Cell::new(tlb::Context { vttbr: 0, vtcr: 0 }),
            registers: [const { Cell::new(0) }; Slot::COUNT],
            debug: Cell::new(DebugRegisters::reset()),
            profiling: Cell::new(Stopped::NOTHING),
        }
    }

    /// Sets what the host can't change and no switch saves.
    pub fn init(&self, stage2: tlb::Context, fixed: &Fixed) {
        self.stage2.set(stage2);
        self.registers[Slot::Cntvoff as usize].set(fixed.cntvoff);
        self.registers[Slot::Vpidr as usize].set(fixed.vpidr);
        self.registers[Slot::Vmpidr as usize].set(fixed.vmpidr);
    }
}

/// A guest in the CPU: the way back to the host, and what the guest has beside its registers' places.
pub struct World<'a> {
    vm: &'static Vm,
    percpu: &'a PerCpu,
    cpu: &'a Cpu,
    host_sp_el0: u64,
    host_mdscr: u64,
    /// Where the host goes on: ELR_EL2 and SPSR_EL2.
    host_return: [u64; 2],
    /// What the guest has in the CPU beside the rest: bits of [`FP`] and [`DEBUG`].
    lazily_loaded: u8,
}

/// The FP/SIMD registers.
const FP: u8 = 1 << 0;
/// The debug registers.
const DEBUG: u8 = 1 << 1;

impl<'a> World<'a> {
    /// Makes this CPU the guest's, up to its general registers, and its debug registers where it has
    /// them in use ([`Self::load_debug`]).
    #[inline(always)]
    pub fn enter(
        vm: &'static Vm,
        vcpu_index: u16,
        context: &mut Context,
        percpu: &'a PerCpu,
        cpu: &'a Cpu,
    ) -> Self {
        let world = Self {
            vm,
            percpu,
            cpu,
            host_sp_el0: sysreg::read!("sp_el0"),
            host_mdscr: sysreg::read!("mdscr_el1"),
            host_return: [ELR_EL2.get(), SPSR_EL2.get()],
            lazily_loaded: 0,
        };
        if cpu.parts.has(Parts::RECORDS) {
            percpu.host.profiling.set(cpu.stop_records());
        }
        let host = &percpu.host.registers;
        save(host, cpu.parts);
        sysreg::dsb_nsh();
        let entered = vmids::enter(percpu, vm);
        let stage2 = vmids::context(vm, entered, cpu);
        let registers = places(&mut context.system);
        // SAFETY: the guest's context, after all of the host's is saved.
        unsafe {
            load(stage2, registers, host, cpu.parts);
            if cpu.parts.has(Parts::RAS) {
                load_group::<RAS>(registers);
            }
            sysreg::write!("sp_el0", context.general.sp_el0);
            sysreg::write!("mdscr_el1", context.debug.hardware_mdscr());
            cpu.to_guest.write();
        }
        if vm.last_vcpu[percpu.index()].replace(entered, vcpu_index) {
            forget_the_last_vcpu();
        }
        world
    }

    /// Makes this CPU the host's again.
    #[inline(always)]
    pub fn leave(&self, context: &mut Context) {
        let (percpu, parts) = (self.percpu, self.cpu.parts);
        let registers = places(&mut context.system);
        save(registers, parts);
        if parts.has(Parts::RAS) {
            save_group::<RAS>(registers);
        }
        context.general.sp_el0 = sysreg::read!("sp_el0");
        if self.lazily_loaded != 0 {
            self.leave_lazy(context);
        }
        // SAFETY: what the host had, after all of the guest's is saved.
        unsafe {
            load(
                percpu.host.stage2.get(),
                &percpu.host.registers,
                places(&mut context.system),
                parts,
            );
            sysreg::write!("sp_el0", self.host_sp_el0);
            sysreg::write!("mdscr_el1", self.host_mdscr);
            sysreg::write!("elr_el2", self.host_return[0]);
            sysreg::write!("spsr_el2", self.host_return[1]);
            self.cpu.to_host.write();
        }
        if parts.has(Parts::RECORDS) {
            percpu.host.profiling.get().end();
        }
        // The slot is given up after VTTBR_EL2 names the host for certain.
        sysreg::isb();
        vmids::leave(percpu);
    }

    #[cold]
    #[inline(never)]
    fn leave_lazy(&self, context: &mut Context) {
        if self.lazily_loaded & FP != 0 {
            self.give_fp_back(&mut context.fp);
        }
        if self.lazily_loaded & DEBUG != 0 {
            debug_regs::load(&self.percpu.host.debug.get(), &self.cpu.id);
        }
    }

    /// Gives the guest an exception: writes the live registers of its EL1.
    pub fn inject(&self, context: &mut Context, exception: Exception) {
        let from = Interrupted {
            pc: context.general.pc,
            pstate: context.general.pstate,
            sctlr: sysreg::read!("sctlr_el1"),
            sctlr2: 0,
            vbar: sysreg::read!("vbar_el1"),
        };
        let features = system::guest_pstate_features(&self.cpu.id);
        let entry = enter(&from, exception, features);
        // SAFETY: registers of the guest's EL1, which is loaded; values as the CPU would write them.
        unsafe {
            sysreg::write!("elr_el1", entry.elr);
            sysreg::write!("spsr_el1", entry.spsr);
            sysreg::write!("esr_el1", entry.esr);
            if let Some(far) = entry.far {
                sysreg::write!("far_el1", far);
            }
        }
        context.general.pc = entry.pc;
        context.general.pstate = entry.pstate;
    }

    /// Loads the guest's FP/SIMD registers at their first use in a run.
    pub fn load_fp(&mut self, fp: &FpRegisters) {
        // A second time would save the guest's registers as the host's.
        assert!(self.lazily_loaded & FP == 0, "a guest's FP registers trap once in a run");
        self.vm.count(Stat::FpSwitches, 1);
        // SAFETY: EL2 alone runs; with the host's traps it may use all registers that the CPU has.
        unsafe {
            sysreg::write!("cptr_el2", self.cpu.host.cptr);
            sysreg::isb();
            boot::fp_save_host(self.percpu);
            boot::fp_load_guest(fp);
        }
        let untrapped = self.cpu.guest.cptr & !Controls::CPTR_TFP;
        // SAFETY: as above; from here on the guest uses FP/SIMD without a trap.
        unsafe { sysreg::write!("cptr_el2", untrapped) };
        sysreg::isb();
        self.lazily_loaded |= FP;
    }

    fn give_fp_back(&self, fp: &mut FpRegisters) {
        // SAFETY: as in `load_fp`.
        unsafe {
            sysreg::write!("cptr_el2", self.cpu.host.cptr);
            sysreg::isb();
            boot::fp_save_guest(fp);
            boot::fp_load_host(self.percpu);
        }
    }

    /// Makes the CPU's debug registers follow the guest's, after the guest changed them.
    #[cold]
    #[inline(never)]
    pub fn load_debug(&mut self, debug: &DebugRegisters) {
        let id = &self.cpu.id;
        // SAFETY: MDSCR_EL1 is the guest's while it runs.
        unsafe { sysreg::write!("mdscr_el1", debug.hardware_mdscr()) };
        if debug.is_active() {
            if self.lazily_loaded & DEBUG == 0 {
                self.percpu.host.debug.set(debug_regs::save(id));
                self.lazily_loaded |= DEBUG;
            }
            debug_regs::load(debug, id);
        }
        sysreg::isb();
    }
}

/// Saves what both sides have.
#[inline(always)]
fn save(to: &Registers, parts: Parts) {
    save_group::<WALKS>(to);
    parts.keep_par_apart();
    save_group::<BASE>(to);
    parts.keep_par_apart();
    if parts.has(Parts::POINTER_AUTH) {
        save_group::<POINTER_AUTH>(to);
    }
    if parts.has(Parts::AUXILIARY) {
        save_group::<AUXILIARY>(to);
    }
}

/// Loads one side's stage 2 and stage 1. `other` is where the registers of the other side were just
/// saved to.
///
/// # Safety
/// EL1 does not run meanwhile, and a DSB came after the last time that it did.
#[inline(always)]
unsafe fn load(stage2: tlb::Context, registers: &Registers, other: &Registers, parts: Parts) {
    let walks_off = parts.has(Parts::WALKS_OFF);
    if walks_off {
        let slot = |slot: Slot| other[slot as usize].get();
        WalksOff::until_loaded(slot(Slot::Tcr), slot(Slot::Sctlr));
    }
    // SAFETY: the caller's word.
    unsafe {
        stage2.write();
        if walks_off {
            sysreg::isb();
        }
        load_group::<BASE>(registers);
        if parts.has(Parts::POINTER_AUTH) {
            load_group::<POINTER_AUTH>(registers);
        }
        if parts.has(Parts::AUXILIARY) {
            load_group::<AUXILIARY>(registers);
        }
        load_group::<VIRTUAL>(registers);
        if walks_off {
            // What turns walks on again comes after the rest, TCR_EL1 last.
            sysreg::isb();
            sysreg::write!("sctlr_el1", registers[Slot::Sctlr as usize].get());
            sysreg::isb();
            sysreg::write!("tcr_el1", registers[Slot::Tcr as usize].get());
        } else {
            load_group::<WALKS>(registers);
        }
    }
}

/// Empties this CPU of what another vCPU of the VM, under the same VMID, left.
#[cold]
fn forget_the_last_vcpu() {
    // VTTBR_EL2 has to be in force for the invalidation.
    sysreg::isb();
    tlb::stage1_local();
    tlb::instruction_cache_local();
    sysreg::dsb_nsh();
}
