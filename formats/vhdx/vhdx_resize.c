/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes a disk larger. Entries for what is new go into the bat, by the log; where the bat is too short, a longer copy in
 * new space takes its place, the second region table first, which counts when the first is torn. Then the size, by the log.
 */
#include "formats/vhdx/vhdx.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define CHUNK (256u << 10)

/* What was written to the cache so far, through the log and in place. */
static int commit(struct vd_vhdx *s, struct vd_error *e)
{
	struct vd_meta_batch *batch;
	int r = vd_meta_snapshot(s->meta, &batch, e);

	return r < 0 ? r : vd_meta_commit(s->meta, batch, e);
}

/* ---- the bat -------------------------------------------------------------------------------------------- */

static int copy_bat(struct vd_vhdx *s, const struct vd_vhdx_area *to, struct vd_error *e)
{
	vd_auto_free uint8_t *buf = NULL;
	int r = vd_alloc_buffer(CHUNK, &buf, e);

	/* Behind the copy the file holds zeros: nothing was ever there. */
	for (uint64_t at = 0; at < s->bat.len && r == 0; at += CHUNK) {
		r = vd_set_pread(s->set, 0, buf, CHUNK, s->bat.off + at, e);
		if (r == 0)
			r = vd_set_pwrite(s->set, 0, buf, CHUNK, to->off + at, e);
	}
	return r < 0 ? r : vd_set_flush(s->set, e);
}

static int write_regions(struct vd_vhdx *s, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(1, VHDX_REGIONS_BYTES, &raw, e);

	if (r < 0)
		return r;
	vd_vhdx_regions_build(s, raw);
	for (int i = 1; i >= 0 && r == 0; i--) {
		r = vd_set_pwrite(s->set, 0, raw, VHDX_REGIONS_BYTES, VHDX_REGIONS_OFF + i * VHDX_REGIONS_BYTES, e);
		if (r == 0)
			r = vd_set_flush(s->set, e);
	}
	return r < 0 ? vd_error_prefix(e, VD_EPOISONED, "the new block allocation table may be in force or not: ") : 0;
}

static int move_bat(struct vd_vhdx *s, uint64_t n_entries, struct vd_error *e)
{
	struct vd_vhdx_area to = { s->bat.what, s->data_end, vd_round_up(n_entries * 8, VHDX_MIB) };
	int r = vd_vhdx_extend(s, to.off + to.len, e);

	if (r == 0)
		r = copy_bat(s, &to, e);
	if (r < 0)
		return r;
	s->bat = to;
	s->data_end = to.off + to.len;
	atomic_store(&s->host_end, s->data_end);
	r = write_regions(s, e);
	vd_meta_forget_all(s->meta);
	return r;
}

static int clear_entries(struct vd_vhdx *s, uint64_t from, uint64_t to, struct vd_error *e)
{
	return from < to ? vd_meta_zero(s->meta, 0, vd_vhdx_entry_off(s, from), (to - from) * 8, VD_RANK_LEAF, e) : 0;
}

/* Entries that no disk reached so far mean nothing; of a fixed disk the new blocks are there, too. */
static int write_entries(struct vd_vhdx *s, uint64_t size, struct vd_error *e)
{
	uint64_t first = s->size / s->block_size + (s->size % s->block_size != 0);
	uint64_t end = size / s->block_size + (size % s->block_size != 0);
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
			r = commit(s, e);
	}
	return r;
}

int vd_vhdx_reach(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	uint64_t n;
	int r;

	if (size > VHDX_SIZE_MAX)
		return vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large: a VHDX has at most 64 TiB", s->name, size);
	if (size % s->sector_size)
		return vd_fail(e, VD_EARG, "%s: the size is a multiple of its sectors of %" PRIu32 " bytes", s->name, s->sector_size);
	n = vd_vhdx_n_entries(s, size);
	r = vd_vhdx_log_open(s, e);
	if (r == 0 && n > s->bat.len / 8)
		r = move_bat(s, n, e);
	if (r == 0)
		r = write_entries(s, size, e);
	return r < 0 ? r : commit(s, e);
}

/* ---- the size ------------------------------------------------------------------------------------------- */

int vd_vhdx_resize(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	uint8_t raw[8];
	int r;

	if (size < s->size)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: a VHDX is not made smaller: convert it to a new one", s->name);
	vd_put_le64(raw, size);
	r = vd_meta_write(s->meta, 0, s->size_off, raw, sizeof(raw), VD_RANK_ROOT, e);
	if (r == 0)
		r = commit(s, e);
	/* Nobody else ends what reach() began on a handle that writes nothing more. */
	if (r == 0 && !s->is_writing)
		r = vd_vhdx_end_write(s, e);
	if (r < 0)
		return vd_error_prefix(e, VD_EPOISONED, "the new size may be said or not: ");
	s->size = size;
	return 0;
}
