//! What the host's own kernel does to all of its memory, the pages that guests were given for their tables among it.
//!
//! These pages belong to the firmware while they are away. Linux reads them all the same: past the end of a string,
//! in `/proc/kcore`, for a hibernation image. Each reader here once ended the host.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::Duration;

use verdigris_ktap::test_table;

use super::uapi::code::{CREATE_VCPU, CREATE_VM, device, errno, file};
use crate::inside::counters::{Counters, is_verdigris, number};
use crate::inside::sys::{self, PAGE, ioctl_number};

test_table! { "kernel", 120:
    kcore_reads_all_of_memory, names_end_where_pages_do, hibernation_waits_for_the_last_vm,
}

/// Makes a VM with vCPUs, which gives pages of many places to the firmware.
fn large_vm() -> Vec<OwnedFd> {
    let vm = file(device().as_raw_fd(), CREATE_VM, 0).expect("a VM");
    let vcpus = (0..64).map(|index| file(vm.as_raw_fd(), CREATE_VCPU, index).expect("a vCPU"));
    let vcpus: Vec<_> = vcpus.collect();
    vcpus.into_iter().chain([vm]).collect()
}

/// Pages that the driver of Verdigris tells are away.
fn donated_pages() -> u64 {
    number("/sys/kernel/debug/verdigris/donated_pages")
}

/// Counts the pages that the kernel marks as offline (Documentation/admin-guide/mm/pagemap.rst).
fn offline_pages() -> u64 {
    let ram = crate::inside::next::Ram::read().expect("/proc/iomem");
    let frames = |range: Range<u64>| range.start / PAGE as u64..range.end / PAGE as u64;
    ram.ranges.into_iter().map(|range| offline_pages_of(&frames(range))).sum()
}

/// Counts those of some page frames.
pub fn offline_pages_of(frames: &Range<u64>) -> u64 {
    const KPF_OFFLINE: u64 = 1 << 23;
    let flags = File::open("/proc/kpageflags").expect("/proc/kpageflags");
    let mut bytes = vec![0; (frames.end - frames.start) as usize * 8];
    let read = flags.read_at(&mut bytes, frames.start * 8).expect("flags of pages");
    let words = bytes[..read].chunks_exact(8);
    let words = words.map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    words.filter(|word| word & KPF_OFFLINE != 0).count() as u64
}

/// A segment of /proc/kcore: where it is in the file, its physical address, its size.
struct Segment {
    at: u64,
    physical: u64,
    bytes: u64,
}

fn segments(kcore: &mut File) -> Vec<Segment> {
    let mut header = [0; 64];
    kcore.read_exact(&mut header).expect("a header");
    let half = |at: usize| u16::from_le_bytes(header[at..at + 2].try_into().expect("2 bytes"));
    let (size, count) = (usize::from(half(54)), usize::from(half(56)));
    let mut table = vec![0; size * count];
    kcore.read_exact(&mut table).expect("segments");
    let word = |entry: &[u8], at: usize| {
        u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"))
    };
    let load = |entry: &&[u8]| entry[..4] == 1u32.to_le_bytes();
    let entries = table.chunks_exact(size).filter(load);
    entries
        .map(|entry| Segment {
            at: word(entry, 8),
            physical: word(entry, 24),
            bytes: word(entry, 32),
        })
        .collect()
}

/// All of RAM can be read through /proc/kcore; what is away is marked, so that it is left out.
fn kcore_reads_all_of_memory() {
    const CHUNK: usize = 1 << 20;
    let before = is_verdigris().then(offline_pages);
    let vm = large_vm();
    if let Some(before) = before {
        let (donated, offline) = (donated_pages(), offline_pages());
        assert!(donated > 64, "only {donated} pages were donated");
        assert_eq!(offline - before, donated, "pages that are marked");
    }
    let mut kcore = File::open("/proc/kcore").expect("/proc/kcore");
    let ram = crate::inside::next::Ram::read().expect("/proc/iomem").ranges;
    let mut done = 0;
    let mut room = vec![0; CHUNK];
    for segment in segments(&mut kcore) {
        if !ram.iter().any(|range| range.contains(&segment.physical)) {
            continue;
        }
        kcore.seek(SeekFrom::Start(segment.at)).expect("a place");
        let mut left = segment.bytes as usize;
        while left > 0 {
            let part = left.min(CHUNK);
            kcore.read_exact(&mut room[..part]).expect("memory");
            left -= part;
            done += part as u64;
        }
    }
    let total = Counters::read("/proc/meminfo").get("MemTotal") << 10;
    assert!(done >= total, "{done} bytes were read of {total}");
    drop(vm);
    if let Some(before) = before {
        crate::inside::counters::wait_until("the marks are gone", || offline_pages() == before);
    }
}

/// The longest string that ends with the page that the kernel copies names to (struct filename, linux/fs.h).
const NAME_BYTES: usize = 4063;

/// Makes a path of that length, of steps that lead nowhere.
fn long_path(folder: &str, name: &str) -> CString {
    let mut path = folder.to_owned();
    if !(NAME_BYTES - name.len() - path.len()).is_multiple_of(2) {
        path.push('/');
    }
    while path.len() < NAME_BYTES - name.len() {
        path.push_str("./");
    }
    path.push_str(name);
    assert_eq!(path.len(), NAME_BYTES);
    CString::new(path).expect("no byte is 0")
}

/// Opens a FIFO that nobody writes, in a thread: while it waits, the kernel keeps the name's page.
fn wait_at(path: &CString) {
    let path = path.clone();
    let open = move || {
        // SAFETY: a C string.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
        if fd >= 0 {
            // SAFETY: the descriptor was opened just now.
            unsafe { libc::close(fd) };
        }
    };
    thread::Builder::new().stack_size(64 << 10).spawn(open).expect("a thread");
}

/// Lets whoever waits at a FIFO go on.
fn release(path: &str) {
    let writer =
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).expect("a FIFO");
    thread::sleep(Duration::from_millis(100));
    drop(writer);
    thread::sleep(Duration::from_millis(100));
}

/// Looks up paths whose last bytes are the last of a page, as a user without rights does, while the pages around are
/// donated and come back. The kernel reads eight bytes at a time, past the end of the string and of the page
/// (`load_unaligned_zeropad()`, arch/arm64/include/asm/word-at-a-time.h).
fn names_end_where_pages_do() {
    const FOLDER: &str = "/tmp/names/";
    fs::create_dir_all(FOLDER).expect("a folder");
    let names = ["one", "two"].map(|name| format!("{FOLDER}{name}"));
    for name in &names {
        let path = CString::new(name.as_str()).expect("no byte is 0");
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o666) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::chmod(path.as_ptr(), 0o666) }, 0);
    }
    let child = sys::fork(|| look_names_up(FOLDER, &names)).expect("a child");
    let status = sys::wait_for(child).expect("a status");
    fs::remove_dir_all(FOLDER).expect("the folder");
    assert_eq!(status, 0, "the user's process failed");
}

fn look_names_up(folder: &str, names: &[String; 2]) -> i32 {
    let kvm = device();
    // SAFETY: numbers only.
    assert_eq!(unsafe { (libc::setgid(65534), libc::setuid(65534)) }, (0, 0));
    let [one, two] = ["one", "two"].map(|name| long_path(folder, name));
    let mut kept = Vec::new();
    for _ in 0..40 {
        // About one slab of names; one of them stays.
        (0..8).for_each(|index| wait_at(if index == 0 { &two } else { &one }));
        thread::sleep(Duration::from_millis(3));
        let vm = file(kvm.as_raw_fd(), CREATE_VM, 0).expect("a VM");
        for index in 0..8 {
            kept.push(file(vm.as_raw_fd(), CREATE_VCPU, index).expect("a vCPU"));
        }
        kept.push(vm);
    }
    for _ in 0..3 {
        release(&names[0]);
        (0..300).for_each(|_| wait_at(&one));
        thread::sleep(Duration::from_millis(200));
    }
    names.iter().for_each(|name| release(name));
    0
}

/// Calls of /dev/snapshot (linux/suspend_ioctls.h).
const FREEZE: u64 = 0x3301;
const UNFREEZE: u64 = 0x3302;
const FREE: u64 = 0x3305;
/// `_IOW(SNAPSHOT_IOC_MAGIC, 17, int)`
const CREATE_IMAGE: u64 = sys::request::<i32>(sys::WRITE, 0x33, 17);

/// Makes a hibernation image, which is then thrown away.
fn make_image() -> Result<()> {
    let snapshot = File::open("/dev/snapshot")?;
    let fd = snapshot.as_raw_fd();
    ioctl_number(fd, FREEZE, 0)?;
    let mut in_suspend = 0i32;
    // SAFETY: the call writes an int.
    let made = unsafe { sys::ioctl(fd, CREATE_IMAGE, &mut in_suspend) };
    ioctl_number(fd, FREE, 0)?;
    ioctl_number(fd, UNFREEZE, 0)?;
    made?;
    assert_eq!(in_suspend, 1, "this is no kernel that was restored");
    Ok(())
}

/// No image has what the firmware has of a VM: so there is none while VMs live, and no VM meanwhile. Linux's KVM,
/// which has all in the kernel's memory, makes one.
fn hibernation_waits_for_the_last_vm() {
    let vm = large_vm();
    let made = make_image();
    if is_verdigris() {
        assert_eq!(errno(made), libc::EBUSY);
    } else {
        made.expect("an image");
    }
    drop(vm);
    thread::sleep(Duration::from_millis(200));
    make_image().expect("an image without a VM");
    drop(large_vm());
}
