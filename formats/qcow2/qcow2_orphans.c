/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Second pass of an act on the shape, when freed space is to be scrubbed: the act is in force, and what has no owner left
 * still has a count of one. It is found once more in the tables that were in force before, and released to the core, which
 * overwrites it before it is counted out.
 *
 * O1  Those old tables are orphans themselves. They are read until all that they lead to is released, and go last: first the
 *     data, then the L2 tables, then the rest.
 * O2  Orphans are released a window of clusters at a time and in bounded numbers, whatever the size of the image.
 */
#include "formats/qcow2/qcow2_shape.h"

#define RELEASED_MAX 65536              /* ranges between two drains */

struct pass {
	struct vd_qcow2 *s;
	const struct vd_qcow2_lost *lost;
	uint64_t n_released;
};

static int release(struct pass *p, uint64_t cluster, uint64_t n, struct vd_error *e)
{
	uint64_t size = p->s->cluster_size;

	vd_space_release(p->s->space, (struct vd_range){ .host_off = cluster * size, .len = n * size });
	if (++p->n_released < RELEASED_MAX)
		return 0;
	p->n_released = 0;
	return vd_space_drain(p->s->space, e);
}

static int release_window(struct pass *p, struct vd_error *e)
{
	const struct vd_qcow2_counts *c = p->lost->counts;
	int r = 0;

	for (uint64_t i = 0, n; i < c->end - c->first && r == 0; i += n) {
		bool is_orphan = c->is_orphan[i];

		for (n = 1; i + n < c->end - c->first && c->is_orphan[i + n] == is_orphan; n++)
			;
		if (is_orphan)
			r = release(p, c->first + i, n, e);
	}
	return r;
}

/* The tables that have a copy now. */
static int drop_moved(const struct pass *p, struct vd_error *e)
{
	const struct vd_qcow2_act *act = p->lost->act;
	int r = 0;

	for (uint32_t i = 0; i < act->l1_size && r == 0; i++)
		if (p->lost->is_moved[i])
			r = vd_qcow2_counts_step(p->lost->counts, act->active->l2[i] / p->s->cluster_size, 1, false, e);
	return r;
}

static int find_window(const struct pass *p, uint64_t first, enum vd_qcow2_parts parts, struct vd_error *e)
{
	const struct vd_qcow2_act *act = p->lost->act;
	struct vd_qcow2_counts *c = p->lost->counts;
	int r = vd_qcow2_counts_load(c, first, vd_min_u64(first + vd_qcow2_window, p->lost->n_clusters), e);

	if (r == 0)
		r = vd_qcow2_counts_tree(c, act->gains, 0, parts, true, e);
	if (r == 0)
		r = vd_qcow2_counts_tree(c, act->loses, act->loses_from, parts, false, e);
	return r == 0 && parts & QCOW2_TABLES ? drop_moved(p, e) : r;
}

static int free_parts(struct pass *p, enum vd_qcow2_parts parts, struct vd_error *e)
{
	int r = 0;

	for (uint64_t first = 0; first < p->lost->n_clusters && r == 0; first += vd_qcow2_window) {
		r = find_window(p, first, parts, e);
		if (r == 0)
			r = release_window(p, e);
	}
	return r < 0 ? r : vd_space_drain(p->s->space, e);
}

static int free_dead(struct pass *p, struct vd_error *e)
{
	const struct vd_qcow2_counts *c = p->lost->counts;
	uint64_t size = p->s->cluster_size;
	int r = 0;

	for (size_t i = 0; i < sizeof(p->lost->dead) / sizeof(p->lost->dead[0]) && r == 0; i++) {
		const struct vd_qcow2_area *dead = &p->lost->dead[i];

		if (dead->end > dead->off)
			r = release(p, dead->off / size, (dead->end - dead->off - 1) / size + 1, e);
	}
	for (uint64_t i = 0; i < c->n_blocks && r == 0; i++)
		if (c->blocks[i])
			r = release(p, c->blocks[i] / size, 1, e);
	return r < 0 ? r : vd_space_drain(p->s->space, e);
}

int vd_qcow2_free_orphans(struct vd_qcow2 *s, const struct vd_qcow2_lost *lost, struct vd_error *e)
{
	struct pass p = { .s = s, .lost = lost };
	int r = free_parts(&p, QCOW2_DATA, e);

	if (r == 0)
		r = free_parts(&p, QCOW2_TABLES, e);
	if (r == 0)
		r = free_dead(&p, e);
	if (r == 0)
		return 0;
	vd_fail(e, VD_EPOISONED, "%s: the change has happened, but overwriting what it made free failed", s->name);
	return vd_hint(e, VD_EPOISONED, "make sure that its disk works: some of what was freed is leaked now, with its old bytes");
}
