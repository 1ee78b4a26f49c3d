// SPDX-License-Identifier: GPL-2.0
/*
 * Which file of the raw device created which VM, so that it can be ended with
 * the file.
 *
 * A handle is free as soon as the firmware says so, and the next creation may
 * get it.  So calls that begin or end VMs, and the table, go together under one
 * lock; a table that were mended after the call could take the new VM of
 * another file for the old one of this.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/string.h>

#include "firmware.h"
#include "raw.h"

static DEFINE_MUTEX(vms_lock);
/* By handle; handles start at 1. */
static struct raw_file *vm_file[VERDIGRIS_MAX_VMS + 1];

static u32 function_of(u64 x0)
{
	return lower_32_bits(x0) & ~VERDIGRIS_CALL_HINTS;
}

/**
 * raw_vms_concerned() - tells whether a call begins or ends VMs
 * @function: its identifier, as in x0
 *
 * Return: true if raw_vms_call() has to make it.
 */
bool raw_vms_concerned(u64 function)
{
	switch (function_of(function)) {
	case VERDIGRIS_HOST_RESET:
	case VERDIGRIS_VM_CREATE:
	case VERDIGRIS_VM_DESTROY:
		return true;
	default:
		return false;
	}
}

/* Keeps the table true after a call that succeeded. */
static void follow(struct raw_file *file, const struct arm_smccc_1_2_regs *args,
		   const struct arm_smccc_1_2_regs *res)
{
	switch (function_of(args->a0)) {
	case VERDIGRIS_VM_CREATE:
		if (!WARN_ON_ONCE(!res->a1 || res->a1 > VERDIGRIS_MAX_VMS))
			vm_file[res->a1] = file;
		break;
	case VERDIGRIS_VM_DESTROY:
		if (!res->a1 && args->a1 <= VERDIGRIS_MAX_VMS)
			vm_file[args->a1] = NULL;
		break;
	case VERDIGRIS_HOST_RESET:
		if (!res->a1)
			memset(vm_file, 0, sizeof(vm_file));
		break;
	}
}

/**
 * raw_vms_call() - makes a call that begins or ends VMs
 * @file: whose VM a new one is to be
 * @args: x0 to x17
 * @res: the same after the call
 */
void raw_vms_call(struct raw_file *file, const struct arm_smccc_1_2_regs *args,
		  struct arm_smccc_1_2_regs *res)
{
	mutex_lock(&vms_lock);
	arm_smccc_1_2_hvc(args, res);
	if (!res->a0)
		follow(file, args, res);
	mutex_unlock(&vms_lock);
}

/**
 * raw_vms_release() - ends the VMs of a file
 * @file: the file, which no call uses any more
 * @abandon: only forget them
 */
void raw_vms_release(struct raw_file *file, bool abandon)
{
	unsigned int vm;
	int ret;

	mutex_lock(&vms_lock);
	for (vm = 1; vm <= VERDIGRIS_MAX_VMS; vm++) {
		if (vm_file[vm] != file)
			continue;
		ret = abandon ? 0 : verdigris_vm_destroy(vm);
		if (ret)
			pr_warn("VM %u can't be ended (error %d), its memory is lost until the next reset\n",
				vm, ret);
		vm_file[vm] = NULL;
	}
	mutex_unlock(&vms_lock);
}

/**
 * raw_vms_live() - tells whether files of the device have VMs
 *
 * Return: true if there is one.
 */
bool raw_vms_live(void)
{
	bool found;

	mutex_lock(&vms_lock);
	found = memchr_inv(vm_file, 0, sizeof(vm_file));
	mutex_unlock(&vms_lock);
	return found;
}
