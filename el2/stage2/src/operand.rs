//! Operands of the TLB invalidations by IPA, as pure functions.
//!
//! What an implementation of [`crate::hardware::Tlb`] puts into the register of `tlbi ipas2e1is` and
//! `tlbi ripas2e1is` (Arm ARM DDI 0487, C5.5), for the 4 KiB granule and non-secure addresses.

use crate::descriptor::Level;
use verdigris_abi::{Ipa, PAGE_SIZE};

/// TTL<3:2> and TG: the 4 KiB granule.
const GRANULE_4K: u64 = 0b01;

/// Returns the operand of `ipas2e1is` and `ipas2e1`: IPA<47:12> in bits 35:0, TTL in bits 47:44.
///
/// `level` may only be given with FEAT_TTL.
pub const fn single(ipa: Ipa, level: Option<Level>) -> u64 {
    let ttl = match level {
        // Level 0 has no leaves: its encoding is reserved.
        None | Some(Level::L0) => 0,
        Some(level) => GRANULE_4K << 2 | level as u64,
    };
    ttl << 44 | ipa.page()
}

/// One instruction of a range invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `ipas2e1is` with that operand.
    Single(u64),
    /// `ripas2e1is` with that operand.
    Range(u64),
}

/// Returns the instructions that invalidate `page_count` pages from `ipa` on, and nothing else.
///
/// One operand names (NUM + 1) << (5 * SCALE + 1) pages: an odd page goes by itself, and each further
/// group of five bits of the count is one instruction.
pub fn range(
    ipa: Ipa,
    page_count: u64,
    level: Option<Level>,
) -> impl Iterator<Item = Step> + Clone {
    assert!(page_count <= 1 << 21, "one call reaches 2^21 pages at most");
    let (mut page, mut left, mut scale) = (ipa.page(), page_count, 0);
    core::iter::from_fn(move || {
        if left % 2 == 1 {
            left -= 1;
            page += 1;
            return Some(Step::Single(single(Ipa((page - 1) * PAGE_SIZE), level)));
        }
        while left != 0 {
            let shift = 5 * scale + 1;
            // The last scale takes up to 32; below, what is no multiple of the next scale's unit.
            let units = if scale == 3 { left >> shift } else { left >> shift & 31 };
            scale += 1;
            if units != 0 {
                let operand = range_operand(page, units - 1, scale - 1, level);
                left -= units << shift;
                page += units << shift;
                return Some(Step::Range(operand));
            }
        }
        None
    })
}

/// BaseADDR in bits 36:0, TTL in 38:37, NUM in 43:39, SCALE in 45:44, TG in 47:46.
const fn range_operand(page: u64, num: u64, scale: u64, level: Option<Level>) -> u64 {
    let ttl = match level {
        None | Some(Level::L0) => 0,
        Some(level) => level as u64,
    };
    GRANULE_4K << 46 | scale << 44 | num << 39 | ttl << 37 | page
}
