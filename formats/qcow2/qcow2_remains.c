/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Second pass of an act on the shape of an encrypted image: tables that the act took out of force are overwritten. They are
 * the only bytes in clear that it makes free, and in free space nothing tells them from bytes of the disk. Where all that
 * is freed is to be scrubbed, qcow2_orphans.c does it.
 *
 *  M1  Only what has no owner left is touched, and only when the act is durable: a crash leaves old tables at worst.
 */
#include "formats/qcow2/qcow2_shape.h"

static int overwrite(struct vd_qcow2 *s, uint64_t off, struct vd_error *e)
{
	static const uint8_t zeros[QCOW2_BATCH_BYTES];
	uint64_t owners, end = vd_min_u64(off + s->cluster_size, atomic_load(&s->host_end));
	int r = vd_qcow2_owners(s, off, &owners, e);

	if (r < 0 || owners || vd_qcow2_overlaps(s, off, s->cluster_size))
		return r;
	for (uint64_t n; off < end && r == 0; off += n) {
		n = vd_min_u64(sizeof(zeros), end - off);
		r = vd_set_pwrite(s->set, 0, zeros, n, off, e);
	}
	return r;
}

static int overwrite_areas(struct vd_qcow2 *s, const struct vd_qcow2_lost *lost, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < sizeof(lost->dead) / sizeof(lost->dead[0]); i++)
		for (uint64_t off = lost->dead[i].off; off < lost->dead[i].end && r == 0; off += s->cluster_size)
			r = overwrite(s, off, e);
	for (uint64_t i = 0; i < lost->counts->n_blocks && r == 0; i++)
		if (lost->counts->blocks[i])
			r = overwrite(s, lost->counts->blocks[i], e);
	return r;
}

static int overwrite_l2(struct vd_qcow2 *s, const struct vd_qcow2_tree *t, struct vd_error *e)
{
	int r = 0;

	for (uint32_t i = 0; t && i < t->l1_size && r == 0; i++)
		if (t->l2[i])
			r = overwrite(s, t->l2[i], e);
	return r;
}

int vd_qcow2_wipe_tables(struct vd_qcow2 *s, const struct vd_qcow2_lost *lost, struct vd_error *e)
{
	int r = overwrite_l2(s, lost->act->active, e);

	if (r == 0)
		r = overwrite_l2(s, lost->act->loses, e);
	if (r == 0)
		r = overwrite_areas(s, lost, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r == 0)
		return 0;
	vd_fail(e, VD_EPOISONED, "%s: the change has happened, but overwriting the old tables failed", s->name);
	return vd_hint(e, VD_EPOISONED, "make sure that its disk works, open the image again and look");
}
