//! What a process can tell Linux of its memory, and so of the guest's.

use verdigris_guest::{pattern, program};
use verdigris_ktap::test_table;

use super::support::{Scene, halves};
use crate::inside::cgroup::Group;
use crate::inside::counters::Counters;
use crate::inside::guest::DATA;
use crate::inside::region::{KINDS, Kind};
use crate::inside::sys::{self, PAGE};
use crate::inside::{pagemap, swap};

test_table! { "memory", 300: dontneed, free, pageout, pageout_by_process_madvise, cold, poison }

/// Pages of each half.
const PAGES: usize = 256;

/// What is thrown away reads as zero in private memory, and as what the file has in shared.
fn dontneed() {
    for kind in KINDS {
        let mut scene = Scene::new(kind, PAGES);
        let part = scene.part();
        for seed in 1..6 {
            scene.fill(part.clone(), seed);
            scene.guest.data.advise(part.clone(), libc::MADV_DONTNEED).expect("advice");
            let expected =
                if kind == Kind::Shared { pattern(DATA + part.start as u64, seed) } else { 0 };
            assert_eq!(scene.read(part.start), expected, "{kind:?}");
            if kind == Kind::Shared {
                scene.check(part.clone(), seed);
            }
        }
        // Pages that nobody asks to have back are found by the guest at once.
        scene.guest.data.advise(part.clone(), libc::MADV_DONTNEED).expect("advice");
        scene.fill(part.clone(), 9);
        scene.check(part.clone(), 9);
        scene.finish();
    }
}

/// What may be freed is, unless the guest wrote it afterwards.
fn free() {
    swap::ensure();
    let group = Group::join("memory-free");
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    scene.fill(part.clone(), 1);
    let before = Counters::host();
    scene.guest.data.advise(part.clone(), libc::MADV_FREE).expect("advice");
    let (kept, lost) = halves(&part);
    scene.fill(kept.clone(), 2);
    // It may fall short of what is asked for: then it says EAGAIN.
    _ = group.try_set("memory.reclaim", &part.len().to_string());
    assert!(Counters::host().since(&before, "pglazyfreed") > 0, "nothing was freed");
    scene.check(kept, 2);
    let mut freed = 0;
    for at in lost.step_by(PAGE) {
        let expected = pattern(DATA + at as u64, 1);
        match scene.read(at) {
            0 => freed += 1,
            value => assert_eq!(value, expected, "neither zero nor what it was"),
        }
    }
    assert!(freed > PAGES / 8, "{freed} pages were freed");
    scene.finish();
}

fn pageout_by(advise: impl Fn(&Scene)) {
    swap::ensure();
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    scene.fill(part.clone(), 3);
    let before = Counters::host();
    for _ in 0..4 {
        scene.ledger.wait(2);
        advise(&scene);
        let pages = scene.guest.data.pages();
        assert!(pagemap::swapped(&scene.guest.data, pages / 2..pages) > PAGES / 2);
        scene.check(part.clone(), 3);
    }
    let now = Counters::host();
    assert!(now.swapped_out_since(&before) >= PAGES as u64, "pages went out");
    assert!(now.swapped_in_since(&before) >= PAGES as u64, "and came back");
    scene.finish();
}

fn pageout() {
    pageout_by(|scene| {
        let data = &scene.guest.data;
        data.advise(data.all(), libc::MADV_PAGEOUT).expect("advice");
    });
}

fn pageout_by_process_madvise() {
    pageout_by(|scene| {
        let data = &scene.guest.data;
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
        scene.guest.data.advise(part.clone(), libc::MADV_COLD).expect("advice");
        _ = group.try_set("memory.reclaim", &(part.len() / 2).to_string());
        scene.check(part.clone(), seed);
    }
    let now = Counters::host();
    assert!(now.since(&before, "pgdeactivate") >= PAGES as u64, "pages were made cold");
    assert!(now.swapped_out_since(&before) > 0, "pages went out");
    scene.finish();
}

/// A page that the hardware lost is told by SIGBUS with its address, and the rest of the slot goes on.
fn poison() {
    sys::note_bus_errors();
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    scene.fill(part.clone(), 5);
    let bad = part.start + 7 * PAGE;
    let data = &scene.guest.data;
    data.advise(bad..bad + PAGE, libc::MADV_HWPOISON).expect("advice");
    let (before, ..) = sys::bus_errors();
    // The signal interrupts the run: look at it there.
    let address = scene.guest.page_address(0) + bad as u64;
    scene.hand.begin(program::READ, &[address]);
    let exit = scene.hand.run();
    let (count, at, code) = sys::bus_errors();
    assert!(count > before, "no signal; the run ended with {exit:?}");
    assert_eq!((at as usize, code), (data.address(bad), libc::BUS_MCEERR_AR as u64));
    // A new page in its place, and the same access goes on.
    data.map(bad..bad + PAGE).expect("memory");
    data.advise(bad..bad + PAGE, libc::MADV_NOHUGEPAGE).expect("advice");
    assert_eq!(scene.hand.finish()[1], 0);
    scene.check(part.start..bad, 5);
    scene.check(bad + PAGE..part.end, 5);
    scene.fill(bad..bad + PAGE, 6);
    scene.check(bad..bad + PAGE, 6);
    scene.finish();
}
