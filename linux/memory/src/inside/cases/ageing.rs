//! Linux learns from the guest's own tables which of its pages are in use.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use verdigris_guest::{control, program, touch};
use verdigris_ktap::{FIGURE, skip, test_table};

use super::support::HAND;
use crate::inside::cgroup::Group;
use crate::inside::counters::{Counters, number, write};
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
/// Parameters of the driver, where there is one.
const PARAMETERS: &str = "/sys/module/verdigris/parameters";

/// A guest that has written all of its memory, and since then touches one half of it again and again.
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
        vcpu.program(program::TOUCH, &[DATA, PAGES as u64, 1, touch::WRITE, 8]);
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
        let (end, target) = (Instant::now() + Duration::from_secs(30), read() + rounds);
        while read() < target {
            assert!(Instant::now() < end, "the guest is stuck");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Counts the pages in swap: cold ones, hot ones.
    fn swapped(&self) -> (usize, usize) {
        let hot = pagemap::swapped(&self.guest.data, HOT);
        (pagemap::swapped(&self.guest.data, 0..PAGES) - hot, hot)
    }

    fn finish(self) {
        self.guest.set_control(HAND, control::STOP, 1);
        let mut vcpu = self.thread.join().expect("no panic on the vCPU's thread");
        for page in 0..PAGES {
            assert_eq!(self.guest.data.read(page * PAGE), 0, "page {page}");
        }
        let last = DATA + ((PAGES - 1) * PAGE) as u64;
        assert_eq!(vcpu.program(program::READ, &[last])[1], 0);
    }
}

/// Reclaims a quarter of the guest in steps, with some rounds of the guest between; returns cold and hot pages
/// that went out on the way.
fn reclaim_a_quarter(name: &str) -> (usize, usize) {
    swap::ensure();
    let group = Group::join(name);
    let hot = Hot::start();
    let before = Counters::host();
    let (mut cold_out, mut out) = (0, 0);
    while out < PAGES as u64 / 4 {
        // A pass is over when the driver has flushed (`age_flush_ms`): touches right after a question are seen from then on.
        std::thread::sleep(PASS);
        hot.wait(2);
        _ = group.try_set("memory.reclaim", "1M");
        out = Counters::host().swapped_out_since(&before);
        // What is hot comes back at once: so hot pages are what went out and isn't cold.
        cold_out = hot.swapped().0;
    }
    let hot_out = (out as usize).saturating_sub(cold_out);
    println!("{FIGURE}{name}: {out} pages went out, {cold_out} of them cold");
    hot.finish();
    (cold_out, hot_out)
}

/// Of the first quarter of memory that goes, at least 95 % is cold.
fn reclaim_takes_what_is_cold() {
    let (cold, hot) = reclaim_a_quarter("memory-ageing");
    assert!(cold * 100 >= 95 * (cold + hot), "{cold} cold pages went, and {hot} hot ones");
}

/// Where the driver answers "old" to whatever it is asked, Linux can't tell.
fn reclaim_without_answers_takes_anything() {
    let parameter = Path::new(PARAMETERS).join("age_answers");
    if !parameter.exists() {
        skip("this is not the driver of Verdigris: its ageing answers can't be turned off");
    }
    write(&parameter, "0");
    let result = std::panic::catch_unwind(|| reclaim_a_quarter("memory-ageing-off"));
    write(&parameter, "1");
    let (cold, hot) = result.expect("a quarter");
    assert!(cold * 100 < 95 * (cold + hot), "{cold} cold pages went, and {hot} hot ones");
}

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

/// Sets DAMON up on some of this process's addresses; a file for each access that was found.
pub(super) fn watch(addresses: Range<usize>) {
    let set = |file: &str, text: &str| write(format!("{DAMON}/{file}"), text);
    set("nr_kdamonds", "1");
    set("0/contexts/nr_contexts", "1");
    let context = "0/contexts/0";
    set(&format!("{context}/operations"), "vaddr");
    for (name, microseconds) in
        [("sample_us", 20_000), ("aggr_us", 400_000), ("update_us", 1_000_000)]
    {
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
    let base = guest.data.address(0);
    let mut sums = (0, 0);
    for &(start, end, accesses) in regions {
        for address in (start.max(base)..end).step_by(PAGE) {
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
    let mut sums = (0, 0);
    let end = Instant::now() + Duration::from_secs(30);
    while (sums.0 < 1000 || sums.0 < 5 * sums.1) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(400));
        sums = heat(&hot.guest, &damon_regions());
    }
    stop_damon();
    println!("accesses by page: {} hot, {} cold", sums.0, sums.1);
    assert!(sums.0 >= 1000 && sums.0 >= 5 * sums.1, "{} hot, {} cold", sums.0, sums.1);
    hot.finish();
}
