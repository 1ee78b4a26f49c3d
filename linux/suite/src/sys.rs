//! The system calls that the standard library lacks, each as a safe function: all that is unsafe
//! about talking to Linux is here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes an ioctl whose argument is a `T`, in and out.
///
/// # Safety
/// Any bytes must make a `T`, and every address in it must be good for what the kernel does with it.
pub unsafe fn ioctl<T>(file: &File, request: u32, argument: &mut T) -> Result<()> {
    assert_eq!((request >> 16 & 0x3fff) as usize, size_of::<T>(), "the request has another size");
    // SAFETY: the kernel reads and writes as many bytes as the request says, which is the size of a T;
    // the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            file.as_raw_fd(),
            u64::from(request),
            ptr::from_mut(argument),
        )
    };
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

    /// Adds to a doubleword in one step.
    pub fn add(&self, offset_bytes: usize, value: u64) {
        // SAFETY: as in `read`; the reference to an atomic lives for this step, and any bits are one.
        let word = unsafe { AtomicU64::from_ptr(self.word(offset_bytes)) };
        word.fetch_add(value, Ordering::Relaxed);
    }

    /// Has the kernel copy bytes of a file here.
    pub fn read_from(&self, offset_bytes: usize, byte_count: usize, file: &File) -> Result<usize> {
        assert!(byte_count <= self.byte_count - offset_bytes, "inside of the mapping");
        let start = self.word(offset_bytes).cast();
        // SAFETY: the kernel writes to the mapping, as others do.
        let count = unsafe { libc::read(file.as_raw_fd(), start, byte_count) };
        usize::try_from(count).map_err(|_| Error::last_os_error())
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

/// Returns the CPUs that are online.
pub fn online() -> Vec<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let number = |text: &str| text.parse::<usize>().ok();
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(number(first)?..=number(last)?)
    });
    ranges.flatten().collect()
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

/// Takes a capability away from all programs that this process will start (PR_CAPBSET_DROP).
pub fn drop_capability(number: u64) -> Result<()> {
    const CAPBSET_DROP: i32 = 24;
    prctl(CAPBSET_DROP, number).map(|_| ())
}

/// Fills memory by the instructions of FEAT_MOPS.
#[cfg(target_arch = "aarch64")]
pub fn set_by_instruction(bytes: &mut [u8], value: u8) {
    // SAFETY: writes the bytes of the slice, as many as there are. Where the CPU lacks the instructions
    // they are undefined, which ends the process and nothing else.
    unsafe {
        std::arch::asm!(
            ".arch_extension mops",
            "setp [x9]!, x10!, x11",
            "setm [x9]!, x10!, x11",
            "sete [x9]!, x10!, x11",
            ".arch_extension nomops",
            inout("x9") bytes.as_mut_ptr() => _, inout("x10") bytes.len() => _,
            in("x11") u64::from(value), options(nostack),
        );
    }
}

/// Says that there are no such instructions here: this only exists so that the suite builds anywhere.
#[cfg(not(target_arch = "aarch64"))]
pub fn set_by_instruction(_: &mut [u8], _: u8) {
    unimplemented!("the suite's tests run on arm64")
}

/// Waits without giving up the CPU's attention.
pub fn pause() {
    std::hint::spin_loop();
    std::thread::yield_now();
}

/// FPCR and FPSR, then V0 to V31.
pub type VectorRegisters = [u64; 66];

/// Loads the vector registers, makes an ioctl on a file, and returns what they hold then.
///
/// # Safety
/// As for [`ioctl`].
#[cfg(target_arch = "aarch64")]
pub unsafe fn vectors_across_ioctl<T>(
    file: &File,
    request: u32,
    argument: &mut T,
    before: &VectorRegisters,
) -> VectorRegisters {
    const IOCTL: u64 = 29;
    assert_eq!((request >> 16 & 0x3fff) as usize, size_of::<T>(), "the request has another size");
    let mut after = [0; 66];
    let result: i64;
    // SAFETY: `before` is read and `after` written within their bounds; the kernel reads and writes as
    // much of `argument` as it has; the rest is the caller's promise. All vector registers are named as
    // clobbered, FPCR and FPSR are put back.
    unsafe {
        std::arch::asm!(
            "mrs x11, fpcr", "mrs x12, fpsr",
            "ldp q0, q1, [x9, #16]", "ldp q2, q3, [x9, #48]", "ldp q4, q5, [x9, #80]",
            "ldp q6, q7, [x9, #112]", "ldp q8, q9, [x9, #144]", "ldp q10, q11, [x9, #176]",
            "ldp q12, q13, [x9, #208]", "ldp q14, q15, [x9, #240]", "ldp q16, q17, [x9, #272]",
            "ldp q18, q19, [x9, #304]", "ldp q20, q21, [x9, #336]", "ldp q22, q23, [x9, #368]",
            "ldp q24, q25, [x9, #400]", "ldp q26, q27, [x9, #432]", "ldp q28, q29, [x9, #464]",
            "ldp q30, q31, [x9, #496]",
            "ldp x13, x14, [x9]", "msr fpcr, x13", "msr fpsr, x14",
            "svc #0",
            "mrs x13, fpcr", "mrs x14, fpsr", "stp x13, x14, [x10]",
            "stp q0, q1, [x10, #16]", "stp q2, q3, [x10, #48]", "stp q4, q5, [x10, #80]",
            "stp q6, q7, [x10, #112]", "stp q8, q9, [x10, #144]", "stp q10, q11, [x10, #176]",
            "stp q12, q13, [x10, #208]", "stp q14, q15, [x10, #240]", "stp q16, q17, [x10, #272]",
            "stp q18, q19, [x10, #304]", "stp q20, q21, [x10, #336]", "stp q22, q23, [x10, #368]",
            "stp q24, q25, [x10, #400]", "stp q26, q27, [x10, #432]", "stp q28, q29, [x10, #464]",
            "stp q30, q31, [x10, #496]",
            "msr fpcr, x11", "msr fpsr, x12",
            inlateout("x0") i64::from(file.as_raw_fd()) => result,
            in("x1") u64::from(request), in("x2") ptr::from_mut(argument), in("x8") IOCTL,
            in("x9") before.as_ptr(), in("x10") after.as_mut_ptr(),
            out("x11") _, out("x12") _, out("x13") _, out("x14") _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
            out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _,
            out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _,
            out("v30") _, out("v31") _,
            options(nostack),
        );
    }
    assert_eq!(result, 0, "the ioctl failed");
    after
}

/// Says that there are no such registers here: this only exists so that the suite builds anywhere.
///
/// # Safety
/// It does nothing.
#[cfg(not(target_arch = "aarch64"))]
pub unsafe fn vectors_across_ioctl<T>(
    _: &File,
    _: u32,
    _: &mut T,
    _: &VectorRegisters,
) -> VectorRegisters {
    unimplemented!("the suite's tests run on arm64")
}
