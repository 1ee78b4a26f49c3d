//! Every call with arguments that are wrong: the documented error, and nothing changed.

use verdigris_abi::{Error, Stat, Status, call, flags, reg};

use super::support::one_of;
use crate::firmware::{PageState, page_state};
use crate::guest::{DATA, Guest};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::raw::raw;
use crate::vm::{IPA_BITS, RW, RWX, Vm};
use crate::working_set::{Histogram, WorkingSet};

pub mod engine;
pub mod flags_and_counts;
pub mod pages;
pub mod vcpus;

test_table! { "suite", 20: unknown_vms, ranges }

/// No RAM on any of the machines: QEMU's UART.
const DEVICE: u64 = 0x0900_0000;
/// Where RAM begins, and the firmware with it.
const RAM: u64 = 0x4000_0000;
const BEYOND: u64 = 1 << 40;

/// A VM with everything that a bad call might change.
struct Scene {
    guest: Guest,
    data: Pages,
    spare: Pages,
    firmware: u64,
    ages: WorkingSet,
}

/// What must be the same after a refused call.
#[derive(PartialEq, Debug)]
struct Fingerprint {
    pages: Vec<PageState>,
    young: Vec<bool>,
    idle: Histogram,
    counters: Vec<u64>,
}

const COUNTERS: [Stat; 10] = [
    Stat::LeavesMapped,
    Stat::LeavesUnmapped,
    Stat::LeavesSet,
    Stat::LeavesProtected,
    Stat::BlocksSplit,
    Stat::BlocksCollapsed,
    Stat::TablesReclaimed,
    Stat::LeavesDirty,
    Stat::TablePages,
    Stat::FreeTablePages,
];

impl Scene {
    fn new() -> Self {
        let guest = Guest::new(1);
        let data = guest.with_data(4, RW);
        let firmware = (0..64 << 8).map(|page| RAM + (page << 12));
        let firmware = firmware.into_iter().find(|&pa| page_state(pa).owner == flags::OWNER_EL2);
        let firmware = firmware.expect("the firmware is at the bottom of RAM");
        let ages = WorkingSet::create(&guest, DATA, 8).expect("a fresh range");
        Self { guest, data, spare: Pages::chunks(1, 2), firmware, ages }
    }

    fn vm(&self) -> u64 {
        self.guest.handle()
    }

    fn fingerprint(&self) -> Fingerprint {
        let pages = self.data.addresses().chain(self.spare.addresses());
        let statistics = self.guest.statistics();
        Fingerprint {
            pages: pages.chain([self.firmware, DEVICE]).map(page_state).collect(),
            young: self.guest.test_age(DATA, 8),
            idle: self.ages.histogram(),
            counters: COUNTERS.map(|stat| statistics.get(stat)).to_vec(),
        }
    }

    /// Makes a call that has to be refused with one of the errors and to change nothing.
    #[track_caller]
    fn refuses(&self, function: u32, arguments: &[u64], errors: &[Error]) {
        let before = self.fingerprint();
        let result: Status<u64> = raw().value(function, arguments);
        one_of(result, errors, &format!("call {function:#x} with {arguments:x?}"));
        assert_eq!(before, self.fingerprint(), "call {function:#x} with {arguments:x?}");
    }

    /// Good arguments of every call that takes a VM. Those that would change something ask for what can't be.
    fn good(&self, vm: u64) -> Vec<(u32, Vec<u64>)> {
        let spare = self.spare.address(0);
        vec![
            (call::VM_DESTROY, vec![vm]),
            (call::VM_DONATE, vec![vm, spare, 1]),
            (call::VM_RECLAIM, vec![vm, 1]),
            (call::VCPU_CREATE, vec![vm, 9, spare]),
            (call::VCPU_RUN, vec![vm, 0, 0, 0]),
            (call::VCPU_GET_REG, vec![vm, 0, reg::REG_PC]),
            (call::VCPU_SET_REG, vec![vm, 0, reg::REG_PC, 0]),
            (call::VCPU_REG_LIST, vec![vm, 0, 0]),
            (call::VCPU_RESET, vec![vm, 0]),
            (call::MAP, vec![vm, DATA + 0x1_0000, spare, 1, RWX, 0]),
            // What is in the list is zero: nothing to map.
            (call::MAP_LIST, vec![vm, DATA + 0x1_0000, 1, spare, 0]),
            (call::UNMAP, vec![vm, DATA, 1]),
            (call::INVALIDATE_BEGIN, vec![vm, DATA, 1, 0, 0]),
            (call::INVALIDATE_END, vec![vm, DATA, 1, 1]),
            (call::AGE, vec![vm, DATA, 1, 0, 0]),
            (call::TEST_AGE, vec![vm, DATA, 1, 0, 0]),
            (call::SET, vec![vm, DATA, spare, RW, 0]),
            (call::WRITE_PROTECT, vec![vm, DATA, 1]),
            (call::HARVEST, vec![vm, DATA, 1, 0, 0]),
            (call::SPLIT, vec![vm, DATA, 1, 0]),
            (call::COLLAPSE, vec![vm, DATA + (4 << 20), 512, flags::MAP_BLOCK_2M]),
            (call::TABLES_RECLAIM, vec![vm, DATA, 1]),
            (call::FLUSH, vec![vm]),
            (call::WORKING_SET_CREATE, vec![vm, DATA + (4 << 20), 1, spare]),
            (call::WORKING_SET_DESTROY, vec![vm, DATA]),
            (call::WORKING_SET_HISTOGRAM, vec![vm, DATA, 1]),
            (call::WORKING_SET_MAP, vec![vm, DATA, 1, spare]),
            (call::STATISTICS, vec![vm, 0]),
        ]
    }
}

fn unknown_vms() {
    let scene = Scene::new();
    let freed = Vm::new();
    let freed_handle = freed.handle();
    freed.destroy().expect("a VM can be ended");
    for vm in [0, 255, 256, 257, 1 << 16, 1 << 32 | scene.vm(), u64::MAX, freed_handle] {
        for (function, arguments) in scene.good(vm) {
            if (function, vm) != (call::STATISTICS, 0) {
                scene.refuses(function, &arguments, &[Error::NoEntry]);
            }
        }
    }
}

fn ranges() {
    let scene = Scene::new();
    let end = 1 << IPA_BITS;
    let top = !0xfff;
    let ranges = [
        (DATA + 1, 1),
        (DATA + 0x800, 1),
        (DATA, 0),
        (top, 1),
        (top, 2),
        (end, 1),
        (end - 0x1000, 2),
        (DATA, u64::MAX),
        (DATA, 1 << 52),
        (DATA, ((end - DATA) >> 12) + 1),
        (1 << 63 | DATA, 1),
    ];
    for (ipa, count) in ranges {
        for (function, mut arguments) in scene.good(scene.vm()) {
            let errors: &[Error] = match function {
                call::INVALIDATE_END => &[Error::Invalid, Error::NoEntry],
                call::WORKING_SET_HISTOGRAM | call::WORKING_SET_MAP => {
                    &[Error::Invalid, Error::NoEntry]
                }
                _ => &[Error::Invalid],
            };
            let count_at = match function {
                call::MAP => Some(3),
                call::SET | call::WORKING_SET_DESTROY if count == 1 => None,
                call::UNMAP | call::INVALIDATE_BEGIN | call::INVALIDATE_END => Some(2),
                call::AGE | call::TEST_AGE | call::WRITE_PROTECT | call::HARVEST => Some(2),
                call::SPLIT | call::COLLAPSE | call::TABLES_RECLAIM | call::MAP_LIST => Some(2),
                call::WORKING_SET_CREATE | call::WORKING_SET_HISTOGRAM => Some(2),
                call::WORKING_SET_MAP => Some(2),
                _ => continue,
            };
            arguments[1] = ipa;
            if let Some(index) = count_at {
                arguments[index] = count;
            }
            scene.refuses(function, &arguments, errors);
        }
    }
}
