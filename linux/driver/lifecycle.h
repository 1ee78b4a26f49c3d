/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What becomes of VMs when the kernel goes, see lifecycle.c.
 */
#ifndef VERDIGRIS_LIFECYCLE_H
#define VERDIGRIS_LIFECYCLE_H

#include <linux/types.h>

struct vg_vm;

int vg_life_register(void);
void vg_life_unregister(void);
int vg_life_begin(void);
void vg_life_begun(void);
bool vg_life_is_over(void);
void vg_life_add(struct vg_vm *vm);
void vg_life_remove(struct vg_vm *vm);

#endif
