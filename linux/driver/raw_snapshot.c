// SPDX-License-Identifier: GPL-2.0
/*
 * Reads the registers that a guest must not change under the host's feet.
 *
 * Two snapshots of one thread on one CPU, with guests in between, must be
 * equal.  So there is nothing in it that Linux itself changes meanwhile: of
 * TTBR1_EL1 only the address without the ASID, of the two counters only whether
 * they agree.
 */
#include <linux/bitops.h>
#include <linux/hash.h>
#include <linux/kernel.h>
#include <linux/preempt.h>
#include <linux/smp.h>
#include <linux/string.h>

#include <asm/cputype.h>
#include <asm/sysreg.h>

#include "raw.h"

/* Encodings by (op0, op1, CRn, CRm, op2), for names that vary between kernels. */
#define PAC_IA_LO	sys_reg(3, 0, 2, 1, 0)
#define PAC_IA_HI	sys_reg(3, 0, 2, 1, 1)
#define PAC_DB_LO	sys_reg(3, 0, 2, 2, 2)
#define PAC_DB_HI	sys_reg(3, 0, 2, 2, 3)
#define PAC_GA_LO	sys_reg(3, 0, 2, 3, 0)
#define PAC_GA_HI	sys_reg(3, 0, 2, 3, 1)
#define ZCR		sys_reg(3, 0, 1, 2, 0)

static void note(struct verdigris_raw_snapshot *snapshot, const char *name, u64 value)
{
	struct verdigris_raw_register *reg;

	if (WARN_ON_ONCE(snapshot->count >= VERDIGRIS_RAW_REGISTERS))
		return;
	reg = &snapshot->registers[snapshot->count++];
	strscpy_pad(reg->name, name, sizeof(reg->name));
	reg->value = value;
}

#define NOTE(snapshot, name) note(snapshot, #name, read_sysreg(name))

static void note_control(struct verdigris_raw_snapshot *s)
{
	NOTE(s, sctlr_el1);
	NOTE(s, actlr_el1);
	NOTE(s, cpacr_el1);
	NOTE(s, tcr_el1);
	NOTE(s, mair_el1);
	NOTE(s, amair_el1);
	NOTE(s, vbar_el1);
	NOTE(s, contextidr_el1);
	NOTE(s, tpidr_el1);
	NOTE(s, tpidr_el0);
	NOTE(s, tpidrro_el0);
	NOTE(s, sp_el0);
	note(s, "ttbr1_el1.baddr", read_sysreg(ttbr1_el1) & GENMASK_ULL(47, 1));
}

static void note_identity(struct verdigris_raw_snapshot *s)
{
	NOTE(s, midr_el1);
	NOTE(s, mpidr_el1);
	NOTE(s, ctr_el0);
	NOTE(s, dczid_el0);
	NOTE(s, id_aa64pfr0_el1);
	NOTE(s, id_aa64pfr1_el1);
	NOTE(s, id_aa64dfr0_el1);
	NOTE(s, id_aa64isar0_el1);
	NOTE(s, id_aa64isar1_el1);
	NOTE(s, id_aa64mmfr0_el1);
	NOTE(s, id_aa64mmfr1_el1);
	NOTE(s, id_aa64mmfr2_el1);
}

static void note_debug(struct verdigris_raw_snapshot *s)
{
	NOTE(s, mdscr_el1);
	NOTE(s, mdccint_el1);
	NOTE(s, oslsr_el1);
	NOTE(s, dbgbvr0_el1);
	NOTE(s, dbgbcr0_el1);
	NOTE(s, dbgwvr0_el1);
	NOTE(s, dbgwcr0_el1);
}

/* The virtual counter lies between two reads of the physical one: offset 0. */
static u64 counters_agree(void)
{
	u64 before, virtual, after;

	isb();
	before = read_sysreg(cntpct_el0);
	isb();
	virtual = read_sysreg(cntvct_el0);
	isb();
	after = read_sysreg(cntpct_el0);
	return before <= virtual && virtual <= after;
}

static void note_timer(struct verdigris_raw_snapshot *s)
{
	NOTE(s, cntfrq_el0);
	NOTE(s, cntkctl_el1);
	NOTE(s, cntv_ctl_el0);
	NOTE(s, cntv_cval_el0);
	note(s, "counters agree", counters_agree());
}

/* A digest is enough to see a change, and nothing to forge a pointer with. */
static u64 digest(u64 low, u64 high)
{
	return hash_64(low, 16) << 16 | hash_64(high, 16);
}

static void note_keys(struct verdigris_raw_snapshot *s)
{
	/* APA, API, GPA, GPI of ID_AA64ISAR1_EL1; APA3, GPA3 of ISAR2. */
	u64 isar1 = read_sysreg(id_aa64isar1_el1) & (GENMASK(11, 4) | GENMASK(31, 24));
	u64 isar2 = read_sysreg_s(SYS_ID_AA64ISAR2_EL1) & GENMASK(15, 8);

	if (!isar1 && !isar2)
		return;
	note(s, "key ia", digest(read_sysreg_s(PAC_IA_LO), read_sysreg_s(PAC_IA_HI)));
	note(s, "key db", digest(read_sysreg_s(PAC_DB_LO), read_sysreg_s(PAC_DB_HI)));
	note(s, "key ga", digest(read_sysreg_s(PAC_GA_LO), read_sysreg_s(PAC_GA_HI)));
}

/**
 * raw_snapshot() - reads the registers of the current CPU
 * @snapshot: zeroed; receives them
 */
void raw_snapshot(struct verdigris_raw_snapshot *snapshot)
{
	preempt_disable();
	snapshot->cpu = smp_processor_id();
	note_control(snapshot);
	note_identity(snapshot);
	note_debug(snapshot);
	note_timer(snapshot);
	note_keys(snapshot);
	/* ID_AA64PFR0_EL1.SVE */
	if (read_sysreg(id_aa64pfr0_el1) & GENMASK(35, 32))
		note(snapshot, "zcr_el1", read_sysreg_s(ZCR));
	preempt_enable();
}
