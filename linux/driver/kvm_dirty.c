// SPDX-License-Identifier: GPL-2.0
/*
 * The dirty log: which pages of a slot the guest wrote since they were last asked
 * about.
 *
 * The one invariant: each write is known in one place until it was told, either by
 * the leaf at EL2, or by the bit in the slot's log.  HARVEST moves the knowledge
 * from there to here, and so does whatever takes a leaf away.  The move is over
 * when the gate's lock was free once (settle()): a notifier on another
 * CPU may have the bits in its hands while the firmware has forgotten them, and a
 * guest that was stopped for its last page to be sent won't write it again.
 *
 * A bit is set without regard to what reads the log at the same time: it belongs
 * to a write that may count for this answer or for the next.
 */
#include <linux/bitmap.h>
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "calls.h"
#include "kvm.h"

/* A table for each of so many blocks, before SPLIT is tried again. */
#define PAGES_A_DONATION 16
/* How often SPLIT of a block is tried, a tick apart, where nothing is known to be in its way. */
#define SPLIT_TRIES 250

static size_t log_words(const struct vg_slot *slot)
{
	return BITS_TO_LONGS(slot->npages);
}

/* The second half of a log's memory, where answers are made; under slots_lock. */
static unsigned long *log_answer(const struct vg_slot *slot)
{
	return slot->dirty + log_words(slot);
}

/**
 * vg_dirty_alloc() - makes a log
 * @vm: the VM
 * @npages: of the slot
 *
 * Return: memory for bits and answers, or NULL.
 */
unsigned long *vg_dirty_alloc(struct vg_vm *vm, unsigned long npages)
{
	unsigned long *bits = kvcalloc(2 * BITS_TO_LONGS(npages), sizeof(*bits),
				       GFP_KERNEL_ACCOUNT);

	if (bits && vm->manual_dirty & KVM_DIRTY_LOG_INITIALLY_SET)
		bitmap_set(bits, 0, npages);
	return bits;
}

/**
 * vg_dirty_note() - notes what the firmware told
 * @slot: the slot, which has a log
 * @first: the page of the slot that bit 0 belongs to
 * @npages: how many bits there are
 * @bits: one a page
 *
 * May be called anywhere, by several at once.
 */
void vg_dirty_note(struct vg_slot *slot, u64 first, unsigned int npages, const u64 *bits)
{
	unsigned int i;

	for (i = 0; i < npages; i++)
		if (bits[i / 64] >> i % 64 & 1)
			set_bit(first + i, slot->dirty);
}

/* Waits until no bits are on their way into a log, see begin_step(). */
static void settle(struct vg_vm *vm)
{
	write_lock(&vm->gate.lock);
	write_unlock(&vm->gate.lock);
}

/*
 * Moves what EL2 knows of some pages to the log, or drops it.  After a fatal signal
 * the rest stays where it is.
 */
static int harvest(struct vg_vm *vm, struct vg_slot *slot, unsigned long page, unsigned long npages,
		   bool drop)
{
	unsigned long end = page + npages;
	struct vg_bits bits;
	long status;
	u64 done;

	for (; page < end; page += done) {
		if (fatal_signal_pending(current))
			return -EINTR;
		status = vg_call_harvest(vm->handle, (slot->base_gfn + page) << PAGE_SHIFT,
					 min(end - page, (unsigned long)VERDIGRIS_AGE_REGISTER_PAGES),
					 &done, &bits);
		if (status) {
			vg_vm_bug(vm, "HARVEST", status);
			return -EIO;
		}
		if (!drop)
			vg_dirty_note(slot, page, done, bits.words);
		cond_resched();
	}
	return 0;
}

/* Takes away the block that couldn't be split; the guest faults its pages in one by one. */
static void drop_block(struct vg_vm *vm, struct vg_slot *slot, u64 gfn, u64 npages)
{
	npages = min(npages, (PMD_SIZE >> PAGE_SHIFT) - gfn % (PMD_SIZE >> PAGE_SHIFT));
	vg_invalidate_begin(vm, slot, gfn, npages, true);
	vg_invalidate_end(vm, gfn, npages, true);
}

/*
 * SPLIT was answered RETRY.  Waits for the invalidation that is in the way; where
 * there is none, a table page is on its way to the pool, for as long as other CPUs are
 * inside the firmware.  Who got no further for long goes without: the block is dropped.
 */
static void split_later(struct vg_vm *vm, struct vg_slot *slot, u64 gfn, unsigned int *tries)
{
	const u64 most = PUD_SIZE >> PAGE_SHIFT; /* what is in the way of a part is in the way of a block */

	/* Whoever is killed meanwhile ends before the next try. */
	if (vg_invalidations_wait_killable(vm, ALIGN_DOWN(gfn, most), most))
		return;
	if (++*tries > SPLIT_TRIES) {
		*tries = 0;
		drop_block(vm, slot, gfn, slot->base_gfn + slot->npages - gfn);
	} else if (*tries > 1) {
		schedule_timeout_killable(1);
	}
}

/* Makes pages of the slot's blocks, so that the log tells pages; ends at a fatal signal. */
static int split(struct vg_vm *vm, struct vg_slot *slot)
{
	u64 gfn = slot->base_gfn, end = gfn + slot->npages, done;
	unsigned int tries = 0;
	long status;

	while (gfn < end && !READ_ONCE(vm->is_bugged)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		status = vg_call_split(vm->handle, gfn << PAGE_SHIFT, end - gfn, &done);
		gfn += done;
		if (done)
			tries = 0;
		if (status == VERDIGRIS_RETRY)
			split_later(vm, slot, gfn, &tries);
		else if (status == VERDIGRIS_LIMIT ||
			 (status == VERDIGRIS_NO_MEMORY && vg_pages_donate(vm, PAGES_A_DONATION)))
			drop_block(vm, slot, gfn, end - gfn);
		else if (status && status != VERDIGRIS_NO_MEMORY)
			vg_vm_bug(vm, "SPLIT", status);
		cond_resched();
	}
	return 0;
}

/**
 * vg_dirty_start() - makes the log exact
 * @vm: the VM, with its slots_lock held
 * @slot: the slot, which logs already, for all to see
 *
 * What was written until now isn't asked for.  Where all bits are set from the
 * beginning it would not matter, and is left to the first clear.
 *
 * Return: 0; or -EINTR after a fatal signal: the log then tells too much, never too
 * little, since a block that is written is told as all of its pages.
 */
int vg_dirty_start(struct vg_vm *vm, struct vg_slot *slot)
{
	int ret;

	vg_point(VG_POINT_BEFORE_SPLIT);
	ret = split(vm, slot);
	if (!ret && !(vm->manual_dirty & KVM_DIRTY_LOG_INITIALLY_SET))
		ret = harvest(vm, slot, 0, slot->npages, true);
	return ret;
}

/**
 * vg_dirty_stop() - lets memory be mapped by blocks again
 * @vm: the VM, with its slots_lock held
 * @slot: the slot, which doesn't log any more
 *
 * What can't be one block stays as it is, as does what a fatal signal leaves.
 */
void vg_dirty_stop(struct vg_vm *vm, struct vg_slot *slot)
{
	u64 block = PMD_SIZE >> PAGE_SHIFT, done;
	u64 gfn = ALIGN(slot->base_gfn, block), end = slot->base_gfn + slot->npages;
	long status;

	if ((slot->hva >> PAGE_SHIFT) % block != slot->base_gfn % block)
		return;
	for (; gfn + block <= end && !fatal_signal_pending(current); gfn += done) {
		status = vg_call_collapse(vm->handle, gfn << PAGE_SHIFT,
					  ALIGN_DOWN(end - gfn, block), VERDIGRIS_MAP_BLOCK_2M,
					  &done);
		if (status)
			done += block;
		cond_resched();
	}
}

/* Takes all bits out of the log. */
static void take_all(struct vg_slot *slot)
{
	unsigned long *answer = log_answer(slot);
	size_t i;

	for (i = 0; i < log_words(slot); i++)
		answer[i] = READ_ONCE(slot->dirty[i]) ? xchg(&slot->dirty[i], 0) : 0;
}

/* Puts them back: user space didn't get them. */
static void put_back(struct vg_slot *slot)
{
	unsigned long *answer = log_answer(slot);
	size_t i;

	for (i = 0; i < log_words(slot); i++)
		if (answer[i])
			set_mask_bits(&slot->dirty[i], 0UL, answer[i]);
}

/* A slot with a log, by its name in a dirty-log ioctl. */
static struct vg_slot *find_log(struct vg_vm *vm, u32 id)
{
	struct vg_slot *slot;

	if (id >= VG_MAX_SLOTS)
		return ERR_PTR(-EINVAL);
	slot = vg_slot_by_id(vm, id);
	return slot && slot->dirty ? slot : ERR_PTR(-ENOENT);
}

static int dirty_get(struct vg_vm *vm, const struct kvm_dirty_log *log)
{
	bool stays = vm->manual_dirty;
	struct vg_slot *slot = find_log(vm, log->slot);
	unsigned long *answer;
	int ret;

	if (IS_ERR(slot))
		return PTR_ERR(slot);
	ret = harvest(vm, slot, 0, slot->npages, false);
	if (ret)
		return ret;
	settle(vm);
	answer = slot->dirty;
	if (!stays) {
		take_all(slot);
		answer = log_answer(slot);
	}
	if (!copy_to_user(log->dirty_bitmap, answer, log_words(slot) * sizeof(*answer)))
		return 0;
	if (!stays)
		put_back(slot);
	return -EFAULT;
}

/**
 * vg_dirty_get() - serves KVM_GET_DIRTY_LOG
 * @vm: the VM
 * @log: what is asked
 *
 * With manual clearing the bits stay; without, they are told once, unless the
 * answer can't be written.
 *
 * Return: 0 or an error.
 */
int vg_dirty_get(struct vg_vm *vm, const struct kvm_dirty_log *log)
{
	int ret;

	if (mutex_lock_killable(&vm->slots_lock))
		return -EINTR;
	ret = dirty_get(vm, log);
	mutex_unlock(&vm->slots_lock);
	return ret;
}

static int check_clear(const struct vg_slot *slot, const struct kvm_clear_dirty_log *log)
{
	if (log->first_page > slot->npages || log->num_pages > slot->npages - log->first_page)
		return -EINVAL;
	if (log->num_pages < slot->npages - log->first_page && log->num_pages % 64)
		return -EINVAL;
	return 0;
}

/* Clears the bits of @mask, from page @first on, once their pages are clean at EL2. */
static int clear_bits(struct vg_vm *vm, struct vg_slot *slot, u64 first, u64 npages,
		      const unsigned long *mask)
{
	unsigned long *dirty = slot->dirty + first / BITS_PER_LONG;
	size_t i;
	int ret;

	ret = harvest(vm, slot, first, npages, false);
	if (ret)
		return ret;
	for (i = 0; i < BITS_TO_LONGS(npages); i++)
		if (mask[i])
			set_mask_bits(&dirty[i], mask[i], 0UL);
	return 0;
}

static int dirty_clear(struct vg_vm *vm, const struct kvm_clear_dirty_log *log)
{
	unsigned long *mask;
	struct vg_slot *slot;
	int ret;

	/* Which of two mistakes is told: this before a slot that isn't there. */
	if (log->slot < VG_MAX_SLOTS && log->first_page % 64)
		return -EINVAL;
	slot = find_log(vm, log->slot);
	if (IS_ERR(slot))
		return PTR_ERR(slot);
	ret = check_clear(slot, log);
	if (ret)
		return ret;
	mask = log_answer(slot);
	if (copy_from_user(mask, log->dirty_bitmap, BITS_TO_LONGS(log->num_pages) * sizeof(*mask)))
		return -EFAULT;
	return clear_bits(vm, slot, log->first_page, log->num_pages, mask);
}

/**
 * vg_dirty_clear() - serves KVM_CLEAR_DIRTY_LOG
 * @vm: the VM
 * @log: what is to be cleared
 *
 * What is written to a page after its bit was cleared is logged.  What the harvest
 * tells of other pages stays.
 *
 * Return: 0 or an error.
 */
int vg_dirty_clear(struct vg_vm *vm, const struct kvm_clear_dirty_log *log)
{
	int ret;

	if (mutex_lock_killable(&vm->slots_lock))
		return -EINTR;
	ret = dirty_clear(vm, log);
	mutex_unlock(&vm->slots_lock);
	return ret;
}
