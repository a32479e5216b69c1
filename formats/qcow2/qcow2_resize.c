/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes the disk larger or smaller. The tables change by a shape transaction, which also drops what lies past the end: of a
 * disk that shrinks its data, of one that grows what a machine's saved state left there. Zeros are the core's.
 */
#include "formats/qcow2/qcow2_shape.h"

static uint64_t div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static int judge_size(const struct vd_qcow2 *s, uint64_t size, struct vd_error *e)
{
	if (size % QCOW2_SECTOR) {
		vd_fail(e, VD_EARG, "%s: a size of %" PRIu64 " bytes is not whole sectors", s->name, size);
		return vd_hint(e, VD_EARG, "give a multiple of %d", QCOW2_SECTOR);
	}
	if (size > INT64_MAX || div_up(size, s->l2_span) > QCOW2_L1_BYTES_MAX / 8) {
		vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large for clusters of %" PRIu64, s->name, size,
			s->cluster_size);
		return vd_hint(e, VD_EARG, "convert the image to one with larger clusters");
	}
	if (!size && s->n_bitmaps) {
		vd_fail(e, VD_EARG, "%s: an empty disk cannot have the bitmaps that the image has", s->name);
		return vd_hint(e, VD_EARG, "remove the bitmaps first");
	}
	if (s->h.version == 2 && s->h.n_snapshots) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: the size of a qcow2 version 2 image cannot change while it has snapshots",
			s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "delete the snapshots, or qemu-img amend -o compat=1.1 first");
	}
	return 0;
}

/* The disk gets this size, its tables reach as far as `reach`. */
static int rebuild(struct vd_qcow2 *s, uint64_t size, uint64_t reach, struct vd_error *e)
{
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	vd_auto_tree struct vd_qcow2_tree now = { 0 };
	uint64_t n_kept = div_up(vd_min_u64(size, s->h.size), s->cluster_size);
	struct vd_qcow2_act act = {
		.size = size, .l1_size = vd_max_u64(1, div_up(reach, s->l2_span)), .active = &now, .n_kept = n_kept,
		.loses = &now, .loses_from = n_kept, .snapshots = &list, .ends_autoclear = true,
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

static int set_data_file_size(struct vd_qcow2 *s, uint64_t size, struct vd_error *e)
{
	struct vd_io *io = s->payload_file ? vd_set_io(s->set, s->payload_file) : NULL;
	int r;

	if (!s->payload_file)
		return 0;
	if (!io)
		return vd_fail(e, VD_EREFERENCE, "%s: its data file is not open, and has to change its size too", s->name);
	r = vd_io_truncate(io, size, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* Grown disks: the tables reach already. */
static int write_size(struct vd_qcow2 *s, uint64_t size, struct vd_error *e)
{
	uint8_t raw[8];
	int r;

	vd_put_be64(raw, size);
	r = vd_set_pwrite(s->set, 0, raw, sizeof(raw), QCOW2_AT_SIZE, NULL);
	if (r == 0)
		r = vd_set_flush(s->set, NULL);
	if (r < 0)
		return vd_qcow2_unsure(s, e);
	s->h.size = size;
	vd_meta_forget_all(s->meta);
	return 0;
}

int vd_qcow2_reach(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	int r = judge_size(s, size, e);

	if (r == 0)
		r = set_data_file_size(s, size, e);
	return r < 0 ? r : rebuild(s, s->h.size, size, e);
}

int vd_qcow2_resize(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	int r = judge_size(s, size, e);

	if (r < 0)
		return r;
	if (size > s->h.size)
		return write_size(s, size, e);
	r = rebuild(s, size, size, e);
	return r < 0 ? r : set_data_file_size(s, size, e);
}
