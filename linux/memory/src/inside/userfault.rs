//! Faults that this process serves itself (Documentation/admin-guide/mm/userfaultfd.rst).
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Result};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};

use super::region::Region;
use super::sys::{self, PAGE, READ, WRITE, check, request};

const MAGIC: u64 = 0xaa;
const API: u64 = 0xaa;
/// Modes of registration.
pub const MISSING: u64 = 1;
/// See [`MISSING`].
pub const PROTECTED: u64 = 2;
/// See [`MISSING`].
pub const MINOR: u64 = 4;

const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;

#[repr(C)]
struct Handshake {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Part {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    part: Part,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct Continue {
    part: Part,
    mode: u64,
    mapped: i64,
}

#[repr(C)]
struct Protect {
    part: Part,
    mode: u64,
}

/// A fault that waits to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The address, rounded to its page.
    pub address: usize,
    /// It met a page that may not be written yet.
    pub is_protected: bool,
    /// The page is there, but not mapped.
    pub is_minor: bool,
}

/// The file by which faults come.
pub struct Userfault {
    file: File,
}

impl Userfault {
    /// Opens it. Without O_NONBLOCK it could not be waited for with a limit.
    pub fn new() -> Result<Self> {
        // SAFETY: flags only; the descriptor is ours.
        let file = unsafe {
            let fd =
                check(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK))?;
            File::from_raw_fd(fd as i32)
        };
        let features = FEATURE_MISSING_SHMEM | FEATURE_MINOR_SHMEM | FEATURE_WP_HUGETLBFS_SHMEM;
        let userfault = Self { file };
        userfault.call(0x3f, &mut Handshake { api: API, features, ioctls: 0 })?;
        Ok(userfault)
    }

    fn call<T>(&self, number: u64, argument: &mut T) -> Result<()> {
        let request = request::<T>(READ | WRITE, MAGIC, number);
        // SAFETY: the structures are those of linux/userfaultfd.h. What they name is memory of regions,
        // which nobody holds references to, and as source of a copy a page that lives for the call.
        unsafe { sys::ioctl(self.file.as_raw_fd(), request, argument) }.map(|_| ())
    }

    /// Asks for the faults of a part of a region.
    pub fn register(&self, region: &Region, part: Range<usize>, mode: u64) -> Result<()> {
        self.call(0x00, &mut Register { part: range(region, &part), mode, ioctls: 0 })
    }

    /// Wants no faults of a part any more.
    pub fn unregister(&self, region: &Region, part: Range<usize>) -> Result<()> {
        let mut part = range(region, &part);
        let request = request::<Part>(READ, MAGIC, 1);
        // SAFETY: as in `call`.
        unsafe { sys::ioctl(self.file.as_raw_fd(), request, &mut part) }.map(|_| ())
    }

    /// Waits for a fault; none, if there was no fault for so many milliseconds.
    pub fn next(&self, milliseconds: i32) -> Option<Fault> {
        let mut poll = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, ours.
        if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } <= 0 {
            return None;
        }
        // struct uffd_msg: event at 0, then for a fault flags at 8, address at 16.
        let mut message = [0u8; 32];
        (&self.file).read_exact(&mut message).ok()?;
        const PAGE_FAULT: u8 = 0x12;
        assert_eq!(message[0], PAGE_FAULT, "a message that nobody asked for");
        let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().expect("8 bytes"));
        let (flags, address) = (word(8), word(16) as usize / PAGE * PAGE);
        Some(Fault { address, is_protected: flags & 2 != 0, is_minor: flags & 4 != 0 })
    }

    /// Puts a page in the place of a fault.
    pub fn copy(&self, to: usize, page: &[u64]) -> Result<()> {
        assert_eq!(size_of_val(page), PAGE);
        let from = page.as_ptr().expose_provenance() as u64;
        let mut copy = Copy { to: to as u64, from, len: PAGE as u64, mode: 0, copied: 0 };
        unless_there(self.call(0x03, &mut copy))
    }

    /// Maps the page that the file has.
    pub fn go_on(&self, at: usize) -> Result<()> {
        let part = Part { start: at as u64, len: PAGE as u64 };
        unless_there(self.call(0x07, &mut Continue { part, mode: 0, mapped: 0 }))
    }

    /// Forbids or allows writing of a part.
    pub fn protect(&self, region: &Region, part: Range<usize>, forbid: bool) -> Result<()> {
        let mode = u64::from(forbid);
        self.call(0x06, &mut Protect { part: range(region, &part), mode })
    }
}

/// Two faults of one page may both have been told: the second finds the page there.
fn unless_there(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn range(region: &Region, part: &Range<usize>) -> Part {
    Part { start: region.address(part.start) as u64, len: part.len() as u64 }
}
