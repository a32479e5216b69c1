/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes what an image was created with, for the public. What each thing is, the driver knows; the size is resize.c's. */
#include "libvdisk/core/shape.h"

static int look(struct vd_image *img, const void *arg, struct vd_error *e)
{
	return img->format->amend(img->state, arg, true, e);
}

static int amend(struct vd_image *img, const void *arg, struct vd_error *e)
{
	return img->format->amend(img->state, arg, false, e);
}

static bool is_only_size(const struct vd_amend_opts *o)
{
	return !o->compat && !o->refcount_bits && !o->lazy_refcounts && !o->data_file_raw && !o->backing_format;
}

static int judge(const struct vd_image *img, const struct vd_amend_opts *o, struct vd_error *e)
{
	if (o->struct_size != sizeof(*o))
		return vd_fail(e, VD_EARG, "struct vd_amend_opts: struct_size is %zu, want %zu", o->struct_size, sizeof(*o));
	if (img->format->amend || is_only_size(o))
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: an image of format %s has nothing but its size that could be changed", img->path,
		       img->format->name);
}

VD_PUBLIC int vd_image_amend(struct vd_image *img, const struct vd_amend_opts *opts, struct vd_error *e)
{
	/* Version 2 with snapshots has no other size. */
	bool size_first = opts->compat == 2;
	bool has_more = !is_only_size(opts);
	int r = judge(img, opts, e);

	if (r == 0 && has_more)
		r = vd_shape_run(img, look, opts, e);
	if (r == 0 && opts->size && size_first)
		r = vd_image_resize(img, opts->size, opts->flags, e);
	if (r == 0 && has_more)
		r = vd_shape_run(img, amend, opts, e);
	if (r == 0 && opts->size && !size_first)
		r = vd_image_resize(img, opts->size, opts->flags, e);
	return r;
}
