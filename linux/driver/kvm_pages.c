// SPDX-License-Identifier: GPL-2.0
/*
 * Memory given to the firmware for a VM: its structures and its tables.
 *
 * The one rule: a page goes back to the kernel only if the firmware says that
 * it is the host's and shared with nobody.  Of a page that is still donated the
 * kernel reads zeros, and its first write faults.  What the rule keeps back is
 * lost on purpose, and told; with a firmware that works there is none.
 *
 * Pages are given in chunks, because each chunk costs the host's own stage 2
 * one broken block and the firmware one call; they are split at once, so that
 * each page can go back by itself.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/list.h>
#include <linux/memcontrol.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/printk.h>
#include <linux/sched.h>

#include "calls.h"
#include "kvm.h"

/* log2 of the pages of a chunk that is given for tables, where there is one. */
#define CHUNK_ORDER 3
/* How often the end of a VM waits for a page, of 10 to 100 us each. */
#define RELEASE_PATIENCE 100

/* How many chunks in a row may be foreign before other memory is asked for. */
#define FOREIGN_TRIES 16

static atomic_long_t donated_pages;

/* Shows in /proc/meminfo, and in the statistics of its memory cgroup, what a guest costs. */
static void show(struct page *page, unsigned int order, int sign)
{
	for (unsigned int i = 0; i < BIT(order); i++)
		mod_lruvec_page_state(page + i, NR_SECONDARY_PAGETABLE, sign);
}

/**
 * vg_pages_donated() - tells how many pages all VMs have
 *
 * Return: the number; 0 if no VM is left.
 */
long vg_pages_donated(void)
{
	return atomic_long_read(&donated_pages);
}

/**
 * vg_pages_shares() - tells how many leaves of VMs refer to the host's memory
 *
 * Asks the firmware about every page there is: for tests, which want to find the
 * number that they began with.
 *
 * Return: the sum of all share counts.
 */
u64 vg_pages_shares(void)
{
	unsigned long pfn, end;
	u64 sum = 0;
	int node;

	for_each_online_node(node) {
		end = node_end_pfn(node);
		for (pfn = node_start_pfn(node); pfn < end; pfn++) {
			if (pfn_to_online_page(pfn))
				sum += verdigris_page_shares(PFN_PHYS(pfn));
			cond_resched();
		}
	}
	return sum;
}

/**
 * vg_pages_init() - prepares the account of a new VM
 * @pages: the account
 */
void vg_pages_init(struct vg_pages *pages)
{
	mutex_init(&pages->lock);
	xa_init_flags(&pages->chunks, XA_FLAGS_ACCOUNT);
}

/*
 * Marks pages as not there for whoever reads all of memory: /proc/kcore, hibernation,
 * makedumpfile.  The kernel's readers are kept out while the mark changes.
 */
static void mark_away(struct page *page, unsigned int count)
{
	page_offline_begin();
	for (unsigned int i = 0; i < count; i++)
		__SetPageOffline(page + i);
	page_offline_end();
}

static void mark_back(struct page *page)
{
	page_offline_begin();
	__ClearPageOffline(page);
	page_offline_end();
}

/*
 * Allocates a chunk that can be donated.  Memory that the kernel got after boot
 * is foreign to the firmware: it goes back, and another chunk is taken.  On
 * arm64 it is added to the highest zone unless it lies inside of a lower one,
 * so the zone below is asked last.
 */
static struct page *chunk_alloc(unsigned int order, gfp_t extra)
{
	gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_NOWARN | extra;
	struct page *page, *held, *next;
	unsigned int tries = 0;
	LIST_HEAD(foreign);

	for (;;) {
		page = alloc_pages(gfp, order);
		if (!page || !verdigris_page_is_foreign(page_to_phys(page)))
			break;
		/* Held back, or the next would be the same. */
		list_add(&page->lru, &foreign);
		page = NULL;
		if (++tries > FOREIGN_TRIES)
			break;
		if (tries == FOREIGN_TRIES)
			gfp |= GFP_DMA;
	}
	if (!page && tries > FOREIGN_TRIES)
		pr_warn_once("no memory that the firmware knows: what was added after boot can't be donated\n");
	list_for_each_entry_safe(held, next, &foreign, lru)
		__free_pages(held, order);
	return page;
}

/* Writes a chunk into the account before anybody else gets to know of it. */
static struct page *chunk_new(struct vg_vm *vm, unsigned int order, gfp_t extra)
{
	struct page *page = chunk_alloc(order, extra);
	void *old;

	if (!page)
		return NULL;
	split_page(page, order);
	old = xa_store(&vm->pages.chunks, page_to_pfn(page), xa_mk_value(order), GFP_KERNEL);
	if (!xa_is_err(old)) {
		mark_away(page, BIT(order));
		vg_add(vm, VG_STAT_PAGES_DONATED, BIT(order));
		atomic_long_add(BIT(order), &donated_pages);
		show(page, order, 1);
		return page;
	}
	for (unsigned int i = 0; i < BIT(order); i++)
		__free_page(page + i);
	return NULL;
}

/**
 * vg_pages_region() - allocates a region that a call will donate
 * @vm: whose it is to be
 * @order: log2 of its pages; it is aligned to its size
 *
 * Also a region that no call took belongs to the VM, until its end.
 *
 * Return: its physical address, or 0 if there is no memory.
 */
phys_addr_t vg_pages_region(struct vg_vm *vm, unsigned int order)
{
	struct page *page;

	mutex_lock(&vm->pages.lock);
	page = chunk_new(vm, order, 0);
	mutex_unlock(&vm->pages.lock);
	return page ? page_to_phys(page) : 0;
}

/* Gives a chunk, however often it takes. */
static int chunk_donate(struct vg_vm *vm, phys_addr_t pa, u64 npages)
{
	u64 done;
	long status;

	while (npages) {
		status = vg_call_give(VERDIGRIS_VM_DONATE, vm->handle, pa, npages, &done);
		if (status) {
			vg_vm_bug(vm, "VM_DONATE", status);
			return -EIO;
		}
		pa += done << PAGE_SHIFT;
		npages -= done;
	}
	return 0;
}

/**
 * vg_pages_donate() - gives memory for tables
 * @vm: whose tables
 * @count: at least so many pages
 *
 * Sleeps, and allocates; so it is called with no lock that a notifier takes.
 *
 * Return: 0, -ENOMEM or -EIO.
 */
int vg_pages_donate(struct vg_vm *vm, unsigned int count)
{
	unsigned int given = 0;
	int ret = 0;

	mutex_lock(&vm->pages.lock);
	while (given < count && !ret) {
		unsigned int order = count - given > 1 ? CHUNK_ORDER : 0;
		struct page *page = chunk_new(vm, order, order ? __GFP_NORETRY : 0);

		if (!page && order) {
			order = 0;
			page = chunk_new(vm, order, 0);
		}
		ret = page ? chunk_donate(vm, page_to_phys(page), BIT(order)) : -ENOMEM;
		given += BIT(order);
	}
	mutex_unlock(&vm->pages.lock);
	return ret;
}

/*
 * A map that will be refused may have a share in the page for a moment, see
 * vg_call_give().  @patience is that of the whole VM: where many pages are kept
 * back, each is looked at once.
 */
static bool is_free(phys_addr_t pa, unsigned int *patience)
{
	while (!verdigris_page_is_free(pa)) {
		if (!*patience)
			return false;
		(*patience)--;
		usleep_range(10, 100);
	}
	return true;
}

/* Frees what may be freed of a chunk, and counts what may not. */
static unsigned long chunk_free(struct page *page, unsigned int order, unsigned int *patience)
{
	unsigned long i, lost = 0;

	show(page, order, -1);
	for (i = 0; i < BIT(order); i++) {
		if (is_free(page_to_phys(page + i), patience)) {
			mark_back(page + i);
			__free_page(page + i);
		} else {
			lost++;
		}
	}
	return lost;
}

/**
 * vg_pages_release() - frees what the firmware has given back
 * @vm: a VM that the firmware doesn't know any more
 */
void vg_pages_release(struct vg_vm *vm)
{
	unsigned long pfn, lost = 0, all = 0;
	unsigned int patience = RELEASE_PATIENCE;
	void *entry;

	xa_for_each(&vm->pages.chunks, pfn, entry) {
		lost += chunk_free(pfn_to_page(pfn), xa_to_value(entry), &patience);
		all += BIT(xa_to_value(entry));
		cond_resched();
	}
	xa_destroy(&vm->pages.chunks);
	mutex_destroy(&vm->pages.lock);
	atomic_long_sub(all - lost, &donated_pages);
	if (lost)
		pr_warn("%lu pages are lost: the firmware did not give them back\n", lost);
}
