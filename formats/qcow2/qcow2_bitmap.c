/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent bitmaps: tells which there are and what their bits say, and holds them while the image is written to.
 * Storing them anew is qcow2_bitmap_store.c's, recording what is written the core's.
 *
 *  B1  Before the first payload byte the in_use flag of every bitmap that records is on disk, durably: the one edit that is
 *      made in place. Torn by a crash it leaves some bitmaps unusable, and no payload was written yet.
 *  B2  Where the directory breaks a rule, so that flags cannot be set, the autoclear bit is cleared instead: then none holds.
 */
#include "formats/qcow2/qcow2_bitmap.h"

#include <stdlib.h>

#include "formats/qcow2/qcow2_shape.h"
#include "libvdisk/base/alloc.h"

#define WORDS_AT_ONCE (QCOW2_BATCH_BYTES / 8)

/* ---- knowing ---------------------------------------------------------------------------------------------- */

int vd_qcow2_bitmaps_get(struct vd_qcow2 *s, struct vd_error *e)
{
	return s->bitmaps ? 0 : vd_qcow2_bitmaps_read(s, &s->bitmaps, e);
}

void vd_qcow2_bitmaps_forget(struct vd_qcow2 *s)
{
	vd_qcow2_bitmaps_free(s->bitmaps);
	s->bitmaps = NULL;
}

static int bitmap_list(void *st, struct vd_bitmap_entry **out, size_t *n, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	int r = vd_qcow2_bitmaps_get(s, e);

	if (r == 0)
		r = vd_alloc(s->bitmaps->n, sizeof(**out), out, e);
	if (r < 0)
		return r;
	*n = s->bitmaps->n;
	for (size_t i = 0; i < *n; i++) {
		const struct vd_qcow2_bitmap *b = &s->bitmaps->at[i];

		(*out)[i] = (struct vd_bitmap_entry){
			.name = b->name, .unusable = b->unusable, .granularity_bits = b->granularity_bits,
			.is_enabled = b->flags & QCOW2_BITMAP_AUTO, .is_held = b->is_held,
		};
	}
	return 0;
}

/* ---- bits ------------------------------------------------------------------------------------------------- */

uint64_t vd_qcow2_bitmap_n_bits(const struct vd_qcow2 *s, unsigned granularity_bits, uint64_t part, uint64_t disk_size)
{
	uint64_t all = vd_round_up(disk_size, UINT64_C(1) << granularity_bits) >> granularity_bits;
	uint64_t per_part = s->cluster_size * 8, first = part * per_part;

	return first >= all ? 0 : vd_min_u64(per_part, all - first);
}

/* Zeros from bit n on. */
static void cut_bits(uint8_t *raw, size_t len, uint64_t n)
{
	if (n % 8)
		raw[n / 8] &= (1u << n % 8) - 1;
	memset(raw + (n + 7) / 8, 0, len - (n + 7) / 8);
}

int vd_qcow2_bitmap_bits(const struct vd_qcow2 *s, const struct vd_qcow2_bitmap *b, uint64_t part, uint64_t word,
			 uint64_t disk_size, uint8_t *raw, struct vd_error *e)
{
	uint64_t off = word & QCOW2_OFFSET_MASK;
	int r = 0;

	if (off)
		r = vd_set_pread(s->set, 0, raw, s->cluster_size, off, e);
	else
		memset(raw, word & QCOW2_BITMAP_ONES ? 0xff : 0, s->cluster_size);
	cut_bits(raw, s->cluster_size, vd_qcow2_bitmap_n_bits(s, b->granularity_bits, part, disk_size));
	return r;
}

static int bitmap_load(void *st, size_t i, uint64_t part, uint64_t *n, uint8_t *raw, enum vd_bits *what,
		       struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	const struct vd_qcow2_bitmap *b = &s->bitmaps->at[i];
	uint64_t words[WORDS_AT_ONCE], n_words = vd_min_u64(vd_min_u64(*n, WORDS_AT_ONCE), b->table_size - part);
	int r = vd_qcow2_bitmap_words(s, b, part, n_words, words, e);

	if (r == 0)
		r = vd_qcow2_bitmap_judge_word(s, b, part, words[0], e);
	if (r < 0)
		return r;
	*n = 1;
	if (words[0] & QCOW2_OFFSET_MASK) {
		*what = VD_BITS_MIXED;
		return vd_qcow2_bitmap_bits(s, b, part, words[0], s->bitmaps->disk_size, raw, e);
	}
	*what = words[0] ? VD_BITS_ONES : VD_BITS_ZEROS;
	while (*n < n_words && words[*n] == words[0])
		++*n;
	return 0;
}

/* ---- holding ---------------------------------------------------------------------------------------------- */

/* Keeps B2. */
static int void_all(struct vd_qcow2 *s, struct vd_error *e)
{
	uint8_t raw[8];
	int r;

	vd_put_be64(raw, s->h.autoclear & ~QCOW2_AUTOCLEAR_BITMAPS);
	r = vd_set_pwrite(s->set, 0, raw, sizeof(raw), QCOW2_AT_AUTOCLEAR, NULL);
	if (r == 0)
		r = vd_set_flush(s->set, NULL);
	if (r < 0)
		return vd_qcow2_unsure(s, e);
	/* The header's page is clean here: nothing was written since the last commit. */
	vd_meta_forget(s->meta, 0, 0, s->cluster_size);
	s->h.autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
	vd_qcow2_bitmaps_forget(s);
	return 0;
}

/* What this library does not understand it cannot keep true either. */
static bool must_hold(const struct vd_qcow2_bitmap *b, bool all)
{
	return !(b->flags & QCOW2_BITMAP_IN_USE) && (all || b->unusable || b->flags & QCOW2_BITMAP_AUTO);
}

static int bitmap_hold(void *st, bool all, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	bool any = false;
	int r;

	if (!(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	r = vd_qcow2_bitmaps_get(s, e);
	if (r == VD_EBITMAP)
		return void_all(s, e);
	for (size_t i = 0; r == 0 && i < s->bitmaps->n; i++) {
		struct vd_qcow2_bitmap *b = &s->bitmaps->at[i];

		if (!must_hold(b, all))
			continue;
		any = true;
		b->flags |= QCOW2_BITMAP_IN_USE;
		b->is_held = !b->unusable;
		vd_put_be32(s->bitmaps->raw + b->at + QCOW2_BITMAP_AT_FLAGS, b->flags);
	}
	if (r < 0 || !any)
		return r;
	r = vd_set_pwrite(s->set, 0, s->bitmaps->raw, s->bitmaps_len, s->bitmaps_off, NULL);
	if (r == 0)
		r = vd_set_flush(s->set, NULL);
	return r < 0 ? vd_qcow2_unsure(s, e) : 0;
}

static void bitmap_abandon(void *st)
{
	vd_qcow2_bitmaps_forget(st);
}

const struct vd_bitmap_ops vd_qcow2_bitmap_ops = {
	.list = bitmap_list,
	.load = bitmap_load,
	.hold = bitmap_hold,
	.abandon = bitmap_abandon,
	.write = vd_qcow2_bitmap_write,
	.enact = vd_qcow2_bitmap_enact,
};
