//! A guest: a VM with the payload in memory that is never taken away, vCPUs on it, and data beside it that is.
//!
//! ```text
//! 0x0a00_0000  the door: no slot
//! 0x1000_0000  firm memory, slot 0: payload, stacks, control pages, the ledger's versions
//! 0x4000_0000  data, slot 1 and what else a test makes of it
//! ```

use std::path::Path;

use verdigris_guest::control;

use super::region::{Kind, Region};
use super::sys::{BLOCK, PAGE};
use super::vcpu::Vcpu;
use super::vm::{Vm, bytes};

/// Where the payload is.
const IMAGE: u64 = 0x1000_0000;
/// Where firm memory has what, as offsets.
const STACKS: usize = 0x2_0000;
const STACK_BYTES: usize = 0x4000;
const CONTROLS: usize = 0x8_0000;
const VERSIONS: usize = 0x10_0000;
const FIRM_BYTES: usize = BLOCK;
/// The slot of the data.
pub const DATA_SLOT: u32 = 1;
/// Where the data begins: on a boundary of 1 GiB.
pub const DATA: u64 = 0x4000_0000;
/// Where the payload's image is in the host's root.
const PAYLOAD: &str = "/lib/verdigris/guest-mmio.bin";
/// Most pages whose versions fit.
pub const MOST_PAGES: usize = (FIRM_BYTES - VERSIONS) / 8;
const MOST_VCPUS: usize = 8;

/// A VM with its payload and data.
pub struct Guest {
    /// The VM.
    pub vm: Vm,
    /// What backs slot [`DATA_SLOT`].
    pub data: Region,
    firm: Region,
}

impl Guest {
    /// Makes a guest with so much data of a kind.
    pub fn new(kind: Kind, data_bytes: usize) -> Self {
        Self::with(Region::new(kind, data_bytes).expect("memory"), 0)
    }

    /// Makes a guest on data, whose slot has flags.
    pub fn with(data: Region, flags: u32) -> Self {
        let vm = Vm::new();
        let firm = Region::new(Kind::Pages, FIRM_BYTES).expect("memory");
        firm.lock().expect("memory that stays");
        let payload = std::fs::read(Path::new(PAYLOAD)).expect("the payload");
        assert!(payload.len() <= STACKS, "the payload is too large");
        firm.store(0, &payload);
        vm.add(0, IMAGE, &firm, firm.all(), 0);
        vm.add(DATA_SLOT, DATA, &data, data.all(), flags);
        Self { vm, data, firm }
    }

    /// Makes a vCPU at the payload's entry.
    pub fn vcpu(&self, index: usize) -> Vcpu {
        assert!(index < MOST_VCPUS);
        let vcpu = Vcpu::new(&self.vm, index as u64);
        vcpu.enter_at(IMAGE, IMAGE + (STACKS + (index + 1) * STACK_BYTES) as u64);
        vcpu
    }

    /// Where the control page of a vCPU is, for the guest.
    pub fn control_address(&self, index: usize) -> u64 {
        IMAGE + (CONTROLS + index * PAGE) as u64
    }

    /// Where the versions of pages are, for the guest.
    pub fn versions_address(&self) -> u64 {
        IMAGE + VERSIONS as u64
    }

    /// Reads a word of a vCPU's control page.
    pub fn control(&self, index: usize, word: usize) -> u64 {
        self.firm.read(CONTROLS + index * PAGE + word * 8)
    }

    /// Makes all words of a vCPU's control page 0.
    pub fn reset_control(&self, index: usize) {
        (0..control::WORDS).for_each(|word| self.set_control(index, word, 0));
    }

    /// Writes a word of a vCPU's control page.
    pub fn set_control(&self, index: usize, word: usize, value: u64) {
        self.firm.write(CONTROLS + index * PAGE + word * 8, value);
    }

    /// Returns how often a page was written.
    pub fn version(&self, page: usize) -> u64 {
        assert!(page < MOST_PAGES);
        self.firm.read(VERSIONS + page * 8)
    }

    /// Says how often a page was written: for those that lost their content on purpose.
    pub fn set_version(&self, page: usize, version: u64) {
        self.firm.write(VERSIONS + page * 8, version);
    }

    /// Returns where a page of the data is, for the guest.
    pub fn page_address(&self, page: usize) -> u64 {
        DATA + bytes(page)
    }
}
