//! What a process can tell Linux of its memory, and so of the guest's.

use std::collections::BTreeSet;
use std::ops::Range;

use verdigris_ktap::test_table;

use super::beside::Job;
use super::support::{
    Blocks, Scene, addresses, expect_blocks_mapped, filled, halves, taken, touch_blocks,
};
use crate::inside::cgroup::Group;
use crate::inside::counters::Counters;
use crate::inside::guest::Guest;
use crate::inside::region::{KINDS, Kind};
use crate::inside::sys::{self, PAGE};
use crate::inside::vcpu::Exit;
use crate::inside::{pagemap, swap};

test_table! { "memory", 300: dontneed, free, pageout, pageout_by_process_madvise, cold, poison }

/// Pages of each half.
const PAGES: usize = 128;

/// What is thrown away reads as zero in private memory, and as what the file has in shared; what the host then writes is
/// found. A vCPU looks on.
fn dontneed() {
    for kind in KINDS {
        let mut scene = Scene::with_blocks(kind, PAGES / 2);
        let part = scene.part();
        let is_kept = kind == Kind::Shared;
        for seed in 1..4 {
            let before = Blocks::of(&scene.guest);
            if kind == Kind::Blocks {
                // Without the tables of small pages.
                scene.guest.data.map(part.clone()).expect("memory");
                touch_blocks(&scene.guest.data, &part);
            }
            scene.fill(part.clone(), seed);
            if kind == Kind::Blocks {
                expect_blocks_mapped(&scene.guest, before, 2);
            }
            let gone = taken(&part, seed);
            let is_lost = |at: usize| !is_kept && gone.contains(&at);
            let left = |at| if is_lost(at) { 0 } else { filled(at, seed) };
            let (old, new) = (
                |at| filled(part.start + at, seed),
                |at: usize| if gone.contains(&at) { seed ^ at as u64 } else { left(at) },
            );
            scene.watch(
                &addresses(&part),
                old,
                |guest| guest.data.advise(gone.clone(), libc::MADV_DONTNEED).expect("advice"),
                |at| left(part.start + at),
            );
            // The page of zeros goes, too.
            scene.watch(
                &addresses(&part),
                |at| left(part.start + at),
                |guest| gone.clone().step_by(PAGE).for_each(|at| guest.data.write(at, new(at))),
                |at| new(part.start + at),
            );
            let is_new = |at: usize| at.is_multiple_of(PAGE);
            scene.compare(&part, |at| if is_new(at) { new(at) } else { left(at) });
        }
        if !is_kept {
            scene.watch_pages_go(|guest, page| {
                guest.data.advise(page, libc::MADV_DONTNEED).expect("advice");
            });
        }
        // Pages that nobody asks to have back are found by the guest at once.
        scene.guest.data.advise(part.clone(), libc::MADV_DONTNEED).expect("advice");
        scene.fill(part.clone(), 9);
        scene.check(part.clone(), 9);
        scene.finish();
    }
}

/// What may be freed is, unless the guest wrote it afterwards: a vCPU writes to half of it all the time.
fn free() {
    swap::ensure();
    let group = Group::join("memory-free");
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    let (kept, lost) = halves(&part);
    scene.fill(part.clone(), 1);
    let before = Counters::host();
    let end = scene.beside(Job::write(&addresses(&kept)), |work| {
        work.go_round();
        work.guest.data.advise(part.clone(), libc::MADV_FREE).expect("advice");
        work.go_round();
        for _ in 0..3 {
            // It may fall short of what is asked for: then it says EAGAIN.
            _ = group.try_set("memory.reclaim", &part.len().to_string());
            work.go_round();
        }
    });
    assert!(Counters::host().since(&before, "pglazyfreed") > 0, "nothing was freed");
    let is_written = |at: usize| at.is_multiple_of(PAGE);
    scene.compare(&kept, |at| if is_written(at) { end.rounds } else { filled(at, 1) });
    let is_freed = |at| scene.guest.data.read(at) == 0;
    let freed: BTreeSet<usize> = lost.clone().step_by(PAGE).filter(|&at| is_freed(at)).collect();
    scene.compare(&lost, |at| if freed.contains(&(at / PAGE * PAGE)) { 0 } else { filled(at, 1) });
    assert!(freed.len() > PAGES / 8, "{} pages were freed", freed.len());
    scene.finish();
}

/// Pages go out, also those that the ledger uses and that a vCPU looks at: they are back at once.
fn pageout_by(advise: impl Fn(&Guest)) {
    swap::ensure();
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    let (looked_at, rest) = halves(&part);
    let pages = |part: &Range<usize>| part.start / PAGE..part.end / PAGE;
    scene.fill(part.clone(), 3);
    scene.ledger.wait(10);
    let before = Counters::host();
    for _ in 0..3 {
        scene.ledger.wait(2);
        let old = |at| filled(looked_at.start + at, 3);
        let out = |guest: &Guest| {
            advise(guest);
            assert!(pagemap::swapped(&guest.data, pages(&rest)) > PAGES / 4);
        };
        scene.watch(&addresses(&looked_at), old, out, old);
        scene.check(part.clone(), 3);
    }
    let now = Counters::host();
    assert!(now.swapped_out_since(&before) >= PAGES as u64, "pages went out");
    assert!(now.swapped_in_since(&before) >= PAGES as u64, "and came back");
    scene.finish();
}

fn pageout() {
    pageout_by(|guest| {
        let data = &guest.data;
        data.advise(data.all(), libc::MADV_PAGEOUT).expect("advice");
    });
}

fn pageout_by_process_madvise() {
    pageout_by(|guest| {
        let data = &guest.data;
        // It stops early at what it can't take, which is no error.
        sys::advise_self(data.address(0), data.bytes(), libc::MADV_PAGEOUT).expect("advice");
    });
}

/// Pages that are called cold are put back in the order of reclaim. What the guest's own tables say of them is not
/// asked or changed by that, so whether they go first is up to the next ageing: here it is that nothing is lost.
fn cold() {
    swap::ensure();
    let group = Group::join("memory-cold");
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    let before = Counters::host();
    for seed in 1..4 {
        scene.fill(part.clone(), seed);
        // The ledger's too.
        let data = &scene.guest.data;
        data.advise(data.all(), libc::MADV_COLD).expect("advice");
        _ = group.try_set("memory.reclaim", &part.len().to_string());
        scene.ledger.wait(5);
        scene.check(part.clone(), seed);
    }
    let now = Counters::host();
    assert!(now.since(&before, "pgdeactivate") >= PAGES as u64, "pages were made cold");
    assert!(now.swapped_out_since(&before) > 0, "pages went out");
    scene.finish();
}

/// A page that the hardware lost is told by SIGBUS with its address to the vCPU that looks at it, and the rest of the
/// slot goes on.
fn poison() {
    sys::note_bus_errors();
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    scene.fill(part.clone(), 5);
    let bad = part.start + 7 * PAGE..part.start + 8 * PAGE;
    let entries = pagemap::entries(&scene.guest.data, bad.start / PAGE..bad.end / PAGE);
    let frame = entries[0].frame().expect("a page in memory");
    let (before, ..) = sys::bus_errors();
    let exit = scene.until_taken(Job::look(&addresses(&part)), |guest| {
        guest.data.advise(bad.clone(), libc::MADV_HWPOISON).expect("advice");
    });
    // The signal interrupted the run.
    let (count, at, code) = sys::bus_errors();
    assert_eq!((exit, count), (Exit::Interrupted, before + 1));
    let address = scene.guest.data.address(bad.start);
    assert_eq!((at as usize, code), (address, libc::BUS_MCEERR_AR as u64));
    // A new page in its place, and the same access goes on.
    scene.guest.data.map(bad.clone()).expect("memory");
    scene.drain();
    scene.compare(&part, |at| if bad.contains(&at) { 0 } else { filled(at, 5) });
    scene.fill(bad.clone(), 6);
    scene.check(bad, 6);
    scene.finish();
    sys::give_back(&[frame]);
}
