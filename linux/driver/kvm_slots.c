// SPDX-License-Identifier: GPL-2.0
/*
 * Memory slots: which guest pages are which memory of the process.
 *
 * The one invariant: whatever a start of an invalidation saw, its end sees too.
 * So slots change only while no invalidation is between the two; the gate counts
 * these, and whoever changes slots waits for the count to be 0.
 *
 * A start never waits for a slot change, not even where it may block.  The
 * objection is that starts which follow on each other could then keep a slot
 * change waiting for ever.  But a start may come from within another: fork copies
 * tables between start and end, allocates, reclaims, and reclaim starts an
 * invalidation of its own.  Would that one wait for the slot change, it would wait
 * for its own thread.  Linux's KVM is no fairer, for the same reason.
 */
#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "kvm.h"

/**
 * vg_gate_init() - prepares the gate of a new VM
 * @gate: the gate
 */
void vg_gate_init(struct vg_gate *gate)
{
	rwlock_init(&gate->lock);
	atomic_set(&gate->inside, 0);
	init_waitqueue_head(&gate->idle);
}

/**
 * vg_gate_enter() - keeps the slots as they are, for as long as it takes
 * @gate: the gate
 *
 * Never sleeps.  May be entered again by a thread that is inside.
 */
void vg_gate_enter(struct vg_gate *gate)
{
	read_lock(&gate->lock);
	atomic_inc(&gate->inside);
	read_unlock(&gate->lock);
}

/**
 * vg_gate_leave() - lets slots change again
 * @gate: the gate
 */
void vg_gate_leave(struct vg_gate *gate)
{
	if (atomic_dec_and_test(&gate->inside) && wq_has_sleeper(&gate->idle))
		wake_up(&gate->idle);
}

/* Takes the lock for writing, if nobody is inside. */
static bool gate_try_close(struct vg_gate *gate)
{
	write_lock(&gate->lock);
	if (!atomic_read(&gate->inside))
		return true;
	write_unlock(&gate->lock);
	return false;
}

/**
 * vg_gate_close() - waits until nobody is inside, and keeps it so
 * @gate: the gate
 *
 * Until vg_gate_open() nothing sleeps or allocates: notifiers spin meanwhile,
 * under locks of page tables.
 *
 * Return: 0; or -EINTR after a fatal signal, and the gate is not closed.
 */
int vg_gate_close(struct vg_gate *gate)
{
	return wait_event_killable(gate->idle, gate_try_close(gate)) ? -EINTR : 0;
}

/**
 * vg_gate_open() - lets in whoever waits
 * @gate: the gate, closed
 */
void vg_gate_open(struct vg_gate *gate)
{
	write_unlock(&gate->lock);
}

/**
 * vg_slots_init() - prepares a VM that has no slot yet
 * @vm: the VM
 */
void vg_slots_init(struct vg_vm *vm)
{
	vm->slots_by_gfn = RB_ROOT;
	vm->slots_by_hva = RB_ROOT_CACHED;
	xa_init(&vm->slots_by_id);
	vg_gate_init(&vm->gate);
}

/**
 * vg_slot_free() - frees a slot that nobody finds
 * @slot: the slot
 */
void vg_slot_free(struct vg_slot *slot)
{
	vg_windows_free(slot);
	kvfree(slot->dirty);
	kmem_cache_free(vg_slot_cache, slot);
}

/**
 * vg_slots_free() - forgets the slots of a VM that is no more
 * @vm: the VM, without notifier and vCPUs
 */
void vg_slots_free(struct vg_vm *vm)
{
	struct vg_slot *slot;
	unsigned long id;

	xa_for_each(&vm->slots_by_id, id, slot) {
		vg_slot_free(slot);
		cond_resched();
	}
	xa_destroy(&vm->slots_by_id);
}

/**
 * vg_slots_unmap() - takes all memory away from the guest, which may fault it in again
 * @vm: the VM
 *
 * Return: 0; or -EINTR after a fatal signal, and some is left.
 */
int vg_slots_unmap(struct vg_vm *vm)
{
	struct vg_slot *slot;
	unsigned long id;

	if (mutex_lock_killable(&vm->slots_lock))
		return -EINTR;
	xa_for_each(&vm->slots_by_id, id, slot) {
		if (fatal_signal_pending(current))
			break;
		vg_invalidate_begin(vm, slot, slot->base_gfn, slot->npages, true);
		vg_invalidate_end(vm, slot->base_gfn, slot->npages, true);
	}
	mutex_unlock(&vm->slots_lock);
	return fatal_signal_pending(current) ? -EINTR : 0;
}

/**
 * vg_slot_by_id() - finds a slot by its name
 * @vm: the VM, with its slots_lock held
 * @id: what user space calls it
 *
 * Return: the slot, or NULL.
 */
struct vg_slot *vg_slot_by_id(struct vg_vm *vm, u32 id)
{
	lockdep_assert_held(&vm->slots_lock);
	return xa_load(&vm->slots_by_id, id);
}

/**
 * vg_slot_at() - finds the slot that has a guest page
 * @vm: the VM, its gate entered or locked
 * @gfn: the page
 *
 * Return: the slot, or NULL.
 */
struct vg_slot *vg_slot_at(struct vg_vm *vm, u64 gfn)
{
	struct rb_node *node = vm->slots_by_gfn.rb_node;

	while (node) {
		struct vg_slot *slot = rb_entry(node, struct vg_slot, by_gfn);

		if (gfn < slot->base_gfn)
			node = node->rb_left;
		else if (gfn - slot->base_gfn >= slot->npages)
			node = node->rb_right;
		else
			return slot;
	}
	return NULL;
}

/**
 * vg_slot_look() - tells what memory is at a guest page
 * @vm: the VM
 * @gfn: the page
 *
 * Return: a copy, good for as long as the firmware accepts the sequence number of
 * an exit that came before, and @generation is the VM's.
 */
struct vg_slot_view vg_slot_look(struct vg_vm *vm, u64 gfn)
{
	struct vg_slot_view view = {};
	struct vg_slot *slot;

	read_lock(&vm->gate.lock);
	view.generation = vm->generation;
	slot = vg_slot_at(vm, gfn);
	if (slot) {
		view.base_gfn = slot->base_gfn;
		view.npages = slot->npages;
		view.hva = slot->hva;
		view.flags = slot->flags;
		view.found = true;
	}
	read_unlock(&vm->gate.lock);
	return view;
}

/**
 * vg_slots_overlap() - tells whether guest pages are taken
 * @vm: the VM, with its slots_lock held
 * @own: a slot that doesn't count, or NULL
 * @gfn: first page
 * @npages: number of pages
 *
 * Return: true if another slot than @own has one of them.
 */
bool vg_slots_overlap(struct vg_vm *vm, const struct vg_slot *own, u64 gfn, unsigned long npages)
{
	struct rb_node *node = vm->slots_by_gfn.rb_node, *first = NULL;
	struct vg_slot *slot;

	while (node) {
		slot = rb_entry(node, struct vg_slot, by_gfn);
		if (slot->base_gfn + slot->npages > gfn) {
			first = node;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}
	for (; first; first = rb_next(first)) {
		slot = rb_entry(first, struct vg_slot, by_gfn);
		if (slot->base_gfn >= gfn + npages)
			return false;
		if (slot != own)
			return true;
	}
	return false;
}

static struct vg_slot *slot_of_node(struct interval_tree_node *node)
{
	return node ? container_of(node, struct vg_slot, by_hva) : NULL;
}

/**
 * vg_slot_first_hva() - finds the first slot that has some memory
 * @vm: the VM, its gate entered or locked
 * @start: first byte of the memory
 * @last: last byte
 *
 * Return: the slot, or NULL.
 */
struct vg_slot *vg_slot_first_hva(struct vg_vm *vm, unsigned long start, unsigned long last)
{
	return slot_of_node(interval_tree_iter_first(&vm->slots_by_hva, start, last));
}

/**
 * vg_slot_next_hva() - finds the next slot that has some memory
 * @slot: the one before
 * @start: first byte of the memory
 * @last: last byte
 *
 * Return: the slot, or NULL.
 */
struct vg_slot *vg_slot_next_hva(struct vg_slot *slot, unsigned long start, unsigned long last)
{
	return slot_of_node(interval_tree_iter_next(&slot->by_hva, start, last));
}

/**
 * vg_slot_link() - lets a slot be found by its addresses
 * @vm: the VM, its gate closed
 * @slot: the slot
 */
void vg_slot_link(struct vg_vm *vm, struct vg_slot *slot)
{
	struct rb_node **link = &vm->slots_by_gfn.rb_node, *parent = NULL;

	while (*link) {
		parent = *link;
		if (slot->base_gfn < rb_entry(parent, struct vg_slot, by_gfn)->base_gfn)
			link = &parent->rb_left;
		else
			link = &parent->rb_right;
	}
	rb_link_node(&slot->by_gfn, parent, link);
	rb_insert_color(&slot->by_gfn, &vm->slots_by_gfn);
	interval_tree_insert(&slot->by_hva, &vm->slots_by_hva);
}

/**
 * vg_slot_unlink() - lets a slot be found no more by its addresses
 * @vm: the VM, its gate closed
 * @slot: the slot
 */
void vg_slot_unlink(struct vg_vm *vm, struct vg_slot *slot)
{
	rb_erase(&slot->by_gfn, &vm->slots_by_gfn);
	interval_tree_remove(&slot->by_hva, &vm->slots_by_hva);
}

