/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives out the place for a write and links it afterwards (keeps V3), with the footer out of the way of new blocks
 * (keeps V4).
 */
#include "formats/vhd/vhd.h"

#define AHEAD_MAX (UINT64_C(64) << 20)  /* room for blocks that is made at once, and lost if a crash comes before the close */

/* ---- the footer ----------------------------------------------------------------------------------------- */

uint32_t vd_vhd_next_time(const struct vd_vhd *s)
{
	return s->next_time ? s->next_time : vd_max_u64(vd_vhd_now(), (uint64_t)s->f.time + 1);
}

/*
 * The time is the parent's stamp that differencing disks note: later than before even within a second. A footer that
 * was lost at the end is put back.
 */
int vd_vhd_begin_write(void *st, struct vd_error *e)
{
	struct vd_vhd *s = st;

	if (s->is_fresh)
		return 0;
	if (s->footer_off == UINT64_MAX)
		s->footer_off = s->data_end;
	vd_vhd_footer_set_time(s, vd_vhd_next_time(s));
	return vd_vhd_footer_store(s, e);
}

int vd_vhd_end_write(void *st, struct vd_error *e)
{
	struct vd_vhd *s = st;

	return s->footer_off == s->data_end ? 0 : vd_vhd_footer_settle(s, e);
}

/* Room up to `end`, and more. The old footer's page is not to be written any more: a block comes there. */
static int move_footer(struct vd_vhd *s, uint64_t end, struct vd_error *e)
{
	uint64_t stride = (uint64_t)s->bitmap_size + s->h.block_size;
	uint64_t ahead = vd_max_u64(vd_round_down(vd_min_u64(end / 8, AHEAD_MAX), stride), stride);
	int r = vd_meta_write(s->meta, 0, end + ahead, s->footer, VHD_FOOTER_BYTES, VD_RANK_OWNER, e);

	if (r < 0)
		return r;
	if (s->footer_has_moved)
		vd_meta_forget(s->meta, 0, s->footer_off, VHD_FOOTER_BYTES);
	s->footer_off = end + ahead;
	s->footer_born = vd_meta_n_snapshots(s->meta);
	s->footer_has_moved = true;
	return 0;
}

/* Commits run one after the other: when two snapshots were taken since, the first of them is on disk. */
static bool footer_may_be_in_memory(const struct vd_vhd *s)
{
	return s->footer_has_moved && vd_meta_n_snapshots(s->meta) < s->footer_born + 2;
}

/* ---- reserving ------------------------------------------------------------------------------------------ */

static int new_block(struct vd_vhd *s, uint64_t block, uint64_t *host_off, struct vd_error *e)
{
	uint64_t at = vd_max_u64(s->data_end, s->append_from), end = at + s->bitmap_size + s->h.block_size;
	int r = 0;

	if (end / VHD_SECTOR >= VHD_ABSENT)
		return vd_fail(e, VD_ENOSPC, "%s: the file has no room left that its table can name", s->name);
	/* A new file gets its footer at the end. */
	if (!s->is_fresh && end > s->footer_off) {
		r = move_footer(s, end, e);
		if (r < 0)
			return r;
	}
	if (at < s->walked_end)
		r = vd_set_punch(s->set, 0, at, vd_min_u64(end, s->walked_end) - at, e);
	/* Without holes the bitmap's word alone counts. */
	if (r == 0 || r == VD_EUNSUPPORTED)
		r = vd_meta_zero(s->meta, 0, at, s->bitmap_size, VD_RANK_INDEX, e);
	if (r == 0)
		r = vd_pending_add(&s->pending, block, at, e);
	if (r < 0)
		return r;
	s->data_end = end;
	atomic_store(&s->host_end, end);
	*host_off = at;
	return 0;
}

/* Writing past what the file has of a block would go over its footer, or over another block. */
static int judge_place(const struct vd_vhd *s, uint64_t block, uint64_t host_off, struct vd_error *e)
{
	uint64_t end = host_off + s->bitmap_size + s->h.block_size;

	if (end <= s->data_end)
		return 0;
	return vd_corrupt(s->name, e, s->h.table_offset + block * 4, "block %" PRIu64 " at %" PRIu64 " reaches past the end of the data at %" PRIu64,
			      block, host_off, s->data_end);
}

static void fill_in(const struct vd_vhd *s, struct vd_resv *v, uint64_t host_off)
{
	uint64_t start = vd_round_down(v->off, s->h.block_size), end = v->off + v->covered;

	v->fill_off = v->off;
	if (!v->in_place) {
		v->fill_off = vd_round_down(v->off, VHD_SECTOR);
		end = vd_round_up(end, VHD_SECTOR);
	}
	v->fill_len = end - v->fill_off;
	v->host_off = host_off + s->bitmap_size + (v->fill_off - start);
	v->file = 0;
	v->cookie[0] = host_off;
}

/* Sectors that are all here already are written in place; others in one go: a write that is cancelled leaves what was there. */
static int reserve_present(struct vd_vhd *s, struct vd_resv *v, uint64_t host_off, struct vd_error *e)
{
	uint64_t block = v->off / s->h.block_size, in_block = v->off % s->h.block_size;
	uint32_t sector = in_block / VHD_SECTOR, n;
	int r = judge_place(s, block, host_off, e);

	if (r == 0)
		r = vd_vhd_sectors_alike(s, host_off, sector, vd_round_up(in_block + v->len, VHD_SECTOR) / VHD_SECTOR - sector,
					 0, &v->in_place, &n, e);
	if (r < 0)
		return r;
	v->covered = vd_min_u64(v->len, (uint64_t)(sector + n) * VHD_SECTOR - in_block);
	return 0;
}

static int reserve_dynamic(struct vd_vhd *s, struct vd_resv *v, struct vd_error *e)
{
	uint64_t block = v->off / s->h.block_size, host_off;
	int r = vd_vhd_block(s, block, 0, &host_off, e);

	v->len = vd_min_u64(v->len, s->h.block_size - v->off % s->h.block_size);
	v->in_place = v->fresh = false;
	v->covered = v->len;
	if (r < 0)
		return r;
	if (host_off) {
		r = reserve_present(s, v, host_off, e);
	} else {
		host_off = vd_pending_find(&s->pending, block);
		v->fresh = !host_off;
		if (!host_off)
			r = new_block(s, block, &host_off, e);
	}
	if (r < 0)
		return r;
	v->barrier_first = !v->in_place && footer_may_be_in_memory(s);
	fill_in(s, v, host_off);
	return 0;
}

int vd_vhd_reserve(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct vd_vhd *s = st;

	if (!vd_vhd_is_fixed(s))
		return reserve_dynamic(s, v, e);
	v->covered = v->fill_len = v->len;
	v->host_off = v->fill_off = v->off;
	v->file = 0;
	v->in_place = true;
	return 0;
}

/* ---- linking -------------------------------------------------------------------------------------------- */

static void set_bits(const struct vd_vhd *s, uint8_t *bits, uint32_t from, uint32_t to)
{
	while (from < to) {
		if (from % 8 == 0 && to - from >= 8) {
			bits[from / 8] = 0xff;
			from += 8;
			continue;
		}
		bits[from / 8] |= s->bits_from_low ? 1u << from % 8 : 0x80u >> from % 8;
		from++;
	}
}

static int mark_present(struct vd_vhd *s, uint64_t host_off, uint32_t sector, uint32_t end, struct vd_error *e)
{
	uint8_t bits[512];

	while (sector < end) {
		uint32_t first = vd_round_down(sector, 8), part = vd_min_u64(end - first, sizeof(bits) * 8);
		size_t len = vd_round_up(part, 8) / 8;
		int r = vd_meta_read(s->meta, 0, host_off + first / 8, bits, len, 0, e);

		if (r == 0) {
			set_bits(s, bits, sector - first, part);
			r = vd_meta_write(s->meta, 0, host_off + first / 8, bits, len, VD_RANK_INDEX, e);
		}
		if (r < 0)
			return r;
		sector = first + part;
	}
	return 0;
}

int vd_vhd_publish(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct vd_vhd *s = st;
	uint64_t block = v->off / s->h.block_size, start = block * s->h.block_size, host_off;
	uint8_t raw[4];
	int r = vd_vhd_block(s, block, 0, &host_off, e);

	if (r == 0)
		r = mark_present(s, v->cookie[0], (v->fill_off - start) / VHD_SECTOR,
				 (v->fill_off + v->fill_len - start) / VHD_SECTOR, e);
	if (r < 0 || host_off)
		return r;
	vd_put_be32(raw, v->cookie[0] / VHD_SECTOR);
	r = vd_meta_write(s->meta, 0, s->h.table_offset + block * 4, raw, sizeof(raw), VD_RANK_LEAF, e);
	if (r == 0)
		vd_pending_drop(&s->pending, block);
	return r;
}

/* The block stays with its guest block: nothing but what the guest wanted there was written into it. */
void vd_vhd_cancel(void *st, struct vd_resv *v)
{
	(void)st;
	(void)v;
}

/* Zeros are written, or holes of the host file (V5): a cleared bit would be one to us, but not to qemu. */
int vd_vhd_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e)
{
	(void)st;
	(void)off;
	(void)len;
	(void)mode;
	(void)e;
	*done = 0;
	return 0;
}

/* Nor is the space of a block that is gone (V5): the host gets it back, if it takes it. */
int vd_vhd_freed(void *st, const struct vd_range *range, struct vd_error *e)
{
	struct vd_vhd *s = st;
	int r = vd_set_punch(s->set, 0, range->host_off, range->len, e);

	return r == VD_EUNSUPPORTED ? 0 : r;
}
