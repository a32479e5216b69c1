/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks a VHDX: whether its log is empty, headers and region tables, of which there are two each, and each entry of its
 * table. Puts the log in place, and mends each copy by the other. Entries that make no sense stay.
 */
#include "formats/vhdx/vhdx.h"

#include "formats/blockcheck.h"

#define BATCH 512u                      /* entries read at once */

static int visit_entry(const struct vd_vhdx *s, struct vd_block_check *k, uint64_t entry, uint64_t raw, struct vd_error *e)
{
	bool is_bitmap = vd_vhdx_is_bitmap_entry(s, entry);
	uint64_t guest_off = is_bitmap ? VD_HOST_NOWHERE : (entry - entry / (s->chunk_ratio + 1)) * s->block_size, host_off, bitmap;
	uint64_t entry_off = vd_vhdx_entry_off(s, entry);
	struct vd_error what;
	uint32_t state, bitmap_state;

	if (vd_vhdx_judge_entry(s, entry, raw, &state, &host_off, &what) < 0)
		return vd_check_broken(k, entry_off, guest_off, &what, e);
	if (!is_bitmap && state == VHDX_PARTIAL) {
		uint64_t chunk = guest_off / s->block_size / s->chunk_ratio;
		int r = vd_vhdx_entry(s, vd_vhdx_bitmap_entry(s, chunk), 0, &bitmap_state, &bitmap, &what);

		if (r == 0 && !bitmap)
			vd_corrupt(s->name, &what, entry_off, "block %" PRIu64 " is partially present, and its chunk has no sector bitmap",
				   guest_off / s->block_size);
		if (r < 0 || !bitmap)
			return vd_check_broken(k, entry_off, guest_off, &what, e);
	}
	return host_off ? vd_check_place(k, host_off, is_bitmap ? VHDX_MIB : s->block_size, entry_off, guest_off, e) : 0;
}

static int visit(void *st, struct vd_block_check *k, struct vd_error *e)
{
	const struct vd_vhdx *s = st;
	uint64_t n_entries = vd_vhdx_n_entries(s, s->size);
	uint8_t raw[BATCH * 8];
	int r = 0;

	for (uint64_t first = 0, n; first < n_entries && r == 0; first += n) {
		n = vd_min_u64(n_entries - first, BATCH);
		r = vd_meta_read(s->meta, 0, vd_vhdx_entry_off(s, first), raw, n * 8, 0, e);
		for (uint64_t i = 0; i < n && r == 0; i++)
			r = visit_entry(s, k, first + i, vd_get_le64(raw + i * 8), e);
	}
	return r;
}

static bool log_is_left(const struct vd_vhdx *s)
{
	return !s->log_is_open && memcmp(s->h.log, vd_vhdx_no_guid, VD_GUID_LEN);
}

static int check_copies(struct vd_vhdx *s, struct vd_block_check *k, struct vd_error *e)
{
	bool are_same;
	int r = vd_vhdx_regions_compare(s, &are_same, e);

	if (r == 0 && log_is_left(s))
		r = vd_check_tell(k, VD_FOUND_DIRTY, VD_SEVERITY_LEAK, "it was not closed cleanly: its log is not empty", e);
	if (r == 0 && !s->has_both_headers)
		r = vd_check_tell(k, VD_FOUND_CONTRADICTION, VD_SEVERITY_LEAK, "one of its two headers is damaged", e);
	if (r < 0 || are_same)
		return r;
	return vd_check_tell(k, VD_FOUND_CONTRADICTION, s->current_regions ? VD_SEVERITY_CORRUPTION : VD_SEVERITY_LEAK,
			     s->current_regions ? "its first region table is damaged, and qemu reads no other" :
			     "its second region table says something else than the first", e);
}

static int vhdx_check(void *st, struct vd_check *c, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	struct vd_block_check k = {
		.c = c, .file = s->name, .unit = VHDX_MIB, .block_size = s->block_size, .size = s->size, .st = s,
		.end = s->data_end, .visit = visit,
	};
	int r = check_copies(s, &k, e);

	return r < 0 ? r : vd_check_blocks(&k, e);
}

/* The disk stays what it is. What a crash left of room behind the last block goes with the log. */
static int vhdx_mend(void *st, enum vd_repair repair, struct vd_check *c, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	bool trims = log_is_left(s) && !c->report->corruptions, are_same;
	int r;

	(void)repair;
	if (s->is_device)
		return 0;
	c->report->changed = true;
	r = vd_vhdx_log_open(s, VHDX_CHANGES_TABLES, e);
	if (r == 0)
		r = vd_vhdx_regions_compare(s, &are_same, e);
	if (r == 0 && !are_same)
		r = vd_vhdx_regions_write(s, e);
	if (r < 0)
		return r;
	if (trims)
		vd_vhdx_trim(s, c->report->image_end_offset);
	return vd_vhdx_end_write(s, e);
}

const struct vd_repair_ops vd_vhdx_repair_ops = { .check = vhdx_check, .mend = vhdx_mend };
