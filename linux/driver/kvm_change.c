// SPDX-License-Identifier: GPL-2.0
/*
 * Slots are created, deleted, moved, and get other flags.
 *
 * The one invariant: no map that was looked up in a former slot survives.  A slot
 * that goes, or moves, is one more invalidation of its guest pages: begin, swap,
 * end.  A fault that saw the old slot has a sequence number from before the end,
 * so the firmware refuses its map, also if other memory is there by then.  A new
 * slot needs none of this: where no slot was, nothing could be mapped.
 *
 * Arguments are judged as Linux's KVM does it, with its errno.
 */
#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "kvm.h"

/* As Linux's KVM: numbers of pages fit an int. */
#define MOST_SLOT_PAGES ((1UL << 31) - 1)

static int check_arguments(const struct kvm_userspace_memory_region2 *region)
{
	u64 hva = region->userspace_addr, size = region->memory_size;

	if (region->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return -EINVAL;
	if (!PAGE_ALIGNED(size) || !PAGE_ALIGNED(region->guest_phys_addr) || !PAGE_ALIGNED(hva))
		return -EINVAL;
	if (hva != untagged_addr(hva) || !access_ok((void __user *)hva, size))
		return -EINVAL;
	/* The upper half names an address space, of which arm64 has one. */
	if (region->slot >= VG_MAX_SLOTS)
		return -EINVAL;
	if (region->guest_phys_addr + size < region->guest_phys_addr)
		return -EINVAL;
	return size >> PAGE_SHIFT > MOST_SLOT_PAGES ? -EINVAL : 0;
}

/* Device memory can't be logged; that there is none now promises nothing for later. */
static int check_areas(const struct kvm_userspace_memory_region2 *region)
{
	unsigned long hva = region->userspace_addr, end = hva + region->memory_size;
	struct vm_area_struct *vma;
	int ret = 0;

	mmap_read_lock(current->mm);
	while (hva < end) {
		vma = find_vma_intersection(current->mm, hva, end);
		if (!vma)
			break;
		if (vma->vm_flags & VM_PFNMAP) {
			ret = -EINVAL;
			break;
		}
		hva = vma->vm_end;
	}
	mmap_read_unlock(current->mm);
	return ret;
}

static int check_memory(const struct vg_vm *vm, const struct kvm_userspace_memory_region2 *region)
{
	if (region->guest_phys_addr + region->memory_size > BIT_ULL(vm->ipa_bits))
		return -EFAULT;
	if (region->flags & KVM_MEM_LOG_DIRTY_PAGES)
		return check_areas(region);
	return 0;
}

static struct vg_slot *slot_new(struct vg_vm *vm, const struct kvm_userspace_memory_region2 *region)
{
	struct vg_slot *slot = kmem_cache_zalloc(vg_slot_cache, GFP_KERNEL_ACCOUNT);

	if (!slot)
		return NULL;
	slot->id = region->slot;
	slot->flags = region->flags;
	slot->base_gfn = region->guest_phys_addr >> PAGE_SHIFT;
	slot->npages = region->memory_size >> PAGE_SHIFT;
	slot->hva = region->userspace_addr;
	slot->by_hva.start = slot->hva;
	slot->by_hva.last = slot->hva + region->memory_size - 1;
	vg_windows_init(slot);
	if (!(slot->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return slot;
	slot->dirty = vg_dirty_alloc(vm, slot->npages);
	if (slot->dirty)
		return slot;
	vg_slot_free(slot);
	return NULL;
}

/* Makes a slot known, by its name first: that can fail. */
static int slot_publish(struct vg_vm *vm, struct vg_slot *slot)
{
	int ret = xa_err(xa_store(&vm->slots_by_id, slot->id, slot, GFP_KERNEL_ACCOUNT));

	if (ret)
		return ret;
	ret = vg_gate_close(&vm->gate);
	if (ret) {
		xa_erase(&vm->slots_by_id, slot->id);
		return ret;
	}
	vg_slot_link(vm, slot);
	vg_gate_open(&vm->gate);
	return 0;
}

static int slot_create(struct vg_vm *vm, const struct kvm_userspace_memory_region2 *region)
{
	struct vg_slot *slot;
	int ret;

	if (vg_slots_overlap(vm, NULL, region->guest_phys_addr >> PAGE_SHIFT,
			     region->memory_size >> PAGE_SHIFT))
		return -EEXIST;
	ret = check_memory(vm, region);
	if (ret)
		return ret;
	slot = slot_new(vm, region);
	if (!slot)
		return -ENOMEM;
	ret = slot_publish(vm, slot);
	if (ret)
		vg_slot_free(slot);
	return ret;
}

static int slot_delete(struct vg_vm *vm, struct vg_slot *slot)
{
	u64 gfn = slot->base_gfn;
	int ret;

	/* With its log: should the wait be killed, the slot stays. */
	vg_invalidate_begin(vm, slot, gfn, slot->npages, true);
	ret = vg_gate_close(&vm->gate);
	if (!ret) {
		vg_slot_unlink(vm, slot);
		vg_gate_open(&vm->gate);
	}
	vg_invalidate_end(vm, gfn, slot->npages, true);
	if (ret)
		return ret;
	xa_erase(&vm->slots_by_id, slot->id);
	/* Notifiers are out of the gate, and faults have copies: nobody has it. */
	vg_slot_free(slot);
	return 0;
}

/* The dirty log moves with its slot, so the final bits of what is unmapped are noted. */
static int slot_move(struct vg_vm *vm, struct vg_slot *slot, u64 to)
{
	u64 from = slot->base_gfn;
	int ret;

	vg_invalidate_begin(vm, slot, from, slot->npages, true);
	ret = vg_gate_close(&vm->gate);
	if (!ret) {
		vg_slot_unlink(vm, slot);
		slot->base_gfn = to;
		vg_slot_link(vm, slot);
		vg_gate_open(&vm->gate);
	}
	vg_invalidate_end(vm, from, slot->npages, true);
	return ret;
}

/* Changes what notifiers and faults see; @dirty goes in, and what it replaces comes out. */
static int flags_publish(struct vg_vm *vm, struct vg_slot *slot, u32 flags, unsigned long **dirty)
{
	int ret = vg_gate_close(&vm->gate);

	if (ret)
		return ret;
	slot->flags = flags;
	swap(slot->dirty, *dirty);
	WRITE_ONCE(vm->generation, vm->generation + 1);
	vg_gate_open(&vm->gate);
	return 0;
}

/*
 * Flags change without an invalidation: what is mapped stays.  A fault that saw
 * the old flags must not map any more once the log is exact, since it could map a
 * block.  Its map is in a section of srcu that begins with a look at the
 * generation, so after the wait there is none.
 */
static int slot_set_flags(struct vg_vm *vm, struct vg_slot *slot, u32 flags,
			  unsigned long **dirty)
{
	int ret = flags_publish(vm, slot, flags, dirty);

	if (ret)
		return ret;
	synchronize_srcu_expedited(&vm->srcu);
	if (flags & KVM_MEM_LOG_DIRTY_PAGES)
		return vg_dirty_start(vm, slot);
	vg_dirty_stop(vm, slot);
	return 0;
}

/* What may fail comes first: only a fatal signal comes between the move and the flags. */
static int slot_move_and_flag(struct vg_vm *vm, struct vg_slot *slot, u64 gfn, u32 flags)
{
	unsigned long *dirty = NULL;
	int ret = 0;

	if (flags & ~slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
		dirty = vg_dirty_alloc(vm, slot->npages);
		if (!dirty)
			return -ENOMEM;
	}
	if (gfn != slot->base_gfn)
		ret = slot_move(vm, slot, gfn);
	if (!ret && flags != slot->flags)
		ret = slot_set_flags(vm, slot, flags, &dirty);
	/* The old bitmap, or the new one where it didn't go in: nobody has it any more. */
	kvfree(dirty);
	return ret;
}

static int slot_change(struct vg_vm *vm, struct vg_slot *slot,
		       const struct kvm_userspace_memory_region2 *region)
{
	u64 gfn = region->guest_phys_addr >> PAGE_SHIFT;
	int ret;

	if (region->userspace_addr != slot->hva ||
	    region->memory_size >> PAGE_SHIFT != slot->npages ||
	    (region->flags ^ slot->flags) & KVM_MEM_READONLY)
		return -EINVAL;
	if (gfn != slot->base_gfn && vg_slots_overlap(vm, slot, gfn, slot->npages))
		return -EEXIST;
	if (gfn == slot->base_gfn && region->flags == slot->flags)
		return 0;
	ret = check_memory(vm, region);
	return ret ? ret : slot_move_and_flag(vm, slot, gfn, region->flags);
}

static int slots_set(struct vg_vm *vm, const struct kvm_userspace_memory_region2 *region)
{
	struct vg_slot *slot = vg_slot_by_id(vm, region->slot);

	if (!region->memory_size)
		return slot ? slot_delete(vm, slot) : -EINVAL;
	return slot ? slot_change(vm, slot, region) : slot_create(vm, region);
}

/**
 * vg_slots_set() - creates, deletes or changes a slot
 * @vm: the VM
 * @region: what is to be
 *
 * Return: 0, or an error, after which nothing has changed; but who is killed while
 * a slot moves and gets other flags may leave it moved, or with a log that tells more
 * than was written.
 */
int vg_slots_set(struct vg_vm *vm, const struct kvm_userspace_memory_region2 *region)
{
	int ret = check_arguments(region);

	if (ret)
		return ret;
	if (mutex_lock_killable(&vm->slots_lock))
		return -EINTR;
	ret = slots_set(vm, region);
	mutex_unlock(&vm->slots_lock);
	return ret;
}
