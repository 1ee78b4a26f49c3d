// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/verdigris-raw: hypercalls as root likes them.
 *
 * Whoever can make raw hypercalls can give away any page of the host's, so it
 * is as mighty as writing to /dev/mem, and it is refused where that is:
 * without CAP_SYS_RAWIO, and under lockdown, whose LSM hook is asked with the
 * reason that /dev/mem has.  Both are asked at every open: lockdown may begin
 * after the module was loaded.
 *
 * A file owns the VMs that were created and the pages that were allocated
 * through it, and they go with it, however its process ends.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/irqflags.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "firmware.h"
#include "kvm.h"
#include "lifecycle.h"
#include "raw.h"

static_assert(sizeof(struct verdigris_raw_call) == sizeof(struct arm_smccc_1_2_regs));

static bool raw_abandon;
module_param(raw_abandon, bool, 0644);
MODULE_PARM_DESC(raw_abandon,
		 "For tests: leave VMs and pages of closed files, as a driver that died would (default off)");

static int raw_open(struct inode *inode, struct file *filp)
{
	struct raw_file *file;
	int ret;

	if (!capable(CAP_SYS_RAWIO))
		return -EPERM;
	ret = security_locked_down(LOCKDOWN_DEV_MEM);
	if (ret)
		return ret;
	file = kzalloc(sizeof(*file), GFP_KERNEL);
	if (!file)
		return -ENOMEM;
	mutex_init(&file->lock);
	raw_pages_init(file);
	filp->private_data = file;
	return 0;
}

/* The VMs go first: they use the pages. */
static int raw_release(struct inode *inode, struct file *filp)
{
	struct raw_file *file = filp->private_data;

	raw_vms_release(file, raw_abandon);
	raw_pages_release(file, raw_abandon);
	mutex_destroy(&file->lock);
	kfree(file);
	return 0;
}

/*
 * A run is entered as kvm_run.c does it: its time is the guest's, and RCU waits for no
 * CPU in a guest.  It looks for no work of Linux's first, since the interrupt that
 * brings some ends the run, and the call is back in user space then.
 */
static void raw_call(const struct arm_smccc_1_2_regs *args, struct arm_smccc_1_2_regs *res)
{
	if ((lower_32_bits(args->a0) & ~VERDIGRIS_CALL_HINTS) != VERDIGRIS_VCPU_RUN) {
		arm_smccc_1_2_hvc(args, res);
		return;
	}
	local_irq_disable();
	vg_enter(args, res);
	local_irq_enable();
}

static long raw_ioctl_call(struct raw_file *file, void __user *user)
{
	struct arm_smccc_1_2_regs args, res;
	int ret;

	if (vg_life_is_over())
		return -ENODEV;
	if (copy_from_user(&args, user, sizeof(args)))
		return -EFAULT;
	if (raw_vms_concerned(args.a0)) {
		ret = vg_life_begin();
		if (ret)
			return ret;
		raw_vms_call(file, &args, &res);
		vg_life_begun();
	} else {
		raw_call(&args, &res);
	}
	return copy_to_user(user, &res, sizeof(res)) ? -EFAULT : 0;
}

static long raw_ioctl_alloc(struct raw_file *file, void __user *user)
{
	struct verdigris_raw_pages args;
	int ret;

	if (copy_from_user(&args, user, sizeof(args)))
		return -EFAULT;
	ret = raw_pages_alloc(file, &args);
	if (ret)
		return ret;
	if (!copy_to_user(user, &args, sizeof(args)))
		return 0;
	raw_pages_free(file, args.id);
	return -EFAULT;
}

static long raw_ioctl_free(struct raw_file *file, void __user *user)
{
	u64 id;

	if (copy_from_user(&id, user, sizeof(id)))
		return -EFAULT;
	return raw_pages_free(file, id);
}

static long raw_ioctl_touch(struct raw_file *file, void __user *user)
{
	struct verdigris_raw_touch args;
	int ret;

	if (copy_from_user(&args, user, sizeof(args)))
		return -EFAULT;
	ret = raw_pages_touch(file, &args);
	if (ret)
		return ret;
	return copy_to_user(user, &args, sizeof(args)) ? -EFAULT : 0;
}

static long raw_ioctl_snapshot(void __user *user)
{
	struct verdigris_raw_snapshot *snapshot;
	long ret;

	snapshot = kzalloc(sizeof(*snapshot), GFP_KERNEL);
	if (!snapshot)
		return -ENOMEM;
	raw_snapshot(snapshot);
	ret = copy_to_user(user, snapshot, sizeof(*snapshot)) ? -EFAULT : 0;
	kfree(snapshot);
	return ret;
}

static long raw_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	struct raw_file *file = filp->private_data;
	void __user *user = (void __user *)argument;

	switch (command) {
	case VERDIGRIS_RAW_CALL:
		return raw_ioctl_call(file, user);
	case VERDIGRIS_RAW_PAGES_ALLOC:
		return raw_ioctl_alloc(file, user);
	case VERDIGRIS_RAW_PAGES_FREE:
		return raw_ioctl_free(file, user);
	case VERDIGRIS_RAW_TOUCH:
		return raw_ioctl_touch(file, user);
	case VERDIGRIS_RAW_SNAPSHOT:
		return raw_ioctl_snapshot(user);
	default:
		return -ENOTTY;
	}
}

static int raw_mmap(struct file *filp, struct vm_area_struct *vma)
{
	return raw_pages_mmap(filp->private_data, vma);
}

static const struct file_operations raw_fops = {
	.owner = THIS_MODULE,
	.open = raw_open,
	.release = raw_release,
	.unlocked_ioctl = raw_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = raw_mmap,
	.llseek = noop_llseek,
};

static struct miscdevice raw_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "verdigris-raw",
	.fops = &raw_fops,
	.mode = 0600,
};

/**
 * raw_register() - offers the device
 *
 * Return: 0 or an error; under lockdown that of the LSM.
 */
int raw_register(void)
{
	int ret;

	ret = security_locked_down(LOCKDOWN_DEV_MEM);
	if (ret) {
		pr_err("raw=1 is refused: the kernel is locked down\n");
		return ret;
	}
	ret = misc_register(&raw_device);
	if (ret)
		return ret;
	pr_info("raw hypercalls are open to root\n");
	return 0;
}

/**
 * raw_unregister() - takes the device away
 *
 * No file is open any more: each holds a reference to the module.
 */
void raw_unregister(void)
{
	misc_deregister(&raw_device);
}
