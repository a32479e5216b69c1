/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host walk of qcow2: makes claims of what leads to the bytes of a window, and tells what the refcounts say. Which
 * entries there are is qcow2_claims.c's to find.
 */
#include "formats/qcow2/qcow2_claims.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

static const struct { uint8_t owner, why; } claimed_as[] = {
	[QCOW2_REF_HEADER] = { VD_OWNER_HEADER, VD_WHY_NONE },
	[QCOW2_REF_KEY_AREA] = { VD_OWNER_KEYAREA, VD_WHY_NONE },
	[QCOW2_REF_REFT] = { VD_OWNER_TABLE, VD_TABLE_COUNT_ROOT },
	[QCOW2_REF_BLOCK] = { VD_OWNER_TABLE, VD_TABLE_COUNT_LEAF },
	[QCOW2_REF_SNAPSHOTS] = { VD_OWNER_TABLE, VD_TABLE_SNAPSHOTS },
	[QCOW2_REF_L1] = { VD_OWNER_TABLE, VD_TABLE_ROOT },
	[QCOW2_REF_L2] = { VD_OWNER_TABLE, VD_TABLE_LEAF },
	[QCOW2_REF_BITMAP_DIR] = { VD_OWNER_BITMAP, VD_BITMAP_DIRECTORY },
	[QCOW2_REF_BITMAP_TABLE] = { VD_OWNER_BITMAP, VD_BITMAP_TABLE },
	[QCOW2_REF_BITMAP_BITS] = { VD_OWNER_BITMAP, VD_BITMAP_BITS },
};

struct claimer {
	const struct vd_qcow2 *s;
	struct vd_window *w;
};

static struct vd_claim claim_of(const struct vd_qcow2_ref *ref)
{
	return (struct vd_claim){
		.host_off = ref->host_off, .len = ref->len, .guest_off = ref->guest_off, .parent_off = ref->entry_off,
		.view = ref->view, .refs = ref->n,
	};
}

/* A table, and what it leaves of its last cluster. */
static int claim_area(const struct claimer *x, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	uint64_t end = ref->host_off + ref->len, full = vd_round_up(end, x->s->cluster_size);
	struct vd_claim c = claim_of(ref), rest = c;
	int r;

	c.owner = claimed_as[ref->kind].owner;
	c.why = claimed_as[ref->kind].why;
	r = vd_window_claim(x->w, &c, e);
	if (r < 0 || end == full)
		return r;
	rest.host_off = end;
	rest.len = full - end;
	rest.guest_off = VD_HOST_NOWHERE;
	rest.owner = VD_OWNER_SLACK;
	rest.why = ref->kind == QCOW2_REF_HEADER ? VD_SLACK_HEADER : VD_SLACK_TABLE;
	return vd_window_claim(x->w, &rest, e);
}

static int claim_packed(const struct claimer *x, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct vd_claim c = claim_of(ref);

	c.owner = VD_OWNER_PACKED;
	return vd_window_claim(x->w, &c, e);
}

/* ---- clusters ------------------------------------------------------------------------------------------- */

/* What a piece of a cluster is, by its bits and by where the disk ends. */
static void judge_piece(const struct claimer *x, const struct vd_qcow2_ref *ref, uint32_t bit, struct vd_claim *c)
{
	/* qemu puts the vm state at the next place that begins an L2 table (block/qcow2.h, qcow2_vm_state_offset). */
	uint64_t vm_state = vd_round_up(ref->disk_size, x->s->l2_span);

	if (ref->cluster->zero & bit)
		c->owner = VD_OWNER_ZEROED;
	else if (ref->cluster->allocated & bit)
		c->owner = c->guest_off < vm_state ? VD_OWNER_DATA : VD_OWNER_VMSTATE;
	else
		c->owner = VD_OWNER_SLACK;
	c->why = c->owner == VD_OWNER_SLACK ? VD_SLACK_SUBCLUSTER : VD_WHY_NONE;
	if (c->guest_off >= ref->disk_size && c->guest_off < vm_state) {
		c->owner = VD_OWNER_SLACK;
		c->why = VD_SLACK_PAST_END;
	}
}

/* Where the piece that begins at `from` ends: at the end of the disk, or where the next subcluster says something else. */
static uint64_t piece_end(const struct claimer *x, const struct vd_qcow2_ref *ref, uint64_t from, bool is_sole)
{
	uint64_t sub = x->s->sub_size, at = vd_round_down(from, sub) + sub, disk = ref->disk_size - ref->guest_off;
	const struct vd_qcow2_cluster *c = ref->cluster;
	uint32_t first = from / sub;

	for (; is_sole && at < x->s->cluster_size; at += sub) {
		uint32_t next = at / sub;

		if ((c->zero >> first ^ c->zero >> next) & 1 || (c->allocated >> first ^ c->allocated >> next) & 1)
			break;
	}
	return ref->guest_off < ref->disk_size && from < disk ? vd_min_u64(at, disk) : at;
}

static int claim_cluster(const struct claimer *x, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	/* The flag is kept for the disk alone, and is nothing in a data file, which nobody shares. */
	bool is_sole = ref->n == 1 && (ref->file || (ref->is_copied && !ref->view));
	int r = 0;

	for (uint64_t from = 0, end; from < x->s->cluster_size && r == 0; from = end) {
		struct vd_claim c = claim_of(ref);

		end = piece_end(x, ref, from, is_sole);
		c.host_off += from;
		c.guest_off += from;
		c.len = end - from;
		c.is_sole = is_sole;
		c.unit_bits = x->s->h.cluster_bits;
		c.entry_bytes = x->s->entry_size;
		judge_piece(x, ref, UINT32_C(1) << from / x->s->sub_size, &c);
		r = vd_window_claim(x->w, &c, e);
	}
	return r;
}

static int take(struct vd_qcow2_visit *v, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	const struct claimer *x = v->ctx;
	int r;

	if (ref->kind != QCOW2_REF_CLUSTER)
		r = claim_area(x, ref, e);
	else if (ref->cluster->is_packed)
		r = claim_packed(x, ref, e);
	else
		r = claim_cluster(x, ref, e);
	v->end = x->w->end;
	return r;
}

static void note(void *ctx, enum vd_qcow2_kind kind, uint64_t entry_off, const struct vd_error *what)
{
	const struct claimer *x = ctx;

	(void)kind;
	(void)entry_off;
	vd_window_finding(x->w, what);
}

/* ---- refcounts ------------------------------------------------------------------------------------------ */

/* Of the refcount blocks, those that can be read: what is wrong with others the visit has told. */
static int block_off(const struct vd_qcow2 *s, uint64_t block, uint64_t *off, struct vd_error *e)
{
	uint8_t raw[8];
	int r = vd_set_pread(s->set, 0, raw, sizeof(raw), atomic_load(&s->reft_off) + block * 8, e);

	*off = r < 0 ? 0 : vd_get_be64(raw) & ~QCOW2_REFT_RESERVED;
	if (*off && vd_qcow2_judge_cluster(s, *off, "refcount block", 0, NULL) < 0)
		*off = 0;
	return r;
}

/* Blocks that count clusters below `end`. */
static uint64_t n_blocks(const struct vd_qcow2 *s, uint64_t end)
{
	uint64_t entries = (atomic_load(&s->reft_end) - atomic_load(&s->reft_off)) / 8;
	uint64_t clusters = vd_round_up(end, s->cluster_size) / s->cluster_size;

	return vd_min_u64(entries, vd_round_up(clusters, s->block_entries) / s->block_entries);
}

static int tell_block(const struct claimer *x, uint64_t block, const uint8_t *raw, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	uint64_t first = vd_max_u64(block * s->block_entries, x->w->start / s->cluster_size);
	uint64_t end = (block + 1) * s->block_entries;
	int r = 0;

	for (uint64_t i = first; i < end && i * s->cluster_size < x->w->end && r == 0; i++) {
		uint64_t count = vd_qcow2_count_get(raw, i % s->block_entries, s->h.refcount_order);

		if (count)
			r = vd_window_count(x->w, i * s->cluster_size, s->cluster_size, count, e);
	}
	return r;
}

static int tell_counts(const struct claimer *x, uint8_t *raw, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	uint64_t first = x->w->start / s->cluster_size / s->block_entries, off;
	int r = 0;

	vd_window_has_counts(x->w);
	for (uint64_t i = first; i < n_blocks(s, x->w->end) && r == 0; i++) {
		r = block_off(s, i, &off, e);
		if (r == 0 && off)
			r = vd_set_pread(s->set, 0, raw, s->cluster_size, off, e);
		if (r == 0 && off)
			r = tell_block(x, i, raw, e);
	}
	return r;
}

/* Behind the last cluster that is counted. */
static int find_tail(const struct vd_qcow2 *s, uint8_t *raw, uint64_t *tail, struct vd_error *e)
{
	uint64_t off;
	int r = 0;

	*tail = 0;
	for (uint64_t i = n_blocks(s, atomic_load(&s->host_end)); i-- && r == 0;) {
		r = block_off(s, i, &off, e);
		if (r == 0 && off)
			r = vd_set_pread(s->set, 0, raw, s->cluster_size, off, e);
		for (uint64_t k = s->block_entries; r == 0 && off && k--;)
			if (vd_qcow2_count_get(raw, k, s->h.refcount_order)) {
				*tail = (i * s->block_entries + k + 1) * s->cluster_size;
				return 0;
			}
	}
	return r;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int walk_accounts(const struct claimer *x, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	vd_auto_free uint8_t *raw = NULL;
	uint64_t tail = vd_round_up(s->h.size, s->cluster_size);
	int r = vd_alloc(s->cluster_size, 1, &raw, e);

	if (r == 0 && !x->w->file)
		r = find_tail(s, raw, &tail, e);
	if (r < 0)
		return r;
	vd_window_set_units(x->w, s->cluster_size, tail);
	return x->w->file ? 0 : tell_counts(x, raw, e);
}

int vd_qcow2_walk(void *st, struct vd_window *w, struct vd_error *e)
{
	const struct vd_qcow2 *s = st;
	struct claimer x = { .s = s, .w = w };
	struct vd_qcow2_visit v = {
		.file = w->file, .start = w->start, .end = w->end, .each = w->each, .ref = take, .finding = note, .ctx = &x,
	};
	int r;

	/* A raw data file is the disk, whatever the tables say of it. */
	if (w->file && s->is_raw_external)
		return vd_window_claim(w, &(struct vd_claim){
			.len = s->h.size, .parent_off = VD_HOST_NOWHERE, .refs = 1, .owner = VD_OWNER_DATA,
		}, e);
	r = vd_qcow2_visit(s, &v, e);
	return r < 0 || w->list ? r : walk_accounts(&x, e);
}
