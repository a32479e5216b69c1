/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes a disk larger or smaller. Entries for what is new go into the bat, by the log; where the bat is too short, a longer
 * one in new space takes its place (keeps X6). Then the size, by the log. A smaller size comes first, then entries behind it go.
 */
#include "formats/vhdx/vhdx.h"

int vd_vhdx_commit(struct vd_vhdx *s, struct vd_error *e)
{
	struct vd_meta_batch *batch;
	int r = vd_meta_snapshot(s->meta, &batch, e);

	return r < 0 ? r : vd_meta_commit(s->meta, batch, e);
}

/* ---- the bat -------------------------------------------------------------------------------------------- */

int vd_vhdx_move_bat(struct vd_vhdx *s, uint64_t size, struct vd_error *e)
{
	const struct vd_vhdx_bat_next next = { .size = size };
	struct vd_vhdx_area to;
	int r = vd_vhdx_bat_remake(s, &next, &to, e);

	if (r < 0)
		return r;
	s->bat = to;
	return vd_vhdx_regions_write(s, e);
}

static int clear_entries(struct vd_vhdx *s, uint64_t from, uint64_t to, struct vd_error *e)
{
	return from < to ? vd_meta_zero(s->meta, 0, vd_vhdx_entry_off(s, from), (to - from) * 8, VD_RANK_LEAF, e) : 0;
}

/* Entries that no disk reached so far mean nothing; of a fixed disk the new blocks are there, too. */
static int write_entries(struct vd_vhdx *s, uint64_t size, struct vd_error *e)
{
	uint64_t first = vd_vhdx_n_blocks(s, s->size), end = vd_vhdx_n_blocks(s, size);
	uint64_t to = vd_vhdx_n_entries(s, size), bitmap = vd_vhdx_bitmap_entry(s, (first - 1) / s->chunk_ratio);
	/* That of the last chunk's bitmap was in use before blocks behind came to it. */
	int r = clear_entries(s, vd_vhdx_block_entry(s, first - 1) + 1, vd_min_u64(bitmap, to), e);

	if (r == 0)
		r = clear_entries(s, bitmap + 1, to, e);
	if (r < 0 || !s->leaves_allocated)
		return r;
	r = vd_vhdx_extend(s, s->data_end + (end - first) * s->block_size, e);
	for (uint64_t block = first; block < end && r == 0; block++) {
		r = vd_vhdx_entry_write(s, vd_vhdx_block_entry(s, block), VHDX_FULL, s->data_end, VD_RANK_ROOT, e);
		s->data_end += s->block_size;
		atomic_store(&s->host_end, s->data_end);
		if (r == 0 && vd_meta_wants_commit(s->meta))
			r = vd_vhdx_commit(s, e);
	}
	return r;
}

int vd_vhdx_judge_size(const struct vd_vhdx *s, uint64_t size, struct vd_error *e)
{
	if (size > VHDX_SIZE_MAX)
		return vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large: a VHDX has at most 64 TiB", s->name, size);
	if (!size || size % s->sector_size)
		return vd_fail(e, VD_EARG, "%s: the size is a multiple of its sectors of %" PRIu32 " bytes, and not 0", s->name,
			       s->sector_size);
	return 0;
}

int vd_vhdx_reach(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	uint64_t n;
	int r = vd_vhdx_judge_size(s, size, e);

	if (r < 0)
		return r;
	n = vd_vhdx_n_entries(s, size);
	r = vd_vhdx_log_open(s, VHDX_CHANGES_DISK, e);
	if (r == 0 && n > s->bat.len / 8)
		r = vd_vhdx_move_bat(s, size, e);
	if (r == 0)
		r = write_entries(s, size, e);
	return r < 0 ? r : vd_vhdx_commit(s, e);
}

/* ---- the size ------------------------------------------------------------------------------------------- */

int vd_vhdx_cut_entry(struct vd_vhdx *s, uint64_t entry, bool *is_sound, struct vd_error *e)
{
	uint64_t host_off;
	uint32_t state;
	int r = vd_vhdx_entry(s, entry, 0, &state, &host_off, e);

	*is_sound = r != VD_ECORRUPT;
	if (r == VD_ECORRUPT || (r == 0 && !state && !host_off))
		return 0;
	if (r == 0)
		r = vd_vhdx_entry_write(s, entry, VHDX_NOT_PRESENT, 0, VD_RANK_ROOT, e);
	if (r == 0 && host_off && !vd_vhdx_is_bitmap_entry(s, entry))
		vd_vhdx_release(s, host_off);
	return r;
}

/* Of blocks that the disk does not reach any more, and of bitmaps of chunks of nothing else. */
static int cut_bat(struct vd_vhdx *s, uint64_t size_before, struct vd_error *e)
{
	uint64_t n_blocks = vd_vhdx_n_blocks(s, s->size), to = vd_vhdx_n_entries(s, size_before);
	bool ignored;
	int r = 0;

	for (uint64_t i = vd_vhdx_block_entry(s, n_blocks - 1) + 1; i < to && r == 0; i++) {
		if (i == vd_vhdx_bitmap_entry(s, (n_blocks - 1) / s->chunk_ratio))
			continue;
		r = vd_vhdx_cut_entry(s, i, &ignored, e);
		if (r == 0 && vd_meta_wants_commit(s->meta))
			r = vd_vhdx_commit(s, e);
	}
	if (r == 0)
		r = vd_vhdx_commit(s, e);
	return r < 0 ? r : vd_space_drain(s->space, e);
}

int vd_vhdx_shape_changed(struct vd_vhdx *s, struct vd_error *e)
{
	return s->is_writing ? 0 : vd_vhdx_end_write(s, e);
}

static int write_size(struct vd_vhdx *s, uint64_t size, struct vd_error *e)
{
	uint8_t raw[8];
	int r;

	vd_put_le64(raw, size);
	r = vd_meta_write(s->meta, 0, s->size_off, raw, sizeof(raw), VD_RANK_ROOT, e);
	return r < 0 ? r : vd_vhdx_commit(s, e);
}

int vd_vhdx_resize(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	uint64_t before = s->size;
	int r = vd_vhdx_judge_size(s, size, e);

	if (r == 0)
		r = vd_vhdx_log_open(s, VHDX_CHANGES_DISK, e);
	if (r < 0)
		return r;
	r = write_size(s, size, e);
	if (r == 0) {
		s->size = size;
		r = size < before ? cut_bat(s, before, e) : 0;
	}
	if (r == 0)
		r = vd_vhdx_shape_changed(s, e);
	return r < 0 ? vd_unsure(s->name, e, "the new size may be said or not") : 0;
}
