/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hypercalls as functions.
 *
 * Each returns 0 or a VERDIGRIS_* error (negative, no errno), unless it says
 * otherwise.  Range calls come back early when an interrupt is pending; what is
 * told as @done is what is done, and the caller goes on.
 */
#ifndef VERDIGRIS_CALLS_H
#define VERDIGRIS_CALLS_H

#include <linux/types.h>

#include "firmware.h"

struct vg_bits {
	u64 words[VERDIGRIS_AGE_REGISTER_PAGES / 64];
};

long vg_call_map(u64 vm, u64 ipa, phys_addr_t pa, u64 npages, u64 flags, u64 sequence, u64 *done);
long vg_call_map_list(u64 vm, u64 ipa, u64 npages, phys_addr_t list, u64 sequence, u64 *done);
/* All of the range, however often it takes. */
long vg_call_unmap_all(u64 vm, u64 ipa, u64 npages);
/* One step; @done goes in and out; @bits, if given, gets the final dirty bits of the step. */
long vg_call_begin(u64 vm, u64 ipa, u64 npages, bool resume, u64 *done, struct vg_bits *bits);
long vg_call_end(u64 vm, u64 ipa, u64 npages, u64 *done);
/* At most VERDIGRIS_AGE_REGISTER_PAGES. */
long vg_call_age(u64 vm, u64 ipa, u64 npages, u64 mode, u64 *done, struct vg_bits *bits);
long vg_call_test_age(u64 vm, u64 ipa, u64 npages, u64 *done, struct vg_bits *bits);
long vg_call_harvest(u64 vm, u64 ipa, u64 npages, u64 *done, struct vg_bits *bits);
long vg_call_split(u64 vm, u64 ipa, u64 npages, u64 *done);
long vg_call_collapse(u64 vm, u64 ipa, u64 npages, u64 block, u64 *done);
long vg_call_flush(u64 vm);
/* Any call with few arguments; @result, if given, receives x1. */
long vg_call(u32 function, u64 x1, u64 x2, u64 x3, u64 *result);
/* The same for those that give pages, which wait while one is shared. */
long vg_call_give(u32 function, u64 x1, u64 x2, u64 x3, u64 *result);
long vg_call_get_reg(u64 vm, u64 vcpu, u64 reg, u64 *value);
long vg_call_set_reg(u64 vm, u64 vcpu, u64 reg, u64 value);
/* @regs has VERDIGRIS_REGS_PER_CALL places, @counters VERDIGRIS_STATS_PER_CALL. */
long vg_call_reg_list(u64 vm, u64 vcpu, u64 first, u64 *all, u64 *regs);
long vg_call_statistics(u64 vm, u64 first, u64 *all, u64 *counters);
long vg_call_layout(u64 ipa_bits, u64 *vm_order, u64 *vcpu_order);

#endif
