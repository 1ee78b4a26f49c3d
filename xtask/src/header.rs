//! `cargo xtask header`: writes the driver's C header from the interface crate.
//!
//! The header is committed, so that the driver can be built without Rust; a test fails when it
//! does not say what the crate says.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use verdigris_abi::{ITEMS, Item, STAT_NAMES, Section, UID, VERSION};

use crate::paths;

const TOP: &str = "\
/* SPDX-License-Identifier: (GPL-2.0 OR MIT OR Apache-2.0) */
/*
 * The hypercall interface of Verdigris. docs/abi.md describes each call.
 *
 * Written by `cargo xtask header` from el2/abi; do not edit.
 */
#ifndef VERDIGRIS_ABI_H
#define VERDIGRIS_ABI_H

";

/// Returns where the header is kept.
pub fn path() -> PathBuf {
    paths::root().join("linux/driver/verdigris_abi.h")
}

/// Writes the header.
pub fn write() -> Result<()> {
    let path = path();
    std::fs::write(&path, text()).with_context(|| format!("cannot write {}", path.display()))
}

/// Returns the header's text.
pub fn text() -> String {
    let mut text = TOP.to_owned();
    define(&mut text, "VERSION_MAJOR", &VERSION.0.to_string(), "Major version of the interface.");
    define(&mut text, "VERSION_MINOR", &VERSION.1.to_string(), "Minor version of the interface.");
    for (index, word) in UID.iter().enumerate() {
        let doc = format!("What VERDIGRIS_UID answers in w{index}.");
        define(&mut text, &format!("UID_{index}"), &format!("{word:#010x}U"), &doc);
    }
    for group in ITEMS {
        text.push('\n');
        for item in *group {
            define(&mut text, item.name, &value(item), item.doc);
        }
    }
    text.push_str(&stat_names());
    text.push_str("\n#endif\n");
    text
}

/// Writes the names of the counters in the order of their indices, to initialise an array.
fn stat_names() -> String {
    let names: Vec<String> = STAT_NAMES
        .iter()
        .map(|name| format!("\t\"{}\"", name.trim_start_matches("STAT_").to_lowercase()))
        .collect();
    format!(
        "\n/* The names of the counters, in the order of their indices. */\n\
         #define VERDIGRIS_STAT_NAMES \\\n{}\n",
        names.join(", \\\n")
    )
}

fn define(text: &mut String, name: &str, value: &str, doc: &str) {
    writeln!(text, "/* {doc} */\n#define VERDIGRIS_{name} {value}").expect("writing to a string");
}

/// Writes a value as C has it: identifiers of calls are 32 bits wide, flags are hexadecimal.
fn value(item: &Item) -> String {
    match item.section {
        Section::Call => format!("{:#010x}U", item.value),
        Section::Error => format!("({})", item.value),
        Section::Flag | Section::Register => format!("{:#x}ULL", item.value),
        Section::Limit | Section::Exit | Section::Statistic => item.value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_header_says_what_the_crate_says() {
        let committed = std::fs::read_to_string(path()).unwrap();
        assert!(committed == text(), "{} is out of date: cargo xtask header", path().display());
    }

    #[test]
    fn values_are_those_of_the_document() {
        let text = text();
        for line in [
            "#define VERDIGRIS_MAP 0xc6000030U",
            "#define VERDIGRIS_NO_MEMORY (-7)",
            "#define VERDIGRIS_UID_0 0xedd58a5aU",
            "#define VERDIGRIS_MAX_MARKS 16",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
