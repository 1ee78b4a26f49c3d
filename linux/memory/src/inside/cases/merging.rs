//! KSM: pages of the same content become one, until the guest writes.

use std::time::{Duration, Instant};

use verdigris_ktap::test_table;

use super::support::Scene;
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

fn write_same(scene: &Scene, value: u64) {
    for at in scene.part().step_by(PAGE) {
        for word in (0..PAGE).step_by(8) {
            scene.guest.data.write(at + word, value ^ word as u64);
        }
    }
}

fn frames(scene: &Scene) -> Vec<Option<u64>> {
    let part = scene.part();
    let pages = part.start / PAGE..part.end / PAGE;
    let entries = pagemap::entries(&scene.guest.data, pages);
    entries.into_iter().map(pagemap::Entry::frame).collect()
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
    Scanner::wait(3);
    let sharing = number(format!("{KSM}/pages_sharing"));
    assert!(sharing >= PAGES as u64 / 2, "{sharing} pages are merged");
    let merged = frames(&scene);
    assert_eq!(merged[1], merged[0], "pages of one content have one frame");
    // Read by the guest, they are still what they were.
    for at in part.clone().step_by(PAGE) {
        assert_eq!(scene.read(at + 16), 0x5a5a ^ 16);
    }
    let before = Counters::host();
    let bystander = part.start + PAGE;
    for at in part.clone().step_by(4 * PAGE) {
        scene.write(at + 8, at as u64);
    }
    let broken = Counters::host().since(&before, "cow_ksm");
    assert!(broken >= PAGES as u64 / 8, "{broken} merged pages were copied");
    assert_ne!(frames(&scene)[0], frames(&scene)[1], "a page that was written has its own frame");
    for at in part.clone().step_by(PAGE) {
        let own = at.is_multiple_of(4 * PAGE);
        let expected = if own { at as u64 } else { 0x5a5a ^ 8 };
        assert_eq!(scene.read(at + 8), expected, "page at {at:#x}");
        assert_eq!(scene.guest.data.read(at + 8), expected, "page at {at:#x}, for the host");
    }
    assert_eq!(scene.read(bystander), 0x5a5a);
    drop(scanner);
    scene.finish();
}

/// The scanner write-protects what it compares, also pages that turn out to be different.
fn merge_while_the_guest_writes() {
    let scene = Scene::new(Kind::Pages, PAGES);
    write_same(&scene, 0x77);
    scene.guest.data.advise(scene.guest.data.all(), libc::MADV_MERGEABLE).expect("advice");
    let scanner = Scanner::start();
    for _ in 0..6 {
        Scanner::wait(1);
        scene.ledger.wait(10);
    }
    assert!(number(format!("{KSM}/pages_scanned")) > 0);
    drop(scanner);
    scene.finish();
}
