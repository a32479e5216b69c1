/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes a disk larger. Each step is durable before the next, and after each the image is the old disk or the new one:
 *
 *   dynamic  a larger table in new space; the header's first sector, which names it; the size in both footers
 *   fixed    a footer further out that still says the old size; zeros where the old one was; the size
 */
#include "formats/vhd/vhd.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define CHUNK (256u << 10)

static int write_durably(struct vd_vhd *s, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r = vd_set_pwrite(s->set, 0, buf, len, off, e);

	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* Directly behind the new end of the data. The one that was there before goes on being valid until something else is. */
static int put_footer_at(struct vd_vhd *s, uint64_t off, struct vd_error *e)
{
	int r = write_durably(s, s->footer, VHD_FOOTER_BYTES, off, e);

	if (r == 0)
		s->footer_off = off;
	return r;
}

/* ---- dynamic -------------------------------------------------------------------------------------------- */

/* The entries that there are, and absent ones up to `len`. */
static int write_table(struct vd_vhd *s, uint64_t to, uint64_t len, struct vd_error *e)
{
	uint64_t have = (uint64_t)s->h.max_entries * 4;
	vd_auto_free uint8_t *buf = NULL;
	int r = vd_alloc_buffer(CHUNK, &buf, e);

	for (uint64_t at = 0, n; at < len && r == 0; at += n) {
		n = vd_min_u64(CHUNK, len - at);
		memset(buf, 0xff, n);
		if (at < have)
			r = vd_set_pread(s->set, 0, buf, vd_min_u64(n, have - at), s->h.table_offset + at, e);
		if (r == 0)
			r = vd_set_pwrite(s->set, 0, buf, n, to + at, e);
	}
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* All that changes lies in one sector. */
static int switch_table(struct vd_vhd *s, uint64_t table_off, uint32_t n_entries, struct vd_error *e)
{
	uint8_t raw[VHD_HEADER_BYTES];
	int r = vd_set_pread(s->set, 0, raw, sizeof(raw), s->f.data_offset, e);

	if (r < 0)
		return r;
	vd_put_be64(raw + VHD_AT_TABLE_OFFSET, table_off);
	vd_put_be32(raw + VHD_AT_MAX_ENTRIES, n_entries);
	vd_put_be32(raw + VHD_AT_HEADER_CHECKSUM, vd_vhd_checksum(raw, sizeof(raw), VHD_AT_HEADER_CHECKSUM));
	if (write_durably(s, raw, VHD_SECTOR, s->f.data_offset, e) < 0)
		return vd_error_prefix(e, VD_EPOISONED, "the new table may be in force or not: ");
	return 0;
}

static int grow_table(struct vd_vhd *s, uint32_t n_entries, struct vd_error *e)
{
	uint64_t table_off = s->data_end, len = vd_round_up((uint64_t)n_entries * 4, VHD_SECTOR);
	int r = 0;

	if (s->f.data_offset % VHD_SECTOR)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: its header lies across sectors, so that it cannot be changed at once", s->name);
	if (s->footer_off < table_off + len)
		r = put_footer_at(s, table_off + len, e);
	if (r == 0)
		r = write_table(s, table_off, len, e);
	if (r == 0)
		r = switch_table(s, table_off, n_entries, e);
	if (r < 0)
		return r;
	vd_meta_forget_all(s->meta);
	s->h.table_offset = table_off;
	s->h.max_entries = n_entries;
	s->data_end = table_off + len;
	atomic_store(&s->host_end, s->data_end);
	return 0;
}

int vd_vhd_reach(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vhd *s = st;
	uint64_t n;
	int r = 0;

	if (size > VHD_SIZE_MAX)
		return vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large: a VHD has at most 2040 GiB", s->name, size);
	if (vd_vhd_is_fixed(s))
		return 0;
	if (s->footer_off == UINT64_MAX)
		r = put_footer_at(s, s->data_end, e);
	if (r < 0)
		return r;
	n = vd_round_up(size, s->h.block_size) / s->h.block_size;
	return n <= s->h.max_entries ? 0 : grow_table(s, n, e);
}

/* ---- fixed ---------------------------------------------------------------------------------------------- */

static int make_zeros(struct vd_vhd *s, uint64_t off, uint64_t end, struct vd_error *e)
{
	vd_auto_free uint8_t *zeros = NULL;
	int r = off < end ? vd_set_punch(s->set, 0, off, end - off, e) : 0;

	if (r == VD_EUNSUPPORTED)
		r = vd_alloc(1, CHUNK, &zeros, e);
	for (uint64_t n; zeros && off < end && r == 0; off += n) {
		n = vd_min_u64(CHUNK, end - off);
		r = vd_set_pwrite(s->set, 0, zeros, n, off, e);
	}
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* Behind the disk there is its footer, and where a resize was cut short more. */
static int make_room(struct vd_vhd *s, uint64_t size, struct vd_error *e)
{
	uint64_t end = vd_min_u64(size, s->footer_off + VHD_FOOTER_BYTES);
	int r = 0;

	if (size > s->footer_off)
		r = put_footer_at(s, size, e);
	if (r < 0)
		return r;
	s->data_end = s->footer_off;
	return make_zeros(s, s->size, vd_min_u64(end, s->footer_off), e);
}

int vd_vhd_resize(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vhd *s = st;
	int r = 0;

	if (size % VHD_SECTOR)
		return vd_fail(e, VD_EARG, "%s: the size of a VHD is a multiple of %u bytes", s->name, VHD_SECTOR);
	if (size < s->size)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: a VHD is not made smaller: convert it to a new one", s->name);
	if (s->is_device)
		return vd_fail(e, VD_EUNSUPPORTED, "%s is a device: the size of a VHD on it cannot be changed", s->name);
	if (vd_vhd_is_fixed(s))
		r = make_room(s, size, e);
	if (r < 0)
		return r;
	vd_vhd_footer_set_size(s, size);
	if (vd_vhd_footer_settle(s, e) < 0)
		return vd_error_prefix(e, VD_EPOISONED, "the new size may be said or not: ");
	s->size = size;
	return 0;
}
