//! Limits and sizes that both sides of the interface rely on.

use crate::item::items;

items! { Limit: u64;
    #[doc = "Most CPUs that the firmware runs on."]
    MAX_CPUS = 64;
    #[doc = "Most VMs at a time; handles are 1 to this number."]
    MAX_VMS = 256;
    #[doc = "Most vCPUs of one VM; indices are 0 to this number less one."]
    MAX_VCPUS = 64;
    #[doc = "Most pages whose bits one call returns in registers (x2 to x17)."]
    AGE_REGISTER_PAGES = 1024;
    #[doc = "Most pages whose bits one call returns in a page of the host."]
    AGE_BUFFER_PAGES = 32768;
    #[doc = "Most physical addresses that one call returns (x2 to x17)."]
    RECLAIM_ADDRESSES = 16;
    #[doc = "Statistics counters that one call returns (x2 to x17)."]
    STATS_PER_CALL = 16;
    #[doc = "Ranges that can be marked by an unfinished invalidation of one VM before marks merge."]
    MAX_MARKS = 16;
}
