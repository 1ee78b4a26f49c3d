//! Swap: less memory than the guest has, and it goes on.

use verdigris_ktap::test_table;

use super::support::PLAYERS;
use crate::inside::cgroup::Group;
use crate::inside::counters::Counters;
use crate::inside::guest::Guest;
use crate::inside::ledger::Ledger;
use crate::inside::region::{KINDS, Kind};
use crate::inside::{pagemap, swap};

use std::sync::Arc;
use std::time::{Duration, Instant};

test_table! { "memory", 300: limit, reclaim, high }

const PAGES: usize = 2048;
const BYTES: usize = PAGES * 4096;

fn fill_all(guest: &Guest) {
    // The host has the guest's first version of each page: all of it is memory then.
    (0..guest.data.pages()).for_each(|page| guest.data.write(page * 4096, 0));
}

/// A limit of three quarters of the guest: what doesn't fit is swapped by those who fault, vCPUs above all.
fn limit() {
    swap::ensure();
    for kind in KINDS {
        let group = Group::join("memory-limit");
        let guest = Arc::new(Guest::new(kind, BYTES));
        fill_all(&guest);
        let before = (group.statistics(), Counters::host());
        let ledger = Ledger::start(&guest, PLAYERS);
        ledger.wait(5);
        // Firm memory, tables and this program's own pages are charged too.
        group.set("memory.max", &(group.bytes() - BYTES as u64 / 4).to_string());
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            ledger.wait(10);
        }
        let out = pagemap::swapped(&guest.data, 0..PAGES);
        let now = (group.statistics(), Counters::host());
        let (pages_out, pages_in) =
            (now.1.swapped_out_since(&before.1), now.1.swapped_in_since(&before.1));
        println!("{kind:?}: {pages_out} pages out, {pages_in} in, {out} out now");
        assert!(pages_out > PAGES as u64 / 5, "{pages_out} pages went out");
        assert!(pages_in > PAGES as u64 / 16, "{pages_in} pages came back");
        assert!(now.0.since(&before.0, "pgsteal_direct") > 0, "{:?}", now.0);
        group.set("memory.max", "max");
        ledger.finish();
    }
}

/// The same by the background's hand: `memory.high` throttles whoever goes over it.
fn high() {
    swap::ensure();
    let group = Group::join("memory-high");
    let guest = Arc::new(Guest::new(Kind::Pages, BYTES));
    fill_all(&guest);
    let before = Counters::host();
    let ledger = Ledger::start(&guest, PLAYERS);
    ledger.wait(5);
    group.set("memory.high", &(group.bytes() - BYTES as u64 / 4).to_string());
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        ledger.wait(5);
    }
    let now = Counters::host();
    assert!(now.swapped_out_since(&before) > PAGES as u64 / 5, "pages went out");
    assert!(Counters::read("/sys/fs/cgroup/memory-high/memory.events").get("high") > 0);
    group.set("memory.high", "max");
    ledger.finish();
}

/// User space asks for some memory back, again and again.
fn reclaim() {
    swap::ensure();
    let group = Group::join("memory-reclaim");
    let guest = Arc::new(Guest::new(Kind::Pages, BYTES));
    fill_all(&guest);
    let ledger = Ledger::start(&guest, PLAYERS);
    let before = (group.statistics(), Counters::host());
    for _ in 0..12 {
        ledger.wait(5);
        _ = group.try_set("memory.reclaim", "512K");
    }
    let now = (group.statistics(), Counters::host());
    let (out, back) = (now.1.swapped_out_since(&before.1), now.1.swapped_in_since(&before.1));
    println!("{out} pages out, {back} in");
    assert!(out >= 512 && back > 32, "{out} pages out, {back} in");
    assert!(now.0.since(&before.0, "pgsteal") >= 512);
    ledger.finish();
}
