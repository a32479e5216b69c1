/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What happens to host space between the end of its quarantine and its next use: the driver says what of it has no owner
 * left, the bytes of that are overwritten if the image is open so or they are in clear, and the host gets back what was discarded. When a
 * quarantine ends is core/space.h's.
 *
 * F1  Until freed() the driver owns the space, so nobody is given it while it is overwritten, and a crash leaks it.
 * F2  Bytes are overwritten, and that is flushed, before anything makes a hole of them: a hole alone leaves them on the disk.
 */
#include "libvdisk/core/image.h"

#include <stdlib.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define CHUNK (1u << 20)

static int overwrite(struct vd_image *img, const struct vd_range *range, struct vd_error *e)
{
	static const uint8_t zeros[CHUNK];
	struct vd_io *io = vd_set_io(img->set, range->file);
	uint64_t at = range->host_off, end = range->host_off + range->len, size;
	int r = vd_io_size(io, &size, e);

	/* The last cluster may be cut short by the end of the file. */
	end = vd_min_u64(end, size);
	for (uint64_t n = 0; at < end && r == 0; at += n) {
		bool is_data = true;

		/* A hole has no bytes, and would get room by being overwritten. */
		r = vd_io_extent(io, at, &is_data, &n, e);
		n = vd_min_u64(n, is_data ? vd_min_u64(CHUNK, end - at) : end - at);
		if (r == 0 && is_data)
			r = vd_set_pwrite(img->set, range->file, zeros, n, at, e);
	}
	return r;
}

static int scrub(struct vd_image *img, const struct vd_space_batch *b, struct vd_error *e)
{
	int r = 0;

	bool any = false;

	for (size_t i = 0; i < b->n && r == 0; i++) {
		if (!img->scrubs && !b->ranges[i].in_clear)
			continue;
		r = overwrite(img, &b->ranges[i], e);
		any = true;
	}
	return r < 0 || !any ? r : vd_set_flush(img->set, e);
}

static int give_to_host(struct vd_image *img, const struct vd_space_batch *b, struct vd_error *e)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct vd_range *range = &b->ranges[i];
		int r = range->to_host ? vd_set_punch(img->set, range->file, range->host_off, range->len, e) : 0;

		if (r < 0 && r != VD_EUNSUPPORTED)
			return r;
	}
	return 0;
}

static bool needs_care(const struct vd_image *img, const struct vd_range *range)
{
	return img->scrubs || range->to_host || range->in_clear;
}

static int disown(struct vd_image *img, const struct vd_range *range, struct vd_space_batch *last, struct vd_error *e)
{
	if (!needs_care(img, range))
		return img->format->freed(img->state, range, e);
	if (!img->format->disown)
		return vd_space_batch_add(last, *range, e);
	return img->format->disown(img->state, range, last, e);
}

static int disown_all(struct vd_image *img, const struct vd_space_batch *b, struct vd_space_batch *last, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&img->alloc);
	int r = 0;

	for (size_t i = 0; i < b->n && r == 0; i++)
		r = disown(img, &b->ranges[i], last, e);
	return r;
}

static int free_all(struct vd_image *img, const struct vd_space_batch *b, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&img->alloc);
	int r = 0;

	for (size_t i = 0; i < b->n && r == 0; i++)
		r = img->format->freed(img->state, &b->ranges[i], e);
	return r;
}

int vd_image_free_space(struct vd_image *img, struct vd_space_batch *b, struct vd_error *e)
{
	struct vd_space_batch last = { 0 };
	int r;

	if (!b->n)
		return 0;
	vd_space_wait_readers(img->space);
	r = disown_all(img, b, &last, e);
	if (r == 0 && last.n)
		r = scrub(img, &last, e);
	if (r == 0 && last.n)
		r = give_to_host(img, &last, e);
	if (r == 0 && last.n)
		r = free_all(img, &last, e);
	/* Even for want of memory: what was not overwritten may not be forgotten. */
	if (r < 0)
		atomic_store(&img->poisoned, true);
	free(last.ranges);
	free(b->ranges);
	return r;
}
