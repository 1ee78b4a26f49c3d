//! The system calls that the standard library lacks, each as a safe function: all that is unsafe
//! about talking to Linux is here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

/// Makes an ioctl whose argument is a `T`, in and out.
///
/// # Safety
/// Any bytes must make a `T`, and every address in it must be good for what the kernel does with it.
pub unsafe fn ioctl<T>(file: &File, request: u32, argument: &mut T) -> Result<()> {
    assert_eq!((request >> 16 & 0x3fff) as usize, size_of::<T>(), "the request has another size");
    // SAFETY: the kernel reads and writes as many bytes as the request says, which is the size of a T;
    // the rest is the caller's promise.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, ptr::from_mut(argument)) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Memory of a device, shared with whoever else the device shows it to.
///
/// It is never lent as a Rust reference: guests write it at any moment.
pub struct Mapping {
    start: NonNull<u8>,
    byte_count: usize,
}

// SAFETY: all access is by volatile operations on raw memory; nothing belongs to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; a race is one between processors, not one in the Rust memory model's objects.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `byte_count` bytes of a file at `offset`.
    pub fn new(file: &File, offset: u64, byte_count: usize) -> Result<Self> {
        let (protection, offset) = (libc::PROT_READ | libc::PROT_WRITE, offset.cast_signed());
        // SAFETY: the kernel chooses an unused address.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                byte_count,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap returns no null");
        Ok(Self { start, byte_count })
    }

    fn word(&self, offset_bytes: usize) -> *mut u64 {
        assert!(offset_bytes.is_multiple_of(8) && offset_bytes <= self.byte_count - 8);
        self.start.as_ptr().wrapping_add(offset_bytes).cast()
    }

    /// Reads a doubleword.
    pub fn read(&self, offset_bytes: usize) -> u64 {
        // SAFETY: `word` is aligned and inside of the mapping, which lives as long as self.
        unsafe { self.word(offset_bytes).read_volatile() }
    }

    /// Writes a doubleword.
    pub fn write(&self, offset_bytes: usize, value: u64) {
        // SAFETY: as in `read`.
        unsafe { self.word(offset_bytes).write_volatile(value) }
    }

    /// Returns the number of bytes.
    pub fn byte_count(&self) -> usize {
        self.byte_count
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's, and no pointer into it was handed out.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.byte_count) };
    }
}

/// Binds the calling thread to one CPU.
pub fn run_on(cpu: usize) -> Result<()> {
    // SAFETY: an empty set is all zeros; CPU_SET checks the index.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Lets the calling thread run on every CPU there may be.
pub fn run_anywhere() -> Result<()> {
    // SAFETY: as in `run_on`.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in 0..libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Returns the CPUs that the calling thread may run on.
pub fn cpus() -> Vec<usize> {
    // SAFETY: the kernel fills at most as many bytes as it is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

/// Reads a value of the auxiliary vector.
pub fn auxiliary(kind: u64) -> u64 {
    // SAFETY: reads a table that the C library keeps.
    unsafe { libc::getauxval(kind as _) as u64 }
}

/// Makes a prctl with one argument, for the options that take no address.
pub fn prctl(option: i32, argument: u64) -> Result<i32> {
    // SAFETY: the callers' options (vector lengths) take plain numbers.
    let result = unsafe { libc::prctl(option, argument, 0, 0, 0) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Ends a process of ours by SIGKILL.
pub fn kill(process: u32) -> Result<()> {
    // SAFETY: signals have no memory.
    let result = unsafe { libc::kill(process.cast_signed(), libc::SIGKILL) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Waits without giving up the CPU's attention.
pub fn pause() {
    std::hint::spin_loop();
    std::thread::yield_now();
}
