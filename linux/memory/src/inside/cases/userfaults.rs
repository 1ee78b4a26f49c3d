//! Faults that the VMM serves itself: lazy restore, post-copy, its own dirty tracking.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use verdigris_guest::{ledger, pattern, program};
use verdigris_ktap::test_table;

use super::support::{HAND, PLAYERS, Scene};
use crate::inside::guest::{DATA, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::PAGE;
use crate::inside::userfault::{Fault, MINOR, MISSING, PROTECTED, Userfault};

test_table! { "memory", 300: missing, missing_in_a_file, minor, write_protected, post_copy }

const PAGES: usize = 256;

/// Serves faults by `serve` as long as `work` lasts; returns how many there were.
fn while_serving(userfault: &Userfault, serve: impl Fn(Fault) + Sync, work: impl FnOnce()) -> u64 {
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                if let Some(fault) = userfault.next(10) {
                    serve(fault);
                    count.fetch_add(1, SeqCst);
                }
            }
        });
        work();
        done.store(true, SeqCst);
    });
    count.load(SeqCst)
}

/// What FILL with a seed leaves in the page at an offset of the data.
fn filled(offset: usize, seed: u64) -> Vec<u64> {
    (0..PAGE).step_by(8).map(|word| pattern(DATA + (offset + word) as u64, seed)).collect()
}

fn missing_of(kind: Kind) {
    let mut scene = Scene::new(kind, PAGES);
    let part = scene.part();
    let userfault = Userfault::new().expect("userfaultfd");
    userfault.register(&scene.guest.data, part.clone(), MISSING).expect("a range");
    let guest = Arc::clone(&scene.guest);
    for seed in 1..4 {
        let serve = |fault: Fault| {
            let offset = fault.address - guest.data.address(0);
            userfault.copy(fault.address, &filled(offset, seed)).expect("a page");
        };
        let faults = while_serving(&userfault, serve, || {
            scene.check(part.clone(), seed);
            scene.fill(part.clone(), seed + 10);
            scene.check(part.clone(), seed + 10);
        });
        assert!(faults >= PAGES as u64, "{faults} faults");
        match kind {
            Kind::Shared => guest.data.punch(part.clone()).expect("a hole"),
            _ => guest.data.advise(part.clone(), libc::MADV_DONTNEED).expect("advice"),
        }
    }
    userfault.unregister(&guest.data, part.clone()).expect("a range");
    assert_eq!(scene.read(part.start), 0);
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
    for seed in 1..4 {
        for at in part.clone().step_by(PAGE) {
            filled(at, seed)
                .into_iter()
                .enumerate()
                .for_each(|(word, v)| other.write(at + word * 8, v));
        }
        // The pages stay in the file; only this view loses them.
        scene.guest.data.advise(part.clone(), libc::MADV_DONTNEED).expect("advice");
        let serve = |fault: Fault| {
            assert!(fault.is_minor, "{fault:?}");
            userfault.go_on(fault.address).expect("a page of the file");
        };
        let faults = while_serving(&userfault, serve, || scene.check(part.clone(), seed));
        assert!(faults >= PAGES as u64 / 2, "{faults} faults");
        scene.fill(part.clone(), seed + 10);
        assert_eq!(other.read(part.start), pattern(DATA + part.start as u64, seed + 10));
    }
    scene.finish();
}

/// The VMM's own dirty tracking: pages that the guest writes are told, once each, before they change.
fn write_protected() {
    let mut scene = Scene::new(Kind::Pages, PAGES);
    let part = scene.part();
    scene.fill(part.clone(), 1);
    let userfault = Userfault::new().expect("userfaultfd");
    userfault.register(&scene.guest.data, part.clone(), PROTECTED).expect("a range");
    let guest = Arc::clone(&scene.guest);
    let page_of = |address: usize| (address - guest.data.address(0)) / PAGE;
    for seed in 2..6u64 {
        userfault.protect(&guest.data, part.clone(), true).expect("protection");
        let told = std::sync::Mutex::new(BTreeSet::new());
        let serve = |fault: Fault| {
            assert!(fault.is_protected, "{fault:?}");
            let page = page_of(fault.address);
            told.lock().expect("no panic").insert(page);
            userfault.protect(&guest.data, page * PAGE..(page + 1) * PAGE, false).expect("a page");
        };
        let written: Range<usize> = part.start..part.start + PAGES / 4 * PAGE * seed as usize / 2;
        let written = written.start..written.end.min(part.end);
        while_serving(&userfault, serve, || {
            assert_eq!(scene.read(part.end - PAGE), pattern(DATA + (part.end - PAGE) as u64, 1));
            for at in written.clone().step_by(2 * PAGE) {
                scene.write(at, seed);
            }
        });
        let expected: BTreeSet<usize> = written.step_by(2 * PAGE).map(|at| at / PAGE).collect();
        assert_eq!(*told.lock().expect("no panic"), expected);
        for page in expected {
            assert_eq!(scene.read(page * PAGE), seed);
        }
    }
    userfault.unregister(&guest.data, part).expect("a range");
    scene.finish();
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
    let serve = |fault: Fault| {
        let page = (fault.address - target.data.address(0)) / PAGE;
        userfault.copy(fault.address, &source.data.page(page)).expect("a page");
    };
    let arrived = Ledger::start(&target, PLAYERS);
    let faults = while_serving(&userfault, serve, || {
        for page in (0..pages).rev() {
            userfault
                .copy(target.data.address(page * PAGE), &source.data.page(page))
                .expect("a page");
            if page % 16 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        arrived.wait(20);
    });
    println!("{faults} pages were asked for");
    assert!(faults > 0, "nothing was asked for");
    assert!((0..pages).any(|page| target.version(page) > source.version(page)));
    arrived.finish();
    let mut hand = target.vcpu(HAND);
    let last = pages - 1;
    let expected = ledger::content(target.page_address(last), target.version(last));
    assert_eq!(hand.program(program::READ, &[target.page_address(last)])[1], expected);
}
