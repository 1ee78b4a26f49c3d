//! What an external debugger may do, by the board's signals (Arm ARM, D24.3 DBGAUTHSTATUS_EL1).

/// Tells whether somebody below EL2 could halt EL2, or a CPU inside it: non-secure invasive debug is there and
/// enabled (NSID, bits 1:0, is 0b11).
///
/// A breakpoint with HMC set halts a CPU inside EL2 then, whatever MDCR_EL2 says, and the memory-mapped debug
/// registers of one CPU let another execute instructions on it.
pub const fn lets_el2_be_halted(dbgauthstatus: u64) -> bool {
    dbgauthstatus & 0b11 == 0b11
}
