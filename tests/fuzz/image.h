/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is done with an input that is an image file: opened as each caller would, described, read, written to. Whatever it
 * holds, that ends with success or an error; the sanitizers watch over the rest.
 */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/core/image.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/io/mem.h"

#define READ_LEN 70000                  /* some clusters, or a part of a large one */
#define CALLS_MAX 32                    /* a disk of alternating sectors has no end worth waiting for */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t buf[READ_LEN];

/* Whatever file the image names, it gets the same one. */
static int gate(void *ctx, enum vd_reference_kind kind, const char *image, const char *name, const char *format,
		char *path, size_t path_len, struct vd_error *e)
{
	(void)ctx;
	(void)kind;
	(void)image;
	(void)name;
	(void)format;
	(void)e;
	snprintf(path, path_len, "other");
	return 0;
}

static struct vd_image *open_it(struct vd_host *host, const struct vd_format *format, unsigned flags)
{
	struct vd_open_opts opts = { .struct_size = sizeof(opts), .flags = flags, .gate = gate, .cache_bytes = 1 << 20 };
	struct vd_image *img = NULL;
	struct vd_error e;

	return vd_image_open_on(host, format, "x", &opts, &img, &e) == 0 ? img : NULL;
}

static void describe(struct vd_image *img)
{
	struct vd_info info = { .struct_size = sizeof(info) };
	struct vd_extent x[16];
	struct vd_error e;
	uint64_t at = 0;
	size_t n;

	if (vd_image_info(img, &info, &e) < 0)
		return;
	for (int i = 0; i < CALLS_MAX && at < vd_image_size(img); i++) {
		if (vd_image_extents(img, at, vd_image_size(img) - at, x, 16, &n, &e) < 0 || !n)
			return;
		at = x[n - 1].off + x[n - 1].len;
	}
}

static void ask_bitmaps(struct vd_image *img)
{
	struct vd_bitmap *list;
	struct vd_extent x[16];
	struct vd_error e;
	size_t n, got;

	if (vd_bitmap_list(img, &list, &n, &e) < 0)
		return;
	for (size_t i = 0; i < n && i < CALLS_MAX; i++)
		if (vd_image_extents_since(img, list[i].name, 0, vd_image_size(img), x, 16, &got, &e) < 0)
			continue;
	vd_bitmap_list_free(list);
}

static void change_bitmaps(struct vd_image *img)
{
	const char *const source = "fuzz";
	struct vd_error e;

	if (vd_bitmap_create(img, source, 512, 0, &e) == 0 && vd_bitmap_merge(img, source, NULL, &source, 1, &e) == 0 &&
	    vd_bitmap_clear(img, source, &e) == 0 && vd_bitmap_remove(img, source, &e) == 0)
		return;
}

/* At the start, in the middle, at the end; reads of what cannot be read fail and that is all. */
static void each_part(struct vd_image *img, int (*act)(struct vd_image *img, uint64_t off, size_t len, struct vd_error *e))
{
	uint64_t size = vd_image_size(img), len = size < READ_LEN ? size : READ_LEN;
	const uint64_t at[] = { 0, (size - len) / 2, size - len };
	struct vd_error e;

	for (int i = 0; i < 3; i++)
		if (act(img, at[i], len, &e) < 0)
			continue;
}

static int read_part(struct vd_image *img, uint64_t off, size_t len, struct vd_error *e)
{
	return vd_image_pread(img, buf, len, off, e);
}

static int write_part(struct vd_image *img, uint64_t off, size_t len, struct vd_error *e)
{
	int r = vd_image_pwrite(img, buf, len / 3, off + len / 4, e);

	if (r == 0)
		r = vd_image_write_zeroes(img, off, len / 2, off % 2 ? VD_ZERO_ALLOCATED : 0, e);
	if (r == 0)
		r = vd_image_discard(img, off / 2, len, e);
	return r < 0 ? r : vd_image_flush(img, e);
}

/* Gapless and disjoint, whatever is claimed. */
static void walk(struct vd_image *img)
{
	struct vd_host_run runs[64];
	struct vd_host_walk *w;
	struct vd_error e;
	uint64_t at = 0;
	uint32_t file = 0;
	size_t n = 1;

	if (vd_host_walk_start(img, 0, 0, &w, &e) < 0)
		return;
	for (int i = 0; i < CALLS_MAX && n && vd_host_walk_next(w, runs, 64, &n, &e) == 0; i++)
		for (size_t k = 0; k < n; k++) {
			if (runs[k].file != file)
				at = 0;
			if (runs[k].off != at || !runs[k].len)
				abort();
			file = runs[k].file;
			at += runs[k].len;
		}
	vd_host_walk_end(w);
}

static void check(struct vd_host *host, const struct vd_format *format, enum vd_repair repair)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = open_it(host, format, repair ? VD_OPEN_REPAIR : VD_OPEN_METADATA);
	struct vd_error e;

	if (!img)
		return;
	if (vd_image_check(img, repair, NULL, NULL, NULL, &rep, &e) < 0)
		vd_image_abort(img);
	else if (vd_image_close(img, &e) < 0)
		return;
}

static void work_on(struct vd_host *host, const struct vd_format *format)
{
	static const unsigned flags[] = { VD_OPEN_METADATA, 0, VD_OPEN_WRITE };
	struct vd_error e;

	for (int i = 0; i < 3; i++) {
		struct vd_image *img = open_it(host, format, flags[i]);

		if (!img)
			continue;
		if (flags[i] == VD_OPEN_METADATA) {
			describe(img);
			walk(img);
			ask_bitmaps(img);
		} else {
			each_part(img, read_part);
		}
		if (flags[i] == VD_OPEN_WRITE) {
			each_part(img, write_part);
			change_bitmaps(img);
		}
		if (vd_image_close(img, &e) < 0)
			continue;
	}
	check(host, format, VD_REPAIR_NONE);
	check(host, format, VD_REPAIR_ALL);
}

static int fuzz_image(const struct vd_format *format, const uint8_t *data, size_t size)
{
	struct vd_host *host;

	if (vd_mem_host_new(&host, NULL) < 0)
		return 0;
	memset(buf, 0x5a, sizeof(buf));
	if (vd_mem_put(host, "x", data, size, NULL) == 0 && vd_mem_put(host, "other", buf, sizeof(buf), NULL) == 0)
		work_on(host, format);
	vd_mem_host_free(host);
	return 0;
}

#endif
