//! Working sets: donated arrays of idle ages, and the calls on them.
//!
//! What a byte means, and how ageing changes it, is the engine's (`verdigris_stage2::working_set`); who
//! may touch an array at what moment, `verdigris_core::working_set`'s. Here is where the arrays lie, and
//! how their memory comes and goes: in steps, between which pending interrupts are looked at.
//!
//! An array belongs to its VM and ends with it. It is reached only by whoever holds a use of its set, so
//! a pointer into it lives no longer than that.
#![allow(unsafe_code)]

use verdigris_abi::{
    Ipa, MAX_WORKING_SETS, PAGE_SIZE, Pa, Status, WORKING_SET_BUCKETS, WORKING_SET_MAP_PAGES,
};
use verdigris_core::call::{IpaRange, PaRange};
use verdigris_core::working_set::{Claim, Use};
use verdigris_stage2::working_set::WorkingSet;
use verdigris_stage2::{Outcome, Range};

use super::memory::{self, HostPage};
use super::sysreg;
use super::vm::Vm;

/// Pages of a region that are donated or given back between two looks at pending interrupts.
const STEP_PAGES: u64 = 64;
/// Pages that are counted into a histogram between two looks.
const HISTOGRAM_STEP_PAGES: u64 = 1024;
/// An array has a byte for each page of its set.
const AGES_PER_PAGE: u64 = PAGE_SIZE;

/// A use of a set, with its array.
struct Held<'a> {
    set: WorkingSet<'a>,
    /// Given up after the last access to the array.
    _use: Use<'a>,
}

impl<'a> Held<'a> {
    fn new(held: Use<'a>) -> Self {
        let (start, end) = held.bounds();
        let (region, page_count) = held.region();
        let range = Range::new(Ipa(start), (end - start) / PAGE_SIZE);
        // SAFETY: the region of a live set is donated and filled, and stays so while the use is held,
        // which is as long as this value lives; everyone reaches it by atomics.
        let ages = unsafe { memory::as_words(region, page_count) };
        Self { set: WorkingSet::new(range, ages), _use: held }
    }
}

/// The sets for which an age of a range is a round.
pub struct Rounds<'a>([Option<Held<'a>>; MAX_WORKING_SETS as usize]);

impl<'a> Rounds<'a> {
    /// Finds them; `None` where there is nothing to do.
    #[inline]
    pub fn begin(vm: &'a Vm, range: IpaRange) -> Option<Self> {
        vm.working_sets.any().then(|| Self::find(vm, range))
    }

    // Out of line, as `note` is: the age of a VM without working sets pays for neither.
    #[inline(never)]
    fn find(vm: &'a Vm, range: IpaRange) -> Self {
        Self(vm.working_sets.using(range).map(|set| set.map(Held::new)))
    }

    /// Takes note of a word of young bits: that with this number, of an age of this range.
    #[inline(never)]
    pub fn note(&self, range: Range, index: usize, young: u64) {
        let start = range.start + index as u64 * 64;
        let pages = Range { start, end: range.end.min(start + 64) };
        for held in self.0.iter().flatten() {
            held.set.round(pages, young);
        }
    }
}

/// Makes a set whose pages were never touched, or goes on with one that an interrupt has stopped.
///
/// Progress is in pages of the set whose ages have a place.
pub fn create(vm: &Vm, range: IpaRange, region: PaRange) -> Outcome {
    let claim = match vm.working_sets.create(range, region) {
        Ok(claim) => claim,
        Err(error) => return Outcome::stopped(0, error),
    };
    loop {
        let have = claim.in_hand();
        let page_count = (region.page_count() - have).min(STEP_PAGES);
        if page_count == 0 {
            claim.go_live();
            return Outcome::done(range.page_count());
        }
        let start = Pa(region.start().0 + have * PAGE_SIZE);
        if let Err(error) = memory::donate(start, page_count, vm.handle) {
            if have == 0 {
                claim.forget();
            } else {
                claim.go_on_growing();
            }
            return Outcome::stopped(have * AGES_PER_PAGE, error);
        }
        vm.count_donated(page_count);
        forget_ages(start, page_count);
        claim.set_in_hand(have + page_count);
        if have + page_count < region.page_count() && sysreg::interrupt_pending() {
            claim.go_on_growing();
            return Outcome::done((have + page_count) * AGES_PER_PAGE);
        }
    }
}

/// Fills part of an array that nobody else reaches yet.
fn forget_ages(start: Pa, page_count: u64) {
    // SAFETY: donated just now, and the set is not live.
    let ages = unsafe { memory::as_words(start, page_count) };
    WorkingSet::new(Range { start: 0, end: page_count * AGES_PER_PAGE }, ages).forget();
}

/// Ends the set that starts at an address: returns its region, and how many of its pages the host has.
pub fn destroy(vm: &Vm, start: Ipa) -> Status<(Pa, u64)> {
    let claim = vm.working_sets.end(start)?;
    let (region, page_count) = claim.region();
    Ok((region, page_count - give_back(vm, claim)))
}

/// Ends all sets of a VM that ends; tells whether no interrupt has stopped it.
pub fn give_all_back(vm: &Vm) -> bool {
    while let Some(claim) = vm.working_sets.end_any() {
        if give_back(vm, claim) != 0 {
            return false;
        }
    }
    true
}

/// Gives the pages of a set back, the last first, up to a pending interrupt; returns how many are left.
fn give_back(vm: &Vm, claim: Claim) -> u64 {
    loop {
        let have = claim.in_hand();
        if have == 0 {
            claim.forget();
            return 0;
        }
        let left = have.saturating_sub(STEP_PAGES);
        memory::give_back(Pa(claim.region().0.0 + left * PAGE_SIZE), have - left, vm.handle);
        vm.count_given_back(have - left);
        claim.set_in_hand(left);
        if left != 0 && sysreg::interrupt_pending() {
            claim.go_on_ending();
            return left;
        }
    }
}

/// Counts the pages of a range in one set by their idle ages, up to a pending interrupt.
pub fn histogram(
    vm: &Vm,
    range: IpaRange,
    buckets: &mut [u64; WORKING_SET_BUCKETS as usize],
) -> Status<Outcome> {
    let held = Held::new(vm.working_sets.using_all_of(range)?);
    let all = Range::new(range.start(), range.page_count());
    let mut next = all.start;
    loop {
        let end = all.end.min(next + HISTOGRAM_STEP_PAGES);
        held.set.histogram(Range { start: next, end }, buckets);
        next = end;
        if next == all.end || sysreg::interrupt_pending() {
            return Ok(Outcome::done(next - all.start));
        }
    }
}

/// Copies the idle ages of a range in one set to a page of the host's, a byte a page.
pub fn map(vm: &Vm, range: IpaRange, buffer: Pa) -> Status {
    assert!(range.page_count() <= WORKING_SET_MAP_PAGES, "decoding lets no more through");
    let held = Held::new(vm.working_sets.using_all_of(range)?);
    let mut page = HostPage::take(buffer)?;
    let range = Range::new(range.start(), range.page_count());
    held.set.copy(range, |index, ages| page.write(index, ages));
    Ok(())
}
