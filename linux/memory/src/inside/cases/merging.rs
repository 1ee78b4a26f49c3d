//! KSM: pages of the same content become one, until the guest writes.

use std::time::{Duration, Instant};

use verdigris_ktap::test_table;

use super::beside::Job;
use super::support::{Scene, addresses, halves};
use crate::inside::counters::{Counters, number, write};
use crate::inside::pagemap;
use crate::inside::region::Kind;
use crate::inside::sys::PAGE;

test_table! { "memory", 300: merge_and_break, merge_while_the_guest_writes }

const PAGES: usize = 256;
const KSM: &str = "/sys/kernel/mm/ksm";

/// The scanner, at its quickest; stopped, and everything unmerged, when dropped.
struct Scanner;

impl Scanner {
    fn start() -> Self {
        write(format!("{KSM}/pages_to_scan"), "4000");
        write(format!("{KSM}/sleep_millisecs"), "1");
        write(format!("{KSM}/run"), "1");
        Self
    }

    fn passes() -> u64 {
        number(format!("{KSM}/full_scans"))
    }

    /// Waits for some whole passes.
    fn wait(passes: u64) {
        let (end, target) = (Instant::now() + Duration::from_secs(60), Self::passes() + passes);
        while Self::passes() < target {
            assert!(Instant::now() < end, "the scanner doesn't get on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        _ = std::fs::write(format!("{KSM}/run"), "2");
        _ = std::fs::write(format!("{KSM}/run"), "0");
    }
}

/// What pages hold that are all the same, by offset.
fn same(value: u64) -> impl Fn(usize) -> u64 {
    move |at| value ^ (at % PAGE) as u64
}

fn write_same(scene: &Scene, value: u64) {
    scene.part().step_by(8).for_each(|at| scene.guest.data.write(at, same(value)(at)));
}

fn frames(scene: &Scene) -> Vec<Option<u64>> {
    let part = scene.part();
    let pages = part.start / PAGE..part.end / PAGE;
    let entries = pagemap::entries(&scene.guest.data, pages);
    entries.into_iter().map(pagemap::Entry::frame).collect()
}

/// Waits until pages are merged: so many, of all that are of one content.
fn wait_for_sharing(least: u64) {
    let sharing = || number(format!("{KSM}/pages_sharing"));
    for _ in 0..20 {
        Scanner::wait(1);
        if sharing() >= least {
            return;
        }
    }
    panic!("{} pages are merged", sharing());
}

/// Counts the pages that have a frame which another of them has, too.
fn count_shared(frames: &[Option<u64>]) -> usize {
    let mut sorted: Vec<u64> = frames.iter().copied().flatten().collect();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).map(<[u64]>::len).sum()
}

fn merge_and_break() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    write_same(&scene, 0x5a5a);
    // The guest has them all mapped for writing.
    for at in part.clone().step_by(PAGE) {
        scene.write(at, 0x5a5a);
    }
    scene.guest.data.advise(part.clone(), libc::MADV_MERGEABLE).expect("advice");
    let scanner = Scanner::start();
    wait_for_sharing(PAGES as u64 / 2);
    let shared = count_shared(&frames(&scene));
    assert!(shared >= PAGES / 2, "{shared} pages have the frame of another");
    // Read by the guest, they are still what they were.
    scene.compare(&part, same(0x5a5a));
    let before = Counters::host();
    let is_own = |at: usize| at.is_multiple_of(4 * PAGE);
    for at in part.clone().step_by(PAGE).filter(|&at| is_own(at)) {
        scene.write(at + 8, at as u64);
    }
    let broken = Counters::host().since(&before, "cow_ksm");
    assert!(broken >= PAGES as u64 / 8, "{broken} merged pages were copied");
    let written: Vec<_> = frames(&scene).into_iter().step_by(4).collect();
    assert_eq!(count_shared(&written), 0, "a page that was written has its own frame");
    let is_written = |at: usize| at % PAGE == 8 && is_own(at - 8);
    scene.compare(&part, |at| if is_written(at) { at as u64 - 8 } else { same(0x5a5a)(at) });
    drop(scanner);
    scene.finish();
}

/// The scanner write-protects what it compares, and merges what a vCPU writes at that moment, or doesn't: that vCPU, which
/// has all of it mapped for writing, must find its own pages in each round.
fn merge_while_the_guest_writes() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let (part, before) = (scene.part(), Counters::host());
    let (quiet, written) = halves(&part);
    write_same(&scene, 0x77);
    let scanner = Scanner::start();
    let end = scene.beside(Job::write(&addresses(&written)), |work| {
        work.go_round();
        // Only now may they be merged.
        work.guest.data.advise(work.guest.data.all(), libc::MADV_MERGEABLE).expect("advice");
        wait_for_sharing(PAGES as u64 / 4);
        (0..6).for_each(|_| Scanner::wait(1));
        work.go_round();
    });
    let shared = count_shared(&frames(&scene)[..PAGES / 2]);
    assert!(shared >= PAGES / 4, "{shared} pages have the frame of another");
    scene.compare(&written, |at| if at % PAGE == 0 { end.rounds } else { same(0x77)(at) });
    scene.compare(&quiet, same(0x77));
    // They are still merged; now a vCPU writes them.
    let end = scene.beside(Job::write(&addresses(&quiet)), |work| {
        (0..3).for_each(|_| Scanner::wait(1));
        work.go_round();
    });
    scene.compare(&quiet, |at| if at % PAGE == 0 { end.rounds } else { same(0x77)(at) });
    let broken = Counters::host().since(&before, "cow_ksm");
    assert!(broken >= PAGES as u64 / 4, "{broken} merged pages were copied");
    drop(scanner);
    scene.finish();
}
