//! What a guest is to the firmware: its registers, and the policy for everything it can do.
//!
//! The one invariant: whatever a guest does ends in emulation, in an exception given to that guest, or
//! in an exit to the host. Nothing here can fail for a value that a guest chose.
//!
//! A run goes like this. The firmware calls [`resume()`] with what the last exit left open, switches the
//! registers of the [`Context`], and enters the guest. At each trap it saves the general registers and
//! asks [`decide()`]; a stage-2 fault it takes to the VM's tables, and where they have no answer, makes the
//! exit by [`ExitRecord::fault`] and keeps the fault as [`Pending`].

mod context;
mod debug;
mod decide;
mod exit;
pub mod id;
mod registers;
mod resume;
mod slots;
#[cfg(test)]
mod tests;

pub use context::{Context, FpRegisters, GeneralRegisters, SystemRegisters};
pub use debug::{DebugRegisters, DebugSlot};
pub use decide::{Outcome, call_exit, decide};
pub use exit::{ExitRecord, StageTwoFault};
pub use registers::Machine;
pub use resume::{Pending, resume};
pub use slots::{Group, Slot};
