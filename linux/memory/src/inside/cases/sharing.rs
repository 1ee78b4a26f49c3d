//! Processes and protections: copies on write, pages that may not be accessed, moved and unmapped memory, all of it while a
//! vCPU uses that memory.

use std::io::{Read, Write, pipe};
use std::ops::Range;

use verdigris_ktap::test_table;

use super::beside::{Job, LINE_BYTES, Work};
use super::support::{
    Blocks, Scene, addresses, expect_blocks_mapped, filled, is_verdigris, taken, touch_blocks,
};
use crate::inside::guest::Guest;
use crate::inside::pagemap;
use crate::inside::region::{KINDS, Kind};
use crate::inside::sys::{self, PAGE};
use crate::inside::vcpu::Exit;

test_table! { "memory", 300: fork_copies_on_write, protect, move_under_the_guest, unmap_under_the_guest, punch_holes }

const PAGES: usize = 128;
/// How often each thing is done.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;
const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Has new memory in a part, in blocks if it has such: what became small pages stays so.
fn renew(scene: &Scene, kind: Kind, part: &Range<usize>) {
    scene.guest.data.map(part.clone()).expect("memory");
    if kind == Kind::Blocks {
        touch_blocks(&scene.guest.data, part);
    }
}

/// What a part holds that FILL wrote, and then a vCPU that writes the first doubleword of each page in each round.
fn spun(seed: u64, rounds: u64) -> impl Fn(usize) -> u64 {
    move |at| if at.is_multiple_of(PAGE) { rounds } else { filled(at, seed) }
}

fn frames(guest: &Guest, part: &Range<usize>) -> Vec<Option<u64>> {
    let pages = part.start / PAGE..part.end / PAGE;
    pagemap::entries(&guest.data, pages).into_iter().map(pagemap::Entry::frame).collect()
}

/// Forks; the child notes what there is, and compares it with what there is when it is told that the guest has gone on. What
/// the guest writes by an old translation would be seen by the child. It allocates nothing.
fn fork_beside(work: &Work, part: &Range<usize>, seed: u64) {
    let (mut end, mut start) = pipe().expect("a pipe");
    let data = &work.guest.data;
    let mut noted = vec![0; part.len() / PAGE];
    let pages = || part.clone().step_by(PAGE);
    let child = sys::fork(|| {
        pages().zip(&mut noted).for_each(|(at, word)| *word = data.read(at));
        let is_told = end.read_exact(&mut [0]).is_ok();
        let is_kept = pages().zip(&noted).all(|(at, &word)| data.read(at) == word);
        let is_right = |at| data.read(at) == filled(at, seed) || at % PAGE == 0;
        i32::from(!(is_told && is_kept && part.clone().step_by(LINE_BYTES).all(is_right)))
    })
    .expect("a child");
    // The child has its copy of each page until the guest has written its own.
    (0..3).for_each(|_| work.go_round());
    start.write_all(&[1]).expect("the child listens");
    assert_eq!(sys::wait_for(child).expect("a child"), 0, "the child's copy has changed");
}

/// A child keeps what the guest had when it was forked, and the guest goes on writing.
fn fork_copies_on_write() {
    for kind in [Kind::Pages, Kind::Blocks] {
        let mut scene = Scene::with_blocks(kind, PAGES);
        let part = scene.part();
        for seed in 1..3 {
            let blocks = Blocks::of(&scene.guest);
            renew(&scene, kind, &part);
            scene.fill(part.clone(), seed);
            if kind == Kind::Blocks {
                expect_blocks_mapped(&scene.guest, blocks, 2);
            }
            let before = frames(&scene.guest, &part);
            let end = scene.beside(Job::write(&addresses(&part)), |work| {
                work.go_round();
                fork_beside(work, &part, seed);
            });
            scene.compare(&part, spun(seed, end.rounds));
            let after = frames(&scene.guest, &part);
            let kept = before.iter().zip(&after).filter(|(before, after)| before == after);
            assert_eq!(kept.count(), 0, "pages that the guest wrote and that were not copied");
            scene.ledger.wait(2);
        }
        scene.finish();
    }
}

/// Expects that a run failed at some address of a part. Linux's own KVM doesn't tell where.
fn expect_failure(exit: &Exit, part: &Range<usize>) {
    match exit {
        Exit::Failed(libc::EFAULT, None) if !is_verdigris() => {}
        Exit::Failed(libc::EFAULT, Some(at)) if addresses(part).contains(at) => {}
        other => panic!("{other:x?}, where nothing may be accessed"),
    }
}

/// Nothing may be done to a part: a vCPU that reads it fails, and goes on when it may.
fn close(scene: &mut Scene, part: &Range<usize>, seed: u64) {
    let exit = scene.until_taken(Job::look(&addresses(part)), |guest| {
        guest.data.protect(part.clone(), libc::PROT_NONE).expect("protection");
    });
    expect_failure(&exit, part);
    scene.guest.data.protect(part.clone(), libc::PROT_READ).expect("protection");
    scene.drain();
    scene.check(part.clone(), seed);
}

/// A part may be read only: a vCPU that writes it fails, and nothing has changed since; it goes on when it may write.
fn make_readonly(scene: &mut Scene, part: &Range<usize>, seed: u64) {
    scene.guest.data.protect(part.clone(), WRITABLE).expect("protection");
    let words = |guest: &Guest| -> Vec<u64> {
        part.clone().step_by(PAGE).map(|at| guest.data.read(at)).collect()
    };
    let mut found = Vec::new();
    let exit = scene.until_taken(Job::write(&addresses(part)), |guest| {
        guest.data.protect(part.clone(), libc::PROT_READ).expect("protection");
        found = words(guest);
    });
    expect_failure(&exit, part);
    assert_eq!(words(&scene.guest), found, "what may only be read was written");
    scene.guest.data.protect(part.clone(), WRITABLE).expect("protection");
    // The write that failed is made by the next run, and the rest of the round.
    scene.drain();
    let rounds = scene.guest.data.read(part.start);
    assert!(rounds > 0 && rounds >= found[0]);
    scene.compare(part, spun(seed, rounds));
}

/// What the process may not do to its memory, the guest can't either; what it may again, the guest can.
fn protect() {
    for kind in KINDS {
        let mut scene = Scene::with_blocks(kind, PAGES);
        let (part, ledger_part) = (scene.part(), scene.ledger_part());
        for seed in SEEDS {
            let (before, closed) = (Blocks::of(&scene.guest), taken(&part, seed));
            renew(&scene, kind, &part);
            scene.fill(part.clone(), seed);
            if kind == Kind::Blocks {
                expect_blocks_mapped(&scene.guest, before, 2);
            }
            close(&mut scene, &closed, seed);
            make_readonly(&mut scene, &closed, seed);
            scene.check(closed.end..part.end, seed);
        }
        // The ledger's memory is readable and writable at any moment: whether it may be executed too is all the same.
        for _ in 0..20 {
            let part = ledger_part.clone();
            scene.guest.data.protect(part.clone(), WRITABLE | libc::PROT_EXEC).expect("protection");
            scene.guest.data.protect(part, WRITABLE).expect("protection");
            scene.ledger.wait(1);
        }
        scene.finish();
    }
}

/// Pages move within the guest's memory, and it finds them where they are now, and new ones where they were.
fn move_under_the_guest() {
    for kind in [Kind::Pages, Kind::Blocks] {
        let mut scene = Scene::with_blocks(kind, PAGES);
        let part = scene.part();
        let half_bytes = part.len() / 2;
        for seed in SEEDS {
            let before = Blocks::of(&scene.guest);
            renew(&scene, kind, &part);
            scene.fill(part.clone(), seed);
            if kind == Kind::Blocks {
                expect_blocks_mapped(&scene.guest, before, 2);
            }
            let from = taken(&part, seed);
            // The pattern is that of the old place.
            let moved = |at: usize| match at {
                at if from.contains(&at) => 0,
                at if from.contains(&(at - half_bytes)) => filled(at - half_bytes, seed),
                at => filled(at, seed),
            };
            scene.watch(
                &addresses(&part),
                |at| filled(part.start + at, seed),
                |guest| {
                    guest.data.move_pages(from.clone(), from.start + half_bytes).expect("a move");
                },
                |at| moved(part.start + at),
            );
            scene.compare(&part, moved);
            scene.fill(part.clone(), seed + 50);
            scene.check(part.clone(), seed + 50);
        }
        scene.watch_pages_go(|guest, page| {
            guest.data.move_pages(page.clone(), page.start + half_bytes).expect("a move");
        });
        scene.finish();
    }
}

/// Unmaps a part that a vCPU uses, and has new memory there.
fn unmap_beside(scene: &mut Scene, kind: Kind, job: Job, part: &Range<usize>) {
    let exit = scene.until_taken(job, |guest| {
        guest.data.unmap(part.clone()).expect("memory that was mapped");
    });
    expect_failure(&exit, part);
    renew(scene, kind, part);
    scene.drain();
}

/// Memory that is unmapped is out of the guest's reach at once, and is new when there is memory again.
fn unmap_under_the_guest() {
    for kind in KINDS {
        let mut scene = Scene::with_blocks(kind, PAGES);
        let part = scene.part();
        for seed in SEEDS {
            let (before, gone) = (Blocks::of(&scene.guest), taken(&part, seed));
            renew(&scene, kind, &part);
            scene.fill(part.clone(), seed);
            if kind == Kind::Blocks {
                expect_blocks_mapped(&scene.guest, before, 2);
            }
            unmap_beside(&mut scene, kind, Job::look(&addresses(&gone)), &gone);
            let is_kept = kind == Kind::Shared;
            scene.compare(&gone, |at| if is_kept { filled(at, seed) } else { 0 });
            scene.fill(gone.clone(), seed);
            unmap_beside(&mut scene, kind, Job::write(&addresses(&gone)), &gone);
            scene.check(gone.end..part.end, seed);
        }
        scene.finish();
    }
}

/// A hole in the file behind the memory reads as zero, through the slot too; and what the host writes there is found.
fn punch_holes() {
    let mut scene = Scene::new(Kind::Shared, PAGES);
    let part = scene.part();
    for seed in SEEDS {
        scene.fill(part.clone(), seed);
        let hole = taken(&part, seed);
        let punched = |at: usize| if hole.contains(&at) { 0 } else { filled(at, seed) };
        scene.watch(
            &addresses(&part),
            |at| filled(part.start + at, seed),
            |guest| guest.data.punch(hole.clone()).expect("a hole"),
            |at| punched(part.start + at),
        );
        scene.compare(&part, punched);
        hole.clone().step_by(PAGE).for_each(|at| scene.guest.data.write(at, seed));
        let is_new = |at: usize| hole.contains(&at) && at.is_multiple_of(PAGE);
        scene.compare(&part, |at| if is_new(at) { seed } else { punched(at) });
    }
    scene.watch_pages_go(|guest, page| guest.data.punch(page).expect("a hole"));
    scene.finish();
}
