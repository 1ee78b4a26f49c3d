//! Calls that concern the whole firmware, and the loop that every range call needs.

use verdigris_abi::{Stat, Status, call, flags};

use crate::raw::raw;

/// What FEATURES returns.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Major << 16 | minor.
    pub version: u64,
    /// `FEATURE_*`
    pub bits: u64,
    /// Most IPA bits of a VM.
    pub ipa_bits: u64,
    /// Most VMs.
    pub vms: u64,
    /// CPUs of the machine.
    pub cpus: u64,
    /// Frequency of the system counter.
    pub counter_hz: u64,
}

impl Features {
    /// Asks the firmware.
    pub fn read() -> Self {
        let reply = raw().call(call::FEATURES, &[]);
        reply.status().expect("FEATURES has no errors");
        let [_, version, bits, ipa_bits, vms, cpus, counter_hz, ..] = reply.0;
        Self { version, bits, ipa_bits, vms, cpus, counter_hz }
    }

    /// Tells whether the firmware has a feature.
    pub fn has(&self, bit: u64) -> bool {
        self.bits & bit != 0
    }
}

/// Returns the orders of the regions of a VM and of a vCPU.
pub fn layout(ipa_bits: u64) -> Status<(u32, u32)> {
    let reply = raw().call(call::VM_LAYOUT, &[ipa_bits]);
    reply.status().map(|()| (reply.0[1] as u32, reply.0[2] as u32))
}

/// Owner, share count and VM of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageState {
    /// `OWNER_*`
    pub owner: u64,
    /// How many leaves refer to it.
    pub shares: u64,
    /// The VM that owns it.
    pub vm: u64,
}

impl PageState {
    /// A page that only the host uses.
    pub const FREE: Self = Self { owner: flags::OWNER_HOST, shares: 0, vm: 0 };
}

/// Asks whose a page is.
pub fn page_state(address: u64) -> PageState {
    let reply = raw().call(call::PAGE_STATE, &[address]);
    reply.status().expect("the address is one of a page");
    PageState { owner: reply.0[1], shares: reply.0[2], vm: reply.0[3] }
}

/// All counters of a VM, or of the firmware (0).
#[derive(Clone, PartialEq, Eq)]
pub struct Statistics(Vec<u64>);

impl Statistics {
    /// Reads them.
    pub fn read(vm: u64) -> Self {
        let mut values = Vec::new();
        loop {
            let reply = raw().call(call::STATISTICS, &[vm, values.len() as u64]);
            reply.status().expect("the VM exists");
            let count = reply.0[1] as usize;
            values.extend(reply.0[2..].iter().take(count - values.len()));
            if values.len() == count {
                return Self(values);
            }
        }
    }

    /// Returns one counter.
    pub fn get(&self, stat: Stat) -> u64 {
        self.0[stat as usize]
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns by how much a counter is ahead of an older reading.
    pub fn since(&self, older: &Self, stat: Stat) -> u64 {
        self.get(stat) - older.get(stat)
    }
}

/// Ends all VMs.
pub fn host_reset() -> Status {
    until_none_left(|| raw().value(call::HOST_RESET, &[]))
}

/// Repeats a call until it says that nothing is left to do.
pub fn until_none_left(mut step: impl FnMut() -> Status<u64>) -> Status {
    while step()? != 0 {}
    Ok(())
}

/// Makes a range call for all of a range: `step(pages done, pages left)` returns how many it did.
pub fn whole_range(page_count: u64, mut step: impl FnMut(u64, u64) -> Status<u64>) -> Status {
    let mut done = 0;
    while done < page_count {
        let progress = step(done, page_count - done)?;
        assert!(progress <= page_count - done, "more done than asked");
        done += progress;
    }
    Ok(())
}
