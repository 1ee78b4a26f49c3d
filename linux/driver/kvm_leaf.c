// SPDX-License-Identifier: GPL-2.0
/*
 * A look at the host's own page table: how large is what holds a page, may the
 * process write to it, does Linux know that it was written?
 *
 * Nothing of the answer holds for longer than the look.  What makes it useful is
 * the sequence number that was taken before: whatever changes a leaf is an
 * invalidation, and then the firmware refuses the map that the answer was for.
 *
 * Walks as get_user_pages_fast() does: with interrupts off, tables can't be freed,
 * neither by an IPI to all CPUs nor after a grace period of RCU.  Entries are read
 * once, and copies are looked at.  Levels that are folded away on this machine are
 * the kernel's accessors' business.
 */
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

#include "kvm.h"

static void look_pte(struct vg_leaf *leaf, pmd_t pmd, unsigned long hva)
{
	/*
	 * The entry itself: of a run of contiguous entries any one may hold the
	 * dirty bit of all.  So one that is dirty is, and one that is clean is
	 * only taken for clean, which costs a call.
	 */
	pte_t pte = READ_ONCE(*pte_offset_kernel(&pmd, hva));

	if (!pte_valid(pte))
		return;
	leaf->shift = PAGE_SHIFT;
	leaf->pfn = pte_pfn(pte);
	leaf->is_writable = pte_write(pte);
	leaf->is_dirty = pte_dirty(pte);
	leaf->is_special = pte_special(pte);
}

static void look_pmd(struct vg_leaf *leaf, pud_t *pudp, pud_t pud, unsigned long hva)
{
	pmd_t pmd = pmdp_get_lockless(pmd_offset_lockless(pudp, pud, hva));

	if (!pmd_present(pmd))
		return;
	if (!pmd_leaf(pmd)) {
		look_pte(leaf, pmd, hva);
		return;
	}
	if (pmd_protnone(pmd))
		return;
	leaf->shift = PMD_SHIFT;
	leaf->pfn = pmd_pfn(pmd) + ((hva & ~PMD_MASK) >> PAGE_SHIFT);
	leaf->is_writable = pmd_write(pmd);
	leaf->is_dirty = pmd_dirty(pmd);
	leaf->is_special = pte_special(pmd_pte(pmd));
}

static void look_pud(struct vg_leaf *leaf, p4d_t *p4dp, p4d_t p4d, unsigned long hva)
{
	pud_t *pudp = pud_offset_lockless(p4dp, p4d, hva);
	pud_t pud = READ_ONCE(*pudp);

	if (!pud_present(pud))
		return;
	if (!pud_leaf(pud)) {
		look_pmd(leaf, pudp, pud, hva);
		return;
	}
	leaf->shift = PUD_SHIFT;
	leaf->pfn = pud_pfn(pud) + ((hva & ~PUD_MASK) >> PAGE_SHIFT);
	leaf->is_writable = pte_write(pud_pte(pud));
	leaf->is_dirty = pte_dirty(pud_pte(pud));
}

/**
 * vg_leaf_look() - looks at the leaf that holds a page of the process
 * @mm: its address space
 * @hva: an address in the page
 *
 * Return: what was there at that moment; @shift is 0 where nothing was.
 */
struct vg_leaf vg_leaf_look(struct mm_struct *mm, unsigned long hva)
{
	struct vg_leaf leaf = {};
	unsigned long flags;
	pgd_t *pgdp, pgd;
	p4d_t *p4dp, p4d;

	local_irq_save(flags);
	pgdp = pgd_offset(mm, hva);
	pgd = READ_ONCE(*pgdp);
	if (!pgd_none(pgd)) {
		p4dp = p4d_offset_lockless(pgdp, pgd, hva);
		p4d = READ_ONCE(*p4dp);
		if (!p4d_none(p4d))
			look_pud(&leaf, p4dp, p4d, hva);
	}
	local_irq_restore(flags);
	return leaf;
}
