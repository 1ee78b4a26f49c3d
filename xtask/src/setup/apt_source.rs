//! Finds the package mirror that the machine itself uses.
//!
//! `apt-get indextargets` tells it, with the key, for package lists that are there; a fresh image
//! often has none, and then `apt-get update --print-uris` still tells where they would come from.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

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

/// The key of Debian's own archive, where the configuration did not tell one.
const ARCHIVE_KEY: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Mirror {
    /// Asks apt for its index targets and picks the distribution's own.
    pub fn find() -> Result<Self> {
        super::apt::require()?;
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        ensure_debian(&release)?;
        let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let suite = suite.unwrap_or("bookworm").trim_matches('"');
        let targets = command::output(apt_get().args(["indextargets", "--format", FORMAT]))?;
        if let Some(mirror) = Self::choose(&targets, suite) {
            return Ok(mirror);
        }
        let addresses = command::output(apt_get().args(["update", "--print-uris"]))?;
        Self::choose_address(&addresses, suite).context(
            "apt has no package source on this machine: add Debian's to /etc/apt/sources.list, \
             then try again",
        )
    }

    /// Picks from index targets: the suite itself, or else any that is no side suite of it.
    fn choose(targets: &str, suite: &str) -> Option<Self> {
        let rows = targets.lines().map(|line| line.split('|').collect::<Vec<_>>());
        let rows = rows.filter(|row| row.len() == 5 && row[0] == "Packages" && row[1] == "main");
        let rows: Vec<_> = rows.collect();
        let exact = rows.iter().find(|row| row[2] == suite);
        let row = exact.or_else(|| rows.iter().find(|row| is_main_suite(row[2])))?;
        let key = row[4].starts_with('/').then(|| row[4].to_owned());
        Some(Self { address: row[3].to_owned(), suite: suite.to_owned(), key })
    }

    /// Picks from lines `'ADDRESS/dists/SUITE/InRelease' FILE SIZE`.
    fn choose_address(lines: &str, suite: &str) -> Option<Self> {
        let releases = lines.lines().filter_map(|line| {
            let file = line.strip_prefix('\'')?.split_once('\'')?.0;
            file.strip_suffix("/InRelease")?.rsplit_once("/dists/")
        });
        let releases: Vec<_> = releases.collect();
        let exact = releases.iter().find(|(_, name)| *name == suite);
        let (address, _) =
            exact.or_else(|| releases.iter().find(|(_, name)| is_main_suite(name)))?;
        let key = Path::new(ARCHIVE_KEY).is_file().then(|| ARCHIVE_KEY.to_owned());
        Some(Self { address: format!("{address}/"), suite: suite.to_owned(), key })
    }
}

/// Refuses systems whose apt knows other suites than Debian's.
fn ensure_debian(release: &str) -> Result<()> {
    let field = |name| release.lines().find_map(|line| line.strip_prefix(name));
    let id = field("ID=").unwrap_or("debian").trim_matches('"');
    let name = field("PRETTY_NAME=").unwrap_or(id).trim_matches('"');
    ensure!(
        id == "debian",
        "this is {name}, and set-up takes packages of Debian 12's suites, which its mirror does not have.\n\
         Work in a container with Debian 12 or 13 (for one, `podman run -it -v .:/work -w /work debian:12`),\n\
         with git, gcc and rustup in it; or bring the parts yourself.\n{}",
        super::tools::BY_HAND
    );
    Ok(())
}

/// Tells `stable` from `bookworm-updates` and `stable/updates`.
fn is_main_suite(name: &str) -> bool {
    !name.contains(['-', '/'])
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C");
    command
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

    #[test]
    fn another_distribution_is_told_what_to_do() {
        ensure_debian("PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n").unwrap();
        ensure_debian("").unwrap();
        let ubuntu = "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n";
        let error = ensure_debian(ubuntu).unwrap_err().to_string();
        assert!(
            error.starts_with("this is Ubuntu 24.04.1 LTS") && error.contains("container"),
            "{error}"
        );
        assert!(error.contains("VERDIGRIS_BUSYBOX"), "{error}");
    }

    #[test]
    fn lists_that_are_not_there_yet_tell_the_mirror_too() {
        let lines = "'http://b.invalid/security/dists/bookworm-security/InRelease' f 0 \n\
            'http://a.invalid/debian/dists/bookworm/InRelease' f 0 \n\
            'http://a.invalid/debian/dists/bookworm/main/binary-amd64/Packages.xz' f 0 \n";
        for text in [lines, &lines.replace("bookworm/", "stable/")] {
            let mirror = Mirror::choose_address(text, "bookworm").unwrap();
            assert_eq!(mirror.address, "http://a.invalid/debian/");
        }
        assert_eq!(Mirror::choose_address(lines.lines().next().unwrap(), "bookworm"), None);
    }
}
