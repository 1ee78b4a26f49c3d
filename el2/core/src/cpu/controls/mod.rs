//! The values of EL2's control registers: for the host, for guests, and those that never change.
//!
//! [`Controls`] are the registers whose value depends on who runs; the world switch writes them.
//! [`Fixed`] are written once on each CPU. Registers that exist only with a feature are `Option`s:
//! `None` must not be written, since the access would be undefined at EL2.
//!
//! The rule for the host: **it has every feature that it would have at EL1 without the firmware.** Most
//! of these registers take something away when they are left at zero, some of them silently: a short
//! SVE vector, instructions that are undefined in user space only. The rule for a guest is the
//! opposite: what the firmware does not switch is trapped, and what is trapped is in the tables of
//! [`crate::sysreg`].

mod fixed;
mod guest;
mod host;
#[cfg(test)]
mod tests;

pub use fixed::{Fixed, HOST_ENTRY_SCTLR_EL1, HOST_ENTRY_SPSR};

use super::gates::{self, open};
use super::{IdRegisters, Selection};

/// The trap and control registers that differ between host and guest on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// HCR_EL2.
    pub hcr: u64,
    /// HCRX_EL2, with FEAT_HCX.
    pub hcrx: Option<u64>,
    /// CPTR_EL2. A guest's has TFP set; see [`Controls::CPTR_TFP`].
    pub cptr: u64,
    /// MDCR_EL2. A guest's has TDA set: accesses to debug registers are emulated.
    pub mdcr: u64,
    /// CNTHCTL_EL2.
    pub cnthctl: u64,
    /// The registers of FEAT_FGT.
    pub fine: Option<FineTraps>,
    /// The registers of FEAT_FGT2.
    pub fine2: Option<FineTraps2>,
    /// MPAM2_EL2, with FEAT_MPAM. MPAM1_EL1 and MPAM0_EL1 are zeroed before the host's is written.
    pub mpam2: Option<u64>,
    /// MPAMHCR_EL2, where MPAMIDR_EL1 says that it exists.
    pub mpamhcr: Option<u64>,
    /// MPAMBW2_EL2, with FEAT_MPAM_PE_BW_CTRL.
    pub mpambw2: Option<u64>,
    /// ICH_HFGRTR_EL2, ICH_HFGWTR_EL2 and ICH_HFGITR_EL2, with FEAT_GCIE (GICv5).
    pub gicv5: Option<[u64; 3]>,
    /// ICC_SRE_EL2, with system registers of a GICv3. Before the first write of ICH_HCR_EL2 an `isb` follows it.
    pub icc_sre: Option<u64>,
    /// ICH_HCR_EL2, with system registers of a GICv3.
    pub ich_hcr: Option<u64>,
}

/// The fine-grained trap registers of FEAT_FGT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FineTraps {
    /// HFGRTR_EL2.
    pub hfgrtr: u64,
    /// HFGWTR_EL2.
    pub hfgwtr: u64,
    /// HFGITR_EL2.
    pub hfgitr: u64,
    /// HDFGRTR_EL2.
    pub hdfgrtr: u64,
    /// HDFGWTR_EL2.
    pub hdfgwtr: u64,
    /// HAFGRTR_EL2, with FEAT_AMUv1.
    pub hafgrtr: Option<u64>,
}

impl FineTraps {
    /// HFGITR_EL2.CPPRCTX: traps the instruction.
    pub const CPP_RCTX: u64 = 1 << 50;
}

/// The fine-grained trap registers of FEAT_FGT2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FineTraps2 {
    /// HFGRTR2_EL2.
    pub hfgrtr2: u64,
    /// HFGWTR2_EL2.
    pub hfgwtr2: u64,
    /// HFGITR2_EL2.
    pub hfgitr2: u64,
    /// HDFGRTR2_EL2.
    pub hdfgrtr2: u64,
    /// HDFGWTR2_EL2.
    pub hdfgwtr2: u64,
}

impl Controls {
    /// CPTR_EL2.TFP: traps FP and SIMD. Cleared in a guest's value once its registers are loaded.
    pub const CPTR_TFP: u64 = 1 << 10;
    /// MDCR_EL2.TDA: traps debug registers. Always set for a guest: its values are loaded into the CPU's
    /// registers when they come to mean something, but each access of its own is emulated.
    pub const MDCR_TDA: u64 = 1 << 9;

    /// Returns the values for the host.
    pub fn host(id: &IdRegisters, selection: &Selection) -> Self {
        host::controls(id, selection)
    }

    /// Returns the values with which a guest starts to run: FP, SIMD and debug registers trapped.
    pub fn guest(id: &IdRegisters, selection: &Selection) -> Self {
        guest::controls(id, selection)
    }
}

/// Returns `bits` where `condition` holds, else 0.
const fn when(condition: bool, bits: u64) -> u64 {
    if condition { bits } else { 0 }
}

/// Bits of CPTR_EL2 that are RES1 with E2H = 0 (Arm ARM, D24.2): 13, 9, 7:0, and the places of TSM
/// (12) and TZ (8) on a CPU without the feature that they trap.
const fn cptr_res1(id: &IdRegisters) -> u64 {
    0x22ff | when(!id.has_sme(), 1 << 12) | when(!id.has_sve(), 1 << 8)
}

/// Bits of HCR_EL2 that are the same for host and guests.
const fn hcr_common(id: &IdRegisters, selection: &Selection) -> u64 {
    const VM: u64 = 1 << 0;
    const TSC: u64 = 1 << 19;
    const RW: u64 = 1 << 31;
    // Pointer authentication would trap without these two. Both worlds have it.
    const APK_API: u64 = 0b11 << 40;
    // The encoding of memory attributes in stage 2: one CPU must not change it between VMs.
    const FWB: u64 = 1 << 46;
    VM | TSC | RW | when(id.has_pauth(), APK_API) | when(selection.used.forced_write_back, FWB)
}

/// Bits of MDCR_EL2 that are the same for host and guests.
///
/// HPMN (4:0) leaves the host its event counters, less the one that EL2 may keep, which HPME (7)
/// switches on. HPMD (17) and HCCD (23) stop all the others while EL2 runs, so that the host's counts
/// are the same as without it. MTPME (28) is what a CPU without EL2 behaves as.
const fn mdcr_common(id: &IdRegisters, selection: &Selection) -> u64 {
    let counters = id.event_counters();
    let reserved = if counters > 1 { selection.reserved_counters } else { 0 };
    (counters - reserved)
        | when(reserved > 0, 1 << 7)
        | when(id.has_pmu_version(4), 1 << 17)
        | when(id.has_pmu_version(6), 1 << 23)
        | when(id.has_mtpmu(), 1 << 28)
}
