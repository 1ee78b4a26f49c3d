//! Idle ages, against a plain array of bytes.
#![cfg(not(loom))]

use std::sync::atomic::{AtomicU64, Ordering};
use verdigris_stage2::Range;
use verdigris_stage2::working_set::WorkingSet;

fn array(words: usize) -> Vec<AtomicU64> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn bytes(ages: &[AtomicU64]) -> Vec<u8> {
    ages.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect()
}

fn pages(start: u64, count: u64) -> Range {
    Range { start, end: start + count }
}

#[test]
fn a_new_set_was_never_touched() {
    let ages = array(2);
    WorkingSet::new(pages(100, 16), &ages).forget();
    assert_eq!(bytes(&ages), [255; 16]);
}

#[test]
fn young_becomes_zero_and_the_rest_grows_old_and_saturates() {
    let ages = array(1);
    ages[0].store(u64::from_le_bytes([0, 1, 127, 128, 254, 255, 255, 7]), Ordering::Relaxed);
    let set = WorkingSet::new(pages(0, 8), &ages);
    set.round(pages(0, 8), 0b0100_0000);
    assert_eq!(bytes(&ages), [1, 2, 128, 129, 255, 255, 0, 8]);
    set.round(pages(0, 8), 0b1000_0001);
    assert_eq!(bytes(&ages), [0, 3, 129, 130, 255, 255, 1, 0]);
}

/// Every age in every lane, beside full and empty neighbours: no carry leaves its byte.
#[test]
fn no_lane_touches_its_neighbour() {
    for lane in 0..8 {
        for age in (0..=255u8).filter(|age| !cfg!(miri) || [0, 127, 254, 255].contains(age)) {
            for rest in [0, 0x7f, 0xfe, 0xff] {
                for young in [0, 1u64 << lane] {
                    let mut expected = [rest; 8];
                    expected[lane] = age;
                    let ages = [AtomicU64::new(u64::from_le_bytes(expected))];
                    let set = WorkingSet::new(pages(0, 8), &ages);
                    set.round(pages(lane as u64, 1), young >> lane);
                    expected[lane] = if young == 0 { age.saturating_add(1) } else { 0 };
                    assert_eq!(bytes(&ages), expected, "lane {lane}, age {age}, {rest}");
                }
            }
        }
    }
}

/// Rounds of all alignments and lengths, over the edges of the set too.
#[test]
fn rounds_of_any_place_match_a_plain_array() {
    let range = pages(70, 130);
    let ages = array(17);
    let set = WorkingSet::new(range, &ages);
    set.forget();
    let mut plain = [255u8; 136];
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let steps = if cfg!(miri) { 200 } else { 20_000 };
    for _ in 0..steps {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let start = random % 220;
        let count = (random >> 8) % 64 + 1;
        let young = random.rotate_left(23) & random.rotate_left(41);
        set.round(pages(start, count), young);
        for bit in 0..count {
            if let Some(page) = (start + bit).checked_sub(70).filter(|&page| page < 130) {
                let age = &mut plain[page as usize];
                *age = if young >> bit & 1 == 1 { 0 } else { age.saturating_add(1) };
            }
        }
        assert_eq!(bytes(&ages), plain, "what pads the array has no age");
    }
}

#[test]
fn a_histogram_counts_each_page_once() {
    let ages = array(64);
    let every: Vec<u8> = (0..512).map(|page| (page % 256) as u8).collect();
    for (word, bytes) in ages.iter().zip(every.chunks(8)) {
        word.store(u64::from_le_bytes(bytes.try_into().unwrap()), Ordering::Relaxed);
    }
    let set = WorkingSet::new(pages(1000, 512), &ages);
    let mut buckets = [0; 16];
    set.histogram(pages(1000, 256), &mut buckets);
    // The distances between the starts 0 1 2 3 4 6 8 12 16 24 32 48 64 96 128 192 and 256.
    assert_eq!(buckets, [1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64]);
    let mut few = [0; 16];
    set.histogram(pages(1000 + 253, 5), &mut few);
    assert_eq!(few, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
}

#[test]
fn a_map_begins_at_any_page_and_ends_with_the_range() {
    let ages = array(3);
    for (word, first) in ages.iter().zip([0u8, 8, 16]) {
        let bytes = std::array::from_fn(|lane| first + lane as u8);
        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
    let set = WorkingSet::new(pages(50, 24), &ages);
    for start in 0..24 {
        for count in 1..=24 - start {
            let mut copied = Vec::new();
            set.copy(pages(50 + start, count), |index, word| {
                assert_eq!(index * 8, copied.len());
                copied.extend(word.to_le_bytes());
            });
            let expected = 0..copied.len() as u64;
            let expected: Vec<u8> =
                expected.map(|n| if n < count { (start + n) as u8 } else { 0 }).collect();
            assert_eq!(copied, expected, "{count} pages from {start}");
        }
    }
}

#[test]
#[should_panic(expected = "a byte for each page")]
fn an_array_that_is_too_short_is_refused() {
    WorkingSet::new(pages(0, 17), &array(2));
}

#[test]
#[should_panic(expected = "inside the set")]
fn no_age_is_read_outside_of_the_set() {
    WorkingSet::new(pages(8, 8), &array(1)).copy(pages(7, 1), |_, _| {});
}
