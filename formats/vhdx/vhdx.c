/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VHDX driver as the core sees it: opens, describes and closes; the table of its callbacks is at the bottom. What
 * the format is, is said in vhdx.h; what of it is read and written, in vhdx.md.
 */
#include "formats/vhdx/vhdx.h"

#include <stdlib.h>

static bool vhdx_probe(struct vd_bytes head, struct vd_bytes tail, uint64_t size)
{
	(void)tail;
	(void)size;
	return head.len >= 8 && !memcmp(head.p, "vhdxfile", 8);
}

static const char *read_only_why(const struct vd_vhdx *s)
{
	return s->is_device ? "a VHDX on a device is only read" : NULL;
}

static int read_tables(struct vd_vhdx *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	int r = vd_vhdx_headers_read(s, io, file_size, e);

	if (r == 0)
		r = vd_vhdx_log_replay(s, io, file_size, e);
	if (r < 0)
		return r;
	s->file_end = vd_max_u64(file_size, s->replayed_end);
	s->data_end = vd_round_up(s->file_end, VHDX_MIB);
	atomic_store(&s->host_end, s->file_end);
	r = vd_vhdx_regions_read(s, e);
	return r < 0 ? r : vd_vhdx_metadata_read(s, e);
}

static int vhdx_open(void *st, const struct vd_open *o, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	struct vd_io *io = vd_set_io(o->set, 0);
	uint64_t size = 0;
	int r = vd_io_size(io, &size, e);

	s->set = o->set;
	s->meta = o->meta;
	s->space = o->space;
	s->is_fresh = o->fresh;
	s->writes = o->write;
	s->is_device = io->is_device;
	vd_meta_set_page_size(s->meta, VHDX_LOG_SECTOR);
	if (r == 0)
		r = read_tables(s, io, size, e);
	s->append_from = o->appends ? vd_round_up(s->file_end, VHDX_MIB) : 0;
	/* From here on messages name the file; those of open are the core's to complete. */
	s->name = vd_set_name(s->set, 0);
	return r;
}

static void vhdx_close(void *st)
{
	struct vd_vhdx *s = st;

	vd_parent_names_free(&s->parent);
	vd_pending_free(&s->pending);
	free(s->unknown);
	free(s->replayed);
	free(s->spare);
	free(s->log_buf);
}

static void vhdx_describe(const void *st, struct vd_format_info *i)
{
	const struct vd_vhdx *s = st;

	*i = (struct vd_format_info){
		.size = s->size,
		.unit = s->block_size,
		.fill_unit = s->sector_size,
		.read_only_why = read_only_why(s),
	};
	if (!s->parent.n)
		return;
	i->backing_file = s->parent.at[0];
	i->backing_others = (const char *const *)s->parent.at + 1;
	i->backing_format = "vhdx";
}

static void vhdx_info(const void *st, struct vd_info *i)
{
	const struct vd_vhdx *s = st;

	i->subformat = s->has_parent ? "differencing" : s->leaves_allocated ? "fixed" : "dynamic";
	i->disk_id = s->id;
	i->parent_id = s->has_parent ? s->parent_id : NULL;
	i->is_dirty = memcmp(s->h.log, vd_vhdx_no_guid, VD_GUID_LEN);
	i->is_read_only_format = read_only_why(s) != NULL;
}

const struct vd_format vd_format_vhdx = {
	.name = "vhdx",
	.state_size = sizeof(struct vd_vhdx),
	.writable = true,
	.cuts_zeros_only = true,
	.probe = vhdx_probe,
	.open = vhdx_open,
	.create = vd_vhdx_create,
	.forecast = vd_vhdx_forecast,
	.check_parent = vd_vhdx_check_parent,
	.close = vhdx_close,
	.describe = vhdx_describe,
	.info = vhdx_info,
	.begin_write = vd_vhdx_begin_write,
	.end_write = vd_vhdx_end_write,
	.map = vd_vhdx_map,
	.reserve = vd_vhdx_reserve,
	.publish = vd_vhdx_publish,
	.cancel = vd_vhdx_cancel,
	.punch = vd_vhdx_punch,
	.freed = vd_vhdx_freed,
	.walk = vd_vhdx_walk,
	.reach = vd_vhdx_reach,
	.resize = vd_vhdx_resize,
	.shift = vd_vhdx_shift,
	.set_backing = vd_vhdx_set_backing,
	.expect_parent = vd_vhdx_expect_parent,
	.empty = vd_vhdx_empty,
	.repair = &vd_vhdx_repair_ops,
};
