/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes a disk larger or smaller. Each step is durable before the next, and after each the image is the old disk or the new:
 *
 *   dynamic, larger   a larger table in new space; the header's first sector, which names it; the size
 *   dynamic, smaller  the size; the header's first sector, which cuts the table; the blocks lose their space
 *   fixed, larger     a footer further out that still says the old size; zeros where the old one was; the size
 *   fixed, smaller    the size, by the footer at the end; the same at the new end, where the file ends then
 */
#include "formats/vhd/vhd.h"

/* ---- dynamic -------------------------------------------------------------------------------------------- */

/* All that changes lies in one sector. */
static int switch_table(struct vd_vhd *s, uint64_t table_off, uint32_t n_entries, struct vd_error *e)
{
	uint8_t raw[VHD_HEADER_BYTES];
	int r = vd_vhd_header_remake(s, table_off, n_entries, raw, e);

	if (r == 0)
		r = vd_set_pwrite(s->set, 0, raw, VHD_SECTOR, s->f.data_offset, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	return r < 0 ? vd_unsure(s->name, e, "the new table may be in force or not") : 0;
}

static int grow_table(struct vd_vhd *s, uint32_t n_entries, struct vd_error *e)
{
	uint64_t table_off, len = vd_round_up((uint64_t)n_entries * 4, VHD_SECTOR);
	int r;

	if (s->f.data_offset % VHD_SECTOR)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: its header lies across sectors, so that it cannot be changed at once", s->name);
	r = vd_vhd_make_room(s, len, &table_off, e);
	if (r == 0)
		r = vd_vhd_table_write(s, table_off, n_entries, 0, e);
	if (r == 0)
		r = switch_table(s, table_off, n_entries, e);
	if (r == 0)
		vd_vhd_tables_changed(s, table_off, n_entries, table_off + len);
	return r;
}

/* Entries that no disk reached so far mean nothing. */
static int clear_entries(struct vd_vhd *s, uint64_t from, uint64_t to, struct vd_error *e)
{
	uint8_t absent[4096];
	int r = 0;

	memset(absent, 0xff, sizeof(absent));
	for (uint64_t n; from < to && r == 0; from += n) {
		n = vd_min_u64(to - from, sizeof(absent) / 4);
		r = vd_meta_write(s->meta, 0, s->h.table_offset + from * 4, absent, n * 4, VD_RANK_LEAF, e);
	}
	return r;
}

/* Nothing of the blocks behind the end is the disk's any more. */
static int cut_table(struct vd_vhd *s, struct vd_error *e)
{
	uint64_t n = vd_vhd_n_blocks(s, s->size), n_before = s->h.max_entries;
	int r = 0;

	if (n == n_before)
		return 0;
	if (s->f.data_offset % VHD_SECTOR == 0) {
		r = switch_table(s, s->h.table_offset, n, e);
		if (r == 0)
			vd_vhd_tables_changed(s, s->h.table_offset, n, s->data_end);
	}
	if (r == 0)
		r = vd_vhd_release_blocks(s, s->h.table_offset, n, n_before - n, e);
	return r < 0 ? r : vd_vhd_trim_blocks(s, n, e);
}

int vd_vhd_reach(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vhd *s = st;
	uint64_t n;
	int r = vd_vhd_judge_size(s, size, e);

	if (r < 0 || vd_vhd_is_fixed(s))
		return r;
	if (s->footer_off == UINT64_MAX)
		r = vd_vhd_footer_put_at(s, s->data_end, e);
	if (r < 0)
		return r;
	n = vd_vhd_n_blocks(s, size);
	return n > s->h.max_entries ? grow_table(s, n, e) : clear_entries(s, vd_vhd_n_blocks(s, s->size), n, e);
}

/* ---- fixed ---------------------------------------------------------------------------------------------- */

/* Behind the disk there is its footer, and where a resize was cut short more. */
static int grow_fixed(struct vd_vhd *s, uint64_t size, struct vd_error *e)
{
	uint64_t end = vd_min_u64(size, s->footer_off + VHD_FOOTER_BYTES);
	int r = 0;

	if (size > s->footer_off)
		r = vd_vhd_footer_put_at(s, size, e);
	if (r < 0)
		return r;
	s->data_end = s->footer_off;
	r = vd_vhd_make_zeros(s, s->size, vd_min_u64(end, s->footer_off), e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

static int judge_resize(const struct vd_vhd *s, uint64_t size, struct vd_error *e)
{
	if (size % VHD_SECTOR || !size)
		return vd_fail(e, VD_EARG, "%s: the size of a VHD is a multiple of %u bytes, and not 0", s->name, VHD_SECTOR);
	if (s->is_device)
		return vd_fail(e, VD_EUNSUPPORTED, "%s is a device: the size of a VHD on it cannot be changed", s->name);
	return 0;
}

int vd_vhd_resize(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vhd *s = st;
	bool is_smaller = size < s->size;
	int r = judge_resize(s, size, e);

	if (r == 0 && s->footer_off == UINT64_MAX)
		r = vd_vhd_footer_put_at(s, s->data_end, e);
	if (r == 0 && vd_vhd_is_fixed(s) && !is_smaller)
		r = grow_fixed(s, size, e);
	if (r < 0)
		return r;
	vd_vhd_footer_set_size(s, size);
	s->size = size;
	if (vd_vhd_is_fixed(s) && is_smaller)
		s->data_end = size;
	r = vd_vhd_footer_enact(s, e);
	return r < 0 || !is_smaller || vd_vhd_is_fixed(s) ? r : cut_table(s, e);
}
