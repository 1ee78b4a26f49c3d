//! A private apt configuration: own package lists, own archives, nothing of the system's changed.
//!
//! The mirror is the one that the machine itself uses, as `apt-get indextargets` tells it; only
//! suite names are ours. The machine's transport settings (proxies, checks) are carried over, its
//! hooks are not: they would act on the system. What every Debian has (its essential packages, and what
//! these need) is not fetched; all else is, although it may be installed here: what is fetched has to fit together,
//! and an installed package can be of another version, or go. What installed packages ask of others is not
//! asked, since nothing is installed and so nothing of theirs can break.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

pub use super::apt_source::Mirror;
use crate::{command, paths, progress};

/// The suite that has the driver's reference kernel, 6.12, and the QEMU to use with it.
pub const BACKPORTS: &str = "bookworm-backports";

/// What is installed on this machine.
const STATUS: &str = "/var/lib/dpkg/status";
/// What of it matters: what there is, and nothing of what it needs or cannot stand.
const FIELDS: &[&str] =
    &["Package:", "Status:", "Architecture:", "Multi-Arch:", "Version:", "Provides:"];

/// The private configuration, with its package lists up to date.
pub struct Apt {
    dir: PathBuf,
    /// The machine's own architecture, in Debian's words.
    pub architecture: String,
    /// The suite that the machine itself is of.
    pub suite: String,
}

impl Apt {
    /// Writes the configuration and fetches the package lists.
    pub fn prepare() -> Result<Self> {
        Self::prepare_with(&[])
    }

    /// Writes the configuration with more suites of the same archive.
    pub fn prepare_with(more: &[&str]) -> Result<Self> {
        require()?;
        let mirror = Mirror::find()?;
        let dir = paths::cache().join("apt");
        for folder in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        let architecture =
            command::output(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
        std::fs::write(dir.join("sources.list"), sources(&mirror, &architecture, more))?;
        std::fs::write(dir.join("apt.conf"), configuration(&dir, &architecture)?)?;
        let installed = std::fs::read_to_string(STATUS).with_context(|| format!("no {STATUS}"))?;
        std::fs::write(dir.join("status"), without_relations(&essential(&installed)))?;
        let apt = Self { dir, architecture, suite: mirror.suite };
        progress::step("fetching package lists", || {
            command::run(apt.command("apt-get").arg("update")).context(
                "the package lists cannot be fetched; is the network there? (only the first \
                 set-up needs it)",
            )
        })?;
        Ok(apt)
    }

    /// Removes lists and archives: what was fetched is unpacked, and set-up is rare.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.dir).context("cannot remove the package lists")
    }

    /// Makes a command of an apt program under the private configuration.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// Returns the newest version of a package in a suite.
    pub fn version(&self, package: &str, suite: &str) -> Result<String> {
        let table = command::output(self.command("apt-cache").args(["madison", package]))?;
        let in_suite = |line: &&str| line.contains(&format!(" {suite}/"));
        let line = table.lines().find(in_suite);
        let version = line.and_then(|line| line.split('|').nth(1)).map(str::trim);
        version.map(str::to_owned).with_context(|| format!("{suite} has no package {package}"))
    }

    /// Lists the kernels' packages of all suites, less those that are for debugging or not signed.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let text = command::output(self.command("apt-cache").args(["pkgnames", "linux-image-"]))?;
        let is_kernel = |name: &&str| {
            name.contains("arm64")
                && !["-unsigned", "-dbg", "-template"].iter().any(|end| name.ends_with(end))
        };
        let mut names: Vec<_> = text.lines().filter(is_kernel).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Returns all versions of a package, the newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = command::output(self.command("apt-cache").args(["madison", package]))?;
        let mut versions: Vec<_> =
            table.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim().into())).collect();
        versions.dedup();
        Ok(versions)
    }

    /// Returns the packages that a given version of a package depends on, by their names.
    pub fn depends(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let name = format!("{package}={version}");
        let text = command::output(self.command("apt-cache").args(["show", &name]))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Depends: "));
        let line = line.with_context(|| format!("{name} depends on nothing"))?;
        let word = |part: &str| part.split_whitespace().next().map(str::to_owned);
        Ok(line.split(',').filter_map(word).collect())
    }

    /// Fetches just the named packages (`name:arch=version`) and returns their files.
    pub fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join("single");
        empty(&dir)?;
        // One at a time: where a package has no more than one architecture, apt-get takes a list
        // of several for different names of the same file.
        for package in packages {
            command::run(self.command("apt-get").args(["download", package]).current_dir(&dir))?;
        }
        archives(&dir)
    }

    /// Fetches packages of a suite with all they need beyond what is installed.
    pub fn download_missing(&self, packages: &[&str], suite: &str) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join("archives");
        empty(&dir)?;
        std::fs::create_dir_all(dir.join("partial"))?;
        let mut install = self.command("apt-get");
        install.args(["install", "--download-only", "--yes", "--no-install-recommends"]);
        command::run(install.args(["--target-release", suite]).args(packages))?;
        archives(&dir)
    }
}

fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(std::fs::create_dir_all(dir)?)
}

fn archives(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut debs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            debs.push(path);
        }
    }
    debs.sort();
    Ok(debs)
}

/// Keeps the packages that are on every machine: those marked so, dpkg and apt, and what these depend on.
fn essential(status: &str) -> String {
    let field = |paragraph: &str, name: &str| {
        let line = paragraph.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let mut rest: Vec<_> = status.split("\n\n").map(|text| text.trim_matches('\n')).collect();
    let mut wanted: Vec<String> = ["dpkg", "apt"].map(str::to_owned).to_vec();
    let is_essential = |paragraph: &&&str| field(paragraph, "Essential:") == "yes";
    wanted.extend(rest.iter().filter(is_essential).map(|paragraph| field(paragraph, "Package:")));
    let mut kept = String::new();
    while let Some(name) = wanted.pop() {
        let provides = |text: &str| names(&field(text, "Provides:")).contains(&name);
        let (found, others) = rest
            .into_iter()
            .partition::<Vec<_>, _>(|text| field(text, "Package:") == name || provides(text));
        rest = others;
        for paragraph in found {
            for relation in ["Depends:", "Pre-Depends:"] {
                wanted.extend(names(&field(paragraph, relation)));
            }
            kept += &format!("{paragraph}\n\n");
        }
    }
    kept
}

/// Reads the names of a relation, alternatives too: `libc6 (>= 2.34), a:any | b`.
fn names(relation: &str) -> Vec<String> {
    let name = |part: &str| {
        let word = part.split_whitespace().next()?;
        Some(word.split(':').next()?.to_owned())
    };
    relation.split([',', '|']).filter_map(name).collect()
}

fn without_relations(status: &str) -> String {
    let keep = |line: &&str| line.is_empty() || FIELDS.iter().any(|field| line.starts_with(field));
    status.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

fn sources(mirror: &Mirror, architecture: &str, more: &[&str]) -> String {
    let mut text = String::new();
    let mut suites = vec![mirror.suite.as_str()];
    if mirror.suite != "bookworm" {
        suites.push("bookworm");
    }
    suites.push(BACKPORTS);
    let more = more.iter().filter(|suite| !suites.contains(suite)).copied().collect::<Vec<_>>();
    suites.extend(more);
    for suite in suites {
        let key = mirror.key.as_ref().map_or(String::new(), |key| format!(" signed-by={key}"));
        let architectures =
            if architecture == "arm64" { "arm64".into() } else { format!("{architecture},arm64") };
        writeln!(text, "deb [arch={architectures}{key}] {} {suite} main", mirror.address)
            .expect("writing to a string");
    }
    text
}

fn configuration(dir: &Path, architecture: &str) -> Result<String> {
    let path = dir.to_str().context("the cache directory's name is not UTF-8")?;
    ensure!(!path.contains('"'), "the cache directory's name has a quote in it");
    let mut text = String::new();
    let system = command::output(Command::new("apt-config").args(["dump", "Acquire"]))?;
    for line in system.lines().filter(|line| !line.starts_with("Acquire::IndexTargets")) {
        writeln!(text, "{line}")?;
    }
    writeln!(
        text,
        r#"Acquire::Languages "none";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; "arm64"; }};
APT::Sandbox::User "";
Debug::NoLocking "1";
Dir::Cache "{path}";
Dir::Cache::archives "{path}/archives";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "{path}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "{path}/lists";
Dir::State::status "{path}/status";"#
    )?;
    Ok(text)
}

/// Says what is missing where there is no apt.
pub fn require() -> Result<()> {
    for program in ["apt-get", "apt-cache", "dpkg", "dpkg-deb"] {
        if command::find(program).is_none() {
            bail!(
                "{program} is not on this machine, so set-up cannot fetch packages.\n{}",
                super::tools::BY_HAND
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_can_break_nothing() {
        let status = "Package: qemu-utils\nStatus: install ok installed\nVersion: 1:10\n\
            Breaks: qemu-system-common (<< 1:8.0)\nDescription: tools\n Package: no field\n\n\
            Package: b\nDepends: c\n";
        let expected = "Package: qemu-utils\nStatus: install ok installed\nVersion: 1:10\n\n\
            Package: b\n";
        assert_eq!(without_relations(status), expected);
    }

    #[test]
    fn what_is_fetched_leans_on_what_every_machine_has() {
        let package = |name: &str, fields: &str| {
            format!("Package: {name}\nStatus: install ok installed\nVersion: 1\n{fields}\n")
        };
        let status = [
            package("bash", "Essential: yes\nPre-Depends: libc6 (>= 2.36), libtinfo6 (>= 6)\n"),
            package("libc6", "Depends: libgcc-s1:any | libgcc1\n"),
            package("libtinfo6", ""),
            package("libgcc-s1", ""),
            package("apt", "Depends: debian-archive-keyring, libc6\n"),
            package("keyring-fork", "Provides: debian-archive-keyring (= 1)\n"),
            // Chance: someone needed them once.
            package("binutils-aarch64-linux-gnu", "Depends: libc6\n"),
            package("libglib2.0-0", "Depends: libc6\n"),
        ]
        .concat();
        let text = essential(&status);
        let mut kept: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("Package: ")).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["apt", "bash", "keyring-fork", "libc6", "libgcc-s1", "libtinfo6"]);
    }
}
