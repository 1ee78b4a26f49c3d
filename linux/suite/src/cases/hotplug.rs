//! CPUs that come and go under running guests.

use std::fs;
use std::path::PathBuf;

use verdigris_abi::flags;
use verdigris_guest::{program, touch};

use super::support::{assert_bits, bytes, needs_two_cpus};
use crate::firmware::{PageState, page_state};
use crate::guest::{DATA, Guest, Spinner};
use crate::ktap::{skip, test_table};
use crate::sys;
use crate::vm::RW;

test_table! { "hotplug", 60: hotplug_under_guests, hotplug_and_unmap, hotplug_and_registers }

/// Returns the file by which Linux takes a CPU away and brings it back.
pub fn switch_of(cpu: usize) -> PathBuf {
    format!("/sys/devices/system/cpu/cpu{cpu}/online").into()
}

fn set_online(cpu: usize, online: bool) {
    let state = if online { "1" } else { "0" };
    fs::write(switch_of(cpu), state)
        .unwrap_or_else(|error| panic!("CPU {cpu} to {state}: {error}"));
}

/// CPUs that can be taken away; all are there again afterwards.
fn removable() -> Vec<usize> {
    needs_two_cpus();
    let cpus: Vec<_> =
        sys::cpus().into_iter().skip(1).filter(|&cpu| switch_of(cpu).exists()).collect();
    if cpus.is_empty() {
        skip("the kernel can't take CPUs away");
    }
    cpus
}

/// Takes CPUs away and back, and does something in between each time.
fn cycle(cpus: &[usize], rounds: usize, mut between: impl FnMut(usize)) {
    for round in 0..rounds {
        let cpu = cpus[round % cpus.len()];
        set_online(cpu, false);
        between(round);
        set_online(cpu, true);
        between(round);
    }
}

fn spinners<'guest>(guest: &'guest Guest, pages: u64, kind: u64) -> Vec<Spinner<'guest>> {
    let cpus = sys::online();
    let spin = |index: usize| {
        let arguments = [DATA, pages, 1, kind];
        guest.spin(index, cpus[(1 + index) % cpus.len()], program::SPIN, &arguments)
    };
    (0..guest.cpus().len()).map(spin).collect()
}

fn hotplug_under_guests() {
    const PAGES: u64 = 100;
    let cpus = removable();
    let guest = Guest::new(cpus.len());
    let _data = guest.with_data(PAGES as usize, RW);
    let spinners = spinners(&guest, PAGES, touch::WRITE);
    cycle(&cpus, 12, |round| {
        guest.age(DATA, PAGES, flags::AGE_FLUSH_ALL);
        spinners.iter().for_each(Spinner::wait_a_round);
        assert_bits(&guest.test_age(DATA, PAGES), &format!("round {round}"), |_| true);
    });
    for spinner in spinners {
        assert!(spinner.stop().done().is_some(), "a guest ended otherwise");
    }
}

fn hotplug_and_unmap() {
    const PAGES: usize = 100;
    let cpus = removable();
    let guest = Guest::new(2);
    let data = guest.with_data(PAGES, RW);
    cycle(&cpus, 8, |round| {
        let spinners = spinners(&guest, PAGES as u64, touch::WRITE);
        spinners.iter().for_each(Spinner::wait_a_round);
        guest.unmap(DATA, PAGES as u64).expect("mappings");
        let words: Vec<u64> = (0..PAGES).map(|page| data.read(page, 0)).collect();
        for (index, spinner) in spinners.into_iter().enumerate() {
            spinner.exit().fault();
            guest.stop_program(index);
        }
        let later: Vec<u64> = (0..PAGES).map(|page| data.read(page, 0)).collect();
        assert_eq!(words, later, "round {round}: a write after unmap had returned");
        let sequence = guest.sequence(0);
        for (page, address) in data.addresses().enumerate() {
            assert_eq!(page_state(address), PageState::FREE);
            guest.map(DATA + bytes(page), address, 1, RW, sequence).expect("a fresh number");
        }
    });
}

fn hotplug_and_registers() {
    let cpus = removable();
    let guest = Guest::new(2);
    for (seed, vcpu) in guest.cpus().iter().enumerate() {
        vcpu.call(program::REGISTERS_FILL, &[seed as u64]);
        vcpu.call(program::FP_FILL, &[seed as u64]);
    }
    cycle(&cpus, 12, |round| {
        for cpu in sys::online() {
            sys::run_on(cpu).expect("a CPU that is there");
            for (seed, vcpu) in guest.cpus().iter().enumerate() {
                let wrong = vcpu.call(program::REGISTERS_CHECK, &[seed as u64])[0];
                let vectors = vcpu.call(program::FP_CHECK, &[seed as u64])[0];
                assert_eq!((wrong, vectors), (0, 0), "round {round}, CPU {cpu}, vCPU {seed}");
            }
        }
        sys::run_anywhere().expect("some CPU is there");
    });
}
