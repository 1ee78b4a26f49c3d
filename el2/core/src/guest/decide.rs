//! Decides what a trap of a guest leads to.
//!
//! The function changes the general and debug registers of the context, nothing else, and says in its
//! [`Outcome`] what is left to do in the CPU. System registers stay where they are: an exception for the
//! guest is returned as an [`Exception`], and the firmware gives it to EL1 by
//! [`exception::enter`](crate::exception::enter) on the live registers.

use verdigris_abi::{ExitReason, flags};

use super::registers::has_debug;
use super::{Context, ExitRecord, Machine, StageTwoFault, id};
use crate::esr::{Abort, FaultStatus, Syndrome, SystemAccess, Trap, Wait};
use crate::exception::{AbortCause, Exception};
use crate::sysreg::{Emulation, Encoding, Fate, lookup};

/// What the firmware does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Runs the guest on: its general registers were changed as needed.
    Resume,
    /// Gives the guest an exception, and runs it on.
    Inject(Exception),
    /// Ends the run.
    Exit(ExitRecord),
    /// Loads the guest's FP/SIMD registers, ends their trap, and runs it on.
    LoadFp,
    /// Makes the CPU's debug registers those of the context (see [`super::DebugRegisters`]), and runs
    /// the guest on.
    LoadDebug,
    /// Finds the faulting IPA, and asks the VM's tables.
    StageTwo(StageTwoFault),
    /// Invalidates all of the VMID on this CPU, and runs the guest on: two of its entries match.
    TlbConflict,
}

/// Decides about a synchronous exception or an SError that a guest took to EL2.
///
/// `far` is FAR_EL2, which counts for aborts only.
pub fn decide(syndrome: Syndrome, far: u64, context: &mut Context, machine: &Machine) -> Outcome {
    match Trap::decode(syndrome) {
        Trap::Wait(wait) => wait_exit(wait, syndrome, context),
        Trap::Fp => Outcome::LoadFp,
        Trap::Hvc(immediate) => Outcome::Exit(call_exit(immediate, false, context)),
        Trap::Smc(immediate) => {
            // The trap is taken before the instruction; HVC is taken after it.
            context.general.advance(true);
            Outcome::Exit(call_exit(immediate, true, context))
        }
        Trap::System(access) => system(access, context, machine),
        Trap::Abort(abort) => fault(abort, syndrome, far, context),
        Trap::SError => Outcome::Exit(ExitRecord::new(ExitReason::SError).with(4, syndrome.0)),
        Trap::Unknown
        | Trap::Sve
        | Trap::Sme
        | Trap::PointerAuth
        | Trap::OtherInstruction
        | Trap::System128(_)
        | Trap::Eret
        | Trap::Aarch32(_) => Outcome::Inject(Exception::Undefined),
        Trap::BranchTarget
        | Trap::IllegalState
        | Trap::Svc(_)
        | Trap::OwnAbort(_)
        | Trap::Other(_) => unhandled(syndrome, far),
    }
}

/// Ends the run with a syndrome that no control of a guest can cause.
fn unhandled(syndrome: Syndrome, far: u64) -> Outcome {
    let record = ExitRecord::new(ExitReason::Unhandled).with(4, syndrome.0).with(6, far);
    Outcome::Exit(record)
}

/// Lets the host decide how long a guest waits; the wait itself is over when it runs again.
fn wait_exit(wait: Wait, syndrome: Syndrome, context: &mut Context) -> Outcome {
    context.general.advance(syndrome.is_32_bit_instruction());
    Outcome::Exit(ExitRecord::new(ExitReason::Wait).with(2, wait as u64))
}

const PSCI_SYSTEM_OFF: u32 = 0x8400_0008;
const PSCI_SYSTEM_RESET: u32 = 0x8400_0009;
/// SMCCC 1.3: the caller has no live SVE state. It isn't part of the function's number.
const SVE_HINT: u32 = 1 << 16;

/// Makes the record of a guest's call, which always ends the run. None reaches the firmware or EL3.
#[inline(always)]
pub fn call_exit(immediate: u16, is_smc: bool, context: &Context) -> ExitRecord {
    let x = &context.general.x;
    // The two identifiers that mean something differ in bit 0 alone: nearly all calls are past this.
    if immediate == 0 && x[0] as u32 & !(SVE_HINT | 1) == PSCI_SYSTEM_OFF {
        return shutdown_exit(x[0] as u32 & !SVE_HINT);
    }
    // Word by word, as in `ExitRecord::put`.
    let [x0, x1, x2, x3, x4, x5, x6, x7, ..] = *x;
    let (immediate, is_smc) = (immediate.into(), is_smc.into());
    let words = [x0, x1, x2, x3, x4, x5, x6, x7, immediate, is_smc, 0, 0, 0, 0, 0, 0];
    ExitRecord { reason: ExitReason::Hypercall, words }
}

#[cold]
fn shutdown_exit(function: u32) -> ExitRecord {
    let how = if function == PSCI_SYSTEM_OFF { flags::SHUTDOWN_OFF } else { flags::SHUTDOWN_RESET };
    ExitRecord::new(ExitReason::Shutdown).with(2, how)
}

const _: () = assert!(PSCI_SYSTEM_OFF & 1 == 0 && PSCI_SYSTEM_RESET == PSCI_SYSTEM_OFF | 1);

/// Emulates an access to a system register as its row says; without a row it is UNDEFINED.
fn system(access: SystemAccess, context: &mut Context, machine: &Machine) -> Outcome {
    let undefined = Outcome::Inject(Exception::Undefined);
    let Some(row) = lookup(access.encoding).filter(|row| row.allows(access.read)) else {
        return undefined;
    };
    let Fate::Trapped(_, emulation) = row.fate else {
        return undefined;
    };
    let outcome = if access.read {
        match read(emulation, access.encoding, context, machine) {
            Some(value) => {
                context.general.write(access.register, value);
                Some(Outcome::Resume)
            }
            None => None,
        }
    } else {
        let value = context.general.read(access.register);
        write(emulation, access.encoding, value, context, machine)
    };
    outcome.map_or(undefined, |outcome| {
        context.general.advance(true);
        outcome
    })
}

/// Reads an emulated register; `None` where it is UNDEFINED.
fn read(
    emulation: Emulation,
    encoding: Encoding,
    context: &Context,
    machine: &Machine,
) -> Option<u64> {
    match emulation {
        Emulation::Undefined | Emulation::OsLock => None,
        Emulation::Id => Some(id::value(encoding, machine.raw, machine.ipa_bits)),
        Emulation::ZeroIgnore => Some(0),
        Emulation::Debug(slot) => {
            let n = encoding.crm();
            has_debug(slot, n, machine).then(|| context.debug.read(slot, n))
        }
        Emulation::OsLockStatus => Some(context.debug.os_lock_status()),
    }
}

/// Writes an emulated register; `None` where it is UNDEFINED.
fn write(
    emulation: Emulation,
    encoding: Encoding,
    value: u64,
    context: &mut Context,
    machine: &Machine,
) -> Option<Outcome> {
    match emulation {
        Emulation::Undefined | Emulation::Id | Emulation::OsLockStatus => None,
        Emulation::ZeroIgnore => Some(Outcome::Resume),
        Emulation::Debug(slot) => {
            let n = encoding.crm();
            has_debug(slot, n, machine).then(|| {
                context.debug.write(slot, n, value);
                Outcome::LoadDebug
            })
        }
        Emulation::OsLock => {
            context.debug.write_os_lock(value);
            Some(Outcome::LoadDebug)
        }
    }
}

/// Decides about an abort: one of stage 2 goes to the tables, each other kind has its own outcome.
///
/// What memory itself refused (an external or parity error, a granule of another world) the guest gets
/// as an external abort: it is the guest's access that failed. A walker that can't update the flags of
/// a table, and codes that no guest can cause, are the host's to see.
fn fault(abort: Abort, syndrome: Syndrome, far: u64, context: &Context) -> Outcome {
    let inject = |cause| Outcome::Inject(Exception::abort(&abort, cause, far));
    match abort.status {
        FaultStatus::Translation(_)
        | FaultStatus::AccessFlag(_)
        | FaultStatus::Permission(_)
        | FaultStatus::AddressSize(_) => {
            Outcome::StageTwo(StageTwoFault::new(syndrome, far, abort, &context.general))
        }
        FaultStatus::External | FaultStatus::Parity | FaultStatus::GranuleProtection => {
            inject(AbortCause::External)
        }
        FaultStatus::ExternalOnWalk(_) => inject(AbortCause::ExternalOnWalk),
        FaultStatus::Alignment => inject(AbortCause::Alignment),
        FaultStatus::UnsupportedExclusive => inject(AbortCause::UnsupportedExclusive),
        FaultStatus::TlbConflict => Outcome::TlbConflict,
        FaultStatus::UnsupportedUpdate | FaultStatus::TagCheck | FaultStatus::Other(_) => {
            unhandled(syndrome, far)
        }
    }
}
