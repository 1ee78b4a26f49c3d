//! Which of the host's calls are answered here, which go down, and which are refused.
//!
//! Every SMC and HVC of the host ends here (Arm DEN 0028). The rule: **only what is known to carry
//! plain values goes down.** A service of a vendor or of a trusted world may take addresses, and what
//! is below EL2 can write to all of memory; so those are answered NOT_SUPPORTED, as on a machine
//! without them. The table in [`decide`] is the whole policy.
//!
//! After a call that went down, x0 to x3 are its results, and the host keeps its own x4 to x17:
//! nothing that goes down returns more.

#[cfg(test)]
mod tests;

use crate::psci::{self, Return, Start};
use verdigris_abi::Pa;

/// What is known of the firmware below, asked once at boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// What SMCCC_VERSION returned there; 0 where PSCI_FEATURES says that it does not exist.
    pub smccc_version: u32,
    /// Whether CPU_SUSPEND takes the extended format: bit 1 of PSCI_FEATURES(CPU_SUSPEND).
    pub extended_power_state: bool,
}

impl Below {
    /// Draws the conclusions from w0 of three calls: PSCI_FEATURES(SMCCC_VERSION), SMCCC_VERSION, which
    /// is made only if the first did not fail, and PSCI_FEATURES(CPU_SUSPEND).
    pub const fn from_answers(has_version: i32, version: i32, suspend: i32) -> Self {
        let known = has_version >= 0 && version > 0;
        Self {
            smccc_version: if known { version as u32 } else { 0 },
            extended_power_state: suspend >= 0 && suspend & 1 << 1 != 0,
        }
    }
}

/// What a decision needs to know of the host.
pub trait Host {
    /// Tells whether an address lies in memory that the host owns.
    fn owns(&self, address: Pa) -> bool;
    /// Finds the CPU with these affinity fields of MPIDR_EL1.
    fn cpu_with(&self, affinity: u64) -> Option<usize>;
}

/// What the firmware does about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Returns this in x0.
    Answer(u64),
    /// Makes the same call below, with this function identifier, and returns x0 to x3.
    Forward {
        /// The identifier, its hint bit cleared.
        function: u32,
    },
    /// Handles it as a hypercall of [`verdigris_abi`].
    Hypercall {
        /// The identifier, its hint bit cleared.
        function: u32,
    },
    /// Switches a CPU on: [`claim`](psci::CpuPower::claim), then CPU_ON with EL2's entry.
    CpuOn {
        /// The CPU.
        cpu: usize,
        /// Its name for the firmware below.
        mpidr: u64,
        /// Where it shall start.
        start: Start,
    },
    /// Switches the calling CPU off: [`go_off`](psci::CpuPower::go_off), then CPU_OFF.
    CpuOff,
    /// Powers the calling CPU down: [`suspend`](psci::CpuPower::suspend), then CPU_SUSPEND with EL2's
    /// entry.
    CpuSuspend {
        /// The power state, which goes down as it is.
        power_state: u64,
        /// Where it shall go on.
        start: Start,
    },
    /// Suspends the machine: [`suspend`](psci::CpuPower::suspend), then SYSTEM_SUSPEND with EL2's
    /// entry.
    SystemSuspend {
        /// Where the calling CPU shall go on.
        start: Start,
    },
}

impl Action {
    /// Answers by a status of PSCI.
    pub(crate) const fn psci(status: Return) -> Self {
        Self::Answer(status.value())
    }
}

/// The version of the convention that the host finds: 1.2.
pub const VERSION: u32 = 0x1_0002;

/// NOT_SUPPORTED of the convention, which has the value of PSCI's.
const NOT_SUPPORTED: Action = Action::psci(Return::NotSupported);

/// Bit 31: a fast call. All others are refused: nothing here can be interrupted and resumed.
const FAST: u32 = 1 << 31;
/// Bit 16: the caller has no live SVE state. Nothing here depends on it.
const SVE_HINT: u32 = 1 << 16;

/// Decides on a call of the host, given x0 to x3 and the immediate of the instruction.
pub fn decide(immediate: u16, registers: [u64; 4], below: &Below, host: &impl Host) -> Action {
    let [function, arguments @ ..] = registers;
    let function = function as u32 & !SVE_HINT;
    if immediate != 0 || function & FAST == 0 {
        return NOT_SUPPORTED;
    }
    let arguments = psci::narrow(function, arguments);
    match (owner(function), number(function)) {
        (0, _) => architecture(function, arguments[0] as u32, below),
        (4, 0x00..=0x1f) => psci::decide(function, arguments, below, host),
        (4, 0x50..=0x53) => random(function, below),
        (6, _) => Action::Hypercall { function },
        // CPU, silicon and board vendors, standard services, paravirtualized time, trusted worlds.
        _ => NOT_SUPPORTED,
    }
}

/// Arm's own calls. ARCH_FEATURES is answered here for what is answered here, and below for the rest.
fn architecture(function: u32, argument: u32, below: &Below) -> Action {
    const SMCCC_VERSION: u32 = 0x8000_0000;
    const ARCH_FEATURES: u32 = 0x8000_0001;
    match function {
        SMCCC_VERSION => Action::Answer(u64::from(VERSION)),
        ARCH_FEATURES => match argument & !SVE_HINT {
            SMCCC_VERSION | ARCH_FEATURES => Action::psci(Return::Success),
            asked if is_value_call(asked) => forward_if_known(function, below),
            _ => NOT_SUPPORTED,
        },
        _ if is_value_call(function) => forward_if_known(function, below),
        _ => NOT_SUPPORTED,
    }
}

/// ARCH_SOC_ID in both widths and ARCH_WORKAROUND_1, _2, _3 and _4: values in, values out.
const fn is_value_call(function: u32) -> bool {
    matches!(
        function,
        0x8000_0002 | 0xc000_0002 | 0x8000_8000 | 0x8000_7fff | 0x8000_3fff | 0x8000_0004
    )
}

/// TRNG_VERSION, TRNG_FEATURES, TRNG_GET_UUID, TRNG_RND in both widths (Arm DEN 0098).
fn random(function: u32, below: &Below) -> Action {
    match function {
        0x8400_0050..=0x8400_0053 | 0xc400_0053 => forward_if_known(function, below),
        _ => NOT_SUPPORTED,
    }
}

/// Calls down only where the firmware below knows version 1.1 of the convention: an older one may
/// take an unknown identifier for an undefined instruction.
fn forward_if_known(function: u32, below: &Below) -> Action {
    if below.smccc_version >= 0x1_0001 { Action::Forward { function } } else { NOT_SUPPORTED }
}

/// Bits 29:24: who defines the call.
const fn owner(function: u32) -> u32 {
    function >> 24 & 0x3f
}

/// Bits 15:0: which of the owner's calls it is.
const fn number(function: u32) -> u32 {
    function & 0xffff
}

/// Bit 30: whether arguments have 64 bits.
pub(crate) const fn is_64_bit(function: u32) -> bool {
    function >> 30 & 1 == 1
}
