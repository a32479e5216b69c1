/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Gives out the place for a write and links it afterwards; the log is vhdx_log.c's (keeps X5). */
#include "formats/vhdx/vhdx.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"

#define AHEAD_MAX (UINT64_C(64) << 20)  /* the file is made longer by this much at once, and cut at the end */
#define PUNCH_MAX 1024u                 /* blocks a call: the allocation lock is held meanwhile */

/* ---- begin and end -------------------------------------------------------------------------------------- */

int vd_vhdx_begin_write(void *st, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	int r = s->is_fresh ? 0 : vd_vhdx_log_open(s, VHDX_CHANGES_DISK, e);

	s->is_writing = r == 0;
	return r;
}

/* The file is cut after the log has ended, which says how long it is at least. */
int vd_vhdx_end_write(void *st, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	int r = vd_vhdx_log_close(s, e);

	s->is_writing = false;
	if (r < 0 || s->file_end <= s->data_end)
		return r;
	r = vd_io_truncate(vd_set_io(s->set, 0), s->data_end, e);
	if (r == 0)
		s->file_end = s->data_end;
	return r;
}

/* ---- space ---------------------------------------------------------------------------------------------- */

int vd_vhdx_extend(struct vd_vhdx *s, uint64_t end, struct vd_error *e)
{
	uint64_t ahead = vd_round_down(vd_min_u64(end / 8, AHEAD_MAX), VHDX_MIB);
	int r;

	if (end <= s->file_end)
		return 0;
	r = vd_io_truncate(vd_set_io(s->set, 0), end + ahead, e);
	if (r == 0)
		s->file_end = end + ahead;
	return r;
}

void vd_vhdx_trim(struct vd_vhdx *s, uint64_t blocks_end)
{
	const struct vd_vhdx_area *areas[] = { &s->log, &s->bat, &s->metadata };

	s->data_end = vd_max_u64(VHDX_MIB, vd_round_up(blocks_end, VHDX_MIB));
	for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++)
		s->data_end = vd_max_u64(s->data_end, areas[i]->off + areas[i]->len);
	for (size_t i = 0; i < s->n_unknown; i++)
		s->data_end = vd_max_u64(s->data_end, vd_round_up(s->unknown[i].off + s->unknown[i].len, VHDX_MIB));
	s->n_spare = 0;
	vd_pending_free(&s->pending);
	atomic_store(&s->host_end, s->data_end);
}

/* Free space that a walk told of may hold anything by now. */
static int make_zeros(struct vd_vhdx *s, uint64_t *at, uint64_t len, struct vd_error *e)
{
	int r = 0;

	if (*at < s->walked_end)
		r = vd_set_punch(s->set, 0, *at, vd_min_u64(len, s->walked_end - *at), e);
	if (r != VD_EUNSUPPORTED)
		return r;
	*at = vd_round_up(s->walked_end, VHDX_MIB);
	return vd_vhdx_extend(s, *at + len, e);
}

int vd_vhdx_new_area(struct vd_vhdx *s, uint64_t len, uint64_t *off, struct vd_error *e)
{
	uint64_t at = vd_max_u64(s->data_end, s->append_from);
	int r = vd_vhdx_extend(s, at + len, e);

	if (r == 0)
		r = make_zeros(s, &at, len, e);
	if (r < 0)
		return r;
	s->data_end = at + len;
	if (s->data_end > atomic_load(&s->host_end))
		atomic_store(&s->host_end, s->data_end);
	*off = at;
	return 0;
}

/* Zeros; `index` in the bat is who gets it. */
static int new_space(struct vd_vhdx *s, uint64_t index, uint64_t len, uint64_t *host_off, struct vd_error *e)
{
	int r = 0;

	if (len == s->block_size && s->n_spare)
		*host_off = s->spare[--s->n_spare];
	else
		r = vd_vhdx_new_area(s, len, host_off, e);
	return r < 0 ? r : vd_pending_add(&s->pending, index, *host_off, e);
}

/* Every block is full of zeros when it is spare: the host makes a hole of it, or it is not used again. */
int vd_vhdx_freed(void *st, const struct vd_range *range, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	size_t max = s->max_spare * 2 + 16;
	int r = vd_set_punch(s->set, 0, range->host_off, range->len, e);

	if (r == VD_EUNSUPPORTED || range->host_off < s->append_from)
		return r == VD_EUNSUPPORTED ? 0 : r;
	if (r == 0 && s->n_spare == s->max_spare) {
		r = vd_realloc(&s->spare, max, sizeof(*s->spare), e);
		s->max_spare = r == 0 ? max : s->max_spare;
	}
	if (r == 0)
		s->spare[s->n_spare++] = range->host_off;
	return r;
}

void vd_vhdx_release(struct vd_vhdx *s, uint64_t host_off)
{
	vd_space_release(s->space, (struct vd_range){ .host_off = host_off, .len = s->block_size });
}

int vd_vhdx_entry_write(struct vd_vhdx *s, uint64_t entry, uint32_t state, uint64_t host_off, enum vd_meta_rank rank,
			struct vd_error *e)
{
	uint8_t raw[8];

	vd_put_le64(raw, host_off | state);
	return vd_meta_write(s->meta, 0, vd_vhdx_entry_off(s, entry), raw, sizeof(raw), rank, e);
}

/* ---- reserving ------------------------------------------------------------------------------------------ */

/* Writing past what the file has of a block would go over another. */
static int judge_block_end(const struct vd_vhdx *s, uint64_t entry, uint64_t host_off, struct vd_error *e)
{
	if (host_off + s->block_size <= s->data_end)
		return 0;
	return vd_corrupt(s->name, e, vd_vhdx_entry_off(s, entry), "the block of entry %" PRIu64 " at %" PRIu64 " reaches past the end of the file",
			  entry, host_off);
}

/* What of the block is here is written in place; other sectors in one go: a write that is cancelled leaves what was there. */
static int reserve_present(struct vd_vhdx *s, struct vd_resv *v, uint64_t entry, uint32_t state, uint64_t host_off,
			   struct vd_error *e)
{
	int r = judge_block_end(s, entry, host_off, e);

	v->in_place = true;
	if (r == 0 && state == VHDX_PARTIAL)
		r = vd_vhdx_sectors_alike(s, v->off, v->off + v->len, 0, &v->in_place, &v->covered, e);
	return r;
}

/* The bitmap of the chunk, for a block that will be partially present. */
static int reserve_bitmap(struct vd_vhdx *s, uint64_t chunk, uint64_t *host_off, struct vd_error *e)
{
	uint64_t entry = vd_vhdx_bitmap_entry(s, chunk);
	uint32_t state;
	int r = vd_vhdx_entry(s, entry, 0, &state, host_off, e);

	if (r == 0 && !*host_off)
		*host_off = vd_pending_find(&s->pending, entry);
	return r < 0 || *host_off ? r : new_space(s, entry, VHDX_MIB, host_off, e);
}

static int reserve_absent(struct vd_vhdx *s, struct vd_resv *v, uint64_t entry, uint32_t state, uint64_t *host_off,
			  struct vd_error *e)
{
	uint64_t bitmap;
	int r = 0;

	if (s->has_parent && state == VHDX_NOT_PRESENT)
		r = reserve_bitmap(s, v->off / s->block_size / s->chunk_ratio, &bitmap, e);
	*host_off = vd_pending_find(&s->pending, entry);
	if (r < 0 || *host_off)
		return r;
	v->fresh = true;
	return new_space(s, entry, s->block_size, host_off, e);
}

/* cookie[0]: the block's place. */
int vd_vhdx_reserve(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	uint64_t block = v->off / s->block_size, in_block = v->off % s->block_size, host_off, end;
	uint64_t entry = vd_vhdx_block_entry(s, block);
	uint32_t state;
	int r = vd_vhdx_entry(s, entry, 0, &state, &host_off, e);

	v->len = v->covered = vd_min_u64(v->len, s->block_size - in_block);
	v->in_place = v->fresh = false;
	if (r == 0 && state >= VHDX_FULL)
		r = reserve_present(s, v, entry, state, host_off, e);
	else if (r == 0)
		r = reserve_absent(s, v, entry, state, &host_off, e);
	if (r < 0)
		return r;
	end = v->off + v->covered;
	v->fill_off = v->in_place ? v->off : vd_round_down(v->off, s->sector_size);
	v->fill_len = (v->in_place ? end : vd_round_up(end, s->sector_size)) - v->fill_off;
	v->host_off = host_off + v->fill_off % s->block_size;
	v->file = 0;
	v->cookie[0] = host_off;
	return 0;
}

/* ---- linking -------------------------------------------------------------------------------------------- */

static void set_bits(uint8_t *bits, uint32_t from, uint32_t to)
{
	while (from < to) {
		if (from % 8 == 0 && to - from >= 8) {
			bits[from / 8] = 0xff;
			from += 8;
			continue;
		}
		bits[from / 8] |= 1u << from % 8;
		from++;
	}
}

static int mark_present(struct vd_vhdx *s, uint64_t bitmap, uint32_t sector, uint32_t end, struct vd_error *e)
{
	uint8_t bits[512];

	while (sector < end) {
		uint32_t first = vd_round_down(sector, 8), part = vd_min_u64(end - first, sizeof(bits) * 8);
		size_t len = vd_round_up(part, 8) / 8;
		int r = vd_meta_read(s->meta, 0, bitmap + first / 8, bits, len, 0, e);

		if (r == 0) {
			set_bits(bits, sector - first, part);
			r = vd_meta_write(s->meta, 0, bitmap + first / 8, bits, len, VD_RANK_INDEX, e);
		}
		if (r < 0)
			return r;
		sector = first + part;
	}
	return 0;
}

/* Bits that a block had in an earlier life mean nothing now. */
static int clear_bits(struct vd_vhdx *s, uint64_t bitmap, uint64_t block, struct vd_error *e)
{
	uint64_t bytes = s->block_size / s->sector_size / 8;

	return vd_meta_zero(s->meta, 0, bitmap + block % s->chunk_ratio * bytes, bytes, VD_RANK_INDEX, e);
}

/* The bitmap's bits, the bitmap, the block: in this order, should they not fit one entry of the log. */
static int publish_partial(struct vd_vhdx *s, const struct vd_resv *v, uint32_t state, struct vd_error *e)
{
	uint64_t block = v->off / s->block_size, chunk = block / s->chunk_ratio, bitmap;
	uint64_t bitmap_entry = vd_vhdx_bitmap_entry(s, chunk), entry = vd_vhdx_block_entry(s, block);
	uint64_t start = chunk * VHDX_CHUNK_SECTORS * s->sector_size;
	bool is_new;
	int r = reserve_bitmap(s, chunk, &bitmap, e);

	if (r < 0)
		return r;
	is_new = vd_pending_find(&s->pending, bitmap_entry);
	if (state != VHDX_PARTIAL)
		r = clear_bits(s, bitmap, block, e);
	if (r == 0)
		r = mark_present(s, bitmap, (v->fill_off - start) / s->sector_size,
				 (v->fill_off + v->fill_len - start) / s->sector_size, e);
	if (r == 0 && is_new)
		r = vd_vhdx_entry_write(s, bitmap_entry, VHDX_FULL, bitmap, VD_RANK_LEAF, e);
	if (r < 0)
		return r;
	if (is_new)
		vd_pending_drop(&s->pending, bitmap_entry);
	return state == VHDX_PARTIAL ? 0 : vd_vhdx_entry_write(s, entry, VHDX_PARTIAL, v->cookie[0], VD_RANK_ROOT, e);
}

int vd_vhdx_publish(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	uint64_t entry = vd_vhdx_block_entry(s, v->off / s->block_size), host_off;
	uint32_t state;
	int r = vd_vhdx_entry(s, entry, 0, &state, &host_off, e);

	/* Another writer made the block while this one was under way. */
	if (r < 0 || state == VHDX_FULL)
		return r;
	if (state == VHDX_PARTIAL || (s->has_parent && state == VHDX_NOT_PRESENT))
		r = publish_partial(s, v, state, e);
	else
		r = vd_vhdx_entry_write(s, entry, VHDX_FULL, v->cookie[0], VD_RANK_ROOT, e);
	if (r < 0)
		return r;
	vd_pending_drop(&s->pending, entry);
	/* An unmapped block may have kept its place. */
	if (host_off && state != VHDX_PARTIAL)
		vd_vhdx_release(s, host_off);
	return 0;
}

int vd_vhdx_zero_space(struct vd_vhdx *s, uint64_t off, uint64_t len, struct vd_error *e)
{
	static const uint8_t zeros[4096];
	int r = vd_set_punch(s->set, 0, off, len, e);

	if (r != VD_EUNSUPPORTED)
		return r;
	r = 0;
	for (uint64_t at = 0, n; at < len && r == 0; at += n) {
		n = vd_min_u64(sizeof(zeros), len - at);
		r = vd_set_pwrite(s->set, 0, zeros, n, off + at, e);
	}
	return r;
}

/*
 * The block stays with its guest block, for others that write there or come later; so what was written of it must be zeros
 * again (X5). Where the host can do neither, the bytes of a failed write may show.
 */
void vd_vhdx_cancel(void *st, struct vd_resv *v)
{
	if (vd_vhdx_zero_space(st, v->host_off, v->fill_len, NULL) < 0)
		return;
}

/* ---- zeros ---------------------------------------------------------------------------------------------- */

static int punch_block(struct vd_vhdx *s, uint64_t block, struct vd_error *e)
{
	uint64_t entry = vd_vhdx_block_entry(s, block), host_off;
	uint32_t state;
	int r = vd_vhdx_entry(s, entry, 0, &state, &host_off, e);

	if (r == 0 && state != VHDX_ZERO)
		r = vd_vhdx_entry_write(s, entry, VHDX_ZERO, 0, VD_RANK_ROOT, e);
	if (r == 0 && state != VHDX_ZERO && host_off)
		vd_vhdx_release(s, host_off);
	return r;
}

/* Whole blocks say that they are zeros, unless the image is to keep its space. */
int vd_vhdx_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	int r = 0;

	(void)mode;
	*done = 0;
	if (off % s->block_size || s->leaves_allocated)
		return 0;
	for (unsigned i = 0; i < PUNCH_MAX && r == 0; i++) {
		uint64_t at = off + *done, whole = vd_min_u64(s->block_size, s->size - at);

		if (at >= s->size || len - *done < whole)
			break;
		r = punch_block(s, at / s->block_size, e);
		*done += whole;
	}
	return r;
}
