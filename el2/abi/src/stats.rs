//! Statistics counters. Each VM has all of them; the firmware keeps their sums.

use crate::item::{Item, Section};

macro_rules! stats {
    ($( #[doc = $doc:literal] $name:ident $c_name:literal; )*) => {
        /// A statistics counter, by its index.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Stat { $( #[doc = $doc] $name, )* }

        impl Stat {
            /// All counters, in the order of their indices.
            pub const ALL: &'static [Stat] = &[ $( Stat::$name, )* ];
            /// How many counters there are.
            pub const COUNT: usize = Self::ALL.len();
        }

        /// The name of each counter, in the order of their indices.
        pub const STAT_NAMES: [&str; Stat::COUNT] = [ $( $c_name, )* ];

        pub(crate) const ITEMS: &[Item] = &[ $( Item {
            section: Section::Statistic, name: $c_name, value: Stat::$name as i64, doc: $doc,
        } ),* ];
    };
}

stats! {
    #[doc = "Stage-2 translation faults."]
    FaultTranslation "STAT_FAULT_TRANSLATION";
    #[doc = "Stage-2 permission faults."]
    FaultPermission "STAT_FAULT_PERMISSION";
    #[doc = "Stage-2 access-flag faults, all resolved in EL2."]
    FaultAccessFlag "STAT_FAULT_ACCESS_FLAG";
    #[doc = "Other stage-2 faults: address size, external abort, TLB conflict."]
    FaultOther "STAT_FAULT_OTHER";
    #[doc = "Faults that found their cause already gone, and ran the guest again."]
    FaultSpurious "STAT_FAULT_SPURIOUS";
    #[doc = "Ranges aged (calls of AGE)."]
    Ages "STAT_AGES";
    #[doc = "Ranges whose access flags were read (calls of TEST_AGE)."]
    AgeTests "STAT_AGE_TESTS";
    #[doc = "Leaves that ageing looked at."]
    LeavesVisited "STAT_LEAVES_VISITED";
    #[doc = "Leaves that ageing found young."]
    LeavesYoung "STAT_LEAVES_YOUNG";
    #[doc = "Leaves mapped."]
    LeavesMapped "STAT_LEAVES_MAPPED";
    #[doc = "Leaves unmapped."]
    LeavesUnmapped "STAT_LEAVES_UNMAPPED";
    #[doc = "Leaves replaced by SET."]
    LeavesSet "STAT_LEAVES_SET";
    #[doc = "Leaves write-protected."]
    LeavesProtected "STAT_LEAVES_PROTECTED";
    #[doc = "Blocks unmapped whole for want of a table page to split them."]
    BlocksDropped "STAT_BLOCKS_DROPPED";
    #[doc = "Invalidations of one IPA."]
    TlbiIpa "STAT_TLBI_IPA";
    #[doc = "Invalidations of a range of IPAs (FEAT_TLBIRANGE)."]
    TlbiRange "STAT_TLBI_RANGE";
    #[doc = "Invalidations of all of stage 1 that end a batch."]
    TlbiStage1 "STAT_TLBI_STAGE1";
    #[doc = "Invalidations of a whole VMID."]
    TlbiVmid "STAT_TLBI_VMID";
    #[doc = "Local invalidations on the faulting CPU."]
    TlbiLocal "STAT_TLBI_LOCAL";
    #[doc = "Calls refused with RETRY."]
    Retries "STAT_RETRIES";
    #[doc = "Of these, the ones refused only because the memory of past ranges is bounded."]
    FalseRetries "STAT_FALSE_RETRIES";
    #[doc = "Exits by a physical interrupt."]
    ExitInterrupt "STAT_EXIT_INTERRUPT";
    #[doc = "Exits by a fault for the host."]
    ExitFault "STAT_EXIT_FAULT";
    #[doc = "Exits by a guest call."]
    ExitHypercall "STAT_EXIT_HYPERCALL";
    #[doc = "Exits by a wait."]
    ExitWait "STAT_EXIT_WAIT";
    #[doc = "Exits by shutdown."]
    ExitShutdown "STAT_EXIT_SHUTDOWN";
    #[doc = "Exits by an SError."]
    ExitSError "STAT_EXIT_SERROR";
    #[doc = "Exits by what is not emulated."]
    ExitUnhandled "STAT_EXIT_UNHANDLED";
    #[doc = "Runs of a vCPU."]
    Runs "STAT_RUNS";
    #[doc = "Guest accesses trapped and emulated, or answered by an exception, in EL2."]
    Traps "STAT_TRAPS";
    #[doc = "Lazy loads of a guest's FP/SIMD registers."]
    FpSwitches "STAT_FP_SWITCHES";
    #[doc = "Table pages in use."]
    TablePages "STAT_TABLE_PAGES";
    #[doc = "Donated table pages that are free."]
    FreeTablePages "STAT_FREE_TABLE_PAGES";
    #[doc = "Instructions that EL2 executed on the calling CPU (option counter=on, VM 0); else 0."]
    El2Instructions "STAT_EL2_INSTRUCTIONS";
    #[doc = "Leaves taken away, replaced, protected or harvested without an invalidation: the flush epoch proved them absent from TLBs."]
    FlushesSkipped "STAT_FLUSHES_SKIPPED";
    #[doc = "Leaves taken away, replaced, protected or harvested with an invalidation."]
    FlushesDone "STAT_FLUSHES_DONE";
    #[doc = "Ranges harvested (calls of HARVEST)."]
    Harvests "STAT_HARVESTS";
    #[doc = "Leaves that harvesting, unmapping or replacing found dirty."]
    LeavesDirty "STAT_LEAVES_DIRTY";
    #[doc = "Write faults on granted leaves, logged and resolved in EL2."]
    WritesLogged "STAT_WRITES_LOGGED";
    #[doc = "Blocks split, for a call or for an invalidation."]
    BlocksSplit "STAT_BLOCKS_SPLIT";
    #[doc = "Blocks made by COLLAPSE."]
    BlocksCollapsed "STAT_BLOCKS_COLLAPSED";
    #[doc = "Empty tables given back by TABLES_RECLAIM, or for want of a table page."]
    TablesReclaimed "STAT_TABLES_RECLAIMED";
    #[doc = "Pages of 4 KiB that are mapped."]
    PagesMapped "STAT_PAGES_MAPPED";
    #[doc = "Table pages in use for each GiB that is mapped, rounded up."]
    TablePagesPerGib "STAT_TABLE_PAGES_PER_GIB";
    #[doc = "Times that all VMIDs were used up and everything was invalidated (VM 0)."]
    VmidRollovers "STAT_VMID_ROLLOVERS";
    #[doc = "Table pages of the host's own stage 2, beside its root (VM 0)."]
    HostTablePages "STAT_HOST_TABLE_PAGES";
}
