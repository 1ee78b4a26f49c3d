/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The raw hypercall device, from the inside.
 */
#ifndef VERDIGRIS_RAW_INTERNAL_H
#define VERDIGRIS_RAW_INTERNAL_H

#include <linux/arm-smccc.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/xarray.h>

#include "verdigris_raw.h"

/**
 * struct raw_file - an open file of the device
 * @lock: taken to look up, map or free an allocation.  Nests inside mmap_lock:
 *	no user memory is touched under it
 * @blocks: allocations, by id
 */
struct raw_file {
	struct mutex lock; /* nests inside mmap_lock */
	struct xarray blocks;
};

int raw_register(void);
void raw_unregister(void);

void raw_pages_init(struct raw_file *file);
int raw_pages_alloc(struct raw_file *file, struct verdigris_raw_pages *args);
int raw_pages_free(struct raw_file *file, u64 id);
int raw_pages_touch(struct raw_file *file, struct verdigris_raw_touch *args);
int raw_pages_mmap(struct raw_file *file, struct vm_area_struct *vma);
void raw_pages_release(struct raw_file *file, bool abandon);

bool raw_vms_concerned(u64 function);
void raw_vms_call(struct raw_file *file, const struct arm_smccc_1_2_regs *args,
		  struct arm_smccc_1_2_regs *res);
void raw_vms_release(struct raw_file *file, bool abandon);
bool raw_vms_live(void);

void raw_snapshot(struct verdigris_raw_snapshot *snapshot);

#endif
