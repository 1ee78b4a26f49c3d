/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The firmware at EL2: finding it, and calling it.
 */
#ifndef VERDIGRIS_FIRMWARE_H
#define VERDIGRIS_FIRMWARE_H

#include <linux/arm-smccc.h>
#include <linux/types.h>

#include "verdigris_abi.h"

/* Bit 16 of a function identifier is a hint, no part of it (DEN 0028, 2.5.1) */
#define VERDIGRIS_CALL_HINTS BIT(16)

int verdigris_find_firmware(void);
int verdigris_host_reset(void);
int verdigris_vm_destroy(u64 vm);
int verdigris_added_register(void);
void verdigris_added_unregister(void);
unsigned long verdigris_page_shares(phys_addr_t pa);
bool verdigris_page_is_foreign(phys_addr_t pa);
bool verdigris_page_is_free(phys_addr_t pa);

#endif
