// SPDX-License-Identifier: GPL-2.0
/*
 * Named points where a test can have a thread sleep, and exits that no guest can
 * cause.
 *
 * What goes wrong between two steps goes wrong when somebody else comes in
 * between, or when the thread is killed there.  Both are rare by themselves; a
 * test that writes a name to the parameter pause_point makes them the rule.
 * While it is empty, a point is an instruction that does nothing.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/jiffies.h>
#include <linux/jump_label.h>
#include <linux/kernel.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "kvm.h"

DEFINE_STATIC_KEY_FALSE(vg_points_used);
DEFINE_STATIC_KEY_FALSE(vg_unexplained_used);

static const char *const names[] = {
	[VG_POINT_AFTER_LOOKUP] = "after_lookup",
	[VG_POINT_BEFORE_MAP] = "before_map",
	[VG_POINT_AFTER_MAP] = "after_map",
	[VG_POINT_IN_WAIT] = "in_wait",
	[VG_POINT_AFTER_BEGIN] = "after_begin",
	[VG_POINT_BEFORE_SPLIT] = "before_split",
};

#define NOWHERE (-1)
static int pause_at = NOWHERE;

static unsigned int pause_ms = 100;
module_param(pause_ms, uint, 0600);
MODULE_PARM_DESC(pause_ms, "For tests: how long to sleep at pause_point, in ms (default 100)");

static int pause_set(const char *text, const struct kernel_param *unused)
{
	char name[16];
	int point;

	strscpy(name, text, sizeof(name));
	if (!*strim(name)) {
		WRITE_ONCE(pause_at, NOWHERE);
		static_branch_disable(&vg_points_used);
		return 0;
	}
	point = match_string(names, ARRAY_SIZE(names), strim(name));
	if (point < 0)
		return -EINVAL;
	WRITE_ONCE(pause_at, point);
	static_branch_enable(&vg_points_used);
	return 0;
}

static int pause_get(char *text, const struct kernel_param *unused)
{
	int point = READ_ONCE(pause_at);

	return sysfs_emit(text, "%s\n", point == NOWHERE ? "" : names[point]);
}

/* How often a thread slept at each point, so that a test knows that it was there. */
static atomic_t pauses[ARRAY_SIZE(names)];

static int pauses_get(char *text, const struct kernel_param *unused)
{
	int length = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		length += sysfs_emit_at(text, length, "%s %d\n", names[i],
					atomic_read(&pauses[i]));
	return length;
}

static const struct kernel_param_ops pauses_ops = {
	.get = pauses_get,
};
module_param_cb(pauses, &pauses_ops, NULL, 0400);
MODULE_PARM_DESC(pauses, "For tests: how often a thread slept at each pause_point");

static const struct kernel_param_ops pause_ops = {
	.set = pause_set,
	.get = pause_get,
};
module_param_cb(pause_point, &pause_ops, NULL, 0600);
MODULE_PARM_DESC(pause_point,
		 "For tests: sleep at after_lookup, before_map, after_map, in_wait, after_begin or before_split (default none)");

static atomic_t unexplained_exits;

static int unexplained_set(const char *text, const struct kernel_param *unused)
{
	unsigned int count;
	int ret = kstrtouint(text, 0, &count);

	if (ret)
		return ret;
	atomic_set(&unexplained_exits, count);
	if (count)
		static_branch_enable(&vg_unexplained_used);
	else
		static_branch_disable(&vg_unexplained_used);
	return 0;
}

static int unexplained_get(char *text, const struct kernel_param *unused)
{
	return sysfs_emit(text, "%d\n", atomic_read(&unexplained_exits));
}

static const struct kernel_param_ops unexplained_ops = {
	.set = unexplained_set,
	.get = unexplained_get,
};
module_param_cb(unexplained_exits, &unexplained_ops, NULL, 0600);
MODULE_PARM_DESC(unexplained_exits,
		 "For tests: so many of the next faults are taken for what nobody can explain (default 0)");

/**
 * vg_take_unexplained() - tells whether a fault is one of those that a test asked for
 *
 * Return: true as often as the parameter says.
 */
bool vg_take_unexplained(void)
{
	return atomic_dec_if_positive(&unexplained_exits) >= 0;
}

/**
 * vg_point_pause() - sleeps, if this is the point where to
 * @point: which it is
 *
 * A signal that kills ends the sleep.
 */
void vg_point_pause(enum vg_point point)
{
	if (READ_ONCE(pause_at) != point)
		return;
	atomic_inc(&pauses[point]);
	schedule_timeout_killable(msecs_to_jiffies(READ_ONCE(pause_ms)));
}
