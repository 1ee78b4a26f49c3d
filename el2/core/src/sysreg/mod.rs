//! System registers, and what becomes of a guest's access to each.
//!
//! The one invariant: every register that can be written at EL1 or EL0, of Armv8.0 to Armv9.5, is in
//! exactly one of three tables: [`SWITCHED`], [`TRAPPED`] or [`INVISIBLE`]. So a guest can neither
//! change what the host will find nor read what the host left, except where the table says why that
//! doesn't matter. [`INSTRUCTIONS`] says the same of cache, TLB and address-translation instructions.
//!
//! A trap that finds no row here ends as UNDEFINED in the guest: a register of a later architecture is
//! refused, not passed on. What isn't in a table and doesn't trap is UNDEFINED by the CPU itself. A
//! later register that EL1 can write, and that no EL2 control hides, would break the invariant: the
//! architecture gives each of its extensions such a control, off at reset, and the firmware writes
//! only the bits that it knows.

mod controls;
mod encoding;
mod instructions;
mod invisible;
mod row;
mod switched;
#[cfg(test)]
mod tests;
mod text;
mod trapped;

pub use encoding::Encoding;
pub use instructions::INSTRUCTIONS;
pub use invisible::INVISIBLE;
pub use row::{Control, Direction, Emulation, Expect, Fate, Place, Register};
pub use switched::SWITCHED;
pub use text::Tables;
pub use trapped::TRAPPED;

/// All tables, in the order in which a lookup tries them: the trapped registers first, since only a
/// trap makes the firmware look while a guest runs.
const TABLES: [&[Register]; 4] = [TRAPPED, SWITCHED, INVISIBLE, INSTRUCTIONS];

/// Finds the row of an encoding.
pub fn lookup(encoding: Encoding) -> Option<&'static Register> {
    TABLES.iter().find_map(|table| table.iter().find(|row| row.covers(encoding)))
}

/// Tells what a guest at EL1 sees of an access, the default included.
pub fn expect(encoding: Encoding, read: bool) -> Expect {
    lookup(encoding).map_or(Expect::Undefined, |row| row.expect(read))
}
