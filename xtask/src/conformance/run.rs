//! Runs tests in machines: as many of them in one as it survives.
//!
//! The programs are laid over the host's root for this run alone. Each test is a process of its
//! own, which the host ends when its time is over (`linux/host/selftests`). When a machine ends
//! before its tests do, the one that was under way has failed, and a fresh machine goes on with
//! the next.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use verdigris_qemu::Machine;

use super::list::Case;
use super::report::{Ended, LIMIT, Reader};
use crate::build::Program;
use crate::lab::{Below, Lab, TIMEOUT, Trial};
use crate::paths;

/// What runs the tests.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The name for logs.
    pub name: String,
    /// The CPUs' model.
    pub cpu: String,
    /// What runs below the host.
    pub below: Below,
    /// The driver's arguments, where it is to be loaded.
    pub driver: Option<String>,
}

/// Memory of the host: `dirty_log_test` has a guest of 1 GiB.
const MEMORY_BYTES: u64 = 3 << 30;
/// Where the programs are in the host.
const FOLDER: &str = "selftests";
/// The script that runs them, of this repository and there.
const SCRIPT: &str = "linux/host/selftests";
const SCRIPT_NAME: &str = "run";
/// Huge pages of 2 MiB for the tests that ask for them.
const HUGE_PAGES: u32 = 80;

impl Bench {
    /// Runs all tests, and tells of each as it ends.
    pub fn run(
        &self,
        lab: &Lab,
        cases: &[Case],
        programs: &[Program],
        mut told: impl FnMut(Ended),
    ) -> Result<()> {
        let root = paths::target().join("run").join(format!("conformance-{}", self.name));
        let folder = root.join(FOLDER);
        lay_out(&folder, cases, programs)?;
        let (mut first, mut machine) = (0, 1);
        while first < cases.len() {
            std::fs::write(folder.join("list"), list(cases, first))?;
            let mut next = first;
            let mut reader = Reader::new(|ended: Ended| {
                next = ended.number + 1;
                told(ended);
            });
            let outcome = lab.run(&self.trial(&root, cases.len(), machine), &mut reader)?;
            let why = outcome.failure().unwrap_or_else(|| "the machine went down".into());
            reader.finish(&why);
            if next == first {
                bail!("{why} before a test began:\n{}", outcome.tail_text());
            }
            (first, machine) = (next, machine + 1);
        }
        Ok(std::fs::remove_dir_all(root)?)
    }

    fn trial(&self, root: &Path, count: usize, machine: u32) -> Trial {
        let cpu = self.cpu.clone();
        let board = Machine { memory_bytes: MEMORY_BYTES, cpu, ..Machine::default() };
        let name = match machine {
            1 => format!("conformance-{}", self.name),
            more => format!("conformance-{}-{more}", self.name),
        };
        let command = format!("/{FOLDER}/{SCRIPT_NAME} {} {HUGE_PAGES}", LIMIT.as_secs());
        // The reader ends a machine whose test does not end; this is for the rest of it.
        let timeout = TIMEOUT + LIMIT * 2 * u32::try_from(count).unwrap_or(u32::MAX);
        Trial {
            below: self.below.clone(),
            driver: self.driver.clone(),
            overlays: vec![root.to_owned()],
            timeout,
            ..Trial::new(&name, board, &command)
        }
    }
}

/// Fills the folder that is laid over the host's root, but for the list of a machine's tests.
fn lay_out(folder: &Path, cases: &[Case], programs: &[Program]) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let copy = |from: &Path, to: PathBuf| -> Result<()> {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    };
    copy(&paths::root().join(SCRIPT), folder.join(SCRIPT_NAME))?;
    let wanted = |own: &&Program| cases.iter().any(|case| case.program == own.name);
    for program in programs.iter().filter(wanted) {
        copy(&program.file, folder.join(&program.name))?;
    }
    Ok(())
}

/// Lists the tests from the first that is still to run, as the script reads them.
fn list(cases: &[Case], first: usize) -> String {
    let mut text = String::new();
    for (number, case) in cases.iter().enumerate().skip(first) {
        writeln!(text, "{number} {}", case.name()).expect("writing to a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::list::Demand;
    use super::*;

    #[test]
    fn numbers_stay_when_a_second_machine_goes_on() {
        let case = |program: &str, arguments: &str| Case {
            program: program.into(),
            arguments: arguments.into(),
            demand: Demand::Pass,
        };
        let cases = [case("a", ""), case("b", "-x 1"), case("c", "")];
        assert_eq!(list(&cases, 0), "0 a\n1 b -x 1\n2 c\n");
        assert_eq!(list(&cases, 1), "1 b -x 1\n2 c\n");
    }
}
