/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers vd_image_extents() for a walk through the disk. One thread at a time. */
#include "libvdisk/core/walk.h"

#include "libvdisk/base/checked.h"

#define PACKED_MAX (2u << 20)   /* qcow2's largest cluster; formats with larger units never compress one */

int vd_walk_start(struct vd_walk *w, struct vd_image *img, struct vd_error *e)
{
	w->img = img;
	w->extents = vd_image_extents;
	w->n = 0;
	w->next = 0;
	if (!img->parent_missing)
		return 0;
	return vd_fail(e, VD_EREFERENCE, "%s: the backing file was not opened", img->path);
}

int vd_walk_start_held(struct vd_walk *w, struct vd_image *img, struct vd_error *e)
{
	int r = vd_walk_start(w, img, e);

	w->extents = vd_extents;
	return r;
}

int vd_walk_to(struct vd_walk *w, uint64_t off, struct vd_extent *x, struct vd_error *e)
{
	uint64_t size = w->img->size;
	int r;

	if (off >= size) {
		*x = (struct vd_extent){ .off = size, .len = UINT64_MAX - size, .flags = VD_EXTENT_ZERO };
		return 0;
	}
	while (w->next < w->n && vd_extent_end(&w->buf[w->next]) <= off)
		w->next++;
	if (w->next == w->n) {
		w->next = 0;
		r = w->extents(w->img, off, size - off, w->buf, sizeof(w->buf) / sizeof(w->buf[0]), &w->n, e);
		if (r < 0)
			return r;
	}
	*x = w->buf[w->next];
	return 0;
}

uint64_t vd_walk_piece(const struct vd_image *img, uint64_t least)
{
	uint64_t len = least;

	for (; img; img = img->parent)
		if (img->info.unit <= PACKED_MAX)
			len = vd_round_up(len, img->info.unit);
	return len;
}
