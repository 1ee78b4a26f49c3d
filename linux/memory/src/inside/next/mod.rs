//! Starts another kernel while a guest runs: by kexec, or as a crash kernel after a panic.
//!
//! The next kernel finds the memory that this one had. So whatever a VM of this one was given must be
//! the host's again, or must at least read as something, by then. `kexec_load` takes all parts from
//! user space: the kernel, a root, a device tree, the few instructions between, and for a crash kernel
//! the description of the memory that it is to show in `/proc/vmcore`.
#![allow(unsafe_code)]

mod elf;
mod guests;
mod memory;
mod root;
mod tree;

use std::ffi::c_void;
use std::fs;
use std::io::{Error, Result};
use std::ops::Range;

pub use self::memory::{Ram, range_of};

/// The kernel that the next one is, in the host's root.
const IMAGE: &str = "/boot/Image";
const PAGE_BYTES: u64 = 4096;
/// Parts begin at multiples of this (Documentation/arch/arm64/booting.rst asks it of the kernel).
const PART_BYTES: u64 = 2 << 20;

/// How the next kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// At once, in place of this one.
    Kexec,
    /// After a panic of this one, in memory that was kept for it.
    Crash,
}

/// A part of what is loaded (struct kexec_segment, linux/kexec.h).
#[repr(C)]
struct Segment {
    bytes: *const c_void,
    byte_count: usize,
    at: u64,
    room: u64,
}

/// Where each part goes.
struct Places {
    kernel: u64,
    root: Range<u64>,
    tree: u64,
    entry: u64,
    elf: u64,
}

impl Places {
    fn new(free: &Range<u64>, kernel: &[u8], root_bytes: u64) -> Self {
        let word = |at: usize| u64::from_le_bytes(kernel[at..at + 8].try_into().expect("8 bytes"));
        // text_offset and image_size.
        let (offset, size) = (word(8), word(16));
        let kernel = free.start.next_multiple_of(PART_BYTES) + offset;
        let root = (kernel + size).next_multiple_of(PART_BYTES);
        let tree = (root + root_bytes).next_multiple_of(PART_BYTES);
        let places = Self {
            kernel,
            root: root..root + root_bytes,
            tree,
            entry: tree + PART_BYTES,
            elf: tree + PART_BYTES + PAGE_BYTES,
        };
        assert!(places.elf + elf::BYTES <= free.end, "no room for a kernel in {free:#x?}");
        places
    }
}

/// Starts the next kernel, with a root like this one's that does `command`, while guests run.
/// Returns only if it can't.
pub fn start(way: Way, command: &str) -> Error {
    let result = load(way, command).and_then(|()| {
        guests::run()?;
        println!("another kernel is loaded, and guests run");
        match way {
            Way::Kexec => leave(),
            Way::Crash => fs::write("/proc/sysrq-trigger", "c"),
        }
    });
    result.err().unwrap_or_else(|| Error::other("the kernel goes on"))
}

/// Leaves to the kernel that is loaded.
fn leave() -> Result<()> {
    // SAFETY: it doesn't return, but for an error.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_KEXEC) };
    Err(Error::last_os_error())
}

fn load(way: Way, command: &str) -> Result<()> {
    let ram = Ram::read()?;
    let free = match way {
        Way::Kexec => ram.inner(),
        Way::Crash => ram.crash.clone().ok_or_else(|| Error::other("no crashkernel= memory"))?,
    };
    let kernel = fs::read(IMAGE)?;
    let root = root::like_this(command, way == Way::Kexec)?;
    let places = Places::new(&free, &kernel, root.len() as u64);
    let core = elf::header(&ram)?;
    let chosen = tree::Chosen {
        arguments: arguments(way),
        root: places.root.clone(),
        crash: (way == Way::Crash).then(|| (free, places.elf..places.elf + elf::BYTES)),
    };
    let tree = tree::for_next(&chosen)?;
    let entry = entry(places.tree, places.kernel);
    let image_bytes = u64::from_le_bytes(kernel[16..24].try_into().expect("8 bytes"));
    let mut segments = vec![
        segment(&kernel, places.kernel, image_bytes),
        segment(&root, places.root.start, 0),
        segment(&tree, places.tree, 0),
        segment(&entry, places.entry, 0),
    ];
    if way == Way::Crash {
        segments.push(segment(&core, places.elf, 0));
    }
    kexec_load(way, places.entry, &segments)
}

/// The command line of the next kernel; the one after a kexec keeps memory for one after a crash.
fn arguments(way: Way) -> &'static str {
    match way {
        Way::Kexec => "console=ttyAMA0 loglevel=5 rdinit=/init panic=-1 crashkernel=512M",
        Way::Crash => "console=ttyAMA0 loglevel=5 rdinit=/init panic=-1 nr_cpus=1",
    }
}

fn segment(bytes: &[u8], at: u64, room: u64) -> Segment {
    let room = room.max(bytes.len() as u64).next_multiple_of(PAGE_BYTES);
    Segment { bytes: bytes.as_ptr().cast(), byte_count: bytes.len(), at, room }
}

/// What runs between the kernels: `ldr x0, tree; ldr x17, kernel; mov x1, #0; br x17`, then both words.
fn entry(tree: u64, kernel: u64) -> Vec<u8> {
    const CODE: [u32; 4] = [0x5800_0080, 0x5800_00b1, 0xd280_0001, 0xd61f_0220];
    let code = CODE.iter().flat_map(|word| word.to_le_bytes());
    code.chain([tree, kernel].into_iter().flat_map(u64::to_le_bytes)).collect()
}

fn kexec_load(way: Way, entry: u64, segments: &[Segment]) -> Result<()> {
    /// KEXEC_ARCH_AARCH64, and KEXEC_ON_CRASH (linux/kexec.h).
    const ARCH: u64 = 183 << 16;
    const ON_CRASH: u64 = 1;
    let flags = ARCH | if way == Way::Crash { ON_CRASH } else { 0 };
    // SAFETY: each segment's bytes live until the call has copied them.
    let result = unsafe {
        libc::syscall(libc::SYS_kexec_load, entry, segments.len(), segments.as_ptr(), flags)
    };
    super::sys::check(result).map(|_| ())
}

/// Writes nearly all memory that is free, and reads it back: what isn't the host's denies it.
pub fn touch_memory() -> Result<()> {
    let free = super::counters::Counters::read("/proc/meminfo").get("MemAvailable") << 10;
    let bytes = (free / 10 * 9) as usize;
    let memory = super::region::Region::new(super::region::Kind::Pages, bytes / 4096 * 4096)?;
    for at in (0..memory.bytes()).step_by(PAGE_BYTES as usize) {
        memory.write(at, at as u64);
    }
    for at in (0..memory.bytes()).step_by(PAGE_BYTES as usize) {
        assert_eq!(memory.read(at), at as u64, "the page {at:#x} has changed by itself");
    }
    println!("{} MiB of memory can be written", bytes >> 20);
    Ok(())
}
