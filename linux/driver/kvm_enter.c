// SPDX-License-Identifier: GPL-2.0
/*
 * The way into the guest and back, as Linux wants it from a hypervisor.
 *
 * A CPU in a guest is to RCU what one in user space is: an extended quiescent state
 * where context tracking is on (nohz_full), and else a context switch, noted at
 * each entry.  Without that, grace periods wait until RCU forces the vCPU's thread
 * to be scheduled, and those of RCU-tasks (removal of ftrace hooks, kprobes, BPF
 * trampolines) may wait for as long as the guest spins.
 *
 * The order is that of kvm_arch_vcpu_ioctl_run(): time, state, guest, state,
 * interrupts, time.  Between the two changes of state RCU may not be watching, so
 * nothing there may be traced or probed: hence noinstr.
 *
 * The functions are inlines of linux/kvm_host.h, which arm64 includes whether KVM
 * is built or not; nothing else of that header is used.
 */
#include <linux/kvm_host.h>

#include <asm/arch_gicv3.h>
#include <asm/cpufeature.h>
#include <asm/daifflags.h>

#include "calls.h"
#include "kvm.h"

/*
 * With priority masking, interrupts are off by the priority mask, which would
 * also keep them from ending the guest's run: then it is opened, behind DAIF.
 */
static __always_inline void hvc_with_interrupts_seen(const struct arm_smccc_1_2_regs *args,
						     struct arm_smccc_1_2_regs *res)
{
	if (!system_uses_irq_prio_masking()) {
		arm_smccc_1_2_hvc(args, res);
		return;
	}
	local_daif_mask();
	gic_write_pmr(GIC_PRIO_IRQON | GIC_PRIO_PSR_I_SET);
	pmr_sync();
	arm_smccc_1_2_hvc(args, res);
	local_daif_restore(DAIF_PROCCTX_NOIRQ);
}

static noinstr void enter_and_leave(const struct arm_smccc_1_2_regs *args,
				    struct arm_smccc_1_2_regs *res)
{
	guest_state_enter_irqoff();
	hvc_with_interrupts_seen(args, res);
	guest_state_exit_irqoff();
}

/*
 * The host's interrupt that ended the run is taken before the time is no
 * longer the guest's: a tick belongs to whom it interrupted.
 */
static void take_interrupts(void)
{
	local_irq_enable();
	isb();
	local_irq_disable();
}

/**
 * vg_enter() - runs a guest until it leaves
 * @args: the registers of VCPU_RUN
 * @res: receives those of the answer
 *
 * Called with interrupts off, which are on for a moment at the end.
 */
void vg_enter(const struct arm_smccc_1_2_regs *args, struct arm_smccc_1_2_regs *res)
{
	guest_timing_enter_irqoff();
	enter_and_leave(args, res);
	take_interrupts();
	guest_timing_exit_irqoff();
}
