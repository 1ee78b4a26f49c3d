//! Memory that the host gets after boot (virtio-mem), and gives up: it serves guests, and their tables.

use std::fs;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use verdigris_ktap::{skip, test_table};

use super::kernel::offline_pages_of;
use super::support::Scene;
use super::uapi::code::{CREATE_VCPU, CREATE_VM, device, file};
use crate::inside::counters::{Counters, is_verdigris, number, wait_until, write};
use crate::inside::pagemap;
use crate::inside::region::{Kind, Region};
use crate::inside::sys::{self, PAGE};

test_table! { "added", 180: guests_have_memory_that_came_later, tables_lie_in_memory_that_came_later }

/// Where the kernel has a folder for each block of memory.
const BLOCKS: &str = "/sys/devices/system/memory";

/// A block of memory that can be on or off.
struct Block {
    folder: PathBuf,
    frames: Range<u64>,
}

impl Block {
    fn set(&self, state: &str) -> std::io::Result<()> {
        fs::write(self.folder.join("state"), state)
    }
}

/// Plugs the machine's memory in, if that hasn't been done, and lists its blocks; all are off.
fn blocks() -> Vec<Block> {
    let module = sys::module("virtio_mem");
    if !module.exists() {
        skip("the host has no virtio_mem.ko");
    }
    write(format!("{BLOCKS}/auto_online_blocks"), "offline");
    if !fs::read_to_string("/proc/modules").expect("procfs").contains("virtio_mem") {
        sys::load_module(&module, c"").expect("virtio_mem.ko");
    }
    let size = u64::from_str_radix(
        fs::read_to_string(format!("{BLOCKS}/block_size_bytes")).expect("a size").trim(),
        16,
    );
    let frames = size.expect("a hexadecimal number") / PAGE as u64;
    wait_until("the memory is there", || {
        added_frames().is_some_and(|all| all.end - all.start >= 8 * frames)
    });
    let all = added_frames().expect("added memory");
    let block = |number: u64| Block {
        folder: format!("{BLOCKS}/memory{number}").into(),
        frames: number * frames..(number + 1) * frames,
    };
    (all.start / frames..all.end / frames).map(block).collect()
}

/// Returns the page frames of the memory that came, on or off.
fn added_frames() -> Option<Range<u64>> {
    let map = fs::read_to_string("/proc/iomem").expect("procfs");
    let lines = map.lines().filter(|line| line.contains("System RAM (virtio_mem)"));
    let ranges: Vec<_> = lines.filter_map(crate::inside::next::range_of).collect();
    let (first, last) = (ranges.first()?, ranges.last()?);
    Some(first.start / PAGE as u64..last.end / PAGE as u64)
}

/// Counts the pages of a part of a region that lie in some frames.
fn count_in(region: &Region, pages: Range<usize>, frames: &Range<u64>) -> usize {
    let entries = pagemap::entries(region, pages);
    entries.into_iter().filter_map(|entry| entry.frame()).filter(|at| frames.contains(at)).count()
}

/// A guest's memory comes from there, goes elsewhere when it goes, and may come from there again.
fn guests_have_memory_that_came_later() {
    const HALF: usize = 2048;
    let blocks = blocks();
    let all = blocks[0].frames.start..blocks[blocks.len() - 1].frames.end;
    for round in 1..=2 {
        for block in &blocks {
            block.set("online_movable").expect("a block that comes");
        }
        let mut scene = Scene::new(Kind::Pages, HALF);
        let part = scene.part();
        scene.fill(part.clone(), round);
        scene.ledger.wait(3);
        let there = count_in(&scene.guest.data, 0..2 * HALF, &all);
        assert!(there > HALF, "only {there} of {} pages lie in memory that came later", 2 * HALF);
        let migrated = Counters::host();
        for block in &blocks {
            wait_until("a block goes", || block.set("offline").is_ok());
        }
        assert_eq!(count_in(&scene.guest.data, 0..2 * HALF, &all), 0);
        assert!(Counters::host().since(&migrated, "pgmigrate_success") >= there as u64);
        scene.check(part, round);
        scene.ledger.wait(3);
        scene.finish();
    }
}

/// VMs get their tables from there: the kernel has it as a zone that it takes from first (ZONE_NORMAL; what this board
/// boots with is in ZONE_DMA).
fn tables_lie_in_memory_that_came_later() {
    const VMS: u64 = 40;
    let blocks = blocks();
    let all = blocks[0].frames.start..blocks[blocks.len() - 1].frames.end;
    for block in &blocks {
        block.set("online_kernel").expect("a block that comes");
    }
    let mut kept = Vec::new();
    for _ in 0..VMS {
        let vm = file(device().as_raw_fd(), CREATE_VM, 0).expect("a VM");
        for index in 0..16 {
            kept.push(file(vm.as_raw_fd(), CREATE_VCPU, index).expect("a vCPU"));
        }
        kept.push(vm);
    }
    if is_verdigris() {
        assert!(number("/sys/kernel/debug/verdigris/donated_pages") > VMS);
        let there = offline_pages_of(&all);
        assert!(there > 0, "no page that was donated came later");
        println!("{there} pages that were donated came later");
    }
}
