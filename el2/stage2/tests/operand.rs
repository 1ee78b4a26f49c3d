//! TLBI operands, spelled from the Arm ARM (IPAS2E1IS, RIPAS2E1IS).
#![cfg(not(loom))]

use verdigris_stage2::operand::{Step, range, single};
use verdigris_stage2::{Ipa, Level};

#[test]
fn one_address() {
    assert_eq!(single(Ipa(0x1234_5678_9000), None), 0x1_2345_6789);
    assert_eq!(single(Ipa(0x5000), Some(Level::L3)), 0b0111 << 44 | 5);
    assert_eq!(single(Ipa(0x20_0000), Some(Level::L2)), 0b0110 << 44 | 0x200);
    assert_eq!(single(Ipa(0x4000_0000), Some(Level::L1)), 0b0101 << 44 | 0x4_0000);
}

#[test]
fn a_range_in_one_instruction() {
    let steps: Vec<Step> = range(Ipa(0x5000), 8, Some(Level::L3)).collect();
    // TG 4 KiB, SCALE 0, NUM 3: (3 + 1) << 1 pages.
    assert_eq!(steps, [Step::Range(0b01 << 46 | 3 << 39 | 0b11 << 37 | 5)]);
    let all: Vec<Step> = range(Ipa(0), 1 << 21, None).collect();
    assert_eq!(all, [Step::Range(0b01 << 46 | 3 << 44 | 31 << 39)]);
    assert_eq!(range(Ipa(0), 0, None).count(), 0);
}

/// Decodes what the instructions cover, as the architecture defines it.
fn covered(ipa: u64, page_count: u64) -> Vec<(u64, u64)> {
    let decode = |step| match step {
        Step::Single(operand) => (operand & 0xf_ffff_ffff, 1),
        Step::Range(operand) => {
            let (scale, num) = (operand >> 44 & 3, operand >> 39 & 31);
            assert_eq!(operand >> 46, 0b01);
            (operand & 0x1f_ffff_ffff, (num + 1) << (5 * scale + 1))
        }
    };
    range(Ipa(ipa), page_count, None).map(decode).collect()
}

#[test]
fn any_range_is_covered_exactly_in_few_instructions() {
    for page_count in (1..200).chain([511, 512, 513, 4095, 65_535, 65_537, 262_144, (1 << 21) - 1])
    {
        let steps = covered(0x7000, page_count);
        let mut next = 7;
        for (page, count) in &steps {
            assert_eq!(*page, next);
            next += count;
        }
        assert_eq!(next, 7 + page_count);
        assert!(steps.len() <= 5);
    }
}
