//! Fault-around: neighbours that the host has mapped already come with the page that was asked for.

use verdigris_guest::{program, touch};
use verdigris_ktap::{FIGURE, skip, test_table};

use super::support::HAND;
use crate::inside::counters::{PARAMETERS, is_verdigris, number, write};
use crate::inside::guest::{DATA, Guest};
use crate::inside::region::Kind;
use crate::inside::sys::PAGE;

test_table! { "memory", 300: fewer_exits_by_fault_around, statistics_by_name }

const PAGES: u64 = 1024;

/// Returns the faults that it takes to touch all pages, which the host has in memory.
fn faults(around: u64) -> u64 {
    write(format!("{PARAMETERS}/fault_around"), &around.to_string());
    let guest = Guest::new(Kind::Pages, PAGES as usize * PAGE);
    for page in 0..PAGES as usize {
        guest.data.write(page * PAGE, page as u64);
    }
    let mut hand = guest.vcpu(HAND);
    hand.program(program::ECHO, &[]);
    let before = guest.vm.statistics();
    hand.program(program::TOUCH, &[DATA, PAGES, 1, touch::READ]);
    let now = guest.vm.statistics();
    for page in 0..PAGES as usize {
        assert_eq!(hand.program(program::READ, &[guest.page_address(page)])[1], page as u64);
    }
    let (faults, mapped) =
        (now["faults"] - before["faults"], now["pages_mapped"] - before["pages_mapped"]);
    println!("{FIGURE}fault_around={around}: {faults} faults for {mapped} pages");
    assert_eq!(mapped, PAGES);
    faults
}

fn fewer_exits_by_fault_around() {
    if !is_verdigris() {
        skip("this is not the driver of Verdigris: it has no fault-around");
    }
    let old = number(format!("{PARAMETERS}/fault_around"));
    let results = [1, 16, 64].map(|around| (around, faults(around)));
    write(format!("{PARAMETERS}/fault_around"), &old.to_string());
    for (around, faults) in results {
        assert_eq!(faults, PAGES / around, "with {around} pages");
    }
}

fn statistics_by_name() {
    let guest = Guest::new(Kind::Pages, 64 * PAGE);
    let mut hand = guest.vcpu(HAND);
    let before = guest.vm.statistics();
    assert!(!before.is_empty());
    hand.program(program::FILL, &[DATA, 64 * PAGE as u64, 1]);
    let now = guest.vm.statistics();
    assert_eq!(before.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
    if is_verdigris() {
        for name in ["faults", "maps", "pages_mapped", "pages_donated"] {
            assert!(now[name] > 0, "{name}");
        }
        assert!(now["pages_mapped"] - before["pages_mapped"] >= 64);
        let of_firmware = now.keys().filter(|name| name.starts_with("fw_")).count();
        assert!(of_firmware > 10, "{of_firmware} counters of the firmware");
        shown_as_text(now.keys());
    }
}

/// Compares with the file that shows a VM while it lives; of this process there is one.
fn shown_as_text<'a>(names: impl Iterator<Item = &'a String>) {
    let start = format!("kvm-{}-", std::process::id());
    let folder = std::fs::read_dir("/sys/kernel/debug/verdigris").expect("debugfs");
    let mut files = folder.map(|entry| entry.expect("debugfs").path());
    let is_own = |file: &std::path::PathBuf| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start))
    };
    let text = std::fs::read_to_string(files.find(is_own).expect("a file of this VM"));
    let text = text.expect("its counters");
    let mut shown: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    shown.sort_unstable();
    let mut names: Vec<_> = names.map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(shown, names);
    let faults = text.lines().find(|line| line.starts_with("faults ")).expect("faults");
    assert_ne!(faults.split_whitespace().nth(1), Some("0"));
}
