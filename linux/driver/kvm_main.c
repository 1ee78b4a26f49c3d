// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/kvm, and what its file answers.
 *
 * The kernel's own KVM takes that name where it runs at EL2.  Under the
 * firmware it doesn't, and says so at boot; then the name is free.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/compat.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "kvm.h"

/* The page of struct kvm_run, and the one that coalesced MMIO will have. */
#define VCPU_MMAP_BYTES (2 * PAGE_SIZE)

struct kmem_cache *vg_vm_cache;
struct kmem_cache *vg_vcpu_cache;
struct kmem_cache *vg_slot_cache;

struct dentry *vg_debug_folder;

static int kvm_open(struct inode *inode, struct file *filp)
{
	return is_compat_task() ? -ENODEV : 0;
}

static long kvm_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	switch (command) {
	case KVM_GET_API_VERSION:
		return argument ? -EINVAL : KVM_API_VERSION;
	case KVM_CREATE_VM:
		return vg_vm_create(argument);
	case KVM_CHECK_EXTENSION:
		return vg_cap_check(NULL, argument);
	case KVM_GET_VCPU_MMAP_SIZE:
		return argument ? -EINVAL : VCPU_MMAP_BYTES;
	default:
		return -EINVAL;
	}
}

/**
 * vg_no_compat_ioctl() - refuses programs of 32 bits, as KVM does on arm64
 * @filp: any file of this driver's KVM
 * @command: ignored
 * @argument: ignored
 *
 * Return: -EINVAL.
 */
long vg_no_compat_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	return -EINVAL;
}

static const struct file_operations kvm_fops = {
	.owner = THIS_MODULE,
	.open = kvm_open,
	.unlocked_ioctl = kvm_ioctl,
	.compat_ioctl = vg_no_compat_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice kvm_device = {
	.minor = KVM_MINOR,
	.name = "kvm",
	.fops = &kvm_fops,
};

static int vms_get(void *unused, u64 *value)
{
	*value = vg_vms_live();
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(vms_fops, vms_get, NULL, "%llu\n");

static int donated_get(void *unused, u64 *value)
{
	*value = vg_pages_donated();
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(donated_fops, donated_get, NULL, "%llu\n");

static int shares_get(void *unused, u64 *value)
{
	*value = vg_pages_shares();
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(shares_fops, shares_get, NULL, "%llu\n");

static void caches_destroy(void)
{
	kmem_cache_destroy(vg_slot_cache);
	kmem_cache_destroy(vg_vcpu_cache);
	kmem_cache_destroy(vg_vm_cache);
}

static int caches_create(void)
{
	vg_vm_cache = KMEM_CACHE(vg_vm, SLAB_ACCOUNT | SLAB_NO_MERGE);
	vg_vcpu_cache = KMEM_CACHE(vg_vcpu, SLAB_ACCOUNT | SLAB_NO_MERGE);
	vg_slot_cache = KMEM_CACHE(vg_slot, SLAB_ACCOUNT | SLAB_NO_MERGE);
	if (vg_vm_cache && vg_vcpu_cache && vg_slot_cache)
		return 0;
	caches_destroy();
	return -ENOMEM;
}

/**
 * vg_kvm_register() - offers /dev/kvm
 *
 * Return: 0, or an error after having told the reason.
 */
int vg_kvm_register(void)
{
	int ret = caches_create();

	if (ret) {
		pr_err("no memory for the caches of /dev/kvm\n");
		return ret;
	}
	ret = misc_register(&kvm_device);
	if (ret) {
		caches_destroy();
		pr_err("/dev/kvm can't be offered (error %d)%s\n", ret,
		       ret == -EBUSY ? ": somebody else has it" : "");
		return ret;
	}
	vg_debug_folder = debugfs_create_dir("verdigris", NULL);
	debugfs_create_file_unsafe("vms", 0444, vg_debug_folder, NULL, &vms_fops);
	debugfs_create_file_unsafe("donated_pages", 0444, vg_debug_folder, NULL, &donated_fops);
	debugfs_create_file_unsafe("shares", 0400, vg_debug_folder, NULL, &shares_fops);
	pr_info("/dev/kvm is offered\n");
	return 0;
}

/**
 * vg_kvm_unregister() - takes /dev/kvm away
 *
 * No file is open any more, and no VM is left: each has a reference to the
 * module.
 */
void vg_kvm_unregister(void)
{
	debugfs_remove(vg_debug_folder);
	misc_deregister(&kvm_device);
	caches_destroy();
}
