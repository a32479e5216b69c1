/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stream-optimized VMDK as it comes by a pipe, copied into a qcow2. What is taken for sound has to be the same disk when the
 * bytes are a file, unless the file's reader, who sees more at once, refuses it.
 */
#include <stdlib.h>
#include <string.h>

#include "libvdisk/core/image.h"
#include "libvdisk/core/incoming.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/io/mem.h"

#define DISK_MAX (4u << 20)             /* larger ones take their time, and say nothing more */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int receive(struct vd_host *host, struct vd_incoming *in, struct vd_error *e)
{
	const struct vd_create_opts o = { .struct_size = sizeof(o), .format = "qcow2", .size = vd_incoming_size(in) };
	const struct vd_job job = { .struct_size = sizeof(job), .n_threads = 1 };
	struct vd_image *dst = NULL;
	int r = vd_image_create_on(host, NULL, "o", &o, &dst, e);

	if (r == 0)
		r = vd_incoming_copy(in, dst, false, &job, NULL, e);
	if (r == 0)
		r = vd_image_commit(dst, e);
	vd_image_abort(dst);
	return r;
}

static void compare_with_file(struct vd_host *host, const uint8_t *data, size_t size)
{
	const struct vd_open_opts o = { .struct_size = sizeof(o), .format = "vmdk" };
	struct vd_compare_report report = { .struct_size = sizeof(report) };
	struct vd_image *file = NULL, *copy = NULL;
	struct vd_error e;

	if (vd_mem_put(host, "f", data, size, &e) == 0 && vd_image_open_on(host, NULL, "f", &o, &file, &e) == 0 &&
	    vd_image_open_on(host, NULL, "o", NULL, &copy, &e) == 0 &&
	    vd_image_compare(file, copy, 0, NULL, &report, &e) == 0 && !report.same)
		abort();
	vd_image_abort(file);
	vd_image_abort(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct vd_incoming_opts o = { .struct_size = sizeof(o), .format = "vmdk" };
	struct vd_incoming *in = NULL;
	struct vd_feed *feed = NULL;
	struct vd_host *host;
	struct vd_error e;

	if (vd_mem_host_new(&host, &e) < 0)
		return 0;
	if (vd_feed_new_bytes((struct vd_bytes){ data, size }, "x", &feed, &e) == 0 && vd_incoming_new(feed, &o, &in, &e) < 0)
		vd_feed_free(feed);
	if (in && vd_incoming_size(in) && vd_incoming_size(in) <= DISK_MAX && receive(host, in, &e) == 0)
		compare_with_file(host, data, size);
	vd_incoming_free(in);
	vd_mem_host_free(host);
	return 0;
}
