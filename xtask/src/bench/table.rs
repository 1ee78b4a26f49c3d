//! The table for people: each figure with its goal beside it.

use std::fmt::Write;

use super::figures::Figures;

/// A row of range calls: what it is called, its figure, the goal for a leaf from 512 leaves on.
const RANGES: &[(&str, &str, Option<f64>)] = &[
    ("age, all young", "age-all-young", Some(12.0)),
    ("age, 1 in 64 young", "age-some-young", Some(4.0)),
    ("age, none young", "age-none-young", Some(3.0)),
    ("harvest, all written", "harvest-all", Some(16.0)),
    ("harvest, 1 in 64 written", "harvest-some", Some(16.0)),
    ("harvest, none written", "harvest-none", Some(16.0)),
    ("write-protect", "write-protect", Some(14.0)),
    ("unmap", "unmap", Some(30.0)),
    ("unmap with dirty bits", "unmap-dirty", Some(30.0)),
    ("map", "map", None),
];
/// Sizes of ranges, with their names, and the leaves of each in pages and in blocks.
const SIZES: [(&str, &str, u64); 3] =
    [("2M", "2 MiB", 1), ("64M", "64 MiB", 32), ("1G", "1 GiB", 512)];
/// The goals are for ranges of so many leaves and more.
const GOAL_LEAVES: u64 = 512;
/// Rows of one figure: what it is called, its name, its goal on `max`, and elsewhere.
const SINGLES: &[(&str, &str, Option<f64>, Option<f64>)] = &[
    ("null hypercall, host to host", "null-hypercall", Some(80.0), Some(80.0)),
    ("empty vcpu_run, host to guest to host", "empty-vcpu-run", Some(700.0), Some(500.0)),
    ("access-flag fault, guest to guest", "access-flag-fault", Some(200.0), Some(200.0)),
    ("write fault on a granted page, guest to guest", "write-fault", Some(270.0), Some(270.0)),
    ("unmap of one cold page, call included", "reclaim-cold-page", None, None),
    (
        "invalidations for each reclaimed cold page",
        "invalidations/cold-page",
        Some(0.01),
        Some(0.01),
    ),
    ("invalidations, age of 512 young, no flush", "invalidations/age-no-flush", None, None),
    (
        "invalidations, age of 512 young, flush of these",
        "invalidations/age-flush-young",
        None,
        None,
    ),
    ("invalidations, age of 512 young, flush of all", "invalidations/age-flush-all", None, None),
    ("invalidations, harvest of 512 written", "invalidations/harvest", None, None),
    ("invalidations, write-protect of 512", "invalidations/write-protect", None, None),
    ("invalidations, unmap of 512 young", "invalidations/unmap", None, None),
    ("table bytes for a GiB in pages", "table-bytes-per-gib/page", None, None),
    ("table bytes for a GiB in blocks of 2 MiB", "table-bytes-per-gib/block", None, None),
];

/// Writes the table of one machine.
pub fn text(figures: &Figures) -> String {
    let mut text = String::new();
    for (leaf, title) in [("page", "4 KiB pages"), ("block", "2 MiB blocks")] {
        heading(&mut text, title);
        for (label, name, goal) in RANGES {
            let cells =
                SIZES.map(|(size, ..)| figures.values.get(&format!("{name}/{leaf}/{size}")));
            let judged = SIZES.map(|(.., blocks)| leaf == "page" || blocks >= GOAL_LEAVES);
            let cells: Vec<_> = cells
                .into_iter()
                .zip(judged)
                .map(|(value, judged)| cell(value, goal.filter(|_| judged)))
                .collect();
            writeln!(text, "  {label:<26}{}{:>9}", cells.concat(), goal_text(*goal))
                .expect("memory");
        }
    }
    singles(&mut text, figures);
    text
}

fn heading(text: &mut String, title: &str) {
    let sizes = SIZES.map(|(_, name, _)| format!("{name:>11}")).concat();
    writeln!(text, "  a leaf, of {title:<15}{sizes}{:>9}", "goal").expect("memory");
}

fn singles(text: &mut String, figures: &Figures) {
    writeln!(text, "  {:<50}{:>9}{:>9}", "each", "", "goal").expect("memory");
    // Only the run has two goals: it depends on how much state the CPU has.
    let is_max = figures.settings.contains("fwb=on");
    for (label, name, on_max, elsewhere) in SINGLES {
        let goal = if is_max { on_max } else { elsewhere };
        let shown = match (figures.values.get(*name), figures.absent.get(*name)) {
            (None, Some(reason)) => format!("  none: {reason}"),
            (value, _) => format!("{}{:>8}", cell(value, *goal), goal_text(*goal)),
        };
        writeln!(text, "  {label:<50}{shown}").expect("memory");
    }
}

fn cell(value: Option<&f64>, goal: Option<f64>) -> String {
    let Some(value) = value else { return format!("{:>11}", "missing") };
    let mark = if goal.is_some_and(|goal| *value > goal) { "!" } else { " " };
    let digits = if *value < 1.0 {
        4
    } else if *value < 1000.0 {
        1
    } else {
        0
    };
    format!("{:>10}{mark}", format!("{value:.digits$}"))
}

fn goal_text(goal: Option<f64>) -> String {
    goal.map_or_else(|| "-".to_owned(), |goal| goal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misses_its_goal_is_marked() {
        assert_eq!(cell(Some(&12.0), Some(12.0)), "      12.0 ");
        assert_eq!(cell(Some(&12.1), Some(12.0)), "      12.1!");
        assert_eq!(cell(Some(&0.002), Some(0.01)), "    0.0020 ");
        assert_eq!(cell(Some(&2_105_344.0), None), "   2105344 ");
        assert_eq!(cell(None, None).trim(), "missing");
    }
}
