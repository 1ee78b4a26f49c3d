// SPDX-License-Identifier: GPL-2.0
/*
 * What Linux does to the memory of the process happens to the guest too.
 *
 * The one invariant: when a start returns, no guest reaches the pages, and the
 * firmware refuses to map them until the end.  That holds for every path: start
 * never fails, and where it may not block it spins through the hypercalls.
 *
 * A start that fails would make Linux give up what it was about to do, and is
 * allowed only to notifiers that have no end.  This one has.
 */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "calls.h"
#include "kvm.h"

/* What a callback about ages returns: int, and since some 7.x bool. */
#define vg_yes typeof(((struct mmu_notifier_ops *)NULL)->test_young(NULL, NULL, 0))

/**
 * vg_invalidations_init() - prepares a VM where nothing is in progress
 * @invalidations: its list
 */
void vg_invalidations_init(struct vg_invalidations *invalidations)
{
	spin_lock_init(&invalidations->lock);
	init_waitqueue_head(&invalidations->ended);
}

static void invalidations_add(struct vg_invalidations *all, u64 start, u64 end)
{
	unsigned int i;

	spin_lock(&all->lock);
	for (i = 0; i < VG_INVALIDATIONS; i++) {
		if (all->ranges[i].start == all->ranges[i].end) {
			all->ranges[i].start = start;
			all->ranges[i].end = end;
			goto out;
		}
	}
	all->hull_start = all->hull_count ? min(all->hull_start, start) : start;
	all->hull_end = all->hull_count ? max(all->hull_end, end) : end;
	all->hull_count++;
out:
	spin_unlock(&all->lock);
}

/* Two that are equal are as good as each other, so any of them is removed. */
static void invalidations_remove(struct vg_invalidations *all, u64 start, u64 end)
{
	unsigned int i;

	spin_lock(&all->lock);
	for (i = 0; i < VG_INVALIDATIONS; i++) {
		if (all->ranges[i].start == start && all->ranges[i].end == end) {
			all->ranges[i].start = 0;
			all->ranges[i].end = 0;
			goto out;
		}
	}
	if (!WARN_ON_ONCE(!all->hull_count))
		all->hull_count--;
out:
	spin_unlock(&all->lock);
	if (wq_has_sleeper(&all->ended))
		wake_up_all(&all->ended);
}

static bool invalidations_meet(struct vg_invalidations *all, u64 start, u64 end)
{
	bool meet;
	unsigned int i;

	spin_lock(&all->lock);
	meet = all->hull_count && all->hull_start < end && start < all->hull_end;
	for (i = 0; i < VG_INVALIDATIONS && !meet; i++)
		meet = all->ranges[i].start < end && start < all->ranges[i].end;
	spin_unlock(&all->lock);
	return meet;
}

/**
 * vg_invalidations_wait() - waits until guest pages are left alone
 * @vm: the VM
 * @gfn: the first page
 * @npages: how many
 *
 * Called with nothing held: what is in progress may need anything.
 *
 * Return: 0, or -EINTR after a signal.
 */
int vg_invalidations_wait(struct vg_vm *vm, u64 gfn, u64 npages)
{
	struct vg_invalidations *all = &vm->invalidations;

	if (!invalidations_meet(all, gfn, gfn + npages))
		return 0;
	vg_count(vm, VG_STAT_WAITS);
	vg_point(VG_POINT_IN_WAIT);
	if (wait_event_interruptible(all->ended, !invalidations_meet(all, gfn, gfn + npages)))
		return -EINTR;
	return 0;
}

/**
 * vg_invalidations_wait_killable() - waits until guest pages are left alone
 * @vm: the VM
 * @gfn: the first page
 * @npages: how many
 *
 * Called under no lock but slots_lock, which no invalidation takes.
 *
 * Return: 0, or -EINTR after a fatal signal.
 */
int vg_invalidations_wait_killable(struct vg_vm *vm, u64 gfn, u64 npages)
{
	struct vg_invalidations *all = &vm->invalidations;

	vg_count(vm, VG_STAT_WAITS);
	if (wait_event_killable(all->ended, !invalidations_meet(all, gfn, gfn + npages)))
		return -EINTR;
	return 0;
}

/*
 * One step of a begin.  Final dirty bits are on their way from the firmware to the
 * slot's log only under the gate's lock, so that whoever reads the log can wait
 * for those that are.
 */
static long begin_step(struct vg_vm *vm, struct vg_slot *slot, u64 gfn, u64 npages, bool resume,
		       u64 *done)
{
	struct vg_bits bits;
	u64 before = *done;
	long status;

	vg_count(vm, VG_STAT_INVALIDATE_CALLS);
	if (!slot->dirty)
		return vg_call_begin(vm->handle, gfn << PAGE_SHIFT, npages, resume, done, NULL);
	read_lock(&vm->gate.lock);
	status = vg_call_begin(vm->handle, gfn << PAGE_SHIFT, npages, resume, done, &bits);
	if (!status)
		vg_dirty_note(slot, gfn - slot->base_gfn + before, *done - before, bits.words);
	read_unlock(&vm->gate.lock);
	return status;
}

/* The page that Linux frees next may still be the guest's: nothing of it runs again. */
static void begin_failed(struct vg_vm *vm, long status, bool can_block)
{
	vg_vm_bug(vm, "INVALIDATE_BEGIN", status);
	if (can_block)
		vg_call_unmap_all(vm->handle, 0, BIT_ULL(vm->ipa_bits - PAGE_SHIFT));
}

/**
 * vg_invalidate_begin() - takes guest pages away, and keeps them from being mapped
 * @vm: the VM
 * @slot: the slot that has all of them, whose log and windows follow
 * @gfn: the first page
 * @npages: how many
 * @can_block: sleeping is allowed
 *
 * The slot stays what it is: the gate is entered, or slots_lock held.
 */
void vg_invalidate_begin(struct vg_vm *vm, struct vg_slot *slot, u64 gfn, u64 npages,
			 bool can_block)
{
	bool resume = false;
	u64 done = 0;
	long status;

	invalidations_add(&vm->invalidations, gfn, gfn + npages);
	do {
		status = begin_step(vm, slot, gfn, npages, resume, &done);
		if (status) {
			begin_failed(vm, status, can_block);
			return;
		}
		resume = true;
		if (can_block)
			cond_resched();
	} while (done < npages);
	vg_windows_drop(slot, gfn, npages);
}

/**
 * vg_invalidate_end() - lets guest pages be mapped again
 * @vm: the VM
 * @gfn: the first page of a begin
 * @npages: its number of pages
 * @can_block: sleeping is allowed
 *
 * There are no dirty bits to be had: the begin has unmapped everything.
 */
void vg_invalidate_end(struct vg_vm *vm, u64 gfn, u64 npages, bool can_block)
{
	u64 done = npages;
	long status;

	do {
		vg_count(vm, VG_STAT_INVALIDATE_CALLS);
		status = vg_call_end(vm->handle, gfn << PAGE_SHIFT, npages, &done);
		if (status)
			vg_vm_bug(vm, "INVALIDATE_END", status);
		if (can_block)
			cond_resched();
	} while (!status && done < npages);
	invalidations_remove(&vm->invalidations, gfn, gfn + npages);
}

static struct vg_vm *vm_of(struct mmu_notifier *mn)
{
	return container_of(mn, struct vg_vm, mn);
}

/* What a slot has of [start, last], in guest pages, rounded outwards. */
static u64 clip(const struct vg_slot *slot, unsigned long start, unsigned long last, u64 *gfn)
{
	unsigned long first_page = (max(start, slot->by_hva.start) - slot->hva) >> PAGE_SHIFT;
	unsigned long last_page = (min(last, slot->by_hva.last) - slot->hva) >> PAGE_SHIFT;

	*gfn = slot->base_gfn + first_page;
	return last_page - first_page + 1;
}

#define for_each_slot(slot, vm, start, last)				\
	for ((slot) = vg_slot_first_hva((vm), (start), (last)); (slot);	\
	     (slot) = vg_slot_next_hva((slot), (start), (last)))

/*
 * Ranges may be smaller than a page: slots begin and end with pages, so what
 * clip() makes of the first and the last byte is rounded outwards.
 */
static int invalidate_range_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	unsigned long start = range->start, last = range->end - 1;
	struct vg_vm *vm = vm_of(mn);
	struct vg_slot *slot;
	u64 gfn, npages;

	vg_count(vm, VG_STAT_INVALIDATE_START);
	vg_gate_enter(&vm->gate);
	if (range->start >= range->end)
		return 0;
	for_each_slot(slot, vm, start, last) {
		npages = clip(slot, start, last, &gfn);
		vg_invalidate_begin(vm, slot, gfn, npages, mmu_notifier_range_blockable(range));
	}
	if (mmu_notifier_range_blockable(range))
		vg_point(VG_POINT_AFTER_BEGIN);
	return 0;
}

static void invalidate_range_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	unsigned long start = range->start, last = range->end - 1;
	struct vg_vm *vm = vm_of(mn);
	struct vg_slot *slot;
	u64 gfn, npages;

	if (range->start < range->end) {
		for_each_slot(slot, vm, start, last) {
			npages = clip(slot, start, last, &gfn);
			vg_invalidate_end(vm, gfn, npages, mmu_notifier_range_blockable(range));
		}
	}
	vg_gate_leave(&vm->gate);
}

/*
 * Asks every slot that has the memory, and not only until one says yes: a page
 * that is asked about is consumed wherever it is.  Called under page-table locks:
 * nothing sleeps.
 */
static bool ask_slots(struct vg_vm *vm, unsigned long start, unsigned long end,
		      enum vg_question question)
{
	unsigned long last = end - 1;
	struct vg_slot *slot;
	bool is_young = false;
	u64 gfn, npages;

	if (start >= end)
		return false;
	read_lock(&vm->gate.lock);
	for_each_slot(slot, vm, start, last) {
		npages = clip(slot, start, last, &gfn);
		is_young |= vg_age(vm, slot, gfn, npages, question);
	}
	read_unlock(&vm->gate.lock);
	if (is_young)
		vg_count(vm, VG_STAT_YOUNG_ANSWERS);
	return is_young;
}

static vg_yes clear_flush_young(struct mmu_notifier *mn, struct mm_struct *mm,
				unsigned long start, unsigned long end)
{
	vg_count(vm_of(mn), VG_STAT_CLEAR_FLUSH_YOUNG);
	return ask_slots(vm_of(mn), start, end, VG_CLEAR_FLUSH_YOUNG);
}

static vg_yes clear_young(struct mmu_notifier *mn, struct mm_struct *mm,
			  unsigned long start, unsigned long end)
{
	vg_count(vm_of(mn), VG_STAT_CLEAR_YOUNG);
	return ask_slots(vm_of(mn), start, end, VG_CLEAR_YOUNG);
}

/* One page, not the empty range from @address to @address, which is always old. */
static vg_yes test_young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long address)
{
	unsigned long start = address & PAGE_MASK;

	vg_count(vm_of(mn), VG_STAT_TEST_YOUNG);
	return ask_slots(vm_of(mn), start, start + PAGE_SIZE, VG_TEST_YOUNG);
}

/*
 * The address space goes, and its pages will be freed without further notice.  May
 * run beside any other callback; the firmware takes that.
 */
static void release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct vg_vm *vm = vm_of(mn);
	long status;

	WRITE_ONCE(vm->mm_gone, true);
	status = vg_call_unmap_all(vm->handle, 0, BIT_ULL(vm->ipa_bits - PAGE_SHIFT));
	if (status)
		vg_vm_bug(vm, "UNMAP", status);
}

static const struct mmu_notifier_ops notifier_ops = {
	.invalidate_range_start = invalidate_range_start,
	.invalidate_range_end = invalidate_range_end,
	.clear_flush_young = clear_flush_young,
	.clear_young = clear_young,
	.test_young = test_young,
	.release = release,
};

/**
 * vg_notifier_register() - has Linux tell what it does to the memory
 * @vm: the VM, which exists in the firmware
 *
 * Return: 0 or an error.
 */
int vg_notifier_register(struct vg_vm *vm)
{
	int ret;

	vm->mn.ops = &notifier_ops;
	ret = mmu_notifier_register(&vm->mn, vm->mm);
	vm->is_registered = !ret;
	return ret;
}

/**
 * vg_notifier_unregister() - ends that; no callback runs afterwards
 * @vm: the VM, which still exists in the firmware
 *
 * Where the address space is still there this releases all of the guest's memory.
 */
void vg_notifier_unregister(struct vg_vm *vm)
{
	if (vm->is_registered)
		mmu_notifier_unregister(&vm->mn, vm->mm);
	vm->is_registered = false;
}
