// SPDX-License-Identifier: GPL-2.0
/*
 * Registers that KVM offers, and that nothing of a guest's rests on here.
 *
 * User space restores what it saved, all of it, and a VM may come from Linux's KVM.
 * So whatever that lists has to be accepted, also where no guest can reach it: the
 * firmware has no such register, and the driver keeps what it is given.  Where a
 * CPU does have the register, the firmware's comes first.
 *
 * The others describe what a hypervisor offers to guests that ask for it by SMCCC:
 * mitigations and services.  None is offered, so these are zero and stay so.
 */
#include <linux/errno.h>
#include <linux/kernel.h>

#include <asm/sysreg.h>

#include "kvm.h"

/* Four registers for each of 16 breakpoints and watchpoints. */
#define DEBUG_FIRST_OP2 4

static const u64 others[] = {
	ARM64_SYS_REG(2, 4, 0, 7, 0),	/* DBGVCR32_EL2 */
	ARM64_SYS_REG(3, 4, 3, 0, 0),	/* DACR32_EL2 */
	ARM64_SYS_REG(3, 4, 5, 0, 1),	/* IFSR32_EL2 */
	ARM64_SYS_REG(3, 4, 5, 3, 0),	/* FPEXC32_EL2 */
	ARM64_SYS_REG(3, 3, 14, 0, 1),	/* CNTPCT_EL0 */
	ARM64_SYS_REG(3, 3, 14, 2, 1),	/* CNTP_CTL_EL0 */
	ARM64_SYS_REG(3, 3, 14, 2, 2),	/* CNTP_CVAL_EL0 */
	ARM64_SYS_REG(3, 0, 12, 1, 1),	/* DISR_EL1 */
};
static_assert(VG_KEPT_DEBUG + ARRAY_SIZE(others) == VG_KEPT);

/**
 * vg_kept_id() - names a register that is kept
 * @index: which, below VG_KEPT
 *
 * Return: KVM's number of it.
 */
u64 vg_kept_id(unsigned int index)
{
	if (index < VG_KEPT_DEBUG)
		return ARM64_SYS_REG(2, 0, 0, index / 4, DEBUG_FIRST_OP2 + index % 4);
	return others[index - VG_KEPT_DEBUG];
}

/**
 * vg_kept_find() - finds where a register is kept
 * @vcpu: the vCPU
 * @id: KVM's number
 *
 * Return: the place, or NULL.
 */
u64 *vg_kept_find(struct vg_vcpu *vcpu, u64 id)
{
	unsigned int index;

	for (index = 0; index < VG_KEPT; index++)
		if (vg_kept_id(index) == id)
			return &vcpu->kept[index];
	return NULL;
}

static const u64 zeros[] = {
	KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1, /* "not available" */
	KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2,
	KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3,
	KVM_REG_ARM_STD_BMAP,
	KVM_REG_ARM_STD_HYP_BMAP,
	KVM_REG_ARM_VENDOR_HYP_BMAP,
};

/**
 * vg_zero_id() - names a register of what isn't offered
 * @index: which
 *
 * Return: KVM's number of it, or 0 after the last.
 */
u64 vg_zero_id(unsigned int index)
{
	return index < ARRAY_SIZE(zeros) ? zeros[index] : 0;
}

/**
 * vg_is_zero_id() - tells whether a register is of what isn't offered
 * @id: KVM's number
 *
 * Return: true if it is, and so takes nothing but zero.
 */
bool vg_is_zero_id(u64 id)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(zeros); i++)
		if (zeros[i] == id)
			return true;
	return false;
}
