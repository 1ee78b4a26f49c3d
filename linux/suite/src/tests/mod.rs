//! All tests, by what they are about.

mod discovery;

use crate::ktap::Test;

/// Lists every test there is.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [discovery::TESTS].into_iter().flatten()
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
