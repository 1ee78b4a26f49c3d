//! Processes and protections: copies on write, pages that may not be written, moved and unmapped memory.

use std::io::{Read, Write, pipe};

use verdigris_guest::{pattern, program};
use verdigris_ktap::test_table;

use super::support::{Scene, halves};
use crate::inside::counters::Counters;
use crate::inside::guest::DATA;
use crate::inside::region::{KINDS, Kind};
use crate::inside::sys::{self, PAGE};
use crate::inside::vcpu::Exit;

test_table! { "memory", 300: fork_copies_on_write, protect, move_under_the_guest, unmap_under_the_guest, punch_holes }

const PAGES: usize = 128;

/// A child keeps what the guest had when it was forked, and the guest goes on writing.
fn fork_copies_on_write() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    let before = Counters::host();
    for seed in 1..4 {
        scene.fill(part.clone(), seed);
        let (mut end, mut start) = pipe().expect("a pipe");
        let data = &scene.guest.data;
        let process = sys::fork(|| {
            let mut byte = [0];
            let is_told = end.read_exact(&mut byte).is_ok();
            let is_kept = |at: usize| data.read(at) == pattern(DATA + at as u64, seed);
            i32::from(!is_told || !part.clone().step_by(8).all(is_kept))
        })
        .expect("a child");
        scene.fill(part.clone(), seed + 100);
        scene.check(part.clone(), seed + 100);
        scene.ledger.wait(10);
        start.write_all(&[1]).expect("the child listens");
        assert_eq!(sys::wait_for(process).expect("a child"), 0, "the child's copy has changed");
        scene.check(part.clone(), seed + 100);
    }
    let faults = Counters::host().since(&before, "pgfault");
    assert!(faults > 3 * PAGES as u64, "{faults} faults: nothing was copied");
    scene.finish();
}

fn expect_failure(scene: &mut Scene, program: u64, offset: usize) {
    let address = scene.guest.page_address(0) + offset as u64;
    scene.hand.begin(program, &[address, 1]);
    loop {
        match scene.hand.run() {
            Exit::Interrupted => {}
            Exit::Failed(libc::EFAULT, _) => return,
            other => panic!("{other:x?}, where nothing may be accessed"),
        }
    }
}

/// What the process may not do to its memory, the guest can't either; what it may again, the guest can.
fn protect() {
    for kind in KINDS {
        let mut scene = Scene::new(kind, PAGES);
        let part = scene.part();
        let (closed, _) = halves(&part);
        scene.fill(part.clone(), 1);
        for seed in 2..6 {
            scene.guest.data.protect(closed.clone(), libc::PROT_NONE).expect("protection");
            expect_failure(&mut scene, program::READ, closed.start + 3 * PAGE);
            scene.guest.data.protect(closed.clone(), libc::PROT_READ).expect("protection");
            assert_eq!(
                scene.hand.finish()[1],
                pattern(DATA + (closed.start + 3 * PAGE) as u64, seed - 1)
            );
            scene.check(closed.clone(), seed - 1);
            expect_failure(&mut scene, program::WRITE, closed.start + 5 * PAGE);
            let writable = libc::PROT_READ | libc::PROT_WRITE;
            scene.guest.data.protect(closed.clone(), writable).expect("protection");
            // The write that failed is made by the next run, and nothing else has changed.
            scene.hand.finish();
            assert_eq!(scene.read(closed.start + 5 * PAGE), 1);
            scene.check(closed.start..closed.start + 5 * PAGE, seed - 1);
            scene.fill(part.clone(), seed);
        }
        // The part under the ledger, again and again: whoever writes meanwhile waits for nothing and fails
        // for nothing, since it is readable and writable whenever a fault looks.
        for _ in 0..20 {
            let (_, rest) = halves(&scene.part());
            scene.guest.data.protect(rest.clone(), libc::PROT_READ).expect("protection");
            scene.check(rest.clone(), 5);
            let writable = libc::PROT_READ | libc::PROT_WRITE;
            scene.guest.data.protect(rest, writable).expect("protection");
        }
        scene.finish();
    }
}

/// Pages move within the guest's memory, and it finds them where they are now.
fn move_under_the_guest() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let (from, to) = halves(&scene.part());
    let before = Counters::host();
    for seed in 1..4 {
        scene.fill(from.clone(), seed);
        scene.fill(to.clone(), seed + 50);
        scene.guest.data.move_pages(from.clone(), to.start).expect("a move");
        // The pattern is that of the old place.
        for at in (0..to.len()).step_by(PAGE) {
            let expected = pattern(DATA + (from.start + at) as u64, seed);
            assert_eq!(scene.read(to.start + at), expected);
            assert_eq!(scene.read(from.start + at), 0, "what was left behind is new");
        }
    }
    assert!(Counters::host().since(&before, "pgfault") > 0);
    scene.finish();
}

/// Memory that is unmapped is out of the guest's reach at once, and is new when there is memory again.
fn unmap_under_the_guest() {
    for kind in KINDS {
        let mut scene = Scene::new(kind, PAGES);
        let (gone, kept) = halves(&scene.part());
        for seed in 1..6 {
            scene.fill(gone.clone(), seed);
            scene.fill(kept.clone(), seed);
            scene.guest.data.unmap(gone.clone()).expect("memory that was mapped");
            expect_failure(&mut scene, program::READ, gone.start);
            scene.guest.data.map(gone.clone()).expect("memory");
            let expected =
                if kind == Kind::Shared { pattern(DATA + gone.start as u64, seed) } else { 0 };
            assert_eq!(scene.hand.finish()[1], expected);
            scene.check(kept.clone(), seed);
        }
        scene.finish();
    }
}

/// A hole in the file behind the memory reads as zero, through the slot too.
fn punch_holes() {
    let mut scene = Scene::new(Kind::Shared, PAGES);
    let part = scene.part();
    for seed in 1..10 {
        scene.fill(part.clone(), seed);
        let (hole, kept) = halves(&part);
        scene.guest.data.punch(hole.clone()).expect("a hole");
        for at in hole.step_by(PAGE) {
            assert_eq!(scene.read(at), 0, "a page of the hole");
        }
        scene.check(kept, seed);
    }
    scene.finish();
}
