//! Exit records: what `VCPU_RUN` returns in `x1` to `x17`.

use verdigris_abi::{ExitReason, Ipa, flags};

use super::GeneralRegisters;
use crate::call::Registers;
use crate::esr::{Abort, Access, FaultStatus, Load, Syndrome};

/// Why a run ended, and the record that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// The reason, `x1`.
    pub reason: ExitReason,
    /// `x2` to `x17`; what a reason doesn't name is 0.
    pub words: [u64; 16],
}

/// The first register of a record behind the reason.
const FIRST: usize = 2;

impl ExitRecord {
    /// Makes a record without words.
    pub const fn new(reason: ExitReason) -> Self {
        Self { reason, words: [0; 16] }
    }

    /// Sets register `x<number>` of the record, 2 to 17.
    pub const fn with(mut self, number: usize, value: u64) -> Self {
        self.words[number - FIRST] = value;
        self
    }

    /// Writes the record to the registers of the call, and returns the reason.
    ///
    /// Word by word: of that the compiler makes moves from where each comes to where it goes, of a
    /// copied slice it makes a record in memory and a call of `memcpy`.
    #[inline(always)]
    pub fn put(&self, x: &mut Registers) -> ExitReason {
        let [_, reason, words @ ..] = x;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = words;
        *reason = self.reason as u64;
        [*a, *b, *c, *d, *e, *f, *g, *h, *i, *j, *k, *l, *m, *n, *o, *p] = self.words;
        self.reason
    }

    /// Makes the record of a fault that the host has to resolve.
    ///
    /// `sequence` was sampled before this: the host looks at its page tables after it.
    pub const fn fault(fault: &StageTwoFault, ipa: Ipa, sequence: u64) -> Self {
        let record = Self::new(ExitReason::Fault)
            .with(2, ipa.0)
            .with(3, fault_flags(fault))
            .with(4, fault.syndrome.0)
            .with(5, sequence)
            .with(6, fault.far);
        match fault.mmio() {
            Some(load) => record.with(7, describe(load)).with(8, fault.stored),
            None => record,
        }
    }
}

/// A stage-2 fault of a guest, with all that is needed to resolve, report or complete it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTwoFault {
    /// ESR_EL2.
    pub syndrome: Syndrome,
    /// FAR_EL2.
    pub far: u64,
    /// The decoded fault.
    pub abort: Abort,
    /// The value that a described store stores, cut to its size; 0 for all else.
    pub stored: u64,
}

impl StageTwoFault {
    /// Describes the fault of an interrupted guest.
    pub const fn new(
        syndrome: Syndrome,
        far: u64,
        abort: Abort,
        registers: &GeneralRegisters,
    ) -> Self {
        let mut fault = Self { syndrome, far, abort, stored: 0 };
        if let Some(load) = fault.mmio()
            && matches!(abort.access(), Access::Write)
        {
            fault.stored = registers.read(load.register) & ones(8 << load.size_log2);
        }
        fault
    }

    /// Returns the load or store that the host can complete for the guest, if this is one.
    pub const fn mmio(&self) -> Option<Load> {
        if self.abort.table_walk || self.abort.cache_maintenance { None } else { self.abort.load }
    }
}

/// Returns a mask of that many ones, 1 to 64.
pub(super) const fn ones(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

const fn fault_flags(fault: &StageTwoFault) -> u64 {
    let abort = &fault.abort;
    let mut all = match abort.access() {
        Access::Read => 0,
        Access::Write => flags::FAULT_WRITE,
        Access::Execute => flags::FAULT_EXEC,
    };
    if abort.table_walk {
        all |= flags::FAULT_TABLE_WALK;
    }
    if matches!(abort.status, FaultStatus::Permission(_)) {
        all |= flags::FAULT_PERMISSION;
    }
    if abort.cache_maintenance {
        all |= flags::FAULT_CACHE_MAINTENANCE;
    }
    if fault.mmio().is_some() {
        all |= flags::FAULT_MMIO_VALID;
    }
    all
}

const fn describe(load: Load) -> u64 {
    let mut all = load.size_log2 as u64 & flags::MMIO_SIZE_MASK;
    if load.sign_extend {
        all |= flags::MMIO_SIGN_EXTEND;
    }
    if load.is_64_bit {
        all |= flags::MMIO_REG_64;
    }
    all | (load.register as u64) << flags::MMIO_REG_SHIFT
}
