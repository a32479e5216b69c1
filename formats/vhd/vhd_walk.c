/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host walk of VHD: makes claims of what leads to the bytes of a window. The format keeps no account of free space. */
#include "formats/vhd/vhd.h"

#include "formats/claims.h"
#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define BATCH 65536u                    /* bytes of the table read at once */

static int claim_own(struct vd_window *w, uint64_t off, uint64_t len, enum vd_owner owner,
		     struct vd_error *e)
{
	const struct vd_place p = {
		.off = off, .used = len, .len = vd_round_up(len, VHD_SECTOR), .owner = owner, .rest = VD_SLACK_SECTOR,
		.guest_off = VD_HOST_NOWHERE, .parent_off = VD_HOST_NOWHERE,
	};

	return vd_claim_place(w, &p, e);
}

static int claim_footer(const struct vd_vhd *s, struct vd_window *w, struct vd_error *e)
{
	return s->footer_off == UINT64_MAX ? 0 :
	       claim_own(w, s->footer_off, s->is_short_footer ? VHD_OLD_FOOTER_BYTES : VHD_FOOTER_BYTES, VD_OWNER_HEADER, e);
}

static int claim_fixed(const struct vd_vhd *s, struct vd_window *w, struct vd_error *e)
{
	const struct vd_place disk = {
		.off = 0, .used = s->size, .len = s->footer_off, .owner = VD_OWNER_DATA, .rest = VD_SLACK_PAST_END,
		.guest_off = 0, .parent_off = VD_HOST_NOWHERE,
	};
	int r = vd_claim_place(w, &disk, e);

	return r < 0 ? r : claim_footer(s, w, e);
}

/* ---- blocks --------------------------------------------------------------------------------------------- */

/* Sectors of a block that are alike, cut at the end of the disk. */
static int claim_sectors(const struct vd_vhd *s, struct vd_window *w, uint64_t block, uint64_t host_off, uint32_t sector,
			 uint32_t n, bool are_set, struct vd_error *e)
{
	uint64_t guest_off = block * s->h.block_size + (uint64_t)sector * VHD_SECTOR, len = (uint64_t)n * VHD_SECTOR;
	uint64_t inside = guest_off < s->size ? vd_min_u64(len, s->size - guest_off) : 0;
	const struct vd_place p = {
		.off = host_off + s->bitmap_size + (uint64_t)sector * VHD_SECTOR, .used = inside, .len = len,
		.owner = are_set ? VD_OWNER_DATA : VD_OWNER_SLACK, .why = are_set ? VD_WHY_NONE : VD_SLACK_ABSENT,
		.rest = VD_SLACK_PAST_END, .guest_off = guest_off, .parent_off = s->h.table_offset + block * 4,
	};

	return vd_claim_place(w, &p, e);
}

static int claim_bitmap(const struct vd_vhd *s, struct vd_window *w, uint64_t block, uint64_t host_off, struct vd_error *e)
{
	const struct vd_place p = {
		.off = host_off, .used = s->h.block_size / VHD_SECTOR / 8, .len = s->bitmap_size, .owner = VD_OWNER_TABLE,
		.why = VD_TABLE_SECTORS, .rest = VD_SLACK_TABLE, .guest_off = block * s->h.block_size,
		.parent_off = s->h.table_offset + block * 4,
	};

	return vd_claim_place(w, &p, e);
}

static int claim_block(const struct vd_vhd *s, struct vd_window *w, uint64_t block, uint64_t host_off, struct vd_error *e)
{
	uint32_t n_sectors = s->h.block_size / VHD_SECTOR, n;
	bool are_set;
	int r;

	if (!vd_window_meets(w, host_off, (uint64_t)s->bitmap_size + s->h.block_size))
		return 0;
	r = claim_bitmap(s, w, block, host_off, e);
	for (uint32_t sector = 0; sector < n_sectors && r == 0; sector += n) {
		r = vd_vhd_sectors_alike(s, host_off, sector, n_sectors - sector, 0, &are_set, &n, e);
		if (r == 0)
			r = claim_sectors(s, w, block, host_off, sector, n, are_set, e);
	}
	return r;
}

/* An entry that is not sound is told; where it leads is claimed all the same, if that is in the file at all. */
static int claim_entry(const struct vd_vhd *s, struct vd_window *w, uint64_t block, uint32_t entry, struct vd_error *e)
{
	uint64_t host_off;
	struct vd_error what;
	int r = vd_vhd_judge_entry(s, block, entry, &host_off, &what);

	if (r == 0)
		return host_off ? claim_block(s, w, block, host_off, e) : 0;
	if (r != VD_ECORRUPT)
		return vd_fail(e, r, "%s", what.message);
	vd_window_finding(w, &what);
	return claim_bitmap(s, w, block, (uint64_t)entry * VHD_SECTOR, e);
}

static int claim_blocks(const struct vd_vhd *s, struct vd_window *w, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc_buffer(BATCH, &raw, e);

	for (uint64_t first = 0, n; first < s->h.max_entries && r == 0; first += n) {
		n = vd_min_u64(s->h.max_entries - first, BATCH / 4);
		r = vd_set_pread(s->set, 0, raw, n * 4, s->h.table_offset + first * 4, e);
		for (uint64_t i = 0; i < n && r == 0; i++)
			r = claim_entry(s, w, first + i, vd_get_be32(raw + i * 4), e);
	}
	return r;
}

/* ---- the rest ------------------------------------------------------------------------------------------- */

static int claim_table(const struct vd_vhd *s, struct vd_window *w, struct vd_error *e)
{
	uint64_t len = (uint64_t)s->h.max_entries * 4;
	const struct vd_place p = {
		.off = s->h.table_offset, .used = len, .len = vd_round_up(len, VHD_SECTOR), .owner = VD_OWNER_TABLE,
		.why = VD_TABLE_LEAF, .rest = VD_SLACK_TABLE, .guest_off = 0,
		.parent_off = s->f.data_offset + VHD_AT_TABLE_OFFSET,
	};

	return vd_claim_place(w, &p, e);
}

static int claim_locators(const struct vd_vhd *s, struct vd_window *w, struct vd_error *e)
{
	int r = 0;

	for (int i = 0; i < VHD_LOCATORS && r == 0; i++)
		if (s->h.locators[i].code && s->h.locators[i].length)
			r = claim_own(w, s->h.locators[i].offset, s->h.locators[i].length, VD_OWNER_DESCRIPTOR, e);
	return r;
}

int vd_vhd_walk(void *st, struct vd_window *w, struct vd_error *e)
{
	struct vd_vhd *s = st;
	int r;

	s->walked_end = s->footer_off == UINT64_MAX ? s->data_end : s->footer_off;
	vd_window_set_units(w, VHD_SECTOR, s->footer_off == UINT64_MAX ? s->data_end : s->footer_off + VHD_FOOTER_BYTES);
	if (vd_vhd_is_fixed(s))
		return claim_fixed(s, w, e);
	r = claim_own(w, 0, VHD_FOOTER_BYTES, VD_OWNER_COPY, e);
	if (r == 0)
		r = claim_own(w, s->f.data_offset, VHD_HEADER_BYTES, VD_OWNER_HEADER, e);
	if (r == 0)
		r = claim_table(s, w, e);
	if (r == 0)
		r = claim_locators(s, w, e);
	if (r == 0)
		r = claim_footer(s, w, e);
	return r < 0 ? r : claim_blocks(s, w, e);
}
