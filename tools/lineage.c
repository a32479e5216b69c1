/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One file after the other, from the image down to the one that stands on nothing. Whether a parent is the one that a child was made on, the ids say
 * that both have; a file that is missing ends the walk, and is no failure: the chain is shown as far as it goes.
 */
#include "lineage.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "json.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"

#define DEPTH_MAX 128           /* as the library has it */

/* What is kept of a child while its parent is looked at. */
struct link {
	char path[PATH_MAX];
	char format[16];                /* "": not said */
	char wants_id[64];              /* that its parent has to have; "": the format has none */
};

typedef int (*each_fn)(void *ctx, unsigned depth, struct vd_image *img, const struct vd_info *info, bool is_kin, struct vd_error *e);
typedef int (*lost_fn)(void *ctx, unsigned depth, const char *name, const struct vd_error *why);

static void copy(char *to, size_t size, const char *text)
{
	snprintf(to, size, "%s", text ? text : "");
}

/* From an image to its parent; 0: there is none. 1: `l` is the parent's. */
static int step(const struct settings *s, const struct vd_info *i, struct link *l, struct vd_error *e)
{
	char child[PATH_MAX];
	int r;

	if (!i->backing_file)
		return 0;
	copy(l->format, sizeof(l->format), i->backing_format);
	copy(l->wants_id, sizeof(l->wants_id), i->parent_id);
	copy(child, sizeof(child), l->path);
	r = source_resolve(s, VD_REF_BACKING, child, i->backing_file, l->path, sizeof(l->path), e);
	if (r < 0)
		copy(l->path, sizeof(l->path), i->backing_file);
	return r < 0 ? r : 1;
}

static int look(const struct settings *s, struct link *l, unsigned depth, each_fn each, void *ctx, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info;
	int r = source_open_metadata(s, l->path, l->format[0] ? l->format : NULL, &img, e);

	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0)
		r = each(ctx, depth, img, &info, !l->wants_id[0] || (info.disk_id && !strcmp(l->wants_id, info.disk_id)), e);
	if (r == 0)
		r = step(s, &info, l, e);
	vd_image_abort(img);
	return r;
}

/* The image itself has to open; what is below it may be lost. */
static int walk(const struct settings *s, const char *image, each_fn each, lost_fn lost, void *ctx, struct vd_error *e)
{
	struct settings below = *s;
	struct link l = { 0 };
	int r;

	below.snapshot = below.header = below.disk = NULL;
	copy(l.path, sizeof(l.path), image);
	copy(l.format, sizeof(l.format), s->format);
	r = look(s, &l, 0, each, ctx, e);
	for (unsigned depth = 1; r == 1 && depth < DEPTH_MAX; depth++) {
		r = look(&below, &l, depth, each, ctx, e);
		if (r < 0)
			return lost(ctx, depth, l.path, e);
	}
	/* Its parent has a name, but by the gate no file. */
	return r == VD_ENOENT || r == VD_EREFERENCE ? lost(ctx, 1, l.path, e) : r < 0 ? r : 0;
}

/* ---- for people ----------------------------------------------------------------------------------------- */

static void print_name(unsigned depth, const char *text)
{
	const char *corner = ui_is_utf8() ? "\xe2\x94\x94\xe2\x94\x80 " : "`- ";

	ui_line("%*s%s%s", depth ? (int)(depth - 1) * 3 : 0, "", depth ? corner : "", text);
}

static int print_one(void *ctx, unsigned depth, struct vd_image *img, const struct vd_info *i, bool is_kin, struct vd_error *e)
{
	char text[PATH_MAX + 256], inside[64] = "";

	(void)ctx;
	(void)img;
	(void)e;
	if (i->n_snapshots)
		snprintf(inside, sizeof(inside), ", %u snapshot%s inside", i->n_snapshots, i->n_snapshots == 1 ? "" : "s");
	snprintf(text, sizeof(text), "%s  (%s, %s%s%s)%s", i->path, i->format, size_show((double)i->virtual_size).s,
		 i->encryption ? ", encrypted" : "", inside, is_kin ? "" : "  is not what the disk above was made on");
	print_name(depth, text);
	return 0;
}

static int print_lost(void *ctx, unsigned depth, const char *name, const struct vd_error *why)
{
	char text[PATH_MAX + 700];

	(void)ctx;
	snprintf(text, sizeof(text), "%s  is not open: %s", name, why->message);
	print_name(depth, text);
	return 0;
}

int lineage_print(const struct settings *s, const char *image, struct vd_error *e)
{
	return walk(s, image, print_one, print_lost, NULL, e);
}

/* ---- for programs --------------------------------------------------------------------------------------- */

static int put_names(struct json_object *to, struct vd_image *img, struct vd_error *e)
{
	struct json_object *names = json_put_array(to, "snapshots");
	struct vd_snapshot *list;
	size_t n;
	int r = vd_snapshot_list(img, &list, &n, e);

	/* Formats that have none are no failure here. */
	if (r < 0)
		return r == VD_EUNSUPPORTED ? 0 : r;
	for (size_t i = 0; i < n; i++)
		json_add(names, json_text(list[i].name));
	vd_snapshot_list_free(list);
	return 0;
}

static int put_one(void *ctx, unsigned depth, struct vd_image *img, const struct vd_info *i, bool is_kin, struct vd_error *e)
{
	struct json_object *x = json_new();

	(void)depth;
	json_add(ctx, x);
	json_put_text(x, "filename", i->path);
	json_put_text(x, "format", i->format);
	json_put_u64(x, "virtual-size", i->virtual_size);
	json_put_bool(x, "encrypted", i->encryption != VD_PLAIN);
	if (i->disk_id)
		json_put_text(x, "disk-id", i->disk_id);
	if (i->parent_id)
		json_put_text(x, "parent-id", i->parent_id);
	if (i->backing_file)
		json_put_text(x, "backing-filename", i->backing_file);
	json_put_bool(x, "is-what-it-was", is_kin);
	return put_names(x, img, e);
}

static int put_lost(void *ctx, unsigned depth, const char *name, const struct vd_error *why)
{
	struct json_object *x = json_new();

	(void)depth;
	json_add(ctx, x);
	json_put_text(x, "filename", name);
	json_put_text(x, "error", vd_code_name(why->code));
	json_put_text(x, "message", why->message);
	return 0;
}

int lineage_put(const struct settings *s, const char *image, struct json_object *array, struct vd_error *e)
{
	return walk(s, image, put_one, put_lost, array, e);
}
