//! Working sets: how long each page of a range has been idle, in rounds of ageing.
//!
//! The access flag in a leaf remembers one round. A host that wants to know which pages were touched
//! lately, and which not for long, donates an array with a byte for each page: its **idle age**. Each
//! ageing of the page is a round for it: young makes the byte 0, anything else adds 1, up to 255, which
//! also is what a page begins with: this long, longer, or never touched. The array stands beside the
//! tables, so an age survives that its page is unmapped, and a page that isn't mapped grows old.
//!
//! Byte n % 8 of word n / 8 is page n, the lowest byte first: so the array reads as bytes where words
//! are little-endian, as they are here. All is done a word at a time: eight pages in one register,
//! with carries kept inside their byte, since every call of AGE over such a range pays for it.
//!
//! Each word changes by one exchange from what was read, relaxed. Two CPUs that age the same pages at
//! once make two rounds of it in either order, and the touch that one of them saw isn't lost; nothing
//! else is ordered by these bytes, because nothing but advice is made of them.

use crate::range::Range;
use crate::sync::{AtomicU64, Ordering};
use verdigris_abi::{IDLE_AGE_MAX, WORKING_SET_BUCKET_STARTS, WORKING_SET_BUCKETS};

/// Pages in one word of the array.
const LANES: u64 = 8;
/// A one in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The upper bit of each byte.
const TOPS: u64 = ONES << 7;
/// Words of the array that one page of memory holds.
pub const WORDS_PER_PAGE: usize = 512;

const _: () = assert!(IDLE_AGE_MAX == 0xff, "ages saturate at the largest byte");

/// The idle ages of a range of pages.
#[derive(Clone, Copy)]
pub struct WorkingSet<'a> {
    range: Range,
    ages: &'a [AtomicU64],
}

impl<'a> WorkingSet<'a> {
    /// Joins a range and its array; panics if the array is too short.
    pub fn new(range: Range, ages: &'a [AtomicU64]) -> Self {
        assert!(range.page_count().div_ceil(LANES) <= ages.len() as u64, "a byte for each page");
        Self { range, ages }
    }

    /// Returns the pages whose ages are kept.
    pub const fn range(&self) -> Range {
        self.range
    }

    /// Makes every page one that was never touched.
    pub fn forget(&self) {
        for word in self.ages {
            word.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Takes note of one round for the pages of `round` that are in the set: up to 64 from its start,
    /// bit n of `young` for page n.
    pub fn round(&self, round: Range, young: u64) {
        assert!(round.page_count() <= 64, "a word of bits");
        let start = round.start.max(self.range.start);
        let end = round.end.min(self.range.end);
        let mut page = start;
        while page < end {
            let lane = (page - self.range.start) % LANES;
            let count = (LANES - lane).min(end - page);
            let bits = (young >> (page - round.start)) << lane;
            let aged = lanes(lane, count);
            let word = &self.ages[((page - self.range.start) / LANES) as usize];
            update(word, |ages| advance(ages, aged, spread(bits as u8)));
            page += count;
        }
    }

    /// Adds the pages of a range inside the set to a histogram.
    pub fn histogram(&self, range: Range, buckets: &mut [u64; WORKING_SET_BUCKETS as usize]) {
        self.read(range, |_, ages, count| {
            for age in &ages.to_le_bytes()[..count as usize] {
                buckets[usize::from(BUCKETS[usize::from(*age)])] += 1;
            }
        });
    }

    /// Copies the ages of a range inside the set; `sink` gets the number of each word of eight ages from
    /// the range's start on, and the word. What the last one has beyond the range is 0.
    pub fn copy(&self, range: Range, mut sink: impl FnMut(usize, u64)) {
        self.read(range, |index, ages, count| sink(index, ages & lanes(0, count)));
    }

    /// Reads eight ages at a time, from any page on.
    fn read(&self, range: Range, mut sink: impl FnMut(usize, u64, u64)) {
        assert!(self.range.covers(range), "the range is inside the set");
        for (index, page) in (range.start..range.end).step_by(LANES as usize).enumerate() {
            let first = page - self.range.start;
            sink(index, self.eight(first), (range.end - page).min(LANES));
        }
    }

    /// Returns the ages of eight pages, the first in the lowest byte.
    fn eight(&self, first: u64) -> u64 {
        let word = |index: u64| {
            self.ages.get(index as usize).map_or(0, |word| word.load(Ordering::Relaxed))
        };
        let (index, shift) = (first / LANES, first % LANES * 8);
        let low = word(index) >> shift;
        if shift == 0 { low } else { low | word(index + 1) << (64 - shift) }
    }
}

/// Replaces a word by an exchange from what was read.
fn update(word: &AtomicU64, change: impl Fn(u64) -> u64) {
    let mut old = word.load(Ordering::Relaxed);
    loop {
        let new = change(old);
        match word.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}

/// Returns a word with `count` bytes set from byte `first` on.
const fn lanes(first: u64, count: u64) -> u64 {
    (u64::MAX >> (64 - 8 * count)) << (8 * first)
}

/// Sets byte n of a word for bit n.
const fn spread(bits: u8) -> u64 {
    // Byte n keeps bit n alone; adding 0x7f carries it to the top, and no further.
    let single = (bits as u64 * ONES) & 0x8040_2010_0804_0201;
    ((single + (TOPS - ONES)) & TOPS) / 0x80 * 0xff
}

/// Adds 1 to each byte of `aged` that isn't full, and makes those of `young` 0.
const fn advance(ages: u64, aged: u64, young: u64) -> u64 {
    // A byte is full if its lower seven bits carry into the upper one, and that is set too.
    let full = ((ages & !TOPS) + ONES) & ages & TOPS;
    (ages + (aged & ONES & !(full >> 7))) & !(aged & young)
}

/// The bucket of each age.
const BUCKETS: [u8; 256] = {
    let mut buckets = [0; 256];
    let mut bucket = 0;
    let mut age = 0;
    while age < buckets.len() {
        let next = bucket + 1;
        if next < WORKING_SET_BUCKET_STARTS.len() && age == WORKING_SET_BUCKET_STARTS[next] as usize
        {
            bucket = next;
        }
        buckets[age] = bucket as u8;
        age += 1;
    }
    buckets
};
