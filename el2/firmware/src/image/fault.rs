//! Faults that are answered without leaving the guest.
//!
//! Most stage-2 faults ask for one exchange on one leaf: an access flag, where the CPU sets none, or the
//! first write to a page since its dirty bit was harvested. For these `guest.S` saves what a function
//! may spoil, and nothing else: EL1 stays as the guest has it, nobody looks at ELR_EL2 or SPSR_EL2, and
//! what is on the way to the guest (an SError, an interrupt) still finds it running. All others, and those
//! that turn out to be more, go the long way through [`super::vcpu`], as if they had never been here.
//!
//! The address that the CPU reports is taken as it is, also on parts that may report a stage-2 fault where
//! one of stage 1 goes first (`rewalk_on_fault`). What is done here asks for no true cause: a flag is set
//! or a write let through on a leaf of the same VM, as the host granted; at worst a page counts as touched
//! that was not. Then the guest runs again, and takes the fault of stage 1.
#![allow(unsafe_code)]

use aarch64_cpu::registers::{FAR_EL2, HPFAR_EL2, Readable};
use verdigris_abi::{Ipa, PAGE_SIZE};
use verdigris_core::esr::{Abort, Access, FaultStatus, Syndrome, hpfar_to_ipa};
use verdigris_stage2::{Access as FaultAccess, FaultKind};

use super::percpu::PerCpu;
use super::presence::Stay;
use super::recover::fallible;
use super::switch::Parts;
use super::vm_env::VmEnv;
use super::{crash, sysreg};

/// Answers an access-flag or permission fault of stage 2. Called by `guest.S`, with the guest's EL1 in
/// the CPU; `false` if there is more to it.
pub extern "C" fn guest_fault(syndrome: u64, percpu: &PerCpu) -> bool {
    crash::stop_if_reporting();
    // DFSC and IFSC are 0b0010xx for an access flag, 0b0011xx for a permission; xx is the level.
    let (kind, access, ipa) = if syndrome & 0b100 == 0 {
        (FaultKind::AccessFlag, FaultAccess::Read, Some(hpfar_to_ipa(HPFAR_EL2.get())))
    } else {
        let status = FaultStatus::Permission((syndrome & 3) as i8);
        let abort = Abort::with_status(status, Syndrome(syndrome));
        (FaultKind::Permission, wanted(&abort), denied_ipa(&abort, percpu.parts.get()))
    };
    let (Some(ipa), Some(vm)) = (ipa, percpu.running.get()) else { return false };
    let _stay = Stay::begin(percpu.index());
    vm.stage2.resolve_quickly(&VmEnv::new(vm, percpu), ipa, access, kind)
}

/// Tells the engine what an access wanted.
#[inline]
pub fn wanted(abort: &Abort) -> FaultAccess {
    match abort.access() {
        Access::Read => FaultAccess::Read,
        Access::Write => FaultAccess::Write,
        Access::Execute => FaultAccess::Execute,
    }
}

/// Finds the page that a permission fault is about; `None` where stage 1 no longer leads there.
fn denied_ipa(abort: &Abort, parts: Parts) -> Option<Ipa> {
    if abort.is_hpfar_valid() {
        return Some(hpfar_to_ipa(HPFAR_EL2.get()));
    }
    translate(FAR_EL2.get(), parts)
}

/// Finds the IPA that the address of an abort, FAR_EL2, has by the guest's stage 1 (AT S1E1R), keeping its
/// PAR_EL1. `None` also where a table of it can't be read.
#[inline]
pub fn translate(address: u64, parts: Parts) -> Option<Ipa> {
    parts.keep_par_apart();
    let saved = sysreg::read!("par_el1");
    // SAFETY: an address translation changes PAR_EL1 alone, which is put back. Its walk may fail by an exception
    // at EL2: then what the guest was left by is put back too (`recover::Interrupted` says what, and why), and the
    // answer is that of a translation that failed (F).
    let par = unsafe {
        core::arch::asm!(
            fallible!(
                "at s1e1r, {address}",
                "msr elr_el2, {elr}\nmsr spsr_el2, {spsr}\nmsr esr_el2, {esr}\nmsr far_el2, {address}\n\
                 msr sp_el0, {sp_el0}\nmov {elr}, #1\nmsr par_el1, {elr}"
            ),
            address = in(reg) address,
            elr = inout(reg) sysreg::read!("elr_el2") => _,
            spsr = in(reg) sysreg::read!("spsr_el2"),
            esr = in(reg) sysreg::read!("esr_el2"),
            sp_el0 = in(reg) sysreg::read!("sp_el0"),
            options(nostack, preserves_flags),
        );
        sysreg::isb();
        let par = sysreg::read!("par_el1");
        sysreg::write!("par_el1", saved);
        par
    };
    parts.keep_par_apart();
    // PA, bits 51:12; F, bit 0 (Arm ARM D24.2 PAR_EL1).
    let page = hpfar_to_ipa((par & 0x000f_ffff_ffff_f000) >> 8);
    (par & 1 == 0).then_some(Ipa(page.0 | address & (PAGE_SIZE - 1)))
}
