/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moves the disk inside the image by whole blocks: another bat, other metadata, one change of the regions (keeps X6). */
#include "formats/vhdx/vhdx.h"

static int judge_shift(const struct vd_vhdx *s, int64_t by, struct vd_error *e)
{
	if (!by || by % (int64_t)s->block_size)
		return vd_fail(e, VD_EARG, "%s: the disk moves by blocks of %" PRIu32 " bytes, not by %" PRId64, s->name,
			       s->block_size, by);
	if (by < 0 && -(uint64_t)by >= s->size)
		return vd_fail(e, VD_EARG, "%s: nothing would be left of the disk of %" PRIu64 " bytes", s->name, s->size);
	return by < 0 ? 0 : vd_vhdx_judge_size(s, s->size + by, e);
}

/* The blocks that are gone, by the bat that is not in force any more. */
static int release_front(struct vd_vhdx *s, uint64_t bat_off, uint64_t n, struct vd_error *e)
{
	uint64_t host_off;
	uint32_t state;
	uint8_t raw[8];
	int r = 0;

	for (uint64_t block = 0; block < n && r == 0; block++) {
		uint64_t entry = vd_vhdx_block_entry(s, block);

		r = vd_set_pread(s->set, 0, raw, sizeof(raw), bat_off + entry * 8, e);
		if (r == 0 && vd_vhdx_judge_entry(s, entry, vd_get_le64(raw), &state, &host_off, NULL) == 0 && host_off)
			vd_vhdx_release(s, host_off);
	}
	return r < 0 ? r : vd_space_drain(s->space, e);
}

static int shift(struct vd_vhdx *s, int64_t by, struct vd_error *e)
{
	const struct vd_vhdx_bat_next next_bat = { .size = s->size + by, .shift = by / (int64_t)s->block_size };
	const struct vd_vhdx_metadata_next next_metadata = { .size = s->size + by };
	struct vd_vhdx_area bat, metadata;
	uint64_t old_bat = s->bat.off;
	int r = vd_vhdx_bat_remake(s, &next_bat, &bat, e);

	if (r == 0)
		r = vd_vhdx_metadata_remake(s, &next_metadata, &metadata, e);
	if (r < 0)
		return r;
	s->size_off += metadata.off - s->metadata.off;
	s->bat = bat;
	s->metadata = metadata;
	s->size += by;
	/* What a failed write left of a block that no table names has no block any more. */
	vd_pending_free(&s->pending);
	r = vd_vhdx_regions_write(s, e);
	return r < 0 || by > 0 ? r : release_front(s, old_bat, -next_bat.shift, e);
}

int vd_vhdx_shift(void *st, int64_t by, bool only_judge, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	int r = judge_shift(s, by, e), end;

	if (r < 0 || only_judge)
		return r;
	r = vd_vhdx_log_open(s, VHDX_CHANGES_DISK, e);
	if (r < 0)
		return r;
	r = shift(s, by, e);
	end = r == VD_EPOISONED ? r : vd_vhdx_shape_changed(s, r < 0 ? NULL : e);
	return r < 0 ? r : end;
}
