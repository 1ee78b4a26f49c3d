// SPDX-License-Identifier: GPL-2.0
/*
 * Fault-around: the neighbours of a page that go along in the same call.
 *
 * A neighbour is a guess, so it must not cost Linux what a touch would: it has to
 * be in the host's page table already, and is mapped old; for writing only where
 * the host's entry is writable and dirty, so that nothing is owed for it.
 *
 * Neighbours are read from the table and not asked for with get_user_pages(), which
 * would mark each as referenced.  No reference is needed either: as long as the
 * firmware accepts the sequence number, the entry is what it was.  What
 * get_user_pages() would refuse to hand out (memory of devices, secret memory) is a
 * property of the area, so only the area of the page itself is looked at, which it
 * did hand out; that takes mmap_lock, or there are no neighbours this time.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "kvm.h"

static unsigned int fault_around = 16;
module_param(fault_around, uint, 0644);
MODULE_PARM_DESC(fault_around,
		 "Pages mapped by one fault, where the host has them: a power of two up to 64, below 2: off (default 16)");

/* The pages [first, end) of the group that slot and area have. */
static void clip_group(const struct vg_slot_view *view, const struct vm_area_struct *vma, u64 gfn,
		       u64 *first, u64 *end)
{
	u64 size = rounddown_pow_of_two(clamp(READ_ONCE(fault_around), 1U,
					      (unsigned int)VG_FAULT_AROUND_MAX));
	u64 slot_page = view->hva >> PAGE_SHIFT;
	u64 area_first = vma->vm_start >> PAGE_SHIFT, area_end = vma->vm_end >> PAGE_SHIFT;

	*first = max(ALIGN_DOWN(gfn, size), view->base_gfn);
	*end = min(ALIGN_DOWN(gfn, size) + size, view->base_gfn + view->npages);
	if (area_first > slot_page)
		*first = max(*first, view->base_gfn + area_first - slot_page);
	*end = min(*end, view->base_gfn + area_end - slot_page);
}

/* What to map where the host has @leaf, 0 for nothing. */
static u64 entry_of(const struct vg_slot_view *view, const struct vg_leaf *leaf, u64 prot_exec)
{
	u64 entry = VERDIGRIS_PROT_READ | VERDIGRIS_MAP_OLD | prot_exec;

	if (!leaf->shift || leaf->is_special)
		return 0;
	if (leaf->is_writable && leaf->is_dirty && !(view->flags & KVM_MEM_READONLY)) {
		entry |= VERDIGRIS_PROT_WRITE;
		if (view->flags & KVM_MEM_LOG_DIRTY_PAGES)
			entry |= VERDIGRIS_MAP_CLEAN;
	}
	return leaf->pfn << PAGE_SHIFT | entry;
}

static unsigned int fill(struct vg_vm *vm, const struct vg_slot_view *view, u64 gfn, u64 prot_exec,
			 const struct vm_area_struct *vma, struct vg_around *around)
{
	unsigned int found = 0;
	u64 page, end;

	clip_group(view, vma, gfn, &around->first, &end);
	around->count = end - around->first;
	for (page = around->first; page < end; page++) {
		unsigned long hva = view->hva + ((page - view->base_gfn) << PAGE_SHIFT);
		u64 *entry = &around->list[page - around->first];
		struct vg_leaf leaf;

		*entry = 0;
		if (page == gfn)
			continue;
		leaf = vg_leaf_look(vm->mm, hva);
		*entry = entry_of(view, &leaf, prot_exec);
		found += *entry != 0;
	}
	return found;
}

/**
 * vg_around_look() - finds the neighbours of a page
 * @vm: the VM
 * @view: the slot
 * @gfn: the page, which get_user_pages() handed out
 * @prot_exec: VERDIGRIS_PROT_EXEC, if neighbours may be executed at no cost
 * @around: its list receives entries for MAP_LIST, that of the page itself empty
 *
 * Return: how many neighbours there are.
 */
unsigned int vg_around_look(struct vg_vm *vm, const struct vg_slot_view *view, u64 gfn,
			    u64 prot_exec, struct vg_around *around)
{
	unsigned long hva = view->hva + ((gfn - view->base_gfn) << PAGE_SHIFT);
	struct vm_area_struct *vma;
	unsigned int found = 0;

	if (READ_ONCE(fault_around) < 2 || !mmap_read_trylock(vm->mm))
		return 0;
	vma = find_vma(vm->mm, hva);
	if (vma && vma->vm_start <= hva && !(vma->vm_flags & (VM_SPECIAL | VM_MIXEDMAP)))
		found = fill(vm, view, gfn, prot_exec, vma, around);
	mmap_read_unlock(vm->mm);
	return found;
}
