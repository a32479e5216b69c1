/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes ranges read as zeros by changing tables alone. Where that cannot be had, the core writes zeros, or discards nothing. */
#include "formats/qcow2/qcow2.h"

struct zeros {
	uint64_t off, end;
	bool keeps_holes;               /* nothing lies below: a hole reads as zeros */
	bool has_zero_clusters;         /* version 3 */
	bool discards;                  /* zeros keep no host space */
};

static void zero_cluster(const struct vd_qcow2 *s, const void *ctx, uint64_t cluster_off,
			 struct vd_qcow2_cluster *c)
{
	const struct zeros *z = ctx;
	uint32_t bits = vd_qcow2_sub_bits(s, cluster_off, z->off, z->end);
	bool is_hole = !c->is_packed && !c->allocated && !c->zero;

	if (is_hole && z->keeps_holes)
		return;
	if (c->zero == s->sub_mask && !(z->discards && c->has_host && bits == s->sub_mask))
		return;
	if (bits != s->sub_mask) {
		c->allocated &= ~bits;
		c->zero |= bits;
	}
	/* Nothing of the host cluster is left in use: it goes. */
	if (bits == s->sub_mask || c->zero == s->sub_mask)
		*c = (struct vd_qcow2_cluster){ .zero = z->has_zero_clusters ? s->sub_mask : 0 };
}

/* A piece of one cluster under extended L2; compressed clusters have no subclusters. */
static int can_split(const struct vd_qcow2 *s, uint64_t l2_off, uint64_t off, bool *yes, struct vd_error *e)
{
	uint64_t cluster_off = vd_round_down(off, s->cluster_size);
	uint64_t entry_off = vd_qcow2_entry_off(s, l2_off, cluster_off);
	uint8_t raw[QCOW2_ENTRY_MAX];
	struct vd_qcow2_cluster c;
	int r = vd_meta_read(s->meta, 0, entry_off, raw, s->entry_size, 0, e);

	if (r == 0)
		r = vd_qcow2_decode(s, raw, cluster_off, entry_off, &c, e);
	*yes = r == 0 && !c.is_packed;
	return r;
}

/* Whole clusters from off on, or a piece of one; *end is off when there is neither. All inside one table. */
static void choose(const struct vd_qcow2 *s, uint64_t off, uint64_t len, uint64_t *end)
{
	uint64_t cluster_end = vd_round_down(off, s->cluster_size) + s->cluster_size;
	uint64_t table_end = vd_round_down(off, s->l2_span) + s->l2_span;

	*end = off + len;
	/* What lies past the end of the disk has no content to keep. */
	if (*end == s->h.size)
		*end = vd_round_up(*end, s->cluster_size);
	*end = vd_min_u64(*end, table_end);
	if (off % s->cluster_size == 0 && *end >= cluster_end)
		*end = vd_round_down(*end, s->cluster_size);
	else
		*end = vd_max_u64(off, vd_round_down(vd_min_u64(*end, cluster_end), s->sub_size));
	if (off % s->sub_size)
		*end = off;
}

int vd_qcow2_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done,
		   struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	struct zeros z = { .off = off, .keeps_holes = !s->backing_file && mode != VD_PUNCH_MASK,
			  .has_zero_clusters = s->h.version > 2, .discards = mode == VD_PUNCH_DISCARD };
	uint64_t first = vd_round_down(off, s->cluster_size), l2_off;
	bool is_owned, can = true;
	int r;

	*done = 0;
	choose(s, off, len, &z.end);
	/* A raw data file shows what is in it, zeros included. */
	if (z.end == off || s->is_raw_external || !(z.has_zero_clusters || z.keeps_holes))
		return 0;
	r = vd_qcow2_l1_lookup(s, off / s->l2_span, 0, &l2_off, &is_owned, e);
	if (r == 0 && (l2_off || !z.keeps_holes))
		r = vd_qcow2_l2_for_write(s, off, &l2_off, e);
	if (r == 0 && l2_off && z.end - off < s->cluster_size)
		r = can_split(s, l2_off, off, &can, e);
	if (r < 0 || !can)
		return r;
	if (l2_off)
		r = vd_qcow2_l2_rewrite(s, l2_off, first, (z.end - 1 - first) / s->cluster_size + 1,
					zero_cluster, &z, e);
	*done = vd_min_u64(z.end - off, len);
	return r;
}
