/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A look at an image's extents in ascending order, for jobs that go through a whole disk and leave out what reads as zeros. */
#ifndef VD_CORE_WALK_H
#define VD_CORE_WALK_H

#include "libvdisk/core/image.h"

struct vd_walk {
	struct vd_image *img;
	int (*extents)(struct vd_image *img, uint64_t off, uint64_t len, struct vd_extent *buf, size_t n, size_t *got,
		       struct vd_error *e);
	struct vd_extent buf[256];      /* of a packed image, where each unit is one: 16 MiB at a time */
	size_t n, next;
};

/* VD_EREFERENCE when what lies below an overlay was not opened: it would pass for zeros. */
int vd_walk_start(struct vd_walk *w, struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* The same while the caller holds the control lock. */
int vd_walk_start_held(struct vd_walk *w, struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* The extent that holds `off`, which never goes down from call to call; past the end of the disk one of zeros without end. */
int vd_walk_to(struct vd_walk *w, uint64_t off, struct vd_extent *x, struct vd_error *e) VD_MUST_CHECK;

/* The least length, but at least `least`, of aligned pieces that cut no compressed unit of the chain: each is unpacked once. */
uint64_t vd_walk_piece(const struct vd_image *img, uint64_t least);

static inline uint64_t vd_extent_end(const struct vd_extent *x)
{
	return x->off + x->len;
}

/* What reads as zeros by the tables alone. A hole inside a container is ciphertext and does not. */
static inline bool vd_extent_is_zero(const struct vd_extent *x)
{
	return (x->flags & (VD_EXTENT_ZERO | VD_EXTENT_HOLE)) && !(x->flags & VD_EXTENT_ENCRYPTED);
}

#endif
