/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the core's files need of bitmaps: recording what is written, and reading what is dirty. */
#ifndef VD_CORE_BITMAP_H
#define VD_CORE_BITMAP_H

#include <stdlib.h>

#include "libvdisk/core/image.h"

/* Before the first write: holds the bitmaps that record, and begins to record. Under img->begin. */
int vd_bitmap_begin(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* Alone on the handle, with every table committed: stores what was recorded. */
int vd_bitmap_end(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* Before the bytes are written, in the driver's offsets. Any thread. */
static inline void vd_bitmap_mark(struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_dirty *d = atomic_load_explicit(&img->dirty, memory_order_acquire);

	if (d)
		vd_dirty_mark(d, off, len);
}

/*
 * Around an act, inside a vd_shape_fn, that changes the size of the disk or all of it at once: no bitmap holds meanwhile.
 * Afterwards all fit the disk again, and [from, to) is dirty in those that record; r is what the act returned.
 */
int vd_bitmap_before_act(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
int vd_bitmap_after_act(struct vd_image *img, int r, uint64_t from, uint64_t to, struct vd_error *e) VD_MUST_CHECK;

/* A look through one bitmap. The control lock is held. */
struct vd_bitmap_look {
	struct vd_image *img;
	size_t index;
	unsigned bits;
	const struct vd_dirty *add;     /* recorded and not stored yet */
	uint64_t part, n_parts;         /* those that `what` is said of */
	enum vd_bits what;
	uint8_t *raw;
	uint64_t loaded;                /* bytes, about: what the look has cost */
};
/* VD_ENOENT; VD_EBITMAP when it does not hold. Freed by vd_bitmap_look_free(), also after a failure. */
int vd_bitmap_look_open(struct vd_bitmap_look *l, struct vd_image *img, const char *name, struct vd_error *e) VD_MUST_CHECK;
static inline void vd_bitmap_look_free(struct vd_bitmap_look *l)
{
	free(l->raw);
}
#define vd_auto_look __attribute__((cleanup(vd_bitmap_look_free)))
/* From `at` to *end, at most `limit`, all is dirty or all is clean. In the driver's offsets. */
int vd_bitmap_look_at(struct vd_bitmap_look *l, uint64_t at, uint64_t limit, bool *is_dirty, uint64_t *end,
		      struct vd_error *e) VD_MUST_CHECK;

#endif
