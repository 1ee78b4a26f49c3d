//! The classic LRU lists: what a guest's fault says of its page decides how reclaim takes it.
//!
//! They judge a page by the list that it is on and by a flag that whoever accesses it sets. Linux sets both for accesses of
//! a process; for those of a guest the hypervisor has to, when it serves the fault.

use std::iter;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use verdigris_guest::{program, trace};
use verdigris_ktap::{FIGURE, test_table};

use super::support::HAND;
use crate::inside::cgroup::Group;
use crate::inside::counters::{Counters, write};
use crate::inside::guest::Guest;
use crate::inside::region::Kind;
use crate::inside::swap;
use crate::inside::sys::PAGE;
use crate::inside::vcpu::Vcpu;

test_table! { "kernel", 600: half_of_a_guest_is_swapped_not_killed }
test_table! { FIGURES, "figures", 600: a_hot_half_beside_a_scan }

const PAGES: usize = 8192;
const BYTES: u64 = (PAGES * PAGE) as u64;

/// Numbers at random (splitmix64), the same for a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Makes an entry of a trace: one in four is a write.
    fn entry(&mut self, page: usize) -> u64 {
        page as u64 | if self.below(4) == 0 { trace::WRITE } else { 0 }
    }
}

/// Accesses as they often are: the n-th of all pages 1/n as often as the first (Zipf's law), the pages in any order.
fn zipf(seed: u64, count: usize) -> Vec<u64> {
    let mut random = Random(seed);
    let mut pages: Vec<usize> = (0..PAGES).collect();
    (1..PAGES).rev().for_each(|last| pages.swap(last, random.below(last + 1)));
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=PAGES).map(|n| (sum += 1.0 / n as f64, sum).1).collect();
    let mut access = || {
        let at = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * sum;
        let rank = sums.partition_point(|sum| *sum < at).min(PAGES - 1);
        random.entry(pages[rank])
    };
    iter::repeat_with(&mut access).take(count).collect()
}

/// Half of the pages is hot, and used at random; one access in 16 goes through the other half in order.
fn hot_and_scan(seed: u64, count: usize) -> Vec<u64> {
    let (mut random, mut scan) = (Random(seed), (PAGES / 2..PAGES).cycle());
    let mut access = || {
        let page = match random.below(16) {
            0 => scan.next().expect("it goes round"),
            _ => random.below(PAGES / 2),
        };
        random.entry(page)
    };
    iter::repeat_with(&mut access).take(count).collect()
}

/// A guest in a cgroup, all of whose pages were written once.
struct Setting {
    group: Group,
    guest: Guest,
    hand: Vcpu,
    written: Vec<u64>,
}

impl Setting {
    fn new(name: &str) -> Self {
        swap::ensure();
        write("/sys/kernel/mm/lru_gen/enabled", "0");
        write("/proc/sys/vm/page-cluster", "0");
        write("/proc/sys/vm/swappiness", "100");
        let group = Group::join(name);
        let guest = Guest::new(Kind::Pages, BYTES as usize);
        let hand = guest.vcpu(HAND);
        let mut setting = Self { group, guest, hand, written: vec![0; PAGES] };
        setting.go(&(0..PAGES).map(|page| page as u64 | trace::WRITE).collect::<Vec<_>>());
        setting
    }

    /// Limits the group to a part of the guest, beside what else it has; in steps of 1 MiB, between which reclaim sees its counts,
    /// or at once.
    fn limit(&self, percent: u64, in_steps: bool) {
        let all = self.group.bytes();
        let limit = all - BYTES + BYTES / 100 * percent;
        let steps = (limit..all).rev().step_by(1 << 20).filter(|_| in_steps);
        for bytes in steps.chain([limit]) {
            self.group.set("memory.max", &bytes.to_string());
            self.group.statistics();
        }
    }

    /// Has the guest go through a stream.
    fn go(&mut self, stream: &[u64]) {
        let guest = &self.guest;
        stream.iter().enumerate().for_each(|(index, entry)| guest.set_version(index, *entry));
        let arguments = [guest.page_address(0), guest.versions_address(), stream.len() as u64];
        assert_eq!(self.hand.program(program::STREAM, &arguments)[1], 0, "pages that are wrong");
        for entry in stream.iter().filter(|entry| *entry & trace::WRITE != 0) {
            self.written[(entry & !trace::WRITE) as usize] += 1;
        }
    }

    /// Compares what is there with what was written.
    fn check(self) {
        self.group.set("memory.max", "max");
        for (page, count) in self.written.iter().enumerate() {
            let found = self.guest.data.read(page * PAGE);
            assert_eq!(found, trace::stamp(page as u64) + count, "page {page}");
        }
    }
}

/// Who is over the limit is killed if reclaim finds nothing to take, and so would this process be: five times it is not.
fn half_of_a_guest_is_swapped_not_killed() {
    for seed in 1..=5 {
        let mut setting = Setting::new("memory-classic");
        setting.limit(50, seed > 3);
        setting.go(&zipf(seed, 10_000));
        let events = setting.group.events();
        assert_eq!(events.get("oom_kill"), 0, "{events:?}");
        setting.check();
    }
}

/// Reclaim decides by counts that are up to four seconds old, and kills for it, on Linux's KVM too. Whoever reads them
/// brings them up to date.
fn keep_counts_fresh(counts: &Path, is_done: &AtomicBool) {
    while !is_done.load(SeqCst) {
        _ = Counters::read(counts);
        thread::sleep(Duration::from_millis(50));
    }
}

/// How many pages come back that reclaim should have left: to be compared with Linux's KVM, where the number varies by a tenth.
fn a_hot_half_beside_a_scan() {
    let mut setting = Setting::new("memory-hot");
    let counts = setting.group.statistics_file();
    let is_done = AtomicBool::new(false);
    let refaults = thread::scope(|scope| {
        scope.spawn(|| keep_counts_fresh(&counts, &is_done));
        setting.limit(60, true);
        let stream = hot_and_scan(1, 60_000);
        let (warm, rest) = stream.split_at(20_000);
        setting.go(warm);
        let before = setting.group.statistics();
        setting.go(rest);
        is_done.store(true, SeqCst);
        setting.group.statistics().since(&before, "workingset_refault_anon")
    });
    println!("{FIGURE}{refaults} refaults in 40,000 accesses");
    setting.check();
}
