//! What happens once: a call, a run, a fault.

use std::cell::Cell;

use verdigris_abi::{MAP_LIST_PAGES, call, flags};
use verdigris_guest::{program, touch};

use super::{Bench, Leaf, absent, figure};
use crate::firmware::{Features, whole_range};
use crate::guest::DATA;
use crate::raw::raw;
use crate::vm::RW;

const TIMES: u32 = 64;
/// Pages that fault, for the figure of one fault.
const FAULTS: u64 = 512;

impl Bench {
    /// Measures what costs the same wherever it happens.
    pub fn single_calls(&self) {
        let null = self.meter.least(TIMES, || (), || _ = raw().call(call::UID, &[]));
        figure("null-hypercall", null as f64);
        let vcpu = self.guest.cpu(0);
        let prepare = || vcpu.prepare(program::ECHO, &[]);
        let run = self.meter.least(TIMES, prepare, || _ = vcpu.run());
        figure("empty-vcpu-run", run as f64);
        self.map_lists();
        self.map_anew(Leaf::Page, FAULTS);
        self.access_flag_fault();
        self.write_fault();
    }

    /// Lists of the size of a fault with its neighbours, and the longest, for each page. They lie in one
    /// table, and no two pages beside each other.
    fn map_lists(&self) {
        let sequence = Cell::new(0);
        for count in [1, 16, 64, MAP_LIST_PAGES] {
            let prepare = || sequence.set(self.unmap(count));
            let cost = self.meter.least(TIMES, prepare, || self.map_list(count, sequence.get()));
            figure(&format!("map-list/{count}"), cost as f64 / count as f64);
        }
    }

    fn map_list(&self, count: u64, sequence: u64) {
        let list = self.buffer.address(0);
        let mapped = whole_range(count, |done, left| {
            for page in done..count {
                let entry = self.memory.address(2 * page as usize) | RW | flags::MAP_OLD;
                self.buffer.write(0, (page - done) as usize, entry);
            }
            let at = DATA + (done << 12);
            raw().value(call::MAP_LIST, &[self.guest.handle(), at, left, list, sequence])
        });
        mapped.expect("fresh pages");
    }

    /// A run that touches pages, after something that makes them fault or not.
    fn touch(&self, kind: u64, before: impl Fn()) -> u64 {
        let vcpu = self.guest.cpu(0);
        let prepare = || {
            before();
            vcpu.prepare(program::TOUCH, &[DATA, FAULTS, 1, kind, 0]);
        };
        self.meter.least(8, prepare, || _ = vcpu.run())
    }

    fn access_flag_fault(&self) {
        const NAME: &str = "access-flag-fault";
        if Features::read().has(flags::FEATURE_HW_ACCESS_FLAG) {
            return absent(NAME, "the hardware sets access flags");
        }
        let young = self.touch(touch::READ, || ());
        let old = self.touch(touch::READ, || {
            self.guest.age(DATA, FAULTS, flags::AGE_FLUSH_ALL);
        });
        figure(NAME, (old - young) as f64 / FAULTS as f64);
    }

    fn write_fault(&self) {
        const NAME: &str = "write-fault";
        if Features::read().has(flags::FEATURE_HW_DIRTY) {
            return absent(NAME, "the hardware keeps dirty state");
        }
        let dirty = self.touch(touch::WRITE, || ());
        let clean = self.touch(touch::WRITE, || {
            self.guest.harvest(DATA, FAULTS);
        });
        figure(NAME, (clean - dirty) as f64 / FAULTS as f64);
    }
}
