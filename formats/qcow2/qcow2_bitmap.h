/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Persistent bitmaps, as the files that read, hold and store them share them. */
#ifndef VD_FORMATS_QCOW2_BITMAP_H
#define VD_FORMATS_QCOW2_BITMAP_H

#include "formats/qcow2/qcow2_bitmap_dir.h"

/* qcow2_bitmap.c: for the table of callbacks. */
extern const struct vd_bitmap_ops vd_qcow2_bitmap_ops;

/* The directory in memory, read when first asked for. */
int vd_qcow2_bitmaps_get(struct vd_qcow2 *s, struct vd_error *e) VD_MUST_CHECK;
/* Forgets it: what is on disk has changed. */
void vd_qcow2_bitmaps_forget(struct vd_qcow2 *s);
/*
 * The bits behind a word that was judged, up to where the disk of that size ends: a cluster of them, and zeros behind.
 */
int vd_qcow2_bitmap_bits(const struct vd_qcow2 *s, const struct vd_qcow2_bitmap *b, uint64_t part, uint64_t word,
			 uint64_t disk_size, uint8_t *raw, struct vd_error *e) VD_MUST_CHECK;
/* How many of a part's bits are for a disk of this size. */
uint64_t vd_qcow2_bitmap_n_bits(const struct vd_qcow2 *s, unsigned granularity_bits, uint64_t part, uint64_t disk_size);

/* qcow2_bitmap_store.c */
int vd_qcow2_bitmap_write(void *st, const struct vd_bitmap_next *next, size_t n, struct vd_error *e);
int vd_qcow2_bitmap_enact(void *st, struct vd_error *e);
void vd_qcow2_bitmap_store_free(struct vd_qcow2 *s);

#endif
