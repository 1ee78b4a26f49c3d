//! Reclaim without invalidation: a leaf that was old when the whole VM was last invalidated is in no TLB, so
//! taking it away needs none. All other leaves need theirs.

use std::time::Duration;

use verdigris_abi::{Stat, flags};
use verdigris_guest::{program, touch};

use super::support::{bytes, spread, vcpus_at_once};
use crate::firmware::{Features, Statistics};
use crate::guest::{DATA, Guest};
use crate::ktap::test_table;
use crate::memory::{self, Duty, Limits, Memory, Size};
use crate::pages::Pages;
use crate::vm::RW;

test_table! { "suite", 60:
    cold_pages_go_without_invalidation, young_pages_are_invalidated, never_without_a_flush,
    flush_call_proves_pages_cold, mapping_old_is_no_proof, cold_pages_are_replaced_without_invalidation,
    cold_pages_are_protected_without_invalidation, tables_are_always_invalidated,
    unmap_after_age_without_flush, protect_after_age_without_flush, reclaim_while_guests_run,
}

const PAGES: usize = 256;
const ALL: u64 = flags::AGE_FLUSH_ALL;

/// What an action did: leaves without and with invalidation, and invalidations of whatever kind.
#[derive(Debug, PartialEq, Eq)]
struct Flushes {
    skipped: u64,
    done: u64,
    instructions: u64,
}

impl Flushes {
    fn of(guest: &Guest, action: impl FnOnce()) -> Self {
        let before = guest.statistics();
        action();
        let now = guest.statistics();
        let since = |stat| Statistics::since(&now, &before, stat);
        let kinds = [Stat::TlbiIpa, Stat::TlbiRange, Stat::TlbiStage1, Stat::TlbiVmid];
        Self {
            skipped: since(Stat::FlushesSkipped),
            done: since(Stat::FlushesDone),
            instructions: kinds.map(since).iter().sum(),
        }
    }

    /// Compares with what the epoch allows, or with what there is without it.
    #[track_caller]
    fn assert_all_skipped(&self, leaves: u64) {
        if Features::read().has(flags::FEATURE_FLUSH_EPOCH) {
            assert_eq!(*self, Self { skipped: leaves, done: 0, instructions: 0 });
        } else {
            self.assert_none_skipped(leaves);
        }
    }

    #[track_caller]
    fn assert_none_skipped(&self, leaves: u64) {
        assert_eq!((self.skipped, self.done), (0, leaves));
        assert!(self.instructions > 0, "{leaves} leaves went without an invalidation");
    }
}

/// A guest whose pages were touched, and then found old by an age that invalidated.
fn cold() -> (Guest, Pages) {
    let guest = Guest::new(1);
    let data = guest.with_data(PAGES, RW);
    touch_some(&guest, 1);
    guest.age(DATA, PAGES as u64, ALL);
    (guest, data)
}

fn touch_some(guest: &Guest, stride: u64) {
    guest.cpu(0).call(program::TOUCH, &[DATA, PAGES as u64, stride, touch::WRITE, 0]);
}

fn cold_pages_go_without_invalidation() {
    let (guest, data) = cold();
    touch_some(&guest, 2);
    let young = guest.test_age(DATA, PAGES as u64);
    let cold: Vec<_> = (0..PAGES).filter(|&page| !young[page]).collect();
    assert_eq!(cold.len(), PAGES / 2);
    let unmap = || {
        cold.iter().for_each(|&page| guest.unmap(DATA + bytes(page), 1).expect("a mapping"));
    };
    Flushes::of(&guest, unmap).assert_all_skipped(cold.len() as u64);
    for page in cold {
        let at = DATA + bytes(page);
        data.write(page, 0, 0xc01d);
        let fault = guest.cpu(0).call_to_exit(program::READ, &[at]).fault();
        assert_eq!(fault.page(), at, "a page that is gone");
        guest.cpu(0).run_with(flags::RUN_SKIP, 0);
    }
}

fn young_pages_are_invalidated() {
    let (guest, _data) = cold();
    touch_some(&guest, 1);
    let unmap = || {
        (0..16).for_each(|page| guest.unmap(DATA + bytes(page), 1).expect("a mapping"));
    };
    Flushes::of(&guest, unmap).assert_none_skipped(16);
}

/// Old by an age that invalidated nothing proves nothing; the invalidation of the first such page is one of
/// the whole VM, and proves the others cold.
fn never_without_a_flush() {
    let guest = Guest::new(1);
    let data = guest.with_data(PAGES, RW);
    for mode in [flags::AGE_NO_FLUSH, flags::AGE_FLUSH_YOUNG] {
        touch_some(&guest, 1);
        // Few: the invalidation of many would be one of the whole VM.
        guest.age(DATA, 16, mode);
        let first = Flushes::of(&guest, || guest.unmap(DATA, 1).expect("a mapping"));
        first.assert_none_skipped(1);
        let next = Flushes::of(&guest, || guest.unmap(DATA + bytes(1), 1).expect("a mapping"));
        next.assert_all_skipped(1);
        let sequence = guest.sequence(0);
        for (page, address) in data.addresses().enumerate().take(2) {
            guest.map(DATA + bytes(page), address, 1, RW, sequence).expect("a fresh number");
        }
    }
}

fn flush_call_proves_pages_cold() {
    let guest = Guest::new(1);
    let _data = guest.with_data(PAGES, RW);
    touch_some(&guest, 1);
    guest.age(DATA, PAGES as u64, flags::AGE_NO_FLUSH);
    let vmid = |guest: &Guest| guest.statistics().get(Stat::TlbiVmid);
    let before = vmid(&guest);
    guest.flush().expect("the VM exists");
    assert_eq!(vmid(&guest) - before, 1, "what earlier ages left");
    guest.flush().expect("the VM exists");
    assert_eq!(vmid(&guest) - before, 1, "nothing was cleared since");
    let unmap = || guest.unmap(DATA, 16).expect("mappings");
    Flushes::of(&guest, unmap).assert_all_skipped(16);
}

/// A leaf that was made old was never in a TLB: it needs no flush, but for those before it.
fn mapping_old_is_no_proof() {
    let guest = Guest::new(1);
    let _data = guest.with_data(PAGES, RW | flags::MAP_OLD);
    Flushes::of(&guest, || guest.unmap(DATA, 8).expect("mappings")).assert_all_skipped(8);
    guest.cpu(0).call(program::READ, &[DATA + bytes(20)]);
    guest.age(DATA + bytes(20), 1, flags::AGE_NO_FLUSH);
    let after = Flushes::of(&guest, || guest.unmap(DATA + bytes(8), 8).expect("mappings"));
    after.assert_none_skipped(8);
}

fn cold_pages_are_replaced_without_invalidation() {
    let (guest, data) = cold();
    let others = Pages::single(PAGES);
    others.write(3, 0, 0x33);
    let set = |page: usize| {
        guest.set(DATA + bytes(page), others.address(page), RW, 0).expect("a good page")
    };
    let all = || (0..8).for_each(|page| assert!(set(page), "every page was written"));
    Flushes::of(&guest, all).assert_all_skipped(8);
    data.write(3, 0, 0xdead);
    assert_eq!(guest.cpu(0).call(program::READ, &[DATA + bytes(3)])[0], 0x33);
    guest.cpu(0).call(program::READ, &[DATA + bytes(9)]);
    Flushes::of(&guest, || _ = set(9)).assert_none_skipped(1);
}

fn cold_pages_are_protected_without_invalidation() {
    let (guest, _data) = cold();
    let protect = |first: usize, count: u64| {
        let ipa = DATA + bytes(first);
        Flushes::of(&guest, || guest.write_protect(ipa, count).expect("mappings"))
    };
    protect(0, 32).assert_all_skipped(32);
    guest.cpu(0).call(program::WRITE, &[DATA + bytes(40), 1]);
    protect(40, 1).assert_none_skipped(1);
    let fault = guest.cpu(0).call_to_exit(program::WRITE, &[DATA + bytes(7), 1]).fault();
    assert!(fault.is(flags::FAULT_PERMISSION), "{fault:x?}");
}

/// Walk caches hold tables, and tables have no age.
fn tables_are_always_invalidated() {
    let guest = Guest::new(1);
    let _data = guest.with_data(512, RW);
    guest.age(DATA, 512, ALL);
    let flushes = Flushes::of(&guest, || guest.unmap(DATA, 512).expect("mappings"));
    assert!(flushes.instructions > 0, "a table went without an invalidation: {flushes:?}");
}

/// Runs a program without end, ages what it touches without invalidation, and takes it away.
fn after_age_without_flush(kind: u64, take_away: impl Fn(&Guest)) {
    const FEW: usize = 8;
    let guest = Guest::new(1);
    let data = guest.with_data(FEW, RW);
    let cpu = spread(1)[0];
    let words = || (0..FEW).map(|page| data.read(page, 0)).collect::<Vec<_>>();
    for round in 0..20 {
        let spinner = guest.spin(0, cpu, program::SPIN, &[DATA, FEW as u64, 1, kind]);
        spinner.wait_a_round();
        guest.age(DATA, FEW as u64, flags::AGE_NO_FLUSH);
        spinner.wait_a_round();
        guest.age(DATA, FEW as u64, flags::AGE_NO_FLUSH);
        take_away(&guest);
        let content = words();
        let fault = spinner.exit().fault();
        assert!((DATA..DATA + bytes(FEW)).contains(&fault.ipa), "round {round}: {fault:x?}");
        assert_eq!(content, words(), "round {round}: a write by a translation that was left");
        guest.stop_program(0);
        let sequence = guest.sequence(0);
        for (page, address) in data.addresses().enumerate() {
            guest.map(DATA + bytes(page), address, 1, RW, sequence).expect("a fresh number");
        }
    }
}

fn unmap_after_age_without_flush() {
    after_age_without_flush(touch::READ, |guest| guest.unmap(DATA, 8).expect("mappings"));
    after_age_without_flush(touch::WRITE, |guest| guest.unmap(DATA, 8).expect("mappings"));
}

fn protect_after_age_without_flush() {
    after_age_without_flush(touch::WRITE, |guest| guest.write_protect(DATA, 8).expect("mappings"));
}

/// Cold pages are taken, and their frames given to other pages, while the guest checks and writes.
fn reclaim_while_guests_run() {
    let vcpus = vcpus_at_once().min(2);
    let memory = Memory::new(Size { loose_blocks: 1, blocks: 1, vcpus, table_pages: 64 });
    let cold = Duty::of(memory::named(&["reclaim cold pages"]));
    let others = Duty::of(memory::named(&["move a page", "harvest and copy", "age"]));
    let duration = Duration::from_secs(3);
    let limits = Limits { duration, workers: vec![cold, others], tick: &mut |_| () };
    let report = memory::run(&memory, limits);
    assert!(report.rounds() > 0, "the guest did nothing");
    let skipped = memory.guest().statistics().get(Stat::FlushesSkipped);
    let has_epoch = Features::read().has(flags::FEATURE_FLUSH_EPOCH);
    assert_eq!(skipped > 0, has_epoch, "{skipped} invalidations were left out");
}
