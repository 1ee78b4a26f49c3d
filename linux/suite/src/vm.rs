//! A VM: its memory, and the calls on it.

use std::sync::Mutex;

use verdigris_abi::{Error, Status, call, flags};

use crate::bits::Bits;
use crate::firmware::{Statistics, layout, until_none_left, whole_range};
use crate::pages::{PAGE, Pages};
use crate::raw::raw;
use crate::vcpu::Vcpu;

/// IPA bits of VMs that don't ask for others.
pub const IPA_BITS: u64 = 40;
/// Table pages donated at the start; enough for a few hundred MiB, scattered.
const TABLE_PAGES: usize = 256;
/// Read, write, execute.
pub const RWX: u64 = flags::PROT_READ | flags::PROT_WRITE | flags::PROT_EXEC;
/// Read, write.
pub const RW: u64 = flags::PROT_READ | flags::PROT_WRITE;
/// Read.
pub const RO: u64 = flags::PROT_READ;

/// A VM of ours. Dropped, it is ended, and then its memory is freed.
pub struct Vm {
    handle: u64,
    vcpu_order: u32,
    // Regions and table pages: freed after the VM has ended.
    donated: Mutex<Vec<Pages>>,
}

impl Vm {
    /// Creates a VM with table pages to begin with.
    pub fn new() -> Self {
        let vm = Self::bare(IPA_BITS).expect("a VM can be created");
        vm.donate(TABLE_PAGES);
        vm
    }

    /// Creates a VM without table pages.
    pub fn bare(ipa_bits: u64) -> Status<Self> {
        let (order, vcpu_order) = layout(ipa_bits)?;
        let region = Pages::chunks(order, 1);
        let handle = raw().value(call::VM_CREATE, &[ipa_bits, region.address(0)])?;
        Ok(Self { handle, vcpu_order, donated: Mutex::new(vec![region]) })
    }

    /// Returns the handle.
    pub fn handle(&self) -> u64 {
        self.handle
    }

    /// Donates fresh table pages.
    pub fn donate(&self, count: usize) {
        let pages = Pages::single(count);
        for address in pages.addresses() {
            self.donate_range(address, 1).expect("a fresh page can be donated");
        }
        self.keep(pages);
    }

    /// Donates a range of pages.
    pub fn donate_range(&self, address: u64, page_count: u64) -> Status {
        self.range(page_count, |done, left| {
            (call::VM_DONATE, vec![self.handle, address + done * PAGE as u64, left])
        })
    }

    /// Frees pages only after the VM has ended.
    pub fn keep(&self, pages: Pages) {
        self.donated.lock().expect("no panic under it").push(pages);
    }

    /// Lists the addresses of all pages that were donated.
    pub fn donated_addresses(&self) -> Vec<u64> {
        let donated = self.donated.lock().expect("no panic under it");
        donated.iter().flat_map(Pages::addresses).collect()
    }

    /// Creates a vCPU.
    pub fn vcpu(&self, index: u64) -> Status<Vcpu> {
        let region = Pages::chunks(self.vcpu_order, 1);
        raw().value(call::VCPU_CREATE, &[self.handle, index, region.address(0)])?;
        self.keep(region);
        Ok(Vcpu::new(self.handle, index))
    }

    fn range(&self, page_count: u64, arguments: impl Fn(u64, u64) -> (u32, Vec<u64>)) -> Status {
        whole_range(page_count, |done, left| {
            let (function, arguments) = arguments(done, left);
            raw().value(function, &arguments)
        })
    }

    /// Maps consecutive pages (or blocks) with a sequence number.
    pub fn map(
        &self,
        ipa: u64,
        address: u64,
        page_count: u64,
        flags: u64,
        sequence: u64,
    ) -> Status {
        self.range(page_count, |done, left| {
            let offset = done * PAGE as u64;
            let arguments =
                vec![self.handle, ipa + offset, address + offset, left, flags, sequence];
            (call::MAP, arguments)
        })
    }

    /// Maps pages wherever they lie to consecutive IPAs, in a VM that has seen no invalidation of them.
    pub fn map_pages(&self, ipa: u64, pages: &Pages, flags: u64) {
        let mut at = ipa;
        for (address, count) in pages.ranges() {
            self.map(at, address, count as u64, flags, 0).expect("fresh pages can be mapped");
            at += (count * PAGE) as u64;
        }
    }

    /// Unmaps a range.
    pub fn unmap(&self, ipa: u64, page_count: u64) -> Status {
        self.range(page_count, |done, left| {
            (call::UNMAP, vec![self.handle, ipa + done * PAGE as u64, left])
        })
    }

    /// Takes the permission to write from a range.
    pub fn write_protect(&self, ipa: u64, page_count: u64) -> Status {
        self.range(page_count, |done, left| {
            (call::WRITE_PROTECT, vec![self.handle, ipa + done * PAGE as u64, left])
        })
    }

    /// Replaces the page behind an IPA; tells whether the old one was dirty.
    pub fn set(&self, ipa: u64, address: u64, flags: u64, sequence: u64) -> Status<bool> {
        let result = raw().value(call::SET, &[self.handle, ipa, address, flags, sequence])?;
        Ok(result & flags::SET_WAS_DIRTY != 0)
    }

    /// Begins an invalidation, and goes on until the range is unmapped.
    pub fn invalidate_begin(&self, ipa: u64, page_count: u64) -> Status {
        let mut done = self.begin_step(ipa, page_count, 0, 0)?;
        while done < page_count {
            done = self.begin_step(ipa, page_count, flags::BEGIN_RESUME, done)?;
        }
        Ok(())
    }

    /// Makes one call of INVALIDATE_BEGIN; returns the pages done in all.
    pub fn begin_step(&self, ipa: u64, page_count: u64, flags: u64, done: u64) -> Status<u64> {
        raw().value(call::INVALIDATE_BEGIN, &[self.handle, ipa, page_count, flags, done])
    }

    /// Ends an invalidation of which `done` pages are done.
    pub fn invalidate_end(&self, ipa: u64, page_count: u64, mut done: u64) -> Status {
        loop {
            let arguments = [self.handle, ipa, page_count, done];
            done = raw().value(call::INVALIDATE_END, &arguments)?;
            if done == page_count {
                return Ok(());
            }
        }
    }

    /// Ages a range: which pages were young.
    pub fn age(&self, ipa: u64, page_count: u64, mode: u64) -> Vec<bool> {
        self.young(call::AGE, ipa, page_count, mode, Bits::Registers)
    }

    /// Ages a range by way of a page of ours: which pages were young.
    pub fn age_by_buffer(&self, ipa: u64, page_count: u64, mode: u64, buffer: &Pages) -> Vec<bool> {
        self.young(call::AGE, ipa, page_count, mode, Bits::Buffer(buffer))
    }

    /// Tells which pages of a range are young.
    pub fn test_age(&self, ipa: u64, page_count: u64) -> Vec<bool> {
        self.young(call::TEST_AGE, ipa, page_count, 0, Bits::Registers)
    }

    fn young(&self, function: u32, ipa: u64, page_count: u64, mode: u64, to: Bits) -> Vec<bool> {
        let mode = mode | to.flag(flags::AGE_TO_BUFFER);
        let young = to.collect(page_count, |done, wanted| {
            let at = ipa + done * PAGE as u64;
            raw().call(function, &[self.handle, at, wanted, mode, to.address()])
        });
        young.expect("a range of the VM's can be aged")
    }

    /// Reads the VM's counters.
    pub fn statistics(&self) -> Statistics {
        Statistics::read(self.handle)
    }

    /// Ends the VM now.
    pub fn destroy(mut self) -> Status {
        let result = self.end();
        self.handle = 0;
        result
    }

    fn end(&self) -> Status {
        until_none_left(|| raw().value(call::VM_DESTROY, &[self.handle]))
    }
}

impl Drop for Vm {
    /// Ends the VM. Should a vCPU still run, the driver ends it with the process.
    fn drop(&mut self) {
        if self.handle == 0 {
            return;
        }
        match self.end() {
            Ok(()) | Err(Error::NoEntry | Error::Busy) => {}
            Err(error) => eprintln!("VM {} can't be ended: {error}", self.handle),
        }
    }
}
