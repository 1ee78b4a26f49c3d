//! Chooses tests by the words of the command line.
//!
//! Words choose within one group alone: other groups want other machines, or are no tests but processes that tests start
//! and kill. So a word that fits one of those by chance starts nothing.
#![cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]

use verdigris_ktap::Test;

/// The group that is meant where none is given.
const GROUP: &str = "memory";

/// Which tests are meant, and whether to run them or to list them.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The group of the tests.
    pub group: &'a str,
    /// Whether they are to be listed.
    pub list: bool,
    names: &'a [&'a str],
}

impl<'a> Choice<'a> {
    /// Reads `[--group GROUP] [--list] [NAME...]`.
    pub fn parse(mut options: &'a [&'a str]) -> Option<Self> {
        let (mut group, mut list) = (GROUP, false);
        loop {
            match options {
                ["--group", name, rest @ ..] => (group, options) = (*name, rest),
                ["--list", rest @ ..] => (list, options) = (true, rest),
                [option, ..] if option.starts_with('-') => return None,
                names => return Some(Self { group, list, names }),
            }
        }
    }

    /// Tells whether a test is meant: all of the group are, or those with one of the names in theirs.
    pub fn has(&self, test: &Test) -> bool {
        let is_named =
            self.names.is_empty() || self.names.iter().any(|name| test.name.contains(name));
        test.group == self.group && is_named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: [Test; 4] = [
        Test { name: "log_is_exact", group: "memory", seconds: 1, run: || () },
        Test { name: "copy_by_log", group: "memory", seconds: 1, run: || () },
        Test { name: "log_of_blocks", group: "placement", seconds: 1, run: || () },
        Test { name: "victim", group: "victim", seconds: 1, run: || () },
    ];

    fn chosen(options: &[&str]) -> Vec<&'static str> {
        let choice = Choice::parse(options).expect("good options");
        TESTS.iter().filter(|test| choice.has(test)).map(|test| test.name).collect()
    }

    #[test]
    fn words_choose_within_a_group() {
        assert_eq!(chosen(&[]), ["log_is_exact", "copy_by_log"]);
        assert_eq!(chosen(&["copy", "nothing"]), ["copy_by_log"]);
        assert_eq!(chosen(&["log"]), ["log_is_exact", "copy_by_log"]);
        assert_eq!(chosen(&["--group", "placement", "log"]), ["log_of_blocks"]);
        assert_eq!(chosen(&["victim"]), [""; 0]);
    }

    #[test]
    fn options_come_before_names() {
        let choice = Choice::parse(&["--list", "--group", "figures", "a", "b"]).unwrap();
        assert_eq!(choice, Choice { group: "figures", list: true, names: &["a", "b"] });
        assert_eq!(Choice::parse(&["--lost"]), None);
        assert_eq!(Choice::parse(&["--group"]), None);
    }
}
