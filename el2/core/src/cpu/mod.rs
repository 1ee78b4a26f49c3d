//! What a CPU is, and what EL2 makes of it.
//!
//! Everything here is a pure function of ID registers: the firmware reads them once on each CPU into
//! [`IdRegisters`], and all that follows (features, errata, the value of every control register) is
//! computed from those numbers and from the feature mask of the command line. So a part that nobody
//! has on the desk is a row in a table test, and each fallback can be run on any machine.
//!
//! One invariant holds the module together: **no field is compared by a name that somebody else gave
//! it**. Fields are raw bit positions from the Arm ARM (DDI 0487, chapter D24), because published
//! enumerations of them have been wrong in places.
//!
//! Two kinds of values are kept apart. What must agree on all CPUs (memory attributes, VMID width,
//! which invalidations may be issued) is a [`Selection`], made once from the boot CPU; a later CPU
//! that has less is refused by [`Selection::admit`]. What the architecture gates on each CPU for
//! itself (hardware access flags and dirty state) is a [`CpuSelection`].

mod controls;
mod debug;
mod el3;
mod errata;
mod features;
mod fields;
mod gates;
mod granularity;
mod id;
mod midr;
mod select;
#[cfg(test)]
mod tests;
pub mod vtcr;

pub use controls::{Controls, FineTraps, FineTraps2, Fixed, HOST_ENTRY_SCTLR_EL1, HOST_ENTRY_SPSR};
pub use debug::lets_el2_be_halted;
pub use el3::Group;
pub use errata::Errata;
pub use features::{Difference, Features};
pub use id::IdRegisters;
pub use midr::Midr;
pub use select::{CpuSelection, Mismatch, Selection};
