//! EL2's own translation and protection: SCTLR_EL2.

use super::when;
use crate::cpu::IdRegisters;

/// Returns SCTLR_EL2 as it is once the MMU is on (Arm ARM, D24.2, with HCR_EL2.E2H = 0).
///
/// RES1 are bits 29, 28, 23, 22, 18, 16, 11, 5 and 4; of these 22 and 11 (EIS, EOS) became fields with
/// FEAT_ExS, and stay 1: exception entry and return synchronize. M (0), C (2), SA (3), I (12) and WXN
/// (19) are set: memory that can be written is never executed, whatever the tables say. A (1) is clear:
/// compiled code may access Normal memory unaligned.
///
/// With the CPU's features: EnIA (31) authenticates return addresses, BT (36) makes `PACIASP` no landing
/// pad for every branch, IESB (21) synchronizes errors on entry, so that a guest's is not taken for the
/// host's.
pub const fn sctlr_el2(id: &IdRegisters) -> u64 {
    const RES1: u64 = 0x30c5_0830;
    const ON: u64 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;
    RES1 | ON
        | when(id.has_pauth(), 1 << 31)
        | when(id.has_bti(), 1 << 36)
        | when(id.has_iesb(), 1 << 21)
}
