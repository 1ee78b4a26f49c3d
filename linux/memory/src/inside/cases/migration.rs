//! Pages that move in physical memory, while the guest uses them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use verdigris_ktap::{skip, test_table};

use super::support::{Blocks, PLAYERS, Scene, expect_blocks_mapped};
use crate::inside::counters::{Counters, number, write};
use crate::inside::guest::Guest;
use crate::inside::ledger::Ledger;
use crate::inside::pagemap;
use crate::inside::region::{KINDS, Kind};
use crate::inside::sys::{self, BLOCK, PAGE};

test_table! { "placement", 300: compact, contiguous_range, soft_offline, to_another_node }

const BYTES: usize = 192 * PAGE;
/// Huge pages of which one page each is kept.
const SCATTERED: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);

fn frames(guest: &Guest, pages: usize) -> Vec<Option<u64>> {
    let entries = pagemap::entries(&guest.data, 0..pages);
    entries.into_iter().map(pagemap::Entry::frame).collect()
}

fn count_moved(before: &[Option<u64>], after: &[Option<u64>]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before.is_some() && before != after).count()
}

/// Makes a guest whose first pages lie far from each other: one is left of each huge page, and moves there.
fn scattered() -> Guest {
    let guest = Guest::new(Kind::Blocks, SCATTERED * BLOCK);
    let data = &guest.data;
    for start in (0..data.bytes()).step_by(BLOCK) {
        data.write(start, 0);
        data.advise(start + PAGE..start + BLOCK, libc::MADV_DONTNEED).expect("advice");
    }
    // What is mapped in part only becomes small pages, and those of nobody are free.
    write("/sys/kernel/debug/split_huge_pages", "1");
    for page in 1..SCATTERED {
        data.move_pages(page * BLOCK..page * BLOCK + PAGE, page * PAGE).expect("a move");
    }
    guest
}

/// Has a guest keep a ledger on its scattered pages all the time while `shake` moves memory; that may wait until the
/// guest got on. Returns how many pages the host migrated; some of them were the guest's.
fn while_scattered_pages_are_used(shake: impl FnOnce(&dyn Fn())) -> u64 {
    let guest = Arc::new(scattered());
    let ledger = Ledger::start_on(&guest, PLAYERS, SCATTERED);
    ledger.wait(2);
    let (before, old) = (Counters::host(), frames(&guest, SCATTERED));
    shake(&|| ledger.wait(5));
    let migrated = Counters::host().since(&before, "pgmigrate_success");
    let moved = count_moved(&old, &frames(&guest, SCATTERED));
    ledger.finish();
    assert!(migrated > 0 && moved > 0, "{migrated} pages were migrated, {moved} of the guest's");
    migrated
}

/// Lets the host compact its memory: what moves is its choice, so the guest's pages are what stands alone.
fn compact() {
    let migrated = while_scattered_pages_are_used(|wait| {
        for _ in 0..2 {
            write("/proc/sys/vm/compact_memory", "1");
            wait();
        }
    });
    println!("{migrated} pages migrated");
}

/// Takes huge pages of 32 MiB: a range is emptied for each, as for a contiguous allocation (CMA).
fn contiguous_range() {
    let file = "/sys/kernel/mm/hugepages/hugepages-32768kB/nr_hugepages";
    if !std::path::Path::new(file).exists() {
        skip("the host has no huge pages of 32 MiB");
    }
    let mut got = 0;
    let migrated = while_scattered_pages_are_used(|wait| {
        for count in [32, 56] {
            write(file, &count.to_string());
            got = number(file);
            wait();
        }
        write(file, "0");
    });
    println!("{got} ranges; {migrated} pages migrated");
    assert!(got > 0, "no range was emptied");
}

/// Takes pages away that may soon fail: each moves to another frame at once, and is good as before.
fn soft_offline() {
    let mut scene = Scene::new(Kind::Pages, 256);
    let (part, pages) = (scene.part(), scene.guest.data.pages());
    scene.fill(part.clone(), 3);
    let before = Counters::host();
    let mut tried = Vec::new();
    // The ledger's pages too, while it writes them: Linux says so if the moment is bad for that.
    for at in (0..part.end).step_by(16 * PAGE) {
        tried.extend(frames(&scene.guest, pages)[at / PAGE]);
        let done = scene.guest.data.advise(at..at + PAGE, libc::MADV_SOFT_OFFLINE);
        assert!(done.is_ok() || at < part.start, "{done:?}");
        scene.ledger.wait(1);
    }
    // A page may have moved between the look and the advice, so not each frame is off.
    let off: Vec<_> = tried.into_iter().filter(|frame| pagemap::is_poisoned(*frame)).collect();
    assert!(off.len() >= part.len() / PAGE / 32, "{} frames are off", off.len());
    let mut used = frames(&scene.guest, pages).into_iter().flatten();
    assert!(!used.any(pagemap::is_poisoned), "a page that is off is in use");
    let migrated = Counters::host().since(&before, "pgmigrate_success");
    assert!(migrated >= off.len() as u64, "{migrated} pages were migrated");
    scene.check(part, 3);
    scene.finish();
    sys::give_back(&off);
}

/// Has Linux move pages to a node, by `go`, until all are there: it gives up at what somebody holds at that moment.
fn move_all(addresses: &[usize], node: i32, go: impl Fn()) {
    let end = Instant::now() + PATIENCE;
    loop {
        go();
        let at = sys::nodes_of(addresses).expect("nodes");
        let moved = at.iter().filter(|&&status| status == node).count();
        if moved == addresses.len() {
            return;
        }
        assert!(Instant::now() < end, "{moved} pages are on node {node}: {at:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Moves all pages between two nodes, by address (move_pages) and as a whole (migrate_pages).
fn to_another_node() {
    if !std::path::Path::new("/sys/devices/system/node/node1").exists() {
        skip("the machine has one node");
    }
    for kind in KINDS {
        let guest =
            Arc::new(Guest::new(kind, if kind == Kind::Blocks { 2 * BLOCK } else { BYTES }));
        let pages = guest.data.pages();
        // The page of zeros, which is where the guest reads first, doesn't move.
        (0..pages).for_each(|page| guest.data.write(page * PAGE, 0));
        let ledger = Ledger::start(&guest, PLAYERS);
        ledger.wait(10);
        let (before, blocks) = (Counters::host(), Blocks::of(&guest));
        let addresses: Vec<usize> =
            (0..pages).map(|page| guest.data.address(page * PAGE)).collect();
        for node in [1, 0, 1, 0] {
            move_all(&addresses, node, || {
                sys::move_pages(&addresses, node).expect("nodes");
            });
            ledger.wait(5);
        }
        for (from, to) in [(0, 1), (1, 0)] {
            move_all(&addresses, to, || sys::migrate_self(from, to).expect("nodes"));
            ledger.wait(5);
        }
        let now = Counters::host();
        let migrated = now.since(&before, "pgmigrate_success");
        println!("{kind:?}: {migrated} pages migrated");
        assert!(migrated >= 5 * pages as u64, "{migrated} pages were migrated");
        if kind == Kind::Blocks {
            assert!(now.since(&before, "thp_migration_success") >= 5 * 2, "blocks came to pieces");
            expect_blocks_mapped(&guest, blocks, 5);
        }
        ledger.finish();
    }
}
