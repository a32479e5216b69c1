/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changed blocks from a bitmap inside a qcow2 image: the one that an earlier backup made, which is found by the name that its mark has, or one
 * of the user's. Names of ours are random, so that a copy of the image, or an older state of it, has either the right bitmap or none.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "backup/changes_sources.h"
#include "fail.h"

#define NAME_PREFIX "vdisk-backup-"
#define EXTENTS 128

/* ---- reading one ---------------------------------------------------------------------------------------- */

static int judge(const struct changes *c, const struct vd_bitmap *b, char why[CHANGES_WHY_SIZE])
{
	uint64_t granularity;

	if (b->unusable)
		return in_doubt(why, "bitmap '%.40s' does not tell: %s", b->name, b->unusable);
	if (!b->enabled)
		return in_doubt(why, "bitmap '%.40s' is disabled", b->name);
	/* One that we made has this of us. */
	if (!c->want->bitmap && (!mark_get_u64(c->want->mark, "granularity", &granularity) || granularity != b->granularity))
		return in_doubt(why, "bitmap '%.40s' is not the one that was made", b->name);
	return 1;
}

static int judge_in(const struct changes *c, struct vd_image *img, const char *name, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	struct vd_bitmap *list;
	bool is_there = false;
	size_t n;
	int r = vd_bitmap_list(img, &list, &n, e);

	if (r == VD_EBITMAP)
		return in_doubt(why, "the bitmaps of the image do not tell");
	if (r == VD_EUNSUPPORTED)
		return in_doubt(why, "the image has no bitmaps");
	if (r < 0)
		return in_doubt(why, "bitmaps: %.130s", e->message);
	for (size_t i = 0; i < n && !is_there; i++) {
		is_there = !strcmp(list[i].name, name);
		if (is_there)
			r = judge(c, &list[i], why);
	}
	vd_bitmap_list_free(list);
	return is_there ? r : in_doubt(why, "bitmap '%.60s' is not there", name);
}

/* To the end: what cannot be read shows before anything was left out for its sake. */
static int collect(struct changes *c, struct vd_image *img, const char *name, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	uint64_t size = vd_image_size(img);
	struct vd_extent x[EXTENTS];
	size_t n;

	for (uint64_t at = 0; at < size; at = x[n - 1].off + x[n - 1].len) {
		int r = vd_image_extents_since(img, name, at, size - at, x, EXTENTS, &n, e);

		if (r < 0 || !n)
			return in_doubt(why, "bitmap '%.40s': %.100s", name, r < 0 ? e->message : "no answer");
		for (size_t i = 0; i < n; i++)
			if (x[i].flags & VD_EXTENT_DIRTY)
				blockset_put(&c->set, x[i].off, x[i].len);
	}
	return 1;
}

int changes_of_bitmap(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	const char *name = c->want->bitmap ? c->want->bitmap : c->base_bitmap;
	struct vd_info info = { .struct_size = sizeof(info) };
	int r = vd_image_info(img, &info, e);

	if (r < 0)
		return r;
	if (info.data_file_raw)
		return in_doubt(why, "its raw data file can be written to past the bitmap");
	r = judge_in(c, img, name, why, e);
	if (r == 1)
		r = collect(c, img, name, why, e);
	c->base_tells = r == 1 && !c->want->bitmap;
	return r;
}

/* ---- making and removing -------------------------------------------------------------------------------- */

static int open_control(const struct changes *c, struct vd_image **img, struct vd_error *e)
{
	struct vd_open_opts o = *c->opts;

	o.flags = VD_OPEN_CONTROL;
	o.keys = NULL;
	o.n_keys = 0;
	return vd_image_open(c->path, &o, img, e);
}

static int close_after(struct vd_image *img, int r, struct vd_error *e)
{
	int closed = vd_image_close(img, r < 0 ? NULL : e);

	return r < 0 ? r : closed;
}

void changes_bitmap_prefix(const struct changes *c, char prefix[64])
{
	snprintf(prefix, 64, NAME_PREFIX "%s-", c->series);
}

int changes_bitmap_name(const struct changes *c, char name[64], struct vd_error *e)
{
	uint32_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return fail(e, VD_EFAILED, "the system gives no random bytes");
	snprintf(name, 64, NAME_PREFIX "%s-%08" PRIx32, c->series, random);
	return 0;
}

/* Of a backup of this chain that was killed; the base's is needed. */
static int remove_leftovers(const struct changes *c, struct vd_image *img, struct vd_error *e)
{
	struct vd_bitmap *list;
	char prefix[64];
	size_t n;
	int r = vd_bitmap_list(img, &list, &n, e);

	if (r < 0)
		return r;
	changes_bitmap_prefix(c, prefix);
	for (size_t i = 0; i < n && r == 0; i++)
		if (!strncmp(list[i].name, prefix, strlen(prefix)) && strcmp(list[i].name, c->base_bitmap))
			r = vd_bitmap_remove(img, list[i].name, e);
	vd_bitmap_list_free(list);
	return r;
}

static int make(struct changes *c, struct vd_image *img, struct vd_error *e)
{
	char name[sizeof(c->fresh)];
	int r = changes_bitmap_name(c, name, e);

	if (r == 0)
		r = vd_bitmap_create(img, name, UINT64_C(1) << blockset_shift(vd_image_size(img)), 0, e);
	if (r == 0)
		memcpy(c->fresh, name, sizeof(name));
	return r;
}

void changes_bitmap_make(struct changes *c, char why[CHANGES_WHY_SIZE])
{
	struct vd_image *img = NULL;
	struct vd_error e;
	int r;

	if (c->opts->snapshot) {
		in_doubt(why, "nothing records changes of a snapshot");
		return;
	}
	r = open_control(c, &img, &e);
	if (r == 0)
		r = remove_leftovers(c, img, &e);
	if (r == 0)
		r = make(c, img, &e);
	if (img)
		r = close_after(img, r, &e);
	if (r < 0) {
		c->fresh[0] = 0;
		in_doubt(why, "%.150s", e.message);
	}
}

void changes_bitmap_mark(struct changes *c, uint64_t size)
{
	const char *name = c->fresh[0] ? c->fresh : c->base_tells ? c->base_bitmap : "";

	if (!name[0])
		return;
	mark_put(c, "bitmap", "%s", name);
	mark_put(c, "granularity", "%" PRIu64, UINT64_C(1) << blockset_shift(size));
}

int changes_bitmap_remove(struct changes *c, const char *name, struct vd_error *e)
{
	struct vd_image *img = NULL;
	int r = open_control(c, &img, e);

	if (r < 0)
		return r;
	r = vd_bitmap_remove(img, name, e);
	return close_after(img, r == VD_ENOENT ? 0 : r, e);
}
