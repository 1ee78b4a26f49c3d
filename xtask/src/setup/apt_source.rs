//! Finds the package mirror that the machine itself uses.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// A package mirror, as the machine's own apt configuration has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The address of the archive.
    pub address: String,
    /// The suite that the machine is of, by its code name.
    pub suite: String,
    /// The file of the key that signs it, where the configuration names one.
    pub key: Option<String>,
}

/// The fields that are asked for, one target a line.
const FORMAT: &str = "$(CREATED_BY)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)|$(SIGNED_BY)";

impl Mirror {
    /// Asks apt for its index targets and picks the distribution's own.
    pub fn find() -> Result<Self> {
        super::apt::require()?;
        let mut command = Command::new("apt-get");
        let targets = command::output(command.args(["indextargets", "--format", FORMAT]))?;
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let suite = suite.unwrap_or("bookworm").trim_matches('"');
        Self::choose(&targets, suite).context(
            "apt has no package source on this machine: add Debian's to /etc/apt/sources.list, \
             type `apt-get update`, then try again",
        )
    }

    /// Picks from `targets`: the suite itself, or else any that is no side suite of it.
    fn choose(targets: &str, suite: &str) -> Option<Self> {
        let rows = targets.lines().map(|line| line.split('|').collect::<Vec<_>>());
        let rows = rows.filter(|row| row.len() == 5 && row[0] == "Packages" && row[1] == "main");
        let rows: Vec<_> = rows.collect();
        let exact = rows.iter().find(|row| row[2] == suite);
        let row = exact.or_else(|| rows.iter().find(|row| !row[2].contains(['-', '/'])))?;
        let key = row[4].starts_with('/').then(|| row[4].to_owned());
        Some(Self { address: row[3].to_owned(), suite: suite.to_owned(), key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
Packages|main|bookworm-security|http://b.invalid/security/|/usr/share/keyrings/k.gpg
Translations|main|bookworm|http://c.invalid/debian/|
Packages|contrib|bookworm|http://d.invalid/debian/|
Packages|main|bookworm|http://a.invalid/debian/|/usr/share/keyrings/k.gpg
";

    #[test]
    fn the_suite_itself_is_chosen_with_its_key() {
        let mirror = Mirror::choose(TARGETS, "bookworm").unwrap();
        assert_eq!(mirror.address, "http://a.invalid/debian/");
        assert_eq!(mirror.key.as_deref(), Some("/usr/share/keyrings/k.gpg"));
    }

    #[test]
    fn an_alias_of_the_suite_will_do_and_a_side_suite_will_not() {
        let aliases = TARGETS.replace("|bookworm|", "|stable|").replace("/usr/share/", "$(X");
        let mirror = Mirror::choose(&aliases, "bookworm").unwrap();
        assert_eq!(mirror.address, "http://a.invalid/debian/");
        assert_eq!(mirror.key, None);
        let side = TARGETS.lines().next().unwrap();
        assert_eq!(Mirror::choose(side, "bookworm"), None);
    }
}
