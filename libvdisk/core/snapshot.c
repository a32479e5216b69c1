/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshots inside an image, for the public: locks, durability, time. What a snapshot is, the driver knows. */
#include "libvdisk/core/image.h"

#include <stdlib.h>
#include <time.h>

#include "libvdisk/core/bitmap.h"
#include "libvdisk/core/shape.h"

static int judge_format(const struct vd_image *img, struct vd_error *e)
{
	if (img->format->snap)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: the format %s has no snapshots inside the image", img->path, img->format->name);
}

VD_PUBLIC int vd_snapshot_list(struct vd_image *img, struct vd_snapshot **list, size_t *n, struct vd_error *e)
{
	int r = judge_format(img, e);

	if (r < 0)
		return r;
	pthread_rwlock_rdlock(&img->control);
	r = img->format->snap->list(img->state, list, n, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}

VD_PUBLIC void vd_snapshot_list_free(struct vd_snapshot *list)
{
	free(list);
}

static int create(struct vd_image *img, const void *arg, struct vd_error *e)
{
	struct vd_snapshot new = { .name = arg };
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	new.date_sec = now.tv_sec;
	new.date_nsec = now.tv_nsec;
	return img->format->snap->create(img->state, &new, e);
}

static int apply(struct vd_image *img, const void *arg, struct vd_error *e)
{
	int r = vd_bitmap_before_act(img, e);

	if (r == 0)
		r = img->format->snap->apply(img->state, arg, e);
	/* Whatever was written since the snapshot is another than before: all may be. */
	return vd_bitmap_after_act(img, r, 0, UINT64_MAX, e);
}

static int delete(struct vd_image *img, const void *arg, struct vd_error *e)
{
	return img->format->snap->remove(img->state, arg, e);
}

static int act(struct vd_image *img, vd_shape_fn fn, const char *name, struct vd_error *e)
{
	int r = judge_format(img, e);

	return r < 0 ? r : vd_shape_run(img, fn, name, e);
}

VD_PUBLIC int vd_snapshot_create(struct vd_image *img, const char *name, struct vd_error *e)
{
	return act(img, create, name, e);
}

VD_PUBLIC int vd_snapshot_apply(struct vd_image *img, const char *name, struct vd_error *e)
{
	return act(img, apply, name, e);
}

VD_PUBLIC int vd_snapshot_delete(struct vd_image *img, const char *name, struct vd_error *e)
{
	return act(img, delete, name, e);
}
