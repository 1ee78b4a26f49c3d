// SPDX-License-Identifier: GPL-2.0
/*
 * Answers Linux's questions about the age of pages from windows.
 *
 * Linux asks about one page at a time; the firmware tells the ages of 1024 pages
 * in one call.  So the first question about a window fetches all of it, and the
 * following are answered from the copy.  The rules keep the answers honest:
 *
 * - young is sticky.  The fetch has cleared the flag at EL2, so this bit is all
 *   that is known of a touch: it is told once, to the first question about its
 *   page, however late, and is dropped only with the page itself;
 * - old expires, after age_expiry_ms, or with the second question about the page:
 *   who asks twice wants to know about the time in between;
 * - testing consumes nothing, neither here nor at EL2;
 * - an error of the firmware is never young.
 *
 * Fetching clears flags and leaves TLBs alone, so touches through translations
 * from before stay unseen until one flush of the VM.  It follows when no window
 * was fetched for a while: the pass is over.  From then on what is old is in no
 * TLB, and is reclaimed without an invalidation.
 *
 * A window is made by the first question about one of its pages, so what a slot
 * costs follows what is used of it and not its size.  Callbacks come under
 * page-table locks: nothing here sleeps, and where there is no memory at once the
 * question is asked page by page.
 */
#include <linux/bitmap.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/xarray.h>

#include "calls.h"
#include "kvm.h"

static unsigned int age_window = VG_WINDOW_PAGES;
module_param(age_window, uint, 0644);
MODULE_PARM_DESC(age_window,
		 "Pages whose ages are fetched at once, a power of two up to 1024; below 2: off. New slots take it (default 1024)");

static unsigned int age_expiry_ms = 50;
module_param(age_expiry_ms, uint, 0644);
MODULE_PARM_DESC(age_expiry_ms, "How long a fetched \"old\" is good for (default 50)");

static unsigned int age_flush_ms = 20;
module_param(age_flush_ms, uint, 0644);
MODULE_PARM_DESC(age_flush_ms,
		 "Flush once when no ages were fetched for that long; 0: never (default 20)");

static bool age_answers = true;
module_param(age_answers, bool, 0644);
MODULE_PARM_DESC(age_answers,
		 "Tell Linux which pages guests touch; off: all are old (default on)");

/* The queue of work that any CPU may do; 7.2 warns of its former name. */
#if KERNEL_VERSION(6, 18, 0) <= LINUX_VERSION_CODE
#define any_cpu_wq system_dfl_wq
#else
#define any_cpu_wq system_unbound_wq
#endif

/* A pass that never pauses is flushed after so many times age_flush_ms. */
#define FLUSH_PATIENCE 10

static bool is_windowed(const struct vg_slot *slot)
{
	return slot->window_shift && READ_ONCE(age_window) > 1;
}

/*
 * Asked for under locks, by whoever reclaims too, whom the last reserves are open to: it
 * must not have them, and fails early.  It charges nobody.
 */
#define WINDOW_GFP (GFP_NOWAIT | __GFP_NOMEMALLOC | __GFP_NOWARN)

/**
 * vg_windows_init() - prepares a new slot
 * @slot: the slot
 */
void vg_windows_init(struct vg_slot *slot)
{
	unsigned int size = clamp(READ_ONCE(age_window), 1U, (unsigned int)VG_WINDOW_PAGES);

	slot->window_shift = ilog2(size);
	xa_init(&slot->windows);
}

/**
 * vg_windows_free() - frees the windows of a slot
 * @slot: the slot, which nobody finds any more
 */
void vg_windows_free(struct vg_slot *slot)
{
	struct vg_window *window;
	unsigned long index;

	xa_for_each(&slot->windows, index, window)
		kfree(window);
	xa_destroy(&slot->windows);
}

/* Finds a window, or makes it; NULL if there is no memory.  The gate is locked: the slot stays. */
static struct vg_window *window_at(struct vg_slot *slot, unsigned long index)
{
	struct vg_window *window = xa_load(&slot->windows, index), *other;

	if (window)
		return window;
	window = kzalloc(sizeof(*window), WINDOW_GFP);
	if (!window)
		return NULL;
	spin_lock_init(&window->lock);
	other = xa_cmpxchg(&slot->windows, index, NULL, window, WINDOW_GFP);
	if (!other)
		return window;
	/* Another question made it meanwhile, or there is no memory for its place. */
	kfree(window);
	return xa_is_err(other) ? NULL : other;
}

/**
 * struct span - the part of a question that one window answers
 * @window: the window, or NULL where there is no memory for it
 * @first: first page of the slot that the window has
 * @size: pages that it has
 * @from: first page asked about, counted from @first
 * @count: how many
 */
struct span {
	struct vg_window *window;
	unsigned long first;
	unsigned int size;
	unsigned int from;
	unsigned int count;
};

/* Cuts what one window has off the pages [*page, end) of a slot. */
static struct span next_span(struct vg_slot *slot, unsigned long *page, unsigned long end)
{
	unsigned long index = *page >> slot->window_shift;
	unsigned long first = index << slot->window_shift;
	struct span span = { .window = window_at(slot, index), .first = first };

	span.size = min(1UL << slot->window_shift, slot->npages - first);
	span.from = *page - first;
	span.count = min(end, first + span.size) - *page;
	*page += span.count;
	return span;
}

/**
 * vg_windows_drop() - forgets the ages of pages that were taken away
 * @slot: the slot
 * @gfn: first page
 * @npages: number of pages
 *
 * What comes there next is new: whoever asks fetches.
 */
void vg_windows_drop(struct vg_slot *slot, u64 gfn, u64 npages)
{
	unsigned long page = gfn - slot->base_gfn, end = page + npages, index;
	unsigned int shift = slot->window_shift;
	struct vg_window *window;

	if (!shift || !npages)
		return;
	/* Those that there are: the range may be all of a large slot. */
	xa_for_each_range(&slot->windows, index, window, page >> shift, (end - 1) >> shift) {
		unsigned long first = max(page, index << shift);
		unsigned int from = first - (index << shift);
		unsigned int count = min(end, (index + 1) << shift) - first;

		spin_lock(&window->lock);
		bitmap_clear(window->young, from, count);
		bitmap_clear(window->tested, from, count);
		bitmap_set(window->asked, from, count);
		spin_unlock(&window->lock);
	}
}

static bool any_set(const unsigned long *bits, const struct span *span)
{
	unsigned long end = span->from + span->count;

	return find_next_bit(bits, end, span->from) < end;
}

static bool is_fresh(bool is_known, unsigned long since)
{
	return is_known &&
	       time_before(jiffies, since + msecs_to_jiffies(READ_ONCE(age_expiry_ms)));
}

/* The flush that the fetch owes is made when the pass is over. */
static void flush_later(struct vg_vm *vm)
{
	unsigned int delay_ms = READ_ONCE(age_flush_ms);

	if (!delay_ms)
		return;
	WRITE_ONCE(vm->fetched_last, jiffies);
	if (queue_delayed_work(any_cpu_wq, &vm->flush_work, msecs_to_jiffies(delay_ms)))
		WRITE_ONCE(vm->flush_since, jiffies);
}

static void flush(struct work_struct *work)
{
	struct vg_vm *vm = container_of(to_delayed_work(work), struct vg_vm, flush_work);
	unsigned long delay = msecs_to_jiffies(READ_ONCE(age_flush_ms));
	unsigned long quiet_from = READ_ONCE(vm->fetched_last) + delay;
	long status;

	if (time_before(jiffies, quiet_from) &&
	    time_before(jiffies, READ_ONCE(vm->flush_since) + FLUSH_PATIENCE * delay)) {
		queue_delayed_work(any_cpu_wq, &vm->flush_work, quiet_from - jiffies);
		return;
	}
	vg_count(vm, VG_STAT_EPOCH_FLUSHES);
	status = vg_call_flush(vm->handle);
	if (status)
		vg_vm_bug(vm, "FLUSH", status);
}

/**
 * vg_age_init() - prepares a new VM
 * @vm: the VM
 */
void vg_age_init(struct vg_vm *vm)
{
	INIT_DELAYED_WORK(&vm->flush_work, flush);
}

/**
 * vg_age_stop() - waits for what is under way
 * @vm: the VM, whose notifier is gone, and which still exists in the firmware
 */
void vg_age_stop(struct vg_vm *vm)
{
	cancel_delayed_work_sync(&vm->flush_work);
}

/*
 * Asks the firmware about pages of a slot, and sets a bit in @bits for each that is
 * young; @bits and @npages are at most a window.  Returns false after an error.
 */
static bool ask(struct vg_vm *vm, const struct vg_slot *slot, unsigned long page,
		unsigned int npages, enum vg_question question, unsigned long *bits)
{
	u64 mode = question == VG_CLEAR_FLUSH_YOUNG ? VERDIGRIS_AGE_FLUSH_YOUNG :
						      VERDIGRIS_AGE_NO_FLUSH;
	u64 ipa = (slot->base_gfn + page) << PAGE_SHIFT, done, at;
	struct vg_bits answer;
	unsigned int i;
	long status;

	for (at = 0; at < npages; at += done) {
		u64 start = ipa + (at << PAGE_SHIFT);

		vg_count(vm, question == VG_TEST_YOUNG ? VG_STAT_WINDOW_TESTS :
							 VG_STAT_WINDOW_FETCHES);
		if (question == VG_TEST_YOUNG)
			status = vg_call_test_age(vm->handle, start, npages - at, &done, &answer);
		else
			status = vg_call_age(vm->handle, start, npages - at, mode, &done, &answer);
		if (status) {
			vg_vm_bug(vm, "AGE", status);
			return false;
		}
		for (i = 0; i < done; i++)
			if (answer.words[i / 64] >> i % 64 & 1)
				__set_bit(at + i, bits);
	}
	return true;
}

/* Fetches a window that has no fresh answer.  Its lock is held. */
static void fetch(struct vg_vm *vm, const struct vg_slot *slot, const struct span *span)
{
	DECLARE_BITMAP(found, VG_WINDOW_PAGES) = {};
	struct vg_window *window = span->window;

	if (!ask(vm, slot, span->first, span->size, VG_CLEAR_YOUNG, found))
		return;
	bitmap_or(window->young, window->young, found, VG_WINDOW_PAGES);
	bitmap_zero(window->asked, VG_WINDOW_PAGES);
	window->fetched_at = jiffies;
	window->is_fetched = true;
	window->is_tested = false;
	if (!bitmap_empty(found, VG_WINDOW_PAGES))
		flush_later(vm);
}

/*
 * Answers, and consumes: the next question about these pages is about the time since
 * the last fetch, at most age_expiry_ms before now.
 */
static bool clear_young(struct vg_vm *vm, const struct vg_slot *slot, const struct span *span)
{
	struct vg_window *window = span->window;
	bool is_young = any_set(window->young, span);

	if (is_young ||
	    (is_fresh(window->is_fetched, window->fetched_at) && !any_set(window->asked, span))) {
		vg_count(vm, VG_STAT_WINDOW_HITS);
	} else {
		fetch(vm, slot, span);
		is_young = any_set(window->young, span);
	}
	bitmap_clear(window->young, span->from, span->count);
	bitmap_clear(window->tested, span->from, span->count);
	bitmap_set(window->asked, span->from, span->count);
	return is_young;
}

static bool test_young(struct vg_vm *vm, const struct vg_slot *slot, const struct span *span)
{
	struct vg_window *window = span->window;

	if (any_set(window->young, span) || is_fresh(window->is_tested, window->tested_at)) {
		vg_count(vm, VG_STAT_WINDOW_HITS);
	} else {
		bitmap_zero(window->tested, VG_WINDOW_PAGES);
		window->is_tested = ask(vm, slot, span->first, span->size, VG_TEST_YOUNG,
					window->tested);
		window->tested_at = jiffies;
	}
	return any_set(window->young, span) ||
	       (window->is_tested && any_set(window->tested, span));
}

/*
 * Without windows: what is asked is what the firmware is asked.  What was cleared
 * without a flush is owed one as after a fetch.
 */
static bool ask_plainly(struct vg_vm *vm, const struct vg_slot *slot, unsigned long page,
			unsigned long end, enum vg_question question)
{
	bool is_young = false;
	unsigned int count;

	for (; page < end; page += count) {
		DECLARE_BITMAP(found, VG_WINDOW_PAGES) = {};

		count = min(end - page, (unsigned long)VG_WINDOW_PAGES);
		if (ask(vm, slot, page, count, question, found))
			is_young |= !bitmap_empty(found, VG_WINDOW_PAGES);
	}
	if (is_young && question == VG_CLEAR_YOUNG)
		flush_later(vm);
	return is_young;
}

/**
 * vg_age() - tells whether the guest touched one of some pages
 * @vm: the VM, its gate locked
 * @slot: the slot that has them
 * @gfn: the first page
 * @npages: how many
 * @question: what Linux asks, and what is to be forgotten with the answer
 *
 * All of the pages are consumed, also if the first is young already.
 *
 * Return: true if one of them is young.
 */
bool vg_age(struct vg_vm *vm, struct vg_slot *slot, u64 gfn, u64 npages, enum vg_question question)
{
	unsigned long page = gfn - slot->base_gfn, end = page + npages;
	bool is_young = false;

	if (!READ_ONCE(age_answers) || READ_ONCE(vm->is_bugged))
		return false;
	if (!is_windowed(slot))
		return ask_plainly(vm, slot, page, end, question);
	while (page < end) {
		struct span span = next_span(slot, &page, end);

		if (!span.window) {
			is_young |= ask_plainly(vm, slot, page - span.count, page, question);
			continue;
		}
		spin_lock(&span.window->lock);
		if (question == VG_TEST_YOUNG)
			is_young |= test_young(vm, slot, &span);
		else
			is_young |= clear_young(vm, slot, &span);
		spin_unlock(&span.window->lock);
	}
	return is_young;
}
