//! Faults that the VMM serves itself: lazy restore, post-copy, its own dirty tracking.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use verdigris_ktap::test_table;

use super::beside::Job;
use super::support::{PLAYERS, Scene, addresses, filled};
use crate::inside::guest::Guest;
use crate::inside::ledger::Ledger;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::PAGE;
use crate::inside::userfault::{Fault, MINOR, MISSING, PROTECTED, Userfault};

test_table! { "memory", 300: missing, missing_in_a_file, minor, write_protected, post_copy }

const PAGES: usize = 256;

/// Addresses of pages whose faults were served.
type Served = BTreeSet<usize>;

/// Says when dropped that there is nothing more to serve, also after a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Serves faults by `serve` as long as `work` lasts, which is handed the pages served so far; returns them all in the end.
fn while_serving(
    userfault: &Userfault,
    serve: impl Fn(Fault) + Sync,
    work: impl FnOnce(&Mutex<Served>),
) -> Served {
    let (done, served) = (AtomicBool::new(false), Mutex::new(Served::new()));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                if let Some(fault) = userfault.next(10) {
                    // Noted first: once it is served, the guest goes on.
                    served.lock().expect("no panic").insert(fault.address);
                    serve(fault);
                }
            }
        });
        let end = Done(&done);
        work(&served);
        drop(end);
    });
    served.into_inner().expect("no panic")
}

/// The addresses of the pages of a part.
fn pages_of(data: &Region, part: &Range<usize>) -> Served {
    part.clone().step_by(PAGE).map(|at| data.address(at)).collect()
}

/// What FILL with a seed leaves in the page at an offset of the data.
fn filled_page(offset: usize, seed: u64) -> Vec<u64> {
    (offset..offset + PAGE).step_by(8).map(|at| filled(at, seed)).collect()
}

fn missing_of(kind: Kind) {
    let mut scene = Scene::new(kind, PAGES);
    let part = scene.part();
    let userfault = Userfault::new().expect("userfaultfd");
    userfault.register(&scene.guest.data, part.clone(), MISSING).expect("a range");
    let guest = Arc::clone(&scene.guest);
    for seed in 1..3 {
        let serve = |fault: Fault| {
            let offset = fault.address - guest.data.address(0);
            userfault.copy(fault.address, &filled_page(offset, seed)).expect("a page");
        };
        let served = while_serving(&userfault, serve, |_| {
            scene.check(part.clone(), seed);
            scene.fill(part.clone(), seed + 10);
            scene.check(part.clone(), seed + 10);
        });
        assert_eq!(served, pages_of(&guest.data, &part), "each page was asked for, and no other");
        match kind {
            Kind::Shared => guest.data.punch(part.clone()).expect("a hole"),
            _ => guest.data.advise(part.clone(), libc::MADV_DONTNEED).expect("advice"),
        }
    }
    userfault.unregister(&guest.data, part.clone()).expect("a range");
    scene.compare(&part, |_| 0);
    scene.finish();
}

/// Each page comes when the guest first touches it, and nothing else is seen before.
fn missing() {
    missing_of(Kind::Pages);
}

fn missing_in_a_file() {
    missing_of(Kind::Shared);
}

/// Pages that the file has already, written through another view, and that are mapped when the guest asks.
fn minor() {
    let data = Region::new(Kind::Shared, 2 * PAGES * PAGE).expect("memory");
    let other = data.alias().expect("a second view");
    let mut scene = Scene::on(Guest::with(data, 0));
    let part = scene.part();
    let userfault = Userfault::new().expect("userfaultfd");
    userfault.register(&scene.guest.data, part.clone(), MINOR).expect("a range");
    for seed in 1..3 {
        for at in part.clone().step_by(PAGE) {
            let words = filled_page(at, seed).into_iter().enumerate();
            words.for_each(|(word, value)| other.write(at + word * 8, value));
        }
        // The pages stay in the file; only this view loses them.
        scene.guest.data.advise(part.clone(), libc::MADV_DONTNEED).expect("advice");
        let serve = |fault: Fault| {
            assert!(fault.is_minor, "{fault:?}");
            userfault.go_on(fault.address).expect("a page of the file");
        };
        let served = while_serving(&userfault, serve, |_| scene.check(part.clone(), seed));
        assert_eq!(served, pages_of(&scene.guest.data, &part), "each page was asked for");
        scene.fill(part.clone(), seed + 10);
        for at in part.clone().step_by(8) {
            assert_eq!(other.read(at), filled(at, seed + 10), "at {at:#x}, in the other view");
        }
    }
    scene.finish();
}

/// Forbids writing under a vCPU that writes all pages: each is told before it changes, whatever translation the vCPU had.
fn protect_beside(scene: &mut Scene, userfault: &Userfault) {
    let (part, guest) = (scene.part(), Arc::clone(&scene.guest));
    let serve = |fault: Fault| {
        assert!(fault.is_protected, "{fault:?}");
        let at = fault.address - guest.data.address(0);
        userfault.protect(&guest.data, at..at + PAGE, false).expect("a page");
    };
    let served = while_serving(userfault, serve, |served| {
        scene.beside(Job::write(&addresses(&part)), |work| {
            work.go_round();
            served.lock().expect("no panic").clear();
            userfault.protect(&work.guest.data, part.clone(), true).expect("protection");
            work.go_round();
        });
    });
    assert_eq!(served, pages_of(&guest.data, &part), "each page was told");
}

/// The VMM's own dirty tracking: pages that the guest writes are told before they change, and no others.
fn write_protected() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    scene.fill(part.clone(), 1);
    let userfault = Userfault::new().expect("userfaultfd");
    userfault.register(&scene.guest.data, part.clone(), PROTECTED).expect("a range");
    let guest = Arc::clone(&scene.guest);
    for seed in 2..4u64 {
        userfault.protect(&guest.data, part.clone(), true).expect("protection");
        let serve = |fault: Fault| {
            assert!(fault.is_protected, "{fault:?}");
            let at = fault.address - guest.data.address(0);
            userfault.protect(&guest.data, at..at + PAGE, false).expect("a page");
        };
        let end = part.end.min(part.start + PAGES / 4 * PAGE * seed as usize / 2);
        let written: BTreeSet<usize> = (part.start..end).step_by(2 * PAGE).collect();
        let served = while_serving(&userfault, serve, |_| {
            assert_eq!(scene.read(part.end - PAGE), filled(part.end - PAGE, 1));
            written.iter().for_each(|&at| scene.write(at, seed));
        });
        assert_eq!(served, written.iter().map(|&at| guest.data.address(at)).collect());
        scene.compare(&part, |at| if written.contains(&at) { seed } else { filled(at, 1) });
    }
    userfault.protect(&guest.data, part.clone(), false).expect("protection");
    protect_beside(&mut scene, &userfault);
    userfault.unregister(&guest.data, part).expect("a range");
    scene.finish();
}

/// Waits until the guest has asked for so many pages.
fn wait_for_faults(served: &Mutex<Served>, least: usize) {
    let end = Instant::now() + Duration::from_secs(60);
    let count = || served.lock().expect("no panic").len();
    while count() < least {
        assert!(Instant::now() < end, "{} pages were asked for", count());
        thread::sleep(Duration::from_millis(1));
    }
}

/// A guest is moved: it goes on with memory that is still elsewhere, which follows page by page, some because they are
/// asked for, and the rest by the mover's own hand at the same time.
fn post_copy() {
    let source = Arc::new(Guest::new(Kind::Pages, 2 * PAGES * PAGE));
    let ledger = Ledger::start(&source, PLAYERS);
    ledger.wait(60);
    drop(ledger.pause());
    let target = Arc::new(Guest::new(Kind::Pages, 2 * PAGES * PAGE));
    let pages = target.data.pages();
    (0..pages).for_each(|page| target.set_version(page, source.version(page)));
    let userfault = Userfault::new().expect("userfaultfd");
    userfault.register(&target.data, target.data.all(), MISSING).expect("a range");
    let page_of = |address: usize| (address - target.data.address(0)) / PAGE;
    let serve = |fault: Fault| {
        let page = source.data.page(page_of(fault.address));
        userfault.copy(fault.address, &page).expect("a page");
    };
    let arrived = Ledger::start(&target, PLAYERS);
    let served = while_serving(&userfault, serve, |served| {
        // The guest gets on by its own faults alone, at first.
        wait_for_faults(served, pages / 8);
        for page in (0..pages).rev() {
            let at = target.data.address(page * PAGE);
            userfault.copy(at, &source.data.page(page)).expect("a page");
        }
        arrived.wait(20);
    });
    println!("{} pages were asked for", served.len());
    let has_changed = |page: usize| target.version(page) > source.version(page);
    assert!(served.iter().any(|&at| has_changed(page_of(at))), "no page that came was written");
    arrived.finish();
}
