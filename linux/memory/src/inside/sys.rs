//! System calls as safe functions: what is unsafe about talking to Linux is here and in [`super::region`].
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a block: what one entry of the last but one level maps.
pub const BLOCK: usize = 2 << 20;

/// MADV_COLLAPSE (asm-generic/mman-common.h).
pub const COLLAPSE: i32 = 25;

/// Turns the result of a system call into a `Result`.
pub fn check(result: i64) -> Result<i64> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Makes an ioctl whose argument is a `T`, in and out; returns its result.
///
/// # Safety
/// Any bytes must make a `T`, the request must move no more than a `T`, and every address in it must be good for
/// what the kernel does with it.
pub unsafe fn ioctl<T>(fd: RawFd, request: u64, argument: &mut T) -> Result<i64> {
    // SAFETY: the caller's promise.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd, request, std::ptr::from_mut(argument)) })
}

/// Makes an ioctl whose argument is a number.
pub fn ioctl_number(fd: RawFd, request: u64, argument: u64) -> Result<i64> {
    // SAFETY: callers' requests take a plain number, so nothing is followed.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) })
}

/// The number of an ioctl: direction, size, magic, number (asm-generic/ioctl.h).
pub const fn request<T>(direction: u64, magic: u64, number: u64) -> u64 {
    direction << 30 | (size_of::<T>() as u64) << 16 | magic << 8 | number
}
/// Directions of [`request`].
pub const WRITE: u64 = 1;
/// See [`WRITE`].
pub const READ: u64 = 2;

/// Makes a file that lives in memory only.
pub fn memfd(huge: bool) -> Result<File> {
    let flags = libc::MFD_CLOEXEC | if huge { libc::MFD_HUGETLB } else { 0 };
    // SAFETY: the name is a C string; the descriptor that comes back is ours.
    let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), flags) };
    check(fd.into())?;
    // SAFETY: as above.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Cuts a hole into a file.
pub fn punch_hole(file: &File, offset: usize, bytes: usize) -> Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: numbers only.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, bytes as i64) }.into())
        .map(|_| ())
}

/// Returns the number of the calling thread.
pub fn thread_number() -> i32 {
    // SAFETY: it has no arguments.
    unsafe { libc::gettid() }
}

/// Sends a signal to a thread of this process; one that has ended is no error.
pub fn signal_thread(thread: i32, signal: i32) {
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
}

/// Sends a signal to a thread of another process.
pub fn signal_thread_of(process: i32, thread: i32, signal: i32) {
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}

/// Sends a signal to a process.
pub fn signal_process(process: i32, signal: i32) {
    // SAFETY: numbers only.
    unsafe { libc::kill(process, signal) };
}

extern "C" fn nothing(_: i32) {}

/// Lets SIGUSR1 interrupt system calls, and do nothing else.
pub fn make_interruptible() {
    // SAFETY: the handler does nothing; without SA_RESTART a system call ends by it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
}

static BUS_ADDRESS: AtomicU64 = AtomicU64::new(0);
static BUS_CODE: AtomicU64 = AtomicU64::new(0);
static BUS_COUNT: AtomicU64 = AtomicU64::new(0);

extern "C" fn bus_error(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands the handler a siginfo of SIGBUS, which has an address.
    let (address, code) = unsafe { ((*info).si_addr() as u64, (*info).si_code as u64) };
    // SAFETY: two calls without arguments, that a handler may make.
    if unsafe { libc::gettid() == libc::getpid() } {
        return;
    }
    BUS_ADDRESS.store(address, SeqCst);
    BUS_CODE.store(code, SeqCst);
    BUS_COUNT.fetch_add(1, SeqCst);
}

/// Lets SIGBUS be noted instead of ending the process. A thread that makes such an access itself would be
/// interrupted for ever: only vCPUs are meant to.
pub fn note_bus_errors() {
    // SAFETY: the handler stores to atomics only.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

/// How many bus errors there were; address and code of the last. The process's first thread doesn't count: it runs no
/// vCPU, and calls for MADV_HWPOISON, of which newer kernels tell the caller too.
pub fn bus_errors() -> (u64, u64, u64) {
    (BUS_COUNT.load(SeqCst), BUS_ADDRESS.load(SeqCst), BUS_CODE.load(SeqCst))
}

/// Forks; the child does `work` and leaves without returning. Returns its process number.
///
/// The child has one thread and a copy of memory in whatever state: it must not allocate or take locks.
pub fn fork(work: impl FnOnce() -> i32) -> Result<i32> {
    // SAFETY: callers keep to what the child may do; _exit runs nothing of ours.
    unsafe {
        let process = libc::fork();
        if process == 0 {
            let status = work();
            libc::_exit(status);
        }
        check(process.into()).map(|process| process as i32)
    }
}

/// Takes a copy of a file that another process has open.
pub fn file_of(process: i32, fd: i32) -> Result<File> {
    // SAFETY: numbers only; the descriptors that come back are ours.
    unsafe {
        let process = check(libc::syscall(libc::SYS_pidfd_open, process, 0))? as i32;
        let copy = check(libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0));
        libc::close(process);
        copy.map(|copy| File::from_raw_fd(copy as i32))
    }
}

/// Waits for a child and returns its status as of waitpid.
pub fn wait_for(process: i32) -> Result<i32> {
    let mut status = 0;
    // SAFETY: the status is ours to write.
    check(unsafe { libc::waitpid(process, &raw mut status, 0) }.into()).map(|_| status)
}

/// Asks for advice to be taken by address and process (process_madvise), on this very process.
pub fn advise_self(start: usize, bytes: usize, advice: i32) -> Result<usize> {
    let part = libc::iovec { iov_base: start as *mut _, iov_len: bytes };
    // SAFETY: the kernel reads one iovec; what it may do to the range is the same as madvise, whose callers
    // are in `region`, and the advice that this call takes (COLD, PAGEOUT, COLLAPSE) loses no data.
    unsafe {
        let process = check(libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0))? as i32;
        let done = libc::syscall(libc::SYS_process_madvise, process, &raw const part, 1, advice, 0);
        let done = check(done);
        libc::close(process);
        done.map(|done| done as usize)
    }
}

/// Waits for a grace period of RCU: a memory barrier on all CPUs is made of one.
pub fn synchronize_rcu() -> Result<()> {
    const GLOBAL: i32 = 1;
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) }).map(|_| ())
}

/// Mounts the files of ftrace where they belong, unless they are there already.
pub fn mount_tracefs() -> Result<()> {
    let (kind, at) = (c"tracefs".as_ptr(), c"/sys/kernel/tracing".as_ptr());
    // SAFETY: C strings, and no data.
    match check(unsafe { libc::mount(kind, at, kind, 0, std::ptr::null()) }.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Sets up a swap area on a block device.
pub fn swap_on(path: &std::ffi::CStr) -> Result<()> {
    // SAFETY: a C string and a number.
    check(unsafe { libc::swapon(path.as_ptr(), 0) }.into()).map(|_| ())
}

/// Loads a module of the kernel, unless it is there already.
pub fn load_module(path: &std::path::Path, arguments: &std::ffi::CStr) -> Result<()> {
    let file = File::open(path)?;
    // SAFETY: a descriptor, a C string and a number.
    let result = check(unsafe {
        libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), arguments.as_ptr(), 0)
    });
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Returns where the host's root has a module of its own kernel's.
pub fn module(name: &str) -> std::path::PathBuf {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    std::path::Path::new("/lib/modules").join(release.trim()).join(format!("{name}.ko"))
}

/// Makes pages that were called bad good again, through the module that tests of poison use.
pub fn give_back(frames: &[u64]) {
    let module = module("hwpoison_inject");
    load_module(&module, c"").unwrap_or_else(|error| panic!("{}: {error}", module.display()));
    for frame in frames {
        super::counters::write("/sys/kernel/debug/hwpoison/unpoison-pfn", &frame.to_string());
    }
}

/// Moves pages of this process to a node; returns where each is then, or its negative error.
pub fn move_pages(addresses: &[usize], node: i32) -> Result<Vec<i32>> {
    const MOVE_ALL: i32 = 4;
    let (nodes, mut status) = (vec![node; addresses.len()], vec![0i32; addresses.len()]);
    // SAFETY: the three arrays have an element for each address; pages keep their content.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            addresses.len(),
            addresses.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            MOVE_ALL,
        )
    })?;
    Ok(status)
}

/// Returns on which node each page of this process is, or a negative error.
pub fn nodes_of(addresses: &[usize]) -> Result<Vec<i32>> {
    let (mut status, none) = (vec![0i32; addresses.len()], std::ptr::null::<i32>());
    // SAFETY: the arrays have an element for each address; without nodes to go to, nothing moves.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            addresses.len(),
            addresses.as_ptr(),
            none,
            status.as_mut_ptr(),
            0,
        )
    })?;
    Ok(status)
}

/// Moves all pages of this process from one node to another.
pub fn migrate_self(from: i32, to: i32) -> Result<()> {
    let (from, to) = (1u64 << from, 1u64 << to);
    // SAFETY: two masks of 64 nodes; pages keep their content.
    check(unsafe { libc::syscall(libc::SYS_migrate_pages, 0, 64, &raw const from, &raw const to) })
        .map(|_| ())
}
