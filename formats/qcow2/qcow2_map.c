/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Answers where guest bytes are. Reads tables in batches and joins neighbours, so that long stretches come out as one
 * run and a table that is absent costs no more than its L1 entry. Runs beside a writer (keeps Q3).
 */
#include "formats/qcow2/qcow2.h"

#define ENTRIES_MAX (1u << 20)          /* looked at in one call, some milliseconds: who asks for more calls again */

struct walk {
	const struct vd_qcow2 *s;
	unsigned meta_flags;
	uint64_t at, end;               /* guest bytes still to describe */
	struct vd_run *runs;
	size_t cap, n;
	bool is_full;                   /* the next piece needs a run more than there are */
	uint64_t n_entries;             /* looked at */
};

static bool joins(const struct vd_run *a, const struct vd_run *b)
{
	bool has_host = a->where == VD_DATA || a->flags & VD_RUN_HOSTED;

	return a->where == b->where && a->flags == b->flags && a->where != VD_PACKED &&
	       (!has_host || a->host_off + a->host_len == b->host_off);
}

/* The piece begins at w->at. */
static void add(struct walk *w, const struct vd_run *piece)
{
	struct vd_run *last = w->n ? &w->runs[w->n - 1] : NULL;

	if (last && joins(last, piece)) {
		last->len += piece->len;
		last->host_len += piece->host_len;
	} else if (w->n < w->cap) {
		w->runs[w->n++] = *piece;
	} else {
		w->is_full = true;
		return;
	}
	w->at += piece->len;
}

static void add_hole(struct walk *w, uint64_t end)
{
	add(w, &(struct vd_run){ .guest_off = w->at, .len = end - w->at, .where = VD_HOLE });
}

static void add_packed(struct walk *w, const struct vd_qcow2_cluster *c, uint64_t cluster_off, uint64_t end)
{
	add(w, &(struct vd_run){
		.guest_off = w->at, .len = end - w->at, .host_off = c->host_off, .host_len = c->host_len,
		.unit_off = cluster_off, .unit_len = w->s->cluster_size, .where = VD_PACKED, .codec = w->s->codec,
	});
}

/* From w->at up to `end` in one subcluster. */
static void add_subcluster(struct walk *w, const struct vd_qcow2_cluster *c, uint64_t cluster_off, uint64_t end)
{
	uint32_t bit = UINT32_C(1) << (w->at - cluster_off) / w->s->sub_size;
	struct vd_run piece = { .guest_off = w->at, .len = end - w->at, .where = VD_HOLE };

	if (c->allocated & bit)
		piece.where = VD_DATA;
	else if (c->zero & bit)
		piece.where = VD_ZERO;
	if (c->has_host && piece.where != VD_HOLE) {
		piece.host_off = c->host_off + (w->at - cluster_off);
		piece.host_len = piece.len;
		piece.file = w->s->payload_file;
		piece.flags = piece.where == VD_ZERO ? VD_RUN_HOSTED : 0;
		if (!c->is_copied && !w->s->payload_file)
			piece.flags |= VD_RUN_SHARED;
	}
	add(w, &piece);
}

static void add_cluster(struct walk *w, const struct vd_qcow2_cluster *c, uint64_t cluster_off)
{
	const struct vd_qcow2 *s = w->s;
	uint64_t end = vd_min_u64(w->end, cluster_off + s->cluster_size);

	if (c->is_packed)
		add_packed(w, c, cluster_off, end);
	else if (!c->zero && !c->allocated)
		add_hole(w, end);
	else
		while (w->at < end && !w->is_full)
			add_subcluster(w, c, cluster_off,
				       vd_min_u64(end, vd_round_down(w->at, s->sub_size) + s->sub_size));
}

/* The entries of one table, up to `end` inside its span. */
static int walk_table(struct walk *w, uint64_t l2_off, bool is_owned, uint64_t end, struct vd_error *e)
{
	const struct vd_qcow2 *s = w->s;
	uint8_t raw[QCOW2_BATCH_BYTES];

	while (w->at < end && !w->is_full && w->n_entries < ENTRIES_MAX) {
		uint64_t first = vd_round_down(w->at, s->cluster_size);
		uint64_t entry_off = vd_qcow2_entry_off(s, l2_off, first);
		uint64_t n = vd_min_u64((end - first - 1) / s->cluster_size + 1, sizeof(raw) / s->entry_size);
		int r = vd_meta_read(s->meta, 0, entry_off, raw, n * s->entry_size, w->meta_flags, e);

		for (uint64_t i = 0; i < n && r == 0 && !w->is_full; i++) {
			struct vd_qcow2_cluster c;

			r = vd_qcow2_decode(s, raw + i * s->entry_size, first + i * s->cluster_size,
					    entry_off + i * s->entry_size, &c, e);
			/* Whoever shares the table shares its clusters, whatever the entries say. */
			c.is_copied &= is_owned;
			if (r == 0)
				add_cluster(w, &c, first + i * s->cluster_size);
		}
		if (r < 0)
			return r;
		w->n_entries += n;
	}
	return 0;
}

static int walk_absent(struct walk *w, uint64_t l1_index, struct vd_error *e)
{
	const struct vd_qcow2 *s = w->s;
	uint64_t wanted = (w->end - 1) / s->l2_span - l1_index + 1, n;
	int r = vd_qcow2_l1_absent(s, l1_index, wanted, w->meta_flags, &n, e);

	if (r < 0)
		return r;
	/* A table came up since the lookup, which is then as good an answer: absent when asked. */
	n = vd_max_u64(n, 1);
	add_hole(w, n == wanted ? w->end : (l1_index + n) * s->l2_span);
	return 0;
}

static int walk(struct walk *w, struct vd_error *e)
{
	const struct vd_qcow2 *s = w->s;
	int r = 0;

	while (w->at < w->end && !w->is_full && w->n_entries < ENTRIES_MAX && r == 0) {
		uint64_t l1_index = w->at / s->l2_span, l2_off;
		bool is_owned;

		r = vd_qcow2_l1_lookup(s, l1_index, w->meta_flags, &l2_off, &is_owned, e);
		if (r < 0)
			return r;
		if (!l2_off)
			r = walk_absent(w, l1_index, e);
		else
			r = walk_table(w, l2_off, is_owned, w->end - w->at > s->l2_span - w->at % s->l2_span ?
				       (l1_index + 1) * s->l2_span : w->end, e);
	}
	return r;
}

int vd_qcow2_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n,
		 struct vd_error *e)
{
	struct walk w = {
		.s = st, .meta_flags = flags & VD_MAP_NOWAIT ? VD_META_NOWAIT : 0,
		.at = off, .end = off + len, .runs = runs, .cap = *n,
	};
	int r = walk(&w, e);

	/* What was found before a table was missing in memory is an answer. */
	if (r < 0 && !(r == VD_EAGAIN && w.n))
		return r;
	*n = w.n;
	return 0;
}
