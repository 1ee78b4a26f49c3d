//! A guest's self-hosted debug registers, which live here and not in the CPU.
//!
//! Every access of a guest traps (MDCR_EL2.TDA, TDOSA, TDRA), so the host's breakpoints can't be seen
//! or lost. The CPU's own registers get these values only while they can have an effect: while
//! [`DebugRegisters::is_active`]. The OS lock of the CPU is the host's; a guest has one of its own
//! here, which does what the lock does: while it is on, no breakpoint, watchpoint or step is taken.

/// Which debug register, or array of them, a row of the tables stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugSlot {
    /// MDSCR_EL1.
    Mdscr,
    /// `DBGBVR<n>_EL1`; CRm is n.
    BreakpointValue,
    /// `DBGBCR<n>_EL1`.
    BreakpointControl,
    /// `DBGWVR<n>_EL1`.
    WatchpointValue,
    /// `DBGWCR<n>_EL1`.
    WatchpointControl,
}

/// The debug registers of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DebugRegisters {
    /// MDSCR_EL1 as the guest reads it. The CPU gets [`DebugRegisters::hardware_mdscr`].
    pub mdscr: u64,
    /// 1 while the guest's OS lock is on.
    pub os_lock: u64,
    /// `DBGBVR<n>_EL1`.
    pub breakpoint_values: [u64; 16],
    /// `DBGBCR<n>_EL1`.
    pub breakpoint_controls: [u64; 16],
    /// `DBGWVR<n>_EL1`.
    pub watchpoint_values: [u64; 16],
    /// `DBGWCR<n>_EL1`.
    pub watchpoint_controls: [u64; 16],
}

/// SS, KDE and MDE of MDSCR_EL1: what makes the CPU take debug exceptions.
const MDSCR_EXCEPTIONS: u64 = 1 << 15 | 1 << 13 | 1 << 0;
/// The fields a guest has: the former, and TDCC. All others are for an external debugger.
const MDSCR_WRITABLE: u64 = MDSCR_EXCEPTIONS | 1 << 12;
const MDSCR_MDE: u64 = 1 << 15;
/// BT, LBN, SSC, HMC, BAS, PMC and E (Arm ARM, D24.3 `DBGBCR<n>_EL1`).
const BREAKPOINT_CONTROL: u64 = 0x00ff_e1e7;
/// MASK, WT, LBN, SSC, HMC, BAS, LSC, PAC and E (D24.3 `DBGWCR<n>_EL1`).
const WATCHPOINT_CONTROL: u64 = 0x1f1f_ffff;
/// OSLM, bits 3 and 0, is 0b10: there is an OS lock. OSLK is bit 1.
const OSLSR_OSLM: u64 = 1 << 3;

impl DebugRegisters {
    /// Returns the values at reset: the OS lock is on (Arm ARM, D24.3 `OSLAR_EL1`).
    pub const fn reset() -> Self {
        Self {
            mdscr: 0,
            os_lock: 1,
            breakpoint_values: [0; 16],
            breakpoint_controls: [0; 16],
            watchpoint_values: [0; 16],
            watchpoint_controls: [0; 16],
        }
    }

    /// Tells whether breakpoints and watchpoints must be in the CPU while the guest runs.
    pub const fn is_active(&self) -> bool {
        self.hardware_mdscr() & MDSCR_MDE != 0
    }

    /// Returns what MDSCR_EL1 must hold in the CPU while the guest runs, always.
    pub const fn hardware_mdscr(&self) -> u64 {
        if self.os_lock != 0 { self.mdscr & !MDSCR_EXCEPTIONS } else { self.mdscr }
    }

    /// Reads a register; `n` is below 16.
    pub const fn read(&self, slot: DebugSlot, n: u8) -> u64 {
        let n = n as usize & 15;
        match slot {
            DebugSlot::Mdscr => self.mdscr,
            DebugSlot::BreakpointValue => self.breakpoint_values[n],
            DebugSlot::BreakpointControl => self.breakpoint_controls[n],
            DebugSlot::WatchpointValue => self.watchpoint_values[n],
            DebugSlot::WatchpointControl => self.watchpoint_controls[n],
        }
    }

    /// Writes the fields of a register that a guest has; `n` is below 16.
    pub const fn write(&mut self, slot: DebugSlot, n: u8, value: u64) {
        let n = n as usize & 15;
        match slot {
            DebugSlot::Mdscr => self.mdscr = value & MDSCR_WRITABLE,
            DebugSlot::BreakpointValue => self.breakpoint_values[n] = value,
            DebugSlot::BreakpointControl => {
                self.breakpoint_controls[n] = value & BREAKPOINT_CONTROL;
            }
            DebugSlot::WatchpointValue => self.watchpoint_values[n] = value,
            DebugSlot::WatchpointControl => {
                self.watchpoint_controls[n] = value & WATCHPOINT_CONTROL;
            }
        }
    }

    /// Writes OSLAR_EL1: bit 0 is the lock.
    pub const fn write_os_lock(&mut self, value: u64) {
        self.os_lock = value & 1;
    }

    /// Reads OSLSR_EL1.
    pub const fn os_lock_status(&self) -> u64 {
        OSLSR_OSLM | self.os_lock << 1
    }
}
