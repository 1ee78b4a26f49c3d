// SPDX-License-Identifier: GPL-2.0
/*
 * The file of a vCPU: its ioctls, and the page that it shares with user space.
 *
 * A vCPU stays with its VM: closing its file gives back a reference to the VM,
 * and its index isn't free again, as in KVM.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/uaccess.h>

#include <asm/cputype.h>

#include "calls.h"
#include "kvm.h"

/* The feature bits that have a name in Linux 6.12; others are unknown. */
#define KNOWN_FEATURES GENMASK(KVM_ARM_VCPU_PTRAUTH_GENERIC, 0)
#define PTRAUTH_FEATURES (BIT(KVM_ARM_VCPU_PTRAUTH_ADDRESS) | BIT(KVM_ARM_VCPU_PTRAUTH_GENERIC))

static void nothing(void *unused)
{
}

/* Makes a vCPU look at its VM and its state again. */
static void kick(struct vg_vcpu *vcpu)
{
	int cpu;

	/* Pairs with the barrier in kvm_run.c: it sees what was written, or we see its CPU. */
	smp_mb();
	wake_up(&vcpu->wait);
	cpu = READ_ONCE(vcpu->cpu);
	if (cpu >= 0)
		smp_call_function_single(cpu, nothing, NULL, 1);
}

/**
 * vg_vcpu_kick_all() - makes all vCPUs of a VM look at it and at their state again
 * @vm: the VM
 *
 * What they are to see is written before.  A CPU that runs one gets an interrupt,
 * which ends the run; when this returns it has, so that who goes on knows that
 * the guest will not, if it isn't to.
 */
void vg_vcpu_kick_all(struct vg_vm *vm)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(vm->vcpus); i++) {
		/* Pairs with the release that makes it known. */
		struct vg_vcpu *vcpu = smp_load_acquire(&vm->vcpus[i]);

		if (vcpu)
			kick(vcpu);
	}
}

static void vcpu_free(struct vg_vcpu *vcpu)
{
	free_page((unsigned long)vcpu->run);
	free_page((unsigned long)vcpu->list);
	mutex_destroy(&vcpu->mutex);
	kmem_cache_free(vg_vcpu_cache, vcpu);
}

/**
 * vg_vcpus_free() - frees the vCPUs of a VM
 * @vm: a VM of which no file is open
 */
void vg_vcpus_free(struct vg_vm *vm)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(vm->vcpus); i++) {
		if (vm->vcpus[i])
			vcpu_free(vm->vcpus[i]);
	}
}

static int vcpu_release(struct inode *inode, struct file *filp)
{
	struct vg_vcpu *vcpu = filp->private_data;
	struct vg_vm *vm = vcpu->vm;

	if (!vcpu->is_born)
		vcpu_free(vcpu);
	vg_vm_put(vm);
	return 0;
}

static vm_fault_t vcpu_fault(struct vm_fault *vmf)
{
	struct vg_vcpu *vcpu = vmf->vma->vm_file->private_data;

	switch (vmf->pgoff) {
	case 0:
		vmf->page = virt_to_page(vcpu->run);
		break;
	case KVM_COALESCED_MMIO_PAGE_OFFSET:
		vmf->page = virt_to_page(vcpu->vm->coalesced);
		break;
	default:
		return VM_FAULT_SIGBUS;
	}
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct vcpu_area_ops = {
	.fault = vcpu_fault,
};

static int vcpu_mmap(struct file *filp, struct vm_area_struct *vma)
{
	vma->vm_ops = &vcpu_area_ops;
	return 0;
}

/* The older names of parts, which KVM still takes on these parts. */
static bool is_target(u32 target)
{
	unsigned long part = read_cpuid_part_number();

	if (target == KVM_ARM_TARGET_GENERIC_V8)
		return true;
	if (read_cpuid_implementor() != ARM_CPU_IMP_ARM)
		return false;
	return (target == KVM_ARM_TARGET_CORTEX_A53 && part == ARM_CPU_PART_CORTEX_A53) ||
	       (target == KVM_ARM_TARGET_CORTEX_A57 && part == ARM_CPU_PART_CORTEX_A57);
}

/* Checks what KVM_ARM_VCPU_INIT asks for; @features are the first 32 bits. */
static int check_init(const struct kvm_vcpu_init *init, unsigned long features)
{
	unsigned long has_ptrauth = vg_has_ptrauth() ? PTRAUTH_FEATURES : 0;
	unsigned int i;

	if (!is_target(init->target))
		return -EINVAL;
	if (features & ~KNOWN_FEATURES)
		return -ENOENT;
	for (i = 1; i < ARRAY_SIZE(init->features); i++) {
		if (init->features[i])
			return -ENOENT;
	}
	if (features & ~(BIT(KVM_ARM_VCPU_PSCI_0_2) | has_ptrauth))
		return -EINVAL;
	if ((features & PTRAUTH_FEATURES) && (features & PTRAUTH_FEATURES) != PTRAUTH_FEATURES)
		return -EINVAL;
	return 0;
}

/*
 * All vCPUs of a VM have the same features: those of the first whose reset succeeds.
 * Asked before the reset, with @settle false, and after it.
 */
static int agree_on_features(struct vg_vm *vm, unsigned long features, bool settle)
{
	int ret = 0;

	mutex_lock(&vm->lock);
	if (vm->has_features && vm->vcpu_features != features) {
		ret = -EINVAL;
	} else if (settle) {
		/* Read without the lock by psci_version(). */
		WRITE_ONCE(vm->vcpu_features, features);
		vm->has_features = true;
	}
	mutex_unlock(&vm->lock);
	return ret;
}

/*
 * The guest begins with its MMU off.  Where it then reads past the caches, what
 * user space has written meanwhile must have left them: memory is cleaned when it
 * is mapped, so it is mapped anew.
 */
static int vcpu_reset(struct vg_vcpu *vcpu)
{
	long status = vg_call(VERDIGRIS_VCPU_RESET, vcpu->vm->handle, vcpu->index, 0, NULL);

	if (status) {
		vg_vm_bug(vcpu->vm, "VCPU_RESET", status);
		return -EIO;
	}
	if (vcpu->is_initialized && !vg_has_forced_write_back() && vg_slots_unmap(vcpu->vm))
		return -EINTR;
	vcpu->answer = VG_ANSWER_NONE;
	return vg_regs_begin(vcpu);
}

static long ioctl_init(struct vg_vcpu *vcpu, void __user *user)
{
	struct kvm_vcpu_init init;
	unsigned long features;
	int ret;

	if (copy_from_user(&init, user, sizeof(init)))
		return -EFAULT;
	features = init.features[0] & ~BIT(KVM_ARM_VCPU_POWER_OFF);
	ret = check_init(&init, features);
	if (!ret)
		ret = agree_on_features(vcpu->vm, features, false);
	if (!ret)
		ret = vcpu_reset(vcpu);
	if (!ret)
		ret = agree_on_features(vcpu->vm, features, true);
	if (ret)
		return ret;
	vcpu->is_initialized = true;
	WRITE_ONCE(vcpu->mp_state, init.features[0] & BIT(KVM_ARM_VCPU_POWER_OFF) ?
				   KVM_MP_STATE_STOPPED : KVM_MP_STATE_RUNNABLE);
	return 0;
}

static long ioctl_one_reg(struct vg_vcpu *vcpu, unsigned int command, void __user *user)
{
	struct kvm_one_reg reg;

	if (!vcpu->is_initialized)
		return -ENOEXEC;
	if (copy_from_user(&reg, user, sizeof(reg)))
		return -EFAULT;
	return command == KVM_SET_ONE_REG ? vg_reg_set(vcpu, &reg) : vg_reg_get(vcpu, &reg);
}

static long ioctl_signal_mask(struct vg_vcpu *vcpu, void __user *user)
{
	struct kvm_signal_mask __user *mask = user;
	sigset_t set;
	u32 len;

	if (!mask) {
		vcpu->has_sigset = false;
		return 0;
	}
	if (get_user(len, &mask->len))
		return -EFAULT;
	if (len != sizeof(set))
		return -EINVAL;
	if (copy_from_user(&set, mask->sigset, sizeof(set)))
		return -EFAULT;
	sigdelsetmask(&set, sigmask(SIGKILL) | sigmask(SIGSTOP));
	vcpu->sigset = set;
	vcpu->has_sigset = true;
	return 0;
}

static long ioctl_get_mp_state(struct vg_vcpu *vcpu, void __user *user)
{
	struct kvm_mp_state state = { .mp_state = READ_ONCE(vcpu->mp_state) };

	return copy_to_user(user, &state, sizeof(state)) ? -EFAULT : 0;
}

static long ioctl_set_mp_state(struct vg_vcpu *vcpu, void __user *user)
{
	struct kvm_mp_state state;

	if (copy_from_user(&state, user, sizeof(state)))
		return -EFAULT;
	if (state.mp_state != KVM_MP_STATE_RUNNABLE && state.mp_state != KVM_MP_STATE_STOPPED)
		return -EINVAL;
	WRITE_ONCE(vcpu->mp_state, state.mp_state);
	return 0;
}

static long ioctl_reg_list(struct vg_vcpu *vcpu, void __user *user)
{
	return vcpu->is_initialized ? vg_reg_list(vcpu, user) : -ENOEXEC;
}

static long ioctl_locked(struct vg_vcpu *vcpu, unsigned int command, unsigned long argument)
{
	void __user *user = (void __user *)argument;

	switch (command) {
	case KVM_RUN:
		return argument ? -EINVAL : vg_run(vcpu);
	case KVM_ARM_VCPU_INIT:
		return ioctl_init(vcpu, user);
	case KVM_GET_ONE_REG:
	case KVM_SET_ONE_REG:
		return ioctl_one_reg(vcpu, command, user);
	case KVM_GET_REG_LIST:
		return ioctl_reg_list(vcpu, user);
	case KVM_SET_SIGNAL_MASK:
		return ioctl_signal_mask(vcpu, user);
	case KVM_GET_MP_STATE:
		return ioctl_get_mp_state(vcpu, user);
	case KVM_SET_MP_STATE:
		return ioctl_set_mp_state(vcpu, user);
	case KVM_GET_STATS_FD:
		return vg_vcpu_stats_fd(vcpu);
	case KVM_SET_DEVICE_ATTR:
	case KVM_GET_DEVICE_ATTR:
	case KVM_HAS_DEVICE_ATTR:
		return -ENXIO;
	case KVM_GET_VCPU_EVENTS:
	case KVM_SET_VCPU_EVENTS:
	case KVM_ARM_VCPU_FINALIZE:
		return vcpu->is_initialized ? -EINVAL : -ENOEXEC;
	default:
		return -EINVAL;
	}
}

static long vcpu_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	struct vg_vcpu *vcpu = filp->private_data;
	long ret;

	if (vcpu->vm->mm != current->mm || READ_ONCE(vcpu->vm->is_bugged))
		return -EIO;
	if (_IOC_TYPE(command) != KVMIO)
		return -EINVAL;
	if (mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	ret = ioctl_locked(vcpu, command, argument);
	mutex_unlock(&vcpu->mutex);
	return ret;
}

static const struct file_operations vcpu_fops = {
	.owner = THIS_MODULE,
	.release = vcpu_release,
	.unlocked_ioctl = vcpu_ioctl,
	.compat_ioctl = vg_no_compat_ioctl,
	.mmap = vcpu_mmap,
	.llseek = noop_llseek,
};

static struct vg_vcpu *vcpu_new(struct vg_vm *vm, unsigned int index)
{
	struct vg_vcpu *vcpu = kmem_cache_zalloc(vg_vcpu_cache, GFP_KERNEL_ACCOUNT);

	if (!vcpu)
		return NULL;
	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->cpu = -1;
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	mutex_init(&vcpu->mutex);
	init_waitqueue_head(&vcpu->wait);
	vcpu->run = (struct kvm_run *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	vcpu->list = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (vcpu->run && vcpu->list)
		return vcpu;
	vcpu_free(vcpu);
	return NULL;
}

/* Makes the vCPU known to the firmware, and to the VM. */
static int vcpu_begin(struct vg_vcpu *vcpu)
{
	struct vg_vm *vm = vcpu->vm;
	phys_addr_t region;
	long status;
	u64 unused, order;

	if (vg_call_layout(vm->ipa_bits, &unused, &order))
		return -EIO;
	region = vg_pages_region(vm, order);
	if (!region)
		return -ENOMEM;
	status = vg_call_give(VERDIGRIS_VCPU_CREATE, vm->handle, vcpu->index, region, NULL);
	if (status) {
		vg_vm_bug(vm, "VCPU_CREATE", status);
		return -EIO;
	}
	vcpu->is_born = true;
	/* Whoever finds it finds it complete. */
	smp_store_release(&vm->vcpus[vcpu->index], vcpu);
	return 0;
}

/* The file owns a vCPU that wasn't born; the VM owns it afterwards. */
static int vcpu_open(struct vg_vcpu *vcpu)
{
	struct file *file;
	char name[24];
	int ret, fd;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		vcpu_free(vcpu);
		return fd;
	}
	snprintf(name, sizeof(name), "kvm-vcpu:%u", vcpu->index);
	file = anon_inode_getfile(name, &vcpu_fops, vcpu, O_RDWR);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		vcpu_free(vcpu);
		return PTR_ERR(file);
	}
	vg_vm_get(vcpu->vm);
	ret = vcpu_begin(vcpu);
	if (ret) {
		put_unused_fd(fd);
		fput(file);
		return ret;
	}
	fd_install(fd, file);
	return fd;
}

/**
 * vg_vcpu_create() - creates a vCPU, as KVM_CREATE_VCPU does
 * @vm: whose it is to be
 * @id: its argument
 *
 * Return: a file descriptor, or an error.
 */
int vg_vcpu_create(struct vg_vm *vm, unsigned long id)
{
	struct vg_vcpu *vcpu;
	int ret;

	if (id >= ARRAY_SIZE(vm->vcpus))
		return -EINVAL;
	mutex_lock(&vm->lock);
	if (vm->vcpus[id]) {
		ret = -EEXIST;
	} else {
		vcpu = vcpu_new(vm, id);
		ret = vcpu ? vcpu_open(vcpu) : -ENOMEM;
	}
	mutex_unlock(&vm->lock);
	return ret;
}
