/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Describes where guest bytes are, down the chain, in the public vocabulary. Reads tables only. */
#include "libvdisk/core/image.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/core/bitmap.h"

#define N_RUNS 64
#define MAX_MAPS 256            /* a call: tables that a hostile image names over and over must not hold one call for minutes */

/* The caller's buffer as it fills. */
struct list {
	struct vd_extent *buf;
	size_t n, max;
	uint32_t mark;                  /* a flag for all that is added */
};

static bool continues(const struct vd_extent *a, const struct vd_extent *b)
{
	return a->off + a->len == b->off && a->flags == b->flags && a->depth == b->depth && a->file == b->file &&
	       !(a->flags & VD_EXTENT_PACKED) && (!(a->flags & VD_EXTENT_HOST) || a->host_off + a->len == b->host_off);
}

/* False when the buffer is full. */
static bool add(struct list *l, const struct vd_extent *x)
{
	if (l->n && continues(&l->buf[l->n - 1], x)) {
		l->buf[l->n - 1].len += x->len;
		return true;
	}
	if (l->n == l->max)
		return false;
	l->buf[l->n++] = *x;
	return true;
}

/* The list reaches `end`. */
static bool is_complete(const struct list *l, uint64_t end)
{
	return l->n && l->buf[l->n - 1].off + l->buf[l->n - 1].len >= end;
}

static uint32_t flags_of(const struct vd_image *img, const struct vd_run *run)
{
	/* In a container even what the host does not hold is ciphertext. A format's own holes and packed units are not. */
	uint32_t encrypted = img->layer.encryption ? VD_EXTENT_ENCRYPTED : 0;
	uint32_t container = img->layer.is_container ? VD_EXTENT_ENCRYPTED : 0;

	switch (run->where) {
	case VD_DATA:
		return VD_EXTENT_DATA | VD_EXTENT_HOST | encrypted;
	case VD_PACKED:
		return VD_EXTENT_DATA | VD_EXTENT_PACKED | container;
	case VD_ZERO:
		return VD_EXTENT_ZERO | container;
	default:
		return VD_EXTENT_HOLE | container;
	}
}

static bool add_run(struct vd_image *img, const struct vd_run *run, struct list *l)
{
	struct vd_extent x = {
		.off = run->guest_off - img->layer.payload_off, .len = run->len, .depth = img->depth,
		.flags = flags_of(img, run) | l->mark,
	};

	if (run->where == VD_DATA || run->where == VD_PACKED) {
		x.host_off = run->host_off;
		x.file = vd_set_name(img->set, run->file);
	}
	return add(l, &x);
}

static int describe(struct vd_image *img, uint64_t off, uint64_t len, struct list *l, struct vd_error *e);

/* The part of a hole that the parent covers is the parent's to describe; past its end there are zeros. */
static int describe_below(struct vd_image *img, const struct vd_run *run, struct list *l, struct vd_error *e)
{
	uint64_t off = run->guest_off, inside;
	struct vd_run rest = *run;

	inside = off >= img->parent->size ? 0 : vd_min_u64(run->len, img->parent->size - off);
	if (inside) {
		int r = describe(img->parent, off, inside, l, e);

		if (r < 0)
			return r;
	}
	rest.guest_off += inside;
	rest.len -= inside;
	/* A buffer that is full already takes no more. */
	if (rest.len)
		add_run(img, &rest, l);
	return 0;
}

static int describe(struct vd_image *img, uint64_t off, uint64_t len, struct list *l, struct vd_error *e)
{
	uint64_t at = off;

	for (unsigned n_maps = 0; at < off + len && !(n_maps >= MAX_MAPS && l->n); n_maps++) {
		struct vd_run runs[N_RUNS];
		size_t n = vd_min_u64(N_RUNS, l->max - l->n + 1);
		unsigned ticket = vd_space_enter(img->space);
		int r = img->format->map(img->state, at + img->layer.payload_off, off + len - at, 0, runs, &n, e);

		vd_space_leave(img->space, ticket);
		for (size_t i = 0; i < n && r == 0; i++) {
			if (runs[i].where == VD_HOLE && img->parent && !img->layer.is_container)
				r = describe_below(img, &runs[i], l, e);
			else
				add_run(img, &runs[i], l);
			at = runs[i].guest_off - img->layer.payload_off + runs[i].len;
			if (r == 0 && !is_complete(l, at))
				return 0;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int vd_extents(struct vd_image *img, uint64_t off, uint64_t len, struct vd_extent *buf, size_t n, size_t *got,
	       struct vd_error *e)
{
	struct list l = { .buf = buf, .max = n };
	int r = vd_image_check_range(img, off, len, e);

	if (r == 0 && len)
		r = describe(img, off, len, &l, e);
	*got = l.n;
	return r;
}

VD_PUBLIC int vd_image_extents(struct vd_image *img, uint64_t off, uint64_t len, struct vd_extent *buf, size_t n,
			       size_t *got, struct vd_error *e)
{
	int r;

	*got = 0;
	if (!n)
		return vd_fail(e, VD_EARG, "vd_image_extents needs room for at least one extent");
	pthread_rwlock_rdlock(&img->control);
	r = vd_extents(img, off, len, buf, n, got, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}

/* ---- since a bitmap --------------------------------------------------------------------------------------- */

/* Cut where the bitmap changes its mind. */
static int describe_since(struct vd_image *img, struct vd_bitmap_look *look, uint64_t off, uint64_t len, struct list *l,
			  struct vd_error *e)
{
	uint64_t shift = img->layer.payload_off, end;
	int r = 0;

	for (uint64_t at = off; at < off + len && r == 0; at = end) {
		bool is_dirty = false;

		r = vd_bitmap_look_at(look, at + shift, off + len + shift, &is_dirty, &end, e);
		end -= shift;
		l->mark = is_dirty ? VD_EXTENT_DIRTY : 0;
		if (r == 0)
			r = describe(img, at, end - at, l, e);
		if (r == 0 && !is_complete(l, end))
			break;
	}
	return r;
}

VD_PUBLIC int vd_image_extents_since(struct vd_image *img, const char *bitmap, uint64_t off, uint64_t len,
				     struct vd_extent *buf, size_t n, size_t *got, struct vd_error *e)
{
	vd_auto_look struct vd_bitmap_look look = { 0 };
	struct list l = { .buf = buf, .max = n };
	int r;

	if (!n)
		return vd_fail(e, VD_EARG, "vd_image_extents_since needs room for at least one extent");
	pthread_rwlock_rdlock(&img->control);
	r = vd_image_check_range(img, off, len, e);
	if (r == 0)
		r = vd_bitmap_look_open(&look, img, bitmap, e);
	if (r == 0)
		r = describe_since(img, &look, off, len, &l, e);
	pthread_rwlock_unlock(&img->control);
	*got = l.n;
	return r;
}
