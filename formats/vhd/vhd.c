/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VHD driver as the core sees it: opens, describes and closes; the table of its callbacks is at the bottom. What
 * the format is, is said in vhd.h; what of it is read and written, in vhd.md.
 */
#include "formats/vhd/vhd.h"

static bool vhd_probe(struct vd_bytes head, struct vd_bytes tail, uint64_t size)
{
	struct vd_vhd_footer f;

	(void)size;
	for (size_t len = VHD_FOOTER_BYTES; len >= VHD_OLD_FOOTER_BYTES; len--)
		if (tail.len >= len && vd_vhd_footer_parse(tail.p + tail.len - len, len, &f))
			return true;
	/* A fixed disk has nothing at the front that is its own. */
	return head.len >= VHD_FOOTER_BYTES && vd_vhd_footer_parse(head.p, VHD_FOOTER_BYTES, &f) && f.type != VHD_FIXED;
}

static const char *read_only_why(const struct vd_vhd *s)
{
	if (s->is_short_footer)
		return "its footer of 511 bytes, as Virtual PC before 2004 wrote it, is only read";
	if (s->is_device && !vd_vhd_is_fixed(s))
		return "a dynamic disk on a device is only read";
	if (s->is_encrypted)
		return "its encryption by Xen's tools is only read";
	if (s->size % VHD_SECTOR || (vd_vhd_is_fixed(s) && s->footer_off % VHD_SECTOR))
		return "it does not end at the end of a sector";
	return NULL;
}

static int vhd_open(void *st, const struct vd_open *o, struct vd_error *e)
{
	struct vd_vhd *s = st;
	struct vd_io *io = vd_set_io(o->set, 0);
	uint64_t size = 0;
	int r = vd_io_size(io, &size, e);

	s->set = o->set;
	s->meta = o->meta;
	s->space = o->space;
	s->is_fresh = o->fresh;
	s->is_device = io->is_device;
	if (r == 0)
		r = vd_vhd_footer_read(s, io, size, e);
	if (r == 0 && !vd_vhd_is_fixed(s))
		r = vd_vhd_header_read(s, io, size, e);
	if (r == 0 && !vd_vhd_is_fixed(s))
		r = vd_vhd_batmap_read(s, io, size, e);
	if (r == 0 && s->f.type == VHD_DIFFERENCING)
		r = vd_vhd_parent_read(s, io, size, e);
	if (r < 0)
		return r;
	atomic_store(&s->host_end, s->data_end);
	s->data_end = vd_round_up(s->data_end, VHD_SECTOR);
	s->append_from = o->appends ? vd_round_up(size, VHD_SECTOR) : 0;
	/* From here on messages name the file; those of open are the core's to complete. */
	s->name = vd_set_name(s->set, 0);
	return 0;
}

static void vhd_close(void *st)
{
	struct vd_vhd *s = st;

	vd_parent_names_free(&s->parent);
	vd_pending_free(&s->pending);
}

static void vhd_describe(const void *st, struct vd_format_info *i)
{
	const struct vd_vhd *s = st;
	bool is_fixed = vd_vhd_is_fixed(s);

	*i = (struct vd_format_info){
		.size = s->size,
		.unit = is_fixed ? 1 : s->h.block_size,
		.fill_unit = is_fixed ? 1 : VHD_SECTOR,
		.read_only_why = read_only_why(s),
	};
	if (s->is_encrypted) {
		i->encryption = VD_ENCRYPTED_XEN;
		i->tweak = VD_TWEAK_GUEST;
		i->key_nonce = s->key_nonce;
		i->key_hash = s->key_hash;
	}
	if (!s->parent.n)
		return;
	i->backing_file = s->parent.at[0];
	i->backing_others = (const char *const *)s->parent.at + 1;
	i->backing_format = "vhd";
}

static void vhd_info(const void *st, struct vd_info *i)
{
	static const char *const kinds[] = {
		[VHD_FIXED] = "fixed", [VHD_DYNAMIC] = "dynamic", [VHD_DIFFERENCING] = "differencing",
	};
	const struct vd_vhd *s = st;

	i->subformat = kinds[s->f.type];
	i->disk_id = s->id;
	i->parent_id = s->parent_id[0] ? s->parent_id : NULL;
	i->is_dirty = !s->has_tail;
	i->is_read_only_format = read_only_why(s) != NULL;
}

const struct vd_format vd_format_vhd = {
	.name = "vhd",
	.alias = "vpc",
	.state_size = sizeof(struct vd_vhd),
	.writable = true,
	.cuts_zeros_only = true,
	.probe = vhd_probe,
	.open = vhd_open,
	.create = vd_vhd_create,
	.forecast = vd_vhd_forecast,
	.check_parent = vd_vhd_check_parent,
	.close = vhd_close,
	.describe = vhd_describe,
	.info = vhd_info,
	.begin_write = vd_vhd_begin_write,
	.end_write = vd_vhd_end_write,
	.map = vd_vhd_map,
	.reserve = vd_vhd_reserve,
	.publish = vd_vhd_publish,
	.cancel = vd_vhd_cancel,
	.punch = vd_vhd_punch,
	.freed = vd_vhd_freed,
	.walk = vd_vhd_walk,
	.reach = vd_vhd_reach,
	.resize = vd_vhd_resize,
	.shift = vd_vhd_shift,
	.set_backing = vd_vhd_set_backing,
	.expect_parent = vd_vhd_expect_parent,
	.empty = vd_vhd_empty,
	.repair = &vd_vhd_repair_ops,
};
