// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_GET_STATS_FD: counters that name themselves.
 *
 * A file of statistics has a header, an id, a description of each counter, and
 * the values.  Each read makes all of it anew, and shows the part that was
 * asked for: it is a few KiB, and nothing has to be kept in step.
 *
 * A VM's file has the driver's counters, then, with "fw_" before their names,
 * all that the firmware keeps for the VM.  Those names come from the header of
 * the interface, where the numbers come from too.
 */
#include <linux/anon_inodes.h>
#include <linux/debugfs.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "calls.h"
#include "kvm.h"

/* Room for a name, as in KVM's files; the structure has it within the kernel, and not outside. */
#define NAME_BYTES sizeof_field(struct kvm_stats_desc, name)

struct counter {
	const char *name;
	bool is_gauge; /* says what is, not what was */
};

static const struct counter vm_counters[] = {
	[VG_STAT_INVALIDATE_START] = { "invalidate_start" },
	[VG_STAT_CLEAR_FLUSH_YOUNG] = { "clear_flush_young" },
	[VG_STAT_CLEAR_YOUNG] = { "clear_young" },
	[VG_STAT_TEST_YOUNG] = { "test_young" },
	[VG_STAT_YOUNG_ANSWERS] = { "young_answers" },
	[VG_STAT_WINDOW_FETCHES] = { "window_fetches" },
	[VG_STAT_WINDOW_TESTS] = { "window_tests" },
	[VG_STAT_WINDOW_HITS] = { "window_hits" },
	[VG_STAT_EPOCH_FLUSHES] = { "epoch_flushes" },
	[VG_STAT_INVALIDATE_CALLS] = { "invalidate_calls" },
	[VG_STAT_FAULTS] = { "faults" },
	[VG_STAT_MAPS] = { "maps" },
	[VG_STAT_PAGES_MAPPED] = { "pages_mapped" },
	[VG_STAT_PAGES_AROUND] = { "pages_around" },
	[VG_STAT_BLOCKS_MAPPED] = { "blocks_mapped" },
	[VG_STAT_REFUSALS] = { "refusals" },
	[VG_STAT_WAITS] = { "waits" },
	[VG_STAT_LOOKUPS_FAILED] = { "lookups_failed" },
	[VG_STAT_POISONED] = { "poisoned" },
	[VG_STAT_PAGES_DONATED] = { "pages_donated", .is_gauge = true },
};
static_assert(ARRAY_SIZE(vm_counters) == VG_STATS);

static const char *const fw_names[] = { VERDIGRIS_STAT_NAMES };

/* In the order of struct vg_vcpu_stats; names that KVM has too mean the same. */
static const struct counter vcpu_counters[] = {
	{ "exits" },
	{ "fault_exits" },
	{ "mmio_exit_user" },
	{ "mmio_exit_kernel" },
	{ "signal_exits" },
	{ "interrupt_exits" },
	{ "hvc_exit_stat" },
	{ "wfi_exit_stat" },
	{ "wfe_exit_stat" },
};
static_assert(sizeof(struct vg_vcpu_stats) == ARRAY_SIZE(vcpu_counters) * sizeof(u64));

/* What a file shows, in this order. */
struct image {
	struct kvm_stats_header *header;
	char *id;
	struct kvm_stats_desc *descriptions;
	u64 *values;
	size_t size;
};

static int image_new(struct image *image, unsigned int count)
{
	size_t id = sizeof(struct kvm_stats_header);
	size_t descriptions = id + NAME_BYTES;
	size_t values = descriptions + count * sizeof(struct kvm_stats_desc);
	void *memory = kvzalloc(values + count * sizeof(u64), GFP_KERNEL);

	if (!memory)
		return -ENOMEM;
	*image = (struct image) {
		.header = memory,
		.id = memory + id,
		.descriptions = memory + descriptions,
		.values = memory + values,
		.size = values + count * sizeof(u64),
	};
	*image->header = (struct kvm_stats_header) {
		.name_size = NAME_BYTES,
		.num_desc = count,
		.id_offset = id,
		.desc_offset = descriptions,
		.data_offset = values,
	};
	return 0;
}

static void describe(struct image *image, unsigned int index, const char *prefix,
		     const char *name, bool is_gauge)
{
	struct kvm_stats_desc *to = image->descriptions + index;

	to->flags = KVM_STATS_UNIT_NONE | KVM_STATS_BASE_POW10 |
		    (is_gauge ? KVM_STATS_TYPE_INSTANT : KVM_STATS_TYPE_CUMULATIVE);
	to->size = 1;
	to->offset = index * sizeof(u64);
	snprintf(to->name, NAME_BYTES, "%s%s", prefix, name);
}

/* Those that docs/abi.md says to tell what is at this moment. */
static bool is_fw_gauge(unsigned int index)
{
	switch (index) {
	case VERDIGRIS_STAT_TABLE_PAGES:
	case VERDIGRIS_STAT_FREE_TABLE_PAGES:
	case VERDIGRIS_STAT_PAGES_MAPPED:
	case VERDIGRIS_STAT_TABLE_PAGES_PER_GIB:
		return true;
	default:
		return false;
	}
}

static int ask_firmware(u64 vm, u64 *values)
{
	u64 some[VERDIGRIS_STATS_PER_CALL], all;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fw_names); i++) {
		if (i % VERDIGRIS_STATS_PER_CALL == 0 && vg_call_statistics(vm, i, &all, some))
			return -EIO;
		values[i] = some[i % VERDIGRIS_STATS_PER_CALL];
	}
	return 0;
}

static int fill_vm(struct image *image, struct vg_vm *vm)
{
	unsigned int i;

	strscpy(image->id, vm->stats_id, NAME_BYTES);
	for (i = 0; i < VG_STATS; i++) {
		describe(image, i, "", vm_counters[i].name, vm_counters[i].is_gauge);
		image->values[i] = atomic64_read(&vm->stats[i]);
	}
	for (i = 0; i < ARRAY_SIZE(fw_names); i++)
		describe(image, VG_STATS + i, "fw_", fw_names[i], is_fw_gauge(i));
	return ask_firmware(vm->handle, image->values + VG_STATS);
}

static void fill_vcpu(struct image *image, struct vg_vcpu *vcpu)
{
	const u64 *stats = (const u64 *)&vcpu->stats;
	unsigned int i;

	snprintf(image->id, NAME_BYTES, "%s/vcpu-%u", vcpu->vm->stats_id, vcpu->index);
	for (i = 0; i < ARRAY_SIZE(vcpu_counters); i++) {
		describe(image, i, "", vcpu_counters[i].name, false);
		image->values[i] = READ_ONCE(stats[i]);
	}
}

static ssize_t vm_stats_read(struct file *filp, char __user *user, size_t size, loff_t *offset)
{
	struct image image;
	ssize_t ret = image_new(&image, VG_STATS + ARRAY_SIZE(fw_names));

	if (ret)
		return ret;
	ret = fill_vm(&image, filp->private_data);
	if (!ret)
		ret = simple_read_from_buffer(user, size, offset, image.header, image.size);
	kvfree(image.header);
	return ret;
}

static ssize_t vcpu_stats_read(struct file *filp, char __user *user, size_t size, loff_t *offset)
{
	struct image image;
	ssize_t ret = image_new(&image, ARRAY_SIZE(vcpu_counters));

	if (ret)
		return ret;
	fill_vcpu(&image, filp->private_data);
	ret = simple_read_from_buffer(user, size, offset, image.header, image.size);
	kvfree(image.header);
	return ret;
}

static int vm_stats_release(struct inode *inode, struct file *filp)
{
	vg_vm_put(filp->private_data);
	return 0;
}

static int vcpu_stats_release(struct inode *inode, struct file *filp)
{
	struct vg_vcpu *vcpu = filp->private_data;

	vg_vm_put(vcpu->vm);
	return 0;
}

static const struct file_operations vm_stats_fops = {
	.owner = THIS_MODULE,
	.read = vm_stats_read,
	.release = vm_stats_release,
	.llseek = noop_llseek,
};

static const struct file_operations vcpu_stats_fops = {
	.owner = THIS_MODULE,
	.read = vcpu_stats_read,
	.release = vcpu_stats_release,
	.llseek = noop_llseek,
};

/* The file holds no reference: removing it waits for who reads it. */
static int vm_text_show(struct seq_file *seq, void *unused)
{
	struct image image;
	unsigned int i;
	int ret = image_new(&image, VG_STATS + ARRAY_SIZE(fw_names));

	if (ret)
		return ret;
	ret = fill_vm(&image, seq->private);
	for (i = 0; !ret && i < image.header->num_desc; i++)
		seq_printf(seq, "%-28s %llu\n", image.descriptions[i].name, image.values[i]);
	kvfree(image.header);
	return ret;
}
DEFINE_SHOW_ATTRIBUTE(vm_text);

/**
 * vg_vm_stats_show() - shows the statistics of a VM in debugfs, as text
 * @vm: the VM, known to the firmware
 *
 * The file's name is that of its process and its handle: a process can have several.
 */
void vg_vm_stats_show(struct vg_vm *vm)
{
	char name[48];

	snprintf(name, sizeof(name), "%s-%llx", vm->stats_id, vm->handle);
	vm->stats_file = debugfs_create_file(name, 0400, vg_debug_folder, vm, &vm_text_fops);
}

/**
 * vg_vm_stats_hide() - takes that file away
 * @vm: the VM, which may have none
 */
void vg_vm_stats_hide(struct vg_vm *vm)
{
	debugfs_remove(vm->stats_file);
}

/* Takes a reference to the VM for the file, which its release gives back. */
static int open_file(const char *name, const struct file_operations *fops, void *private,
		     struct vg_vm *vm)
{
	int fd = get_unused_fd_flags(O_CLOEXEC);
	struct file *file;

	if (fd < 0)
		return fd;
	file = anon_inode_getfile(name, fops, private, O_RDONLY);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	vg_vm_get(vm);
	file->f_mode |= FMODE_PREAD;
	fd_install(fd, file);
	return fd;
}

/**
 * vg_vm_stats_fd() - opens the statistics of a VM
 * @vm: the VM
 *
 * Return: a file descriptor, or an error.
 */
int vg_vm_stats_fd(struct vg_vm *vm)
{
	return open_file("kvm-vm-stats", &vm_stats_fops, vm, vm);
}

/**
 * vg_vcpu_stats_fd() - opens the statistics of a vCPU
 * @vcpu: the vCPU
 *
 * Return: a file descriptor, or an error.
 */
int vg_vcpu_stats_fd(struct vg_vcpu *vcpu)
{
	char name[32];

	snprintf(name, sizeof(name), "kvm-vcpu-stats:%u", vcpu->index);
	return open_file(name, &vcpu_stats_fops, vcpu, vcpu->vm);
}
