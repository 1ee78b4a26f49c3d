// SPDX-License-Identifier: GPL-2.0
/*
 * A guest fault becomes a mapping, or whatever else it meant.
 *
 * The one invariant: a mapping is made with the sequence number of the exit, and
 * everything that it rests on was looked up after that: the slot, the page, the
 * host's leaf.  Whatever changes one of these is an invalidation, and the firmware
 * refuses maps of its pages with a number from before its end.  So nothing here
 * needs a lock; the page is held for as long as it takes to map it, so that it
 * isn't somebody else's, and no longer, so that Linux may reclaim it.
 *
 * The page lookup may take for ever (userfaultfd), and calls notifiers itself.
 * Nothing is held across it.
 */
#include <linux/hugetlb.h>
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>

#include <asm/cpufeature.h>
#include <asm/esr.h>

#include "calls.h"
#include "kvm.h"

/* Tables that a fault may want at once: all levels of one page, and some ahead. */
#define PAGES_A_DONATION 8

/**
 * struct lookup - what a fault found out
 * @view: the slot
 * @gfn: the guest's page
 * @hva: the same in the process
 * @page: the same in the machine, with a reference
 * @wants_write: the guest wrote, or a page for reading can't be shared more often
 * @is_writable: the process may write to it, and so may the guest
 * @was_there: the process had it already
 * @prot: VERDIGRIS_PROT_EXEC, or 0
 * @prot_around: the same for neighbours
 * @leaf: what the host has there
 */
struct lookup {
	struct vg_slot_view view;
	u64 gfn;
	unsigned long hva;
	struct page *page;
	bool wants_write;
	bool is_writable;
	bool was_there;
	u64 prot;
	u64 prot_around;
	struct vg_leaf leaf;
};

/*
 * Executing needs the instruction cache to be invalidated where it doesn't see
 * data by itself; so there a page becomes executable when it is executed.
 */
static u64 prot_around(void)
{
	return cpus_have_cap(ARM64_HAS_CACHE_DIC) ? VERDIGRIS_PROT_EXEC : 0;
}

static bool is_logged(const struct lookup *lookup)
{
	return lookup->view.flags & KVM_MEM_LOG_DIRTY_PAGES;
}

static bool may_write(const struct lookup *lookup)
{
	return !(lookup->view.flags & KVM_MEM_READONLY);
}

/*
 * Finds the page, with a reference: for writing, if that takes nothing that the
 * guest didn't ask for.  Returns 0 or an error of get_user_pages().
 */
static int find_page(struct lookup *lookup)
{
	unsigned int flags = FOLL_HWPOISON | FOLL_INTERRUPTIBLE | FOLL_HONOR_NUMA_FAULT;
	long ret;

	lookup->is_writable = may_write(lookup) &&
		get_user_page_fast_only(lookup->hva, FOLL_WRITE, &lookup->page);
	lookup->was_there = lookup->is_writable ||
		(!lookup->wants_write && get_user_page_fast_only(lookup->hva, 0, &lookup->page));
	if (lookup->was_there)
		return 0;
	if (lookup->wants_write)
		flags |= FOLL_WRITE;
	ret = get_user_pages_unlocked(lookup->hva, 1, &lookup->page, flags);
	if (ret != 1)
		return ret < 0 ? ret : -EFAULT;
	lookup->is_writable = lookup->wants_write;
	return 0;
}

static void look_at_leaf(struct vg_vm *vm, struct lookup *lookup)
{
	lookup->leaf = vg_leaf_look(vm->mm, lookup->hva);
	if (lookup->leaf.shift && lookup->leaf.pfn == page_to_pfn(lookup->page))
		return;
	/* It changes at this moment: the firmware will refuse.  Assume little. */
	lookup->leaf = (struct vg_leaf){ .shift = PAGE_SHIFT };
}

/*
 * The guest's writes leave no mark in the host's tables.  Unless Linux knows the
 * page for dirty already, reclaim would drop what it takes for clean, with all that
 * the guest will have written.
 */
static void tell_dirty(const struct lookup *lookup)
{
	if (lookup->is_writable && !(lookup->leaf.is_writable && lookup->leaf.is_dirty))
		set_page_dirty_lock(lookup->page);
}

/*
 * Tells Linux what the fault is about to do to the page, as KVM does when it gives
 * the page back.  The classic LRU lists judge by PG_referenced and by the list that
 * a page is on: without a word from here a page that only the guest uses stays on the
 * inactive list, whatever its access flags say later.  A page of zeros is nobody's.
 *
 * The reference keeps the page until it is told.  What isn't mapped isn't told: the
 * file system may hold it for clean, and may have to be asked before the next write.
 * Neighbours aren't told either: nobody has touched them.
 */
static void tell_of_access(const struct lookup *lookup)
{
	if (PageReserved(lookup->page))
		return;
	tell_dirty(lookup);
	mark_page_accessed(lookup->page);
}

static u64 map_flags(const struct lookup *lookup)
{
	u64 flags = VERDIGRIS_PROT_READ | lookup->prot;

	if (lookup->is_writable)
		flags |= VERDIGRIS_PROT_WRITE;
	if (lookup->is_writable && is_logged(lookup) && !lookup->wants_write)
		flags |= VERDIGRIS_MAP_CLEAN;
	return flags;
}

/* The slot's flags are still those that were looked at, and its memory is there. */
static bool is_current(struct vg_vm *vm, const struct lookup *lookup)
{
	return READ_ONCE(vm->generation) == lookup->view.generation && !READ_ONCE(vm->mm_gone);
}

/* Maps what was looked up as a page, or as the block of @npages that has it. */
static long map_aligned(struct vg_vm *vm, const struct lookup *lookup, u64 npages, u64 block,
			u64 sequence)
{
	u64 gfn = ALIGN_DOWN(lookup->gfn, npages), done = 0;
	u64 pfn = ALIGN_DOWN(page_to_pfn(lookup->page), npages);
	long status = VERDIGRIS_RETRY;
	int section;

	vg_count(vm, VG_STAT_MAPS);
	section = srcu_read_lock(&vm->srcu);
	if (is_current(vm, lookup))
		status = vg_call_map(vm->handle, gfn << PAGE_SHIFT, pfn << PAGE_SHIFT, npages,
				     map_flags(lookup) | block, sequence, &done);
	srcu_read_unlock(&vm->srcu, section);
	if (!status)
		vg_add(vm, VG_STAT_PAGES_MAPPED, npages);
	return status;
}

/*
 * The page and its neighbours.  Any failure may be a neighbour's.  Where the process
 * got the page only now, it has the neighbours from faults of the guest, if at all,
 * and the guest has them too.
 */
static long map_around(struct vg_vm *vm, const struct lookup *lookup, u64 *list, u64 sequence)
{
	u64 pa = page_to_phys(lookup->page), done = 0;
	struct vg_around around = { .list = list };
	long status = VERDIGRIS_RETRY;
	unsigned int found;
	int section;

	if (!lookup->was_there)
		return VERDIGRIS_NOT_SUPPORTED;
	found = vg_around_look(vm, &lookup->view, lookup->gfn, lookup->prot_around, &around);
	if (!found)
		return VERDIGRIS_NOT_SUPPORTED;
	list[lookup->gfn - around.first] = pa | map_flags(lookup);
	vg_count(vm, VG_STAT_MAPS);
	section = srcu_read_lock(&vm->srcu);
	if (is_current(vm, lookup))
		status = vg_call_map_list(vm->handle, around.first << PAGE_SHIFT, around.count,
					  virt_to_phys(list), sequence, &done);
	srcu_read_unlock(&vm->srcu, section);
	if (status)
		return status;
	vg_add(vm, VG_STAT_PAGES_MAPPED, found + 1);
	vg_add(vm, VG_STAT_PAGES_AROUND, found);
	return 0;
}

/*
 * Something else is in the way: where a page is to be, a block of the same memory,
 * from a time when the host had it as one; where a block is to be, pages that can't
 * become one, or the empty table of such.  Takes it away; the next fault finds
 * nothing there.
 */
static void clear_place(struct vg_vm *vm, const struct lookup *lookup)
{
	u64 npages = PMD_SIZE >> PAGE_SHIFT, gfn, end;
	struct vg_slot *slot;

	vg_gate_enter(&vm->gate);
	slot = vg_slot_at(vm, lookup->gfn);
	if (slot) {
		gfn = max(ALIGN_DOWN(lookup->gfn, npages), slot->base_gfn);
		end = min(ALIGN_DOWN(lookup->gfn, npages) + npages, slot->base_gfn + slot->npages);
		vg_invalidate_begin(vm, slot, gfn, end - gfn, true);
		vg_invalidate_end(vm, gfn, end - gfn, true);
	}
	vg_gate_leave(&vm->gate);
}

/*
 * A block is what the host has as one, and lies alike in the guest, the process and
 * the machine.  A slot that logs is told of pages.
 */
static bool fits_block(const struct lookup *lookup, unsigned int shift)
{
	u64 npages = BIT_ULL(shift - PAGE_SHIFT), gfn = ALIGN_DOWN(lookup->gfn, npages);
	u64 offset = lookup->gfn - gfn;
	const struct vg_slot_view *view = &lookup->view;

	return lookup->leaf.shift >= shift && !is_logged(lookup) &&
	       (lookup->hva >> PAGE_SHIFT) % npages == offset &&
	       page_to_pfn(lookup->page) % npages == offset && gfn >= view->base_gfn &&
	       gfn + npages <= view->base_gfn + view->npages;
}

/*
 * Makes a block of the pages that are there already.  As a map, only while the
 * slot's flags are those that were looked at: one that logs by now was split.
 */
static long collapse(struct vg_vm *vm, const struct lookup *lookup, u64 npages, u64 block)
{
	u64 gfn = ALIGN_DOWN(lookup->gfn, npages), done = 0;
	long status = VERDIGRIS_RETRY;
	int section;

	section = srcu_read_lock(&vm->srcu);
	if (is_current(vm, lookup))
		status = vg_call_collapse(vm->handle, gfn << PAGE_SHIFT, npages, block, &done);
	srcu_read_unlock(&vm->srcu, section);
	/* An interrupt was in the way: the guest tries again. */
	return !status && done < npages ? VERDIGRIS_RETRY : status;
}

static long map_block(struct vg_vm *vm, const struct lookup *lookup, unsigned int shift,
		      u64 block, u64 sequence)
{
	u64 npages = BIT_ULL(shift - PAGE_SHIFT);
	long status;

	if (!fits_block(lookup, shift))
		return VERDIGRIS_NOT_SUPPORTED;
	status = map_aligned(vm, lookup, npages, block, sequence);
	if (status == VERDIGRIS_EXISTS) {
		status = collapse(vm, lookup, npages, block);
		if (!status)
			status = map_aligned(vm, lookup, npages, block, sequence);
	}
	if (!status)
		vg_count(vm, VG_STAT_BLOCKS_MAPPED);
	return status;
}

/* Tells whether there is no use in trying something smaller. */
static bool is_final(long status)
{
	return status != VERDIGRIS_NOT_SUPPORTED && status != VERDIGRIS_EXISTS &&
	       status != VERDIGRIS_NOT_OWNER && status != VERDIGRIS_LIMIT;
}

/* Maps what was looked up, as large as it can be; returns the firmware's status. */
static long map_lookup(struct vg_vm *vm, const struct lookup *lookup, u64 *list, u64 sequence)
{
	long status;

	status = map_block(vm, lookup, PUD_SHIFT, VERDIGRIS_MAP_BLOCK_1G, sequence);
	if (!is_final(status))
		status = map_block(vm, lookup, PMD_SHIFT, VERDIGRIS_MAP_BLOCK_2M, sequence);
	if (status == VERDIGRIS_EXISTS) {
		clear_place(vm, lookup);
		return VERDIGRIS_RETRY;
	}
	if (is_final(status))
		return status;
	status = map_around(vm, lookup, list, sequence);
	if (!status || status == VERDIGRIS_NO_MEMORY)
		return status;
	status = map_aligned(vm, lookup, 1, 0, sequence);
	if (status != VERDIGRIS_EXISTS)
		return status;
	clear_place(vm, lookup);
	return VERDIGRIS_RETRY;
}

/* Tells how much memory is lost with a poisoned page: all of a huge one. */
static short poison_shift(struct mm_struct *mm, unsigned long hva)
{
	short shift = PAGE_SHIFT;
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = find_vma(mm, hva);
	if (vma && vma->vm_start <= hva && is_vm_hugetlb_page(vma))
		shift = huge_page_shift(hstate_vma(vma));
	mmap_read_unlock(mm);
	return shift;
}

/* An error of the lookup: what the kernel's own KVM makes of it. */
static enum vg_outcome lookup_failed(struct vg_vcpu *vcpu, const struct lookup *lookup, int ret,
				     int *error)
{
	struct kvm_run *run = vcpu->run;

	if (ret == -EHWPOISON) {
		vg_count(vcpu->vm, VG_STAT_POISONED);
		send_sig_mceerr(BUS_MCEERR_AR, (void __user *)lookup->hva,
				poison_shift(vcpu->vm->mm, lookup->hva), current);
		return VG_RUN_AGAIN;
	}
	if ((ret == -EINTR || ret == -EAGAIN) && signal_pending(current)) {
		*error = -EINTR;
		return VG_EXIT_ERROR;
	}
	if (ret == -EAGAIN)
		return VG_RUN_AGAIN;
	vg_count(vcpu->vm, VG_STAT_LOOKUPS_FAILED);
	run->exit_reason = KVM_EXIT_MEMORY_FAULT;
	run->memory_fault.flags = 0;
	run->memory_fault.gpa = lookup->gfn << PAGE_SHIFT;
	run->memory_fault.size = PAGE_SIZE;
	*error = -EFAULT;
	return VG_EXIT_ERROR;
}

/* Waits for what meets anything that this fault may have tried to map. */
static enum vg_outcome refused(struct vg_vcpu *vcpu, const struct lookup *lookup, int *error)
{
	u64 npages = 1;

	if (fits_block(lookup, PUD_SHIFT))
		npages = PUD_SIZE >> PAGE_SHIFT;
	else if (fits_block(lookup, PMD_SHIFT))
		npages = PMD_SIZE >> PAGE_SHIFT;
	vg_count(vcpu->vm, VG_STAT_REFUSALS);
	if (!vg_invalidations_wait(vcpu->vm, ALIGN_DOWN(lookup->gfn, npages), npages))
		return VG_RUN_AGAIN;
	*error = -EINTR;
	return VG_EXIT_ERROR;
}

/* What follows from the firmware's answer; *@again: look up once more, with the same number. */
static enum vg_outcome judge(struct vg_vcpu *vcpu, struct lookup *lookup, long status, bool *again,
			     int *error)
{
	*again = false;
	switch (status) {
	case 0:
		return VG_RUN_AGAIN;
	case VERDIGRIS_RETRY:
		return refused(vcpu, lookup, error);
	case VERDIGRIS_NO_MEMORY:
		*error = vg_pages_donate(vcpu->vm, PAGES_A_DONATION);
		*again = !*error;
		return VG_EXIT_ERROR;
	case VERDIGRIS_LIMIT:
		/* Too many share it, as they do the page of zeros: a copy of our own. */
		if (!lookup->wants_write && may_write(lookup)) {
			lookup->wants_write = true;
			*again = true;
			return VG_RUN_AGAIN;
		}
		return lookup_failed(vcpu, lookup, -EFAULT, error);
	case VERDIGRIS_NOT_OWNER:
		return lookup_failed(vcpu, lookup, -EFAULT, error);
	default:
		vg_vm_bug(vcpu->vm, "MAP", status);
		*error = -EIO;
		return VG_EXIT_ERROR;
	}
}

/* A fault on memory of a slot. */
static enum vg_outcome fault_memory(struct vg_vcpu *vcpu, const struct vg_fault *fault,
				    struct lookup *lookup, int *error)
{
	struct vg_vm *vm = vcpu->vm;
	enum vg_outcome outcome;
	bool again;
	int ret;

	vg_count(vm, VG_STAT_FAULTS);
	do {
		ret = find_page(lookup);
		if (ret)
			return lookup_failed(vcpu, lookup, ret, error);
		vg_point(VG_POINT_AFTER_LOOKUP);
		look_at_leaf(vm, lookup);
		vg_point(VG_POINT_BEFORE_MAP);
		ret = map_lookup(vm, lookup, vcpu->list, fault->sequence);
		if (!ret)
			tell_of_access(lookup);
		put_page(lookup->page);
		vg_point(VG_POINT_AFTER_MAP);
		outcome = judge(vcpu, lookup, ret, &again, error);
	} while (again);
	return outcome;
}

/* A fault where no memory is, or a write to memory that the guest may only read. */
static enum vg_outcome fault_elsewhere(struct vg_vcpu *vcpu, const struct vg_fault *fault,
				       int *error)
{
	if (fault->flags & (VERDIGRIS_FAULT_TABLE_WALK | VERDIGRIS_FAULT_EXEC)) {
		vcpu->answer = VG_ANSWER_ABORT;
		return VG_RUN_AGAIN;
	}
	if (fault->flags & VERDIGRIS_FAULT_CACHE_MAINTENANCE) {
		vcpu->answer = VG_ANSWER_SKIP;
		return VG_RUN_AGAIN;
	}
	if (fault->flags & VERDIGRIS_FAULT_MMIO_VALID)
		return VG_EXIT_MMIO;
	if (!READ_ONCE(vcpu->vm->nisv_to_user)) {
		*error = -ENOSYS;
		return VG_EXIT_ERROR;
	}
	vcpu->run->exit_reason = KVM_EXIT_ARM_NISV;
	vcpu->run->arm_nisv.esr_iss = fault->esr & (ESR_ELx_CM | ESR_ELx_WNR | ESR_ELx_FSC);
	vcpu->run->arm_nisv.fault_ipa = fault->ipa;
	*error = 0;
	return VG_EXIT_ERROR;
}

/**
 * vg_fault_handle() - serves a fault of the guest
 * @vcpu: whose fault it is, with its mutex held, run by its own address space
 * @fault: the exit
 * @error: receives the error that the run ends with, if it does
 *
 * Return: what to do next.
 */
enum vg_outcome vg_fault_handle(struct vg_vcpu *vcpu, const struct vg_fault *fault, int *error)
{
	struct lookup lookup = {
		.gfn = fault->ipa >> PAGE_SHIFT,
		.wants_write = fault->flags & VERDIGRIS_FAULT_WRITE,
		.prot_around = prot_around(),
	};

	/* Beyond the guest's address space there is nothing, not even a device. */
	if (fault->ipa >> vcpu->vm->ipa_bits) {
		vcpu->answer = VG_ANSWER_ABORT;
		return VG_RUN_AGAIN;
	}
	lookup.prot = lookup.prot_around;
	if (fault->flags & VERDIGRIS_FAULT_EXEC)
		lookup.prot = VERDIGRIS_PROT_EXEC;
	lookup.view = vg_slot_look(vcpu->vm, lookup.gfn);
	if (!lookup.view.found || (lookup.wants_write && !may_write(&lookup)))
		return fault_elsewhere(vcpu, fault, error);
	lookup.hva = lookup.view.hva + ((lookup.gfn - lookup.view.base_gfn) << PAGE_SHIFT);
	return fault_memory(vcpu, fault, &lookup, error);
}
