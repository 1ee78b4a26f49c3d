/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The raw hypercall device, /dev/verdigris-raw: for the test suite and for
 * fuzzing.  It exists where the module was loaded with raw=1, is open to root
 * alone, and is refused under kernel lockdown.
 *
 * All fields are 64 or 32 bits wide and naturally aligned, so that the layout
 * is the same for every caller.
 */
#ifndef VERDIGRIS_RAW_H
#define VERDIGRIS_RAW_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct verdigris_raw_call - one hypercall, as the firmware sees it
 * @x: x0 to x17, in and out
 */
struct verdigris_raw_call {
	__u64 x[18];
};

/**
 * struct verdigris_raw_pages - memory that doesn't move
 * @order: in: log2 of the pages of a chunk, which is contiguous and naturally
 *	aligned
 * @count: in: number of chunks
 * @addresses: in: where to store the physical address of each chunk, a user
 *	pointer to @count times __u64
 * @id: out: names the allocation; mmap() finds it at offset
 *	@id << VERDIGRIS_RAW_ID_SHIFT, one chunk after the other
 */
struct verdigris_raw_pages {
	__u32 order;
	__u32 count;
	__u64 addresses;
	__u64 id;
};

#define VERDIGRIS_RAW_ID_SHIFT 32

/**
 * struct verdigris_raw_register - a system register of the host's
 * @name: as the architecture spells it, padded with zeros
 * @value: what it holds; of keys only a digest
 */
struct verdigris_raw_register {
	char name[24];
	__u64 value;
};

#define VERDIGRIS_RAW_REGISTERS 48

/**
 * struct verdigris_raw_snapshot - system registers that no guest may change
 * @cpu: out: the CPU they were read on
 * @count: out: how many of @registers are in use
 * @registers: out
 */
struct verdigris_raw_snapshot {
	__u32 cpu;
	__u32 count;
	struct verdigris_raw_register registers[VERDIGRIS_RAW_REGISTERS];
};

/**
 * struct verdigris_raw_touch - one access of the kernel's own to an allocation
 * @id: in: the allocation
 * @page: in: which page of it
 * @offset: in: where in the page, at most 8 bytes before its end
 * @write: in: 0 to read, 1 to write
 * @value: what to write, or what was read
 */
struct verdigris_raw_touch {
	__u64 id;
	__u64 page;
	__u32 offset;
	__u32 write;
	__u64 value;
};

#define VERDIGRIS_RAW_MAGIC 0xE2

/* Makes one hypercall on the current CPU.  The status is in x0. */
#define VERDIGRIS_RAW_CALL \
	_IOWR(VERDIGRIS_RAW_MAGIC, 0, struct verdigris_raw_call)
/* Allocates zeroed pages. */
#define VERDIGRIS_RAW_PAGES_ALLOC \
	_IOWR(VERDIGRIS_RAW_MAGIC, 1, struct verdigris_raw_pages)
/*
 * Frees the allocation with that id.  EBUSY while one of its pages is mapped
 * here, shared with a VM or donated: then nothing is freed.
 */
#define VERDIGRIS_RAW_PAGES_FREE \
	_IOW(VERDIGRIS_RAW_MAGIC, 2, __u64)
/* Reads the registers of the current CPU. */
#define VERDIGRIS_RAW_SNAPSHOT \
	_IOR(VERDIGRIS_RAW_MAGIC, 3, struct verdigris_raw_snapshot)
/*
 * Reads or writes 8 bytes by the kernel's own map of all memory.  EFAULT if
 * the access faults and the kernel's exception tables mend that.
 */
#define VERDIGRIS_RAW_TOUCH \
	_IOWR(VERDIGRIS_RAW_MAGIC, 4, struct verdigris_raw_touch)

#endif
