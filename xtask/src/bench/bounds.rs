//! Upper bounds of figures, committed: what a change must not make worse.
//!
//! A line is `MACHINE NAME BOUND`. A figure may exceed its bound by [`TOLERANCE`], since another compiler
//! chooses other instructions. Whoever makes a call cheaper writes new bounds, so that it stays so.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::figures::Figures;
use crate::paths;
use crate::test::tally::Tally;

/// How far a figure may exceed its bound: 5 %, but at least half of an instruction.
const TOLERANCE: f64 = 0.05;
const LEAST_SLACK: f64 = 0.5;
/// The figure that is a part of one: half of one would be everything.
const EXACT: &str = "invalidations/cold-page";
/// Invalidations of a call, each of whose parts has its own: an interrupt may add a part.
const COUNTED: &str = "invalidations/";
const COUNTED_SLACK: f64 = 2.0;
const HEADING: &str = "\
# Upper bounds of the figures of `cargo xtask bench engine`: machine, figure, instructions of EL2 (or what the
# figure counts). The test part `bench` fails where a figure is more than 5 % above its bound.
# Written by `cargo xtask bench engine --write-bounds`.
";

/// Bounds by machine and figure.
pub struct Bounds(BTreeMap<(String, String), f64>);

fn path() -> PathBuf {
    paths::root().join("xtask/bench-bounds.txt")
}

impl Bounds {
    /// Reads the committed ones.
    pub fn read() -> Result<Self> {
        let path = path();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let entry = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [machine, name, bound] = words[..] else {
                anyhow::bail!("not three words: {line}")
            };
            let bound = bound.parse().with_context(|| format!("{bound} is no number"))?;
            Ok(((machine.to_owned(), name.to_owned()), bound))
        };
        lines.map(entry).collect::<Result<_>>().map(Self)
    }

    /// Takes new figures for the bounds of a machine.
    pub fn replace(&mut self, machine: &str, figures: &Figures) {
        self.0.retain(|(own, _), _| own != machine);
        for (name, value) in &figures.values {
            self.0.insert((machine.to_owned(), name.clone()), *value);
        }
    }

    /// Writes the file.
    pub fn write(&self) -> Result<()> {
        let mut text = HEADING.to_owned();
        for ((machine, name), bound) in &self.0 {
            writeln!(text, "{machine} {name} {bound:.3}")?;
        }
        Ok(std::fs::write(path(), text)?)
    }

    /// Compares figures with their bounds, one test each; none of either may be without the other.
    pub fn judge(&self, machine: &str, figures: &Figures, tally: &mut Tally) {
        for (name, value) in &figures.values {
            let bound = self.0.get(&(machine.to_owned(), name.clone()));
            let result = within(*value, bound.copied(), slack(name));
            tally.judge(&format!("{machine}: {name}"), &result);
        }
        let measured = |name: &str| figures.values.contains_key(name);
        let bounds = self.0.keys().filter(|(own, name)| own == machine && !measured(name));
        bounds
            .for_each(|(_, name)| tally.fail(&format!("{machine}: {name}"), "it was not measured"));
    }
}

fn slack(name: &str) -> f64 {
    match name {
        EXACT => 0.0,
        _ if name.starts_with(COUNTED) => COUNTED_SLACK,
        _ => LEAST_SLACK,
    }
}

fn within(value: f64, bound: Option<f64>, slack: f64) -> Result<()> {
    let bound = bound.context("it has no bound; type: cargo xtask bench engine --write-bounds")?;
    let most = bound + (bound * TOLERANCE).max(slack);
    ensure!(value <= most, "{value} is more than the bound of {bound} allows");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_upper_bounds_with_a_tolerance() {
        assert!(within(10.4, Some(10.0), 0.5).is_ok());
        assert!(within(10.6, Some(10.0), 0.5).is_err());
        assert!(within(1040.0, Some(1000.0), 0.5).is_ok());
        assert!(within(1060.0, Some(1000.0), 0.5).is_err());
        assert!(within(0.01, Some(0.002), 0.0).is_err());
        assert!(within(0.0, Some(1000.0), 0.0).is_ok());
        assert!(within(1.0, None, 0.5).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        let bounds = Bounds::parse("# note\n\nmax a/b 2.500\nmax c 10\n").unwrap();
        assert_eq!(bounds.0.len(), 2);
        assert_eq!(bounds.0[&("max".into(), "a/b".into())].to_bits(), 2.5f64.to_bits());
        assert!(Bounds::parse("max a").is_err());
        assert!(Bounds::parse("max a b").is_err());
    }
}
