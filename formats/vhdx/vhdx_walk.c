/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host walk of VHDX: makes claims of what leads to the bytes of a window. The format keeps no account of free space. */
#include "formats/vhdx/vhdx.h"

#include "formats/claims.h"

#define BATCH 512u                      /* entries read at once */
#define IDENTIFIER_BYTES 520u           /* "vhdxfile" and the creator */

static int claim(struct vd_window *w, uint64_t off, uint64_t used, uint64_t len, enum vd_owner owner, struct vd_error *e)
{
	const struct vd_place p = {
		.off = off, .used = used, .len = len, .owner = owner, .guest_off = VD_HOST_NOWHERE,
		.rest = off < VHDX_MIB ? VD_SLACK_HEADER : VD_SLACK_TABLE, .parent_off = VD_HOST_NOWHERE,
	};

	return vd_claim_place(w, &p, e);
}

/* Everything in MiB 0 lies at a multiple of 64 KiB. */
static int claim_head(const struct vd_vhdx *s, struct vd_window *w, struct vd_error *e)
{
	const uint64_t step = VHDX_HEADER_OFF;
	int r = claim(w, 0, IDENTIFIER_BYTES, step, VD_OWNER_HEADER, e);

	for (unsigned i = 0; i < 2 && r == 0; i++)
		r = claim(w, VHDX_HEADER_OFF << i, VHDX_HEADER_BYTES, step, i == s->current ? VD_OWNER_HEADER : VD_OWNER_COPY, e);
	for (unsigned i = 0; i < 2 && r == 0; i++)
		r = claim(w, VHDX_REGIONS_OFF + i * VHDX_REGIONS_BYTES, VHDX_REGIONS_BYTES, step,
			  i ? VD_OWNER_COPY : VD_OWNER_HEADER, e);
	return r < 0 ? r : claim(w, 5 * step, 0, VHDX_MIB - 5 * step, VD_OWNER_HEADER, e);
}

static int claim_regions(const struct vd_vhdx *s, struct vd_window *w, struct vd_error *e)
{
	const struct vd_place bat = {
		.off = s->bat.off, .used = vd_vhdx_n_entries(s, s->size) * 8, .len = s->bat.len, .owner = VD_OWNER_TABLE,
		.why = VD_TABLE_LEAF, .rest = VD_SLACK_TABLE, .guest_off = 0, .parent_off = VD_HOST_NOWHERE,
	};
	int r = claim(w, s->log.off, s->log.len, s->log.len, VD_OWNER_JOURNAL, e);

	if (r == 0)
		r = claim(w, s->metadata.off, s->metadata_used, s->metadata.len, VD_OWNER_HEADER, e);
	if (r == 0)
		r = vd_claim_place(w, &bat, e);
	/* Whatever others keep there. */
	for (size_t i = 0; i < s->n_unknown && r == 0; i++)
		r = claim(w, s->unknown[i].off, s->unknown[i].len, s->unknown[i].len, VD_OWNER_HEADER, e);
	return r;
}

/* ---- blocks --------------------------------------------------------------------------------------------- */

/* A piece of a block, cut at the end of the disk. */
static int claim_piece(const struct vd_vhdx *s, struct vd_window *w, uint64_t entry, uint64_t guest_off, uint64_t host_off,
		       uint64_t len, enum vd_owner owner, struct vd_error *e)
{
	const struct vd_place p = {
		.off = host_off, .used = guest_off < s->size ? vd_min_u64(len, s->size - guest_off) : 0, .len = len, .owner = owner,
		.why = owner == VD_OWNER_SLACK ? VD_SLACK_ABSENT : VD_WHY_NONE, .rest = VD_SLACK_PAST_END,
		.guest_off = guest_off, .parent_off = vd_vhdx_entry_off(s, entry),
	};

	return vd_claim_place(w, &p, e);
}

static int claim_partial(const struct vd_vhdx *s, struct vd_window *w, uint64_t entry, uint64_t start, uint64_t host_off,
			 struct vd_error *e)
{
	struct vd_error what;
	int r = 0;

	for (uint64_t at = 0, len; at < s->block_size && r == 0; at += len) {
		bool are_set;

		r = vd_vhdx_sectors_alike(s, start + at, start + s->block_size, 0, &are_set, &len, &what);
		if (r == VD_ECORRUPT) {
			vd_window_finding(w, &what);
			return claim_piece(s, w, entry, start, host_off, s->block_size, VD_OWNER_DATA, e);
		}
		if (r < 0)
			return vd_fail(e, r, "%s", what.message);
		r = claim_piece(s, w, entry, start + at, host_off + at, len, are_set ? VD_OWNER_DATA : VD_OWNER_SLACK, e);
	}
	return r;
}

/* One bit for each sector up to the end of the disk. */
static int claim_bitmap(const struct vd_vhdx *s, struct vd_window *w, uint64_t entry, uint64_t host_off, struct vd_error *e)
{
	uint64_t chunk = VHDX_CHUNK_SECTORS * s->sector_size, start = entry / (s->chunk_ratio + 1) * chunk;
	uint64_t bits = start < s->size ? vd_min_u64(s->size - start, chunk) / s->sector_size : 0;
	const struct vd_place p = {
		.off = host_off, .used = vd_round_up(bits, 8) / 8, .len = VHDX_MIB, .owner = VD_OWNER_TABLE,
		.why = VD_TABLE_SECTORS, .rest = VD_SLACK_TABLE, .guest_off = start, .parent_off = vd_vhdx_entry_off(s, entry),
	};

	return vd_claim_place(w, &p, e);
}

/* An entry that is not sound is told; where it leads is claimed all the same. */
static int claim_entry(const struct vd_vhdx *s, struct vd_window *w, uint64_t entry, uint64_t raw, struct vd_error *e)
{
	bool is_bitmap = vd_vhdx_is_bitmap_entry(s, entry);
	uint64_t start = (entry - entry / (s->chunk_ratio + 1)) * s->block_size, host_off;
	struct vd_error what;
	uint32_t state;
	int r = vd_vhdx_judge_entry(s, entry, raw, &state, &host_off, &what);

	if (r == VD_ECORRUPT)
		vd_window_finding(w, &what);
	else if (r < 0)
		return vd_fail(e, r, "%s", what.message);
	if (!host_off || !vd_window_meets(w, host_off, is_bitmap ? VHDX_MIB : s->block_size))
		return 0;
	if (is_bitmap)
		return claim_bitmap(s, w, entry, host_off, e);
	if (r == 0 && state == VHDX_PARTIAL)
		return claim_partial(s, w, entry, start, host_off, e);
	return claim_piece(s, w, entry, start, host_off, s->block_size, state >= VHDX_FULL ? VD_OWNER_DATA : VD_OWNER_ZEROED, e);
}

/* By the cache, which may hold what a log says is newer. */
static int claim_blocks(const struct vd_vhdx *s, struct vd_window *w, struct vd_error *e)
{
	uint64_t n_entries = vd_vhdx_n_entries(s, s->size);
	uint8_t raw[BATCH * 8];
	int r = 0;

	for (uint64_t first = 0, n; first < n_entries && r == 0; first += n) {
		n = vd_min_u64(n_entries - first, BATCH);
		r = vd_meta_read(s->meta, 0, vd_vhdx_entry_off(s, first), raw, n * 8, 0, e);
		for (uint64_t i = 0; i < n && r == 0; i++)
			r = claim_entry(s, w, first + i, vd_get_le64(raw + i * 8), e);
	}
	return r;
}

int vd_vhdx_walk(void *st, struct vd_window *w, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	int r;

	s->walked_end = s->file_end;
	s->n_spare = 0;
	vd_window_set_units(w, VHDX_MIB, s->data_end);
	r = claim_head(s, w, e);
	if (r == 0)
		r = claim_regions(s, w, e);
	return r < 0 ? r : claim_blocks(s, w, e);
}
