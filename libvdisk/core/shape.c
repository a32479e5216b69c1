/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is around every act on an image's shape. The acts are snapshot.c's, resize.c's and check.c's, and behind them the driver's. */
#include "libvdisk/core/shape.h"

static int judge_handle(const struct vd_image *img, struct vd_error *e)
{
	int r = vd_image_poisoned(img, e);

	if (r < 0)
		return r;
	if (!img->writable && !img->is_control)
		return vd_fail(e, VD_EREADONLY, "%s is open for reading only", img->path);
	if (img->is_repair)
		return vd_fail(e, VD_EREADONLY, "%s is open for a repair only", img->path);
	if (img->fresh)
		return vd_fail(e, VD_EARG, "%s is being made: its shape is changed after the commit", img->path);
	return 0;
}

/* Twice: what the first one freed is in the tables of the second. */
int vd_shape_settle(struct vd_image *img, struct vd_error *e)
{
	int r = vd_image_commit_tables(img, e);

	if (r == 0 && vd_meta_is_dirty(img->meta))
		r = vd_image_commit_tables(img, e);
	return r;
}

static int run_alone(struct vd_image *img, vd_shape_fn fn, const void *arg, struct vd_error *e)
{
	int r = vd_image_finish_writing(img, e);

	if (r == 0)
		r = vd_shape_settle(img, e);
	if (r == 0)
		r = fn(img, arg, e);
	if (r == VD_EPOISONED)
		atomic_store(&img->poisoned, true);
	if (r < 0)
		return r;
	img->format->describe(img->state, &img->info);
	return vd_image_learn_size(img, e);
}

int vd_shape_alone(struct vd_image *img, vd_shape_fn fn, const void *arg, struct vd_error *e)
{
	int r;

	vd_control_alone(img);
	r = run_alone(img, fn, arg, e);
	vd_control_release(img);
	return r;
}

int vd_shape_run(struct vd_image *img, vd_shape_fn fn, const void *arg, struct vd_error *e)
{
	int r = judge_handle(img, e);

	return r < 0 ? r : vd_shape_alone(img, fn, arg, e);
}
