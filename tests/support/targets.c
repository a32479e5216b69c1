/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes, opens and fills the images of the table. What must hold of them is for the tests to say. */
#include "tests/support/targets.h"

#define KEY "battery staple"
#define KDF { .iterations = 1000 }      /* the least that LUKS allows: keys are not what is tried here */
#define KIB 1024

#define RAW &vd_format_raw
#define TOY &vd_format_toy
#define QCOW2 &vd_format_qcow2
#define VMDK &vd_format_vmdk
#define VHD &vd_format_vhd
#define VHDX &vd_format_vhdx

const struct target targets[] = {
	{ "raw", RAW, false, false, { 0 } },
	{ "toy", TOY, false, false, { 0 } },
	{ "qcow2", QCOW2, false, false, { 0 } },
	{ "qcow2 512", QCOW2, false, false, { .cluster_size = 512 } },
	{ "qcow2 2M", QCOW2, false, false, { .cluster_size = 2048 * KIB } },
	{ "qcow2 v2", QCOW2, false, false, { .flags = VD_CREATE_COMPAT_V2 } },
	{ "qcow2 extended l2", QCOW2, false, false, { .flags = VD_CREATE_EXTENDED_L2 } },
	{ "qcow2 data file", QCOW2, false, false, { .data_file = "y" } },
	{ "qcow2 deflate", QCOW2, false, true, { .compression = VD_COMPRESSION_DEFLATE } },
	{ "qcow2 zstd", QCOW2, false, true, { .compression = VD_COMPRESSION_ZSTD, .cluster_size = 16 * KIB } },
	{ "qcow2 luks", QCOW2, true, false, { .kdf = KDF } },
	{ "qcow2 luks 512", QCOW2, true, false, { .kdf = KDF, .cluster_size = 512 } },
	{ "vhd", VHD, false, false, { 0 } },
	{ "vhd 4k", VHD, false, false, { .cluster_size = 4 * KIB } },
	{ "vhd fixed", VHD, false, false, { .subformat = "fixed" } },
	{ "vmdk", VMDK, false, false, { 0 } },
	{ "vmdk 4k", VMDK, false, false, { .cluster_size = 4 * KIB } },
	{ "vmdk flat", VMDK, false, false, { .subformat = "monolithicFlat" } },
	{ "vmdk in parts", VMDK, false, false, { .subformat = "twoGbMaxExtentSparse" } },
	{ "vmdk stream", VMDK, false, true, { .subformat = "streamOptimized" } },
	{ "vmdk stream luks1", VMDK, true, true, { .subformat = "streamOptimized", .luks_type = VD_LUKS1, .kdf = KDF } },
	{ "vmdk luks1", VMDK, true, false, { .luks_type = VD_LUKS1, .kdf = KDF } },
	{ "vhdx", VHDX, false, false, { 0 } },
	{ "vhdx luks1", VHDX, true, false, { .luks_type = VD_LUKS1, .kdf = KDF } },
	{ "vhdx 1M", VHDX, false, false, { .cluster_size = 1024 * KIB } },
	{ "vhdx fixed", VHDX, false, false, { .subformat = "fixed", .cluster_size = 1024 * KIB } },
	{ "luks1", RAW, true, false, { .luks_type = VD_LUKS1, .kdf = KDF } },
	{ "luks2 4096", RAW, true, false,
	  { .luks_type = VD_LUKS2, .luks_sector_size = 4096, .kdf = { .iterations = 4, .memory_kib = 64 } } },
};
const size_t n_targets = sizeof(targets) / sizeof(targets[0]);

const struct target *target_named(const char *name)
{
	for (size_t i = 0; i < n_targets; i++)
		if (!strcmp(targets[i].name, name))
			return &targets[i];
	fail_msg("there is no target '%s'", name);
	return NULL;
}

/* One for all, made before any test takes memory away. */
static struct vd_key *key_of(const struct target *t)
{
	static struct vd_key *key;

	if (!key)
		assert_int_equal(vd_key_from_bytes(KEY, strlen(KEY), &key, NULL), 0);
	return t->encrypts ? key : NULL;
}

int target_create(const struct target *t, struct vd_host *host, const char *name, uint64_t size, struct vd_image **img,
		  struct vd_error *e)
{
	struct vd_create_opts opts = t->opts;

	opts.struct_size = sizeof(opts);
	opts.format = t->format->name;
	opts.flags |= VD_CREATE_REPLACE;
	opts.size = size;
	opts.gate = disks_gate;
	opts.key = key_of(t);
	return vd_image_create_on(host, t->format, name, &opts, img, e);
}

struct vd_image *target_open(const struct target *t, const char *name)
{
	struct vd_open_opts opts = disk_open_opts(t->format, 0);
	struct vd_key *key = key_of(t);
	struct vd_image *img = NULL;
	struct vd_error e;

	if (key && t->format == &vd_format_raw)
		opts.format = "luks";
	opts.keys = &key;
	opts.n_keys = key ? 1 : 0;
	expect_ok(vd_image_open_on(disks.host, t->format, name, &opts, &img, &e), &e);
	return img;
}

struct vd_outcome target_copy(const struct target *t, struct vd_image *src, const char *name, uint64_t size,
			      unsigned n_threads)
{
	const struct vd_job job = { .struct_size = sizeof(job), .n_threads = n_threads };
	struct vd_outcome o = { .struct_size = sizeof(o) };
	struct vd_image *dst = NULL;
	struct vd_error e;

	expect_ok(target_create(t, disks.host, name, size ? size : vd_image_size(src), &dst, &e), &e);
	expect_ok(vd_image_copy(src, dst, t->compresses, &job, &o, &e), &e);
	disk_commit(dst);
	disk_close(dst);
	return o;
}
