/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bitmaps of images in memory: what the library says of them, held against a byte a piece. */
#ifndef TESTS_BITMAPS_H
#define TESTS_BITMAPS_H

#include "tests/support/disks.h"

/* Whether each piece is dirty; the disk's size says how many there are. */
struct bitmap_model {
	char name[24];
	uint64_t granularity, size;
	uint8_t *dirty;
	bool enabled;
};

void bitmap_model_init(struct bitmap_model *b, const char *name, uint64_t granularity, uint64_t size);
void bitmap_model_free(struct bitmap_model *b);
/* A range of the disk, which may pass its end, is dirty. */
void bitmap_model_mark(struct bitmap_model *b, uint64_t off, uint64_t len);
/* The disk has another size: new pieces are clean. */
void bitmap_model_resize(struct bitmap_model *b, uint64_t size);

/* vd_image_extents_since() says of every byte what the model says, in extents without a gap, a few at a time. */
void bitmap_model_check(const struct bitmap_model *b, struct vd_image *img);

/* All that is dirty since the bitmap: "off+len off+len ...", in bytes; "" when nothing is. */
const char *dirty_since(struct vd_image *img, const char *bitmap);
/* vd_bitmap_list() in words: "name granularity state dirty; ...", where state is on, off or void. */
const char *bitmaps_of(struct vd_image *img);

void bitmap_make(struct vd_image *img, const char *name, uint64_t granularity);

#endif
