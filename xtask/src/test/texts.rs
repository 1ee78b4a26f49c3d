//! Texts that must agree with the interface crate.

use anyhow::{Context as _, Result, ensure};
use verdigris_abi::call;

use super::{Context, tally::Tally};
use crate::{header, paths};

/// Compares the committed header with what would be generated.
pub fn header(_: &Context, tally: &mut Tally) -> Result<()> {
    let committed = std::fs::read_to_string(header::path())?;
    let hint = "the header is out of date; type: cargo xtask header";
    let result = if committed == header::text() { Ok(()) } else { Err(anyhow::anyhow!(hint)) };
    tally.judge("verdigris_abi.h", &result);
    Ok(())
}

/// Looks for a heading for each call in the reference.
pub fn docs(_: &Context, tally: &mut Tally) -> Result<()> {
    let path = paths::root().join("docs/abi.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    for item in call::ITEMS {
        tally.judge(item.name, &has_section(&text, item.name, item.value));
    }
    tally.judge("counters of the driver", &counters());
    Ok(())
}

/// Looks for each of the driver's counters of a VM in the table that explains them.
fn counters() -> Result<()> {
    let read = |name: &str| {
        let path = paths::root().join(name);
        std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))
    };
    let (source, text) = (read("linux/driver/kvm_stats.c")?, read("docs/kvm.md")?);
    let names = counter_names(&source);
    ensure!(!names.is_empty(), "kvm_stats.c names no counter");
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let told: Vec<_> = cells.flat_map(|cell| cell.split(", ")).collect();
    let missing: Vec<_> =
        names.iter().filter(|name| !told.contains(&format!("`{name}`").as_str())).collect();
    ensure!(missing.is_empty(), "docs/kvm.md does not explain {missing:?}");
    Ok(())
}

/// Reads `[VG_STAT_X] = { "name" },` and `[VG_STAT_X] = { "name", .is_gauge = true },`.
fn counter_names(source: &str) -> Vec<&str> {
    let rows = source.lines().filter(|line| line.trim().starts_with("[VG_STAT_"));
    rows.filter_map(|row| row.split('"').nth(1)).collect()
}

fn has_section(text: &str, name: &str, number: i64) -> Result<()> {
    let wanted = format!("{name} ({number:#010x})");
    let mut headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    let found = headings.any(|line| line.split(", ").any(|heading| heading == wanted));
    ensure!(found, "no heading of docs/abi.md is {wanted}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_explained() {
        counters().unwrap();
        let source = "\t[VG_STAT_A] = { \"a\" },\n\t[VG_STAT_B] = { \"b_c\", .is_gauge = true },\n{ \"d\" },";
        assert_eq!(counter_names(source), ["a", "b_c"]);
    }

    #[test]
    fn name_and_number_must_both_be_there() {
        let text = "## AGE (0xc6000034)\n### MAP (0xc6000030)\n### AGE (0xc6000035), TEST_AGE (0xc6000036)\n";
        assert!(has_section(text, "MAP", 0xc600_0030).is_ok());
        assert!(has_section(text, "TEST_AGE", 0xc600_0036).is_ok());
        assert!(has_section(text, "AGE", 0xc600_0034).is_err());
        assert!(has_section(text, "UNMAP", 0xc600_0030).is_err());
    }
}
