//! What the suite told of one machine: `figure NAME VALUE`, `absent NAME REASON`, `settings ...`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// The figures of one machine, by name.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// What the firmware uses there.
    pub settings: String,
    /// What was measured.
    pub values: BTreeMap<String, f64>,
    /// What can't be measured there, and why.
    pub absent: BTreeMap<String, String>,
}

impl Figures {
    /// Reads the lines of a run.
    pub fn read(lines: &[String]) -> Result<Self> {
        let mut figures = Self::default();
        for line in lines {
            if let Some(settings) = line.strip_prefix("settings ") {
                figures.settings = settings.trim().to_owned();
            } else if let Some(rest) = line.strip_prefix("figure ") {
                let (name, value) = rest.trim().split_once(' ').context("a figure has a value")?;
                let value = value.parse().with_context(|| format!("{value} is no number"))?;
                figures.values.insert(name.to_owned(), value);
            } else if let Some(rest) = line.strip_prefix("absent ") {
                let (name, reason) = rest.trim().split_once(' ').context("there is a reason")?;
                figures.absent.insert(name.to_owned(), reason.to_owned());
            }
        }
        ensure!(!figures.values.is_empty(), "no figure was told");
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let lines =
            ["settings ha=on", "figure a/b 2.50", "[  3.1] noise", "absent c hardware does it"];
        let figures = Figures::read(&lines.map(str::to_owned)).unwrap();
        assert_eq!(figures.settings, "ha=on");
        assert_eq!(figures.values["a/b"].to_bits(), 2.5f64.to_bits());
        assert_eq!(figures.absent["c"], "hardware does it");
        assert!(Figures::read(&["nothing".to_owned()]).is_err());
    }
}
