//! Bits and fields of arguments and results.

use crate::item::items;

items! { Flag: u64;
    #[doc = "FEATURES x2: the walker sets access flags (FEAT_HAFDBS and not masked)."]
    FEATURE_HW_ACCESS_FLAG = 1 << 0;
    #[doc = "FEATURES x2: invalidation by level hint (FEAT_TTL)."]
    FEATURE_TTL = 1 << 1;
    #[doc = "FEATURES x2: invalidation by range (FEAT_TLBIRANGE)."]
    FEATURE_TLB_RANGE = 1 << 2;
    #[doc = "FEATURES x2: stage 2 forces write-back (FEAT_S2FWB)."]
    FEATURE_FORCED_WRITE_BACK = 1 << 3;
    #[doc = "FEATURES x2: VMIDs have 16 bits (FEAT_VMID16)."]
    FEATURE_VMID16 = 1 << 4;
    #[doc = "FEATURES x2: invalidations are repeated, by erratum."]
    FEATURE_REPEAT_TLBI = 1 << 5;
    #[doc = "FEATURES x2: a build with debug assertions: DEBUG_CRASH exists."]
    FEATURE_DEBUG_BUILD = 1 << 6;
    #[doc = "FEATURES x2: the walker keeps dirty state (FEAT_HAFDBS level 2 and not masked)."]
    FEATURE_HW_DIRTY = 1 << 7;
    #[doc = "FEATURES x2: blocks are split without a moment in which they are gone (FEAT_BBM level 2)."]
    FEATURE_BBM2 = 1 << 8;
    #[doc = "FEATURES x2: invalidations of cold leaves are left out where the flush epoch proves them needless."]
    FEATURE_FLUSH_EPOCH = 1 << 9;

    #[doc = "MAP, MAP_LIST, SET: the guest may read. Required."]
    PROT_READ = 1 << 0;
    #[doc = "MAP, MAP_LIST, SET: the guest may write."]
    PROT_WRITE = 1 << 1;
    #[doc = "MAP, MAP_LIST, SET: the guest may execute."]
    PROT_EXEC = 1 << 2;
    #[doc = "MAP, MAP_LIST: install the leaf old (access flag clear)."]
    MAP_OLD = 1 << 3;
    #[doc = "MAP, SET: leaves are 2 MiB blocks. SPLIT: stop at them. COLLAPSE: make them."]
    MAP_BLOCK_2M = 1 << 4;
    #[doc = "MAP, SET: leaves are 1 GiB blocks. COLLAPSE: make them."]
    MAP_BLOCK_1G = 1 << 5;
    #[doc = "MAP, MAP_LIST: install the leaf clean: the first write is logged for HARVEST. Needs PROT_WRITE."]
    MAP_CLEAN = 1 << 6;

    #[doc = "INVALIDATE_BEGIN: resume an invalidation whose mark already stands."]
    BEGIN_RESUME = 1 << 0;
    #[doc = "UNMAP x4, INVALIDATE_BEGIN x4, INVALIDATE_END x5: return the final dirty bits in x2 to x17."]
    UNMAP_DIRTY = 1 << 1;
    #[doc = "With UNMAP_DIRTY, beside it: they go to the page of the host that x6 names, and not to registers."]
    UNMAP_TO_BUFFER = 1 << 2;

    #[doc = "AGE: leave cached translations alone: what was young may read as old although it is touched."]
    AGE_NO_FLUSH = 0;
    #[doc = "AGE: invalidate what was found young."]
    AGE_FLUSH_YOUNG = 1;
    #[doc = "AGE: invalidate the whole VM once, unless no flag was cleared since the last such invalidation."]
    AGE_FLUSH_ALL = 2;
    #[doc = "AGE: the field that holds one of the three modes."]
    AGE_FLUSH_MASK = 3;
    #[doc = "AGE, TEST_AGE, HARVEST: bits go to the page at x5 and not to registers."]
    AGE_TO_BUFFER = 1 << 2;

    #[doc = "SET x1: the page that was replaced had been written since it was last harvested."]
    SET_WAS_DIRTY = 1 << 0;

    #[doc = "VCPU_RUN: complete the load or store of the last exit; a load takes the value in x4."]
    RUN_MMIO_DONE = 1 << 0;
    #[doc = "VCPU_RUN: answer the last fault by a synchronous external abort in the guest."]
    RUN_INJECT_ABORT = 1 << 1;
    #[doc = "VCPU_RUN: step over the instruction of the last fault."]
    RUN_SKIP = 1 << 2;

    #[doc = "EXIT_FAULT x3: the access was a write; a table walk or cache maintenance that needs the right to."]
    FAULT_WRITE = 1 << 0;
    #[doc = "EXIT_FAULT x3: the access was an instruction fetch."]
    FAULT_EXEC = 1 << 1;
    #[doc = "EXIT_FAULT x3: the access was a walk of the guest's own tables."]
    FAULT_TABLE_WALK = 1 << 2;
    #[doc = "EXIT_FAULT x3: a valid leaf denied it (permission fault)."]
    FAULT_PERMISSION = 1 << 3;
    #[doc = "EXIT_FAULT x3: a cache-maintenance instruction."]
    FAULT_CACHE_MAINTENANCE = 1 << 4;
    #[doc = "EXIT_FAULT x3: x7 describes a load or store that RUN_MMIO_DONE can complete."]
    FAULT_MMIO_VALID = 1 << 5;
    #[doc = "EXIT_FAULT x7: log2 of the size of the access in bytes, 0 to 3."]
    MMIO_SIZE_MASK = 3;
    #[doc = "EXIT_FAULT x7: the value that is loaded is sign-extended."]
    MMIO_SIGN_EXTEND = 1 << 2;
    #[doc = "EXIT_FAULT x7: the register is 64 bits wide."]
    MMIO_REG_64 = 1 << 3;
    #[doc = "EXIT_FAULT x7: shift of the register number, 5 bits; 31 is the zero register."]
    MMIO_REG_SHIFT = 4;

    #[doc = "EXIT_SHUTDOWN x2: the guest asked to be switched off."]
    SHUTDOWN_OFF = 1;
    #[doc = "EXIT_SHUTDOWN x2: the guest asked to be reset."]
    SHUTDOWN_RESET = 2;

    #[doc = "PAGE_STATE x1: the host owns the page."]
    OWNER_HOST = 0;
    #[doc = "PAGE_STATE x1: the firmware owns the page."]
    OWNER_EL2 = 1;
    #[doc = "PAGE_STATE x1: the page was donated to a VM, whose handle is in x3."]
    OWNER_VM = 2;
    #[doc = "PAGE_STATE x1: no RAM, or reserved: nobody can own it."]
    OWNER_NONE = 3;

    #[doc = "DEBUG_CRASH x1: read from an unmapped address."]
    CRASH_FAULT = 0;
    #[doc = "DEBUG_CRASH x1: overflow the stack of the calling CPU."]
    CRASH_STACK = 1;
    #[doc = "DEBUG_CRASH x1: write to the firmware's text."]
    CRASH_TEXT = 2;
    #[doc = "DEBUG_CRASH x1: panic."]
    CRASH_PANIC = 3;
    #[doc = "DEBUG_CRASH x1: execute from writable memory."]
    CRASH_EXEC = 4;
    #[doc = "DEBUG_CRASH x1: read at x2, where nothing answers, as from a broken page. EL2 goes on."]
    SURVIVE_READ = 5;
    #[doc = "DEBUG_CRASH x1: translate an address by tables at x2, where nothing answers. EL2 goes on."]
    SURVIVE_WALK = 6;
    #[doc = "DEBUG_CRASH x1: read a register that EL2 doesn't have. EL2 goes on."]
    SURVIVE_REGISTER = 7;
}
