//! The tests, by what Linux does to the guest's memory.

mod added;
mod advice;
mod ageing;
mod around;
mod beside;
mod classic;
mod dirty;
mod figures;
mod huge;
mod kernel;
mod killed;
mod merging;
mod migration;
mod sharing;
mod slots;
mod sparse;
mod spinning;
mod support;
mod swapping;
mod together;
pub mod uapi;
mod userfaults;
mod windows;

use verdigris_ktap::Test;

/// Lists all tests.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [
        added::TESTS,
        advice::TESTS,
        ageing::TESTS,
        around::TESTS,
        classic::TESTS,
        classic::FIGURES,
        dirty::TESTS,
        figures::TESTS,
        huge::TESTS,
        killed::TESTS,
        killed::VICTIMS,
        kernel::TESTS,
        merging::TESTS,
        migration::TESTS,
        sharing::TESTS,
        slots::TESTS,
        slots::LONG_TESTS,
        sparse::TESTS,
        sparse::VICTIMS,
        spinning::TESTS,
        swapping::TESTS,
        together::TESTS,
        together::VICTIMS,
        userfaults::TESTS,
        windows::TESTS,
    ]
    .into_iter()
    .chain(uapi::TESTS.iter().copied())
    .flatten()
}
