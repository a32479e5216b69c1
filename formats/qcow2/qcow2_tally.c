/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts references to clusters, a window of clusters at a time: each window takes a visit of all tables, so that memory
 * is the window's whatever the image says.
 */
#include "formats/qcow2/qcow2_tally.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

uint64_t vd_qcow2_tally_window = 32u << 20;     /* 192 MiB, or less when the file has fewer clusters */

/* Kinds of which no cluster is in two places. */
#define ALONE (1u << QCOW2_REF_KEY_AREA | 1u << QCOW2_REF_REFT | 1u << QCOW2_REF_BLOCK | 1u << QCOW2_REF_SNAPSHOTS | \
	       1u << QCOW2_REF_L1 | 1u << QCOW2_REF_BITMAP_DIR | 1u << QCOW2_REF_BITMAP_TABLE | 1u << QCOW2_REF_BITMAP_BITS)

static int load_blocks(struct vd_qcow2_tally *t, struct vd_error *e)
{
	const struct vd_qcow2 *s = t->s;
	uint64_t off = atomic_load(&s->reft_off), len = atomic_load(&s->reft_end) - off;
	struct vd_qcow2_blocks *b = &t->blocks;
	int r;

	b->n = len / 8;
	r = vd_alloc(b->n, 8, &b->off, e);
	if (r == 0)
		r = vd_set_pread(s->set, 0, b->off, len, off, e);
	for (uint64_t i = 0; i < b->n && r == 0; i++) {
		uint64_t block = vd_get_be64(&b->off[i]) & ~QCOW2_REFT_RESERVED;
		bool is_possible = block % s->cluster_size == 0 && block < atomic_load(&s->host_end);

		b->off[i] = is_possible ? block : 0;
	}
	return r;
}

int vd_qcow2_tally_init(struct vd_qcow2_tally *t, const struct vd_qcow2 *s, uint64_t n_more, struct vd_error *e)
{
	int r;

	t->s = s;
	t->beyond = UINT64_MAX;
	/* A packed cluster is told by an upper bound, which may reach behind the last cluster. */
	t->n_clusters = vd_round_up(atomic_load(&s->host_end) / s->cluster_size + 2 + n_more, 8);
	t->n_windows = (t->n_clusters + vd_qcow2_tally_window - 1) / vd_qcow2_tally_window;
	t->max = vd_min_u64(t->n_clusters, vd_qcow2_tally_window);
	r = load_blocks(t, e);
	if (r == 0)
		r = vd_alloc(t->max, sizeof(*t->refs), &t->refs, e);
	return r < 0 ? r : vd_alloc(t->max, sizeof(*t->uses), &t->uses, e);
}

void vd_qcow2_tally_fini(struct vd_qcow2_tally *t)
{
	free(t->blocks.off);
	free(t->refs);
	free(t->uses);
}

/* ---- references ----------------------------------------------------------------------------------------- */

uint16_t vd_qcow2_tally_use(const struct vd_qcow2_ref *ref)
{
	if (ref->view && ref->kind == QCOW2_REF_L1)
		return QCOW2_TALLY_L1_SNAPSHOT;
	if (ref->view && ref->kind == QCOW2_REF_L2)
		return QCOW2_TALLY_L2_SNAPSHOT;
	return 1u << ref->kind;
}

uint64_t vd_qcow2_tally_clusters(const struct vd_qcow2 *s, const struct vd_qcow2_ref *ref, uint64_t *end)
{
	uint64_t last;

	*end = 0;
	if (ref->file || !ref->len || !vd_add_u64(ref->host_off, ref->len - 1, &last))
		return 0;
	*end = last / s->cluster_size + 1;
	return ref->host_off / s->cluster_size;
}

/* What the copied flag is for: L2 tables and clusters of the disk that can be written in place. */
static bool has_flag(const struct vd_qcow2_ref *ref)
{
	return !ref->view && (ref->kind == QCOW2_REF_L2 || (ref->kind == QCOW2_REF_CLUSTER && !ref->cluster->is_packed));
}

static void charge(struct vd_qcow2_tally *t, const struct vd_qcow2_ref *ref)
{
	uint16_t use = vd_qcow2_tally_use(ref), flag = 0;
	uint64_t end, at = vd_qcow2_tally_clusters(t->s, ref, &end);

	if (has_flag(ref))
		flag = ref->is_copied ? QCOW2_TALLY_COPIED : QCOW2_TALLY_NOT_COPIED;
	end = vd_min_u64(end, t->end);
	for (at = vd_max_u64(at, t->first); at < end; at++) {
		uint64_t i = at - t->first;

		if (t->uses[i] & use & ALONE)
			t->uses[i] |= QCOW2_TALLY_TWICE;
		t->uses[i] |= use | flag;
		t->refs[i] = ref->n > UINT32_MAX - t->refs[i] ? UINT32_MAX : t->refs[i] + ref->n;
	}
}

static int take(struct vd_qcow2_visit *v, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct vd_qcow2_tally *t = v->ctx;

	if (!ref->file && ref->host_off >= atomic_load(&t->s->host_end))
		t->beyond = vd_min_u64(t->beyond, ref->host_off);
	charge(t, ref);
	return t->each && !t->first ? t->each(t->ctx, ref, e) : 0;
}

/* Tables are visited in the order in which they lie. */
static int pass_table(struct vd_qcow2_visit *v, uint64_t l2_off, struct vd_error *e)
{
	struct vd_qcow2_tally *t = v->ctx;
	uint64_t host_end = atomic_load(&t->s->host_end), nth = t->first / vd_qcow2_tally_window;

	return t->progress ? t->progress(t->ctx, host_end / t->n_windows * nth + l2_off / t->n_windows, host_end, e) : 0;
}

/* Where the broken table would end that the entry names, or, of the list of snapshots, the broken entry itself. */
static uint64_t end_of_broken(const struct vd_qcow2 *s, enum vd_qcow2_kind kind, uint64_t entry_off)
{
	uint8_t raw[QCOW2_SNAPSHOT_BYTES_MIN];
	uint64_t off = kind == QCOW2_REF_BITMAP_DIR ? s->bitmaps_off : entry_off, len = s->bitmaps_len, end;

	if (kind != QCOW2_REF_BITMAP_DIR && vd_set_pread(s->set, 0, raw, sizeof(raw), entry_off, NULL) < 0)
		return 0;
	/* An L1 table and a bitmap's are named alike: off:u64 size:u32 */
	if (kind == QCOW2_REF_L1 || kind == QCOW2_REF_BITMAP_TABLE) {
		off = vd_get_be64(raw);
		len = vd_get_be32(raw + 8) * UINT64_C(8);
	} else if (kind == QCOW2_REF_SNAPSHOTS) {
		len = UINT64_C(40) + vd_get_be32(raw + 36) + vd_get_be16(raw + 12) + vd_get_be16(raw + 14);
	}
	return off < atomic_load(&s->host_end) && vd_add_u64(off, len, &end) ? end : 0;
}

static void note(void *ctx, enum vd_qcow2_kind kind, uint64_t entry_off, const struct vd_error *what)
{
	struct vd_qcow2_tally *t = ctx;
	uint64_t host_end = atomic_load(&t->s->host_end);
	bool is_table = kind == QCOW2_REF_L1 || kind == QCOW2_REF_SNAPSHOTS || kind == QCOW2_REF_BITMAP_DIR ||
			kind == QCOW2_REF_BITMAP_TABLE;

	(void)what;
	t->n_findings++;
	/* A table that the end of the file cuts would go on in what comes there. */
	if (is_table && end_of_broken(t->s, kind, entry_off) > host_end)
		t->beyond = vd_min_u64(t->beyond, host_end);
}

int vd_qcow2_tally_count(struct vd_qcow2_tally *t, uint64_t first, struct vd_error *e)
{
	struct vd_qcow2_visit v = { .end = UINT64_MAX, .goes_on = t->goes_on, .ref = take, .table = pass_table,
				    .finding = note, .ctx = t };

	t->first = first;
	t->end = vd_min_u64(first + vd_qcow2_tally_window, t->n_clusters);
	t->n_findings = 0;
	memset(t->refs, 0, t->max * sizeof(*t->refs));
	memset(t->uses, 0, t->max * sizeof(*t->uses));
	return vd_qcow2_visit(t->s, &v, e);
}

/* ---- refcounts ------------------------------------------------------------------------------------------ */

int vd_qcow2_tally_refcount(struct vd_qcow2_tally *t, uint64_t cluster, uint64_t *count, struct vd_error *e)
{
	const struct vd_qcow2 *s = t->s;
	uint64_t block = cluster / s->block_entries, per_batch, len;
	uint32_t order = s->h.refcount_order;
	int r;

	*count = 0;
	if (block >= t->blocks.n || !t->blocks.off[block])
		return 0;
	if (cluster < t->raw_first || cluster >= t->raw_end) {
		len = vd_min_u64(sizeof(t->raw), s->cluster_size);
		per_batch = len * 8 >> order;
		t->raw_first = vd_round_down(cluster, per_batch);
		t->raw_end = t->raw_first + per_batch;
		r = vd_set_pread(s->set, 0, t->raw, len,
				 t->blocks.off[block] + (t->raw_first % s->block_entries << order) / 8, e);
		if (r < 0)
			t->raw_end = 0;
		if (r < 0)
			return r;
	}
	*count = vd_qcow2_count_get(t->raw, cluster - t->raw_first, order);
	return 0;
}
