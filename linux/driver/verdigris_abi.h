/* SPDX-License-Identifier: (GPL-2.0 OR MIT OR Apache-2.0) */
/*
 * The hypercall interface of Verdigris. docs/abi.md describes each call.
 *
 * Written by `cargo xtask header` from el2/abi; do not edit.
 */
#ifndef VERDIGRIS_ABI_H
#define VERDIGRIS_ABI_H

/* Major version of the interface. */
#define VERDIGRIS_VERSION_MAJOR 1
/* Minor version of the interface. */
#define VERDIGRIS_VERSION_MINOR 3
/* What VERDIGRIS_UID answers in w0. */
#define VERDIGRIS_UID_0 0xedd58a5aU
/* What VERDIGRIS_UID answers in w1. */
#define VERDIGRIS_UID_1 0x4e4d602dU
/* What VERDIGRIS_UID answers in w2. */
#define VERDIGRIS_UID_2 0x65766b9aU
/* What VERDIGRIS_UID answers in w3. */
#define VERDIGRIS_UID_3 0x17e96472U

/* Most CPUs that the firmware runs on. */
#define VERDIGRIS_MAX_CPUS 64
/* Most VMs at a time; handles are 1 to this number. */
#define VERDIGRIS_MAX_VMS 256
/* Most vCPUs of one VM; indices are 0 to this number less one. */
#define VERDIGRIS_MAX_VCPUS 64
/* Most pages whose bits one call returns in registers (x2 to x17). */
#define VERDIGRIS_AGE_REGISTER_PAGES 1024
/* Most pages whose bits one call returns in a page of the host. */
#define VERDIGRIS_AGE_BUFFER_PAGES 32768
/* Most pages that one call maps from a list. */
#define VERDIGRIS_MAP_LIST_PAGES 512
/* Most physical addresses that one call returns (x2 to x17). */
#define VERDIGRIS_RECLAIM_ADDRESSES 16
/* Statistics counters that one call returns (x2 to x17). */
#define VERDIGRIS_STATS_PER_CALL 16
/* Register identifiers that one call lists (x2 to x17). */
#define VERDIGRIS_REGS_PER_CALL 16
/* Ranges that can be marked by an unfinished invalidation of one VM before marks merge. */
#define VERDIGRIS_MAX_MARKS 16
/* Ranges of one VM whose idle ages are kept at a time. */
#define VERDIGRIS_MAX_WORKING_SETS 8
/* Buckets of a histogram of idle ages (x2 to x17). */
#define VERDIGRIS_WORKING_SET_BUCKETS 16
/* Most pages whose idle ages one call returns in a page of the host. */
#define VERDIGRIS_WORKING_SET_MAP_PAGES 4096
/* The highest idle age, in rounds: this long, longer, or never touched. */
#define VERDIGRIS_IDLE_AGE_MAX 255

/* Returns the UID of the interface. */
#define VERDIGRIS_UID 0x8600ff01U
/* Returns the version of the interface: major, minor. */
#define VERDIGRIS_REVISION 0x8600ff03U
/* Returns the version, features and limits. */
#define VERDIGRIS_FEATURES 0xc6000000U
/* Ends all VMs and gives back all donated memory: what a new driver calls first. */
#define VERDIGRIS_HOST_RESET 0xc6000001U
/* Returns firmware-wide statistics or those of one VM. */
#define VERDIGRIS_STATISTICS 0xc6000002U
/* Returns owner and share count of a page. */
#define VERDIGRIS_PAGE_STATE 0xc6000003U
/* Makes EL2 fail on purpose; only in builds with debug assertions. */
#define VERDIGRIS_DEBUG_CRASH 0xc6000004U
/* Returns the region sizes that a VM with a given IPA size needs. */
#define VERDIGRIS_VM_LAYOUT 0xc6000005U
/* Tells the firmware of memory that came after boot; resumable. */
#define VERDIGRIS_MEMORY_ADD 0xc6000006U
/* Tells the firmware that such memory goes; resumable. */
#define VERDIGRIS_MEMORY_REMOVE 0xc6000007U
/* Creates a VM in a donated region. */
#define VERDIGRIS_VM_CREATE 0xc6000010U
/* Ends a VM and gives back its memory; resumable. */
#define VERDIGRIS_VM_DESTROY 0xc6000011U
/* Donates pages to a VM's pool of table pages; resumable. */
#define VERDIGRIS_VM_DONATE 0xc6000012U
/* Takes free pages back out of a VM's pool of table pages. */
#define VERDIGRIS_VM_RECLAIM 0xc6000013U
/* Creates a vCPU in a donated region. */
#define VERDIGRIS_VCPU_CREATE 0xc6000020U
/* Runs a vCPU on the calling CPU until it exits. */
#define VERDIGRIS_VCPU_RUN 0xc6000021U
/* Reads a register of a vCPU that is not running. */
#define VERDIGRIS_VCPU_GET_REG 0xc6000022U
/* Writes a register of a vCPU that is not running. */
#define VERDIGRIS_VCPU_SET_REG 0xc6000023U
/* Lists the registers that a vCPU has, sixteen a call. */
#define VERDIGRIS_VCPU_REG_LIST 0xc6000024U
/* Gives a vCPU that is not running the state in which it was created. */
#define VERDIGRIS_VCPU_RESET 0xc6000025U
/* Maps pages or blocks; resumable. */
#define VERDIGRIS_MAP 0xc6000030U
/* Unmaps a range: begin and end in one; resumable. */
#define VERDIGRIS_UNMAP 0xc6000031U
/* Begins an invalidation: marks the range, unmaps it; resumable. */
#define VERDIGRIS_INVALIDATE_BEGIN 0xc6000032U
/* Ends an invalidation: finishes it, publishes its sequence number, lowers the mark; resumable. */
#define VERDIGRIS_INVALIDATE_END 0xc6000033U
/* Tests and clears access flags, one bit a page; resumable. */
#define VERDIGRIS_AGE 0xc6000034U
/* Tests access flags, one bit a page, and clears nothing; resumable. */
#define VERDIGRIS_TEST_AGE 0xc6000035U
/* Replaces the page behind an IPA. */
#define VERDIGRIS_SET 0xc6000036U
/* Takes the permission to write from a range; resumable. */
#define VERDIGRIS_WRITE_PROTECT 0xc6000037U
/* Tells which pages were written, one bit a page, and arms them for the next time; resumable. */
#define VERDIGRIS_HARVEST 0xc6000038U
/* Splits blocks into smaller leaves, without taking anything away; resumable. */
#define VERDIGRIS_SPLIT 0xc6000039U
/* Collapses tables of consecutive leaves into blocks; resumable. */
#define VERDIGRIS_COLLAPSE 0xc600003aU
/* Gives empty tables back to the VM's pool; resumable. */
#define VERDIGRIS_TABLES_RECLAIM 0xc600003bU
/* Invalidates the whole VM once, unless no access flag was cleared since the last time. */
#define VERDIGRIS_FLUSH 0xc600003cU
/* Maps pages that may lie anywhere to consecutive IPAs, from a list; resumable. */
#define VERDIGRIS_MAP_LIST 0xc600003dU
/* Begins to keep the idle ages of a range, in a donated region. */
#define VERDIGRIS_WORKING_SET_CREATE 0xc6000040U
/* Ends it, and gives the region back. */
#define VERDIGRIS_WORKING_SET_DESTROY 0xc6000041U
/* Returns how many pages have which idle age, in sixteen buckets; resumable. */
#define VERDIGRIS_WORKING_SET_HISTOGRAM 0xc6000042U
/* Returns the idle age of each page, one byte a page. */
#define VERDIGRIS_WORKING_SET_MAP 0xc6000043U

/* The call, or what it asks for, does not exist in this firmware or on this CPU. */
#define VERDIGRIS_NOT_SUPPORTED (-1)
/* An argument is unaligned, out of range, overflows, or has an unknown bit set. */
#define VERDIGRIS_INVALID (-2)
/* No VM, vCPU, register, mark or mapping has that handle, index or address. */
#define VERDIGRIS_NO_ENTRY (-3)
/* A page is not the caller's to give, share or read: it is no RAM, the firmware's, or donated. */
#define VERDIGRIS_NOT_OWNER (-4)
/* The object is in use on another CPU, or pages are shared that the call needs unshared. */
#define VERDIGRIS_BUSY (-5)
/* An invalidation of the range is in progress or ended since the sequence number was taken; another CPU is at work on the same leaf or table; or a table page is on its way to the pool. */
#define VERDIGRIS_RETRY (-6)
/* The VM has no free table page left: donate, and call again. */
#define VERDIGRIS_NO_MEMORY (-7)
/* Something else is there already. */
#define VERDIGRIS_EXISTS (-8)
/* A fixed table or a saturating count of the firmware is full. */
#define VERDIGRIS_LIMIT (-9)

/* FEATURES x2: the walker sets access flags (FEAT_HAFDBS and not masked). */
#define VERDIGRIS_FEATURE_HW_ACCESS_FLAG 0x1ULL
/* FEATURES x2: invalidation by level hint (FEAT_TTL). */
#define VERDIGRIS_FEATURE_TTL 0x2ULL
/* FEATURES x2: invalidation by range (FEAT_TLBIRANGE). */
#define VERDIGRIS_FEATURE_TLB_RANGE 0x4ULL
/* FEATURES x2: stage 2 forces write-back (FEAT_S2FWB). */
#define VERDIGRIS_FEATURE_FORCED_WRITE_BACK 0x8ULL
/* FEATURES x2: VMIDs have 16 bits (FEAT_VMID16). */
#define VERDIGRIS_FEATURE_VMID16 0x10ULL
/* FEATURES x2: invalidations are repeated, by erratum. */
#define VERDIGRIS_FEATURE_REPEAT_TLBI 0x20ULL
/* FEATURES x2: a build with debug assertions: DEBUG_CRASH exists. */
#define VERDIGRIS_FEATURE_DEBUG_BUILD 0x40ULL
/* FEATURES x2: the walker keeps dirty state (FEAT_HAFDBS level 2 and not masked). */
#define VERDIGRIS_FEATURE_HW_DIRTY 0x80ULL
/* FEATURES x2: blocks are split without a moment in which they are gone (FEAT_BBM level 2). */
#define VERDIGRIS_FEATURE_BBM2 0x100ULL
/* FEATURES x2: invalidations of cold leaves are left out where the flush epoch proves them needless. */
#define VERDIGRIS_FEATURE_FLUSH_EPOCH 0x200ULL
/* MAP, MAP_LIST, SET: the guest may read. Required. */
#define VERDIGRIS_PROT_READ 0x1ULL
/* MAP, MAP_LIST, SET: the guest may write. */
#define VERDIGRIS_PROT_WRITE 0x2ULL
/* MAP, MAP_LIST, SET: the guest may execute. */
#define VERDIGRIS_PROT_EXEC 0x4ULL
/* MAP, MAP_LIST: install the leaf old (access flag clear). */
#define VERDIGRIS_MAP_OLD 0x8ULL
/* MAP, SET: leaves are 2 MiB blocks. SPLIT: stop at them. COLLAPSE: make them. */
#define VERDIGRIS_MAP_BLOCK_2M 0x10ULL
/* MAP, SET: leaves are 1 GiB blocks. COLLAPSE: make them. */
#define VERDIGRIS_MAP_BLOCK_1G 0x20ULL
/* MAP, MAP_LIST: install the leaf clean: the first write is logged for HARVEST. Needs PROT_WRITE. */
#define VERDIGRIS_MAP_CLEAN 0x40ULL
/* INVALIDATE_BEGIN: resume an invalidation whose mark already stands. */
#define VERDIGRIS_BEGIN_RESUME 0x1ULL
/* UNMAP x4, INVALIDATE_BEGIN x4, INVALIDATE_END x5: return the final dirty bits in x2 to x17. */
#define VERDIGRIS_UNMAP_DIRTY 0x2ULL
/* With UNMAP_DIRTY, beside it: they go to the page of the host that x6 names, and not to registers. */
#define VERDIGRIS_UNMAP_TO_BUFFER 0x4ULL
/* AGE: leave cached translations alone: what was young may read as old although it is touched. */
#define VERDIGRIS_AGE_NO_FLUSH 0x0ULL
/* AGE: invalidate what was found young. */
#define VERDIGRIS_AGE_FLUSH_YOUNG 0x1ULL
/* AGE: invalidate the whole VM once, unless no flag was cleared since the last such invalidation. */
#define VERDIGRIS_AGE_FLUSH_ALL 0x2ULL
/* AGE: the field that holds one of the three modes. */
#define VERDIGRIS_AGE_FLUSH_MASK 0x3ULL
/* AGE, TEST_AGE, HARVEST: bits go to the page at x5 and not to registers. */
#define VERDIGRIS_AGE_TO_BUFFER 0x4ULL
/* SET x1: the page that was replaced had been written since it was last harvested. */
#define VERDIGRIS_SET_WAS_DIRTY 0x1ULL
/* VCPU_RUN: complete the load or store of the last exit; a load takes the value in x4. */
#define VERDIGRIS_RUN_MMIO_DONE 0x1ULL
/* VCPU_RUN: answer the last fault by a synchronous external abort in the guest. */
#define VERDIGRIS_RUN_INJECT_ABORT 0x2ULL
/* VCPU_RUN: step over the instruction of the last fault. */
#define VERDIGRIS_RUN_SKIP 0x4ULL
/* EXIT_FAULT x3: the access was a write; a table walk or cache maintenance that needs the right to. */
#define VERDIGRIS_FAULT_WRITE 0x1ULL
/* EXIT_FAULT x3: the access was an instruction fetch. */
#define VERDIGRIS_FAULT_EXEC 0x2ULL
/* EXIT_FAULT x3: the access was a walk of the guest's own tables. */
#define VERDIGRIS_FAULT_TABLE_WALK 0x4ULL
/* EXIT_FAULT x3: a valid leaf denied it (permission fault). */
#define VERDIGRIS_FAULT_PERMISSION 0x8ULL
/* EXIT_FAULT x3: a cache-maintenance instruction. */
#define VERDIGRIS_FAULT_CACHE_MAINTENANCE 0x10ULL
/* EXIT_FAULT x3: x7 describes a load or store that RUN_MMIO_DONE can complete. */
#define VERDIGRIS_FAULT_MMIO_VALID 0x20ULL
/* EXIT_FAULT x7: log2 of the size of the access in bytes, 0 to 3. */
#define VERDIGRIS_MMIO_SIZE_MASK 0x3ULL
/* EXIT_FAULT x7: the value that is loaded is sign-extended. */
#define VERDIGRIS_MMIO_SIGN_EXTEND 0x4ULL
/* EXIT_FAULT x7: the register is 64 bits wide. */
#define VERDIGRIS_MMIO_REG_64 0x8ULL
/* EXIT_FAULT x7: shift of the register number, 5 bits; 31 is the zero register. */
#define VERDIGRIS_MMIO_REG_SHIFT 0x4ULL
/* EXIT_SHUTDOWN x2: the guest asked to be switched off. */
#define VERDIGRIS_SHUTDOWN_OFF 0x1ULL
/* EXIT_SHUTDOWN x2: the guest asked to be reset. */
#define VERDIGRIS_SHUTDOWN_RESET 0x2ULL
/* PAGE_STATE x1: the host owns the page. */
#define VERDIGRIS_OWNER_HOST 0x0ULL
/* PAGE_STATE x1: the firmware owns the page. */
#define VERDIGRIS_OWNER_EL2 0x1ULL
/* PAGE_STATE x1: the page was donated to a VM, whose handle is in x3. */
#define VERDIGRIS_OWNER_VM 0x2ULL
/* PAGE_STATE x1: no RAM, or reserved: nobody can own it. */
#define VERDIGRIS_OWNER_NONE 0x3ULL
/* DEBUG_CRASH x1: read from an unmapped address. */
#define VERDIGRIS_CRASH_FAULT 0x0ULL
/* DEBUG_CRASH x1: overflow the stack of the calling CPU. */
#define VERDIGRIS_CRASH_STACK 0x1ULL
/* DEBUG_CRASH x1: write to the firmware's text. */
#define VERDIGRIS_CRASH_TEXT 0x2ULL
/* DEBUG_CRASH x1: panic. */
#define VERDIGRIS_CRASH_PANIC 0x3ULL
/* DEBUG_CRASH x1: execute from writable memory. */
#define VERDIGRIS_CRASH_EXEC 0x4ULL
/* DEBUG_CRASH x1: read at x2, where nothing answers, as from a broken page. EL2 goes on. */
#define VERDIGRIS_SURVIVE_READ 0x5ULL
/* DEBUG_CRASH x1: translate an address by tables at x2, where nothing answers. EL2 goes on. */
#define VERDIGRIS_SURVIVE_WALK 0x6ULL
/* DEBUG_CRASH x1: read a register that EL2 doesn't have. EL2 goes on. */
#define VERDIGRIS_SURVIVE_REGISTER 0x7ULL

/* A physical interrupt is pending for the host. */
#define VERDIGRIS_EXIT_INTERRUPT 0
/* A stage-2 fault: x2 IPA, x3 flags, x4 ESR_EL2, x5 sequence number, x6 virtual address, x7 access, x8 value stored. */
#define VERDIGRIS_EXIT_FAULT 1
/* A guest call: x2 to x9 hold the guest's x0 to x7, x10 the immediate, x11 is 1 for SMC. */
#define VERDIGRIS_EXIT_HYPERCALL 2
/* The guest waits: x2 is 0 for WFI, 1 for WFE, 2 for WFIT, 3 for WFET. */
#define VERDIGRIS_EXIT_WAIT 3
/* The guest asked to be shut down: x2 tells how. */
#define VERDIGRIS_EXIT_SHUTDOWN 4
/* An SError arrived while the guest ran: x4 ESR_EL2. */
#define VERDIGRIS_EXIT_SERROR 5
/* The guest did what the firmware does not emulate: x4 ESR_EL2, x6 virtual address. */
#define VERDIGRIS_EXIT_UNHANDLED 6

/* Core registers: x0 to x30 are REG_CORE + 0 to 30. */
#define VERDIGRIS_REG_CORE 0x0ULL
/* SP_EL0. */
#define VERDIGRIS_REG_SP_EL0 0x1fULL
/* The address of the next instruction. */
#define VERDIGRIS_REG_PC 0x20ULL
/* PSTATE, in the layout of SPSR_EL2. Only AArch64 EL1 and EL0 can be set. */
#define VERDIGRIS_REG_PSTATE 0x21ULL
/* SP_EL1. */
#define VERDIGRIS_REG_SP_EL1 0x22ULL
/* ELR_EL1. */
#define VERDIGRIS_REG_ELR_EL1 0x23ULL
/* SPSR_EL1. */
#define VERDIGRIS_REG_SPSR_EL1 0x24ULL
/* System registers: REG_SYS | op0 << 14 | op1 << 11 | CRn << 7 | CRm << 3 | op2. */
#define VERDIGRIS_REG_SYS 0x10000ULL
/* FP/SIMD: Vn is REG_FP + 2 n (bits 63:0) and REG_FP + 2 n + 1 (bits 127:64). */
#define VERDIGRIS_REG_FP 0x20000ULL
/* FPSR. */
#define VERDIGRIS_REG_FPSR 0x20040ULL
/* FPCR. */
#define VERDIGRIS_REG_FPCR 0x20041ULL
/* Offset of the guest's virtual counter: CNTVOFF_EL2, in ticks. */
#define VERDIGRIS_REG_CNTVOFF 0x30000ULL

/* Stage-2 translation faults. */
#define VERDIGRIS_STAT_FAULT_TRANSLATION 0
/* Stage-2 permission faults. */
#define VERDIGRIS_STAT_FAULT_PERMISSION 1
/* Stage-2 access-flag faults, all resolved in EL2. */
#define VERDIGRIS_STAT_FAULT_ACCESS_FLAG 2
/* Other stage-2 faults: address size, external abort, TLB conflict. */
#define VERDIGRIS_STAT_FAULT_OTHER 3
/* Faults that found their cause already gone, and ran the guest again. */
#define VERDIGRIS_STAT_FAULT_SPURIOUS 4
/* Ranges aged (calls of AGE). */
#define VERDIGRIS_STAT_AGES 5
/* Ranges whose access flags were read (calls of TEST_AGE). */
#define VERDIGRIS_STAT_AGE_TESTS 6
/* Leaves that ageing looked at. */
#define VERDIGRIS_STAT_LEAVES_VISITED 7
/* Leaves that ageing found young. */
#define VERDIGRIS_STAT_LEAVES_YOUNG 8
/* Leaves mapped. */
#define VERDIGRIS_STAT_LEAVES_MAPPED 9
/* Leaves unmapped. */
#define VERDIGRIS_STAT_LEAVES_UNMAPPED 10
/* Leaves replaced by SET. */
#define VERDIGRIS_STAT_LEAVES_SET 11
/* Leaves write-protected. */
#define VERDIGRIS_STAT_LEAVES_PROTECTED 12
/* Blocks unmapped whole for want of a table page to split them. */
#define VERDIGRIS_STAT_BLOCKS_DROPPED 13
/* Invalidations of one IPA. */
#define VERDIGRIS_STAT_TLBI_IPA 14
/* Invalidations of a range of IPAs (FEAT_TLBIRANGE). */
#define VERDIGRIS_STAT_TLBI_RANGE 15
/* Invalidations of all of stage 1 that end a batch. */
#define VERDIGRIS_STAT_TLBI_STAGE1 16
/* Invalidations of a whole VMID. */
#define VERDIGRIS_STAT_TLBI_VMID 17
/* Local invalidations on the faulting CPU. */
#define VERDIGRIS_STAT_TLBI_LOCAL 18
/* Calls refused with RETRY. */
#define VERDIGRIS_STAT_RETRIES 19
/* Of these, the ones refused only because the memory of past ranges is bounded. */
#define VERDIGRIS_STAT_FALSE_RETRIES 20
/* Exits by a physical interrupt. */
#define VERDIGRIS_STAT_EXIT_INTERRUPT 21
/* Exits by a fault for the host. */
#define VERDIGRIS_STAT_EXIT_FAULT 22
/* Exits by a guest call. */
#define VERDIGRIS_STAT_EXIT_HYPERCALL 23
/* Exits by a wait. */
#define VERDIGRIS_STAT_EXIT_WAIT 24
/* Exits by shutdown. */
#define VERDIGRIS_STAT_EXIT_SHUTDOWN 25
/* Exits by an SError. */
#define VERDIGRIS_STAT_EXIT_SERROR 26
/* Exits by what is not emulated. */
#define VERDIGRIS_STAT_EXIT_UNHANDLED 27
/* Runs of a vCPU. */
#define VERDIGRIS_STAT_RUNS 28
/* Guest accesses trapped and emulated, or answered by an exception, in EL2. */
#define VERDIGRIS_STAT_TRAPS 29
/* Lazy loads of a guest's FP/SIMD registers. */
#define VERDIGRIS_STAT_FP_SWITCHES 30
/* Table pages in use. */
#define VERDIGRIS_STAT_TABLE_PAGES 31
/* Donated table pages that are free. */
#define VERDIGRIS_STAT_FREE_TABLE_PAGES 32
/* Instructions that EL2 executed on the calling CPU (option counter=on, VM 0); else 0. */
#define VERDIGRIS_STAT_EL2_INSTRUCTIONS 33
/* Leaves taken away, replaced, protected or harvested without an invalidation: the flush epoch proved them absent from TLBs. */
#define VERDIGRIS_STAT_FLUSHES_SKIPPED 34
/* Leaves taken away, replaced, protected or harvested with an invalidation. */
#define VERDIGRIS_STAT_FLUSHES_DONE 35
/* Ranges harvested (calls of HARVEST). */
#define VERDIGRIS_STAT_HARVESTS 36
/* Leaves that harvesting, unmapping or replacing found dirty. */
#define VERDIGRIS_STAT_LEAVES_DIRTY 37
/* Write faults on granted leaves, logged and resolved in EL2. */
#define VERDIGRIS_STAT_WRITES_LOGGED 38
/* Blocks split, for a call or for an invalidation. */
#define VERDIGRIS_STAT_BLOCKS_SPLIT 39
/* Blocks made by COLLAPSE. */
#define VERDIGRIS_STAT_BLOCKS_COLLAPSED 40
/* Empty tables given back by TABLES_RECLAIM, or for want of a table page. */
#define VERDIGRIS_STAT_TABLES_RECLAIMED 41
/* Pages of 4 KiB that are mapped. */
#define VERDIGRIS_STAT_PAGES_MAPPED 42
/* Table pages in use for each GiB that is mapped, rounded up. */
#define VERDIGRIS_STAT_TABLE_PAGES_PER_GIB 43
/* Times that all VMIDs were used up and everything was invalidated (VM 0). */
#define VERDIGRIS_STAT_VMID_ROLLOVERS 44
/* Table pages of the host's own stage 2, beside its root (VM 0). */
#define VERDIGRIS_STAT_HOST_TABLE_PAGES 45

/* The names of the counters, in the order of their indices. */
#define VERDIGRIS_STAT_NAMES \
	"fault_translation", \
	"fault_permission", \
	"fault_access_flag", \
	"fault_other", \
	"fault_spurious", \
	"ages", \
	"age_tests", \
	"leaves_visited", \
	"leaves_young", \
	"leaves_mapped", \
	"leaves_unmapped", \
	"leaves_set", \
	"leaves_protected", \
	"blocks_dropped", \
	"tlbi_ipa", \
	"tlbi_range", \
	"tlbi_stage1", \
	"tlbi_vmid", \
	"tlbi_local", \
	"retries", \
	"false_retries", \
	"exit_interrupt", \
	"exit_fault", \
	"exit_hypercall", \
	"exit_wait", \
	"exit_shutdown", \
	"exit_serror", \
	"exit_unhandled", \
	"runs", \
	"traps", \
	"fp_switches", \
	"table_pages", \
	"free_table_pages", \
	"el2_instructions", \
	"flushes_skipped", \
	"flushes_done", \
	"harvests", \
	"leaves_dirty", \
	"writes_logged", \
	"blocks_split", \
	"blocks_collapsed", \
	"tables_reclaimed", \
	"pages_mapped", \
	"table_pages_per_gib", \
	"vmid_rollovers", \
	"host_table_pages"

#endif
