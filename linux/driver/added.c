// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that the kernel gets after boot, and gives up.
 *
 * The firmware learned at its boot what RAM there is.  Of what comes later it
 * has to be told, or guests can't have it.  So a range is added before its
 * pages are handed out, and removed when the last of them is back; what is there
 * already is added at load.  Where the firmware has no room for it, the memory
 * is the kernel's alone, as if there were no firmware.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/notifier.h>
#include <linux/pfn.h>
#include <linux/sched.h>

#include "firmware.h"

/* Tells the firmware of a range, however often it takes; returns its last status. */
static long tell(unsigned long function, unsigned long pfn, unsigned long count)
{
	struct arm_smccc_1_2_regs args = { .a0 = function };
	struct arm_smccc_1_2_regs res;

	while (count) {
		args.a1 = PFN_PHYS(pfn);
		args.a2 = count;
		arm_smccc_1_2_hvc(&args, &res);
		if (res.a0)
			return (long)res.a0;
		pfn += res.a1;
		count -= res.a1;
		cond_resched();
	}
	return 0;
}

static void add(unsigned long pfn, unsigned long count)
{
	long status = tell(VERDIGRIS_MEMORY_ADD, pfn, count);

	if (status)
		pr_warn("memory at %#llx came after boot and can't be a guest's: status %ld (the firmware's option hot= makes room)\n",
			PFN_PHYS(pfn), status);
}

static void drop(unsigned long pfn, unsigned long count)
{
	long status = tell(VERDIGRIS_MEMORY_REMOVE, pfn, count);

	/* Where there was no room, there is nothing to remove. */
	if (status && status != VERDIGRIS_NOT_OWNER)
		pr_warn("memory at %#llx goes and is still a guest's: status %ld\n",
			PFN_PHYS(pfn), status);
}

static int changed(struct notifier_block *nb, unsigned long action, void *data)
{
	const struct memory_notify *range = data;

	switch (action) {
	case MEM_GOING_ONLINE:
		add(range->start_pfn, range->nr_pages);
		break;
	case MEM_CANCEL_ONLINE:
	case MEM_OFFLINE:
		drop(range->start_pfn, range->nr_pages);
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block notifier = { .notifier_call = changed };

/* The firmware knows the RAM that it booted with, but for pages that are reserved in it. */
static bool is_known(unsigned long pfn)
{
	return !verdigris_page_is_foreign(PFN_PHYS(pfn)) ||
	       !verdigris_page_is_foreign(PFN_PHYS(pfn + PAGES_PER_SECTION - 1));
}

/* Adds the sections that are online and unknown: what came before the driver. */
static void add_online(void)
{
	unsigned long pfn, end;
	int node;

	for_each_online_node(node) {
		end = node_end_pfn(node);
		pfn = ALIGN_DOWN(node_start_pfn(node), PAGES_PER_SECTION);
		for (; pfn < end; pfn += PAGES_PER_SECTION) {
			if (pfn_to_online_page(pfn) && !is_known(pfn))
				add(pfn, PAGES_PER_SECTION);
			cond_resched();
		}
	}
}

/**
 * verdigris_added_register() - tells the firmware of memory from now on
 *
 * Return: 0 or an error.
 */
int verdigris_added_register(void)
{
	int ret = register_memory_notifier(&notifier);

	if (!ret)
		add_online();
	return ret;
}

/**
 * verdigris_added_unregister() - tells it no more
 *
 * What it was told of stays: a page that is the host's does no harm.
 */
void verdigris_added_unregister(void)
{
	unregister_memory_notifier(&notifier);
}
