//! What ageing, reclaim and faults cost, in questions, hypercalls and invalidations: figures that a run shows,
//! and bounds that they keep to. Events are counted, not time: they are the same on a loaded machine.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use verdigris_guest::{program, touch};
use verdigris_ktap::{FIGURE, skip, test_table};

use super::ageing::{WALKS, mglru};
use super::support::HAND;
use crate::inside::cgroup::Group;
use crate::inside::counters::{PARAMETERS, is_verdigris, number, write};
use crate::inside::guest::{DATA, Guest};
use crate::inside::region::Kind;
use crate::inside::swap;
use crate::inside::sys::PAGE;
use crate::inside::vcpu::Vcpu;
use crate::stats::Values;

test_table! { "figures", 120: ageing_and_reclaim_by_windows, ageing_and_reclaim_by_pages }

const LRU: &str = "/sys/kernel/debug/lru_gen";
const PAGES: usize = 4096;
/// Half of the memory, as memory.reclaim has it.
const HALF: &str = "8M";
/// Longer than the driver waits for the end of a pass.
const PASS_IS_OVER: Duration = Duration::from_millis(300);

/// What Linux and the driver did in some time.
struct Cost {
    questions: u64,
    /// Of the hypercalls, those about ages.
    asked: u64,
    hypercalls: u64,
    invalidations: u64,
    unmapped: u64,
    skipped: u64,
}

impl Cost {
    fn between(old: &Values, new: &Values) -> Self {
        let sum = |names: &[&str]| names.iter().map(|&name| new[name] - old[name]).sum();
        Self {
            questions: sum(&["clear_flush_young", "clear_young", "test_young"]),
            asked: sum(&["window_fetches", "window_tests", "epoch_flushes"]),
            hypercalls: sum(&[
                "window_fetches",
                "window_tests",
                "epoch_flushes",
                "invalidate_calls",
            ]),
            invalidations: sum(&["fw_tlbi_ipa", "fw_tlbi_range", "fw_tlbi_stage1", "fw_tlbi_vmid"]),
            unmapped: sum(&["fw_leaves_unmapped"]),
            skipped: sum(&["fw_flushes_skipped"]),
        }
    }

    fn tell(&self, what: &str) {
        let Self { questions, asked: _, hypercalls, invalidations, unmapped, skipped } = self;
        println!(
            "{FIGURE}{what}: {questions} questions, {hypercalls} hypercalls, {invalidations} TLB \
             invalidations, {unmapped} pages taken away, {skipped} of them without an invalidation"
        );
    }
}

/// A guest with all its memory in place, all of it touched, in a group of its own.
struct Bench {
    group: Group,
    guest: Guest,
    hand: Vcpu,
}

impl Bench {
    fn new() -> Self {
        swap::ensure();
        let group = Group::join("memory-figures");
        let guest = Guest::new(Kind::Pages, PAGES * PAGE);
        for page in 0..PAGES {
            guest.data.write(page * PAGE, 1);
        }
        let hand = guest.vcpu(HAND);
        Self { group, guest, hand }
    }

    fn touch(&mut self) {
        self.hand.program(program::TOUCH, &[DATA, PAGES as u64, 1, touch::READ]);
    }

    /// Counts what something costs, and the flush that follows.
    fn cost(&mut self, work: impl FnOnce(&mut Self)) -> Cost {
        let before = self.guest.vm.statistics();
        work(self);
        sleep(PASS_IS_OVER);
        Cost::between(&before, &self.guest.vm.statistics())
    }

    /// Has Linux age all of the group's memory once.
    fn age(&mut self) {
        for (group, node, newest) in generations("/memory-figures") {
            write(LRU, &format!("+ {group} {node} {newest} 1 1"));
        }
    }
}

/// Lists a group's number, its nodes, and the newest generation of each.
fn generations(path: &str) -> Vec<(u64, u64, u64)> {
    let (mut group, mut found) = (None, Vec::<(u64, u64, u64)>::new());
    for line in fs::read_to_string(LRU).expect("generations").lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            // One that was removed stays until its last page is gone, with its name and without a number.
            ["memcg", number, name] => {
                group = (name == path && number != "0").then(|| number.parse().expect("a number"));
            }
            ["memcg", ..] => group = None,
            ["node", node] => {
                if let Some(group) = group {
                    found.push((group, node.parse().expect("a number"), 0));
                }
            }
            [generation, ..] if group.is_some() => {
                let last = found.last_mut().expect("a node comes first");
                last.2 = last.2.max(generation.parse().expect("a number"));
            }
            _ => {}
        }
    }
    found
}

/// Returns what a pass over touched memory costs, one over untouched memory, and the reclaim of half of it.
fn costs(window: u32) -> [Cost; 3] {
    let mut bench = Bench::new();
    bench.touch();
    let touched = bench.cost(Bench::age);
    let idle = bench.cost(Bench::age);
    let reclaim = bench.cost(|bench| bench.group.set("memory.reclaim", HALF));
    let name = if window > 1 { "windows of 1024 pages" } else { "page by page" };
    touched.tell(&format!("{name}: a pass over {PAGES} touched pages"));
    idle.tell(&format!("{name}: a pass over {PAGES} idle pages"));
    reclaim.tell(&format!("{name}: reclaim of {HALF}"));
    [touched, idle, reclaim]
}

/// Measures with a size of window, and puts the parameter back.
fn measure(window: u32) -> [Cost; 3] {
    if !is_verdigris() {
        skip("this is not the driver of Verdigris: it has no windows");
    }
    if mglru() & WALKS == 0 {
        skip("Linux asks nothing in a pass: the host's CPU keeps no access flags");
    }
    let parameter = format!("{PARAMETERS}/age_window");
    let old = number(&parameter);
    write(&parameter, &window.to_string());
    let costs = costs(window);
    write(&parameter, &old.to_string());
    assert!(costs[0].questions >= PAGES as u64 / 2, "only {} questions", costs[0].questions);
    assert!(costs[2].unmapped >= PAGES as u64 / 4, "nothing was reclaimed");
    costs
}

fn ageing_and_reclaim_by_windows() {
    for Cost { questions, asked, .. } in measure(1024) {
        assert!(8 * asked <= questions, "{asked} hypercalls for {questions} questions");
    }
}

fn ageing_and_reclaim_by_pages() {
    for Cost { questions, asked, .. } in measure(1) {
        assert!(10 * asked >= 9 * questions, "{asked} hypercalls for {questions} questions");
    }
}
