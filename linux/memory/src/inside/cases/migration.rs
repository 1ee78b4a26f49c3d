//! Pages that move in physical memory, while the guest uses them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use verdigris_guest::{control, program, touch};
use verdigris_ktap::{skip, test_table};

use super::support::{HAND, PLAYERS, Scene};
use crate::inside::counters::{Counters, number, write};
use crate::inside::guest::{DATA, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::pagemap;
use crate::inside::region::{KINDS, Kind};
use crate::inside::sys::{self, BLOCK, PAGE};

test_table! { "placement", 300: compact, contiguous_range, soft_offline, to_another_node }

const PAGES: usize = 192;
/// Huge pages of which one page each is kept.
const SCATTERED: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);

fn frames(guest: &Guest) -> Vec<Option<u64>> {
    let entries = pagemap::entries(&guest.data, 0..guest.data.pages());
    entries.into_iter().map(pagemap::Entry::frame).collect()
}

fn count_moved(before: &[Option<u64>], after: &[Option<u64>]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before.is_some() && before != after).count()
}

/// Makes a guest whose pages lie far from each other: one is left of each huge page.
fn scattered() -> Guest {
    let guest = Guest::new(Kind::Blocks, SCATTERED * BLOCK);
    for start in (0..guest.data.bytes()).step_by(BLOCK) {
        guest.data.write(start, 0);
        guest.data.advise(start + PAGE..start + BLOCK, libc::MADV_DONTNEED).expect("advice");
    }
    // What is mapped in part only becomes small pages, and those of nobody are free.
    write("/sys/kernel/debug/split_huge_pages", "1");
    guest
}

/// Has a guest write its scattered pages all the time while `shake` moves memory; that may wait until the
/// guest got around. Returns how many pages the host migrated; some of them were the guest's.
fn while_scattered_pages_are_written(shake: impl FnOnce(&dyn Fn())) -> u64 {
    let guest = Arc::new(scattered());
    let mut vcpu = guest.vcpu(HAND);
    let control = guest.control_address(HAND);
    let (pages, stride) = (guest.data.pages() as u64, (BLOCK / PAGE) as u64);
    let thread = std::thread::spawn(move || {
        vcpu.program(program::SPIN, &[DATA, pages, stride, touch::WRITE, control]);
    });
    let (before, old) = (Counters::host(), frames(&guest));
    shake(&|| {
        let (rounds, end) = (guest.control(HAND, control::ROUNDS), Instant::now() + PATIENCE);
        while guest.control(HAND, control::ROUNDS) < rounds + 2 {
            assert!(Instant::now() < end, "the guest is stuck");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let migrated = Counters::host().since(&before, "pgmigrate_success");
    let moved = count_moved(&old, &frames(&guest));
    guest.set_control(HAND, control::STOP, 1);
    thread.join().expect("no panic on the vCPU's thread");
    assert!(migrated > 0 && moved > 0, "{migrated} pages were migrated, {moved} of the guest's");
    let rounds = guest.control(HAND, control::ROUNDS);
    for start in (0..guest.data.bytes()).step_by(BLOCK) {
        assert_eq!(guest.data.read(start), rounds, "at {start:#x}");
    }
    migrated
}

/// Lets the host compact its memory: what moves is its choice, so the guest's pages are what stands alone.
fn compact() {
    let migrated = while_scattered_pages_are_written(|wait| {
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
    let migrated = while_scattered_pages_are_written(|wait| {
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
    let part = scene.part();
    scene.fill(part.clone(), 3);
    let before = Counters::host();
    let mut tried = Vec::new();
    // The ledger's pages too, while it writes them: Linux says so if the moment is bad for that.
    for at in (0..part.end).step_by(16 * PAGE) {
        tried.extend(frames(&scene.guest)[at / PAGE]);
        let done = scene.guest.data.advise(at..at + PAGE, libc::MADV_SOFT_OFFLINE);
        assert!(done.is_ok() || at < part.start, "{done:?}");
        scene.ledger.wait(1);
    }
    // A page may have moved between the look and the advice, so not each frame is off.
    let off: Vec<_> = tried.into_iter().filter(|frame| pagemap::is_poisoned(*frame)).collect();
    assert!(off.len() >= part.len() / PAGE / 32, "{} frames are off", off.len());
    let mut used = frames(&scene.guest).into_iter().flatten();
    assert!(!used.any(pagemap::is_poisoned), "a page that is off is in use");
    let migrated = Counters::host().since(&before, "pgmigrate_success");
    assert!(migrated >= off.len() as u64, "{migrated} pages were migrated");
    scene.check(part, 3);
    scene.finish();
    sys::give_back(&off);
}

/// Has Linux move pages to a node until most are there: it gives up at the first that somebody holds at that moment.
fn move_most(addresses: &[usize], node: i32) {
    let end = Instant::now() + PATIENCE;
    loop {
        let at = sys::move_pages(addresses, node).expect("nodes");
        let moved = at.iter().filter(|&&status| status == node).count();
        if moved >= addresses.len() / 2 {
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
        let guest = Arc::new(Guest::new(kind, PAGES * PAGE));
        let ledger = Ledger::start(&guest, PLAYERS);
        ledger.wait(10);
        let before = Counters::host();
        let addresses: Vec<usize> =
            (0..PAGES).map(|page| guest.data.address(page * PAGE)).collect();
        for round in 0..4 {
            let node = (round + 1) % 2;
            move_most(&addresses, node);
            ledger.wait(5);
        }
        for round in 0..2 {
            sys::migrate_self(round % 2, (round + 1) % 2).expect("nodes");
            ledger.wait(5);
        }
        let migrated = Counters::host().since(&before, "pgmigrate_success");
        println!("{kind:?}: {migrated} pages migrated");
        assert!(migrated >= 2 * PAGES as u64, "{migrated} pages were migrated");
        ledger.finish();
    }
}
