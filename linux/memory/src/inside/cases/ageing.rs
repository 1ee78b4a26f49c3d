//! Linux learns from the guest's own tables which of its pages are in use.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use verdigris_guest::{control, pattern, program, touch};
use verdigris_ktap::{FIGURE, skip, test_table};

use super::support::HAND;
use crate::inside::cgroup::Group;
use crate::inside::counters::{Counters, PARAMETERS, is_verdigris, number, wait_until, write};
use crate::inside::guest::{DATA, Guest};
use crate::inside::region::Kind;
use crate::inside::sys::PAGE;
use crate::inside::vcpu::Vcpu;
use crate::inside::{pagemap, swap};

test_table! { "memory", 300:
    reclaim_takes_what_is_cold, reclaim_without_answers_takes_anything, damon_finds_what_is_hot,
}

/// Pages of the guest: half of them hot, those that came first. Without news, what came first goes first: so only
/// what the guest's tables tell can save them.
const PAGES: usize = 4096;
const HOT: Range<usize> = 0..PAGES / 2;
/// Longer than what the driver takes for the end of an ageing pass.
const PASS: Duration = Duration::from_millis(100);
/// What the guest fills its memory with.
const SEED: u64 = 0x5eed;

/// A guest that has filled all of its memory, and since then touches one half of it again and again.
struct Hot {
    guest: Arc<Guest>,
    thread: JoinHandle<Vcpu>,
}

impl Hot {
    fn start() -> Self {
        let guest = Arc::new(Guest::new(Kind::Pages, PAGES * PAGE));
        let mut vcpu = guest.vcpu(HAND);
        for page in 0..PAGES {
            guest.data.write(page * PAGE, 0);
        }
        vcpu.program(program::FILL, &[DATA, guest.data.bytes() as u64, SEED]);
        let address = guest.control_address(HAND);
        let first = DATA + (HOT.start * PAGE) as u64;
        let thread = std::thread::spawn(move || {
            let words = [first, HOT.len() as u64, 1, touch::READ, address];
            vcpu.program(program::SPIN, &words);
            vcpu
        });
        let hot = Self { guest, thread };
        hot.wait(10);
        hot
    }

    /// Waits for rounds through all that is hot.
    fn wait(&self, rounds: u64) {
        let read = || self.guest.control(HAND, control::ROUNDS);
        let target = read() + rounds;
        wait_until("the guest goes on", || read() >= target);
    }

    /// Counts the cold pages in swap.
    fn cold_out(&self) -> usize {
        pagemap::swapped(&self.guest.data, HOT.end..PAGES)
    }

    /// Counts the pages of this process in swap that aren't the guest's.
    fn others_out(&self) -> usize {
        let kib = Counters::read("/proc/self/status").get("VmSwap") as usize;
        (kib * 1024 / PAGE).saturating_sub(pagemap::swapped(&self.guest.data, 0..PAGES))
    }

    /// Stops the guest, and looks at every byte, from both sides.
    fn finish(self) {
        self.guest.set_control(HAND, control::STOP, 1);
        let mut vcpu = self.thread.join().expect("no panic on the vCPU's thread");
        let data = &self.guest.data;
        let found = vcpu.program(program::CHECK, &[DATA, data.bytes() as u64, SEED]);
        assert_eq!(found[1], 0, "wrong doublewords, the first at {:#x}", found[2]);
        for at in (0..data.bytes()).step_by(8) {
            assert_eq!(data.read(at), pattern(DATA + at as u64, SEED), "{at:#x} of the data");
        }
    }
}

/// Features of MGLRU (Documentation/admin-guide/mm/multigen_lru.rst).
const GENERATIONS: u64 = 1;
/// It walks page tables: their access flags are the CPU's.
pub(super) const WALKS: u64 = 2;

/// Reads which of them are on.
pub(super) fn mglru() -> u64 {
    let text = fs::read_to_string("/sys/kernel/mm/lru_gen/enabled").expect("MGLRU");
    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).expect("a number")
}

/// What the driver told about a guest, where it is Verdigris': questions, and how many of the answers were "young".
fn answers(guest: &Guest) -> Option<(u64, u64)> {
    let of = guest.vm.statistics();
    let questions = of.get("clear_flush_young")? + of["clear_young"] + of["test_young"];
    Some((questions, of["young_answers"]))
}

/// What a quarter was reclaimed from, and what the driver was asked on the way.
struct Quarter {
    cold: usize,
    hot: usize,
    answers: Option<(u64, u64)>,
}

/// Reclaims a quarter of the guest in steps, with some rounds of the guest between.
fn reclaim_a_quarter(name: &str) -> Quarter {
    swap::ensure();
    assert_ne!(mglru() & GENERATIONS, 0, "MGLRU is off");
    let group = Group::join(name);
    let hot = Hot::start();
    let before = Counters::host();
    let (mut cold, mut hot_out) = (0, 0);
    while cold + hot_out < PAGES / 4 {
        // A pass is over when the driver has flushed (`age_flush_ms`): touches right after a question are seen from then on.
        std::thread::sleep(PASS);
        hot.wait(2);
        _ = group.try_set("memory.reclaim", "1M");
        // No page is one of zeros, so all that goes is written.
        let out = Counters::host().since(&before, "pswpout") as usize;
        cold = hot.cold_out();
        // What is hot comes back at once: so hot pages are what went out, and isn't cold nor of the process beside the guest.
        hot_out = out.saturating_sub(cold + hot.others_out());
    }
    let answers = answers(&hot.guest);
    println!("{FIGURE}{name}: {cold} cold pages went out, {hot_out} hot ones");
    if let Some((questions, young)) = answers {
        println!("{FIGURE}{name}: {young} times young, of {questions} questions");
    }
    hot.finish();
    Quarter { cold, hot: hot_out, answers }
}

/// Of the first quarter of memory that goes, at least 95 % is cold.
fn reclaim_takes_what_is_cold() {
    let Quarter { cold, hot, answers } = reclaim_a_quarter("memory-ageing");
    assert!(cold * 100 >= 95 * (cold + hot), "{cold} cold pages went, and {hot} hot ones");
    assert_eq!(answers.is_some(), is_verdigris());
    assert!(answers.is_none_or(|(_, young)| young > 0), "nobody heard of a touch: {answers:?}");
}

/// Where the driver answers "old" to whatever it is asked, Linux can't tell.
fn reclaim_without_answers_takes_anything() {
    let parameter = Path::new(PARAMETERS).join("age_answers");
    if !parameter.exists() {
        skip("this is not the driver of Verdigris: its ageing answers can't be turned off");
    }
    write(&parameter, "0");
    let Quarter { cold, hot, answers } = reclaim_a_quarter("memory-ageing-off");
    write(&parameter, "1");
    assert!(cold * 100 < 95 * (cold + hot), "{cold} cold pages went, and {hot} hot ones");
    let (questions, young) = answers.expect("statistics of the driver");
    assert!(questions > 0 && young == 0, "{young} times young, of {questions} questions");
}

/// The kernel's own watch of all memory, beside which there can be no other: Linux has it since 6.17.
const DAMON_STAT: &str = "/sys/module/damon_stat/parameters/enabled";
const DAMON: &str = "/sys/kernel/mm/damon/admin/kdamonds";

/// Sets DAMON up on all of a guest's data.
fn start_damon(guest: &Guest) {
    watch(guest.data.address(0)..guest.data.address(guest.data.bytes()));
}

/// Ends it.
pub(super) fn stop_damon() {
    write(format!("{DAMON}/0/state"), "off");
    write(format!("{DAMON}/nr_kdamonds"), "0");
}

/// Sets DAMON up on some of this process's addresses and no others ("fvaddr": under "vaddr" it would watch the whole
/// address space after a while); a file for each access that was found.
pub(super) fn watch(addresses: Range<usize>) {
    let set = |file: &str, text: &str| write(format!("{DAMON}/{file}"), text);
    if std::path::Path::new(DAMON_STAT).exists() {
        write(DAMON_STAT, "N");
    }
    set("nr_kdamonds", "1");
    set("0/contexts/nr_contexts", "1");
    let context = "0/contexts/0";
    set(&format!("{context}/operations"), "fvaddr");
    let intervals = [("sample_us", 20_000), ("aggr_us", 400_000), ("update_us", 1_000_000)];
    for (name, microseconds) in intervals {
        set(&format!("{context}/monitoring_attrs/intervals/{name}"), &format!("{microseconds}"));
    }
    set(&format!("{context}/monitoring_attrs/nr_regions/min"), "64");
    set(&format!("{context}/monitoring_attrs/nr_regions/max"), "200");
    set(&format!("{context}/targets/nr_targets"), "1");
    set(&format!("{context}/targets/0/pid_target"), &std::process::id().to_string());
    set(&format!("{context}/targets/0/regions/nr_regions"), "1");
    set(&format!("{context}/targets/0/regions/0/start"), &addresses.start.to_string());
    set(&format!("{context}/targets/0/regions/0/end"), &addresses.end.to_string());
    set(&format!("{context}/schemes/nr_schemes"), "1");
    let scheme = format!("{context}/schemes/0");
    set(&format!("{scheme}/action"), "stat");
    for (name, end) in [("sz", u64::MAX), ("nr_accesses", 1000), ("age", 100_000)] {
        set(&format!("{scheme}/access_pattern/{name}/min"), "0");
        set(&format!("{scheme}/access_pattern/{name}/max"), &end.to_string());
    }
    set("0/state", "on");
}

/// Asks for the regions that DAMON sees: start, end, accesses of each.
fn damon_regions() -> Vec<(usize, usize, u64)> {
    write(format!("{DAMON}/0/state"), "update_schemes_tried_regions");
    let folder = format!("{DAMON}/0/contexts/0/schemes/0/tried_regions");
    let read = |path: &Path, name: &str| number(path.join(name));
    let entries = fs::read_dir(folder).expect("sysfs").flatten().map(|entry| entry.path());
    entries
        .filter(|path| path.is_dir())
        .map(|path| {
            let (start, end) = (read(&path, "start"), read(&path, "end"));
            (start as usize, end as usize, read(&path, "nr_accesses"))
        })
        .collect()
}

/// Accesses by page, summed over halves: of hot pages, of cold ones.
fn heat(guest: &Guest, regions: &[(usize, usize, u64)]) -> (u64, u64) {
    let (base, limit) = (guest.data.address(0), guest.data.address(guest.data.bytes()));
    let mut sums = (0, 0);
    for &(start, end, accesses) in regions {
        for address in (start.max(base)..end.min(limit)).step_by(PAGE) {
            let page = (address - base) / PAGE;
            if HOT.contains(&page) {
                sums.0 += accesses;
            } else {
                sums.1 += accesses;
            }
        }
    }
    sums
}

/// DAMON samples the process's addresses, by the same questions to the guest's tables.
fn damon_finds_what_is_hot() {
    let hot = Hot::start();
    start_damon(&hot.guest);
    wait_until("the hot half stands out", || {
        std::thread::sleep(Duration::from_millis(200));
        let (hot, cold) = heat(&hot.guest, &damon_regions());
        println!("accesses by page: {hot} hot, {cold} cold");
        hot >= 1000 && hot >= 5 * cold
    });
    stop_damon();
    hot.finish();
}
