// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of VMs when the kernel goes: reboot, kexec, hibernation.
 *
 * Memory that a VM was given belongs to the firmware, and the firmware outlives
 * the kernel.  So before another kernel gets the machine, every VM ends and every
 * page comes back.  Processes may be alive then, with vCPUs inside guests: a
 * reboot notifier can't wait for user space.  The order does without that:
 *
 *  1. no VM begins any more;
 *  2. every VM is marked as ended, and every vCPU kicked: a run that leaves the
 *     guest finds the mark before it enters again;
 *  3. HOST_RESET ends the VMs in the firmware.
 *
 * What other ioctls and notifiers ask of an ended VM the firmware answers with
 * NO_ENTRY.  No VM begins, so no handle means another VM meanwhile.
 *
 * A hibernation image holds the kernel's memory and nothing of the firmware's.
 * The kernel that it is restored to finds a firmware without VMs, so it must not
 * have any itself.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/errno.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/printk.h>
#include <linux/reboot.h>
#include <linux/rwsem.h>
#include <linux/suspend.h>

#include "firmware.h"
#include "kvm.h"
#include "lifecycle.h"
#include "raw.h"

/* Whether VMs may begin. */
enum life {
	OPEN,
	HIBERNATING,
	CLOSED,	/* for good: the kernel goes */
};

/* Read while a VM begins, written for a change of @life. */
static DECLARE_RWSEM(life_lock);
static enum life life = OPEN;

static DEFINE_MUTEX(vms_lock);
static LIST_HEAD(vms);

/**
 * vg_life_begin() - asks whether a VM may begin, and keeps it so
 *
 * Return: 0, and vg_life_begun() must follow; or an error.
 */
int vg_life_begin(void)
{
	int ret = 0;

	if (down_read_killable(&life_lock))
		return -EINTR;
	if (life == HIBERNATING)
		ret = -EBUSY;
	else if (life == CLOSED)
		ret = -ENODEV;
	if (ret)
		up_read(&life_lock);
	return ret;
}

/**
 * vg_life_begun() - follows vg_life_begin(), whether a VM came of it or not
 */
void vg_life_begun(void)
{
	up_read(&life_lock);
}

/**
 * vg_life_is_over() - tells whether all VMs were ended because the kernel goes
 *
 * Return: true from then on.
 */
bool vg_life_is_over(void)
{
	return READ_ONCE(life) == CLOSED;
}

/**
 * vg_life_add() - takes note of a VM
 * @vm: the VM, between vg_life_begin() and vg_life_begun()
 */
void vg_life_add(struct vg_vm *vm)
{
	mutex_lock(&vms_lock);
	list_add(&vm->link, &vms);
	mutex_unlock(&vms_lock);
}

/**
 * vg_life_remove() - forgets a VM
 * @vm: the VM; its vCPUs are still there
 */
void vg_life_remove(struct vg_vm *vm)
{
	mutex_lock(&vms_lock);
	list_del(&vm->link);
	mutex_unlock(&vms_lock);
}

static void end_all(void)
{
	struct vg_vm *vm;

	mutex_lock(&vms_lock);
	list_for_each_entry(vm, &vms, link)
		vg_vm_end_runs(vm);
	mutex_unlock(&vms_lock);
	/* It tells what is wrong. */
	verdigris_host_reset();
}

static int on_reboot(struct notifier_block *nb, unsigned long event, void *unused)
{
	down_write(&life_lock);
	WRITE_ONCE(life, CLOSED);
	up_write(&life_lock);
	end_all();
	return NOTIFY_DONE;
}

static bool has_vms(void)
{
	return vg_vms_live() || raw_vms_live();
}

/* The image is made, or restored over this kernel: either way only without VMs. */
static int prepare_hibernation(void)
{
	int ret = 0;

	down_write(&life_lock);
	if (has_vms()) {
		pr_err("hibernation is refused while VMs exist: their state is the firmware's, and no image has it. End them first\n");
		ret = -EBUSY;
	} else if (life == OPEN) {
		/* Nothing of this kernel's memory is the firmware's. */
		ret = verdigris_host_reset();
		/* Who refuses is not told of the end: see notifier_call_chain_robust(). */
		if (!ret)
			WRITE_ONCE(life, HIBERNATING);
	}
	up_write(&life_lock);
	return ret;
}

/* Here too in a kernel that was restored: the firmware may be of another boot, and knows no VM. */
static void after_hibernation(void)
{
	down_write(&life_lock);
	if (life == HIBERNATING)
		WRITE_ONCE(life, OPEN);
	up_write(&life_lock);
}

static int on_power(struct notifier_block *nb, unsigned long event, void *unused)
{
	switch (event) {
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		return notifier_from_errno(prepare_hibernation());
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		after_hibernation();
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block reboot_block = { .notifier_call = on_reboot };
static struct notifier_block power_block = { .notifier_call = on_power };

/**
 * vg_life_register() - begins to follow what becomes of the kernel
 *
 * Return: 0 or an error.
 */
int vg_life_register(void)
{
	int ret = register_reboot_notifier(&reboot_block);

	if (ret)
		return ret;
	ret = register_pm_notifier(&power_block);
	if (ret)
		unregister_reboot_notifier(&reboot_block);
	return ret;
}

/**
 * vg_life_unregister() - ends that
 *
 * No VM is left: each has a reference to the module.
 */
void vg_life_unregister(void)
{
	unregister_pm_notifier(&power_block);
	unregister_reboot_notifier(&reboot_block);
}
