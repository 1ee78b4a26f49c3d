// SPDX-License-Identifier: GPL-2.0
/*
 * What KVM_CHECK_EXTENSION answers: 0 for all that is not in the table.
 *
 * An answer is a promise, so a line is added with the code that keeps it.
 */
#include <linux/cpumask.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/kvm.h>

#include "kvm.h"

struct cap {
	u32 number;
	int value;
};

static const struct cap caps[] = {
	/* Memory. */
	{ KVM_CAP_USER_MEMORY, 1 },
	{ KVM_CAP_USER_MEMORY2, 1 },
	{ KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1 },
	{ KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1 },
	{ KVM_CAP_NR_MEMSLOTS, VG_MAX_SLOTS },
	{ KVM_CAP_SYNC_MMU, 1 },
	{ KVM_CAP_READONLY_MEM, 1 },
	{ KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
	  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET },
	{ KVM_CAP_MEMORY_FAULT_INFO, 1 },
	{ KVM_CAP_ARM_NISV_TO_USER, 1 },
	/* vCPUs. */
	{ KVM_CAP_MAX_VCPUS, VERDIGRIS_MAX_VCPUS },
	{ KVM_CAP_MAX_VCPU_ID, VERDIGRIS_MAX_VCPUS },
	{ KVM_CAP_ONE_REG, 1 },
	{ KVM_CAP_MP_STATE, 1 },
	{ KVM_CAP_IMMEDIATE_EXIT, 1 },
	{ KVM_CAP_INTERNAL_ERROR_DATA, 1 },
	{ KVM_CAP_SYSTEM_EVENT_DATA, 1 },
	/* Of PSCI there are SYSTEM_OFF and SYSTEM_RESET, which are in 0.2 and later only. */
	{ KVM_CAP_ARM_PSCI_0_2, 1 },
	/* The interface itself. */
	{ KVM_CAP_CHECK_EXTENSION_VM, 1 },
	{ KVM_CAP_ENABLE_CAP_VM, 1 },
	{ KVM_CAP_BINARY_STATS_FD, 1 },
};

/**
 * vg_cap_check() - answers KVM_CHECK_EXTENSION
 * @vm: the VM whose file was asked, or NULL; it makes no difference yet
 * @cap: KVM_CAP_*
 *
 * Return: 0 for what there is not; else what the capability's description says.
 */
int vg_cap_check(const struct vg_vm *vm, long cap)
{
	unsigned int i;

	switch (cap) {
	case KVM_CAP_ARM_VM_IPA_SIZE:
		return vg_ipa_bits_limit();
	case KVM_CAP_NR_VCPUS:
		return min(num_online_cpus(), VERDIGRIS_MAX_VCPUS);
	case KVM_CAP_ARM_PTRAUTH_ADDRESS:
	case KVM_CAP_ARM_PTRAUTH_GENERIC:
		return vg_has_ptrauth();
	}
	for (i = 0; i < ARRAY_SIZE(caps); i++) {
		if (caps[i].number == cap)
			return caps[i].value;
	}
	return 0;
}

/*
 * Only who clears the log by hand can ask for it to begin full.  Who makes a log looks
 * twice, under the lock, and must find the same.
 */
static int enable_manual_dirty(struct vg_vm *vm, const struct kvm_enable_cap *cap)
{
	u64 allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;

	if (cap->args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
		allowed |= KVM_DIRTY_LOG_INITIALLY_SET;
	if (cap->args[0] & ~allowed)
		return -EINVAL;
	if (mutex_lock_killable(&vm->slots_lock))
		return -EINTR;
	vm->manual_dirty = cap->args[0];
	mutex_unlock(&vm->slots_lock);
	return 0;
}

/**
 * vg_cap_enable() - answers KVM_ENABLE_CAP
 * @vm: the VM
 * @cap: what user space wants
 *
 * Return: 0, -EINVAL, or -EINTR after a fatal signal.
 */
int vg_cap_enable(struct vg_vm *vm, const struct kvm_enable_cap *cap)
{
	if (cap->flags)
		return -EINVAL;
	switch (cap->cap) {
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		return enable_manual_dirty(vm, cap);
	case KVM_CAP_ARM_NISV_TO_USER:
		WRITE_ONCE(vm->nisv_to_user, true);
		return 0;
	default:
		return -EINVAL;
	}
}
