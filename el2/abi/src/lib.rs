//! The hypercall interface of Verdigris: numbers, flags, errors and records.
//!
//! This crate is the one place where a number of the interface is written down. The firmware and
//! the tests use it directly; the C header of the Linux driver is generated from [`ITEMS`], and a
//! test fails when the two differ. What each call does, its units, errors and what holds after a
//! failure is in `docs/abi.md`.
//!
//! Calls follow the SMC Calling Convention 1.2 (Arm DEN 0028): the function identifier is in `x0`,
//! arguments in `x1` to `x17`, the status in `x0` on return and results in `x1` to `x17`. They can be
//! made by `HVC #0` or `SMC #0`, from the host's EL1 only.
#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
mod error;
mod exit;
mod item;
mod layout;
mod stats;

pub use addr::{Ipa, PAGE_SHIFT, PAGE_SIZE, Pa};
pub use error::{Error, Status};
pub use item::{Item, Section};
pub use layout::*;

pub mod call;
pub mod flags;
pub mod reg;

pub use exit::ExitReason;
pub use stats::{STAT_NAMES, Stat};

/// Major and minor version of the interface that this crate describes.
///
/// A caller refuses to work with another major version; a higher minor version only adds calls,
/// flags or statistics.
pub const VERSION: (u16, u16) = (1, 3);

/// What `call::UID` answers in `w0` to `w3`: the UUID `5a8ad5ed-2d60-4d4e-9a6b-76657264e917` as four
/// little-endian words (Arm DEN 0028, section 6.2).
pub const UID: [u32; 4] = [0xedd5_8a5a, 0x4e4d_602d, 0x6576_6b9a, 0x17e9_6472];

/// Groups of constants, in the order in which the generated C header lists them.
pub const ITEMS: &[&[Item]] = &[
    layout::ITEMS,
    call::ITEMS,
    error::ITEMS,
    flags::ITEMS,
    exit::ITEMS,
    reg::ITEMS,
    stats::ITEMS,
];
