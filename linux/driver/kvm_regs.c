// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's register numbers, and the firmware's.
 *
 * Which registers there are is the firmware's to say, and the list that user
 * space gets is made from the firmware's.  This file only translates numbers.
 * System registers have the same 16 bits in both, save those of the virtual
 * timer: there KVM's numbers for compare value and count are each other's, and
 * have to stay so.
 *
 * Some registers are the driver's own.  The count is a VM's, kept as one offset
 * that each vCPU takes over when it runs next.  The version of PSCI says what
 * guests are answered.  And the saved program states of AArch32 modes are
 * memory that no guest reaches, as in KVM where guests have no AArch32.  More that no
 * guest reaches is in kvm_kept.c.
 */
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/uaccess.h>

#include <uapi/linux/psci.h>

#include <asm/barrier.h>
#include <asm/cpufeature.h>
#include <asm/sysreg.h>

#include "calls.h"
#include "kvm.h"

/* The virtual timer's, as the architecture has them. */
#define SYS_ID_MASK GENMASK(15, 0)
#define SYS_ID(id) ((id) & SYS_ID_MASK)
#define FW_CNTV_CVAL (VERDIGRIS_REG_SYS | SYS_ID(ARM64_SYS_REG(3, 3, 14, 3, 2)))
#define FW_MPIDR (VERDIGRIS_REG_SYS | SYS_ID(ARM64_SYS_REG(3, 0, 0, 0, 5)))

#define CORE_ID(name, size) \
	(KVM_REG_ARM64 | KVM_REG_ARM_CORE | (size) | KVM_REG_ARM_CORE_REG(name))
#define CORE_WORDS (sizeof(struct kvm_regs) / sizeof(u32))
#define FIRST_AARCH32_SPSR (KVM_SPSR_EL1 + 1)

/* Where a register is. */
struct place {
	enum {
		FIRMWARE,	/* @reg; a vector's upper half is @reg + 1 */
		COUNT,
		PSCI_VERSION,
		AARCH32_SPSR,	/* number @reg */
		ZERO,
	} kind;
	u64 reg;
};

/* A value of any size, the first bytes first. */
union value {
	u32 w;
	u64 x;
	u64 v[2];
};

static u64 fw_core(u64 off)
{
	switch (off) {
	case KVM_REG_ARM_CORE_REG(regs.sp):
		return VERDIGRIS_REG_SP_EL0;
	case KVM_REG_ARM_CORE_REG(regs.pc):
		return VERDIGRIS_REG_PC;
	case KVM_REG_ARM_CORE_REG(regs.pstate):
		return VERDIGRIS_REG_PSTATE;
	case KVM_REG_ARM_CORE_REG(sp_el1):
		return VERDIGRIS_REG_SP_EL1;
	case KVM_REG_ARM_CORE_REG(elr_el1):
		return VERDIGRIS_REG_ELR_EL1;
	case KVM_REG_ARM_CORE_REG(spsr[KVM_SPSR_EL1]):
		return VERDIGRIS_REG_SPSR_EL1;
	default:
		return VERDIGRIS_REG_CORE + off / 2;
	}
}

/* Finds what struct kvm_regs has at a word; -EINVAL inside of a register. */
static int find_core(u64 id, struct place *place)
{
	u64 off = id & ~(KVM_REG_ARCH_MASK | KVM_REG_SIZE_MASK | KVM_REG_ARM_CORE);
	u64 size = id & KVM_REG_SIZE_MASK, wanted = KVM_REG_SIZE_U64;

	if (off >= CORE_WORDS || off + KVM_REG_SIZE(id) / sizeof(u32) >= CORE_WORDS)
		return -ENOENT;
	if (off == KVM_REG_ARM_CORE_REG(fp_regs.fpsr) ||
	    off == KVM_REG_ARM_CORE_REG(fp_regs.fpcr)) {
		wanted = KVM_REG_SIZE_U32;
		place->reg = VERDIGRIS_REG_FPSR + off - KVM_REG_ARM_CORE_REG(fp_regs.fpsr);
	} else if (off >= KVM_REG_ARM_CORE_REG(fp_regs.vregs[0])) {
		off -= KVM_REG_ARM_CORE_REG(fp_regs.vregs[0]);
		if (off % 4)
			return -EINVAL;
		wanted = KVM_REG_SIZE_U128;
		place->reg = VERDIGRIS_REG_FP + off / 2;
	} else if (off % 2) {
		return -EINVAL;
	} else if (off >= KVM_REG_ARM_CORE_REG(spsr[FIRST_AARCH32_SPSR])) {
		place->kind = AARCH32_SPSR;
		place->reg = (off - KVM_REG_ARM_CORE_REG(spsr[FIRST_AARCH32_SPSR])) / 2;
	} else {
		place->reg = fw_core(off);
	}
	return size == wanted ? 0 : -EINVAL;
}

static int find_system(u64 id, struct place *place)
{
	if (id == KVM_REG_ARM_TIMER_CNT)
		place->kind = COUNT;
	else if (id == KVM_REG_ARM_TIMER_CVAL)
		place->reg = FW_CNTV_CVAL;
	else if ((id & ~SYS_ID_MASK) == (KVM_REG_ARM64 | KVM_REG_ARM64_SYSREG | KVM_REG_SIZE_U64))
		place->reg = VERDIGRIS_REG_SYS | SYS_ID(id);
	else
		return -ENOENT;
	return 0;
}

static int find(u64 id, struct place *place)
{
	*place = (struct place) { .kind = FIRMWARE };
	if ((id & ~KVM_REG_SIZE_MASK) >> 32 != KVM_REG_ARM64 >> 32)
		return -EINVAL;
	if ((id & KVM_REG_ARM_COPROC_MASK) == KVM_REG_ARM_CORE)
		return find_core(id, place);
	if (id == KVM_REG_ARM_PSCI_VERSION) {
		place->kind = PSCI_VERSION;
		return 0;
	}
	if (vg_is_zero_id(id)) {
		place->kind = ZERO;
		return 0;
	}
	return find_system(id, place);
}

/* KVM's number of a core register of the firmware's. */
static u64 id_of_core(u64 reg)
{
	switch (reg) {
	case VERDIGRIS_REG_SP_EL0:
		return CORE_ID(regs.sp, KVM_REG_SIZE_U64);
	case VERDIGRIS_REG_PC:
		return CORE_ID(regs.pc, KVM_REG_SIZE_U64);
	case VERDIGRIS_REG_PSTATE:
		return CORE_ID(regs.pstate, KVM_REG_SIZE_U64);
	case VERDIGRIS_REG_SP_EL1:
		return CORE_ID(sp_el1, KVM_REG_SIZE_U64);
	case VERDIGRIS_REG_ELR_EL1:
		return CORE_ID(elr_el1, KVM_REG_SIZE_U64);
	case VERDIGRIS_REG_SPSR_EL1:
		return CORE_ID(spsr[KVM_SPSR_EL1], KVM_REG_SIZE_U64);
	default:
		return CORE_ID(regs.regs[0], KVM_REG_SIZE_U64) + 2 * (reg - VERDIGRIS_REG_CORE);
	}
}

/* KVM's number of a register of the firmware's; 0 for the upper half of a vector. */
static u64 id_of(u64 reg)
{
	if (reg < VERDIGRIS_REG_SYS)
		return id_of_core(reg);
	if (reg == VERDIGRIS_REG_CNTVOFF)
		return KVM_REG_ARM_TIMER_CNT;
	if (reg == FW_CNTV_CVAL)
		return KVM_REG_ARM_TIMER_CVAL;
	if (reg < VERDIGRIS_REG_FP)
		return KVM_REG_ARM64 | KVM_REG_ARM64_SYSREG | KVM_REG_SIZE_U64 | SYS_ID(reg);
	if (reg >= VERDIGRIS_REG_FPSR)
		return CORE_ID(fp_regs.fpsr, KVM_REG_SIZE_U32) + (reg - VERDIGRIS_REG_FPSR);
	if (reg % 2)
		return 0;
	return CORE_ID(fp_regs.vregs[0], KVM_REG_SIZE_U128) + 2 * (reg - VERDIGRIS_REG_FP);
}

static int error_of(struct vg_vcpu *vcpu, long status)
{
	switch (status) {
	case 0:
		return 0;
	case VERDIGRIS_NO_ENTRY:
		return -ENOENT;
	case VERDIGRIS_INVALID:
		return -EINVAL;
	default:
		vg_vm_bug(vcpu->vm, "a register call", status);
		return -EIO;
	}
}

static int get_firmware(struct vg_vcpu *vcpu, u64 reg, unsigned int size, union value *value)
{
	u64 vm = vcpu->vm->handle;
	long status = vg_call_get_reg(vm, vcpu->index, reg, &value->v[0]);

	if (!status && size == sizeof(value->v))
		status = vg_call_get_reg(vm, vcpu->index, reg + 1, &value->v[1]);
	return error_of(vcpu, status);
}

static int set_firmware(struct vg_vcpu *vcpu, u64 reg, unsigned int size, const union value *value)
{
	u64 vm = vcpu->vm->handle;
	u64 first = size == sizeof(value->w) ? value->w : value->x;
	long status = vg_call_set_reg(vm, vcpu->index, reg, first);

	if (!status && size == sizeof(value->v))
		status = vg_call_set_reg(vm, vcpu->index, reg + 1, value->v[1]);
	return error_of(vcpu, status);
}

static int get_kept(struct vg_vcpu *vcpu, u64 id, union value *value)
{
	const u64 *kept = vg_kept_find(vcpu, id);

	if (!kept)
		return -ENOENT;
	value->x = *kept;
	return 0;
}

static int set_kept(struct vg_vcpu *vcpu, u64 id, const union value *value)
{
	u64 *kept = vg_kept_find(vcpu, id);

	if (!kept)
		return -ENOENT;
	*kept = value->x;
	return 0;
}

/*
 * Tells whether a register describes AArch32, which guests don't have.  These read
 * as zero, and KVM drops what is written to them: a VM may come from where it had
 * values.  Those that never had any (ID_AFR0_EL1, ID_DFR1_EL1, what has no name)
 * take zero alone.
 */
static bool is_aarch32_id(u64 reg)
{
	/* A bit for each op2, by CRm. */
	static const u8 named[] = { [1] = 0xf7, [2] = 0xff, [3] = 0x57 };
	u64 at = reg - (VERDIGRIS_REG_SYS | SYS_ID(ARM64_SYS_REG(3, 0, 0, 0, 0)));

	return at / 8 < ARRAY_SIZE(named) && named[at / 8] & BIT(at % 8);
}

static u64 physical_count(void)
{
	isb();
	return read_sysreg(cntpct_el0);
}

/* What guests are answered to: SYSTEM_OFF and SYSTEM_RESET are in no earlier version. */
static u64 psci_version(const struct vg_vcpu *vcpu)
{
	return READ_ONCE(vcpu->vm->vcpu_features) & BIT(KVM_ARM_VCPU_PSCI_0_2) ?
	       PSCI_VERSION(0, 2) : PSCI_VERSION(0, 1);
}

/**
 * vg_reg_get() - reads a register, as KVM_GET_ONE_REG does
 * @vcpu: the vCPU, locked
 * @reg: which, and where to
 *
 * Return: 0 or an error.
 */
int vg_reg_get(struct vg_vcpu *vcpu, const struct kvm_one_reg *reg)
{
	unsigned int size = KVM_REG_SIZE(reg->id);
	union value value = {};
	struct place place;
	int ret = find(reg->id, &place);

	if (ret)
		return ret;
	switch (place.kind) {
	case FIRMWARE:
		ret = get_firmware(vcpu, place.reg, size, &value);
		if (ret == -ENOENT)
			ret = get_kept(vcpu, reg->id, &value);
		break;
	case COUNT:
		value.x = physical_count() - READ_ONCE(vcpu->vm->counter_offset);
		break;
	case PSCI_VERSION:
		value.x = psci_version(vcpu);
		break;
	case AARCH32_SPSR:
		value.x = vcpu->spsr_aarch32[place.reg];
		break;
	case ZERO:
		break;
	}
	if (ret)
		return ret;
	return copy_to_user(u64_to_user_ptr(reg->addr), &value, size) ? -EFAULT : 0;
}

/**
 * vg_reg_set() - writes a register, as KVM_SET_ONE_REG does
 * @vcpu: the vCPU, locked
 * @reg: which, and where from
 *
 * Return: 0 or an error.
 */
int vg_reg_set(struct vg_vcpu *vcpu, const struct kvm_one_reg *reg)
{
	unsigned int size = KVM_REG_SIZE(reg->id);
	union value value = {};
	struct place place;
	int ret = find(reg->id, &place);

	if (ret)
		return ret;
	if (copy_from_user(&value, u64_to_user_ptr(reg->addr), size))
		return -EFAULT;
	switch (place.kind) {
	case FIRMWARE:
		if (is_aarch32_id(place.reg))
			return 0;
		ret = set_firmware(vcpu, place.reg, size, &value);
		return ret == -ENOENT ? set_kept(vcpu, reg->id, &value) : ret;
	case COUNT:
		WRITE_ONCE(vcpu->vm->counter_offset, physical_count() - value.x);
		return 0;
	case PSCI_VERSION:
		return value.x == psci_version(vcpu) ? 0 : -EINVAL;
	case AARCH32_SPSR:
		vcpu->spsr_aarch32[place.reg] = value.x;
		return 0;
	case ZERO:
		return value.x ? -EINVAL : 0;
	}
	return -ENOENT;
}

/* Where a list goes: all numbers are counted, and the first @room written. */
struct id_list {
	u64 __user *ids;
	u64 room;
	u64 count;
};

static int id_list_add(struct id_list *list, u64 id)
{
	if (list->count < list->room && put_user(id, list->ids + list->count))
		return -EFAULT;
	list->count++;
	return 0;
}

/* Which there are is up to the CPU that a call is made on: so no two calls need agree. */
static int list_firmware(struct vg_vcpu *vcpu, struct id_list *list)
{
	u64 regs[VERDIGRIS_REGS_PER_CALL], all = 1, first, i;

	for (first = 0; first < all; first += VERDIGRIS_REGS_PER_CALL) {
		if (vg_call_reg_list(vcpu->vm->handle, vcpu->index, first, &all, regs))
			return -EIO;
		for (i = first; i < min(all, first + VERDIGRIS_REGS_PER_CALL); i++) {
			u64 id = id_of(regs[i - first]);

			if (id && id_list_add(list, id))
				return -EFAULT;
		}
	}
	return 0;
}

/* Those that are kept because the firmware has none. */
static int list_kept(struct vg_vcpu *vcpu, struct id_list *list)
{
	unsigned int i;
	u64 ignored;

	for (i = 0; i < VG_KEPT; i++) {
		u64 id = vg_kept_id(i), reg = VERDIGRIS_REG_SYS | SYS_ID(id);

		if (vg_call_get_reg(vcpu->vm->handle, vcpu->index, reg, &ignored) ==
		    VERDIGRIS_NO_ENTRY && id_list_add(list, id))
			return -EFAULT;
	}
	return 0;
}

static int list_own(struct vg_vcpu *vcpu, struct id_list *list)
{
	int ret = id_list_add(list, KVM_REG_ARM_PSCI_VERSION);
	unsigned int i;

	for (i = FIRST_AARCH32_SPSR; !ret && i < KVM_NR_SPSR; i++)
		ret = id_list_add(list, CORE_ID(spsr[0], KVM_REG_SIZE_U64) + 2 * i);
	for (i = 0; !ret && vg_zero_id(i); i++)
		ret = id_list_add(list, vg_zero_id(i));
	return ret ? ret : list_kept(vcpu, list);
}

/**
 * vg_reg_list() - lists the registers, as KVM_GET_REG_LIST does
 * @vcpu: the vCPU, locked
 * @list: where to; its count says how much room there is
 *
 * Return: 0; -E2BIG with the count that is needed; or another error.
 */
int vg_reg_list(struct vg_vcpu *vcpu, struct kvm_reg_list __user *list)
{
	struct id_list ids = { .ids = list->reg };
	int ret;

	if (get_user(ids.room, &list->n))
		return -EFAULT;
	ret = list_firmware(vcpu, &ids);
	if (!ret)
		ret = list_own(vcpu, &ids);
	if (ret)
		return ret;
	if (put_user(ids.count, &list->n))
		return -EFAULT;
	return ids.room < ids.count ? -E2BIG : 0;
}

/**
 * vg_regs_begin() - gives a new or reset vCPU the registers that KVM's start with
 * @vcpu: the vCPU, which doesn't run
 *
 * Affinity: 16 to a cluster, since an interrupt controller reaches no more with
 * one write.
 *
 * Return: 0 or an error.
 */
int vg_regs_begin(struct vg_vcpu *vcpu)
{
	u64 n = vcpu->index;
	u64 mpidr = BIT(31) | (n & 15) | (n >> 4) << 8;

	memset(vcpu->spsr_aarch32, 0, sizeof(vcpu->spsr_aarch32));
	memset(vcpu->kept, 0, sizeof(vcpu->kept));
	vcpu->counter_offset = 0;
	return error_of(vcpu, vg_call_set_reg(vcpu->vm->handle, n, FW_MPIDR, mpidr));
}

/**
 * vg_count_init() - has the count of a new VM begin at 0
 * @vm: the VM
 */
void vg_count_init(struct vg_vm *vm)
{
	vm->counter_offset = physical_count();
}

/**
 * vg_count_follow() - takes the VM's offset over
 * @vcpu: the vCPU, which is about to run
 *
 * Return: 0 or an error.
 */
int vg_count_follow(struct vg_vcpu *vcpu)
{
	u64 offset = READ_ONCE(vcpu->vm->counter_offset);

	if (likely(vcpu->counter_offset == offset))
		return 0;
	vcpu->counter_offset = offset;
	return error_of(vcpu, vg_call_set_reg(vcpu->vm->handle, vcpu->index,
					      VERDIGRIS_REG_CNTVOFF, offset));
}

/**
 * vg_has_ptrauth() - tells whether guests have pointer authentication
 *
 * Return: true if the CPUs have it, whatever the algorithm: guests then have it too.
 */
bool vg_has_ptrauth(void)
{
	u64 isar1 = read_sanitised_ftr_reg(SYS_ID_AA64ISAR1_EL1);
	u64 isar2 = read_sanitised_ftr_reg(SYS_ID_AA64ISAR2_EL1);

	return isar1 & (ID_AA64ISAR1_EL1_APA_MASK | ID_AA64ISAR1_EL1_API_MASK) ||
	       isar2 & ID_AA64ISAR2_EL1_APA3_MASK;
}
