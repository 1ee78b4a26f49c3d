//! More VMs than VMIDs, on a machine whose firmware was told to use few (`vmid=3`).
//!
//! QEMU's TLBs have no VMIDs, so a wrong one doesn't show here; what shows is a VM that isn't given one,
//! one that stands still at a rollover, and an invalidation that misses its VM.

use verdigris_abi::{Stat, flags};
use verdigris_guest::{program, touch};

use super::support::{assert_bits, bytes, spread};
use crate::firmware::Statistics;
use crate::guest::{DATA, Guest, Spinner};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::sys;
use crate::vm::RW;

test_table! { "rollover", 120:
    each_vm_has_its_own_memory, rollover_on_all_cpus, rollover_under_running_guests,
    rollover_and_taking_away,
}

/// More than the 15 that `vmid=4` leaves for guests.
const VMS: usize = 24;
const PAGES: usize = 16;

fn rollovers() -> u64 {
    Statistics::read(0).get(Stat::VmidRollovers)
}

/// A VM with memory of its own, whose content says whose it is.
struct Tenant {
    guest: Guest,
    data: Pages,
    seed: u64,
}

impl Tenant {
    fn new(seed: u64) -> Self {
        let guest = Guest::new(1);
        let data = guest.with_data(PAGES, RW);
        guest.cpu(0).call(program::FILL, &[DATA, bytes(PAGES), seed]);
        Self { guest, data, seed }
    }

    fn all() -> Vec<Self> {
        (0..VMS as u64).map(|index| Self::new(index + 1)).collect()
    }

    #[track_caller]
    fn check(&self, what: &str) {
        let [wrong, at, ..] =
            self.guest.cpu(0).call(program::CHECK, &[DATA, bytes(PAGES), self.seed]);
        assert_eq!(wrong, 0, "{what}: VM {} found another's at {at:#x}", self.seed);
    }
}

fn each_vm_has_its_own_memory() {
    let before = rollovers();
    let tenants = Tenant::all();
    for round in 0..20 {
        tenants.iter().for_each(|tenant| tenant.check(&format!("round {round}")));
    }
    let count = rollovers() - before;
    assert!(count >= 20, "{count} rollovers in 20 rounds of {VMS} VMs");
}

/// Every CPU runs VMs of its own, all use up the same VMIDs.
fn rollover_on_all_cpus() {
    let before = rollovers();
    let tenants = Tenant::all();
    let cpus = sys::cpus();
    let tenants = &tenants;
    std::thread::scope(|scope| {
        for (index, &cpu) in cpus.iter().enumerate() {
            let own = tenants.iter().skip(index).step_by(cpus.len());
            scope.spawn(move || {
                sys::run_on(cpu).expect("the CPU is there");
                for round in 0..20 {
                    own.clone().for_each(|tenant| tenant.check(&format!("CPU {cpu}, {round}")));
                }
            });
        }
    });
    assert!(rollovers() > before, "the VMIDs were enough");
}

/// A VM that runs keeps its VMID, and its translations are its own afterwards too.
fn rollover_under_running_guests() {
    let running: Vec<_> = (0..2).map(|index| Tenant::new(100 + index)).collect();
    let arguments = [DATA, PAGES as u64, 1, touch::READ];
    let places = running.iter().zip(spread(running.len()));
    let spinners: Vec<Spinner> =
        places.map(|(tenant, cpu)| tenant.guest.spin(0, cpu, program::SPIN, &arguments)).collect();
    let before = rollovers();
    let tenants = Tenant::all();
    for round in 0..10 {
        tenants.iter().for_each(|tenant| tenant.check(&format!("round {round}")));
        spinners.iter().for_each(Spinner::wait_a_round);
    }
    assert!(rollovers() > before, "the VMIDs were enough");
    for spinner in spinners {
        assert!(spinner.stop().done().is_some(), "a guest ended otherwise");
    }
    running.iter().for_each(|tenant| tenant.check("after it ran"));
}

/// What is aged, harvested and taken away from a VM is gone, however many rollovers came in between.
fn rollover_and_taking_away() {
    let before = rollovers();
    let tenants = Tenant::all();
    for round in 0..10 {
        for (tenant, next) in tenants.iter().zip(tenants.iter().cycle().skip(1)) {
            let guest = &tenant.guest;
            guest.age(DATA, PAGES as u64, flags::AGE_FLUSH_ALL);
            guest.harvest(DATA, PAGES as u64);
            next.check(&format!("round {round}"));
            assert_bits(&guest.test_age(DATA, PAGES as u64), "nothing was touched", |_| false);
            guest.cpu(0).call(program::TOUCH, &[DATA, PAGES as u64, 2, touch::READ, 0]);
            assert_bits(&guest.test_age(DATA, PAGES as u64), "touched", |page| page % 2 == 0);
            guest.unmap(DATA, 1).expect("a mapping");
            let fault = guest.cpu(0).call_to_exit(program::READ, &[DATA]).fault();
            assert_eq!(fault.page(), DATA);
            guest.map(DATA, tenant.data.address(0), 1, RW, fault.sequence).expect("fresh");
            assert!(guest.cpu(0).run().done().is_some(), "the read is repeated");
            tenant.check(&format!("round {round}"));
        }
    }
    assert!(rollovers() > before, "the VMIDs were enough");
}
