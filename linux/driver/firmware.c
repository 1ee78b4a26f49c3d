// SPDX-License-Identifier: GPL-2.0
/*
 * Finds the firmware and makes the calls that the driver itself needs.
 *
 * An HVC where nothing listens at EL2 is undefined, and no handler can mend
 * that.  So the question "who is there?" goes by the conduit that the kernel
 * learned from the device tree and from PSCI: under the firmware that is SMC,
 * which the firmware traps; without it, it is none at all, or one that answers
 * with somebody else's UID.  Only then is HVC known to work.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/printk.h>
#include <linux/sched.h>

#include <asm/sysreg.h>
#include <asm/virt.h>

#include "firmware.h"

/* How long to wait for vCPUs to stop elsewhere, in ms. */
#define BUSY_PATIENCE_MS 1000

static bool is_our_uid(const struct arm_smccc_res *res)
{
	return lower_32_bits(res->a0) == VERDIGRIS_UID_0 &&
	       lower_32_bits(res->a1) == VERDIGRIS_UID_1 &&
	       lower_32_bits(res->a2) == VERDIGRIS_UID_2 &&
	       lower_32_bits(res->a3) == VERDIGRIS_UID_3;
}

/* Tells what may be wrong, as far as EL1 can see it. */
static void explain_absence(void)
{
	u64 pfr0 = read_sysreg_s(SYS_ID_AA64PFR0_EL1);

	if (pfr0 & ID_AA64PFR0_EL1_EL2_MASK)
		pr_err("the CPU has an EL2: perhaps this kernel itself started there. Boot the firmware first\n");
	else
		pr_err("this machine shows no EL2 to the kernel\n");
}

static int check_uid(void)
{
	struct arm_smccc_res res;

	if (arm_smccc_1_1_get_conduit() == SMCCC_CONDUIT_NONE) {
		pr_err("no Verdigris firmware: nothing answers SMC or HVC calls\n");
		explain_absence();
		return -ENODEV;
	}
	arm_smccc_1_1_invoke(VERDIGRIS_UID, &res);
	if (is_our_uid(&res))
		return 0;
	if (lower_32_bits(res.a0) == (u32)SMCCC_RET_NOT_SUPPORTED) {
		pr_err("no Verdigris firmware: what answers calls is no hypervisor\n");
		explain_absence();
	} else {
		pr_err("no Verdigris firmware: another hypervisor answers, UID %08x %08x %08x %08x\n",
		       lower_32_bits(res.a0), lower_32_bits(res.a1),
		       lower_32_bits(res.a2), lower_32_bits(res.a3));
	}
	return -ENODEV;
}

static int check_revision(void)
{
	struct arm_smccc_res res;

	arm_smccc_1_1_hvc(VERDIGRIS_REVISION, &res);
	if (res.a0 == VERDIGRIS_VERSION_MAJOR && res.a1 >= VERDIGRIS_VERSION_MINOR) {
		pr_info("firmware found, interface %lu.%lu\n", res.a0, res.a1);
		return 0;
	}
	pr_err("the firmware speaks version %lu.%lu of the interface, this driver needs %d.%d or later of %d\n",
	       res.a0, res.a1, VERDIGRIS_VERSION_MAJOR, VERDIGRIS_VERSION_MINOR,
	       VERDIGRIS_VERSION_MAJOR);
	return -EPROTONOSUPPORT;
}

/**
 * verdigris_find_firmware() - makes sure that the firmware is there
 *
 * Return: 0, or an error after having told the reason.
 */
int verdigris_find_firmware(void)
{
	int ret;

	if (is_kernel_in_hyp_mode()) {
		pr_err("this kernel runs at EL2 itself, where the firmware should be. Boot the firmware first\n");
		return -ENODEV;
	}
	ret = check_uid();
	if (ret)
		return ret;
	return check_revision();
}

/*
 * Repeats a resumable call that returns in x1 what is left to do.  Waits for a
 * while where a vCPU has yet to stop.
 */
static long call_until_done(unsigned long function, u64 argument)
{
	struct arm_smccc_1_2_regs args = { .a0 = function, .a1 = argument };
	struct arm_smccc_1_2_regs res;
	unsigned int waited_ms = 0;

	for (;;) {
		arm_smccc_1_2_hvc(&args, &res);
		if (!res.a0 && !res.a1)
			return 0;
		if (!res.a0) {
			cond_resched();
			continue;
		}
		if ((long)res.a0 != VERDIGRIS_BUSY || waited_ms >= BUSY_PATIENCE_MS)
			return (long)res.a0;
		msleep(20);
		waited_ms += 20;
	}
}

/**
 * verdigris_host_reset() - ends what a former driver or kernel left
 *
 * Return: 0, or an error after having told the reason.
 */
int verdigris_host_reset(void)
{
	long status = call_until_done(VERDIGRIS_HOST_RESET, 0);

	if (!status)
		return 0;
	pr_err("the firmware can't end what a former driver left: status %ld\n", status);
	return status == VERDIGRIS_BUSY ? -EBUSY : -EIO;
}

/**
 * verdigris_vm_destroy() - ends a VM and takes its memory back
 * @vm: its handle
 *
 * Return: 0, also if there is no such VM; else an error.
 */
int verdigris_vm_destroy(u64 vm)
{
	long status = call_until_done(VERDIGRIS_VM_DESTROY, vm);

	if (!status || status == VERDIGRIS_NO_ENTRY)
		return 0;
	return status == VERDIGRIS_BUSY ? -EBUSY : -EIO;
}

/**
 * verdigris_page_shares() - tells how many leaves of VMs refer to a page
 * @pa: its address
 *
 * Return: the share count, those of blocks around the page included.
 */
unsigned long verdigris_page_shares(phys_addr_t pa)
{
	struct arm_smccc_1_2_regs args = { .a0 = VERDIGRIS_PAGE_STATE, .a1 = pa };
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	return res.a0 ? 0 : res.a2;
}

/**
 * verdigris_page_is_foreign() - tells whether a page is memory to the firmware
 * @pa: its address
 *
 * Return: true for what has no owner: memory that the kernel got after boot.
 * Every doubt is a false.
 */
bool verdigris_page_is_foreign(phys_addr_t pa)
{
	struct arm_smccc_1_2_regs args = { .a0 = VERDIGRIS_PAGE_STATE, .a1 = pa };
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	return !res.a0 && res.a1 == VERDIGRIS_OWNER_NONE;
}

/**
 * verdigris_page_is_free() - tells whether only the host uses a page
 * @pa: its address
 *
 * Return: true if the host owns it and no VM maps it.  Every doubt is a false.
 */
bool verdigris_page_is_free(phys_addr_t pa)
{
	struct arm_smccc_1_2_regs args = { .a0 = VERDIGRIS_PAGE_STATE, .a1 = pa };
	struct arm_smccc_1_2_regs res;

	arm_smccc_1_2_hvc(&args, &res);
	return !res.a0 && res.a1 == VERDIGRIS_OWNER_HOST && !res.a2;
}
