//! Live migration: pages are copied as they are harvested, while the guest writes on, and in the end the
//! copy equals the source. Each test adds one thing that a host does meanwhile.

use std::time::Duration;

use super::support::vcpus_at_once;
use crate::ktap::test_table;
use crate::memory::{Duty, Limits, Memory, Size, named, run};

test_table! { "suite", 60:
    migration, migration_while_ageing, migration_while_protecting, migration_while_unmapping,
    migration_while_pages_move, migration_while_blocks_change,
}

const SIZE: Size = Size { loose_blocks: 1, blocks: 1, vcpus: 2, table_pages: 64 };
const DURATION: Duration = Duration::from_secs(2);

/// Migrates: one worker harvests and copies, each of the others does one of the operations.
fn migrate_while(operations: &[&str]) {
    let memory = Memory::new(Size { vcpus: vcpus_at_once().min(SIZE.vcpus), ..SIZE });
    let mut workers = vec![Duty::of(named(&["harvest and copy"]))];
    workers.extend(operations.iter().map(|name| Duty::of(named(&[name]))));
    let mut tick = |_: &_| ();
    let report = run(&memory, Limits { duration: DURATION, workers, tick: &mut tick });
    println!("{} rounds of the guest, {} faults", report.rounds(), report.faults());
    report.calls().for_each(|(name, count)| println!("{:>6} {name}", count.all));
    let idle = report.calls().filter(|(name, count)| operations.contains(name) && count.all == 0);
    assert_eq!(idle.count(), 0, "an operation was never done");
    assert!(report.rounds() > 0, "the guest did nothing");
}

fn migration() {
    migrate_while(&[]);
}

fn migration_while_ageing() {
    migrate_while(&["age"]);
}

fn migration_while_protecting() {
    migrate_while(&["write-protect"]);
}

/// The final dirty bit of a page comes with its unmap.
fn migration_while_unmapping() {
    migrate_while(&["unmap", "begin left to end"]);
}

fn migration_while_pages_move() {
    migrate_while(&["move a page", "replace a page", "move a block"]);
}

fn migration_while_blocks_change() {
    migrate_while(&["split", "collapse", "reclaim tables"]);
}
