//! The KVM interface itself: what is offered, what is refused and how, and what lives how long.
//!
//! The same expectations hold on Linux's KVM, where a test doesn't say otherwise: that is how they were found.

pub mod code;
mod files;
mod mistakes;
mod offers;
mod promises;
mod registers;
mod running;

use verdigris_ktap::Test;

/// Lists the tests.
pub const TESTS: &[&[Test]] = &[
    files::TESTS,
    mistakes::TESTS,
    offers::TESTS,
    promises::TESTS,
    registers::TESTS,
    running::TESTS,
];
