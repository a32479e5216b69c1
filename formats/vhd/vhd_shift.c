/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Moves the disk inside the image by whole blocks: a header and a table for the larger or smaller disk in new space, and
 * the footer that names them and says the size, all by one sector (keeps V6). Blocks stay where they are.
 */
#include "formats/vhd/vhd.h"

static int judge_shift(const struct vd_vhd *s, int64_t by, struct vd_error *e)
{
	if (vd_vhd_is_fixed(s) || s->is_device)
		return vd_fail(e, VD_EUNSUPPORTED, "%s is a fixed VHD, which has no tables to move its disk by", s->name);
	if (!by || by % (int64_t)s->h.block_size)
		return vd_fail(e, VD_EARG, "%s: the disk moves by blocks of %" PRIu32 " bytes, not by %" PRId64, s->name,
			       s->h.block_size, by);
	if (by < 0 && -(uint64_t)by >= s->size)
		return vd_fail(e, VD_EARG, "%s: nothing would be left of the disk of %" PRIu64 " bytes", s->name, s->size);
	return by < 0 ? 0 : vd_vhd_judge_size(s, s->size + by, e);
}

static int write_tables(struct vd_vhd *s, uint64_t header_off, uint32_t n_entries, int64_t n_blocks, struct vd_error *e)
{
	uint8_t header[VHD_HEADER_BYTES];
	int r = vd_vhd_header_remake(s, header_off + VHD_HEADER_BYTES, n_entries, header, e);

	if (r == 0)
		r = vd_set_pwrite(s->set, 0, header, sizeof(header), header_off, e);
	return r < 0 ? r : vd_vhd_table_write(s, header_off + VHD_HEADER_BYTES, n_entries, n_blocks, e);
}

int vd_vhd_shift(void *st, int64_t by, bool only_judge, struct vd_error *e)
{
	struct vd_vhd *s = st;
	uint64_t size = s->size + by, old_table = s->h.table_offset, header_off, table_len;
	uint32_t n_entries;
	int64_t n_blocks;
	int r = judge_shift(s, by, e);

	if (r < 0 || only_judge)
		return r;
	n_blocks = by / (int64_t)s->h.block_size;
	n_entries = vd_vhd_n_blocks(s, size);
	table_len = vd_round_up((uint64_t)n_entries * 4, VHD_SECTOR);
	r = vd_vhd_make_room(s, VHD_HEADER_BYTES + table_len, &header_off, e);
	if (r == 0)
		r = write_tables(s, header_off, n_entries, n_blocks, e);
	if (r < 0)
		return r;
	vd_vhd_footer_set_header(s, header_off, s->f.type);
	vd_vhd_footer_set_size(s, size);
	vd_vhd_tables_changed(s, header_off + VHD_HEADER_BYTES, n_entries, header_off + VHD_HEADER_BYTES + table_len);
	s->size = size;
	r = vd_vhd_footer_enact(s, e);
	return r < 0 || by > 0 ? r : vd_vhd_release_blocks(s, old_table, 0, -n_blocks, e);
}
