//! The shape of trees, against the tables of the Arm ARM (VTCR_EL2.SL0 and T0SZ, 4 KiB granule), spelled out.
#![cfg(not(loom))]

use verdigris_stage2::{Error, Geometry, Ipa, Level};

#[test]
fn chooses_the_fewest_levels() {
    // IPA bits, start level, SL0, root pages.
    let table = [
        (32, Level::L2, 0, 4),
        (33, Level::L2, 0, 8),
        (34, Level::L2, 0, 16),
        (35, Level::L1, 1, 1),
        (36, Level::L1, 1, 1),
        (39, Level::L1, 1, 1),
        (40, Level::L1, 1, 2),
        (42, Level::L1, 1, 8),
        (43, Level::L1, 1, 16),
        (44, Level::L0, 2, 1),
        (48, Level::L0, 2, 1),
    ];
    for (bits, level, sl0, pages) in table {
        let geometry = Geometry::new(bits, 48).unwrap();
        assert_eq!(geometry.start_level(), level, "{bits}");
        assert_eq!(geometry.sl0(), sl0, "{bits}");
        assert_eq!(geometry.root_pages(), pages, "{bits}");
        assert_eq!(geometry.root_alignment(), pages * 4096, "{bits}");
        assert_eq!(geometry.t0sz(), 64 - u64::from(bits), "{bits}");
    }
}

#[test]
fn refuses_sizes_that_would_always_fault() {
    for (ipa_bits, pa_bits) in [(31, 48), (49, 52), (40, 36), (48, 44), (0, 48), (u32::MAX, 48)] {
        assert_eq!(Geometry::new(ipa_bits, pa_bits), Err(Error::Invalid), "{ipa_bits} {pa_bits}");
    }
    assert!(Geometry::new(48, 52).is_ok());
}

#[test]
fn has_no_gigabyte_leaves_below_a_level_2_start() {
    let small = Geometry::new(32, 40).unwrap();
    assert!(!small.has_leaves_at(Level::L1));
    assert!(small.has_leaves_at(Level::L2));
    assert!(!Geometry::new(48, 48).unwrap().has_leaves_at(Level::L0));
}

#[test]
fn contains_ranges_without_overflow() {
    let geometry = Geometry::new(36, 40).unwrap();
    assert!(geometry.contains(Ipa((1 << 36) - 4096), 4096));
    assert!(geometry.contains(Ipa(1 << 36), 0));
    assert!(!geometry.contains(Ipa(1 << 36), 1));
    assert!(!geometry.contains(Ipa(u64::MAX - 4095), 4096));
}
