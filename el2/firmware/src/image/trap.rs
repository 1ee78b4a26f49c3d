//! What the host does that comes to EL2: calls, and accesses that stage 2 denies.
//!
//! No trap of the host is an error of EL2. A call is answered; memory that the host gave away, or never
//! had, reads as zeroes, and any other access to it is an abort in the host; an instruction that no host
//! should reach is UNDEFINED there.
#![allow(unsafe_code)]

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, Readable, SPSR_EL2};
use log::warn;
use verdigris_core::esr::{Abort, Access, FaultStatus, Syndrome, Trap};
use verdigris_core::exception::{Exception, Interrupted, enter};

use verdigris_core::sysreg::Encoding;

use super::frame::Frame;
use super::percpu::PerCpu;
use super::{crash, host, hypercall, percpu, sysreg, system};

/// Length of an instruction that traps before it executes.
const INSTRUCTION_BYTES: u64 = 4;

/// Handles a synchronous exception from the host. Called by `vectors.S`.
///
/// Calls are told apart here, without the decoder: they are nearly all of what the host comes for. The
/// convention has only immediate 0 (Arm DEN 0028, section 2.4).
pub extern "C" fn host_sync(frame: &mut Frame, percpu: &PerCpu) {
    crash::stop_if_reporting();
    let syndrome = Syndrome(ESR_EL2.get());
    match (syndrome.class(), syndrome.immediate()) {
        (CLASS_HVC, 0) => {}
        // A trapped SMC has not executed: step over it.
        // SAFETY: the host goes on behind its own instruction.
        (CLASS_SMC, 0) => unsafe { step_over() },
        _ => return trapped(syndrome),
    }
    hypercall::dispatch(frame, percpu);
}

/// The one instruction of the host that is trapped, on parts where it does harm (CVE-2025-0647).
const CPP_RCTX: Encoding = Encoding::new(1, 3, 7, 3, 7);

/// Exception classes of the two instructions that make a call (Arm ARM D24.2.40).
const CLASS_HVC: u8 = 0x16;
const CLASS_SMC: u8 = 0x17;

/// Handles whatever is no call.
#[cold]
#[inline(never)]
fn trapped(syndrome: Syndrome) {
    let trap = Trap::decode(syndrome);
    if let Trap::Abort(abort) = trap {
        return host_abort(&abort);
    }
    if matches!(trap, Trap::System(access) if access.encoding == CPP_RCTX) {
        // SAFETY: the host is told that its predictions are dropped; that they are not is its own affair, and that
        // of the part's erratum.
        return unsafe { step_over() };
    }
    if matches!(trap, Trap::Hvc(_)) {
        // Taken behind the instruction that is undefined.
        let pc = ELR_EL2.get().wrapping_sub(INSTRUCTION_BYTES);
        // SAFETY: an address of the host's own code.
        unsafe { sysreg::write!("elr_el2", pc) };
    }
    warn!("host: {trap:?} at {:#x} is answered as undefined", ELR_EL2.get());
    inject(Exception::Undefined);
}

/// Moves the host behind the instruction that trapped, as if it had executed: a step is over, and no
/// branch target is expected.
///
/// # Safety
/// The instruction has been emulated.
unsafe fn step_over() {
    const SS: u64 = 1 << 21;
    const BTYPE: u64 = 0b11 << 10;
    let pc = ELR_EL2.get().wrapping_add(INSTRUCTION_BYTES);
    let pstate = SPSR_EL2.get() & !(SS | BTYPE);
    // SAFETY: the host goes on in its own state.
    unsafe {
        sysreg::write!("elr_el2", pc);
        sysreg::write!("spsr_el2", pstate);
    }
}

/// Answers an access that the host's stage 2 didn't let through.
///
/// Each path ends. A read of zeroes is tried again once; an atomic faults as a read first (Arm ARM
/// ESR_EL2.WnR), then, on the zeroes, by its permission, which no try mends.
fn host_abort(abort: &Abort) {
    let far = FAR_EL2.get();
    if matches!(abort.status, FaultStatus::Translation(_)) {
        let ipa = abort.ipa(HPFAR_EL2.get(), far);
        // A block of the host's map is briefly invalid while it is split or built again.
        if host::fault(ipa, abort.access() == Access::Read) {
            return;
        }
        warn!("host: no access to {ipa} from {:#x}", ELR_EL2.get());
    } else if matches!(abort.status, FaultStatus::Permission(_)) {
        warn!("host: no right to that access to {far:#x} from {:#x}", ELR_EL2.get());
    } else {
        warn!("host: {abort:?} at {:#x}", ELR_EL2.get());
    }
    inject(Exception::denied_to_host(abort, SPSR_EL2.get(), far));
}

/// Makes the host take an exception when EL2 returns to it.
fn inject(exception: Exception) {
    let id = &percpu::this().cpu().id;
    let from = Interrupted {
        pc: ELR_EL2.get(),
        pstate: SPSR_EL2.get(),
        sctlr: sysreg::read!("sctlr_el1"),
        sctlr2: if id.has_sctlr2() { sysreg::read!("s3_0_c1_c0_3") } else { 0 },
        vbar: sysreg::read!("vbar_el1"),
    };
    let mut features = system::pstate_features(id);
    // GCSCR_EL1.EXLOCKEN.
    features.exlock = id.has_gcs() && sysreg::read!("s3_0_c2_c5_0") & 1 << 6 != 0;
    let entry = enter(&from, exception, features);
    // SAFETY: these registers are the host's own, and the values are those that the CPU would have
    // written, had it taken the exception to EL1.
    unsafe {
        sysreg::write!("elr_el1", entry.elr);
        sysreg::write!("spsr_el1", entry.spsr);
        sysreg::write!("esr_el1", entry.esr);
        if let Some(far) = entry.far {
            sysreg::write!("far_el1", far);
        }
        sysreg::write!("elr_el2", entry.pc);
        sysreg::write!("spsr_el2", entry.pstate);
    }
}
