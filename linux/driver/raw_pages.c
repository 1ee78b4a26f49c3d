// SPDX-License-Identifier: GPL-2.0
/*
 * Pages for tests: physically placed, unmovable, and visible to the process.
 *
 * The one rule: a page goes back to the kernel only if the firmware says that
 * it is the host's and shared with nobody.  A page that a VM still maps would
 * be read and written by a guest after the kernel gave it to somebody else; one
 * that is still donated reads as zeros, and the kernel's first write faults.
 * What the rule keeps back is lost on purpose, and told.
 *
 * Donated pages are not marked as PageOffline here, as those of /dev/kvm are: the
 * process has them mapped, and a page's type takes the place of its map count.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "firmware.h"
#include "raw.h"

#define MOST_PAGES BIT(20)
/* Identifiers fit the offset of mmap, a signed number of bytes. */
#define MOST_IDS XA_LIMIT(1, BIT(30))
#define ID_SHIFT_PAGES (VERDIGRIS_RAW_ID_SHIFT - PAGE_SHIFT)

/**
 * struct raw_block - one allocation
 * @mappings: areas of address spaces that show it; it isn't freed before 0
 * @page_count: number of pages
 * @pages: each page, with a reference of its own
 */
struct raw_block {
	atomic_t mappings;
	unsigned long page_count;
	struct page *pages[] __counted_by(page_count);
};

/**
 * raw_pages_init() - prepares a new file
 * @file: the file
 */
void raw_pages_init(struct raw_file *file)
{
	xa_init_flags(&file->blocks, XA_FLAGS_ALLOC1);
}

static struct raw_block *block_new(unsigned long page_count)
{
	struct raw_block *block;

	block = kvzalloc(struct_size(block, pages, page_count), GFP_KERNEL);
	if (block)
		block->page_count = page_count;
	return block;
}

/* Frees a block whose pages nobody but the kernel has ever seen. */
static void block_discard(struct raw_block *block)
{
	unsigned long i;

	for (i = 0; i < block->page_count && block->pages[i]; i++)
		__free_page(block->pages[i]);
	kvfree(block);
}

static int block_fill(struct raw_block *block, unsigned int order)
{
	unsigned long i, j;
	struct page *chunk;

	for (i = 0; i < block->page_count; i += BIT(order)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		chunk = alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN, order);
		if (!chunk)
			return -ENOMEM;
		split_page(chunk, order);
		for (j = 0; j < BIT(order); j++)
			block->pages[i + j] = chunk + j;
		cond_resched();
	}
	return 0;
}

static int tell_addresses(const struct raw_block *block, const struct verdigris_raw_pages *args)
{
	u64 __user *addresses = u64_to_user_ptr(args->addresses);
	unsigned long i;

	for (i = 0; i < args->count; i++) {
		u64 pa = page_to_phys(block->pages[i << args->order]);

		if (put_user(pa, addresses + i))
			return -EFAULT;
	}
	return 0;
}

/**
 * raw_pages_alloc() - allocates pages
 * @file: whose they are to be
 * @args: what is wanted; receives the id
 *
 * Return: 0 or an error, after which nothing is allocated.
 */
int raw_pages_alloc(struct raw_file *file, struct verdigris_raw_pages *args)
{
	struct raw_block *block;
	int ret;
	u32 id;

	if (args->order > MAX_PAGE_ORDER || !args->count ||
	    args->count > MOST_PAGES >> args->order)
		return -EINVAL;
	block = block_new((unsigned long)args->count << args->order);
	if (!block)
		return -ENOMEM;
	ret = block_fill(block, args->order);
	if (!ret)
		ret = tell_addresses(block, args);
	if (!ret)
		ret = xa_alloc(&file->blocks, &id, block, MOST_IDS, GFP_KERNEL);
	if (ret) {
		block_discard(block);
		return ret;
	}
	args->id = id;
	return 0;
}

static bool block_is_free(const struct raw_block *block)
{
	unsigned long i;

	for (i = 0; i < block->page_count; i++) {
		if (!verdigris_page_is_free(page_to_phys(block->pages[i])))
			return false;
		cond_resched();
	}
	return true;
}

/**
 * raw_pages_free() - frees an allocation
 * @file: whose it is
 * @id: which
 *
 * Return: 0; -ENOENT; or -EBUSY while somebody uses it, and nothing happened.
 */
int raw_pages_free(struct raw_file *file, u64 id)
{
	struct raw_block *block;
	int ret = 0;

	mutex_lock(&file->lock);
	block = xa_load(&file->blocks, id);
	if (!block)
		ret = -ENOENT;
	else if (atomic_read(&block->mappings) || !block_is_free(block))
		ret = -EBUSY;
	else
		xa_erase(&file->blocks, id);
	mutex_unlock(&file->lock);
	if (!ret)
		block_discard(block);
	return ret;
}

/* By the kernel's own map of all memory, with an entry in the exception tables. */
static int touch(u64 *at, bool write, u64 *value)
{
	int ret = 0;

	pagefault_disable();
	if (write)
		__put_kernel_nofault(at, value, u64, fault);
	else
		__get_kernel_nofault(value, at, u64, fault);
	goto out;
fault:
	ret = -EFAULT;
out:
	pagefault_enable();
	return ret;
}

/**
 * raw_pages_touch() - reads or writes a page as the kernel itself would
 * @file: whose it is
 * @args: where and how; receives what was read
 *
 * Return: 0; -EFAULT if the access faulted; -ENOENT or -EINVAL.
 */
int raw_pages_touch(struct raw_file *file, struct verdigris_raw_touch *args)
{
	struct raw_block *block;
	int ret;

	if (args->offset > PAGE_SIZE - sizeof(u64) || args->write > 1)
		return -EINVAL;
	mutex_lock(&file->lock);
	block = xa_load(&file->blocks, args->id);
	if (!block)
		ret = -ENOENT;
	else if (args->page >= block->page_count)
		ret = -EINVAL;
	else
		ret = touch(page_address(block->pages[args->page]) + args->offset,
			    args->write, &args->value);
	mutex_unlock(&file->lock);
	return ret;
}

static void area_open(struct vm_area_struct *vma)
{
	struct raw_block *block = vma->vm_private_data;

	atomic_inc(&block->mappings);
}

static void area_close(struct vm_area_struct *vma)
{
	struct raw_block *block = vma->vm_private_data;

	atomic_dec(&block->mappings);
}

static const struct vm_operations_struct area_ops = {
	.open = area_open,
	.close = area_close,
};

static int block_insert(struct raw_block *block, struct vm_area_struct *vma, unsigned long first)
{
	unsigned long count = vma_pages(vma);

	if (first >= block->page_count || count > block->page_count - first)
		return -EINVAL;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	return vm_insert_pages(vma, vma->vm_start, block->pages + first, &count);
}

/**
 * raw_pages_mmap() - shows an allocation to a process
 * @file: whose it is
 * @vma: where; its offset names the allocation and the page to begin with
 *
 * Return: 0 or an error.
 */
int raw_pages_mmap(struct raw_file *file, struct vm_area_struct *vma)
{
	unsigned long first = vma->vm_pgoff & (BIT(ID_SHIFT_PAGES) - 1);
	struct raw_block *block;
	int ret;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	mutex_lock(&file->lock);
	block = xa_load(&file->blocks, vma->vm_pgoff >> ID_SHIFT_PAGES);
	ret = block ? block_insert(block, vma, first) : -ENOENT;
	if (!ret) {
		vma->vm_private_data = block;
		vma->vm_ops = &area_ops;
		area_open(vma);
	}
	mutex_unlock(&file->lock);
	return ret;
}

/* Frees what may be freed of a block, and counts what may not. */
static unsigned long block_release(struct raw_block *block, bool abandon)
{
	unsigned long i, lost = 0;

	for (i = 0; i < block->page_count; i++) {
		if (!abandon && verdigris_page_is_free(page_to_phys(block->pages[i])))
			__free_page(block->pages[i]);
		else
			lost++;
		cond_resched();
	}
	kvfree(block);
	return lost;
}

/**
 * raw_pages_release() - frees all that a file has
 * @file: the file, which no call and no address space uses any more
 * @abandon: free nothing
 */
void raw_pages_release(struct raw_file *file, bool abandon)
{
	struct raw_block *block;
	unsigned long id, lost = 0;

	xa_for_each(&file->blocks, id, block)
		lost += block_release(block, abandon);
	xa_destroy(&file->blocks);
	if (lost)
		pr_warn("%lu pages are lost: %s\n", lost,
			abandon ? "abandoned" : "a VM that isn't this file's uses them");
}
