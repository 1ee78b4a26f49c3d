//! Huge pages: made of small ones, broken up again, and set aside from the start.

use std::fs;
use std::sync::Arc;

use verdigris_guest::{program, touch};
use verdigris_ktap::{skip, test_table};

use super::support::{HAND, PLAYERS, Scene};
use crate::inside::counters::{Counters, number, write};
use crate::inside::guest::{DATA, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::region::{Kind, Region};
use crate::inside::swap;
use crate::inside::sys::{BLOCK, COLLAPSE, PAGE};

test_table! { "placement", 300:
    collapse_and_split, huge_from_the_start, split_by_one_page, huge_swapped, hugetlb,
}

const BLOCKS: usize = 4;
const PAGES: usize = BLOCKS * BLOCK / PAGE;

/// Small pages become huge under the guest, and small again.
fn collapse_and_split() {
    let guest = Arc::new(Guest::new(Kind::Pages, BLOCKS * BLOCK));
    (0..PAGES).for_each(|page| guest.data.write(page * PAGE, 0));
    let ledger = Ledger::start(&guest, PLAYERS);
    ledger.wait(20);
    guest.data.advise(guest.data.all(), libc::MADV_HUGEPAGE).expect("advice");
    let before = Counters::host();
    for round in 0..6 {
        collapse(&guest);
        assert_eq!(huge_bytes(&guest.data), guest.data.bytes() as u64, "round {round}");
        ledger.wait(10);
        // As text to debugfs: process, first and last address, order of what is left.
        let (start, end) = (guest.data.address(0), guest.data.address(guest.data.bytes()));
        let command = format!("{},{start:#x},{end:#x},0", std::process::id());
        write("/sys/kernel/debug/split_huge_pages", &command);
        ledger.wait(10);
    }
    let now = Counters::host();
    // A huge page in use at the moment of a split stays whole, and is not made again.
    assert!(now.since(&before, "thp_collapse_alloc") >= 6 * BLOCKS as u64 / 2, "{now:?}");
    assert!(now.since(&before, "thp_split_page") >= 6 * BLOCKS as u64 / 2, "{now:?}");
    ledger.finish();
}

/// Makes all of the data huge. A page that somebody looks at in that moment, a vCPU's fault for example, is a reason
/// to say EAGAIN; one that is on its way to another node, and has a migration entry (SCAN_PTE_NON_PRESENT in mm/khugepaged.c), to
/// say EINVAL. Both pass.
pub(super) fn collapse(guest: &Guest) {
    for _ in 0..200 {
        match guest.data.advise(guest.data.all(), COLLAPSE) {
            Ok(()) => return,
            Err(error) => {
                let number = error.raw_os_error();
                assert!(matches!(number, Some(libc::EAGAIN | libc::EINVAL)), "{error}");
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("no huge pages, although it was tried again and again");
}

/// How many bytes of a region are huge pages of anonymous memory, as smaps tells.
fn huge_bytes(region: &Region) -> u64 {
    let text = fs::read_to_string("/proc/self/smaps").expect("procfs");
    let (start, end) = (region.address(0), region.address(region.bytes()));
    let (mut inside, mut sum) = (false, 0);
    for line in text.lines() {
        let first = line.split(' ').next().unwrap_or("");
        if let Some((low, _)) = first.split_once('-') {
            let low = usize::from_str_radix(low, 16);
            inside = low.is_ok_and(|low| low >= start && low < end);
        } else if inside && first == "AnonHugePages:" {
            let words: Vec<_> = line.split_whitespace().collect();
            sum += words[1].parse::<u64>().expect("a number") << 10;
        }
    }
    sum
}

/// Memory that is huge at the first touch, by whoever touches it.
fn huge_from_the_start() {
    let before = Counters::host();
    let guest = Arc::new(Guest::new(Kind::Blocks, BLOCKS * BLOCK));
    // By a write: at a read Linux shows the huge page of zeros, and breaks it up at the first write.
    let words = [DATA, PAGES as u64, (BLOCK / PAGE) as u64, touch::WRITE];
    guest.vcpu(HAND).program(program::TOUCH, &words);
    let ledger = Ledger::start(&guest, PLAYERS);
    ledger.wait(30);
    assert_eq!(huge_bytes(&guest.data), guest.data.bytes() as u64);
    assert!(Counters::host().since(&before, "thp_fault_alloc") >= BLOCKS as u64);
    ledger.finish();
}

/// Huge pages of which one page is thrown away each; the others stay, at the same place. Each is a new one: where a
/// table is left behind, Linux puts small pages.
fn split_by_one_page() {
    let mut scene = Scene::new(Kind::Blocks, 3 * BLOCK / PAGE);
    let part = scene.part();
    let before = Counters::host();
    for seed in 1..4 {
        let start = part.start + (seed as usize - 1) * BLOCK;
        let (hole, end) = (start + (100 + seed as usize) * PAGE, start + BLOCK);
        scene.fill(start..end, seed);
        scene.guest.data.advise(hole..hole + PAGE, libc::MADV_DONTNEED).expect("advice");
        assert_eq!(scene.read(hole), 0);
        scene.check(start..hole, seed);
        scene.check(hole + PAGE..end, seed);
    }
    let since = |name| Counters::host().since(&before, name);
    let (splits, huge) = (since("thp_split_pmd"), since("thp_fault_alloc"));
    assert!(splits >= 3, "{splits} splits of {huge} huge pages");
    scene.finish();
}

/// Huge pages that go out to swap, whole or in pieces, and come back in pieces.
fn huge_swapped() {
    swap::ensure();
    let guest = Arc::new(Guest::new(Kind::Blocks, BLOCKS * BLOCK));
    let ledger = Ledger::start(&guest, PLAYERS);
    ledger.wait(10);
    let before = Counters::host();
    for _ in 0..6 {
        guest.data.advise(guest.data.all(), libc::MADV_PAGEOUT).expect("advice");
        ledger.wait(5);
        // What came back may be huge again.
        _ = guest.data.advise(guest.data.all(), COLLAPSE);
        ledger.wait(5);
    }
    let now = Counters::host();
    assert!(now.swapped_out_since(&before) >= PAGES as u64);
    assert!(now.swapped_in_since(&before) > 0);
    ledger.finish();
}

/// Huge pages that were set aside: no reclaim, no merging, but holes.
fn hugetlb() {
    let file = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let wanted = 2 * BLOCKS as u64;
    write(file, &wanted.to_string());
    if number(file) < wanted {
        write(file, "0");
        skip("the host has no huge pages left");
    }
    let mut scene = Scene::new(Kind::Huge, BLOCKS * BLOCK / PAGE);
    let part = scene.part();
    assert!(Counters::read("/proc/meminfo").get("HugePages_Free") <= wanted);
    for seed in 1..4 {
        scene.fill(part.clone(), seed);
        scene.check(part.clone(), seed);
        let hole = part.start..part.start + BLOCK;
        scene.guest.data.punch(hole.clone()).expect("a hole");
        for at in hole.clone().step_by(16 * PAGE) {
            assert_eq!(scene.read(at), 0);
        }
        scene.check(hole.end..part.end, seed);
        scene.guest.data.protect(part.clone(), libc::PROT_READ).expect("protection");
        scene.check(hole.end..part.end, seed);
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        scene.guest.data.protect(part.clone(), writable).expect("protection");
    }
    assert!(
        Counters::read("/proc/meminfo").get("HugePages_Free") < wanted,
        "huge pages are in use"
    );
    scene.finish();
    write(file, "0");
}
