//! PSCI between the host and the firmware below (Arm DEN 0022).
//!
//! The host's calls reach real power control, with one thing changed: wherever the host says at which
//! address of its own a CPU shall start, the firmware's entry goes down instead, and the host's is
//! kept in the [`CpuPower`] of that CPU until EL2 has been set up on it. So no CPU ever runs the host
//! without EL2 under it.
//!
//! FEATURES is truthful: it says yes only to what is passed on, and there the answer is the real one.

#[cfg(all(loom, test))]
mod concurrency;
mod power;
#[cfg(all(not(loom), test))]
mod tests;

pub use power::{CpuPower, PowerState, Start};

use crate::smccc::{Action, Below, Host, is_64_bit};
use verdigris_abi::Pa;

/// What a PSCI function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Return {
    /// SUCCESS.
    Success = 0,
    /// NOT_SUPPORTED.
    NotSupported = -1,
    /// INVALID_PARAMETERS.
    InvalidParameters = -2,
    /// DENIED.
    Denied = -3,
    /// ALREADY_ON.
    AlreadyOn = -4,
    /// ON_PENDING.
    OnPending = -5,
    /// INTERNAL_FAILURE.
    InternalFailure = -6,
    /// INVALID_ADDRESS.
    InvalidAddress = -9,
}

impl Return {
    /// Returns the value of x0: sign-extended, which is right for callers of either width.
    pub const fn value(self) -> u64 {
        self as i32 as i64 as u64
    }
}

/// CPU_ON, as the firmware itself calls it.
pub const CPU_ON: u32 = 0xc400_0003;
/// CPU_OFF.
pub const CPU_OFF: u32 = 0x8400_0002;
/// CPU_SUSPEND, as the firmware itself calls it.
pub const CPU_SUSPEND: u32 = 0xc400_0001;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// SYSTEM_SUSPEND, as the firmware itself calls it.
pub const SYSTEM_SUSPEND: u32 = 0xc400_000e;
/// PSCI_FEATURES.
pub const FEATURES: u32 = 0x8400_000a;

/// What becomes of a PSCI function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Goes down as it is.
    Pass,
    /// Goes down with the firmware's entry.
    CpuOn,
    CpuOff,
    CpuSuspend,
    SystemSuspend,
    /// Answered about the functions above.
    Features,
    /// Refused.
    Refuse,
}

/// Finds the policy for a function identifier with the hint bit cleared.
///
/// Refused are CPU_FREEZE and CPU_DEFAULT_SUSPEND, whose state nobody here could follow, and
/// MEM_PROTECT and MEM_PROTECT_CHECK_RANGE, which would speak of the firmware's memory too.
const fn policy(function: u32) -> Policy {
    match function {
        // VERSION, AFFINITY_INFO, MIGRATE, MIGRATE_INFO_TYPE, MIGRATE_INFO_UP_CPU.
        0x8400_0000 | 0x8400_0004..=0x8400_0007 | 0xc400_0004 | 0xc400_0005 | 0xc400_0007 => {
            Policy::Pass
        }
        SYSTEM_OFF | SYSTEM_RESET => Policy::Pass,
        // NODE_HW_STATE, SET_SUSPEND_MODE, STAT_RESIDENCY, STAT_COUNT.
        0x8400_000d | 0xc400_000d | 0x8400_000f..=0x8400_0011 | 0xc400_0010 | 0xc400_0011 => {
            Policy::Pass
        }
        // SYSTEM_RESET2, SYSTEM_OFF2.
        0x8400_0012 | 0xc400_0012 | 0x8400_0015 | 0xc400_0015 => Policy::Pass,
        0x8400_0003 | CPU_ON => Policy::CpuOn,
        CPU_OFF => Policy::CpuOff,
        0x8400_0001 | CPU_SUSPEND => Policy::CpuSuspend,
        0x8400_000e | SYSTEM_SUSPEND => Policy::SystemSuspend,
        FEATURES => Policy::Features,
        _ => Policy::Refuse,
    }
}

/// Decides on a PSCI call. `arguments` are x1 to x3, narrowed to the width of the call.
pub(crate) fn decide(
    function: u32,
    arguments: [u64; 3],
    below: &Below,
    host: &impl Host,
) -> Action {
    let [first, second, third] = arguments;
    match policy(function) {
        Policy::Pass => Action::Forward { function },
        Policy::CpuOff => Action::CpuOff,
        Policy::CpuOn => cpu_on(first, Start { entry: Pa(second), context: third }, host),
        Policy::CpuSuspend if !is_power_down(first, below) => Action::Forward { function },
        Policy::CpuSuspend => starting_at(Start { entry: Pa(second), context: third }, host)
            .map_or_else(Action::psci, |start| Action::CpuSuspend { power_state: first, start }),
        Policy::SystemSuspend => starting_at(Start { entry: Pa(first), context: second }, host)
            .map_or_else(Action::psci, |start| Action::SystemSuspend { start }),
        Policy::Features => features(first as u32),
        Policy::Refuse => Action::psci(Return::NotSupported),
    }
}

/// A host may ask about the convention itself; it has that from this firmware.
fn features(function: u32) -> Action {
    const SMCCC_VERSION: u32 = 0x8000_0000;
    match policy(function) {
        _ if function == SMCCC_VERSION => Action::psci(Return::Success),
        // A call with a 64-bit name would not be PSCI_FEATURES at all.
        Policy::Features => Action::psci(Return::Success),
        Policy::Refuse => Action::psci(Return::NotSupported),
        _ => Action::Forward { function: FEATURES },
    }
}

fn cpu_on(mpidr: u64, start: Start, host: &impl Host) -> Action {
    // Aff3 and Aff2 to Aff0; all other bits must be zero (DEN 0022, section 5.1.4).
    const AFFINITY: u64 = 0xff_00ff_ffff;
    let cpu = if mpidr & !AFFINITY == 0 { host.cpu_with(mpidr) } else { None };
    match (cpu, starting_at(start, host)) {
        (None, _) => Action::psci(Return::InvalidParameters),
        (_, Err(refusal)) => Action::psci(refusal),
        (Some(cpu), Ok(start)) => Action::CpuOn { cpu, mpidr, start },
    }
}

/// Refuses an entry that is no instruction of the host's own memory.
fn starting_at(start: Start, host: &impl Host) -> Result<Start, Return> {
    if start.entry.is_aligned(4) && host.owns(start.entry) {
        Ok(start)
    } else {
        Err(Return::InvalidAddress)
    }
}

/// Tells whether a power state loses the CPU's registers: StateType, whose place depends on the
/// format that the firmware below uses (DEN 0022, section 5.4.2).
const fn is_power_down(power_state: u64, below: &Below) -> bool {
    power_state >> if below.extended_power_state { 30 } else { 16 } & 1 == 1
}

/// Narrows arguments to the width of the call.
pub(crate) fn narrow(function: u32, arguments: [u64; 3]) -> [u64; 3] {
    let mask = if is_64_bit(function) { u64::MAX } else { 0xffff_ffff };
    arguments.map(|argument| argument & mask)
}
