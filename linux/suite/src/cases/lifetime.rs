//! VMs from beginning to end, and the memory they are made of.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use verdigris_abi::{Error, PAGE_SIZE, Stat, call, flags};
use verdigris_guest::{pattern, program, touch};

use super::support::{bytes, helper, settled, spread};
use crate::firmware::{PageState, host_reset, layout, page_state, until_none_left, whole_range};
use crate::guest::{DATA, Guest};
use crate::ktap::test_table;
use crate::pages::{PAGE, Pages};
use crate::raw::raw;
use crate::vm::{IPA_BITS, RW, Vm};

test_table! { "suite", 40:
    destroy_gives_everything_back, reset_gives_everything_back, out_of_table_pages, tables_are_reused,
    reclaim_gives_pages_back, most_vms_at_a_time, most_vcpus_of_a_vm, sizes_of_address_spaces,
    dead_process_leaves_nothing, pages_in_use_are_not_freed,
}

/// Helpers that tests start as processes of their own: they are meant to die.
pub mod helpers {
    use super::*;

    test_table! { "helper", 40: leave_everything_behind }

    fn leave_everything_behind() {
        let guest = Guest::new(2);
        let data = guest.with_data(64, RW);
        let vms: Vec<Vm> = (0..4).map(|_| Vm::new()).collect();
        let cpus = spread(1);
        let arguments = [DATA, 64, 1, touch::WRITE];
        let spinner = guest.spin(0, cpus[0], program::SPIN, &arguments);
        spinner.wait_a_round();
        guest.invalidate_begin(0x20_0000_0000, 10).expect("a good range");
        data.addresses().for_each(|address| println!("{address:#x}"));
        guest.donated_addresses().iter().for_each(|address| println!("{address:#x}"));
        println!("ready {}", vms.len());
        sleep(Duration::from_secs(60));
    }
}

/// Pages with something in them.
fn dirty(order: u32, count: usize) -> Pages {
    let pages = Pages::chunks(order, count);
    (0..pages.count()).for_each(|page| pages.write(page, 9, 0x5555));
    pages
}

#[track_caller]
fn assert_given_back(pages: &Pages, what: &str) {
    for page in 0..pages.count() {
        assert_eq!(page_state(pages.address(page)), PageState::FREE, "{what}, page {page}");
        assert!(pages.is_zero(page), "{what}, page {page} is not zeroed");
    }
}

fn destroy_gives_everything_back() {
    let (order, vcpu_order) = layout(IPA_BITS).expect("a good size");
    let regions = [dirty(order, 1), dirty(vcpu_order, 1), dirty(3, 1)];
    let [root, vcpu, tables] = &regions;
    let data = Pages::chunks(2, 1);
    (0..4).for_each(|page| data.write(page, 0, pattern(page as u64, 1)));
    let vm = raw().value(call::VM_CREATE, &[IPA_BITS, root.address(0)]).expect("a VM");
    raw().value(call::VCPU_CREATE, &[vm, 0, vcpu.address(0)]).expect("a vCPU");
    let donate = |done, left| {
        raw().value(call::VM_DONATE, &[vm, tables.address(0) + done * PAGE_SIZE, left])
    };
    whole_range(8, donate).expect("fresh pages");
    let map = |done, left| {
        let [ipa, pa] = [DATA, data.address(0)].map(|start| start + done * PAGE_SIZE);
        raw().value(call::MAP, &[vm, ipa, pa, left, RW, 0])
    };
    whole_range(4, map).expect("fresh pages");
    for page in root.addresses().chain(vcpu.addresses()) {
        assert_eq!((page_state(page).owner, page_state(page).vm), (flags::OWNER_VM, vm));
    }
    until_none_left(|| raw().value(call::VM_DESTROY, &[vm])).expect("a VM can be ended");
    regions.iter().for_each(|pages| assert_given_back(pages, "donated"));
    for page in 0..4 {
        assert_eq!(page_state(data.address(page)), PageState::FREE);
        assert_eq!(data.read(page, 0), pattern(page as u64, 1), "the host's own page changed");
    }
    assert_eq!(raw().value(call::VM_DESTROY, &[vm]), Err(Error::NoEntry));
}

fn reset_gives_everything_back() {
    let (order, _) = layout(IPA_BITS).expect("a good size");
    let roots = dirty(order, 3);
    let vms: Vec<u64> = (0..3)
        .map(|index| raw().value(call::VM_CREATE, &[IPA_BITS, roots.address(index << order)]))
        .collect::<Result<_, _>>()
        .expect("VMs");
    let tables = dirty(0, 3);
    for (&vm, table) in vms.iter().zip(tables.addresses()) {
        raw().value(call::VM_DONATE, &[vm, table, 1]).expect("a fresh page");
    }
    let guest = Guest::new(1);
    let data = guest.with_data(16, RW);
    host_reset().expect("no vCPU runs");
    for &vm in &vms {
        assert_eq!(raw().call(call::STATISTICS, &[vm, 0]).status(), Err(Error::NoEntry));
    }
    assert_given_back(&roots, "root");
    assert_given_back(&tables, "table");
    assert!(data.addresses().all(|address| page_state(address) == PageState::FREE));
    assert_eq!(Guest::new(1).cpu(0).call(program::ECHO, &[5])[0], 5, "and a new VM runs");
}

fn out_of_table_pages() {
    let vm = Vm::bare(IPA_BITS).expect("a VM");
    let page = Pages::single(1);
    let map = |ipa| settled(|| vm.map(ipa, page.address(0), 1, RW, 0));
    assert_eq!(map(DATA), Err(Error::NoMemory));
    assert_eq!(page_state(page.address(0)), PageState::FREE, "a refused map shared the page");
    vm.donate(4);
    map(DATA).expect("mended by donating");
    // One page every 2 MiB wants a table each.
    let gap = 2 << 20;
    let mapped = (1..100).take_while(|index| match map(DATA + index * gap) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error, Error::NoMemory);
            false
        }
    });
    let mapped = mapped.count() as u64;
    assert!(mapped < 8, "{mapped} tables of 4 pages");
    assert_eq!(page_state(page.address(0)).shares, 1 + mapped);
    vm.donate(4);
    map(DATA + (mapped + 1) * gap).expect("mended by donating");
}

/// Tables that become empty are used again: a VM doesn't eat table pages for ever.
fn tables_are_reused() {
    let vm = Vm::bare(IPA_BITS).expect("a VM");
    vm.donate(24);
    let guest = Guest::inside(vm, 1);
    let page = Pages::single(1);
    let gap = 1 << 30;
    for index in 0..200 {
        // An invalidation of the whole GiB unlinks the tables of it.
        let at = DATA + (1 + index) * gap;
        let result = guest.map(at, page.address(0), 1, RW, guest.sequence(0));
        result.unwrap_or_else(|error| panic!("map {index}: {error}"));
        guest.invalidate_begin(at, gap / PAGE_SIZE).expect("never fails");
        guest.invalidate_end(at, gap / PAGE_SIZE, gap / PAGE_SIZE).expect("a mark of ours");
    }
}

fn reclaim_gives_pages_back() {
    let vm = Vm::bare(IPA_BITS).expect("a VM");
    let tables = dirty(3, 1);
    vm.donate_range(tables.address(0), 8).expect("fresh pages");
    assert_eq!(vm.statistics().get(Stat::FreeTablePages), 8);
    let reply = raw().call(call::VM_RECLAIM, &[vm.handle(), 3]);
    assert_eq!((reply.status(), reply.0[1]), (Ok(()), 3));
    for address in &reply.0[2..5] {
        assert!(tables.addresses().any(|own| own == *address), "{address:#x} is none of ours");
        assert_eq!(page_state(*address), PageState::FREE);
    }
    let reply = raw().call(call::VM_RECLAIM, &[vm.handle(), 16]);
    assert_eq!((reply.status(), reply.0[1]), (Ok(()), 5), "all that is left");
    assert_eq!(raw().value(call::VM_RECLAIM, &[vm.handle(), 16]), Ok(0));
    assert_given_back(&tables, "table");
}

fn most_vms_at_a_time() {
    let mut vms: Vec<Vm> = Vec::new();
    let error = loop {
        match Vm::bare(32) {
            Ok(vm) => vms.push(vm),
            Err(error) => break error,
        }
        assert!(vms.len() <= 256);
    };
    assert_eq!((vms.len(), error), (256, Error::Limit));
    let mut handles: Vec<u64> = vms.iter().map(Vm::handle).collect();
    handles.sort_unstable();
    assert_eq!(handles, (1..=256).collect::<Vec<u64>>());
    vms.pop();
    assert!(Vm::bare(32).is_ok(), "a handle that is free again");
}

fn most_vcpus_of_a_vm() {
    let vm = Vm::new();
    for index in 0..64 {
        assert!(vm.vcpu(index).is_ok(), "vCPU {index}");
    }
    assert_eq!(vm.vcpu(64).map(|vcpu| vcpu.index()), Err(Error::Invalid));
}

fn sizes_of_address_spaces() {
    let page = Pages::single(1);
    for bits in 32..=crate::firmware::Features::read().ipa_bits {
        let vm = Vm::bare(bits).unwrap_or_else(|error| panic!("{bits} bits: {error}"));
        vm.donate(16);
        let last = (1 << bits) - PAGE_SIZE;
        vm.map(last, page.address(0), 1, RW, 0).unwrap_or_else(|error| panic!("{bits}: {error}"));
        assert_eq!(vm.map(1 << bits, page.address(0), 1, RW, 0), Err(Error::Invalid), "{bits}");
        let guest = Guest::inside(vm, 1);
        page.write(0, 0, bits);
        assert_eq!(guest.cpu(0).call(program::READ, &[last])[0], bits);
    }
}

fn dead_process_leaves_nothing() {
    let mut command = helper("leave_everything_behind");
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the suite can start itself");
    let mut addresses = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("a pipe");
        match line.strip_prefix("0x") {
            Some(digits) => addresses.push(u64::from_str_radix(digits, 16).expect("an address")),
            None => break,
        }
    }
    assert!(addresses.len() > 64, "{} addresses", addresses.len());
    assert!(addresses.iter().all(|&address| page_state(address) != PageState::FREE));
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
    for address in addresses {
        assert_eq!(page_state(address), PageState::FREE, "page {address:#x}");
    }
}

fn pages_in_use_are_not_freed() {
    let (guest, page) = (Guest::new(1), Pages::single(1));
    let address = page.address(0);
    guest.map(DATA, address, 1, RW, 0).expect("a fresh page");
    let refused = page.free().expect_err("a guest uses it");
    assert_eq!(refused.raw_os_error(), Some(16), "{refused}");
    guest.cpu(0).call(program::FILL, &[DATA, PAGE as u64, 1]);
    assert_eq!(page_state(address).shares, 1);
    assert_eq!(guest.cpu(0).call(program::CHECK, &[DATA, bytes(1), 1])[0], 0);
}
