//! Swap: less memory than the guest has, and it goes on.

use std::sync::Arc;

use verdigris_guest::ledger;
use verdigris_ktap::test_table;

use super::support::PLAYERS;
use crate::inside::cgroup::Group;
use crate::inside::counters::{Counters, wait_until};
use crate::inside::guest::{DATA, Guest};
use crate::inside::ledger::Ledger;
use crate::inside::region::{KINDS, Kind};
use crate::inside::swap;
use crate::inside::sys::PAGE;

test_table! { "memory", 300: limit, reclaim, high }

const PAGES: usize = 2048;
const BYTES: usize = PAGES * PAGE;

/// A guest on all of its memory.
fn guest(kind: Kind) -> Arc<Guest> {
    let guest = Guest::new(kind, BYTES);
    write_first_version(&guest);
    Arc::new(guest)
}

/// Writes each page's first version for the guest: none is of zeros then, which Linux would note instead of writing them
/// to swap.
pub(super) fn write_first_version(guest: &Guest) {
    for page in 0..guest.data.pages() {
        guest.set_version(page, 1);
        for at in (page * PAGE..(page + 1) * PAGE).step_by(8) {
            guest.data.write(at, ledger::content(DATA + at as u64, 1));
        }
    }
}

/// What reclaim did from some moment on.
struct Watch<'a> {
    group: &'a Group,
    before: (Counters, Counters),
}

impl<'a> Watch<'a> {
    fn new(group: &'a Group) -> Self {
        Self { group, before: (group.statistics(), Counters::host()) }
    }

    /// Counts pages that were written to swap, and read from it.
    fn swapped(&self) -> (u64, u64) {
        let now = Counters::host();
        (now.since(&self.before.1, "pswpout"), now.since(&self.before.1, "pswpin"))
    }

    /// Tells by how much one of the group's counters has grown.
    fn group_has(&self, name: &str) -> u64 {
        self.group.statistics().since(&self.before.0, name)
    }
}

/// A limit of three quarters of the guest: what doesn't fit is swapped by those who fault, vCPUs above all.
fn limit() {
    swap::ensure();
    for kind in KINDS {
        let group = Group::join("memory-limit");
        let guest = guest(kind);
        let ledger = Ledger::start(&guest, PLAYERS);
        ledger.wait(5);
        // Firm memory, tables and this program's own pages are charged too.
        group.set("memory.max", &(group.bytes() - BYTES as u64 / 4).to_string());
        // What the writer of the limit had to reclaim is behind it: from here on it is those who fault.
        let watch = Watch::new(&group);
        wait_until("a part went out, and came back for the guest", || {
            ledger.wait(10);
            let (out, back) = watch.swapped();
            println!("{kind:?}: {out} pages out, {back} in");
            out > PAGES as u64 / 16 && back > PAGES as u64 / 16
        });
        assert!(watch.group_has("pgsteal_direct") > 0, "{:?}", group.statistics());
        group.set("memory.max", "max");
        ledger.finish();
    }
}

/// `memory.high` throttles whoever goes over it, and has them reclaim.
fn high() {
    swap::ensure();
    let group = Group::join("memory-high");
    let guest = guest(Kind::Pages);
    let ledger = Ledger::start(&guest, PLAYERS);
    ledger.wait(5);
    let watch = Watch::new(&group);
    group.set("memory.high", &(group.bytes() - BYTES as u64 / 4).to_string());
    wait_until("a part went out, and came back for the guest", || {
        ledger.wait(1);
        let (out, back) = watch.swapped();
        println!("{out} pages out, {back} in");
        out > PAGES as u64 / 4 && back > 16
    });
    assert!(group.events().get("high") > 0, "{:?}", group.events());
    group.set("memory.high", "max");
    ledger.finish();
}

/// User space asks for some memory back, again and again.
fn reclaim() {
    swap::ensure();
    let group = Group::join("memory-reclaim");
    let guest = guest(Kind::Pages);
    let ledger = Ledger::start(&guest, PLAYERS);
    let watch = Watch::new(&group);
    wait_until("a part went out, and came back for the guest", || {
        ledger.wait(5);
        _ = group.try_set("memory.reclaim", "512K");
        let (out, back) = watch.swapped();
        println!("{out} pages out, {back} in");
        out >= 1024 && back > 128
    });
    assert!(watch.group_has("pgsteal") >= 1024);
    ledger.finish();
}
