/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is done to an image as an overlay: it gets another parent, or gives up all that it holds. That the disk reads the
 * same before and after is the core's care.
 */
#include "formats/qcow2/qcow2_head.h"
#include "formats/qcow2/qcow2_shape.h"

static int judge_backing(const struct vd_qcow2 *s, const char *name, struct vd_error *e)
{
	size_t len = name ? strlen(name) : 0;

	if (name && (!len || len > QCOW2_BACKING_LEN_MAX))
		return vd_fail(e, VD_EARG, "%s: the name of a backing file has 1 to %u bytes, not %zu", s->name,
			       QCOW2_BACKING_LEN_MAX, len);
	if (name && s->is_raw_external)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: a raw data file cannot have a backing file below it", s->name);
	return 0;
}

int vd_qcow2_set_backing(void *st, const char *name, const char *format, const void *parent, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	vd_auto_head struct vd_qcow2_head h = { 0 };
	int r = judge_backing(s, name, e);

	(void)parent;
	if (r == 0)
		r = vd_qcow2_head_read(s, &h, e);
	if (r == 0)
		r = vd_qcow2_head_set_backing_file(&h, name, e);
	if (r == 0)
		r = vd_qcow2_head_put(&h, QCOW2_EXT_BACKING_FORMAT, format, format ? strlen(format) : 0, e);
	return r < 0 ? r : vd_qcow2_head_switch(s, &h, e);
}

static int drop_all(struct vd_qcow2 *s, struct vd_error *e)
{
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	vd_auto_tree struct vd_qcow2_tree now = { 0 }, none = { 0 };
	struct vd_qcow2_act act = {
		.size = s->h.size, .l1_size = vd_max_u64(1, s->h.l1_size), .active = &none, .loses = &now, .snapshots = &list,
	};
	int r = vd_qcow2_snapshots_read(s, &list, e);

	if (r == 0)
		r = vd_qcow2_tree_read(s, s->h.l1_off, s->h.l1_size, &now, e);
	if (r < 0)
		return r;
	act.old_snap_len = list.table_len;
	act.dead[0] = (struct vd_qcow2_area){ "L1 table", now.l1_off, now.l1_off + (uint64_t)now.l1_size * 8 };
	return vd_qcow2_shape(s, &act, e);
}

/* Clusters past the last one in use go back to the host; their refcounts are 0 already, durably. */
static int cut_tail(struct vd_qcow2 *s, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(s->set, 0);
	uint64_t end;
	int r = vd_qcow2_last_used(s, &end, e);

	if (r < 0 || io->is_device || end >= atomic_load(&s->host_end))
		return r;
	r = vd_io_truncate(io, end, e);
	if (r == 0)
		atomic_store(&s->host_end, end);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* Only for the room: the first time the new tables lay behind all that they made free, now they go in its place. */
static int tidy(struct vd_qcow2 *s)
{
	int r = drop_all(s, NULL);

	return r < 0 ? r : cut_tail(s, NULL);
}

int vd_qcow2_empty(void *st, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	int r = drop_all(s, e);

	if (r < 0)
		return r;
	return tidy(s) == VD_EPOISONED ? vd_qcow2_unsure(s, e) : 0;
}
