/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent bitmaps as they lie in the file, for whoever reads them: the bitmaps themselves, the host walk, the check.
 * Section names are those of qemu's docs/interop/qcow2.
 *
 *   extension  = n_bitmaps:u32 reserved:u32 directory_size:u64 directory_off:u64          "Bitmaps extension"
 *   directory  = n_bitmaps entries, each padded to 8 bytes                                "Bitmap directory"
 *   entry      = table_off:u64 table_size:u32 flags:u32 type:u8 granularity_bits:u8 name_len:u16 extra_len:u32
 *                extra:u8[extra_len] name:u8[name_len]
 *   table      = table_size words: host_off:47(bits 9..55) reserved; bit 0 with host_off 0: all ones    "Bitmap table"
 *   data       = the clusters that the words name; bit n of a bitmap is bit n % 8 of byte n / 8; a word without
 *                offset stands for a cluster of zeros or of ones                           "Bitmap data"
 *
 * Bitmaps hold only while autoclear bit 0 is set, and each only while its in_use flag is clear.
 */
#ifndef VD_FORMATS_QCOW2_BITMAP_DIR_H
#define VD_FORMATS_QCOW2_BITMAP_DIR_H

#include "formats/qcow2/qcow2.h"

#define QCOW2_BITMAP_ENTRY_BYTES 24     /* before extra data and name */
#define QCOW2_BITMAP_AT_FLAGS   12      /* in an entry */
#define QCOW2_BITMAP_IN_USE     (1u << 0)
#define QCOW2_BITMAP_AUTO       (1u << 1)       /* records what is written */
#define QCOW2_BITMAP_EXTRA_COMPATIBLE (1u << 2)
#define QCOW2_BITMAP_FLAGS_KNOWN 7u
#define QCOW2_BITMAP_DIRTY_TRACKING 1   /* the only type */

#define QCOW2_BITMAP_ONES       UINT64_C(1)
#define QCOW2_BITMAP_RESERVED   UINT64_C(0xff000000000001fe)

/* Limits of qemu (block/qcow2-bitmap.c): it opens no image that passes one of them. */
#define QCOW2_BITMAPS_MAX       65535u
#define QCOW2_BITMAP_DIR_MAX    (UINT64_C(64) << 20)
#define QCOW2_BITMAP_NAME_MAX   1023u
#define QCOW2_BITMAP_GRANULARITY_MIN 9
#define QCOW2_BITMAP_GRANULARITY_MAX 31
#define QCOW2_BITMAP_BYTES_MAX  (UINT64_C(512) << 20)   /* of one bitmap's data */

struct vd_qcow2_bitmap {
	const char *name;
	uint64_t at;                    /* offset of its entry in the directory */
	uint64_t table_off;
	uint32_t table_size, flags, extra_len;
	uint8_t type, granularity_bits;
	const uint8_t *extra;
	const char *unusable;           /* why it says nothing about the disk; NULL: it holds */
	bool has_table;                 /* the table is where one can be */
	bool shares_table;              /* but another's is there, too */
	bool is_held;                   /* qcow2_bitmap.c: in_use since this handle began to write */
};

struct vd_qcow2_bitmaps {
	struct vd_qcow2_bitmap *at;
	size_t n;
	uint8_t *raw;                   /* the directory's bytes */
	char *names;
	uint64_t disk_size;             /* to which the tables were judged */
};

/* VD_EBITMAP when the directory breaks a rule; what is wrong with one bitmap alone is told in its `unusable`. */
int vd_qcow2_bitmaps_read(const struct vd_qcow2 *s, struct vd_qcow2_bitmaps **out, struct vd_error *e) VD_MUST_CHECK;
/* NULL is allowed. */
void vd_qcow2_bitmaps_free(struct vd_qcow2_bitmaps *list);
/* n words of a table from the one at `first` on, as numbers, not judged. The bitmap has_table. */
int vd_qcow2_bitmap_words(const struct vd_qcow2 *s, const struct vd_qcow2_bitmap *b, uint64_t first, uint64_t n,
			  uint64_t *words, struct vd_error *e) VD_MUST_CHECK;
/* VD_EBITMAP unless the word, which is the i-th, may stand in a table. */
int vd_qcow2_bitmap_judge_word(const struct vd_qcow2 *s, const struct vd_qcow2_bitmap *b, uint64_t i, uint64_t word,
			       struct vd_error *e) VD_MUST_CHECK;
/* Words that the table of a bitmap of a disk has. */
uint64_t vd_qcow2_bitmap_table_size(const struct vd_qcow2 *s, uint64_t disk_size, unsigned granularity_bits);
/* VD_EBITMAP, with the file's name before the message and what to do about it. */
int vd_qcow2_bitmap_broken(const struct vd_qcow2 *s, struct vd_error *e, uint64_t at, const char *fmt,
			   ...) VD_PRINTF(4, 5);

#endif
