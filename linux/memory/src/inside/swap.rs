//! Swap space: a compressed disk in memory, made at first use and kept until the host ends.

use std::fs;

use verdigris_ktap::skip;

use super::counters::{number, write};
use super::sys::{self, PAGE};

const DEVICE: &str = "/dev/zram0";
const BYTES: u64 = 512 << 20;

/// Makes sure that there is swap; skips the test where the kernel has no compressed disk.
pub fn ensure() {
    if fs::read_to_string("/proc/swaps").expect("procfs").lines().count() > 1 {
        return;
    }
    // In some kernels the first is a part of the kernel itself.
    for name in ["lz4_compress", "lz4hc_compress", "zram"] {
        if name == "zram" || sys::module(name).exists() {
            load(name);
        }
    }
    write("/sys/block/zram0/disksize", &BYTES.to_string());
    let (header, mut page) = (header(), vec![0u8; PAGE]);
    page[1024..1024 + header.len()].copy_from_slice(&header);
    page[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    fs::write(DEVICE, page).expect("a disk that can be written");
    sys::swap_on(c"/dev/zram0").expect("a swap area");
}

fn load(name: &str) {
    let file = sys::module(name);
    if !file.exists() {
        skip(&format!("the host has no {}", file.display()));
    }
    sys::load_module(&file, c"").unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// Version, last page, bad pages of a swap area (linux/swap.h: union swap_header).
fn header() -> Vec<u8> {
    let last = (number("/sys/block/zram0/disksize") / PAGE as u64 - 1) as u32;
    [1, last, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}
