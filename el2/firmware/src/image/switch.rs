//! The world switch: everything of EL1 that differs between the host and a guest.
//!
//! One list in `verdigris_core::guest` names the registers that are saved and loaded, so none can be
//! forgotten on one side. The order is the architecture's: the host's registers are saved; `dsb nsh`,
//! so that nothing of the host is still under way; stage 2 changes before stage 1, so that no walk sees
//! the guest's tables through the host's map; traps last, synchronised by the ISB before ERET. On parts
//! that walk speculatively in between, stage-1 walks are off for the whole of it (`tlb::WalksOff`).
#![allow(unsafe_code)]

use aarch64_cpu::registers::{ELR_EL2, Readable, SPSR_EL2};
use verdigris_abi::Stat;
use verdigris_core::cpu::Controls;
use verdigris_core::exception::{Exception, Interrupted, enter};
use verdigris_core::for_each_switched;
use verdigris_core::guest::{Context, DebugRegisters, FpRegisters, Group, Slot, SystemRegisters};

use super::percpu::PerCpu;
use super::profiling::Stopped;
use super::tlb::{self, WalksOff};
use super::vm::Vm;
use super::{boot, controls, debug_regs, host, sysreg, system, vmids};

/// Reads the switched registers of a group into their slots. The key that EL2 uses itself is switched
/// where EL2's own is, in the assembly.
macro_rules! save_slots {
    ($( $group:ident $name:ident $asm:literal $encoding:tt = $reset:literal; )*) => {
        fn save_group<const GROUP: usize>(registers: &mut SystemRegisters) {
            $( if Group::$group as usize == GROUP { save_slots!(@one registers $name $asm); } )*
        }
    };
    (@one $registers:ident ApiaLo $asm:literal) => {};
    (@one $registers:ident ApiaHi $asm:literal) => {};
    (@one $registers:ident $name:ident $asm:literal) => {
        $registers.set(Slot::$name, sysreg::read!($asm));
    };
}

/// Loads the switched registers of a group from their slots.
macro_rules! load_slots {
    ($( $group:ident $name:ident $asm:literal $encoding:tt = $reset:literal; )*) => {
        /// # Safety
        /// EL1 does not run before all of its context is loaded.
        unsafe fn load_group<const GROUP: usize>(registers: &SystemRegisters) {
            $( if Group::$group as usize == GROUP { load_slots!(@one registers $name $asm); } )*
        }
    };
    (@one $registers:ident ApiaLo $asm:literal) => {};
    (@one $registers:ident ApiaHi $asm:literal) => {};
    // These two come last, where walks may begin again.
    (@one $registers:ident Sctlr $asm:literal) => {};
    (@one $registers:ident Tcr $asm:literal) => {};
    (@one $registers:ident $name:ident $asm:literal) => {
        // SAFETY: the caller's word; a register of EL1, or one of EL2 that speaks of EL1.
        unsafe { sysreg::write!($asm, $registers.get(Slot::$name)) };
    };
}

for_each_switched!(save_slots);
for_each_switched!(load_slots);

/// The host's state while a guest runs on this CPU, and what the guest has in the CPU beside its slots.
pub struct World<'a> {
    vm: &'a Vm,
    percpu: &'a PerCpu,
    host: SystemRegisters,
    host_sp_el0: u64,
    /// Where the host goes on: ELR_EL2 and SPSR_EL2.
    host_return: [u64; 2],
    host_mdscr: u64,
    host_debug: Option<DebugRegisters>,
    host_profiling: Stopped,
    fp_loaded: bool,
    controls: Controls,
}

impl<'a> World<'a> {
    /// Makes this CPU the guest's, up to its general registers.
    pub fn enter(vm: &'a Vm, vcpu_index: u16, context: &Context, percpu: &'a PerCpu) -> Self {
        let cpu = percpu.cpu();
        let mut world = Self {
            vm,
            percpu,
            host: SystemRegisters([0; Slot::COUNT]),
            host_sp_el0: sysreg::read!("sp_el0"),
            host_return: [ELR_EL2.get(), SPSR_EL2.get()],
            host_mdscr: sysreg::read!("mdscr_el1"),
            host_debug: None,
            host_profiling: Stopped::begin(&cpu.id, &cpu.fixed),
            fp_loaded: false,
            controls: cpu.guest,
        };
        save(&mut world.host, percpu);
        sysreg::dsb_nsh();
        let walks = cpu.selection.errata.speculative_at.then(WalksOff::begin);
        let entered = vmids::enter(percpu, vm);
        // SAFETY: the guest's context, in an order in which no walk mixes it with the host's.
        unsafe {
            vmids::load(vm, entered, percpu);
            world.load_registers(&context.system, walks.is_some());
            sysreg::write!("sp_el0", context.general.sp_el0);
            sysreg::write!("mdscr_el1", context.debug.hardware_mdscr());
            controls::apply(&world.controls);
            sysreg::write!("vbar_el2", boot::guest_vectors_address());
        }
        if vm.last_vcpu[percpu.index.get()].replace(entered, vcpu_index) {
            tlb::stage1_local();
            tlb::instruction_cache_local();
            sysreg::dsb_nsh();
        }
        sysreg::isb();
        if context.debug.is_active() {
            world.load_debug(&context.debug);
        }
        world
    }

    /// Makes this CPU the host's again.
    pub fn leave(&mut self, context: &mut Context) {
        let percpu = self.percpu;
        save(&mut context.system, percpu);
        context.general.sp_el0 = sysreg::read!("sp_el0");
        if self.fp_loaded {
            self.give_fp_back(&mut context.fp);
        }
        if let Some(debug) = &self.host_debug {
            debug_regs::load(debug, &percpu.cpu().id);
        }
        sysreg::dsb_nsh();
        let walks = percpu.cpu().selection.errata.speculative_at.then(WalksOff::begin);
        // SAFETY: what the host had, in an order in which no walk mixes it with the guest's.
        unsafe {
            host::context().load();
            vmids::leave(percpu);
            self.load_registers(&self.host, walks.is_some());
            sysreg::write!("sp_el0", self.host_sp_el0);
            sysreg::write!("elr_el2", self.host_return[0]);
            sysreg::write!("spsr_el2", self.host_return[1]);
            sysreg::write!("mdscr_el1", self.host_mdscr);
            controls::apply(&percpu.cpu().host);
            sysreg::write!("vbar_el2", boot::host_vectors_address(percpu));
        }
        self.host_profiling.end();
        sysreg::isb();
    }

    /// Loads one side's registers; with `walks_off`, what turns walks on again comes after the rest.
    ///
    /// # Safety
    /// EL1 does not run meanwhile, and the stage 2 of that side is in force.
    unsafe fn load_registers(&self, registers: &SystemRegisters, walks_off: bool) {
        // SAFETY: the caller's word.
        unsafe {
            load(registers, self.percpu);
            if walks_off {
                sysreg::isb();
                sysreg::write!("sctlr_el1", registers.get(Slot::Sctlr));
                sysreg::isb();
                sysreg::write!("tcr_el1", registers.get(Slot::Tcr));
            } else {
                sysreg::write!("tcr_el1", registers.get(Slot::Tcr));
                sysreg::write!("sctlr_el1", registers.get(Slot::Sctlr));
            }
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
        let features = system::guest_pstate_features(&self.percpu.cpu().id);
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
        assert!(!self.fp_loaded, "a guest's FP registers trap once in a run");
        self.vm.count(Stat::FpSwitches, 1);
        // SAFETY: EL2 alone runs; with the host's traps it may use all registers that the CPU has.
        unsafe {
            sysreg::write!("cptr_el2", self.percpu.cpu().host.cptr);
            sysreg::isb();
            boot::fp_save_host(self.percpu);
            boot::fp_load_guest(fp);
        }
        self.controls.cptr &= !Controls::CPTR_TFP;
        // SAFETY: as above; from here on the guest uses FP/SIMD without a trap.
        unsafe { sysreg::write!("cptr_el2", self.controls.cptr) };
        sysreg::isb();
        self.fp_loaded = true;
    }

    fn give_fp_back(&self, fp: &mut FpRegisters) {
        // SAFETY: as in `load_fp`.
        unsafe {
            sysreg::write!("cptr_el2", self.percpu.cpu().host.cptr);
            sysreg::isb();
            boot::fp_save_guest(fp);
            boot::fp_load_host(self.percpu);
        }
    }

    /// Makes the CPU's debug registers follow the guest's, after the guest changed them.
    pub fn load_debug(&mut self, debug: &DebugRegisters) {
        let id = &self.percpu.cpu().id;
        // SAFETY: MDSCR_EL1 is the guest's while it runs.
        unsafe { sysreg::write!("mdscr_el1", debug.hardware_mdscr()) };
        if debug.is_active() {
            if self.host_debug.is_none() {
                self.host_debug = Some(debug_regs::save(id));
            }
            debug_regs::load(debug, id);
        }
        sysreg::isb();
    }
}

const BASE: usize = Group::Base as usize;
const POINTER_AUTH: usize = Group::PointerAuth as usize;
const RAS: usize = Group::Ras as usize;

/// Saves all switched registers that the CPU has.
fn save(registers: &mut SystemRegisters, percpu: &PerCpu) {
    let id = &percpu.cpu().id;
    save_group::<BASE>(registers);
    if Group::PointerAuth.is_present(id) {
        save_group::<POINTER_AUTH>(registers);
    }
    if Group::Ras.is_present(id) {
        save_group::<RAS>(registers);
    }
}

/// Loads all switched registers that the CPU has, but for those that turn walks on.
///
/// # Safety
/// EL1 does not run before all of its context is loaded.
unsafe fn load(registers: &SystemRegisters, percpu: &PerCpu) {
    let id = &percpu.cpu().id;
    // SAFETY: the caller's word.
    unsafe {
        load_group::<BASE>(registers);
        if Group::PointerAuth.is_present(id) {
            load_group::<POINTER_AUTH>(registers);
        }
        if Group::Ras.is_present(id) {
            load_group::<RAS>(registers);
        }
    }
}
