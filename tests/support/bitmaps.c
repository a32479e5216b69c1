/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks for dirty extents and compares. */
#include "tests/support/bitmaps.h"

#include <stdio.h>

#include "libvdisk/base/checked.h"

#define AT_ONCE 7

static uint64_t n_pieces(uint64_t size, uint64_t granularity)
{
	return vd_round_up(size, granularity) / granularity;
}

void bitmap_model_init(struct bitmap_model *b, const char *name, uint64_t granularity, uint64_t size)
{
	*b = (struct bitmap_model){ .granularity = granularity, .size = size, .enabled = true };
	snprintf(b->name, sizeof(b->name), "%s", name);
	b->dirty = calloc(1, n_pieces(size, granularity) + 1);
}

void bitmap_model_free(struct bitmap_model *b)
{
	free(b->dirty);
	b->dirty = NULL;
}

void bitmap_model_mark(struct bitmap_model *b, uint64_t off, uint64_t len)
{
	if (!len || off >= b->size)
		return;
	len = vd_min_u64(len, b->size - off);
	for (uint64_t i = off / b->granularity; i <= (off + len - 1) / b->granularity; i++)
		b->dirty[i] = 1;
}

void bitmap_model_resize(struct bitmap_model *b, uint64_t size)
{
	uint64_t n = n_pieces(b->size, b->granularity), now = n_pieces(size, b->granularity);

	b->dirty = realloc(b->dirty, now + 1);
	if (now > n)
		memset(b->dirty + n, 0, now - n);
	b->size = size;
}

/* ---- what the library says -------------------------------------------------------------------------------- */

typedef void (*extent_fn)(void *ctx, const struct vd_extent *x);

static void each_extent(struct vd_image *img, const char *bitmap, extent_fn fn, void *ctx)
{
	uint64_t size = vd_image_size(img), at = 0;
	struct vd_extent x[AT_ONCE];
	struct vd_error e;
	size_t n;

	while (at < size) {
		expect_ok(vd_image_extents_since(img, bitmap, at, size - at, x, AT_ONCE, &n, &e), &e);
		assert_true(n > 0);
		for (size_t i = 0; i < n; i++) {
			assert_int_equal(x[i].off, at);
			fn(ctx, &x[i]);
			at += x[i].len;
		}
	}
	assert_int_equal(at, size);
}

static void check_extent(void *ctx, const struct vd_extent *x)
{
	const struct bitmap_model *b = ctx;

	for (uint64_t at = x->off; at < x->off + x->len; at = (at / b->granularity + 1) * b->granularity)
		if (b->dirty[at / b->granularity] != !!(x->flags & VD_EXTENT_DIRTY))
			fail_msg("bitmap '%s': the piece of byte %llu is %s", b->name, (unsigned long long)at,
				 x->flags & VD_EXTENT_DIRTY ? "dirty and should be clean" : "clean and should be dirty");
}

void bitmap_model_check(const struct bitmap_model *b, struct vd_image *img)
{
	assert_int_equal(vd_image_size(img), b->size);
	each_extent(img, b->name, check_extent, (void *)b);
}

struct words {
	char text[4000];
	size_t used;
	uint64_t from, to;
};

static void end_run(struct words *w)
{
	if (w->to > w->from && w->used < sizeof(w->text))
		w->used += snprintf(w->text + w->used, sizeof(w->text) - w->used, "%s%llu+%llu", w->used ? " " : "",
				    (unsigned long long)w->from, (unsigned long long)(w->to - w->from));
	w->from = w->to = 0;
}

static void add_extent(void *ctx, const struct vd_extent *x)
{
	struct words *w = ctx;

	if (!(x->flags & VD_EXTENT_DIRTY))
		return;
	if (x->off != w->to) {
		end_run(w);
		w->from = x->off;
	}
	w->to = x->off + x->len;
}

const char *dirty_since(struct vd_image *img, const char *bitmap)
{
	static struct words w;

	w = (struct words){ 0 };
	each_extent(img, bitmap, add_extent, &w);
	end_run(&w);
	return w.text;
}

const char *bitmaps_of(struct vd_image *img)
{
	static char text[4000];
	struct vd_bitmap *list;
	struct vd_error e;
	size_t n, used = 0;

	text[0] = '\0';
	expect_ok(vd_bitmap_list(img, &list, &n, &e), &e);
	for (size_t i = 0; i < n && used < sizeof(text); i++)
		used += snprintf(text + used, sizeof(text) - used, "%s%s %llu %s %llu", i ? "; " : "", list[i].name,
				 (unsigned long long)list[i].granularity,
				 list[i].unusable ? "void" : list[i].enabled ? "on" : "off",
				 (unsigned long long)list[i].dirty_bytes);
	vd_bitmap_list_free(list);
	return text;
}

void bitmap_make(struct vd_image *img, const char *name, uint64_t granularity)
{
	struct vd_error e;

	expect_ok(vd_bitmap_create(img, name, granularity, 0, &e), &e);
}
