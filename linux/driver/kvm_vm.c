// SPDX-License-Identifier: GPL-2.0
/*
 * The life of a VM, and its file.
 *
 * A VM lives as long as one of its files: its own, those of its vCPUs, those
 * of its statistics.  Files may be passed, forked and closed in any order, and
 * a process may be killed at any moment; whoever puts the last reference ends
 * the VM, in this order: no more notifiers, so nobody else makes calls on it;
 * then the firmware forgets it and gives its memory back; then that is freed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "calls.h"
#include "kvm.h"
#include "lifecycle.h"

/* Address bits of a VM whose type doesn't say. */
#define DEFAULT_IPA_BITS 40
/* Pages for tables that a VM starts with: enough for a small guest. */
#define FIRST_TABLE_PAGES 8
/* Bits of CREATE_VM's argument that say the size of the address space. */
#define TYPE_IPA_MASK 0xffUL

static atomic_t live_vms;

/**
 * vg_vms_live() - tells how many VMs there are
 *
 * Return: the number.
 */
int vg_vms_live(void)
{
	return atomic_read(&live_vms);
}

/**
 * vg_vm_bug() - ends what a VM may do, because the firmware refused what it must not
 * @vm: the VM
 * @what: the call
 * @status: its answer
 */
void vg_vm_bug(struct vg_vm *vm, const char *what, long status)
{
	/* Of a VM that was ended with all others nothing else is to be expected. */
	if (!vg_life_is_over())
		WARN_ONCE(1, "verdigris: %s of VM %llu answered %ld\n", what, vm->handle, status);
	vg_vm_end_runs(vm);
}

/**
 * vg_vm_end_runs() - ends all runs of a VM for good
 * @vm: the VM
 *
 * Its ioctls answer -EIO from now on, and no vCPU is inside the guest.
 */
void vg_vm_end_runs(struct vg_vm *vm)
{
	WRITE_ONCE(vm->is_bugged, true);
	vg_vcpu_kick_all(vm);
}

/**
 * vg_vm_get() - takes a reference
 * @vm: of a VM that the caller has one of
 */
void vg_vm_get(struct vg_vm *vm)
{
	kref_get(&vm->users);
}

static void end_in_firmware(struct vg_vm *vm)
{
	int ret = vm->handle ? verdigris_vm_destroy(vm->handle) : 0;

	if (ret)
		pr_warn("VM %llu can't be ended (error %d)\n", vm->handle, ret);
}

static void vm_free(struct vg_vm *vm)
{
	cleanup_srcu_struct(&vm->srcu);
	free_page((unsigned long)vm->coalesced);
	mmdrop(vm->mm);
	mutex_destroy(&vm->lock);
	mutex_destroy(&vm->slots_lock);
	kmem_cache_free(vg_vm_cache, vm);
	atomic_dec(&live_vms);
}

static void vm_end(struct kref *users)
{
	struct vg_vm *vm = container_of(users, struct vg_vm, users);

	vg_vm_stats_hide(vm);
	vg_life_remove(vm);
	vg_notifier_unregister(vm);
	vg_age_stop(vm);
	end_in_firmware(vm);
	vg_pages_release(vm);
	vg_slots_free(vm);
	vg_vcpus_free(vm);
	vm_free(vm);
}

/**
 * vg_vm_put() - gives a reference back, and ends the VM with the last
 * @vm: the VM
 */
void vg_vm_put(struct vg_vm *vm)
{
	kref_put(&vm->users, vm_end);
}

static void ask_features(struct arm_smccc_1_2_regs *res)
{
	struct arm_smccc_1_2_regs args = { .a0 = VERDIGRIS_FEATURES };

	arm_smccc_1_2_hvc(&args, res);
}

/**
 * vg_ipa_bits_limit() - tells how large the address space of a VM can be
 *
 * Return: the number of bits.
 */
unsigned int vg_ipa_bits_limit(void)
{
	struct arm_smccc_1_2_regs res;

	ask_features(&res);
	return res.a0 ? 0 : res.a3;
}

/**
 * vg_has_forced_write_back() - tells whether a guest reads through the caches with its MMU off
 *
 * Return: true if stage 2 sees to that.
 */
bool vg_has_forced_write_back(void)
{
	struct arm_smccc_1_2_regs res;

	ask_features(&res);
	return !res.a0 && res.a2 & VERDIGRIS_FEATURE_FORCED_WRITE_BACK;
}

static int ipa_bits_of(unsigned long type)
{
	unsigned int bits = type & TYPE_IPA_MASK;

	if (type & ~TYPE_IPA_MASK)
		return -EINVAL;
	if (!bits)
		bits = DEFAULT_IPA_BITS;
	else if (bits < 32)
		return -EINVAL;
	return bits <= vg_ipa_bits_limit() ? bits : -EINVAL;
}

/* Makes the VM known to the firmware. */
static int begin_in_firmware(struct vg_vm *vm)
{
	phys_addr_t region;
	u64 order, unused;
	long status;

	if (vg_call_layout(vm->ipa_bits, &order, &unused))
		return -EIO;
	region = vg_pages_region(vm, order);
	if (!region)
		return -ENOMEM;
	status = vg_call_give(VERDIGRIS_VM_CREATE, vm->ipa_bits, region, 0, &vm->handle);
	if (status) {
		vm->handle = 0;
		return status == VERDIGRIS_LIMIT ? -ENOSPC : -EIO;
	}
	return vg_pages_donate(vm, FIRST_TABLE_PAGES);
}

static void vm_init(struct vg_vm *vm, unsigned int ipa_bits)
{
	kref_init(&vm->users);
	vm->ipa_bits = ipa_bits;
	vm->mm = current->mm;
	mmgrab(vm->mm);
	mutex_init(&vm->lock);
	mutex_init(&vm->slots_lock);
	vg_slots_init(vm);
	vg_invalidations_init(&vm->invalidations);
	vg_pages_init(&vm->pages);
	vg_age_init(vm);
	vg_count_init(vm);
	vg_life_add(vm);
	snprintf(vm->stats_id, sizeof(vm->stats_id), "kvm-%d", task_pid_nr(current));
	atomic_inc(&live_vms);
}

static struct vg_vm *vm_new(unsigned int ipa_bits)
{
	struct vg_vm *vm = kmem_cache_zalloc(vg_vm_cache, GFP_KERNEL_ACCOUNT);
	int ret;

	if (!vm)
		return ERR_PTR(-ENOMEM);
	vm->coalesced = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	ret = vm->coalesced ? init_srcu_struct(&vm->srcu) : -ENOMEM;
	if (ret) {
		free_page((unsigned long)vm->coalesced);
		kmem_cache_free(vg_vm_cache, vm);
		return ERR_PTR(ret);
	}
	vm_init(vm, ipa_bits);
	ret = begin_in_firmware(vm);
	if (!ret)
		ret = vg_notifier_register(vm);
	if (!ret)
		return vm;
	vg_vm_put(vm);
	return ERR_PTR(ret);
}

static int vm_release(struct inode *inode, struct file *filp)
{
	vg_vm_put(filp->private_data);
	return 0;
}

static long ioctl_set_region(struct vg_vm *vm, unsigned int command, void __user *user)
{
	const u32 first_flags = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY;
	struct kvm_userspace_memory_region2 region = {};
	bool is_first = command == KVM_SET_USER_MEMORY_REGION;
	size_t size = is_first ? sizeof(struct kvm_userspace_memory_region) : sizeof(region);

	/* The older structure is the beginning of the newer. */
	if (copy_from_user(&region, user, size))
		return -EFAULT;
	if (is_first && region.flags & ~first_flags)
		return -EINVAL;
	return vg_slots_set(vm, &region);
}

static long ioctl_dirty_get(struct vg_vm *vm, void __user *user)
{
	struct kvm_dirty_log log;

	if (copy_from_user(&log, user, sizeof(log)))
		return -EFAULT;
	return vg_dirty_get(vm, &log);
}

static long ioctl_dirty_clear(struct vg_vm *vm, void __user *user)
{
	struct kvm_clear_dirty_log log;

	if (copy_from_user(&log, user, sizeof(log)))
		return -EFAULT;
	return vg_dirty_clear(vm, &log);
}

static long ioctl_enable_cap(struct vg_vm *vm, void __user *user)
{
	struct kvm_enable_cap cap;

	if (copy_from_user(&cap, user, sizeof(cap)))
		return -EFAULT;
	return vg_cap_enable(vm, &cap);
}

static long ioctl_preferred_target(void __user *user)
{
	struct kvm_vcpu_init init = { .target = KVM_ARM_TARGET_GENERIC_V8 };

	return copy_to_user(user, &init, sizeof(init)) ? -EFAULT : 0;
}

/*
 * What KVM has and this driver does not yet is refused as a KVM refuses it that
 * was built without, or runs on a machine without.
 */
static long ioctl_absent(unsigned int command)
{
	switch (command) {
	case KVM_CREATE_IRQCHIP:
	case KVM_ARM_SET_DEVICE_ADDR:
	case KVM_SET_DEVICE_ATTR:
	case KVM_HAS_DEVICE_ATTR:
		return -ENXIO;
	case KVM_CREATE_DEVICE:
		return -ENODEV;
	default:
		return -EINVAL;
	}
}

static long vm_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	struct vg_vm *vm = filp->private_data;
	void __user *user = (void __user *)argument;

	if (vm->mm != current->mm || READ_ONCE(vm->is_bugged))
		return -EIO;
	switch (command) {
	case KVM_CREATE_VCPU:
		return vg_vcpu_create(vm, argument);
	case KVM_SET_USER_MEMORY_REGION:
	case KVM_SET_USER_MEMORY_REGION2:
		return ioctl_set_region(vm, command, user);
	case KVM_GET_DIRTY_LOG:
		return ioctl_dirty_get(vm, user);
	case KVM_CLEAR_DIRTY_LOG:
		return ioctl_dirty_clear(vm, user);
	case KVM_ENABLE_CAP:
		return ioctl_enable_cap(vm, user);
	case KVM_CHECK_EXTENSION:
		return vg_cap_check(vm, argument);
	case KVM_GET_STATS_FD:
		return vg_vm_stats_fd(vm);
	case KVM_ARM_PREFERRED_TARGET:
		return ioctl_preferred_target(user);
	default:
		return ioctl_absent(command);
	}
}

static const struct file_operations vm_fops = {
	.owner = THIS_MODULE,
	.release = vm_release,
	.unlocked_ioctl = vm_ioctl,
	.compat_ioctl = vg_no_compat_ioctl,
	.llseek = noop_llseek,
};

/**
 * vg_vm_create() - creates a VM, as KVM_CREATE_VM does
 * @type: its argument
 *
 * Return: a file descriptor, or an error.
 */
int vg_vm_create(unsigned long type)
{
	int ipa_bits = ipa_bits_of(type);
	struct vg_vm *vm;
	int ret, fd;

	if (ipa_bits < 0)
		return ipa_bits;
	ret = vg_life_begin();
	if (ret)
		return ret;
	vm = vm_new(ipa_bits);
	vg_life_begun();
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	vg_vm_stats_show(vm);
	fd = anon_inode_getfd("kvm-vm", &vm_fops, vm, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		vg_vm_put(vm);
	return fd;
}
