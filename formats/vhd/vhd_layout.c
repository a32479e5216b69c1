/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes room, tables and headers beside those in force; what changes over to them, and when, is said by vhd_resize.c,
 * vhd_shift.c and vhd_backing.c.
 */
#include "formats/vhd/vhd.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define CHUNK (256u << 10)

int vd_vhd_judge_size(const struct vd_vhd *s, uint64_t size, struct vd_error *e)
{
	return size <= VHD_SIZE_MAX ? 0 :
	       vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large: a VHD has at most 2040 GiB", s->name, size);
}

int vd_vhd_make_room(struct vd_vhd *s, uint64_t len, uint64_t *off, struct vd_error *e)
{
	*off = vd_max_u64(s->data_end, s->append_from);
	/* UINT64_MAX: it was lost, and is put back on the way. */
	if (s->footer_off != UINT64_MAX && s->footer_off >= *off + len)
		return 0;
	return vd_vhd_footer_put_at(s, *off + len, e);
}

/* Entries from `first` on of the new table, where there are blocks for them. */
static int read_entries(struct vd_vhd *s, uint8_t *buf, int64_t first, int64_t n, int64_t shift, struct vd_error *e)
{
	int64_t have = vd_vhd_n_blocks(s, s->size), from = first > shift ? first : shift;
	int64_t to = first + n < have + shift ? first + n : have + shift;

	memset(buf, 0xff, n * 4);
	return from < to ? vd_set_pread(s->set, 0, buf + (from - first) * 4, (to - from) * 4,
					s->h.table_offset + (from - shift) * 4, e) : 0;
}

int vd_vhd_table_write(struct vd_vhd *s, uint64_t to, uint32_t n_entries, int64_t shift, struct vd_error *e)
{
	uint64_t len = vd_round_up((uint64_t)n_entries * 4, VHD_SECTOR);
	vd_auto_free uint8_t *buf = NULL;
	int r = vd_alloc_buffer(CHUNK, &buf, e);

	for (uint64_t at = 0, n; at < len && r == 0; at += n) {
		n = vd_min_u64(CHUNK, len - at);
		r = read_entries(s, buf, at / 4, n / 4, shift, e);
		if (r == 0)
			r = vd_set_pwrite(s->set, 0, buf, n, to + at, e);
	}
	return r < 0 ? r : vd_set_flush(s->set, e);
}

int vd_vhd_header_remake(struct vd_vhd *s, uint64_t table_off, uint32_t n_entries, uint8_t raw[VHD_HEADER_BYTES],
			 struct vd_error *e)
{
	int r = vd_set_pread(s->set, 0, raw, VHD_HEADER_BYTES, s->f.data_offset, e);

	if (r < 0)
		return r;
	vd_put_be64(raw + VHD_AT_TABLE_OFFSET, table_off);
	vd_put_be32(raw + VHD_AT_MAX_ENTRIES, n_entries);
	vd_vhd_header_seal(raw);
	return 0;
}

void vd_vhd_tables_changed(struct vd_vhd *s, uint64_t table_off, uint32_t n_entries, uint64_t data_end)
{
	vd_meta_forget_all(s->meta);
	/* What a failed write left of a block that no table names has no block any more. */
	vd_pending_free(&s->pending);
	s->h.table_offset = table_off;
	s->h.max_entries = n_entries;
	s->data_end = data_end;
	atomic_store(&s->host_end, data_end);
}

void vd_vhd_release(struct vd_vhd *s, uint64_t host_off)
{
	vd_space_release(s->space, (struct vd_range){
		.host_off = host_off, .len = (uint64_t)s->bitmap_size + s->h.block_size });
}

int vd_vhd_release_blocks(struct vd_vhd *s, uint64_t table_off, uint64_t first, uint64_t n, struct vd_error *e)
{
	uint64_t host_off;
	uint8_t raw[4];
	int r = 0;

	for (uint64_t i = first; i < first + n && r == 0; i++) {
		r = vd_set_pread(s->set, 0, raw, sizeof(raw), table_off + i * 4, e);
		/* What an entry that makes no sense may have owned stays. */
		if (r == 0 && vd_vhd_judge_entry(s, i, vd_get_be32(raw), &host_off, NULL) == 0 && host_off)
			vd_vhd_release(s, host_off);
	}
	return r < 0 ? r : vd_space_drain(s->space, e);
}

/* ---- giving back ---------------------------------------------------------------------------------------- */

int vd_vhd_make_zeros(struct vd_vhd *s, uint64_t off, uint64_t end, struct vd_error *e)
{
	vd_auto_free uint8_t *zeros = NULL;
	int r = off < end ? vd_set_punch(s->set, 0, off, end - off, e) : 0;

	if (r == VD_EUNSUPPORTED)
		r = vd_alloc(1, CHUNK, &zeros, e);
	for (uint64_t n; zeros && off < end && r == 0; off += n) {
		n = vd_min_u64(CHUNK, end - off);
		r = vd_set_pwrite(s->set, 0, zeros, n, off, e);
	}
	return r;
}

uint64_t vd_vhd_tables_end(const struct vd_vhd *s)
{
	uint64_t end = vd_max_u64(s->f.data_offset + VHD_HEADER_BYTES, s->h.table_offset + (uint64_t)s->h.max_entries * 4);

	for (int i = 0; i < VHD_LOCATORS; i++)
		if (s->h.locators[i].code && s->h.locators[i].offset <= s->data_end)
			end = vd_max_u64(end, s->h.locators[i].offset + s->h.locators[i].length);
	return vd_round_up(end, VHD_SECTOR);
}

/* Xen's tools keep a map of full blocks behind the table. */
bool vd_vhd_can_trim(const struct vd_vhd *s)
{
	return memcmp(s->f.creator, "tap", 3);
}

int vd_vhd_trim(struct vd_vhd *s, uint64_t data_end, struct vd_error *e)
{
	if (!vd_vhd_can_trim(s) || data_end >= s->data_end)
		return 0;
	s->data_end = data_end;
	atomic_store(&s->host_end, data_end);
	return vd_vhd_footer_settle(s, e);
}

int vd_vhd_trim_blocks(struct vd_vhd *s, uint64_t n, struct vd_error *e)
{
	uint64_t end = vd_vhd_tables_end(s), host_off;

	for (uint64_t i = 0; i < n; i++) {
		int r = vd_vhd_block(s, i, 0, &host_off, e);

		if (r < 0)
			return r == VD_ECORRUPT ? 0 : r;
		if (host_off)
			end = vd_max_u64(end, host_off + s->bitmap_size + s->h.block_size);
	}
	return vd_vhd_trim(s, end, e);
}
