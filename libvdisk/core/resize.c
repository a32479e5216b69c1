/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes a disk's size. A larger one is made behind its end first: tables that reach, zeros where the parent or the
 * last unit's rest would show through. Only then its size is said, so that a crash leaves the old disk or the new.
 */
#include "libvdisk/core/bitmap.h"
#include "libvdisk/core/shape.h"
#include "libvdisk/core/walk.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

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

/* ---- smaller -------------------------------------------------------------------------------------------- */

#define TAIL_RUNS 64                    /* pieces of a last unit: no format has more */

/* What the host holds for the part of the last unit that is no disk any more. */
struct tail {
	struct vd_run runs[TAIL_RUNS];
	size_t n;
};

static int find_tail(struct vd_image *img, uint64_t size, struct tail *t, struct vd_error *e)
{
	uint64_t end = vd_min_u64(vd_round_up(size, img->info.unit), img->info.size);
	int r = 0;

	t->n = 0;
	/* A flat file is cut. Without the key zeros cannot be made, only bytes overwritten. */
	if (img->info.is_flat || (img->layer.encryption && !img->layer.cipher && !img->scrubs))
		return 0;
	for (uint64_t at = size; at < end && t->n < TAIL_RUNS && r == 0;) {
		size_t got = TAIL_RUNS - t->n;

		r = img->format->map(img->state, at, end - at, 0, t->runs + t->n, &got, e);
		for (size_t i = 0; i < got && r == 0; i++)
			at += t->runs[t->n++].len;
	}
	return r;
}

static int overwrite_run(struct vd_image *img, const struct vd_run *run, struct vd_error *e)
{
	bool has_host = run->where == VD_DATA || (run->where == VD_ZERO && run->flags & VD_RUN_HOSTED);
	vd_auto_free uint8_t *zeros = NULL;
	int r;

	/* A snapshot may still need them; packed bytes lie beside others. */
	if (!has_host || run->flags & VD_RUN_SHARED)
		return 0;
	r = vd_alloc(1, run->len, &zeros, e);
	if (r == 0)
		r = vd_layer_encrypt(&img->layer, zeros, run->len, run->guest_off, run->host_off, e);
	return r < 0 ? r : vd_set_pwrite(img->set, run->file, zeros, run->len, run->host_off, e);
}

static int overwrite_tail(struct vd_image *img, const struct tail *t, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < t->n && r == 0; i++)
		r = overwrite_run(img, &t->runs[i], e);
	if (r == 0 && t->n)
		r = vd_set_flush(img->set, e);
	if (r == 0)
		return 0;
	vd_fail(e, VD_EPOISONED, "%s: the disk is smaller now, but overwriting the rest of its last cluster failed", img->path);
	return vd_hint(e, VD_EPOISONED, "make sure that the image's disk works; old bytes are left past the end of the guest's");
}

#define PIECE (1u << 20)

static int judge_zeros(struct vd_image *img, uint64_t from, uint64_t to, struct vd_error *e)
{
	vd_auto_free uint8_t *buf = NULL;
	int r = vd_alloc_buffer(PIECE, &buf, e);

	for (uint64_t n; from < to && r == 0; from += n) {
		n = vd_min_u64(to - from, PIECE);
		r = vd_read(img, buf, n, from, e);
		if (r == 0 && !vd_is_zero(buf, n)) {
			vd_fail(e, VD_EUNSUPPORTED, "%s: the disk holds data past the new size, between %llu and %llu", img->path,
				(unsigned long long)from, (unsigned long long)(from + n));
			r = vd_hint(e, VD_EUNSUPPORTED, "an image of this format is only cut where it reads as zeros: vdisk convert makes a smaller one");
		}
	}
	return r;
}

/* By the tables where they can tell, else by reading. */
static int judge_cut(struct vd_image *img, uint64_t size, struct vd_error *e)
{
	vd_auto_free struct vd_walk *w = NULL;
	int r = 0;

	if (!img->format->cuts_zeros_only)
		return 0;
	if (img->layer.encryption && !img->layer.cipher) {
		vd_fail(e, VD_ENOKEY, "%s: whether the disk holds data past the new size cannot be told without the key", img->path);
		return vd_hint(e, VD_ENOKEY, "give the key, as for reading the disk");
	}
	r = vd_alloc(1, sizeof(*w), &w, e);
	if (r == 0)
		r = vd_walk_start_held(w, img, e);
	for (uint64_t at = size, end; at < img->size && r == 0; at = end) {
		struct vd_extent x;

		r = vd_walk_to(w, at, &x, e);
		end = vd_min_u64(vd_extent_end(&x), img->size);
		if (r == 0 && !vd_extent_is_zero(&x))
			r = judge_zeros(img, at, end, e);
	}
	return r;
}

static int shrink(struct vd_image *img, uint64_t size, struct vd_error *e)
{
	struct tail t;
	int r = judge_cut(img, size, e);

	if (r == 0)
		r = find_tail(img, size + img->layer.payload_off, &t, e);

	if (r == 0)
		r = img->format->resize(img->state, size + img->layer.payload_off, e);
	return r < 0 ? r : overwrite_tail(img, &t, e);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int judge_request(const struct vd_image *img, const struct request *q, struct vd_error *e)
{
	uint64_t ignored;
	int r = vd_image_refuse_container_chain(img, e);

	if (r < 0)
		return r;
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
		r = shrink(img, q->size, e);
	return vd_bitmap_after_act(img, r, was, UINT64_MAX, e);
}

VD_PUBLIC int vd_image_resize(struct vd_image *img, uint64_t size, unsigned flags, struct vd_error *e)
{
	struct request q = { size, flags };

	return vd_shape_run(img, resize, &q, e);
}
