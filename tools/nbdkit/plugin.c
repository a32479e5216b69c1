/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbdkit's plugin "vdisk": serves the disk in an image, through whatever encryption, chain or snapshot, to NBD clients. All
 * clients share one open image, on which every call may be made from any thread. Parameters and keys are config.c's.
 *
 * P1  Nothing is written to any file unless read-write was given; nbdkit -r forbids it on top of that.
 * P2  What a client flushes is durable for all clients: a flush is the image's, not a connection's.
 * P3  What opening and closing came to goes to report-fd, if there is one, as one struct vd_error each: vdisk serve
 *     listens there, and both are built from one vdisk.h.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "config.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define EXTENTS 128
/* nbdkit(3) wants a power of two from 512 to 32 MiB. Above 64 KiB no format is the faster for it. */
#define PREFERRED_LEAST 4096u
#define PREFERRED_MOST 65536u

static struct config config = { .report_fd = -1 };
static struct vd_image *image;
static uint32_t preferred_size;
static bool zeros_fast;         /* zeros take no writing of them */
static bool close_failed;

/* ---- failures -------------------------------------------------------------------------------------------- */

static int errno_of(const struct vd_error *e)
{
	switch (e->code) {
	case VD_ENOMEM: return ENOMEM;
	case VD_ENOSPC: return ENOSPC;
	case VD_EREADONLY: return EROFS;
	case VD_EARG:
	case VD_ERANGE: return EINVAL;
	default: return EIO;
	}
}

static int refuse(const struct vd_error *e)
{
	nbdkit_error("%s", e->message);
	if (e->hint[0])
		nbdkit_error("hint: %s", e->hint);
	nbdkit_set_error(errno_of(e));
	return -1;
}

/* 0 or -1. A pipe takes so little whole. Nobody being there any more is no failure of the image. */
static int report(int r, const struct vd_error *e)
{
	struct vd_error said = { 0 };

	if (config.report_fd < 0)
		return r < 0 ? refuse(e) : 0;
	if (r < 0)
		said = *e;
	(void)!write(config.report_fd, &said, sizeof(said));
	return r < 0 ? -1 : 0;
}

/* ---- from the command line to the first client ----------------------------------------------------------- */

static int take_parameter(const char *key, const char *value)
{
	return config_take(&config, key, value);
}

static int parameters_complete(void)
{
	return config_complete(&config);
}

static uint32_t clamp_to_power(uint32_t n)
{
	uint32_t p = PREFERRED_LEAST;

	while (p < n && p < PREFERRED_MOST)
		p *= 2;
	return p;
}

/* A container holds zeros as ciphertext, and some formats have none over a parent. */
static bool has_zero_tables(const struct vd_info *info)
{
	if (info->is_container)
		return false;
	return !vd_image_parent(image) || !strcmp(info->format, "qcow2") || !strcmp(info->format, "vhdx");
}

static int open_image(struct vd_error *e)
{
	struct vd_info info = { .struct_size = sizeof(info) };
	int r = vd_image_open(config.file, &config.opts, &image, e);

	if (r == 0)
		r = vd_image_info(image, &info, e);
	if (r < 0)
		return r;
	preferred_size = clamp_to_power(info.cluster_size);
	zeros_fast = has_zero_tables(&info);
	return 0;
}

/*
 * A trial, after which nothing is open: from here on nbdkit may fork, and neither secrets nor locks go from process to
 * process. Here the user still sees what is wrong; who gets reports sees that later, too.
 */
static int get_ready(void)
{
	struct vd_error e = { 0 };
	int r = config.report_fd < 0 ? open_image(&e) : 0;

	vd_image_abort(image);
	image = NULL;
	if (r == 0)
		r = config_carry_keys(&config, &e);
	return r < 0 ? refuse(&e) : 0;
}

static int after_fork(void)
{
	struct vd_error e = { 0 };
	int r = config_regain_keys(&config, &e);

	/* The volume key will be in this process's memory: no core file, and no other process of this user looks in. */
	if (config.opts.n_keys)
		prctl(PR_SET_DUMPABLE, 0);
	if (r == 0)
		r = open_image(&e);
	config_free_keys(&config);
	return report(r, &e);
}

static void cleanup(void)
{
	struct vd_error e = { 0 };
	int r = image ? vd_image_close(image, &e) : 0;

	image = NULL;
	close_failed = report(r, &e) < 0;
}

/* nbdkit asks nobody whether cleaning up went well: who waits for this process has to know. */
static void unload(void)
{
	config_free_keys(&config);
	vd_image_abort(image);
	if (close_failed)
		_exit(EXIT_FAILURE);
}

static void dump_plugin(void)
{
	printf("vdisk_version=%s\n", vd_version());
	for (size_t i = 0; vd_format_name(i); i++)
		printf("vdisk_format_%s=%s\n", vd_format_name(i), vd_format_is_writable(vd_format_name(i)) ? "rw" : "ro");
}

/* ---- what clients may ask for ---------------------------------------------------------------------------- */

static void *open_connection(int readonly)
{
	/* All that differs between connections is whether nbdkit lets them write, and that it knows itself. */
	(void)readonly;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t get_size(void *handle)
{
	(void)handle;
	return (int64_t)vd_image_size(image);
}

static int can_write(void *handle)
{
	(void)handle;
	return (config.opts.flags & VD_OPEN_WRITE) != 0;
}

static int yes(void *handle)
{
	(void)handle;
	return 1;
}

/* nbdkit reads, which leaves the host's files in memory. */
static int can_cache(void *handle)
{
	(void)handle;
	return NBDKIT_CACHE_EMULATE;
}

static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = 1;
	*preferred = preferred_size;
	*maximum = UINT32_MAX;
	return 0;
}

/* ---- requests; FUA is a flush after them, which nbdkit asks for ------------------------------------------- */

static int read_disk(void *handle, void *buf, uint32_t count, uint64_t off, uint32_t flags)
{
	struct vd_error e;

	(void)handle;
	(void)flags;
	return vd_image_pread(image, buf, count, off, &e) < 0 ? refuse(&e) : 0;
}

static int write_disk(void *handle, const void *buf, uint32_t count, uint64_t off, uint32_t flags)
{
	struct vd_error e;

	(void)handle;
	(void)flags;
	return vd_image_pwrite(image, buf, count, off, &e) < 0 ? refuse(&e) : 0;
}

static int flush(void *handle, uint32_t flags)
{
	struct vd_error e;

	(void)handle;
	(void)flags;
	return vd_image_flush(image, &e) < 0 ? refuse(&e) : 0;
}

static int trim(void *handle, uint32_t count, uint64_t off, uint32_t flags)
{
	struct vd_error e;

	(void)handle;
	(void)flags;
	return vd_image_discard(image, off, count, &e) < 0 ? refuse(&e) : 0;
}

static int zero(void *handle, uint32_t count, uint64_t off, uint32_t flags)
{
	bool may_trim = flags & NBDKIT_FLAG_MAY_TRIM;
	struct vd_error e;

	(void)handle;
	if (flags & NBDKIT_FLAG_FAST_ZERO && !(zeros_fast && may_trim)) {
		nbdkit_set_error(EOPNOTSUPP);
		return -1;
	}
	return vd_image_write_zeroes(image, off, count, may_trim ? 0 : VD_ZERO_ALLOCATED, &e) < 0 ? refuse(&e) : 0;
}

/* What is not said to be zero has to be read: in a container even what nobody ever wrote is noise, and always the same. */
static uint32_t state_of(const struct vd_extent *x)
{
	bool is_data = x->flags & (VD_EXTENT_DATA | VD_EXTENT_PACKED);

	if (is_data || x->flags & VD_EXTENT_ENCRYPTED)
		return 0;
	return NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
}

static int extents(void *handle, uint32_t count, uint64_t off, uint32_t flags, struct nbdkit_extents *list)
{
	struct vd_extent x[EXTENTS];
	uint64_t end = off + count;
	struct vd_error e;
	size_t n;

	(void)handle;
	do {
		if (vd_image_extents(image, off, end - off, x, EXTENTS, &n, &e) < 0)
			return refuse(&e);
		for (size_t i = 0; i < n; i++) {
			if (nbdkit_add_extent(list, x[i].off, x[i].len, state_of(&x[i])) < 0)
				return -1;
			off = x[i].off + x[i].len;
		}
	} while (off < end && !(flags & NBDKIT_FLAG_REQ_ONE));
	return 0;
}

static struct nbdkit_plugin plugin = {
	.name = "vdisk",
	.longname = "virtual disk images, encrypted or not",
	.description = "qcow2, VMDK, VHD, VHDX, raw and OVA, with backing files, snapshots and LUKS",
	.unload = unload,
	.config = take_parameter,
	.config_complete = parameters_complete,
	.config_help = config_help,
	.magic_config_key = "file",
	.get_ready = get_ready,
	.after_fork = after_fork,
	.cleanup = cleanup,
	.dump_plugin = dump_plugin,
	.open = open_connection,
	.get_size = get_size,
	.can_write = can_write,
	.can_multi_conn = yes,
	.can_fast_zero = yes,
	.can_cache = can_cache,
	.block_size = block_size,
	.pread = read_disk,
	.pwrite = write_disk,
	.flush = flush,
	.trim = trim,
	.zero = zero,
	.extents = extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
