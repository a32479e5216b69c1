/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks a VHD: its footers, and each entry of its table. Mends footers, each by the other, and cuts off what a crash left
 * behind the last block. Entries that make no sense stay.
 */
#include "formats/vhd/vhd.h"

#include <stdio.h>

#include "formats/blockcheck.h"
#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define BATCH 65536u                    /* bytes of the table read at once */

/* The stamp is written to the copy first. All else tells another disk. */
static bool is_same_disk(const struct vd_vhd *s, const struct vd_vhd_footer *copy)
{
	return copy->data_offset == s->f.data_offset && copy->type == s->f.type && vd_vhd_disk_size(copy) == s->size &&
	       !memcmp(copy->id, s->f.id, VD_GUID_LEN);
}

static int check_footers(struct vd_vhd *s, struct vd_block_check *k, struct vd_error *e)
{
	uint8_t raw[VHD_FOOTER_BYTES];
	struct vd_vhd_footer copy;
	int r;

	if (!s->has_tail)
		return vd_check_tell(k, VD_FOUND_DIRTY, VD_SEVERITY_LEAK, "its footer at the end is lost; the copy at the front counts", e);
	if (vd_vhd_is_fixed(s))
		return 0;
	r = vd_set_pread(s->set, 0, raw, sizeof(raw), 0, e);
	if (r < 0)
		return r;
	if (!vd_vhd_footer_parse(raw, sizeof(raw), &copy))
		return vd_check_tell(k, VD_FOUND_CONTRADICTION, VD_SEVERITY_CORRUPTION,
				     "the copy of its footer at the front is damaged, and qemu reads no other", e);
	if (!is_same_disk(s, &copy))
		return vd_check_tell(k, VD_FOUND_CONTRADICTION, VD_SEVERITY_CORRUPTION,
				     "the copy of its footer at the front is of an older disk, and qemu reads no other", e);
	return !s->is_short_footer && memcmp(raw, s->footer, sizeof(raw)) ?
	       vd_check_tell(k, VD_FOUND_DIRTY, VD_SEVERITY_LEAK, "its two footers differ", e) : 0;
}

/* Writing makes room for some blocks at once, which a crash leaves. Less than a block's may be anybody's padding. */
static int check_end(struct vd_vhd *s, struct vd_block_check *k, struct vd_error *e)
{
	uint64_t end = vd_max_u64(vd_round_up(k->c->report->image_end_offset, VHD_SECTOR), vd_vhd_tables_end(s));
	uint64_t stride = (uint64_t)s->bitmap_size + s->h.block_size;
	char text[100];

	s->named_end = 0;
	if (k->c->report->corruptions || !vd_vhd_can_trim(s) || s->data_end < end + stride)
		return 0;
	s->named_end = end;
	snprintf(text, sizeof(text), "nothing names the %" PRIu64 " bytes before its footer", s->data_end - end);
	return vd_check_tell(k, VD_FOUND_LEAK, VD_SEVERITY_LEAK, text, e);
}

static int visit_entry(const struct vd_vhd *s, struct vd_block_check *k, uint64_t block, uint32_t entry, struct vd_error *e)
{
	uint64_t guest_off = block * s->h.block_size, entry_off = s->h.table_offset + block * 4, host_off;
	struct vd_error what;

	if (vd_vhd_judge_entry(s, block, entry, &host_off, &what) < 0)
		return vd_check_broken(k, entry_off, guest_off, &what, e);
	if (!host_off)
		return 0;
	if (host_off + s->bitmap_size + s->h.block_size > s->data_end) {
		vd_corrupt(s->name, &what, entry_off, "block %" PRIu64 " at %" PRIu64 " reaches past the end of the data", block, host_off);
		return vd_check_broken(k, entry_off, guest_off, &what, e);
	}
	return vd_check_place(k, host_off, (uint64_t)s->bitmap_size + s->h.block_size, entry_off, guest_off, e);
}

static int visit(void *st, struct vd_block_check *k, struct vd_error *e)
{
	const struct vd_vhd *s = st;
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc_buffer(BATCH, &raw, e);

	for (uint64_t first = 0, n; first < s->h.max_entries && r == 0; first += n) {
		n = vd_min_u64(s->h.max_entries - first, BATCH / 4);
		r = vd_set_pread(s->set, 0, raw, n * 4, s->h.table_offset + first * 4, e);
		for (uint64_t i = 0; i < n && r == 0; i++)
			r = visit_entry(s, k, first + i, vd_get_be32(raw + i * 4), e);
	}
	return r;
}

static int vhd_check(void *st, struct vd_check *c, struct vd_error *e)
{
	struct vd_vhd *s = st;
	struct vd_block_check k = {
		.c = c, .file = s->name, .unit = VHD_SECTOR, .block_size = s->h.block_size, .size = s->size, .st = s,
		.end = s->data_end, .visit = visit,
	};
	int r = check_footers(s, &k, e);

	if (r < 0 || vd_vhd_is_fixed(s))
		return r;
	r = vd_check_blocks(&k, e);
	return r < 0 ? r : check_end(s, &k, e);
}

static int vhd_mend(void *st, enum vd_repair repair, struct vd_check *c, struct vd_error *e)
{
	struct vd_vhd *s = st;
	int r;

	(void)repair;
	if (s->is_short_footer || s->is_device)
		return 0;
	c->report->changed = true;
	if (s->footer_off == UINT64_MAX)
		s->footer_off = s->data_end;
	r = vd_vhd_footer_store(s, e);
	s->has_tail |= r == 0;
	return r < 0 || !s->named_end ? r : vd_vhd_trim(s, s->named_end, e);
}

const struct vd_repair_ops vd_vhd_repair_ops = { .check = vhd_check, .mend = vhd_mend };
