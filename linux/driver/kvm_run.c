// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_RUN: enters the guest until user space is needed.
 *
 * With interrupts off the loop looks for everything that would keep it from
 * entering, and enters.  Whatever comes later comes with an interrupt, which
 * ends the run at once: so no signal, no kick and no need to reschedule is
 * ever slept through.
 *
 * An access that user space has emulated is completed by the firmware when the
 * guest goes on.  Where it doesn't go on, for a signal or immediate_exit, the
 * completion is done here, since KVM promises it: who saves the registers then
 * finds the guest behind the access.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kernel.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/version.h>

#include <uapi/linux/psci.h>

#include <asm/neon.h>
#include <asm/ptrace.h>
#include <asm/simd.h>

#include "calls.h"
#include "kvm.h"

#define BTYPE_MASK GENMASK(11, 10)

/* What a loop does after one step. */
enum step {
	GO_ON,
	LEAVE,	/* *ret says with what */
};

static bool is_load(const struct vg_fault *fault)
{
	return !(fault->flags & VERDIGRIS_FAULT_WRITE);
}

static unsigned int access_bytes(const struct vg_fault *fault)
{
	return 1U << (fault->access & VERDIGRIS_MMIO_SIZE_MASK);
}

/* Takes what user space has loaded, once. */
static void take_answer(struct vg_vcpu *vcpu)
{
	if (vcpu->answer != VG_ANSWER_MMIO || vcpu->has_value)
		return;
	vcpu->value = 0;
	if (is_load(&vcpu->fault))
		memcpy(&vcpu->value, vcpu->run->mmio.data, access_bytes(&vcpu->fault));
	vcpu->has_value = true;
}

/* Extends a value as the load says. */
static u64 loaded(const struct vg_fault *fault, u64 value)
{
	unsigned int unused = 64 - 8 * access_bytes(fault);

	if (fault->access & VERDIGRIS_MMIO_SIGN_EXTEND)
		value = (s64)(value << unused) >> unused;
	return fault->access & VERDIGRIS_MMIO_REG_64 ? value : lower_32_bits(value);
}

/*
 * Completes an access without running the guest.  In AArch32, which EL0 is not
 * offered, it stays open: the next run completes it.
 */
static void settle(struct vg_vcpu *vcpu)
{
	unsigned int n = vcpu->fault.access >> VERDIGRIS_MMIO_REG_SHIFT & 31;
	u64 vm = vcpu->vm->handle, pstate, pc;

	if (vcpu->answer != VG_ANSWER_MMIO || !vcpu->has_value)
		return;
	if (vg_call_get_reg(vm, vcpu->index, VERDIGRIS_REG_PSTATE, &pstate) ||
	    vg_call_get_reg(vm, vcpu->index, VERDIGRIS_REG_PC, &pc) ||
	    pstate & PSR_MODE32_BIT)
		return;
	if (is_load(&vcpu->fault) && n != 31)
		vg_call_set_reg(vm, vcpu->index, VERDIGRIS_REG_CORE + n,
				loaded(&vcpu->fault, vcpu->value));
	vg_call_set_reg(vm, vcpu->index, VERDIGRIS_REG_PSTATE,
			pstate & ~(u64)(BTYPE_MASK | DBG_SPSR_SS));
	vg_call_set_reg(vm, vcpu->index, VERDIGRIS_REG_PC, pc + 4);
	vcpu->answer = VG_ANSWER_NONE;
}

static u64 run_flags(const struct vg_vcpu *vcpu)
{
	switch (vcpu->answer) {
	case VG_ANSWER_MMIO:
		return VERDIGRIS_RUN_MMIO_DONE;
	case VG_ANSWER_ABORT:
		return VERDIGRIS_RUN_INJECT_ABORT;
	case VG_ANSWER_SKIP:
		return VERDIGRIS_RUN_SKIP;
	case VG_ANSWER_NONE:
		break;
	}
	return 0;
}

static bool is_stopped(const struct vg_vcpu *vcpu)
{
	return READ_ONCE(vcpu->mp_state) == KVM_MP_STATE_STOPPED;
}

/*
 * What Linux wants done before a guest is entered: XFER_TO_GUEST_MODE_WORK, which
 * kernels without KVM don't define.  Lazy rescheduling is younger than 6.12.
 */
#ifdef _TIF_NEED_RESCHED_LAZY
#define RESCHED_FLAGS (_TIF_NEED_RESCHED | _TIF_NEED_RESCHED_LAZY)
#else
#define RESCHED_FLAGS _TIF_NEED_RESCHED
#endif
#define WORK_FLAGS (RESCHED_FLAGS | _TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL | _TIF_NOTIFY_RESUME)

/* Something is to be done before the guest can be entered. */
static bool has_work(const struct vg_vcpu *vcpu)
{
	return read_thread_flags() & WORK_FLAGS || is_stopped(vcpu) ||
	       READ_ONCE(vcpu->vm->is_bugged);
}

/* Enters the guest, unless there is work; @res tells how it came out. */
static bool enter(struct vg_vcpu *vcpu, struct arm_smccc_1_2_regs *res)
{
	struct arm_smccc_1_2_regs args = {
		.a0 = VERDIGRIS_VCPU_RUN,
		.a1 = vcpu->vm->handle,
		.a2 = vcpu->index,
		.a3 = run_flags(vcpu),
		.a4 = vcpu->value,
	};
	bool entered = false;

	local_irq_disable();
	WRITE_ONCE(vcpu->cpu, smp_processor_id());
	/* Pairs with vg_vcpu_kick_all(): we see what it is about, or it sees our CPU. */
	smp_mb();
	if (!has_work(vcpu)) {
		vg_enter(&args, res);
		entered = true;
	}
	WRITE_ONCE(vcpu->cpu, -1);
	local_irq_enable();
	return entered;
}

static enum step leave(int *ret, int with)
{
	*ret = with;
	return LEAVE;
}

static enum step leave_by_signal(struct vg_vcpu *vcpu, int *ret)
{
	vcpu->stats.signal_exits++;
	vcpu->run->exit_reason = KVM_EXIT_INTR;
	return leave(ret, -EINTR);
}

/* Sleeps until a signal comes, or @vcpu is to look at itself again. */
static void sleep_while_stopped(struct vg_vcpu *vcpu)
{
	wait_event_interruptible(vcpu->wait,
				 !is_stopped(vcpu) || READ_ONCE(vcpu->vm->is_bugged));
}

/*
 * Does what kept the guest from being entered.  Not by xfer_to_guest_mode_handle_work():
 * before 6.18 that counts signals in a struct kvm_vcpu, which is Linux's KVM's own.
 *
 * Task work and the like is done on the way to user space only, and what does
 * it is not open to modules: so the call goes there and is restarted, which
 * nobody sees.  If the handler of a signal runs on the way, it is not restarted,
 * and was ended by that signal.
 *
 * cond_resched() would not do: it is empty where preemption is lazy.
 */
static enum step work(struct vg_vcpu *vcpu, int *ret)
{
	if (read_thread_flags() & RESCHED_FLAGS)
		schedule();
	if (READ_ONCE(vcpu->vm->is_bugged))
		return leave(ret, -EIO);
	if (signal_pending(current))
		return leave_by_signal(vcpu, ret);
	if (test_thread_flag(TIF_NOTIFY_RESUME)) {
		vcpu->run->exit_reason = KVM_EXIT_INTR;
		return leave(ret, -ERESTARTNOHAND);
	}
	if (is_stopped(vcpu))
		sleep_while_stopped(vcpu);
	return GO_ON;
}

static enum step exit_mmio(struct vg_vcpu *vcpu, int *ret)
{
	struct kvm_run *run = vcpu->run;
	const struct vg_fault *fault = &vcpu->fault;

	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = fault->ipa;
	run->mmio.len = access_bytes(fault);
	run->mmio.is_write = !is_load(fault);
	if (run->mmio.is_write)
		memcpy(run->mmio.data, &fault->value, access_bytes(fault));
	vcpu->answer = VG_ANSWER_MMIO;
	vcpu->has_value = false;
	vcpu->stats.mmio_exits_user++;
	return leave(ret, 0);
}

static enum step exit_fault(struct vg_vcpu *vcpu, const struct arm_smccc_1_2_regs *res, int *ret)
{
	int error = 0;

	vcpu->stats.fault_exits++;
	vcpu->fault = (struct vg_fault) {
		.ipa = res->a2,
		.flags = res->a3,
		.esr = res->a4,
		.sequence = res->a5,
		.access = res->a7,
		.value = res->a8,
	};
	switch (vg_fault_handle(vcpu, &vcpu->fault, &error)) {
	case VG_RUN_AGAIN:
		return GO_ON;
	case VG_EXIT_MMIO:
		return exit_mmio(vcpu, ret);
	case VG_EXIT_ERROR:
		break;
	}
	return error == -EINTR ? leave_by_signal(vcpu, ret) : leave(ret, error);
}

/*
 * What a guest's call is answered.  Who makes PSCI for guests begins here;
 * SYSTEM_OFF and SYSTEM_RESET never come here, see exit_shutdown().
 */
static u64 answer_call(u32 function)
{
	switch (function) {
	case ARM_SMCCC_VERSION_FUNC_ID:
		return ARM_SMCCC_VERSION_1_1;
	default:
		return SMCCC_RET_NOT_SUPPORTED;
	}
}

static enum step exit_hypercall(struct vg_vcpu *vcpu, const struct arm_smccc_1_2_regs *res)
{
	vcpu->stats.hypercall_exits++;
	vg_call_set_reg(vcpu->vm->handle, vcpu->index, VERDIGRIS_REG_CORE,
			answer_call(lower_32_bits(res->a2)));
	return GO_ON;
}

/* WFI, 0, and WFIT, 2: the first sleeps until there is a signal; all others may end at once. */
static enum step exit_wait(struct vg_vcpu *vcpu, const struct arm_smccc_1_2_regs *res)
{
	if (res->a2 % 2)
		vcpu->stats.wfe_exits++;
	else
		vcpu->stats.wfi_exits++;
	if (!res->a2)
		wait_event_interruptible(vcpu->wait,
					 is_stopped(vcpu) || READ_ONCE(vcpu->vm->is_bugged));
	cond_resched();
	return GO_ON;
}

/* No vCPU runs until user space says so: by KVM_ARM_VCPU_INIT or KVM_SET_MP_STATE. */
static void stop_all(struct vg_vm *vm)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(vm->vcpus); i++) {
		/* Pairs with the release that makes it known. */
		struct vg_vcpu *vcpu = smp_load_acquire(&vm->vcpus[i]);

		if (vcpu)
			WRITE_ONCE(vcpu->mp_state, KVM_MP_STATE_STOPPED);
	}
	vg_vcpu_kick_all(vm);
}

static enum step exit_shutdown(struct vg_vcpu *vcpu, const struct arm_smccc_1_2_regs *res, int *ret)
{
	struct kvm_run *run = vcpu->run;

	stop_all(vcpu->vm);
	/* These calls don't return.  Where user space makes them, they failed. */
	vg_call_set_reg(vcpu->vm->handle, vcpu->index, VERDIGRIS_REG_CORE,
			PSCI_RET_INTERNAL_FAILURE);
	memset(&run->system_event, 0, sizeof(run->system_event));
	run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	run->system_event.type = res->a2 == VERDIGRIS_SHUTDOWN_RESET ? KVM_SYSTEM_EVENT_RESET :
								       KVM_SYSTEM_EVENT_SHUTDOWN;
	run->system_event.ndata = 1;
	return leave(ret, 0);
}

static enum step exit_unhandled(struct vg_vcpu *vcpu, const struct arm_smccc_1_2_regs *res,
				int *ret)
{
	struct kvm_run *run = vcpu->run;

	memset(&run->internal, 0, sizeof(run->internal));
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
	run->internal.ndata = 2;
	run->internal.data[0] = res->a4;
	run->internal.data[1] = res->a6;
	return leave(ret, 0);
}

static enum step handle_exit(struct vg_vcpu *vcpu, const struct arm_smccc_1_2_regs *res, int *ret)
{
	vcpu->stats.exits++;
	switch (res->a1) {
	case VERDIGRIS_EXIT_INTERRUPT:
		vcpu->stats.interrupt_exits++;
		return GO_ON;
	case VERDIGRIS_EXIT_FAULT:
		if (vg_is_unexplained())
			return exit_unhandled(vcpu, res, ret);
		return exit_fault(vcpu, res, ret);
	case VERDIGRIS_EXIT_HYPERCALL:
		return exit_hypercall(vcpu, res);
	case VERDIGRIS_EXIT_WAIT:
		return exit_wait(vcpu, res);
	case VERDIGRIS_EXIT_SHUTDOWN:
		return exit_shutdown(vcpu, res, ret);
	default:
		return exit_unhandled(vcpu, res, ret);
	}
}

/*
 * Leaves streaming mode, which another task may have left this CPU in: its
 * registers are saved, but the mode stays until somebody needs it changed.
 */
static void leave_streaming_mode(void)
{
#if KERNEL_VERSION(6, 19, 0) <= LINUX_VERSION_CODE
	scoped_ksimd()
		barrier();
#else
	kernel_neon_begin();
	kernel_neon_end();
#endif
}

/* The firmware did not enter the guest. */
static enum step refused(struct vg_vcpu *vcpu, long status, int *ret)
{
	if (status == VERDIGRIS_BUSY) {
		leave_streaming_mode();
		cond_resched();
		return GO_ON;
	}
	vg_vm_bug(vcpu->vm, "VCPU_RUN", status);
	return leave(ret, -EIO);
}

static enum step run_once(struct vg_vcpu *vcpu, int *ret)
{
	struct arm_smccc_1_2_regs res;

	*ret = vg_count_follow(vcpu);
	if (*ret)
		return LEAVE;
	if (!enter(vcpu, &res))
		return work(vcpu, ret);
	if (res.a0)
		return refused(vcpu, (long)res.a0, ret);
	vcpu->answer = VG_ANSWER_NONE;
	return handle_exit(vcpu, &res, ret);
}

static int run_with_signals(struct vg_vcpu *vcpu)
{
	int ret = 0;

	vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
	vcpu->run->flags = 0;
	while (run_once(vcpu, &ret) == GO_ON)
		;
	settle(vcpu);
	return ret;
}

/*
 * What user space blocks stays in real_blocked meanwhile, as in sigtimedwait():
 * so a signal that it ignores but blocks is kept for it.
 */
static void block_signals(struct vg_vcpu *vcpu)
{
	if (vcpu->has_sigset)
		sigprocmask(SIG_SETMASK, &vcpu->sigset, &current->real_blocked);
}

static void unblock_signals(struct vg_vcpu *vcpu)
{
	if (!vcpu->has_sigset)
		return;
	sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
	sigemptyset(&current->real_blocked);
}

/**
 * vg_run() - runs a vCPU, as KVM_RUN does
 * @vcpu: the vCPU, locked
 *
 * Return: 0 with an exit for user space, or an error.
 */
int vg_run(struct vg_vcpu *vcpu)
{
	int ret;

	if (!vcpu->is_initialized)
		return -ENOEXEC;
	take_answer(vcpu);
	if (READ_ONCE(vcpu->run->immediate_exit__unsafe)) {
		settle(vcpu);
		return -EINTR;
	}
	block_signals(vcpu);
	ret = run_with_signals(vcpu);
	unblock_signals(vcpu);
	/* Only who finds a signal pending restarts calls, and unblocking looks for one anew. */
	if (ret == -ERESTARTNOHAND)
		set_tsk_thread_flag(current, TIF_SIGPENDING);
	return ret;
}
