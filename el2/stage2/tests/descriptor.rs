//! Descriptors, bit by bit (Arm ARM D8.3.1, D8.3.2).
#![cfg(not(loom))]
#![allow(unsafe_code)]

use verdigris_abi::flags::{MAP_CLEAN, MAP_OLD, PROT_EXEC, PROT_READ, PROT_WRITE};
use verdigris_stage2::descriptor::needs_break;
use verdigris_stage2::{Attributes, Descriptor, Kind, Level, Pa, TablePage};

fn guest(flags: u64) -> Descriptor {
    Attributes::guest(flags).leaf(Pa(0x8000_0000), Level::L3, false, false)
}

#[test]
fn encodes_guest_memory() {
    let common = 0x8000_0000 | 0b11 << 8 | 1 << 6 | 0b1111 << 2 | 0b11;
    assert_eq!(guest(PROT_READ).raw(), common | 1 << 54 | 1 << 10);
    assert_eq!(guest(PROT_READ | MAP_OLD).raw(), common | 1 << 54);
    assert_eq!(
        guest(PROT_READ | PROT_WRITE | PROT_EXEC).raw(),
        common | 1 << 55 | 1 << 10 | 1 << 7
    );
    let forced = Attributes::guest(PROT_READ).leaf(Pa(0), Level::L2, true, false);
    assert_eq!(forced.raw(), 1 << 54 | 1 << 10 | 0b11 << 8 | 1 << 6 | 0b0110 << 2 | 0b01);
}

#[test]
fn what_is_mapped_clean_is_granted_and_not_writable_yet() {
    let common = 0x8000_0000 | 0b11 << 8 | 1 << 6 | 0b1111 << 2 | 0b11 | 1 << 54 | 1 << 10;
    assert_eq!(guest(PROT_READ | PROT_WRITE | MAP_CLEAN).raw(), common | 1 << 55);
    assert_eq!(guest(PROT_READ | MAP_CLEAN).raw(), common, "nothing to log");
}

#[test]
fn the_dirty_bit_modifier_goes_with_the_grant() {
    let hardware = |flags| Attributes::guest(flags).leaf(Pa(0x8000_0000), Level::L3, false, true);
    let write = PROT_READ | PROT_WRITE;
    for flags in [write, write | MAP_CLEAN, write | PROT_EXEC | MAP_OLD] {
        assert_eq!(hardware(flags).raw(), guest(flags).raw() | 1 << 51);
    }
    for flags in [PROT_READ, PROT_READ | PROT_EXEC, PROT_READ | MAP_CLEAN] {
        assert_eq!(hardware(flags), guest(flags), "read-only is no matter of dirty state");
    }
    let dirty = hardware(write);
    assert_eq!(dirty.write_protected().raw(), dirty.raw() & !(1 << 7 | 1 << 51 | 1 << 55));
    assert_eq!(dirty.write_logged().raw(), dirty.raw() & !(1 << 7));
    assert_eq!(dirty.write_logged().writable_again(), dirty);
    let granted = hardware(PROT_READ).with_permissions_of(dirty);
    assert_eq!(granted, dirty, "the modifier comes with the grant");
}

#[test]
fn dirty_is_granted_and_writable() {
    let write = guest(PROT_READ | PROT_WRITE);
    assert!(write.is_dirty() && !write.write_logged().is_dirty());
    assert!(!write.write_protected().is_dirty() && !guest(PROT_READ).is_dirty());
}

#[test]
fn only_leaves_have_the_bits_that_are_cleared_blindly() {
    // SAFETY: only compared, never reached.
    let table = Descriptor::table(unsafe { TablePage::new(Pa(0xffff_ffff_f000)) });
    for other in [table, Descriptor::BUSY, Descriptor::INVALID] {
        assert_eq!(other.raw() & (1 << 7 | 1 << 10 | 1 << 51 | 1 << 55), 0, "{other:?}");
    }
}

#[test]
fn what_it_is_depends_on_the_level() {
    // SAFETY: only compared, never reached.
    let table = Descriptor::table(unsafe { TablePage::new(Pa(0x1234_5000)) });
    assert_eq!(table.raw(), 0x1234_5003);
    for level in [Level::L0, Level::L1, Level::L2] {
        assert!(matches!(table.kind(level), Kind::Table(page) if page.pa().0 == 0x1234_5000));
    }
    assert_eq!(table.kind(Level::L3), Kind::Leaf(Pa(0x1234_5000)));
    let block = Attributes::HOST_RAM.leaf(Pa(0x4000_0000), Level::L2, false, false);
    assert_eq!(block.kind(Level::L2), Kind::Leaf(Pa(0x4000_0000)));
    assert_eq!(block.kind(Level::L0), Kind::Invalid, "level 0 has no blocks");
    assert_eq!(block.kind(Level::L3), Kind::Invalid, "0b01 is reserved at level 3");
    assert_eq!(Descriptor::INVALID.kind(Level::L3), Kind::Invalid);
    assert_eq!(Descriptor::BUSY.kind(Level::L1), Kind::Busy);
    assert_eq!(Descriptor::BUSY.raw() & (1 << 10 | 1), 0, "invalid, and never young");
}

#[test]
#[should_panic(expected = "misplaced leaf")]
fn refuses_a_leaf_that_is_not_aligned_to_its_size() {
    Attributes::HOST_RAM.leaf(Pa(0x1000), Level::L2, false, false);
}

#[test]
fn parts_keep_all_attributes() {
    let block = Attributes::guest(PROT_READ | PROT_WRITE | MAP_OLD).leaf(
        Pa(0x4000_0000),
        Level::L1,
        false,
        false,
    );
    let part = block.part(Level::L1, 3);
    assert_eq!(part.raw(), block.raw() | 3 << 21);
    let page = part.part(Level::L2, 511);
    assert_eq!(page.raw(), block.raw() | 3 << 21 | 511 << 12 | 0b10, "a page has bit 1 set");
}

#[test]
fn write_protection_takes_the_grant_and_nothing_else() {
    let old = guest(PROT_READ | PROT_WRITE);
    assert_eq!(old.raw() ^ old.write_protected().raw(), 1 << 55 | 1 << 7);
}

#[test]
fn compares_permissions() {
    let read = guest(PROT_READ);
    let write = guest(PROT_READ | PROT_WRITE);
    let exec = guest(PROT_READ | PROT_EXEC | MAP_OLD);
    assert!(write.allows_all_of(read) && !read.allows_all_of(write));
    assert!(exec.allows_all_of(read) && !write.allows_all_of(exec));
    let both = exec.with_permissions_of(write);
    assert_eq!(both.raw(), guest(PROT_READ | PROT_WRITE | PROT_EXEC | MAP_OLD).raw());
    assert_eq!(write.with_permissions_of(read), write, "permissions are only added");
}

#[test]
fn asks_for_a_break_where_the_architecture_does() {
    let leaf = guest(PROT_READ);
    let moved = Attributes::guest(PROT_READ).leaf(Pa(0x8000_1000), Level::L3, false, false);
    let forced = Attributes::guest(PROT_READ).leaf(Pa(0x8000_0000), Level::L3, true, false);
    // SAFETY: only compared, never reached.
    let table = Descriptor::table(unsafe { TablePage::new(Pa(0x1000)) });
    let block = Attributes::guest(PROT_READ).leaf(Pa(0), Level::L2, false, false);
    assert!(needs_break(leaf, moved, Level::L3), "output address");
    assert!(needs_break(leaf, forced, Level::L3), "memory type");
    assert!(needs_break(block, table, Level::L2), "block size");
    assert!(needs_break(table, block, Level::L2), "block size");
    assert!(!needs_break(leaf, guest(PROT_READ | PROT_WRITE | PROT_EXEC), Level::L3));
    assert!(!needs_break(leaf, leaf.with_young(false), Level::L3));
    assert!(!needs_break(leaf, Descriptor::INVALID, Level::L3));
    assert!(!needs_break(Descriptor::INVALID, leaf, Level::L3));
    assert!(!needs_break(Descriptor::BUSY, table, Level::L2));
}
