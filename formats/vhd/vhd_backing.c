/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives a differencing disk another parent, or none, or takes its content from it. Whatever a crash leaves reads the same:
 *
 *   another parent   header and locator in new space, named by the footer at the end (keeps V6), which also says the type
 *   its parent is    the header's first sector: the stamp that the parent will have. An older one is taken, too, so the
 *   to be written    parent is known before and after its first write
 *   empty            entries go one after the other: the parent has by then what they led to
 */
#include "formats/vhd/vhd.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define BATCH 65536u                    /* bytes of the table read at once */

/* ---- another parent ------------------------------------------------------------------------------------- */

static int judge(const struct vd_vhd *s, const char *name, const char *format, const struct vd_vhd *parent, struct vd_error *e)
{
	if (vd_vhd_is_fixed(s))
		return vd_fail(e, VD_EUNSUPPORTED, "%s is a fixed VHD, which has no parent", s->name);
	if (name && strcmp(format, "vhd") && strcmp(format, "vpc"))
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the parent of a differencing VHD is a VHD, not %s", s->name, format);
	if (name && !parent && s->f.type != VHD_DIFFERENCING) {
		vd_fail(e, VD_EUNSUPPORTED, "%s has no parent, whose identifier would go with the name", s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "without -u the parent is opened, and its identifier is known");
	}
	return 0;
}

/* A dynamic disk reads zeros where a bit is clear; to readers that ignore bitmaps that is what the file holds. */
static int make_absent_zeros(struct vd_vhd *s, uint64_t host_off, struct vd_error *e)
{
	uint32_t n_sectors = s->h.block_size / VHD_SECTOR, n;
	int r = 0;

	for (uint32_t sector = 0; sector < n_sectors && r == 0; sector += n) {
		uint64_t off = host_off + s->bitmap_size + (uint64_t)sector * VHD_SECTOR;
		bool are_set;

		r = vd_vhd_sectors_alike(s, host_off, sector, n_sectors - sector, 0, &are_set, &n, e);
		if (r == 0 && !are_set)
			r = vd_vhd_make_zeros(s, off, off + (uint64_t)n * VHD_SECTOR, e);
	}
	return r;
}

static int make_all_absent_zeros(struct vd_vhd *s, struct vd_error *e)
{
	uint64_t host_off;
	int r = 0;

	for (uint64_t i = 0; i < s->h.max_entries && r == 0; i++) {
		r = vd_vhd_block(s, i, 0, &host_off, e);
		if (r == 0 && host_off)
			r = make_absent_zeros(s, host_off, e);
	}
	return r < 0 ? r : vd_set_flush(s->set, e);
}

static int write_header(struct vd_vhd *s, const char *name, const struct vd_vhd *parent, uint64_t *header_off, struct vd_error *e)
{
	const uint8_t *id = parent ? parent->f.id : s->h.parent_id;
	uint32_t time = parent ? parent->f.time : s->h.parent_time;
	struct vd_vhd_locator_text l = { 0 };
	uint8_t raw[VHD_HEADER_BYTES];
	int r = name ? vd_vhd_locator_build(name, &l, e) : 0;

	if (r == 0)
		r = vd_vhd_make_room(s, VHD_HEADER_BYTES + vd_round_up(l.len, VHD_SECTOR), header_off, e);
	if (r == 0)
		r = vd_vhd_header_remake(s, s->h.table_offset, s->h.max_entries, raw, e);
	if (r < 0)
		return r;
	vd_vhd_header_set_parent(raw, id, time, name, &l, *header_off + VHD_HEADER_BYTES);
	r = vd_set_pwrite(s->set, 0, raw, sizeof(raw), *header_off, e);
	if (r == 0)
		r = vd_set_pwrite(s->set, 0, l.raw, l.len, *header_off + VHD_HEADER_BYTES, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r == 0)
		s->data_end = *header_off + VHD_HEADER_BYTES + vd_round_up(l.len, VHD_SECTOR);
	return r;
}

/* As after an open. */
static int read_again(struct vd_vhd *s, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(s->set, 0);
	uint64_t size;
	int r = vd_io_size(io, &size, e);

	vd_parent_names_free(&s->parent);
	s->parent_id[0] = '\0';
	if (r == 0)
		r = vd_vhd_header_read(s, io, size, e);
	if (r == 0 && s->f.type == VHD_DIFFERENCING)
		r = vd_vhd_parent_read(s, io, size, e);
	return r < 0 ? vd_unsure(s->name, e, "the new header is in force and cannot be read") : 0;
}

int vd_vhd_set_backing(void *st, const char *name, const char *format, const void *parent, struct vd_error *e)
{
	struct vd_vhd *s = st;
	uint64_t header_off;
	int r = judge(s, name, format, parent, e);

	if (r == 0 && !name && s->f.type == VHD_DIFFERENCING)
		r = make_all_absent_zeros(s, e);
	if (r == 0)
		r = write_header(s, name, parent, &header_off, e);
	if (r < 0)
		return r;
	atomic_store(&s->host_end, s->data_end);
	vd_vhd_footer_set_header(s, header_off, name ? VHD_DIFFERENCING : VHD_DYNAMIC);
	r = vd_vhd_footer_enact(s, e);
	return r < 0 ? r : read_again(s, e);
}

/* ---- its parent is to be written ------------------------------------------------------------------------ */

int vd_vhd_expect_parent(void *st, void *parent, struct vd_error *e)
{
	struct vd_vhd *s = st, *p = parent;
	uint32_t time = vd_vhd_next_time(p);
	uint8_t raw[VHD_HEADER_BYTES];
	int r = 0;

	if (s->f.data_offset % VHD_SECTOR)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s: its header lies across sectors, so that it cannot be changed at once", s->name);
	if (r == 0)
		r = vd_set_pread(s->set, 0, raw, sizeof(raw), s->f.data_offset, e);
	if (r < 0)
		return r;
	vd_put_be32(raw + VHD_AT_PARENT_TIME, time);
	vd_vhd_header_seal(raw);
	r = vd_set_pwrite(s->set, 0, raw, VHD_SECTOR, s->f.data_offset, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r < 0)
		return vd_unsure(s->name, e, "the parent's stamp may be noted or not");
	s->h.parent_time = p->next_time = time;
	return 0;
}

/* ---- nothing of its own --------------------------------------------------------------------------------- */

static void release_entries(struct vd_vhd *s, const uint8_t *raw, uint64_t first, uint64_t n, bool *are_sound)
{
	uint64_t host_off;

	for (uint64_t i = 0; i < n; i++)
		if (vd_vhd_judge_entry(s, first + i, vd_get_be32(raw + i * 4), &host_off, NULL) < 0)
			*are_sound = false;
		else if (host_off)
			vd_vhd_release(s, host_off);
}

static int drop_entries(struct vd_vhd *s, bool *are_sound, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc_buffer(BATCH, &raw, e);

	for (uint64_t first = 0, n; first < s->h.max_entries && r == 0; first += n) {
		n = vd_min_u64(s->h.max_entries - first, BATCH / 4);
		r = vd_set_pread(s->set, 0, raw, n * 4, s->h.table_offset + first * 4, e);
		if (r < 0)
			break;
		release_entries(s, raw, first, n, are_sound);
		memset(raw, 0xff, n * 4);
		r = vd_set_pwrite(s->set, 0, raw, n * 4, s->h.table_offset + first * 4, e);
	}
	return r < 0 ? r : vd_set_flush(s->set, e);
}

int vd_vhd_empty(void *st, struct vd_error *e)
{
	struct vd_vhd *s = st;
	bool are_sound = true;
	int r = drop_entries(s, &are_sound, e);

	vd_vhd_tables_changed(s, s->h.table_offset, s->h.max_entries, s->data_end);
	if (r == 0)
		r = vd_space_drain(s->space, e);
	if (r == 0 && are_sound)
		r = vd_vhd_trim(s, vd_vhd_tables_end(s), e);
	return r < 0 ? vd_unsure(s->name, e, "some blocks may be gone, and the parent has them") : 0;
}
