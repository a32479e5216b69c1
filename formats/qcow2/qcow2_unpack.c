/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Turns compressed clusters into plain ones where they are named: all entries that lead to one, whatever tables of whatever
 * snapshots they stand in, get the same new cluster. What is in it is the core's.
 *
 *  N1  The new cluster's refcount counts every one of these entries before (in rank order) the first of them is changed, and
 *      the old one's falls after the last one is. So a crash in between leaves entries of both kinds, which read the same,
 *      and counts that are at worst too high.
 *  N2  Tables are edited in place even where snapshots share them: what they say of the disk's bytes does not change.
 */
#include "formats/qcow2/qcow2.h"

static int unpack_take(void *st, uint64_t *n, uint64_t *host_off, struct vd_error *e)
{
	bool is_fresh;

	return vd_qcow2_alloc(st, *n, host_off, n, &is_fresh, e);
}

static void unpack_give_back(void *st, uint64_t host_off, uint64_t n)
{
	struct vd_qcow2 *s = st;

	/* No table comes to point there, but bytes are there. */
	vd_space_release(s->space, (struct vd_range){ .host_off = host_off, .len = n * s->cluster_size });
}

/* How many lead there by these entries: each snapshot once at most, and the disk. */
static int count_owners(const struct vd_qcow2 *s, const struct vd_claim *entries, size_t n, uint64_t *n_owners,
			struct vd_error *e)
{
	*n_owners = 0;
	for (size_t i = 0; i < n; i++)
		*n_owners += entries[i].refs;
	if (*n_owners <= (uint64_t)s->h.n_snapshots + 1)
		return 0;
	return vd_qcow2_corrupt(s, e, entries->host_off, "the compressed cluster at %" PRIu64 " has %" PRIu64 " owners, with %" PRIu32
				" snapshots", entries->host_off, *n_owners, s->h.n_snapshots);
}

static int change_entry(struct vd_qcow2 *s, const struct vd_claim *c, const struct vd_qcow2_cluster *new, struct vd_error *e)
{
	uint8_t raw[QCOW2_ENTRY_MAX];
	struct vd_qcow2_cluster old;
	int r = vd_meta_read(s->meta, 0, c->parent_off, raw, s->entry_size, 0, e);

	if (r == 0)
		r = vd_qcow2_decode(s, raw, c->guest_off, c->parent_off, &old, e);
	if (r < 0)
		return r;
	if (!old.is_packed || old.host_off != c->host_off || old.host_len != c->len)
		return vd_qcow2_corrupt(s, e, c->parent_off, "the L2 entry of the compressed cluster at %" PRIu64 " has changed",
					c->host_off);
	vd_qcow2_encode(s, new, raw);
	return vd_meta_write(s->meta, 0, c->parent_off, raw, s->entry_size, VD_RANK_LEAF, e);
}

static int unpack_relink(void *st, const struct vd_claim *entries, size_t n, uint64_t host_off, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	struct vd_qcow2_cluster new = { .has_host = true, .host_off = host_off, .allocated = s->sub_mask };
	uint64_t n_owners;
	int r = count_owners(s, entries, n, &n_owners, e);

	if (r == 0)
		r = vd_qcow2_share(s, host_off, n_owners - 1, e);
	new.is_copied = n_owners == 1;
	for (size_t i = 0; i < n && r == 0; i++)
		r = change_entry(s, &entries[i], &new, e);
	if (r == 0)
		vd_space_release(s->space, (struct vd_range){
			.host_off = entries->host_off, .len = entries->len, .owners = n_owners,
		});
	return r;
}

const struct vd_unpack_ops vd_qcow2_unpack_ops = {
	.take = unpack_take,
	.relink = unpack_relink,
	.give_back = unpack_give_back,
};
