//! What range calls cost for each leaf, all calls that the range takes included.
//!
//! Before each figure the leaves are brought into the state that it is about, by the guest where guests
//! bring them there, with the whole VM invalidated before: else a translation that is still cached spares
//! the CPU the walk that would set the flag. That all are as they should be is checked.

use std::cell::Cell;

use verdigris_abi::flags;
use verdigris_guest::{program, touch};

use super::{Bench, Leaf, MOST_PAGES, figure};
use crate::bits::Bits;
use crate::guest::DATA;

/// Ranges: what they are called, their pages, and how often each figure is taken.
const RANGES: [(&str, u64, u32); 3] = [("2M", 512, 4), ("64M", 1 << 14, 2), ("1G", MOST_PAGES, 1)];
/// Of how many leaves one is young, or written; none.
const ALL: u64 = 1;
const SOME: u64 = 64;
const NONE: u64 = 0;
/// From this many pages on bits go to a buffer.
const TO_BUFFER_FROM: u64 = 1025;

/// A range, and what a figure of it is called.
#[derive(Clone, Copy)]
struct Case {
    leaf: Leaf,
    size: &'static str,
    page_count: u64,
    times: u32,
}

impl Case {
    fn leaves(&self) -> u64 {
        self.page_count / self.leaf.pages()
    }
}

impl Bench {
    /// Measures every range call on every kind of range.
    pub fn leaves(&self) {
        for leaf in [Leaf::Page, Leaf::Block] {
            for (size, page_count, times) in RANGES {
                self.case(&Case { leaf, size, page_count, times });
            }
        }
    }

    fn case(&self, case: &Case) {
        let Case { leaf, page_count, .. } = *case;
        let sequence = Cell::new(0);
        let unmap = || sequence.set(self.unmap(page_count));
        self.measure(case, "map", unmap, || self.map(leaf, page_count, sequence.get()));
        for (name, stride) in [("all", ALL), ("some", SOME), ("none", NONE)] {
            let age = || _ = self.age(page_count, flags::AGE_NO_FLUSH);
            self.measure(case, &format!("age-{name}-young"), || self.make_young(case, stride), age);
            let harvest = || _ = self.harvest(page_count);
            self.measure(
                case,
                &format!("harvest-{name}"),
                || self.make_dirty(case, stride),
                harvest,
            );
        }
        let anew = || self.map_anew(leaf, page_count);
        let protect = || self.guest.write_protect(DATA, page_count).expect("a good range");
        self.measure(case, "write-protect", anew, protect);
        let unmap = || self.guest.unmap(DATA, page_count).expect("a good range");
        self.measure(case, "unmap", anew, unmap);
        let unmap_dirty = || _ = self.guest.unmap_dirty(DATA, page_count, self.bits(page_count));
        self.measure(case, "unmap-dirty", anew, unmap_dirty);
    }

    fn measure(&self, case: &Case, name: &str, prepare: impl FnMut(), action: impl FnMut()) {
        let count = self.meter.least(case.times, prepare, action);
        let name = format!("{name}/{}/{}", case.leaf.name(), case.size);
        figure(&name, count as f64 / case.leaves() as f64);
    }

    fn bits(&self, page_count: u64) -> Bits<'_> {
        if page_count < TO_BUFFER_FROM { Bits::Registers } else { Bits::Buffer(&self.buffer) }
    }

    fn age(&self, page_count: u64, mode: u64) -> Vec<bool> {
        match self.bits(page_count) {
            Bits::Registers => self.guest.age(DATA, page_count, mode),
            Bits::Buffer(buffer) => self.guest.age_by_buffer(DATA, page_count, mode, buffer),
        }
    }

    fn harvest(&self, page_count: u64) -> Vec<bool> {
        self.guest.harvest_to(DATA, page_count, self.bits(page_count))
    }

    /// Has the guest touch one of every `stride` leaves.
    fn touch_leaves(&self, case: &Case, stride: u64, kind: u64) {
        if stride != NONE {
            let stride_pages = stride * case.leaf.pages();
            let arguments = [DATA, case.page_count, stride_pages, kind, 0];
            self.guest.cpu(0).call(program::TOUCH, &arguments);
        }
    }

    fn make_young(&self, case: &Case, stride: u64) {
        self.age(case.page_count, flags::AGE_FLUSH_ALL);
        self.touch_leaves(case, stride, touch::READ);
        assert_some(&self.guest.test_age(DATA, case.page_count), case, stride, "young");
    }

    /// There is no call that tells what is dirty and changes nothing: so it is all done twice.
    fn make_dirty(&self, case: &Case, stride: u64) {
        for checks in [true, false] {
            self.harvest(case.page_count);
            self.touch_leaves(case, stride, touch::WRITE);
            if checks {
                assert_some(&self.harvest(case.page_count), case, stride, "dirty");
            }
        }
    }
}

/// Fails unless just the leaves that were touched have their bits.
#[track_caller]
fn assert_some(bits: &[bool], case: &Case, stride: u64, what: &str) {
    let touched =
        |page: usize| stride != NONE && (page as u64 / case.leaf.pages()).is_multiple_of(stride);
    let wrong = (0..bits.len()).filter(|&page| bits[page] != touched(page)).count();
    assert_eq!(wrong, 0, "pages that are not as they should be: {what}, {}", case.size);
}
