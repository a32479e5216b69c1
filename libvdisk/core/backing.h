/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the acts on an overlay and its parent, rebase.c and mergedown.c, have in common. */
#ifndef VD_CORE_BACKING_H
#define VD_CORE_BACKING_H

#include "libvdisk/core/image.h"
#include "libvdisk/core/job.h"

/* Both with the control lock held exclusively. `what`: what would become of the snapshots. */
int vd_backing_refuse_snapshots(struct vd_image *img, const char *what, struct vd_error *e) VD_MUST_CHECK;
/* The driver's set_backing(), and what the handle knows of it. `below`: the parent, NULL: not opened. */
int vd_backing_set(struct vd_image *img, const char *name, const char *format, const struct vd_image *below,
		   struct vd_error *e) VD_MUST_CHECK;
/* VD_EARG, in words. */
int vd_backing_refuse_in_clear(const struct vd_image *into, const struct vd_image *from, struct vd_error *e);

#endif
