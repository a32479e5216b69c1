/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Acts that change an image as a whole: alone on the handle, with all that was written before durable. */
#ifndef VD_CORE_SHAPE_H
#define VD_CORE_SHAPE_H

#include "libvdisk/core/image.h"

typedef int (*vd_shape_fn)(struct vd_image *img, const void *arg, struct vd_error *e);

/* Judges whether the handle may, takes the control lock, commits, runs fn, learns the new size. */
int vd_shape_run(struct vd_image *img, vd_shape_fn fn, const void *arg, struct vd_error *e) VD_MUST_CHECK;
/* The same for a handle that is judged already. */
int vd_shape_alone(struct vd_image *img, vd_shape_fn fn, const void *arg, struct vd_error *e) VD_MUST_CHECK;
/* Inside fn: no table is dirty and no range in quarantine afterwards. */
int vd_shape_settle(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;

/* keyslots.c, for keyheader.c: VD_EUNSUPPORTED unless the image has a LUKS header. */
int vd_keyslots_judge(const struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* After a change, inside fn: the disk holds these bytes, and the handle learns what they say. */
int vd_keyslots_read_back(struct vd_image *img, struct vd_bytes now, struct vd_error *e) VD_MUST_CHECK;

#endif
