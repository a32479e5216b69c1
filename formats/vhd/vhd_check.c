/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks a VHD: its footers, and each entry of its table. Mends nothing: a write puts footers right, the rest is lost. */
#include "formats/vhd/vhd.h"

#include "formats/blockcheck.h"
#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define BATCH 65536u                    /* bytes of the table read at once */

static int check_footers(struct vd_vhd *s, struct vd_block_check *k, struct vd_error *e)
{
	uint8_t raw[VHD_FOOTER_BYTES];
	struct vd_vhd_footer copy;
	int r = 0;

	if (!s->has_tail)
		return vd_check_tell(k, VD_FOUND_DIRTY, VD_SEVERITY_LEAK, "its footer at the end is lost; the copy at the front counts", e);
	if (!vd_vhd_is_fixed(s))
		r = vd_set_pread(s->set, 0, raw, sizeof(raw), 0, e);
	if (r == 0 && !vd_vhd_is_fixed(s) && !vd_vhd_footer_parse(raw, sizeof(raw), &copy))
		r = vd_check_tell(k, VD_FOUND_CONTRADICTION, VD_SEVERITY_CORRUPTION,
				  "the copy of its footer at the front is damaged, and qemu reads no other", e);
	return r;
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
	return vd_check_blocks(&k, e);
}

const struct vd_repair_ops vd_vhd_repair_ops = { .check = vhd_check };
