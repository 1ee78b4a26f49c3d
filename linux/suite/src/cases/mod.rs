//! All tests, by what they are about.

mod ageing;
mod arguments;
mod blocks;
mod cold;
mod counters;
mod dirty;
mod discovery;
mod driver;
mod exits;
mod host_memory;
mod hotplug;
mod invalidation;
mod lifetime;
mod lists;
mod map_list;
mod mapping;
mod migration;
mod registers;
mod replace;
mod rollover;
mod shape;
mod support;
mod sweep;
mod working_sets;

pub use hotplug::switch_of as hotplug_switch;

use crate::ktap::Test;

/// Lists every test there is.
pub fn all() -> impl Iterator<Item = &'static Test> {
    let modules = [
        discovery::TESTS,
        arguments::TESTS,
        arguments::pages::TESTS,
        arguments::flags_and_counts::TESTS,
        arguments::vcpus::TESTS,
        arguments::engine::TESTS,
        mapping::TESTS,
        map_list::TESTS,
        blocks::TESTS,
        exits::TESTS,
        registers::TESTS,
        lists::TESTS,
        ageing::TESTS,
        replace::TESTS,
        invalidation::TESTS,
        dirty::TESTS,
        cold::TESTS,
        shape::TESTS,
        working_sets::TESTS,
        migration::TESTS,
        lifetime::TESTS,
        lifetime::helpers::TESTS,
        host_memory::TESTS,
        host_memory::helpers::TESTS,
        counters::TESTS,
        driver::TESTS,
        driver::LOCKDOWN,
        driver::helpers::TESTS,
        hotplug::TESTS,
        rollover::TESTS,
        sweep::TESTS,
    ];
    modules.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = super::all().map(|test| test.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
