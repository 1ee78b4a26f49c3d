/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The KVM interface, from the inside: objects, who holds what, who calls whom.
 *
 * Tables, guest state and world switch are the firmware's.  What is here is
 * what only the host can know: which memory of which process a guest has, and
 * what Linux does to that memory.
 *
 * Lock order, from outer to inner:
 *
 *	vg_vcpu.mutex
 *	  vg_vm.lock
 *	    vg_vm.slots_lock
 *	      vg_pages.lock (under vg_vm.lock too)
 *	      [mmap_lock, page locks, page-table locks: taken by Linux]
 *	        vg_gate.lock (for writing: the gate is closed)
 *	          vg_window.lock
 *	        vg_invalidations.lock
 *
 * Notifiers run under Linux's locks in the middle, so whoever is inside of
 * these takes nothing to their left, allocates nothing and touches no user
 * memory.  A thread that has entered the gate holds no lock by that, and sleeps
 * where its caller may.  Waiting for the gate to be empty is for slots_lock alone.
 */
#ifndef VERDIGRIS_KVM_H
#define VERDIGRIS_KVM_H

#include <linux/atomic.h>
#include <linux/interval_tree.h>
#include <linux/jump_label.h>
#include <linux/kref.h>
#include <linux/kvm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "firmware.h"

/* Slots of a VM, as KVM has them: identifiers are 16 bits wide, one is kept back. */
#define VG_MAX_SLOTS		32767
/* Pages of an answer window: what one AGE returns in registers. */
#define VG_WINDOW_PAGES		VERDIGRIS_AGE_REGISTER_PAGES
#define VG_WINDOW_WORDS		(VG_WINDOW_PAGES / BITS_PER_LONG)
/* Ranges in progress that are told apart; more share one hull. */
#define VG_INVALIDATIONS	16
/* Most neighbours of a fault that are mapped with it, the page itself included. */
#define VG_FAULT_AROUND_MAX	64
/* Registers that the driver keeps: those of breakpoints and watchpoints, and some others. */
#define VG_KEPT_DEBUG		64
#define VG_KEPT			(VG_KEPT_DEBUG + 8)

/**
 * enum vg_stat - what is counted for each VM
 *
 * The order is that of the names in kvm_stats.c.
 */
enum vg_stat {
	VG_STAT_INVALIDATE_START,	/* calls of invalidate_range_start */
	VG_STAT_CLEAR_FLUSH_YOUNG,	/* calls of clear_flush_young */
	VG_STAT_CLEAR_YOUNG,		/* calls of clear_young */
	VG_STAT_TEST_YOUNG,		/* calls of test_young */
	VG_STAT_YOUNG_ANSWERS,		/* answers "young" */
	VG_STAT_WINDOW_FETCHES,		/* AGE calls for a window */
	VG_STAT_WINDOW_TESTS,		/* TEST_AGE calls for a window */
	VG_STAT_WINDOW_HITS,		/* answers without a call */
	VG_STAT_EPOCH_FLUSHES,		/* FLUSH calls at the end of a pass */
	VG_STAT_INVALIDATE_CALLS,	/* INVALIDATE_BEGIN and _END calls */
	VG_STAT_FAULTS,			/* guest faults that a slot covers */
	VG_STAT_MAPS,			/* MAP and MAP_LIST calls */
	VG_STAT_PAGES_MAPPED,		/* 4 KiB pages mapped for faults */
	VG_STAT_PAGES_AROUND,		/* of these, neighbours */
	VG_STAT_BLOCKS_MAPPED,		/* blocks mapped */
	VG_STAT_REFUSALS,		/* maps answered by RETRY */
	VG_STAT_WAITS,			/* of these, waits for an invalidation */
	VG_STAT_LOOKUPS_FAILED,		/* page lookups that ended in an error */
	VG_STAT_POISONED,		/* page lookups that found poisoned memory */
	VG_STAT_PAGES_DONATED,		/* pages given to the firmware, at present */
	VG_STATS
};

/**
 * struct vg_gate - lets slots stay put while notifiers are at work
 * @lock: read for a look at the slots; written by whoever changes them
 * @inside: starts of invalidations whose end hasn't come: slots don't change
 * @idle: woken when the last one leaves
 *
 * Between an invalidate_range_start and its end the gate stays entered, so both
 * see the same slots.
 */
struct vg_gate {
	rwlock_t lock;
	atomic_t inside;
	wait_queue_head_t idle;
};

/**
 * struct vg_window - answers about VG_WINDOW_PAGES pages of a slot
 * @lock: protects the rest
 * @young: touched, and not yet answered: sticky, one answer each
 * @asked: asked about since @fetched_at: the next question fetches anew
 * @tested: what TEST_AGE last said
 * @fetched_at: when the flags were last taken, in jiffies
 * @tested_at: when they were last tested, in jiffies
 * @is_fetched: @fetched_at means something
 * @is_tested: @tested_at means something
 */
struct vg_window {
	spinlock_t lock; /* innermost; taken under page-table locks */
	unsigned long young[VG_WINDOW_WORDS];
	unsigned long asked[VG_WINDOW_WORDS];
	unsigned long tested[VG_WINDOW_WORDS];
	unsigned long fetched_at;
	unsigned long tested_at;
	bool is_fetched;
	bool is_tested;
};

/**
 * struct vg_slot - a memory slot
 * @id: what user space calls it
 * @flags: KVM_MEM_*; changes together with vg_vm.generation
 * @base_gfn: first guest page
 * @npages: number of pages
 * @hva: address of the first page in the VM's process
 * @by_gfn: in vg_vm.slots_by_gfn
 * @by_hva: in vg_vm.slots_by_hva, [first, last] byte
 * @dirty: one bit a page, while KVM_MEM_LOG_DIRTY_PAGES
 * @windows: answers about ages, each made by the first question about one of its pages
 * @window_shift: log2 of the pages that one of @windows has; 0: there are none
 *
 * All but @dirty's and @windows' contents changes with the gate closed.
 */
struct vg_slot {
	u16 id;
	u32 flags;
	u64 base_gfn;
	unsigned long npages;
	unsigned long hva;
	struct rb_node by_gfn;
	struct interval_tree_node by_hva;
	unsigned long *dirty;
	struct xarray windows;
	unsigned int window_shift;
};

/* What a fault needs of a slot, copied, so that the slot may go. */
struct vg_slot_view {
	u64 generation;
	u64 base_gfn;
	unsigned long npages;
	unsigned long hva;
	u32 flags;
	bool found;
};

/**
 * struct vg_invalidations - ranges of guest pages that are being taken away
 * @lock: protects the rest
 * @ranges: [start, end), free where start == end
 * @hull_start: first page of all ranges that found no place
 * @hull_end: end of these
 * @hull_count: how many there are
 * @ended: woken when one ends
 *
 * Only for waiting: that nothing stale is mapped is the firmware's to see to.
 */
struct vg_invalidations {
	spinlock_t lock;
	struct {
		u64 start, end;
	} ranges[VG_INVALIDATIONS];
	u64 hull_start, hull_end;
	unsigned int hull_count;
	wait_queue_head_t ended;
};

/**
 * struct vg_pages - memory given to the firmware for a VM
 * @lock: protects @chunks
 * @chunks: log2 of the pages of each chunk, by its first page frame number
 */
struct vg_pages {
	struct mutex lock;
	struct xarray chunks;
};

struct vg_vcpu;

/**
 * struct vg_vm - a VM
 * @users: its own file, those of its vCPUs and of its statistics
 * @mm: the address space that its memory is in; ioctls from others get -EIO
 * @handle: what the firmware calls it
 * @ipa_bits: size of its address space
 * @lock: creation of vCPUs, capabilities
 * @slots_lock: changes of slots, dirty logs
 * @srcu: entered from the check of the generation to the end of a map
 * @generation: changes whenever flags of a slot do
 * @gate: keeps the two trees as they are
 * @slots_by_gfn: slots, by address of the guest; they don't overlap
 * @slots_by_hva: slots, by address of the host; they may overlap
 * @slots_by_id: the same, by identifier; under @slots_lock
 * @mn: the notifier
 * @is_registered: @mn has to be unregistered
 * @mm_gone: the address space is being torn down: nothing is mapped any more
 * @is_bugged: the firmware answered what it must not: vCPUs don't run
 * @coalesced: the page that coalesced MMIO will have, shown behind each vCPU's own
 * @invalidations: what is being taken away
 * @pages: memory given to the firmware
 * @link: in the list of all VMs, see lifecycle.c
 * @flush_work: ends an ageing pass
 * @flush_since: when the first window after the last flush was fetched, in jiffies
 * @fetched_last: when the last one was
 * @manual_dirty: KVM_DIRTY_LOG_* flags that user space enabled; changes under @slots_lock
 * @nisv_to_user: KVM_CAP_ARM_NISV_TO_USER is enabled
 * @vcpu_features: features of the first KVM_ARM_VCPU_INIT, which all share
 * @has_features: there was one
 * @counter_offset: of the guest's count from the host's; vCPUs follow when they run
 * @vcpus: by index; under @lock for writing
 * @stats: counters, see enum vg_stat
 * @stats_id: name of its statistics: "kvm-<pid>"
 * @stats_file: the same in debugfs, as text
 */
struct vg_vm {
	struct kref users;
	struct mm_struct *mm;
	u64 handle;
	unsigned int ipa_bits;

	struct mutex lock;
	struct mutex slots_lock;
	struct srcu_struct srcu;
	u64 generation;
	struct vg_gate gate;
	struct rb_root slots_by_gfn;
	struct rb_root_cached slots_by_hva;
	struct xarray slots_by_id;

	struct mmu_notifier mn;
	bool is_registered;
	bool mm_gone;
	bool is_bugged;
	void *coalesced;
	struct vg_invalidations invalidations;
	struct vg_pages pages;

	struct list_head link;
	struct delayed_work flush_work;
	unsigned long flush_since;
	unsigned long fetched_last;

	u64 manual_dirty;
	bool nisv_to_user;
	unsigned long vcpu_features;
	bool has_features;
	u64 counter_offset;
	struct vg_vcpu *vcpus[VERDIGRIS_MAX_VCPUS];

	atomic64_t stats[VG_STATS];
	char stats_id[24];
	struct dentry *stats_file;
};

/**
 * enum vg_answer - what the next run tells the firmware about the last fault
 */
enum vg_answer {
	VG_ANSWER_NONE,
	VG_ANSWER_MMIO,		/* RUN_MMIO_DONE, with the value of kvm_run for loads */
	VG_ANSWER_ABORT,	/* RUN_INJECT_ABORT */
	VG_ANSWER_SKIP,		/* RUN_SKIP */
};

/* What is used of an EXIT_FAULT, decoded: x2 to x8 of the record. */
struct vg_fault {
	u64 ipa;
	u64 flags;	/* VERDIGRIS_FAULT_* */
	u64 esr;
	u64 sequence;
	u64 access;	/* VERDIGRIS_MMIO_* */
	u64 value;
};

/* What is counted for each vCPU, in the order of the names in kvm_stats.c. */
struct vg_vcpu_stats {
	u64 exits;
	u64 fault_exits;
	u64 mmio_exits_user;
	u64 mmio_exits_kernel;
	u64 signal_exits;
	u64 interrupt_exits;
	u64 hypercall_exits;
	u64 wfi_exits;
	u64 wfe_exits;
};

/**
 * struct vg_vcpu - a vCPU
 * @vm: whose it is, with a reference
 * @index: which
 * @mutex: one ioctl at a time
 * @run: shared with user space
 * @fault: the last fault
 * @answer: what the next run does about it
 * @value: of VG_ANSWER_MMIO, what a load gets
 * @has_value: @value was taken from @run
 * @is_born: the firmware knows it, and the VM has it; else its file does
 * @is_initialized: KVM_ARM_VCPU_INIT was done
 * @mp_state: KVM_MP_STATE_*; other vCPUs write it too
 * @wait: where it sleeps: woken by vg_vcpu_kick_all()
 * @cpu: which CPU is about to enter or in the guest, or -1
 * @counter_offset: that of the VM, as the firmware was told last
 * @spsr_aarch32: SPSR_abt, _und, _irq and _fiq, which no guest reaches
 * @kept: more of that kind, see kvm_kept.c
 * @sigset: signals while it runs
 * @has_sigset: there are such
 * @list: MAP_LIST entries of its faults, a page
 * @stats: see kvm_stats.c
 */
struct vg_vcpu {
	struct vg_vm *vm;
	unsigned int index;
	struct mutex mutex; /* outermost */
	struct kvm_run *run;
	struct vg_fault fault;
	enum vg_answer answer;
	u64 value;
	bool has_value;
	bool is_born;
	bool is_initialized;
	u32 mp_state;
	wait_queue_head_t wait;
	int cpu;
	u64 counter_offset;
	u64 spsr_aarch32[KVM_NR_SPSR - 1];
	u64 kept[VG_KEPT];
	sigset_t sigset;
	bool has_sigset;
	u64 *list;
	struct vg_vcpu_stats stats;
};

static inline void vg_count(struct vg_vm *vm, enum vg_stat stat)
{
	atomic64_inc(&vm->stats[stat]);
}

static inline void vg_add(struct vg_vm *vm, enum vg_stat stat, s64 n)
{
	atomic64_add(n, &vm->stats[stat]);
}

/* kvm_main.c: what is allocated for each VM, vCPU and slot, so that who looks sees what is left */
extern struct dentry *vg_debug_folder;
extern struct kmem_cache *vg_vm_cache;
extern struct kmem_cache *vg_vcpu_cache;
extern struct kmem_cache *vg_slot_cache;
int vg_kvm_register(void);
void vg_kvm_unregister(void);
long vg_no_compat_ioctl(struct file *filp, unsigned int command, unsigned long argument);

/* kvm_caps.c */
int vg_cap_check(const struct vg_vm *vm, long cap); /* @vm may be NULL */
int vg_cap_enable(struct vg_vm *vm, const struct kvm_enable_cap *cap);

/* kvm_vm.c */
int vg_vm_create(unsigned long type); /* a file descriptor, or an error */
void vg_vm_get(struct vg_vm *vm);
void vg_vm_put(struct vg_vm *vm);
void vg_vm_bug(struct vg_vm *vm, const char *what, long status); /* by a task, with interrupts on; never sleeps */
unsigned int vg_ipa_bits_limit(void);
void vg_vm_end_runs(struct vg_vm *vm);
bool vg_has_forced_write_back(void);
int vg_vms_live(void);

/* kvm_pages.c: what is given to the firmware */
void vg_pages_init(struct vg_pages *pages);
phys_addr_t vg_pages_region(struct vg_vm *vm, unsigned int order); /* 0: no memory */
int vg_pages_donate(struct vg_vm *vm, unsigned int count); /* sleeps, allocates */
void vg_pages_release(struct vg_vm *vm); /* after VM_DESTROY */
long vg_pages_donated(void); /* of all VMs */
u64 vg_pages_shares(void); /* of all VMs; sleeps, takes long */

/* kvm_slots.c */
void vg_gate_init(struct vg_gate *gate);
void vg_gate_enter(struct vg_gate *gate); /* from any context but interrupts */
void vg_gate_leave(struct vg_gate *gate);
int vg_gate_close(struct vg_gate *gate);
void vg_gate_open(struct vg_gate *gate);
void vg_slots_init(struct vg_vm *vm);
void vg_slots_free(struct vg_vm *vm);
int vg_slots_unmap(struct vg_vm *vm); /* takes slots_lock; 0 or -EINTR */
void vg_slot_free(struct vg_slot *slot);
void vg_slot_link(struct vg_vm *vm, struct vg_slot *slot);
void vg_slot_unlink(struct vg_vm *vm, struct vg_slot *slot);
bool vg_slots_overlap(struct vg_vm *vm, const struct vg_slot *own, u64 gfn, unsigned long npages);
struct vg_slot *vg_slot_by_id(struct vg_vm *vm, u32 id); /* under slots_lock */
struct vg_slot *vg_slot_at(struct vg_vm *vm, u64 gfn); /* gate entered or locked */
struct vg_slot_view vg_slot_look(struct vg_vm *vm, u64 gfn);
/* The first slot that meets [start, last], then the next; gate entered or locked. */
struct vg_slot *vg_slot_first_hva(struct vg_vm *vm, unsigned long start, unsigned long last);
struct vg_slot *vg_slot_next_hva(struct vg_slot *slot, unsigned long start, unsigned long last);

/* kvm_change.c */
int vg_slots_set(struct vg_vm *vm, const struct kvm_userspace_memory_region2 *region);

/* kvm_notifier.c */
int vg_notifier_register(struct vg_vm *vm);
void vg_notifier_unregister(struct vg_vm *vm);
void vg_invalidations_init(struct vg_invalidations *invalidations);
/* BEGIN and END of a range of guest pages; @slot's dirty bits and windows follow.  May sleep if @can_block. */
void vg_invalidate_begin(struct vg_vm *vm, struct vg_slot *slot, u64 gfn, u64 npages, bool can_block);
void vg_invalidate_end(struct vg_vm *vm, u64 gfn, u64 npages, bool can_block);
/* Waits until nothing that meets the pages is in progress: 0, or -EINTR. */
int vg_invalidations_wait(struct vg_vm *vm, u64 gfn, u64 npages);
/* The same; only a fatal signal ends it. */
int vg_invalidations_wait_killable(struct vg_vm *vm, u64 gfn, u64 npages);

/* kvm_age.c */
void vg_windows_init(struct vg_slot *slot);
void vg_windows_free(struct vg_slot *slot);
void vg_windows_drop(struct vg_slot *slot, u64 gfn, u64 npages);
enum vg_question { VG_CLEAR_FLUSH_YOUNG, VG_CLEAR_YOUNG, VG_TEST_YOUNG };
bool vg_age(struct vg_vm *vm, struct vg_slot *slot, u64 gfn, u64 npages, enum vg_question question);
void vg_age_init(struct vg_vm *vm);
void vg_age_stop(struct vg_vm *vm);

/* kvm_fault.c: what a fault came to */
enum vg_outcome {
	VG_RUN_AGAIN,		/* mapped, or to be tried again; or vcpu->answer was set */
	VG_EXIT_MMIO,		/* no memory there: an emulated device's */
	VG_EXIT_ERROR,		/* *error: -EFAULT (kvm_run filled in), -EINTR, -ENOSYS, -EIO, ... */
};
enum vg_outcome vg_fault_handle(struct vg_vcpu *vcpu, const struct vg_fault *fault, int *error);

/* kvm_leaf.c: a look at the host's own tables */
struct vg_leaf {
	unsigned int shift;	/* PAGE_SHIFT, PMD_SHIFT or PUD_SHIFT; 0: nothing is there */
	unsigned long pfn;	/* of the page that was asked about */
	bool is_writable;
	bool is_dirty;
	bool is_special;	/* no page of the process: the page of zeros, a device */
};
struct vg_leaf vg_leaf_look(struct mm_struct *mm, unsigned long hva);

/* kvm_around.c: the neighbours of a fault */
struct vg_around {
	u64 first;		/* guest page of the first entry */
	unsigned int count;	/* entries */
	u64 *list;		/* VG_FAULT_AROUND_MAX of them */
};
unsigned int vg_around_look(struct vg_vm *vm, const struct vg_slot_view *view, u64 gfn,
			    u64 prot_exec, struct vg_around *around);

/* kvm_dirty.c: start and stop under slots_lock; notifiers note */
unsigned long *vg_dirty_alloc(struct vg_vm *vm, unsigned long npages);
int vg_dirty_start(struct vg_vm *vm, struct vg_slot *slot); /* 0, or -EINTR: not exact */
void vg_dirty_stop(struct vg_vm *vm, struct vg_slot *slot);
void vg_dirty_note(struct vg_slot *slot, u64 first, unsigned int npages, const u64 *bits);
int vg_dirty_get(struct vg_vm *vm, const struct kvm_dirty_log *log);
int vg_dirty_clear(struct vg_vm *vm, const struct kvm_clear_dirty_log *log);

/* kvm_vcpu.c */
int vg_vcpu_create(struct vg_vm *vm, unsigned long id); /* a file descriptor, or an error */
void vg_vcpus_free(struct vg_vm *vm);
void vg_vcpu_kick_all(struct vg_vm *vm); /* returns when all have left the guest once */

/* kvm_run.c */
int vg_run(struct vg_vcpu *vcpu);

/* kvm_enter.c: with interrupts off */
void vg_enter(const struct arm_smccc_1_2_regs *args, struct arm_smccc_1_2_regs *res);

/* kvm_regs.c */
int vg_reg_get(struct vg_vcpu *vcpu, const struct kvm_one_reg *reg);
int vg_reg_set(struct vg_vcpu *vcpu, const struct kvm_one_reg *reg);
int vg_reg_list(struct vg_vcpu *vcpu, struct kvm_reg_list __user *list);
int vg_regs_begin(struct vg_vcpu *vcpu);
void vg_count_init(struct vg_vm *vm);
int vg_count_follow(struct vg_vcpu *vcpu);
bool vg_has_ptrauth(void);

/* kvm_kept.c */
u64 vg_kept_id(unsigned int index);
u64 *vg_kept_find(struct vg_vcpu *vcpu, u64 id);
u64 vg_zero_id(unsigned int index);
bool vg_is_zero_id(u64 id);

/* kvm_stats.c */
int vg_vm_stats_fd(struct vg_vm *vm);
void vg_vm_stats_show(struct vg_vm *vm);
void vg_vm_stats_hide(struct vg_vm *vm);
int vg_vcpu_stats_fd(struct vg_vcpu *vcpu);

/* kvm_points.c: where tests have threads sleep, and exits that no guest can cause */
enum vg_point {
	VG_POINT_AFTER_LOOKUP,
	VG_POINT_BEFORE_MAP,
	VG_POINT_AFTER_MAP,
	VG_POINT_IN_WAIT,
	VG_POINT_AFTER_BEGIN,
	VG_POINT_BEFORE_SPLIT,
};

DECLARE_STATIC_KEY_FALSE(vg_points_used);
void vg_point_pause(enum vg_point point);

static inline void vg_point(enum vg_point point)
{
	if (static_branch_unlikely(&vg_points_used))
		vg_point_pause(point);
}

DECLARE_STATIC_KEY_FALSE(vg_unexplained_used);
bool vg_take_unexplained(void);

static inline bool vg_is_unexplained(void)
{
	return static_branch_unlikely(&vg_unexplained_used) && vg_take_unexplained();
}

#endif
