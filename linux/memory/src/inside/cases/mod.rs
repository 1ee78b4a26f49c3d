//! The tests, by what Linux does to the guest's memory.

mod advice;
mod ageing;
mod merging;
mod sharing;
mod slots;
mod support;
mod swapping;

use verdigris_ktap::Test;

/// Lists all tests.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [
        advice::TESTS,
        ageing::TESTS,
        merging::TESTS,
        sharing::TESTS,
        slots::TESTS,
        slots::LONG_TESTS,
        swapping::TESTS,
    ]
    .into_iter()
    .flatten()
}
