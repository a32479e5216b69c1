/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes a block allocation table beside the one in force, in which blocks may have other numbers. Entries of bitmaps lie
 * between those of blocks, and where blocks change their chunk, the bitmaps are made anew. When it comes into force is
 * said by vhdx_resize.c, vhdx_shift.c and vhdx_backing.c.
 */
#include "formats/vhdx/vhdx.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define BATCH 32768u                    /* entries written, and read, at once */

struct remake {
	struct vd_vhdx *s;
	const struct vd_vhdx_bat_next *next;
	uint64_t n_blocks;              /* of the disk as it is */
	uint64_t front;                 /* of a fixed disk: where new blocks lie that come before all others */
	/* Entries of the bat in force, from `first` on. */
	uint8_t *old;
	uint64_t first, n;
	uint8_t *bitmap;                /* a MiB */
};

/* ---- what is in force ----------------------------------------------------------------------------------- */

static int old_entry(struct remake *m, uint64_t entry, uint32_t *state, uint64_t *host_off, struct vd_error *e)
{
	struct vd_vhdx *s = m->s;
	int r = 0;

	if (entry < m->first || entry >= m->first + m->n) {
		m->first = entry;
		m->n = vd_min_u64(BATCH, s->bat.len / 8 - entry);
		r = vd_set_pread(s->set, 0, m->old, m->n * 8, vd_vhdx_entry_off(s, entry), e);
	}
	return r < 0 ? r : vd_vhdx_judge_entry(s, entry, vd_get_le64(m->old + (entry - m->first) * 8), state, host_off, e);
}

/* ---- bitmaps -------------------------------------------------------------------------------------------- */

/* What of the chunk's bitmap goes to the new one, whose first byte has the number `start` among those of all bitmaps as they are. */
static int take_bits(struct remake *m, uint64_t chunk, int64_t start, bool *is_present, struct vd_error *e)
{
	int64_t begin = (int64_t)(chunk * VHDX_MIB), from = begin > start ? begin : start;
	int64_t end = begin < start ? begin : start, to = end + (int64_t)VHDX_MIB;
	uint64_t host_off;
	uint32_t state;
	/* By the cache: entries of bitmaps lie far from those of blocks. */
	int r = vd_vhdx_entry(m->s, vd_vhdx_bitmap_entry(m->s, chunk), 0, &state, &host_off, e);

	if (r < 0 || !host_off || from >= to)
		return r;
	*is_present = true;
	return vd_set_pread(m->s->set, 0, m->bitmap + (from - start), to - from, host_off + (from - begin), e);
}

static int make_bitmap(struct remake *m, uint64_t chunk, uint64_t *host_off, struct vd_error *e)
{
	struct vd_vhdx *s = m->s;
	int64_t bytes = m->next->shift * (int64_t)(s->block_size / s->sector_size / 8);
	int64_t start = (int64_t)(chunk * VHDX_MIB) - bytes, n_chunks = (m->n_blocks - 1) / s->chunk_ratio + 1;
	int64_t first = start < 0 ? 0 : start / (int64_t)VHDX_MIB;
	bool is_present = false;
	int r = 0;

	*host_off = 0;
	memset(m->bitmap, 0, VHDX_MIB);
	for (int64_t i = first; i < n_chunks && i * (int64_t)VHDX_MIB < start + (int64_t)VHDX_MIB && r == 0; i++)
		r = take_bits(m, i, start, &is_present, e);
	if (r < 0 || !is_present)
		return r;
	r = vd_vhdx_new_area(s, VHDX_MIB, host_off, e);
	return r < 0 ? r : vd_set_pwrite(s->set, 0, m->bitmap, VHDX_MIB, *host_off, e);
}

/* ---- entries -------------------------------------------------------------------------------------------- */

static int bitmap_entry(struct remake *m, uint64_t chunk, uint64_t *raw, struct vd_error *e)
{
	struct vd_vhdx *s = m->s;
	uint64_t host_off = 0;
	uint32_t state;
	int r = 0;

	*raw = 0;
	if (!s->has_parent)
		return 0;
	if (m->next->shift)
		r = make_bitmap(m, chunk, &host_off, e);
	else if (vd_vhdx_bitmap_entry(s, chunk) < s->bat.len / 8)
		r = vd_vhdx_entry(s, vd_vhdx_bitmap_entry(s, chunk), 0, &state, &host_off, e);
	*raw = host_off ? host_off | VHDX_FULL : 0;
	return r;
}

static int block_entry(struct remake *m, uint64_t block, uint64_t *raw, struct vd_error *e)
{
	const struct vd_vhdx *s = m->s;
	int64_t was = (int64_t)block - m->next->shift;
	uint64_t host_off;
	uint32_t state;
	int r;

	*raw = was < 0 && s->leaves_allocated ? (m->front + block * s->block_size) | VHDX_FULL : 0;
	if (was < 0 || (uint64_t)was >= m->n_blocks)
		return 0;
	r = old_entry(m, vd_vhdx_block_entry(s, was), &state, &host_off, e);
	*raw = host_off | state;
	return r;
}

static int fill(struct remake *m, uint8_t *buf, uint64_t first, uint64_t n, struct vd_error *e)
{
	uint64_t ratio = m->s->chunk_ratio, raw;
	int r = 0;

	for (uint64_t i = first; i < first + n && r == 0; i++) {
		uint64_t chunk = i / (ratio + 1);

		r = vd_vhdx_is_bitmap_entry(m->s, i) ? bitmap_entry(m, chunk, &raw, e) : block_entry(m, i - chunk, &raw, e);
		vd_put_le64(buf + (i - first) * 8, raw);
	}
	return r;
}

/* Where there is nothing to say the file holds zeros. */
static int write_entries(struct remake *m, uint64_t to, uint64_t n_entries, struct vd_error *e)
{
	vd_auto_free uint8_t *buf = NULL;
	int r = vd_alloc_buffer(BATCH * 8, &buf, e);

	for (uint64_t first = 0, n; first < n_entries && r == 0; first += n) {
		n = vd_min_u64(BATCH, n_entries - first);
		r = fill(m, buf, first, n, e);
		if (r == 0 && !vd_is_zero(buf, n * 8))
			r = vd_set_pwrite(m->s->set, 0, buf, n * 8, to + first * 8, e);
	}
	return r < 0 ? r : vd_set_flush(m->s->set, e);
}

int vd_vhdx_bat_remake(struct vd_vhdx *s, const struct vd_vhdx_bat_next *next, struct vd_vhdx_area *to, struct vd_error *e)
{
	uint64_t n_entries = vd_vhdx_n_entries(s, next->size);
	struct remake m = { .s = s, .next = next, .n_blocks = vd_vhdx_n_blocks(s, s->size) };
	vd_auto_free uint8_t *old = NULL, *bitmap = NULL;
	int r = vd_alloc_buffer(BATCH * 8, &old, e);

	if (r == 0)
		r = vd_alloc_buffer(VHDX_MIB, &bitmap, e);
	m.old = old;
	m.bitmap = bitmap;
	*to = (struct vd_vhdx_area){ s->bat.what, 0, vd_round_up(n_entries * 8, VHDX_MIB) };
	if (r == 0)
		r = vd_vhdx_new_area(s, to->len, &to->off, e);
	if (r == 0 && s->leaves_allocated && next->shift > 0)
		r = vd_vhdx_new_area(s, next->shift * s->block_size, &m.front, e);
	return r < 0 ? r : write_entries(&m, to->off, n_entries, e);
}
