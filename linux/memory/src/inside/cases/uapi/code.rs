//! Guests of a few instructions, and the calls of the interface as they are.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Result;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use kvm_bindings::{KVMIO, kvm_one_reg, kvm_run, kvm_userspace_memory_region, kvm_vcpu_init};

use crate::inside::region::{Kind, Region};
use crate::inside::sys::{self, PAGE, READ, WRITE, request};

/// Calls without a structure (linux/kvm.h).
pub const GET_API_VERSION: u64 = plain(0x00);
/// See [`GET_API_VERSION`].
pub const CREATE_VM: u64 = plain(0x01);
/// See [`GET_API_VERSION`].
pub const CHECK_EXTENSION: u64 = plain(0x03);
/// See [`GET_API_VERSION`].
pub const GET_VCPU_MMAP_SIZE: u64 = plain(0x04);
/// See [`GET_API_VERSION`].
pub const CREATE_VCPU: u64 = plain(0x41);
/// See [`GET_API_VERSION`].
pub const RUN: u64 = plain(0x80);
/// See [`GET_API_VERSION`].
pub const GET_STATS_FD: u64 = plain(0xce);

/// KVM_ARM_VCPU_* (asm/kvm.h).
pub const POWER_OFF: u32 = 1 << 0;
/// See [`POWER_OFF`].
pub const PSCI_0_2: u32 = 1 << 2;

/// Where the code is, and its first instruction.
pub const CODE: u64 = 0x1000_0000;
/// An address that no slot covers.
pub const DEVICE: u64 = 0x0900_0000;

/// KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE: words of struct kvm_regs are added.
pub const CORE: u64 = 0x6030_0000_0010_0000;
/// The address of the next instruction.
pub const PC: u64 = CORE + 64;

/// Builds the number of a call without a structure.
pub const fn plain(number: u64) -> u64 {
    (KVMIO as u64) << 8 | number
}

/// Returns the number of x0 to x30.
pub const fn x(index: u64) -> u64 {
    CORE + 2 * index
}

/// Opens the device.
pub fn device() -> File {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").expect("/dev/kvm")
}

/// Makes a call that returns a file.
pub fn file(fd: RawFd, call: u64, argument: u64) -> Result<OwnedFd> {
    let fd = sys::ioctl_number(fd, call, argument)?;
    // SAFETY: the call has made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Returns the error of a call that has to fail.
pub fn errno<T: std::fmt::Debug>(result: Result<T>) -> i32 {
    result.expect_err("an error").raw_os_error().expect("of a system call")
}

/// Makes a VM with the default type.
pub fn vm() -> OwnedFd {
    file(device().as_raw_fd(), CREATE_VM, 0).expect("a VM")
}

/// Initialises a vCPU.
pub fn init(vcpu: &impl AsRawFd, target: u32, features: [u32; 7]) -> Result<()> {
    let mut init = kvm_vcpu_init { target, features };
    let call = request::<kvm_vcpu_init>(WRITE, KVMIO.into(), 0xae);
    // SAFETY: numbers only.
    unsafe { sys::ioctl(vcpu.as_raw_fd(), call, &mut init) }.map(|_| ())
}

/// KVM_ARM_TARGET_GENERIC_V8.
pub const GENERIC: u32 = 5;

fn one_reg(vcpu: RawFd, number: u64, id: u64, bytes: &mut [u8]) -> Result<()> {
    let size = 1usize << (id >> 52 & 0xf);
    assert!(bytes.len() >= size, "a buffer of {} for {size} bytes", bytes.len());
    let mut reg = kvm_one_reg { id, addr: bytes.as_mut_ptr() as u64 };
    let call = request::<kvm_one_reg>(WRITE, KVMIO.into(), number);
    // SAFETY: the buffer is as large as the identifier says.
    unsafe { sys::ioctl(vcpu, call, &mut reg) }.map(|_| ())
}

/// Reads a register of any size.
pub fn get(vcpu: &impl AsRawFd, id: u64) -> Result<u128> {
    let mut bytes = [0; 2048];
    one_reg(vcpu.as_raw_fd(), 0xab, id, &mut bytes)?;
    Ok(u128::from_le_bytes(bytes[..16].try_into().expect("16 bytes")))
}

/// Writes a register of any size.
pub fn set(vcpu: &impl AsRawFd, id: u64, value: u128) -> Result<()> {
    let mut bytes = [0; 2048];
    bytes[..16].copy_from_slice(&value.to_le_bytes());
    one_reg(vcpu.as_raw_fd(), 0xac, id, &mut bytes)
}

/// Lists the registers; with too little room it is the error, and how much it takes.
pub fn list(vcpu: &impl AsRawFd, room: usize) -> (Result<()>, Vec<u64>) {
    let mut words = vec![0u64; 1 + room];
    words[0] = room as u64;
    let call = request::<u64>(READ | WRITE, KVMIO.into(), 0xb0);
    // SAFETY: the count is in front, and as many places follow it.
    let result = unsafe {
        sys::check(libc::syscall(libc::SYS_ioctl, vcpu.as_raw_fd(), call, words.as_mut_ptr()))
    };
    (result.map(|_| ()), words)
}

/// A VM with one vCPU and a page of code.
pub struct Tiny {
    /// Its vCPU.
    pub vcpu: OwnedFd,
    /// The VM.
    pub vm: OwnedFd,
    /// The code's page, and one for data behind it.
    pub memory: Region,
    run: *mut kvm_run,
    run_bytes: usize,
}

impl Tiny {
    /// Makes it with code, and features of the vCPU.
    pub fn new(code: &[u32], features: u32) -> Self {
        let tiny = Self::without_init(code);
        init(&tiny.vcpu, GENERIC, [features, 0, 0, 0, 0, 0, 0]).expect("a good initialisation");
        set(&tiny.vcpu, PC, CODE.into()).expect("a PC");
        tiny
    }

    /// The same, without initialising the vCPU.
    pub fn without_init(code: &[u32]) -> Self {
        let device = device();
        let size = sys::ioctl_number(device.as_raw_fd(), GET_VCPU_MMAP_SIZE, 0).expect("a size");
        let vm = vm();
        let memory = Region::new(Kind::Pages, 2 * PAGE).expect("memory");
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.store(0, &bytes);
        slot(&vm, 0, CODE, &memory).expect("a slot");
        let vcpu = file(vm.as_raw_fd(), CREATE_VCPU, 0).expect("a vCPU");
        let run = map(&vcpu, size as usize);
        Self { vcpu, vm, memory, run, run_bytes: size as usize }
    }

    /// Runs until user space is needed; the reason (KVM_EXIT_*).
    pub fn run(&self) -> Result<u32> {
        sys::ioctl_number(self.vcpu.as_raw_fd(), RUN, 0)?;
        Ok(self.reason())
    }

    /// Locks all that a vCPU shares into memory, which touches each of its pages.
    pub fn lock_area(&self) -> Result<()> {
        // SAFETY: mapped as long as self; nothing of it changes.
        sys::check(unsafe { libc::mlock(self.run.cast(), self.run_bytes) }.into()).map(|_| ())
    }

    /// Returns the reason of the last exit.
    pub fn reason(&self) -> u32 {
        // SAFETY: mapped as long as self; the kernel writes it within calls of ours.
        unsafe { ptr::read_volatile(&raw const (*self.run).exit_reason) }
    }

    /// Asks the next run to come back at once, or takes that back.
    pub fn set_immediate_exit(&self, yes: bool) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*self.run).immediate_exit, yes.into()) };
    }

    /// Returns address, data, length and direction of an MMIO exit.
    pub fn mmio(&self) -> (u64, [u8; 8], u32, bool) {
        assert_eq!(self.reason(), 6, "an MMIO exit");
        // SAFETY: as above; the reason says that this member is in use.
        let mmio = unsafe { ptr::read_volatile(&raw const (*self.run).__bindgen_anon_1.mmio) };
        (mmio.phys_addr, mmio.data, mmio.len, mmio.is_write == 1)
    }

    /// Answers an MMIO load.
    pub fn answer(&self, data: [u8; 8]) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*self.run).__bindgen_anon_1.mmio.data, data) };
    }

    /// Fills what describes the next exit with what no exit has: so that nothing is taken for told that wasn't.
    pub fn spoil_exit(&self) {
        // SAFETY: as above; the union's largest member is bytes, of any value.
        unsafe {
            let start = &raw mut (*self.run).__bindgen_anon_1.padding;
            ptr::write_bytes(start.cast::<u8>(), 0xa5, size_of_val(&*start));
        }
    }

    /// Returns the type of a system event, and its data, of which there is as much as it says.
    pub fn system_event(&self) -> (u32, Vec<u64>) {
        assert_eq!(self.reason(), 24, "a system event");
        // SAFETY: as above; this member is numbers only, as is what it has.
        let (event, data) = unsafe {
            let event = ptr::read_volatile(&raw const (*self.run).__bindgen_anon_1.system_event);
            (event, event.__bindgen_anon_1.data)
        };
        (event.type_, data[..event.ndata as usize].to_vec())
    }

    /// Returns the kind of an internal error, and its data, of which there is as much as it says.
    pub fn internal_error(&self) -> (u32, Vec<u64>) {
        // SAFETY: as above; all of it is numbers.
        let error = unsafe { ptr::read_volatile(&raw const (*self.run).__bindgen_anon_1.internal) };
        (error.suberror, error.data[..error.ndata as usize].to_vec())
    }

    /// Returns flags, address and size of a fault without memory.
    pub fn memory_fault(&self) -> (u64, u64, u64) {
        // SAFETY: as above.
        let fault =
            unsafe { ptr::read_volatile(&raw const (*self.run).__bindgen_anon_1.memory_fault) };
        (fault.flags, fault.gpa, fault.size)
    }

    /// Reads a core register.
    pub fn get(&self, id: u64) -> u64 {
        get(&self.vcpu, id).expect("a register") as u64
    }

    /// Writes a core register.
    pub fn set(&self, id: u64, value: u64) {
        set(&self.vcpu, id, value.into()).expect("a register");
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // SAFETY: the mapping is self's own, and self is gone.
        unsafe { libc::munmap(self.run.cast(), self.run_bytes) };
    }
}

/// Gives memory to a VM.
pub fn slot(vm: &impl AsRawFd, slot: u32, address: u64, memory: &Region) -> Result<()> {
    let mut region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: address,
        memory_size: memory.bytes() as u64,
        userspace_addr: memory.address(0) as u64,
    };
    let call = request::<kvm_userspace_memory_region>(WRITE, KVMIO.into(), 0x46);
    // SAFETY: a region's memory may be written by anybody at any time.
    unsafe { sys::ioctl(vm.as_raw_fd(), call, &mut region) }.map(|_| ())
}

/// Maps what a vCPU shares.
pub fn map(vcpu: &impl AsRawFd, bytes: usize) -> *mut kvm_run {
    let (rights, fd) = (libc::PROT_READ | libc::PROT_WRITE, vcpu.as_raw_fd());
    // SAFETY: the kernel chooses an unused address.
    let run = unsafe { libc::mmap(ptr::null_mut(), bytes, rights, libc::MAP_SHARED, fd, 0) };
    assert_ne!(run, libc::MAP_FAILED, "struct kvm_run can't be mapped");
    run.cast()
}
