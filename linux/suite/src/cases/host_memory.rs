//! What the host finds in memory that isn't its own: zeroes where it reads, and a fault where it writes.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;

use verdigris_abi::{Error, PAGE_SIZE, Stat, call, flags};

use super::support::helper;
use crate::firmware::{PageState, Statistics, page_state};
use crate::guest::DATA;
use crate::ktap::{skip, test_table};
use crate::pages::{PAGE, Pages};
use crate::raw::raw;
use crate::sys::Mapping;
use crate::vm::{IPA_BITS, RW, Vm};

test_table! { "suite", 40:
    donated_pages_read_as_zeroes, donated_pages_take_no_write, kept_memory_reads_as_zeroes,
    the_hosts_tables_heal, memory_that_is_not_there,
}

/// Helpers that tests start as processes of their own: they are meant to die.
pub mod helpers {
    use super::*;

    test_table! { "helper", 40: write_a_donated_page, add_to_a_donated_page }

    fn write_a_donated_page() {
        let (_vm, page) = donated();
        page.write(0, 0, 1);
        println!("went on");
    }

    fn add_to_a_donated_page() {
        let (_vm, page) = donated();
        page.add(0, 0, 1);
        println!("went on");
    }

    fn donated() -> (Vm, Pages) {
        let (vm, page) = (Vm::new(), Pages::single(1));
        page.write(0, 0, 1);
        vm.donate_range(page.address(0), 1).expect("a fresh page");
        (vm, page)
    }
}

/// A VM whose tables are in these pages, filled before and written by EL2 since, and one page that it maps.
fn with_tables() -> (Vm, Pages, Pages) {
    let (vm, tables, data) =
        (Vm::bare(IPA_BITS).expect("a VM"), Pages::chunks(2, 1), Pages::single(1));
    for word in 0..PAGE / 8 {
        (0..4).for_each(|page| tables.write(page, word, 0x5555_5555_5555_5555));
    }
    vm.donate_range(tables.address(0), 4).expect("fresh pages");
    vm.map(DATA, data.address(0), 1, RW, 0).expect("three tables at most");
    assert!(vm.statistics().get(Stat::TablePages) > 0, "none of the tables is in use");
    (vm, tables, data)
}

fn assert_zero(pages: &Pages, when: &str) {
    for page in 0..pages.count() {
        assert!(pages.is_zero(page), "page {page} {when}");
        for word in [0, 1, PAGE / 8 - 1] {
            let read = pages.by_kernel(page, word, None);
            assert_eq!(read.ok(), Some(0), "word {word} of page {page} to the kernel, {when}");
        }
    }
}

fn donated_pages_read_as_zeroes() {
    let (vm, tables, data) = with_tables();
    assert_zero(&tables, "while EL2 has its tables there");
    vm.map(DATA + (1 << 21), data.address(0), 1, RW, 0).expect("one table more");
    assert_zero(&tables, "after EL2 wrote there again");
    vm.destroy().expect("nothing runs");
    assert_zero(&tables, "given back");
    for page in 0..4 {
        assert_eq!(page_state(tables.address(page)), PageState::FREE);
        tables.write(page, 7, 7 + page as u64);
        assert_eq!(tables.by_kernel(page, 7, None).ok(), Some(7 + page as u64));
    }
}

fn donated_pages_take_no_write() {
    const SIGBUS: i32 = 7;
    for name in ["write_a_donated_page", "add_to_a_donated_page"] {
        let output = helper(name).output().expect("the suite can start itself");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.signal(), Some(SIGBUS), "{name}: {}: {said}", output.status);
    }
    let (vm, tables, data) = with_tables();
    let file = File::open("/proc/self/status").expect("procfs is mounted");
    const EFAULT: Option<i32> = Some(14);
    for page in 0..4 {
        // Before a read, which makes it a page of zeroes, and after.
        for _ in 0..2 {
            let error = tables.by_kernel(page, 3, Some(1)).expect_err("not the host's");
            assert_eq!(error.raw_os_error(), EFAULT, "the kernel's own write: {error}");
            let error = tables.read_from(page, &file).expect_err("not the host's");
            assert_eq!(error.raw_os_error(), EFAULT, "a copy to the user: {error}");
            assert!(tables.is_zero(page), "page {page}");
        }
    }
    vm.map(DATA + PAGE_SIZE, data.address(0), 1, RW, 0).expect("no table changed");
    vm.destroy().expect("nothing runs");
    for page in 0..4 {
        tables.by_kernel(page, 3, Some(0x77)).expect("the host's again");
        assert_eq!(tables.read(page, 3), 0x77);
    }
}

/// Finds the first page of the host's RAM: what lies before it is the firmware's.
fn first_page() -> u64 {
    let map = fs::read_to_string("/proc/iomem").expect("procfs is mounted");
    let line = map.lines().find(|line| line.ends_with("System RAM")).expect("there is RAM");
    let start = line.trim().split('-').next().expect("a range");
    u64::from_str_radix(start, 16).expect("a hexadecimal number")
}

fn kept_memory_reads_as_zeroes() {
    let file = match fs::OpenOptions::new().read(true).write(true).open("/dev/mem") {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => skip("the kernel has no /dev/mem"),
        Err(error) => panic!("/dev/mem: {error}"),
    };
    let (end, size) = (first_page(), 4 << 20);
    let is_kept = |address| page_state(address).owner == flags::OWNER_EL2;
    assert!(is_kept(end - PAGE_SIZE), "{end:#x} isn't behind the firmware");
    let start = end - size;
    assert!(is_kept(start), "the firmware keeps less than {size:#x} bytes");
    let memory = Mapping::new(&file, start, size as usize).expect("it is none of the kernel's RAM");
    for offset in (0..size as usize).step_by(8) {
        assert_eq!(memory.read(offset), 0, "{:#x}", start + offset as u64);
    }
}

/// Returns where RAM ends.
fn end_of_ram() -> u64 {
    let map = fs::read_to_string("/proc/iomem").expect("procfs is mounted");
    let line = map.lines().rfind(|line| line.ends_with("System RAM")).expect("there is RAM");
    let end = line.trim().split(['-', ' ']).nth(1).expect("a range");
    u64::from_str_radix(end, 16).expect("a hexadecimal number") + 1
}

/// There is room for memory behind RAM, and nothing that answers; elsewhere there is no room.
fn memory_that_is_not_there() {
    const BLOCK: u64 = 512;
    let add = |start, pages| raw().call(call::MEMORY_ADD, &[start, pages]);
    let remove = |start, pages| raw().call(call::MEMORY_REMOVE, &[start, pages]);
    let room = end_of_ram().next_multiple_of(1 << 30);
    let ram = first_page().next_multiple_of(2 << 20);
    for (start, pages) in [(room, BLOCK), (room + (2 << 20), 4 * BLOCK)] {
        let reply = add(start, pages);
        assert_eq!((reply.status(), reply.0[1]), (Err(Error::NotOwner), 0), "nothing answers");
        assert_eq!(page_state(start).owner, flags::OWNER_NONE);
        assert_eq!(remove(start, pages).status(), Ok(()), "nobody's already");
    }
    const UART: u64 = 0x0900_0000 & !((2 << 20) - 1);
    for start in [ram, UART, room - (2 << 20), 1 << 38, 1 << 51] {
        let before = page_state(start);
        assert_eq!(add(start, BLOCK).status(), Err(Error::NotOwner), "{start:#x}");
        assert_eq!(remove(start, BLOCK).status(), Err(Error::NotOwner), "{start:#x}");
        assert_eq!(page_state(start), before);
    }
    for (start, pages) in
        [(room, 0), (room, BLOCK - 1), (room + PAGE_SIZE, BLOCK), (room + 1, BLOCK)]
    {
        assert_eq!(add(start, pages).status(), Err(Error::Invalid), "{start:#x}, {pages}");
        assert_eq!(remove(start, pages).status(), Err(Error::Invalid), "{start:#x}, {pages}");
    }
}

fn the_hosts_tables_heal() {
    let tables = || Statistics::read(0).get(Stat::HostTablePages);
    let before = tables();
    // Spread over memory, as donations are while a host works: every other page stays the host's.
    let (vm, spread) = (Vm::bare(32).expect("a VM"), Pages::chunks(3, 256));
    spread.ranges().for_each(|(start, _)| vm.donate_range(start, 1).expect("a fresh page"));
    let during = tables();
    assert!(during > before, "no block was split for 256 pages: {during} tables, {before} before");
    for _ in 0..125 {
        let vms = [(); 8].map(|()| Vm::bare(32).expect("a VM"));
        vms.into_iter().for_each(|vm| vm.destroy().expect("nothing runs"));
    }
    vm.destroy().expect("nothing runs");
    assert_eq!(tables(), before, "1001 VMs have come and gone");
    assert!(spread.addresses().all(|address| page_state(address) == PageState::FREE));
}
