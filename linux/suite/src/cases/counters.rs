//! Statistics: they count what happened, and add up.

use verdigris_abi::{Stat, flags};
use verdigris_guest::{program, touch};

use crate::firmware::Statistics;
use crate::guest::{DATA, Guest, NOWHERE};
use crate::ktap::test_table;
use crate::vm::RW;

test_table! { "suite", 20: runs_are_exits, leaves_add_up, ages_and_faults, sums_outlive_vms }

const EXITS: [Stat; 7] = [
    Stat::ExitInterrupt,
    Stat::ExitFault,
    Stat::ExitHypercall,
    Stat::ExitWait,
    Stat::ExitShutdown,
    Stat::ExitSError,
    Stat::ExitUnhandled,
];

fn runs_are_exits() {
    let guest = Guest::new(2);
    let _data = guest.with_data(8, RW);
    for vcpu in guest.cpus() {
        vcpu.call(program::TOUCH, &[DATA, 8, 1, touch::WRITE, 0]);
        vcpu.call_to_exit(program::READ, &[NOWHERE]).fault();
        vcpu.run_with(flags::RUN_SKIP, 0);
        vcpu.call_to_exit(program::WAIT, &[0]);
        vcpu.run();
        vcpu.call_to_exit(program::CALL, &[0x8400_0008]);
    }
    let statistics = guest.statistics();
    let exits: u64 = EXITS.map(|stat| statistics.get(stat)).iter().sum();
    assert_eq!(statistics.get(Stat::Runs), exits);
    assert_eq!(statistics.get(Stat::ExitFault), 2);
    assert_eq!(statistics.get(Stat::ExitHypercall), 6);
    assert_eq!(statistics.get(Stat::ExitWait), 2);
    assert_eq!(statistics.get(Stat::ExitShutdown), 2);
    assert_eq!(statistics.get(Stat::FaultTranslation), 2);
}

fn leaves_add_up() {
    let guest = Guest::new(1);
    let base = guest.statistics();
    let data = guest.with_data(100, RW);
    guest.unmap(DATA + 0x5000, 20).expect("mappings");
    guest.write_protect(DATA, 100).expect("mappings");
    guest.set(DATA, data.address(7), RW, 0).expect("a good page");
    let now = guest.statistics();
    let since = |stat| now.since(&base, stat);
    assert_eq!(since(Stat::LeavesMapped), 100);
    assert_eq!(since(Stat::LeavesUnmapped), 20);
    assert_eq!(since(Stat::LeavesProtected), 80);
    assert_eq!(since(Stat::LeavesSet), 1);
    let tables = now.get(Stat::TablePages) + now.get(Stat::FreeTablePages);
    assert_eq!(tables, base.get(Stat::TablePages) + base.get(Stat::FreeTablePages));
    assert!(now.get(Stat::TablePages) > 0);
}

fn ages_and_faults() {
    let guest = Guest::new(1);
    let _data = guest.with_data(64, RW);
    let base = guest.statistics();
    guest.age(DATA, 64, flags::AGE_FLUSH_ALL);
    guest.test_age(DATA, 64);
    guest.cpu(0).call(program::TOUCH, &[DATA, 64, 4, touch::READ, 0]);
    guest.age(DATA, 64, flags::AGE_FLUSH_ALL);
    let now = guest.statistics();
    assert_eq!(now.since(&base, Stat::Ages), 2);
    assert_eq!(now.since(&base, Stat::AgeTests), 1);
    assert_eq!(now.since(&base, Stat::LeavesVisited), 128, "by the two ages");
    assert_eq!(now.since(&base, Stat::LeavesYoung), 64 + 16);
    guest.write_protect(DATA, 1).expect("a mapping");
    guest.cpu(0).call_to_exit(program::WRITE, &[DATA, 1]).fault();
    assert_eq!(guest.statistics().since(&base, Stat::FaultPermission), 1);
}

fn sums_outlive_vms() {
    let before = Statistics::read(0);
    let guest = Guest::new(1);
    guest.cpu(0).call(program::ECHO, &[]);
    let of_vm = guest.statistics();
    let during = Statistics::read(0);
    for stat in [Stat::Runs, Stat::ExitHypercall, Stat::LeavesMapped] {
        assert!(during.since(&before, stat) >= of_vm.get(stat), "{stat:?}");
    }
    drop(guest);
    let after = Statistics::read(0);
    for stat in [Stat::Runs, Stat::ExitHypercall, Stat::LeavesMapped] {
        assert!(after.since(&before, stat) >= of_vm.get(stat), "{stat:?} was forgotten");
    }
    assert_eq!(after.get(Stat::TablePages), before.get(Stat::TablePages));
    assert_eq!(after.get(Stat::FreeTablePages), before.get(Stat::FreeTablePages));
}
