// SPDX-License-Identifier: GPL-2.0
/*
 * The Linux driver of the Verdigris firmware.
 *
 * Tables, guest state and world switch are the firmware's.  What is here is
 * what only the host can know.  At load the driver makes sure of the firmware,
 * and has it forget what a former driver or kernel left behind; so a host that
 * died starts clean.
 */
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "firmware.h"
#include "kvm.h"
#include "lifecycle.h"
#include "raw.h"

/* The interface counts in pages of 4 KiB, and so does this driver. */
static_assert(PAGE_SHIFT == 12);

static bool raw;
module_param(raw, bool, 0444);
MODULE_PARM_DESC(raw, "Offer /dev/verdigris-raw, raw hypercalls for root (default off)");

static bool kvm = true;
module_param(kvm, bool, 0444);
MODULE_PARM_DESC(kvm, "Offer /dev/kvm, where nobody else does (default on)");

static int __init verdigris_init(void)
{
	int ret;

	ret = verdigris_find_firmware();
	if (ret)
		return ret;
	ret = verdigris_host_reset();
	if (ret)
		return ret;
	ret = verdigris_added_register();
	if (ret)
		return ret;
	ret = vg_life_register();
	if (ret)
		goto no_life;
	if (raw) {
		ret = raw_register();
		if (ret)
			goto no_raw;
	}
	/*
	 * Last, because it may be opened at once, and then nothing may fail any more.
	 * Without it the module is of use still, and it has told why.
	 */
	if (kvm && vg_kvm_register())
		kvm = false;
	return 0;

no_raw:
	vg_life_unregister();
no_life:
	verdigris_added_unregister();
	return ret;
}
module_init(verdigris_init);

static void __exit verdigris_exit(void)
{
	if (kvm)
		vg_kvm_unregister();
	if (raw)
		raw_unregister();
	vg_life_unregister();
	verdigris_added_unregister();
}
module_exit(verdigris_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Driver of the Verdigris EL2 firmware");
MODULE_AUTHOR("The Verdigris authors");
