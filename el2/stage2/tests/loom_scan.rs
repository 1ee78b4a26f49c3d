//! Scans of a block that is a table for a moment: what a look missed in between is looked at again.
#![cfg(loom)]
#![allow(unsafe_code)]

mod loom_support;

use loom::sync::Arc;
use loom::thread;
use loom_support::{Cpu, Shared, model};
use verdigris_abi::flags::{PROT_READ, PROT_WRITE};
use verdigris_stage2::sync::Weakness;
use verdigris_stage2::{Attributes, Config, Descriptor, Ipa, Level, Outcome, Pa, TablePage};

/// The table that the block becomes for a moment; the root is the page before.
const TABLE: u64 = 0x1_0000_1000;

/// A VM with a dirty block at the first entry of its root.
fn with_block() -> (Arc<Shared>, Descriptor) {
    let config = Config { fwb: true, dic: true, ..Config::default() };
    let shared = Shared::empty(config, 2, None, false);
    let attributes = Attributes::guest(PROT_READ | PROT_WRITE);
    let block = attributes.leaf(Pa(0x8000), Level::L2, true, false);
    shared.entry_of(0, 0).exchange(Descriptor::INVALID, block).unwrap();
    (shared, block)
}

/// Splits the block and collapses it, as the calls do: by one exchange each way with FEAT_BBM level 2 in
/// the first step, and by way of BUSY in the second. What another CPU did to the block comes first.
fn split_and_collapse(shared: &Shared, block: Descriptor) {
    // SAFETY: the second table of the tests, which nothing else uses.
    let table = Descriptor::table(unsafe { TablePage::new(Pa(TABLE)) });
    for index in 0..2 {
        shared.entry(index).replace(block.part(Level::L2, index));
    }
    let root = shared.entry_of(0, 0);
    if root.exchange(block, table).is_err() {
        return;
    }
    if root.exchange(table, Descriptor::BUSY).is_ok() {
        let first = shared.entry(0).replace(Descriptor::INVALID);
        let second = shared.entry(1).replace(Descriptor::INVALID);
        let whole = first.whole(Level::L3).expect("it is aligned");
        // Where the parts have come to differ, the call would link the table again.
        let merged = if first.is_granted() && second.is_granted() {
            whole.with_history_of(second)
        } else {
            whole.write_protected()
        };
        root.exchange(Descriptor::BUSY, merged).unwrap();
    }
}

fn protect_against_split_and_collapse(weakness: Option<Weakness>) {
    model(weakness, 3, || {
        let (shared, block) = with_block();
        let other = {
            let shared = shared.clone();
            thread::spawn(move || split_and_collapse(&shared, block))
        };
        let cpu = Cpu::new(&shared, 0, 2);
        let range = shared.vm.range(Ipa(0), 2).unwrap();
        assert_eq!(shared.vm.write_protect(&cpu, range), Outcome::done(2));
        let now = shared.entry_of(0, 0).read();
        other.join().unwrap();
        let then = shared.entry_of(0, 0).read();
        assert!(!then.is_granted(), "left writable: {now:?}, {then:?}");
    });
}

fn harvest_against_split_and_collapse(weakness: Option<Weakness>) {
    model(weakness, 3, || {
        let (shared, block) = with_block();
        let other = {
            let shared = shared.clone();
            thread::spawn(move || split_and_collapse(&shared, block))
        };
        let cpu = Cpu::new(&shared, 0, 2);
        let range = shared.vm.range(Ipa(0), 2).unwrap();
        let mut dirty = 0;
        let done = shared.vm.harvest(&cpu, range, |_, word| dirty |= word);
        assert_eq!((done, dirty), (Outcome::done(2), 0b11), "a write is told too late");
        other.join().unwrap();
    });
}

#[test]
fn a_protection_misses_no_block_that_is_a_table_for_a_moment() {
    protect_against_split_and_collapse(None);
}

#[test]
fn a_harvest_misses_no_block_that_is_a_table_for_a_moment() {
    harvest_against_split_and_collapse(None);
}

#[test]
#[should_panic(expected = "left writable")]
fn a_protection_that_trusts_the_leaf_would() {
    protect_against_split_and_collapse(Some(Weakness::TrustLeaf));
}

#[test]
#[should_panic(expected = "a write is told too late")]
fn a_harvest_that_trusts_the_leaf_would() {
    harvest_against_split_and_collapse(Some(Weakness::TrustLeaf));
}
