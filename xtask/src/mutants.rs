//! `cargo xtask mutants`: which mistakes the tests of the pure crates would not notice.
//!
//! cargo-mutants makes the mistakes, one at a time, in a copy of the tree, and runs the tests that should
//! fail. All of them take days, so a sample is tried: drawn by a seed, so that another seed is a fresh one
//! and the same seed goes on where it was stopped. A mistake that no test can notice is explained in
//! `xtask/mutants.txt`, by file, function and mutation; a line number would not last.
//!
//! What loom and machines notice isn't asked: a survivor may be one of theirs.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{command, paths, progress};

/// The version that `mutants.txt` has the words of.
const VERSION: &str = "27.1.0";
/// The crates, and those whose tests are run for each.
const CRATES: &[(&str, &[&str])] = &[
    ("verdigris-abi", &["verdigris-abi"]),
    ("verdigris-core", &["verdigris-core"]),
    ("verdigris-platform", &["verdigris-platform"]),
    ("verdigris-stage2", &["verdigris-stage2", "verdigris-stage2-model"]),
];
/// Test code, which is no code under test.
const EXCLUDED: &[&str] = &["**/tests/**", "**/tests.rs", "**/testing.rs", "**/model.rs"];
/// Where survivors are explained.
const EXPLAINED: &str = "xtask/mutants.txt";

/// Options of the task.
#[derive(Args, Debug)]
pub struct MutantsArgs {
    /// Only this crate: abi, core, platform or stage2
    #[arg(value_name = "CRATE")]
    name: Option<String>,
    /// Try so many, drawn by chance
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    /// Draw the same again; a run that was stopped goes on
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Try every one, for days; a run that was stopped goes on
    #[arg(long, conflicts_with_all = ["sample", "seed"])]
    all: bool,
}

/// Tries mutants and prints those that no test noticed; fails if one of them is not explained.
pub fn mutants(args: &MutantsArgs) -> Result<ExitCode> {
    let crates = chosen(args.name.as_deref())?;
    let explained = parse_explained(&fs::read_to_string(paths::root().join(EXPLAINED))?)?;
    let tool = progress::step("installing cargo-mutants", install)?;
    let mut all = Vec::new();
    for (name, tests) in &crates {
        let list = command::output(&mut listing(&tool, name))?;
        all.extend(list.lines().map(|line| (*name, *tests, line.to_owned())));
    }
    ensure!(!all.is_empty(), "cargo-mutants lists nothing");
    let keys = keys(all.iter().map(|(.., mutant)| mutant.as_str()));
    let (count, seed) = (all.len(), args.seed.unwrap_or_else(fresh_seed));
    let mut run = "all".to_owned();
    if !args.all {
        all = sample(all, args.sample as usize, seed);
        run = format!("{seed}-{}", args.sample);
        println!("{} of {count} mutants, drawn by --seed {seed}", all.len());
    }
    let mut found = BTreeMap::new();
    for (name, tests) in &crates {
        let own = all.iter().filter(|(owner, ..)| owner == name);
        let names: Vec<&str> = own.map(|(.., mutant)| mutant.as_str()).collect();
        if !names.is_empty() {
            let output = paths::target().join("mutants").join(&run).join(name);
            try_them(&tool, name, tests, (!args.all).then_some(&names), &output)?;
            read_outcomes(&output, &mut found);
        }
    }
    Ok(tell(&found, &keys, &explained))
}

fn chosen(name: Option<&str>) -> Result<Vec<(&'static str, &'static [&'static str])>> {
    let is_named =
        |own: &str| name.is_none_or(|name| own == name || own.ends_with(&format!("-{name}")));
    let crates: Vec<_> = CRATES.iter().copied().filter(|(own, _)| is_named(own)).collect();
    if crates.is_empty() {
        bail!("no such crate; there are abi, core, platform and stage2");
    }
    Ok(crates)
}

/// Installs the tool into the cache, unless it is there.
fn install() -> Result<PathBuf> {
    let root = paths::cache().join("cargo-mutants");
    let tool = root.join("bin/cargo-mutants");
    if !tool.exists() {
        let mut cargo = Command::new("cargo");
        // Optimising it would take longer than it saves.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo.env("CARGO_TARGET_DIR", paths::target().join("cargo-mutants"));
        cargo.args(["install", "cargo-mutants", "--version", VERSION, "--locked", "--debug"]);
        command::run(cargo.args(["--quiet", "--root"]).arg(&root))?;
    }
    Ok(tool)
}

fn cargo_mutants(tool: &Path, name: &str) -> Command {
    let mut command = Command::new(tool);
    command.current_dir(paths::root()).args(["mutants", "--package", name, "--colors", "never"]);
    for pattern in EXCLUDED {
        command.args(["--exclude", pattern]);
    }
    command
}

fn listing(tool: &Path, name: &str) -> Command {
    let mut command = cargo_mutants(tool, name);
    command.arg("--list");
    command
}

/// Tries mutants, save those that an earlier run with the same output noticed.
fn try_them(
    tool: &Path,
    name: &str,
    tests: &[&str],
    names: Option<&Vec<&str>>,
    output: &Path,
) -> Result<()> {
    fs::create_dir_all(output)?;
    let mut command = cargo_mutants(tool, name);
    command.args(["--iterate", "--no-shuffle", "--output"]).arg(output);
    for test in tests {
        command.args(["--test-package", test]);
    }
    for name in names.into_iter().flatten() {
        command.args(["--re", &exactly(name)]);
    }
    // 2: some survived; 3: some took too long, which is to be noticed too; both are told below.
    let status = command.status().context("cargo-mutants doesn't run")?;
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants failed: {status}");
    Ok(())
}

/// Returns a regular expression for a mutant's own name.
fn exactly(name: &str) -> String {
    let special = |letter: char| r"\.+*?()|[]{}^$#&-~".contains(letter);
    let escaped =
        name.chars().flat_map(|letter| special(letter).then_some('\\').into_iter().chain([letter]));
    format!("^{}$", escaped.collect::<String>())
}

/// The mutants' names, by what became of them.
type Outcomes = BTreeMap<&'static str, HashSet<String>>;

/// Reads what the tool wrote; what it noticed in an earlier run stands in a file of its own.
fn read_outcomes(output: &Path, found: &mut Outcomes) {
    let files = [
        ("caught", "caught"),
        ("caught", "previously_caught"),
        ("missed", "missed"),
        ("timeout", "timeout"),
        ("unviable", "unviable"),
    ];
    for (kind, file) in files {
        let path = output.join("mutants.out").join(file).with_extension("txt");
        let text = fs::read_to_string(path).unwrap_or_default();
        found.entry(kind).or_default().extend(text.lines().map(str::to_owned));
    }
}

fn tell(
    found: &Outcomes,
    keys: &BTreeMap<String, String>,
    explained: &HashSet<String>,
) -> ExitCode {
    let of = |kind| found.get(kind).map_or(0, HashSet::len);
    let is_explained = |name: &str| {
        let any = explained.contains(&without_line(name).0);
        any || keys.get(name).is_some_and(|key| explained.contains(key))
    };
    let missed = found.get("missed").into_iter().flatten();
    let (known, mut survivors): (Vec<_>, Vec<_>) = missed.partition(|name| is_explained(name));
    survivors.sort();
    for name in &survivors {
        let key = keys.get(*name).unwrap_or(name);
        println!("survives  {key}  (at {})", without_line(name).1);
    }
    println!(
        "{} noticed, {} by taking too long, {} don't compile, {} explained, {} survive",
        of("caught"),
        of("timeout"),
        of("unviable"),
        known.len(),
        survivors.len(),
    );
    if survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Splits a mutant's name into `FILE: MUTATION in FUNCTION`, and `LINE:COLUMN`.
fn without_line(name: &str) -> (String, String) {
    match *name.splitn(4, ':').collect::<Vec<_>>() {
        [file, line, column, rest] => (format!("{file}:{rest}"), format!("{line}:{column}")),
        _ => (name.to_owned(), String::new()),
    }
}

/// Returns a name for each mutant that outlives changes elsewhere in its file: without the line, and with
/// a number where its function has the same mutation more than once.
fn keys<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut places: BTreeMap<String, Vec<(u64, u64, &str)>> = BTreeMap::new();
    for name in names {
        let (key, place) = without_line(name);
        let (line, column) = place.split_once(':').unwrap_or_default();
        let place = (line.parse().unwrap_or(0), column.parse().unwrap_or(0), name);
        places.entry(key).or_default().push(place);
    }
    let mut keys = BTreeMap::new();
    for (key, mut places) in places {
        places.sort_unstable();
        for (index, (.., name)) in places.iter().enumerate() {
            let number = if places.len() > 1 { format!(" ({})", index + 1) } else { String::new() };
            keys.insert((*name).to_owned(), format!("{key}{number}"));
        }
    }
    keys
}

/// Reads the list of explained survivors: paragraphs of a reason, in lines with `#`, and names.
fn parse_explained(text: &str) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for paragraph in text.split("\n\n") {
        let mut has_reason = false;
        for line in paragraph.lines().filter(|line| !line.trim().is_empty()) {
            if line.starts_with('#') {
                has_reason = true;
            } else {
                ensure!(has_reason, "{EXPLAINED}: no reason for {line}");
                names.insert(line.to_owned());
            }
        }
    }
    Ok(names)
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |time| u64::from(time.subsec_nanos()) % 100_000)
}

/// Draws some of a list, in its order.
fn sample<T>(mut list: Vec<T>, count: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    // SplitMix64.
    let mut random = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    while list.len() > count {
        list.remove((random() % list.len() as u64) as usize);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_same_by_the_same_seed() {
        let draw = |count, seed| sample((0..1000).collect(), count, seed);
        let first: Vec<u32> = draw(30, 7);
        assert_eq!((first.len(), &first), (30, &draw(30, 7)));
        assert!(first.is_sorted() && first != draw(30, 8));
        assert_eq!(draw(2000, 7).len(), 1000);
    }

    #[test]
    fn names_are_matched_as_they_stand() {
        let name = "a/b.rs:1:2: replace | with ^ in <impl A for B<'_>>::c";
        assert_eq!(exactly(name), r"^a/b\.rs:1:2: replace \| with \^ in <impl A for B<'_>>::c$");
        let key = "a/b.rs: replace | with ^ in <impl A for B<'_>>::c";
        assert_eq!(without_line(name), (key.to_owned(), "1:2".to_owned()));
    }

    #[test]
    fn the_same_mutation_of_a_function_is_told_apart_by_a_number() {
        let names =
            ["a.rs:12:9: b in c", "a.rs:9:30: b in c", "a.rs:9:4: b in c", "a.rs:1:1: b in d"];
        let keys = keys(names.into_iter());
        let keys = names.map(|name| keys[name].as_str());
        let expected = ["a.rs: b in c (3)", "a.rs: b in c (2)", "a.rs: b in c (1)", "a.rs: b in d"];
        assert_eq!(keys, expected);
    }

    #[test]
    fn each_explained_survivor_has_a_reason() {
        let text = fs::read_to_string(paths::root().join(EXPLAINED)).unwrap();
        let names = parse_explained(&text).unwrap();
        for name in &names {
            let file = name.split(':').next().unwrap();
            assert!(paths::root().join(file).exists(), "{name}: no such file");
        }
        assert!(parse_explained("a.rs: replace").is_err());
        assert_eq!(parse_explained("# why\na.rs: b\n\n# why not\nc.rs: d\n").unwrap().len(), 2);
    }
}
