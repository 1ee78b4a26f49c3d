//! A working set: the idle ages that the firmware keeps of a range, in memory that we lend it.

use verdigris_abi::{Error, Status, WORKING_SET_BUCKETS, WORKING_SET_MAP_PAGES, call};

use crate::pages::{PAGE, Pages};
use crate::raw::raw;
use crate::vm::Vm;

/// Pages of each bucket of idle ages.
pub type Histogram = [u64; WORKING_SET_BUCKETS as usize];

/// Idle ages of a range of a VM, kept for as long as the VM lives or until [`WorkingSet::destroy`].
pub struct WorkingSet {
    vm: u64,
    ipa: u64,
    page_count: u64,
    // Stays the firmware's until then: freed before, it is lost to the process.
    region: Pages,
}

impl WorkingSet {
    /// Begins to keep ages: the call is repeated as it is until all of the range has a place.
    pub fn create(vm: &Vm, ipa: u64, page_count: u64) -> Status<Self> {
        let region_pages = region_pages(page_count).max(1);
        let region = Pages::chunks(region_pages.next_power_of_two().ilog2(), 1);
        let arguments = [vm.handle(), ipa, page_count, region.address(0)];
        while raw().value(call::WORKING_SET_CREATE, &arguments)? < page_count {}
        Ok(Self { vm: vm.handle(), ipa, page_count, region })
    }

    /// Counts pages by their idle age.
    pub fn histogram(&self) -> Histogram {
        self.histogram_of(0, self.page_count)
    }

    /// Counts some of the pages.
    pub fn histogram_of(&self, first: u64, page_count: u64) -> Histogram {
        let mut sum = [0; WORKING_SET_BUCKETS as usize];
        let mut done = 0;
        while done < page_count {
            let at = self.ipa + (first + done) * PAGE as u64;
            let arguments = [self.vm, at, page_count - done];
            let reply = raw().call(call::WORKING_SET_HISTOGRAM, &arguments);
            reply.status().expect("a range of the working set");
            assert!(reply.0[1] <= page_count - done, "more done than asked");
            done += reply.0[1];
            sum.iter_mut().zip(&reply.0[2..]).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    /// Reads the idle age of every page, by way of a page of ours.
    pub fn ages(&self, buffer: &Pages) -> Vec<u8> {
        let mut ages = Vec::new();
        while (ages.len() as u64) < self.page_count {
            let done = ages.len() as u64;
            let wanted = (self.page_count - done).min(WORKING_SET_MAP_PAGES);
            let at = self.ipa + done * PAGE as u64;
            let arguments = [self.vm, at, wanted, buffer.address(0)];
            let reply = raw().call(call::WORKING_SET_MAP, &arguments);
            reply.status().expect("a range of the working set");
            let byte = |page: usize| (buffer.read(0, page / 8) >> (page % 8 * 8)) as u8;
            ages.extend((0..wanted as usize).map(byte));
        }
        ages
    }

    /// Ends it; returns address and pages of the region, as the firmware gives them back.
    pub fn destroy(&self) -> Status<(u64, u64)> {
        loop {
            let reply = raw().call(call::WORKING_SET_DESTROY, &[self.vm, self.ipa]);
            match reply.status() {
                // Another CPU ages it at this moment; or an interrupt came.
                Err(Error::Busy) => {}
                Ok(()) if reply.0[2] < region_pages(self.page_count) => {}
                result => return result.map(|()| (reply.0[1], reply.0[2])),
            }
        }
    }

    /// Returns the pages that were lent.
    pub fn region(&self) -> &Pages {
        &self.region
    }
}

/// Returns how many pages hold the ages of so many.
const fn region_pages(page_count: u64) -> u64 {
    page_count.div_ceil(PAGE as u64)
}
