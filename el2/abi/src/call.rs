//! Function identifiers, in the vendor-specific hypervisor service range (owner 6) of Arm DEN 0028.
//!
//! The first two are SMC32 calls that the convention fixes. All others are SMC64 fast calls.

use crate::item::items;

const fn smc64(number: u32) -> u32 {
    0xc600_0000 | number
}

items! { Call: u32;
    #[doc = "Returns the UID of the interface."]
    UID = 0x8600_ff01;
    #[doc = "Returns the version of the interface: major, minor."]
    REVISION = 0x8600_ff03;

    #[doc = "Returns the version, features and limits."]
    FEATURES = smc64(0x00);
    #[doc = "Ends all VMs and gives back all donated memory: what a new driver calls first."]
    HOST_RESET = smc64(0x01);
    #[doc = "Returns firmware-wide statistics or those of one VM."]
    STATISTICS = smc64(0x02);
    #[doc = "Returns owner and share count of a page."]
    PAGE_STATE = smc64(0x03);
    #[doc = "Makes EL2 fail on purpose; only in builds with debug assertions."]
    DEBUG_CRASH = smc64(0x04);
    #[doc = "Returns the region sizes that a VM with a given IPA size needs."]
    VM_LAYOUT = smc64(0x05);
    #[doc = "Tells the firmware of memory that came after boot; resumable."]
    MEMORY_ADD = smc64(0x06);
    #[doc = "Tells the firmware that such memory goes; resumable."]
    MEMORY_REMOVE = smc64(0x07);

    #[doc = "Creates a VM in a donated region."]
    VM_CREATE = smc64(0x10);
    #[doc = "Ends a VM and gives back its memory; resumable."]
    VM_DESTROY = smc64(0x11);
    #[doc = "Donates pages to a VM's pool of table pages; resumable."]
    VM_DONATE = smc64(0x12);
    #[doc = "Takes free pages back out of a VM's pool of table pages."]
    VM_RECLAIM = smc64(0x13);

    #[doc = "Creates a vCPU in a donated region."]
    VCPU_CREATE = smc64(0x20);
    #[doc = "Runs a vCPU on the calling CPU until it exits."]
    VCPU_RUN = smc64(0x21);
    #[doc = "Reads a register of a vCPU that is not running."]
    VCPU_GET_REG = smc64(0x22);
    #[doc = "Writes a register of a vCPU that is not running."]
    VCPU_SET_REG = smc64(0x23);
    #[doc = "Lists the registers that a vCPU has, sixteen a call."]
    VCPU_REG_LIST = smc64(0x24);
    #[doc = "Gives a vCPU that is not running the state in which it was created."]
    VCPU_RESET = smc64(0x25);

    #[doc = "Maps pages or blocks; resumable."]
    MAP = smc64(0x30);
    #[doc = "Unmaps a range: begin and end in one; resumable."]
    UNMAP = smc64(0x31);
    #[doc = "Begins an invalidation: marks the range, unmaps it; resumable."]
    INVALIDATE_BEGIN = smc64(0x32);
    #[doc = "Ends an invalidation: finishes it, publishes its sequence number, lowers the mark; resumable."]
    INVALIDATE_END = smc64(0x33);
    #[doc = "Tests and clears access flags, one bit a page; resumable."]
    AGE = smc64(0x34);
    #[doc = "Tests access flags, one bit a page, and clears nothing; resumable."]
    TEST_AGE = smc64(0x35);
    #[doc = "Replaces the page behind an IPA."]
    SET = smc64(0x36);
    #[doc = "Takes the permission to write from a range; resumable."]
    WRITE_PROTECT = smc64(0x37);
    #[doc = "Tells which pages were written, one bit a page, and arms them for the next time; resumable."]
    HARVEST = smc64(0x38);
    #[doc = "Splits blocks into smaller leaves, without taking anything away; resumable."]
    SPLIT = smc64(0x39);
    #[doc = "Collapses tables of consecutive leaves into blocks; resumable."]
    COLLAPSE = smc64(0x3a);
    #[doc = "Gives empty tables back to the VM's pool; resumable."]
    TABLES_RECLAIM = smc64(0x3b);
    #[doc = "Invalidates the whole VM once, unless no access flag was cleared since the last time."]
    FLUSH = smc64(0x3c);
    #[doc = "Maps pages that may lie anywhere to consecutive IPAs, from a list; resumable."]
    MAP_LIST = smc64(0x3d);

    #[doc = "Begins to keep the idle ages of a range, in a donated region."]
    WORKING_SET_CREATE = smc64(0x40);
    #[doc = "Ends it, and gives the region back."]
    WORKING_SET_DESTROY = smc64(0x41);
    #[doc = "Returns how many pages have which idle age, in sixteen buckets; resumable."]
    WORKING_SET_HISTOGRAM = smc64(0x42);
    #[doc = "Returns the idle age of each page, one byte a page."]
    WORKING_SET_MAP = smc64(0x43);
}
