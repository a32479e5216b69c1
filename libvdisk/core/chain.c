/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens what lies below an overlay, through the caller's gate: never a guessed format, never the same file twice. */
#include "libvdisk/core/image.h"

#include <limits.h>

#define MAX_DEPTH 128                   /* longest chain met in the field is some dozens; beyond it is an attack or an accident */
#define PARENT_CACHE (4u << 20)         /* a parent's table cache: a whole chain stays within the memory promise */

static bool is_same_file(const struct vd_image *a, const struct vd_image *b)
{
	const struct vd_io *x = vd_set_io(a->set, 0), *y = vd_set_io(b->set, 0);

	return x->dev == y->dev && x->ino == y->ino;
}

/* Before its own parent is opened: a circle has no end. */
static int refuse_cycle(const struct vd_image *parent, struct vd_error *e)
{
	/* An overlay that is being created has no file yet. */
	for (const struct vd_image *above = parent->child; above && above->set; above = above->child)
		if (is_same_file(above, parent))
			return vd_fail(e, VD_ECORRUPT, "%s: the chain of backing files runs in a circle", parent->path);
	return 0;
}

static int format_of_parent(const struct vd_image *img, const struct vd_open_opts *opts, const char **format,
			    struct vd_error *e)
{
	*format = opts->backing_format ? opts->backing_format : img->info.backing_format;
	if (*format)
		return 0;
	/* Guessing is how a guest that writes a qcow2 header into its raw disk reads host files. */
	vd_fail(e, VD_EREFERENCE, "%s does not say which format its backing file %s has", img->path, img->info.backing_file);
	return vd_hint(e, VD_EREFERENCE, "name it with --backing-format, or write it into the image with vdisk rebase -u");
}

int vd_chain_open_layer(struct vd_host *host, struct vd_image *img, const char *path, const struct vd_open_opts *opts,
			struct vd_image **out, struct vd_error *e)
{
	const struct vd_format *pinned = strcmp(opts->format, img->format->name) ? NULL : img->format;

	return vd_image_open_below(host, pinned, path, opts, img, out, e);
}

int vd_chain_open_parent(struct vd_host *host, struct vd_image *img, const char *path, const struct vd_open_opts *opts,
			 struct vd_error *e)
{
	int r = vd_chain_open_layer(host, img, path, opts, &img->parent, e);

	/* Once, by the top: from all layers of a long chain it would drown what went wrong. */
	return r < 0 && !img->depth ? vd_error_prefix(e, r, "backing chain of %s: ", img->path) : r;
}

/* The first of the names that is a file; the failure told is that of the first name. */
static int find_parent(struct vd_image *img, const char *format, char path[PATH_MAX], struct vd_error *e)
{
	int r = vd_set_resolve(img->set, VD_REF_BACKING, img->info.backing_file, format, path, PATH_MAX, e);

	for (const char *const *name = img->info.backing_others; r < 0 && name && *name; name++)
		if (vd_set_resolve(img->set, VD_REF_BACKING, *name, format, path, PATH_MAX, NULL) == 0)
			return 0;
	return r;
}

static int check_parent(struct vd_image *img, struct vd_error *e)
{
	int r = 0;

	if (img->format->check_parent && img->parent->format == img->format)
		r = img->format->check_parent(img->state, img->parent->state, e);
	return r < 0 ? vd_error_prefix(e, r, "%s: ", img->path) : 0;
}

int vd_chain_open(struct vd_host *host, struct vd_image *img, const struct vd_open_opts *opts, struct vd_error *e)
{
	struct vd_open_opts below = *opts;
	char path[PATH_MAX];
	int r = refuse_cycle(img, e);

	if (r < 0 || !img->info.backing_file)
		return r;
	if (opts->flags & VD_OPEN_METADATA) {
		img->parent_missing = true;
		return 0;
	}
	if (img->depth + 1 >= MAX_DEPTH)
		return vd_fail(e, VD_ECORRUPT, "%s: the chain of backing files is longer than %d", img->path, MAX_DEPTH);
	r = format_of_parent(img, opts, &below.format, e);
	if (r < 0)
		return r;
	r = find_parent(img, below.format, path, e);
	if (r < 0)
		return r;
	below.flags &= ~(unsigned)VD_OPEN_WRITE;
	/* What is said of the first parent does not hold for the next. */
	below.backing_format = NULL;
	below.snapshot = NULL;
	below.cache_bytes = PARENT_CACHE;
	r = vd_chain_open_parent(host, img, path, &below, e);
	return r < 0 ? r : check_parent(img, e);
}
