//! A VM and its slots.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Error, Read, Result};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};

use kvm_bindings::{
    KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVMIO, kvm_clear_dirty_log, kvm_dirty_log,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VmFd};

use super::region::Region;
use super::sys::{self, PAGE};
use crate::stats;

/// Flags of slots.
pub const LOG: u32 = KVM_MEM_LOG_DIRTY_PAGES;
/// See [`LOG`].
pub const READONLY: u32 = KVM_MEM_READONLY;

/// A VM.
pub struct Vm {
    /// The wrapper, for what it has.
    pub fd: VmFd,
}

impl Vm {
    /// Makes a VM of the default size of addresses.
    pub fn new() -> Self {
        let kvm = Kvm::new().expect("/dev/kvm");
        assert_eq!(kvm.get_api_version(), 12);
        Self { fd: kvm.create_vm_with_type(0).expect("a VM") }
    }

    /// Sets a slot, as the interface has it: this is how slots are made, moved, changed and deleted.
    pub fn set(&self, slot: kvm_userspace_memory_region) -> Result<()> {
        // SAFETY: the kernel checks the range. The memory behind it is a region's or nobody's: no Rust object
        // is ever lent from one, so whatever the guest writes there breaks nothing.
        unsafe { self.fd.set_user_memory_region(slot) }
            .map_err(|error| Error::from_raw_os_error(error.errno()))
    }

    /// Gives a part of a region to the guest.
    pub fn add(&self, slot: u32, ipa: u64, region: &Region, part: Range<usize>, flags: u32) {
        let memory_size = part.len() as u64;
        let userspace_addr = region.address(part.start) as u64;
        let (guest_phys_addr, slot_of) = (ipa, slot);
        self.set(kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr,
            memory_size,
            userspace_addr,
        })
        .unwrap_or_else(|error| panic!("slot {slot_of} at {ipa:#x}: {error}"));
    }

    /// Deletes a slot.
    pub fn delete(&self, slot: u32) {
        self.set(kvm_userspace_memory_region { slot, ..Default::default() }).expect("a slot");
    }

    /// Takes the bitmap of dirty pages of a slot.
    pub fn dirty_log(&self, slot: u32, pages: usize) -> Result<Vec<u64>> {
        let mut bits = vec![0u64; pages.div_ceil(64)];
        let mut log = kvm_dirty_log { slot, ..Default::default() };
        log.__bindgen_anon_1.dirty_bitmap = bits.as_mut_ptr().cast();
        let request = sys::request::<kvm_dirty_log>(sys::WRITE, KVMIO.into(), 0x42);
        // SAFETY: the bitmap has a bit for each page, in whole words, as the interface wants it.
        unsafe { sys::ioctl(self.fd.as_raw_fd(), request, &mut log) }.map(|_| bits)
    }

    /// Write-protects the pages whose bits are set, from a page on that is a multiple of 64.
    pub fn clear_dirty_log(&self, slot: u32, first: u64, pages: u32, bits: &[u64]) -> Result<()> {
        assert!(bits.len() * 64 >= pages as usize);
        let mut log =
            kvm_clear_dirty_log { slot, num_pages: pages, first_page: first, ..Default::default() };
        log.__bindgen_anon_1.dirty_bitmap = bits.as_ptr().cast_mut().cast();
        let request =
            sys::request::<kvm_clear_dirty_log>(sys::READ | sys::WRITE, KVMIO.into(), 0xc0);
        // SAFETY: the kernel reads as many bits as there are pages, which the bitmap has.
        unsafe { sys::ioctl(self.fd.as_raw_fd(), request, &mut log) }.map(|_| ())
    }

    /// Turns a capability of the VM on.
    pub fn enable(&self, capability: u32, argument: u64) -> Result<()> {
        let mut cap = kvm_bindings::kvm_enable_cap { cap: capability, ..Default::default() };
        cap.args[0] = argument;
        self.fd.enable_cap(&cap).map_err(|error| Error::from_raw_os_error(error.errno()))
    }

    /// Reads the statistics of the VM.
    pub fn statistics(&self) -> stats::Values {
        let mut bytes = Vec::new();
        statistics_of(&self.fd).read_to_end(&mut bytes).expect("statistics can be read");
        stats::parse(&bytes).expect("statistics are well formed")
    }
}

/// Opens the statistics of a VM or vCPU.
pub fn statistics_of(fd: &impl AsRawFd) -> File {
    const GET_STATS_FD: u64 = (0xae << 8) | 0xce;
    let fd = sys::ioctl_number(fd.as_raw_fd(), GET_STATS_FD, 0).expect("a file");
    // SAFETY: the descriptor is new, and ours.
    unsafe { File::from_raw_fd(fd as i32) }
}

/// Lists the pages whose bits are set.
pub fn pages_of(bits: &[u64]) -> Vec<usize> {
    let has = |page: &usize| bits[page / 64] >> (page % 64) & 1 == 1;
    (0..bits.len() * 64).filter(has).collect()
}

/// Returns the size of a page as addresses have it.
pub const fn bytes(pages: usize) -> u64 {
    (pages * PAGE) as u64
}
