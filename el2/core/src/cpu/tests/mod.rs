//! Tables of real CPUs, with the answers that the Arm ARM and the errata notices give.

mod el3;
mod errata;
mod parts;
mod selection;
mod vtcr;

pub(super) use parts::*;
