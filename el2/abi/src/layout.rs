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
    #[doc = "Most pages that one call maps from a list."]
    MAP_LIST_PAGES = 512;
    #[doc = "Most physical addresses that one call returns (x2 to x17)."]
    RECLAIM_ADDRESSES = 16;
    #[doc = "Statistics counters that one call returns (x2 to x17)."]
    STATS_PER_CALL = 16;
    #[doc = "Register identifiers that one call lists (x2 to x17)."]
    REGS_PER_CALL = 16;
    #[doc = "Ranges that can be marked by an unfinished invalidation of one VM before marks merge."]
    MAX_MARKS = 16;
    #[doc = "Ranges of one VM whose idle ages are kept at a time."]
    MAX_WORKING_SETS = 8;
    #[doc = "Buckets of a histogram of idle ages (x2 to x17)."]
    WORKING_SET_BUCKETS = 16;
    #[doc = "Most pages whose idle ages one call returns in a page of the host."]
    WORKING_SET_MAP_PAGES = 4096;
    #[doc = "The highest idle age, in rounds: this long, longer, or never touched."]
    IDLE_AGE_MAX = 255;
}

/// The lowest idle age of each bucket of a histogram, in rounds: the young apart, the long idle together.
pub const WORKING_SET_BUCKET_STARTS: [u8; WORKING_SET_BUCKETS as usize] =
    [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192];
