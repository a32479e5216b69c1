/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes a disk's size. A larger one is made behind its end first: tables that reach, zeros where the parent or the
 * last unit's rest would show through. Only then its size is said, so that a crash leaves the old disk or the new.
 */
#include "libvdisk/core/bitmap.h"
#include "libvdisk/core/shape.h"

#include "libvdisk/base/checked.h"

struct request {
	uint64_t size;                  /* guest-visible */
	unsigned flags;
};

/* Zeros in the rest of the last unit are payload: without the key they cannot be made. */
static int judge_tail(struct vd_image *img, uint64_t from, struct vd_error *e)
{
	struct vd_run run;
	size_t one = 1;
	int r;

	if (!img->layer.encryption || img->layer.cipher)
		return 0;
	r = img->format->map(img->state, from + img->layer.payload_off, 1, 0, &run, &one, e);
	if (r < 0 || (run.where == VD_HOLE && !img->parent_missing && !img->parent) || run.where == VD_ZERO)
		return r;
	vd_fail(e, VD_ENOKEY, "%s: the rest of its last cluster has to be made zeros, which takes the key", img->path);
	return vd_hint(e, VD_ENOKEY, "give the key, as for reading the disk");
}

static int zero_behind(struct vd_image *img, uint64_t from, uint64_t to, struct vd_error *e)
{
	int r = 0;

	for (uint64_t n; from < to && r == 0; from += n) {
		n = vd_min_u64(to - from, (uint64_t)1 << 30);
		r = vd_write_zeroes(img, from, n, 0, e);
		if (r == 0)
			r = vd_write_relieve(img, e);
	}
	return r;
}

/* Whole units behind the end, as far as the parent has bytes there. */
static int hide_parent(struct vd_image *img, uint64_t from, uint64_t size, struct vd_error *e)
{
	uint64_t to = img->parent ? vd_min_u64(size, img->parent->size) : size;

	if (!img->parent && !img->parent_missing)
		return 0;
	return zero_behind(img, from, vd_round_up(to, img->info.unit), e);
}

static int grow(struct vd_image *img, uint64_t size, struct vd_error *e)
{
	uint64_t unit_end = vd_min_u64(vd_round_up(img->size, img->info.unit), size);
	int r = 0;

	if (unit_end > img->size)
		r = judge_tail(img, img->size, e);
	if (r == 0 && img->format->reach)
		r = img->format->reach(img->state, size + img->layer.payload_off, e);
	if (r == 0 && !img->layer.is_container && img->format->reach)
		r = zero_behind(img, img->size, unit_end, e);
	if (r == 0 && img->format->reach)
		r = hide_parent(img, unit_end, size, e);
	if (r == 0)
		r = vd_shape_settle(img, e);
	return r < 0 ? r : img->format->resize(img->state, size + img->layer.payload_off, e);
}

static int judge_request(const struct vd_image *img, const struct request *q, struct vd_error *e)
{
	uint64_t ignored;

	if (!img->format->resize)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the size of an image of format %s cannot be changed", img->path,
			       img->format->name);
	if (!vd_add_u64(q->size, img->layer.payload_off, &ignored) || q->size > INT64_MAX)
		return vd_fail(e, VD_EARG, "%s: a size of %llu bytes is too large", img->path, (unsigned long long)q->size);
	if (img->layer.encryption && q->size % img->layer.sector_size)
		return vd_fail(e, VD_EARG, "%s: the size of an encrypted disk is a multiple of %u bytes", img->path,
			       img->layer.sector_size);
	if (q->size >= img->size || q->flags & VD_RESIZE_SHRINK)
		return 0;
	vd_fail(e, VD_EARG, "%s: the disk has %llu bytes: those past %llu would be lost", img->path,
		(unsigned long long)img->size, (unsigned long long)q->size);
	return vd_hint(e, VD_EARG, "make the file system inside smaller first, then ask for it with --shrink");
}

static int resize(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct request *q = arg;
	uint64_t was = img->info.size;
	int r = judge_request(img, q, e);

	if (r < 0 || q->size == img->size)
		return r;
	r = vd_bitmap_before_act(img, e);
	if (r == 0 && q->size > img->size)
		r = grow(img, q->size, e);
	else if (r == 0)
		r = img->format->resize(img->state, q->size + img->layer.payload_off, e);
	return vd_bitmap_after_act(img, r, was, UINT64_MAX, e);
}

VD_PUBLIC int vd_image_resize(struct vd_image *img, uint64_t size, unsigned flags, struct vd_error *e)
{
	struct request q = { size, flags };

	return vd_shape_run(img, resize, &q, e);
}
