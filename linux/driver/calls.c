// SPDX-License-Identifier: GPL-2.0
/*
 * Hypercalls as functions: which argument goes into which register, once.
 *
 * A range call may come back early, because an interrupt is pending for the
 * host.  It is taken as soon as the call has returned, so going on at once is
 * right wherever interrupts are on.  The functions that go on by themselves do
 * so only where nobody needs to look in between.
 */
#include <linux/arm-smccc.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "calls.h"

/* The bits of a call begin in x2. */
#define FIRST_BITS 2
#define BITS_WORDS (VERDIGRIS_AGE_REGISTER_PAGES / 64)

/* How long a page may be shared by a map that will be refused, in jiffies: for as long as its CPU is kept off. */
#define BUSY_PATIENCE (5 * HZ)

static_assert(sizeof(struct arm_smccc_1_2_regs) == 18 * sizeof(u64));
static_assert(FIRST_BITS + BITS_WORDS == 18);

/* Takes the bits of @npages pages; registers past these were left as they were. */
static void take_bits(struct vg_bits *bits, const struct arm_smccc_1_2_regs *res, u64 npages)
{
	const unsigned long *x = &res->a0;
	unsigned int words = DIV_ROUND_UP(min_t(u64, npages, VERDIGRIS_AGE_REGISTER_PAGES), 64);
	unsigned int i;

	for (i = 0; i < BITS_WORDS; i++)
		bits->words[i] = i < words ? x[FIRST_BITS + i] : 0;
}

/**
 * vg_call_map() - maps consecutive pages, or blocks
 * @vm: the VM
 * @ipa: where
 * @pa: what
 * @npages: how many pages, also of blocks
 * @flags: VERDIGRIS_PROT_* and VERDIGRIS_MAP_*
 * @sequence: of the exit
 * @done: receives how many pages are mapped, also with an error
 *
 * Goes on until all is mapped, or an error comes.
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_map(u64 vm, u64 ipa, phys_addr_t pa, u64 npages, u64 flags, u64 sequence, u64 *done)
{
	struct arm_smccc_1_2_regs res;

	*done = 0;
	while (*done < npages) {
		struct arm_smccc_1_2_regs args = {
			.a0 = VERDIGRIS_MAP,
			.a1 = vm,
			.a2 = ipa + (*done << PAGE_SHIFT),
			.a3 = pa + (*done << PAGE_SHIFT),
			.a4 = npages - *done,
			.a5 = flags,
			.a6 = sequence,
		};

		arm_smccc_1_2_hvc(&args, &res);
		if ((long)res.a0 == VERDIGRIS_INVALID || (long)res.a0 == VERDIGRIS_NO_ENTRY)
			return (long)res.a0;
		*done += res.a1;
		if (res.a0)
			return (long)res.a0;
	}
	return 0;
}

/**
 * vg_call_map_list() - maps pages that lie anywhere
 * @vm: the VM
 * @ipa: where the first goes
 * @npages: how many, at most VERDIGRIS_MAP_LIST_PAGES
 * @list: an entry for each page, in the kernel's linear map; it is used up
 * @sequence: of the exit
 * @done: receives how many pages are done, also with an error
 *
 * Goes on until all is done, or an error comes.
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_map_list(u64 vm, u64 ipa, u64 npages, phys_addr_t list, u64 sequence, u64 *done)
{
	u64 *entries = phys_to_virt(list);
	struct arm_smccc_1_2_regs res;

	*done = 0;
	while (*done < npages) {
		struct arm_smccc_1_2_regs args = {
			.a0 = VERDIGRIS_MAP_LIST,
			.a1 = vm,
			.a2 = ipa + (*done << PAGE_SHIFT),
			.a3 = npages - *done,
			.a4 = list,
			.a5 = sequence,
		};

		arm_smccc_1_2_hvc(&args, &res);
		if ((long)res.a0 == VERDIGRIS_INVALID || (long)res.a0 == VERDIGRIS_NO_ENTRY)
			return (long)res.a0;
		*done += res.a1;
		if (res.a0)
			return (long)res.a0;
		memmove(entries, entries + res.a1, (npages - *done) * sizeof(*entries));
	}
	return 0;
}

/**
 * vg_call_unmap_all() - unmaps all of a range
 * @vm: the VM
 * @ipa: where it begins
 * @npages: how long it is
 *
 * Goes on until all is done.  May sleep.
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_unmap_all(u64 vm, u64 ipa, u64 npages)
{
	struct arm_smccc_1_2_regs res;

	while (npages) {
		struct arm_smccc_1_2_regs args = {
			.a0 = VERDIGRIS_UNMAP,
			.a1 = vm,
			.a2 = ipa,
			.a3 = npages,
		};

		arm_smccc_1_2_hvc(&args, &res);
		if (res.a0)
			return (long)res.a0;
		ipa += res.a1 << PAGE_SHIFT;
		npages -= res.a1;
		cond_resched();
	}
	return 0;
}

/**
 * vg_call_begin() - one step of the beginning of an invalidation
 * @vm: the VM
 * @ipa: where it begins
 * @npages: how long it is
 * @resume: the mark stands already
 * @done: pages done in all, in and out
 * @bits: receives the final dirty bits of this step, or NULL
 *
 * With @bits, a step is of VERDIGRIS_AGE_REGISTER_PAGES at most, and bit n is
 * page n after the ones done before.
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_begin(u64 vm, u64 ipa, u64 npages, bool resume, u64 *done, struct vg_bits *bits)
{
	struct arm_smccc_1_2_regs args = {
		.a0 = VERDIGRIS_INVALIDATE_BEGIN,
		.a1 = vm,
		.a2 = ipa,
		.a3 = npages,
		.a4 = (resume ? VERDIGRIS_BEGIN_RESUME : 0) | (bits ? VERDIGRIS_UNMAP_DIRTY : 0),
		.a5 = resume ? *done : 0,
	};
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	if (res.a0)
		return (long)res.a0;
	if (bits)
		take_bits(bits, &res, res.a1 - args.a5);
	*done = res.a1;
	return 0;
}

/**
 * vg_call_end() - one step of the end of an invalidation
 * @vm: the VM
 * @ipa: where it begins
 * @npages: how long it is
 * @done: pages done in all, in and out; the end has come when these are all
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_end(u64 vm, u64 ipa, u64 npages, u64 *done)
{
	struct arm_smccc_1_2_regs args = {
		.a0 = VERDIGRIS_INVALIDATE_END,
		.a1 = vm,
		.a2 = ipa,
		.a3 = npages,
		.a4 = *done,
	};
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	if (res.a0)
		return (long)res.a0;
	*done = res.a1;
	return 0;
}

/* AGE, TEST_AGE and HARVEST, which all answer in registers. */
static long ask_bits(u32 function, u64 vm, u64 ipa, u64 npages, u64 mode, u64 *done,
		     struct vg_bits *bits)
{
	struct arm_smccc_1_2_regs args = {
		.a0 = function,
		.a1 = vm,
		.a2 = ipa,
		.a3 = npages,
		.a4 = mode,
	};
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	if (res.a0) {
		*done = 0;
		return (long)res.a0;
	}
	take_bits(bits, &res, res.a1);
	*done = res.a1;
	return 0;
}

/**
 * vg_call_age() - one step of an age
 * @vm: the VM
 * @ipa: where it begins
 * @npages: at most VERDIGRIS_AGE_REGISTER_PAGES
 * @mode: VERDIGRIS_AGE_NO_FLUSH, _FLUSH_YOUNG or _FLUSH_ALL
 * @done: receives how many pages were done
 * @bits: receives which were young
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_age(u64 vm, u64 ipa, u64 npages, u64 mode, u64 *done, struct vg_bits *bits)
{
	return ask_bits(VERDIGRIS_AGE, vm, ipa, npages, mode, done, bits);
}

/**
 * vg_call_test_age() - one step of a test that clears nothing
 * @vm: the VM
 * @ipa: where it begins
 * @npages: at most VERDIGRIS_AGE_REGISTER_PAGES
 * @done: receives how many pages were done
 * @bits: receives which are young
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_test_age(u64 vm, u64 ipa, u64 npages, u64 *done, struct vg_bits *bits)
{
	return ask_bits(VERDIGRIS_TEST_AGE, vm, ipa, npages, 0, done, bits);
}

/**
 * vg_call_harvest() - one step of a harvest of dirty bits
 * @vm: the VM
 * @ipa: where it begins
 * @npages: at most VERDIGRIS_AGE_REGISTER_PAGES
 * @done: receives how many pages were done
 * @bits: receives which were dirty
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_harvest(u64 vm, u64 ipa, u64 npages, u64 *done, struct vg_bits *bits)
{
	return ask_bits(VERDIGRIS_HARVEST, vm, ipa, npages, 0, done, bits);
}

/* Calls on a range that tell their progress also with an error. */
static long step_range(u32 function, u64 vm, u64 ipa, u64 npages, u64 argument, u64 *done)
{
	struct arm_smccc_1_2_regs args = {
		.a0 = function,
		.a1 = vm,
		.a2 = ipa,
		.a3 = npages,
		.a4 = argument,
	};
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	*done = 0;
	if ((long)res.a0 != VERDIGRIS_INVALID && (long)res.a0 != VERDIGRIS_NO_ENTRY)
		*done = res.a1;
	return (long)res.a0;
}

/**
 * vg_call_split() - one step of a split into pages
 * @vm: the VM
 * @ipa: where it begins
 * @npages: how long it is
 * @done: receives how many pages were done, also with an error
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_split(u64 vm, u64 ipa, u64 npages, u64 *done)
{
	return step_range(VERDIGRIS_SPLIT, vm, ipa, npages, 0, done);
}

/**
 * vg_call_collapse() - one step of a collapse into blocks
 * @vm: the VM
 * @ipa: where it begins
 * @npages: how long it is
 * @block: VERDIGRIS_MAP_BLOCK_2M or _1G
 * @done: receives how many pages were done, also with an error
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_collapse(u64 vm, u64 ipa, u64 npages, u64 block, u64 *done)
{
	return step_range(VERDIGRIS_COLLAPSE, vm, ipa, npages, block, done);
}

/**
 * vg_call_flush() - ends an ageing pass with one invalidation
 * @vm: the VM
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_flush(u64 vm)
{
	struct arm_smccc_1_2_regs args = { .a0 = VERDIGRIS_FLUSH, .a1 = vm };
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	return (long)res.a0;
}

/**
 * vg_call() - a call with up to three arguments and one result
 * @function: its identifier
 * @x1: first argument
 * @x2: second
 * @x3: third
 * @result: receives x1, or NULL
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call(u32 function, u64 x1, u64 x2, u64 x3, u64 *result)
{
	struct arm_smccc_1_2_regs args = { .a0 = function, .a1 = x1, .a2 = x2, .a3 = x3 };
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	if (!res.a0 && result)
		*result = res.a1;
	return (long)res.a0;
}

/**
 * vg_call_give() - makes a call that gives pages, however long somebody has a share in them
 * @function: VERDIGRIS_VM_CREATE, _VM_DONATE or _VCPU_CREATE
 * @x1: its first argument
 * @x2: the second
 * @x3: the third
 * @result: receives x1, if given
 *
 * A map that will be refused takes its shares first and gives them back: for that
 * moment a page that Linux has freed and allocated again is BUSY.  Sleeps.
 *
 * Return: 0 or a VERDIGRIS_* error; VERDIGRIS_BUSY if it has been that for too long.
 */
long vg_call_give(u32 function, u64 x1, u64 x2, u64 x3, u64 *result)
{
	unsigned long end = jiffies + BUSY_PATIENCE;
	long status;

	for (;;) {
		status = vg_call(function, x1, x2, x3, result);
		if (status != VERDIGRIS_BUSY || time_after(jiffies, end))
			return status;
		usleep_range(10, 100);
	}
}

/**
 * vg_call_get_reg() - reads a register of a vCPU
 * @vm: the VM
 * @vcpu: index
 * @reg: VERDIGRIS_REG_*
 * @value: receives it
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_get_reg(u64 vm, u64 vcpu, u64 reg, u64 *value)
{
	return vg_call(VERDIGRIS_VCPU_GET_REG, vm, vcpu, reg, value);
}

/**
 * vg_call_set_reg() - writes a register of a vCPU
 * @vm: the VM
 * @vcpu: index
 * @reg: VERDIGRIS_REG_*
 * @value: what to write
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_set_reg(u64 vm, u64 vcpu, u64 reg, u64 value)
{
	struct arm_smccc_1_2_regs args = {
		.a0 = VERDIGRIS_VCPU_SET_REG,
		.a1 = vm,
		.a2 = vcpu,
		.a3 = reg,
		.a4 = value,
	};
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	return (long)res.a0;
}

/**
 * vg_call_layout() - asks for the sizes of the regions that a VM and a vCPU need
 * @ipa_bits: of the VM
 * @vm_order: receives log2 of the pages of that of the VM
 * @vcpu_order: receives log2 of the pages of that of a vCPU
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_layout(u64 ipa_bits, u64 *vm_order, u64 *vcpu_order)
{
	struct arm_smccc_1_2_regs args = { .a0 = VERDIGRIS_VM_LAYOUT, .a1 = ipa_bits };
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	if (res.a0)
		return (long)res.a0;
	*vm_order = res.a1;
	*vcpu_order = res.a2;
	return 0;
}

/* Copies results from x2 on. */
static void take_results(u64 *to, const struct arm_smccc_1_2_regs *res)
{
	const unsigned long *x = &res->a0;
	unsigned int i;

	for (i = 0; i < BITS_WORDS; i++)
		to[i] = x[FIRST_BITS + i];
}

/**
 * vg_call_reg_list() - lists some registers of a vCPU
 * @vm: the VM
 * @vcpu: index
 * @first: number of the first register wanted
 * @all: receives how many there are
 * @regs: receives VERDIGRIS_REGS_PER_CALL identifiers
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_reg_list(u64 vm, u64 vcpu, u64 first, u64 *all, u64 *regs)
{
	struct arm_smccc_1_2_regs args = {
		.a0 = VERDIGRIS_VCPU_REG_LIST,
		.a1 = vm,
		.a2 = vcpu,
		.a3 = first,
	};
	struct arm_smccc_1_2_regs res;

	static_assert(VERDIGRIS_REGS_PER_CALL == BITS_WORDS);
	arm_smccc_1_2_hvc(&args, &res);
	if (res.a0)
		return (long)res.a0;
	*all = res.a1;
	take_results(regs, &res);
	return 0;
}

/**
 * vg_call_statistics() - reads some counters of a VM
 * @vm: the VM
 * @first: index of the first counter wanted
 * @all: receives how many there are
 * @counters: receives VERDIGRIS_STATS_PER_CALL values
 *
 * Return: 0 or a VERDIGRIS_* error.
 */
long vg_call_statistics(u64 vm, u64 first, u64 *all, u64 *counters)
{
	struct arm_smccc_1_2_regs args = { .a0 = VERDIGRIS_STATISTICS, .a1 = vm, .a2 = first };
	struct arm_smccc_1_2_regs res;

	static_assert(VERDIGRIS_STATS_PER_CALL == BITS_WORDS);
	arm_smccc_1_2_hvc(&args, &res);
	if (res.a0)
		return (long)res.a0;
	*all = res.a1;
	take_results(counters, &res);
	return 0;
}
