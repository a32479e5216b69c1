/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Visits every entry of every table (keeps C1 to C3). What a reference means is for the walk and the check to say. */
#include "formats/qcow2/qcow2_claims.h"

#include <stdlib.h>

#include "formats/qcow2/qcow2_bitmap_dir.h"
#include "formats/qcow2/qcow2_shape.h"
#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define READ_BYTES (256u << 10)         /* of a table at once */
#define NONE VD_HOST_NOWHERE

size_t vd_qcow2_visit_batch = 512u << 10;       /* 20 MiB */

struct l1_entry {
	uint64_t l2_off, entry_off, disk_size;
	uint32_t view, index;
};

struct visitor {
	const struct vd_qcow2 *s;
	struct vd_qcow2_visit *v;
	uint64_t host_end;
	uint8_t *raw;                   /* an L2 table */
	struct l1_entry *batch;
	size_t n_batch, max_batch;
};

/* ---- telling -------------------------------------------------------------------------------------------- */

static int tell(struct visitor *x, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	const struct vd_qcow2_visit *v = x->v;

	if (ref->file != v->file || ref->host_off >= v->end || !ref->len)
		return 0;
	if (ref->host_off < v->start && ref->len <= v->start - ref->host_off)
		return 0;
	return v->ref(x->v, ref, e);
}

/* Something in one piece that one entry names. */
static int tell_area(struct visitor *x, enum vd_qcow2_kind kind, uint64_t off, uint64_t len, uint64_t entry_off,
		     struct vd_error *e)
{
	return tell(x, &(struct vd_qcow2_ref){
		.kind = kind, .host_off = off, .len = len, .entry_off = entry_off, .guest_off = NONE, .n = 1,
	}, e);
}

/* Takes a failure for a finding, unless it says nothing about the image. */
static int found_about(struct visitor *x, const struct vd_qcow2_ref *about, int r, const struct vd_error *what,
		       struct vd_error *e)
{
	if (r != VD_ECORRUPT && r != VD_EBITMAP && r != VD_EUNSUPPORTED && !(r == VD_EIO && x->v->goes_on)) {
		if (r < 0 && e)
			*e = *what;
		return r;
	}
	x->v->about = about;
	x->v->finding(x->v->ctx, about->kind, about->entry_off, what);
	x->v->about = NULL;
	return 0;
}

static int found(struct visitor *x, enum vd_qcow2_kind kind, uint64_t entry_off, int r, const struct vd_error *what,
		 struct vd_error *e)
{
	return found_about(x, &(struct vd_qcow2_ref){ .kind = kind, .entry_off = entry_off, .guest_off = NONE }, r, what, e);
}

/* ---- L2 tables ------------------------------------------------------------------------------------------ */

/*
 * n L1 entries of one table at the same place of the disk; or, if there are more than two places, which no writer makes,
 * all but those of the first one as if they were at the second.
 */
struct l2_group {
	const struct l1_entry *at;
	size_t n;
	uint64_t disk_size;
};

static int tell_cluster(struct visitor *x, const struct l2_group *g, struct vd_qcow2_ref *ref, struct vd_error *e)
{
	int r = 0;

	if (!x->v->each)
		return tell(x, ref, e);
	ref->n = 1;
	for (size_t i = 0; i < g->n && r == 0; i++) {
		uint64_t in_table = ref->guest_off % x->s->l2_span;

		ref->view = g->at[i].view;
		ref->disk_size = g->at[i].disk_size;
		ref->guest_off = g->at[i].index * x->s->l2_span + in_table;
		r = tell(x, ref, e);
	}
	return r;
}

static int visit_entry(struct visitor *x, const struct l2_group *g, const uint8_t *entry, uint64_t guest_off,
		       uint64_t entry_off, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	struct vd_qcow2_cluster c;
	struct vd_error what;
	struct vd_qcow2_ref ref;
	int r = vd_qcow2_decode(s, entry, guest_off, entry_off, &c, &what);

	ref = (struct vd_qcow2_ref){
		.kind = QCOW2_REF_CLUSTER, .file = c.is_packed ? 0 : s->payload_file, .host_off = c.host_off,
		.len = c.is_packed ? c.host_len : s->cluster_size, .entry_off = entry_off, .guest_off = guest_off,
		.view = g->at->view, .n = g->n, .is_copied = c.is_copied, .disk_size = g->disk_size, .cluster = &c,
	};
	if (r < 0)
		r = found_about(x, &ref, r, &what, e);
	return r < 0 || !(c.is_packed || c.has_host) ? r : tell_cluster(x, g, &ref, e);
}

static int visit_l2(struct visitor *x, const struct l2_group *g, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	uint64_t l2_off = g->at->l2_off, guest_off = g->at->index * s->l2_span;
	struct vd_error what;
	int r = x->v->table ? x->v->table(x->v, l2_off, e) : 0;

	if (r < 0)
		return r;
	r = vd_set_pread(s->set, 0, x->raw, s->cluster_size, l2_off, &what);
	if (r < 0 && e)
		*e = what;
	if (r == VD_EIO && x->v->goes_on)
		return found(x, QCOW2_REF_L2, g->at->entry_off, r, &what, e);
	for (uint64_t i = 0; i < s->l2_entries && r == 0; i++) {
		const uint8_t *entry = x->raw + i * s->entry_size;

		if (!vd_get_be64(entry) && (s->n_sub == 1 || !vd_get_be64(entry + 8)))
			continue;
		r = visit_entry(x, g, entry, guest_off + i * s->cluster_size, l2_off + i * s->entry_size, e);
	}
	return r;
}

/* By table, then by its place on the disk, then by view. */
static int by_table(const void *va, const void *vb)
{
	const struct l1_entry *a = va, *b = vb;

	if (a->l2_off != b->l2_off)
		return a->l2_off < b->l2_off ? -1 : 1;
	if (a->index != b->index)
		return a->index < b->index ? -1 : 1;
	return a->view < b->view ? -1 : a->view > b->view;
}

static int visit_batch(struct visitor *x, struct vd_error *e)
{
	int r = 0;

	if (x->n_batch)
		qsort(x->batch, x->n_batch, sizeof(*x->batch), by_table);
	for (size_t i = 0; i < x->n_batch && r == 0;) {
		struct l2_group g = { .at = &x->batch[i] };
		bool is_second = i && g.at[-1].l2_off == g.at->l2_off;

		for (; i < x->n_batch && x->batch[i].l2_off == g.at->l2_off && (is_second || x->batch[i].index == g.at->index); i++) {
			g.disk_size = vd_max_u64(g.disk_size, x->batch[i].disk_size);
			g.n++;
		}
		r = visit_l2(x, &g, e);
	}
	x->n_batch = 0;
	return r;
}

/* ---- L1 tables ------------------------------------------------------------------------------------------ */

static int add_l1_entry(struct visitor *x, const struct l1_entry *entry, struct vd_error *e)
{
	int r = 0;

	if (x->n_batch == x->max_batch && x->max_batch >= vd_qcow2_visit_batch)
		r = visit_batch(x, e);
	if (r == 0 && x->n_batch == x->max_batch) {
		size_t n = vd_min_u64(x->max_batch ? x->max_batch * 2 : 64, vd_qcow2_visit_batch);

		r = vd_realloc(&x->batch, n, sizeof(*x->batch), e);
		if (r < 0)
			return r;
		x->max_batch = n;
	}
	if (r == 0)
		x->batch[x->n_batch++] = *entry;
	return r;
}

static int visit_l1_entry(struct visitor *x, uint64_t word, struct l1_entry *entry, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	uint64_t at = entry->entry_off;
	struct vd_qcow2_ref ref = {
		.kind = QCOW2_REF_L2, .host_off = word & QCOW2_OFFSET_MASK, .len = s->cluster_size, .entry_off = at,
		.guest_off = entry->index * s->l2_span, .view = entry->view, .n = 1, .is_copied = word & QCOW2_COPIED,
	};
	struct vd_error what;
	int r = 0, bad = 0;

	if (word == QCOW2_COPIED)
		r = found_about(x, &ref, vd_qcow2_corrupt(s, &what, at, "L1 entry %" PRIu32 " owns a table, but names none",
							  entry->index), &what, e);
	if (word & QCOW2_L1_RESERVED)
		r = found_about(x, &ref, vd_qcow2_corrupt(s, &what, at, "L1 entry %" PRIu32 " is 0x%016" PRIx64
							  ", which has reserved bits set", entry->index, word), &what, e);
	if (r < 0 || !ref.host_off)
		return r;
	bad = vd_qcow2_judge_cluster(s, ref.host_off, "L2 table", at, &what);
	if (bad < 0)
		r = found_about(x, &ref, bad, &what, e);
	if (r == 0)
		r = tell(x, &ref, e);
	/* What it would say there is noise. */
	if (r < 0 || bad < 0)
		return r;
	entry->l2_off = ref.host_off;
	return add_l1_entry(x, entry, e);
}

/* len: of the table as far as it lies inside the file. */
static int visit_l1_table(struct visitor *x, uint64_t l1_off, uint64_t len, uint32_t view, uint64_t disk_size,
			  struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(vd_min_u64(len, READ_BYTES), 1, &raw, e);

	for (uint64_t done = 0, n; done < len && r == 0; done += n) {
		n = vd_min_u64(len - done, READ_BYTES);
		r = vd_set_pread(x->s->set, 0, raw, n, l1_off + done, e);
		for (uint64_t i = 0; i < n && r == 0; i += 8) {
			struct l1_entry entry = {
				.entry_off = l1_off + done + i, .view = view, .index = (done + i) / 8, .disk_size = disk_size,
			};
			uint64_t word = vd_get_be64(raw + i);

			if (word)
				r = visit_l1_entry(x, word, &entry, e);
		}
	}
	return r;
}

/* Of the disk it was judged on open. */
static int visit_l1(struct visitor *x, uint64_t l1_off, uint32_t l1_size, uint64_t entry_off, uint32_t view,
		    uint64_t disk_size, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	uint64_t len = (uint64_t)l1_size * 8;
	struct vd_error what;
	int r = 0;

	if (l1_off % s->cluster_size || !vd_range_inside(l1_off, len, x->host_end)) {
		vd_qcow2_corrupt(s, &what, entry_off, "the L1 table of %" PRIu64 " bytes at %" PRIu64 " lies outside the file or "
				 "begins inside a cluster", len, l1_off);
		r = found(x, QCOW2_REF_L1, entry_off, VD_ECORRUPT, &what, e);
		len = l1_off < x->host_end ? vd_round_down(vd_min_u64(len, x->host_end - l1_off), 8) : 0;
	}
	if (r == 0)
		r = tell(x, &(struct vd_qcow2_ref){
			.kind = QCOW2_REF_L1, .host_off = l1_off, .len = len, .entry_off = entry_off, .view = view, .n = 1,
		}, e);
	return r < 0 ? r : visit_l1_table(x, l1_off, len, view, disk_size, e);
}

/* ---- snapshots ------------------------------------------------------------------------------------------ */

static int visit_views(struct visitor *x, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	struct vd_error what;
	size_t n;
	int r = vd_qcow2_snapshots_read(s, &list, &what);

	n = list.n;
	if (r < 0) {
		/* The last one is not whole, and what would follow it cannot be found. */
		n = n ? n - 1 : 0;
		list.table_len = vd_max_u64(n ? list.at[n].at - s->h.snap_off : 0,
					    s->h.n_snapshots * (uint64_t)QCOW2_SNAPSHOT_BYTES_MIN);
		r = found(x, QCOW2_REF_SNAPSHOTS, what.has_offset ? what.offset : 64, r, &what, e);
	}
	if (r == 0)
		r = tell_area(x, QCOW2_REF_SNAPSHOTS, s->h.snap_off, list.table_len, 64, e);
	if (r == 0)
		r = visit_l1(x, s->h.l1_off, s->h.l1_size, 40, 0, s->h.size, e);
	for (size_t i = 0; i < n && r == 0; i++)
		r = visit_l1(x, list.at[i].l1_off, list.at[i].l1_size, list.at[i].at, i + 1, list.at[i].disk_size, e);
	return r < 0 ? r : visit_batch(x, e);
}

/* ---- refcounts ------------------------------------------------------------------------------------------ */

static int visit_block_entry(struct visitor *x, uint64_t word, uint64_t at, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	struct vd_error what;
	int r = 0;

	if (word & QCOW2_REFT_RESERVED)
		r = vd_qcow2_corrupt(s, &what, at, "refcount table entry 0x%016" PRIx64 " has reserved bits set", word);
	else
		r = vd_qcow2_judge_cluster(s, word, "refcount block", at, &what);
	if (r < 0)
		r = found(x, QCOW2_REF_BLOCK, at, r, &what, e);
	return r < 0 ? r : tell_area(x, QCOW2_REF_BLOCK, word & ~QCOW2_REFT_RESERVED, s->cluster_size, at, e);
}

static int visit_refcounts(struct visitor *x, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	uint64_t off = atomic_load(&s->reft_off), len = atomic_load(&s->reft_end) - off;
	vd_auto_free uint8_t *raw = NULL;
	int r = tell_area(x, QCOW2_REF_REFT, off, len, QCOW2_AT_REFT_OFF, e);

	if (r == 0)
		r = vd_alloc(vd_min_u64(len, READ_BYTES), 1, &raw, e);
	for (uint64_t done = 0, n; done < len && r == 0; done += n) {
		n = vd_min_u64(len - done, READ_BYTES);
		r = vd_set_pread(s->set, 0, raw, n, off + done, e);
		for (uint64_t i = 0; i < n && r == 0; i += 8)
			if (vd_get_be64(raw + i))
				r = visit_block_entry(x, vd_get_be64(raw + i), off + done + i, e);
	}
	return r;
}

/* ---- bitmaps -------------------------------------------------------------------------------------------- */

static int visit_bitmap_word(struct visitor *x, const struct vd_qcow2_bitmap *b, uint64_t i, uint64_t word,
			     struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	uint64_t at = b->table_off + i * 8, off = word & QCOW2_OFFSET_MASK;
	struct vd_error what;
	int r = vd_qcow2_bitmap_judge_word(s, b, i, word, &what);

	if (r < 0)
		r = found(x, QCOW2_REF_BITMAP_BITS, at, r, &what, e);
	return r < 0 || !off ? r : tell_area(x, QCOW2_REF_BITMAP_BITS, off, s->cluster_size, at, e);
}

/* Not because of what has happened to it, or of what only later programs know. */
static bool is_impossible(const struct vd_qcow2_bitmap *b)
{
	return b->unusable && !(b->flags & QCOW2_BITMAP_IN_USE) && (!b->extra_len || b->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE);
}

static int visit_bitmap(struct visitor *x, const struct vd_qcow2_bitmap *b, struct vd_error *e)
{
	uint64_t words[QCOW2_BATCH_BYTES / 8];
	uint64_t entry_off = x->s->bitmaps_off + b->at;
	struct vd_error what;
	int r;

	if (!b->has_table) {
		vd_qcow2_bitmap_broken(x->s, &what, entry_off, "the bitmap '%s' has no table where one can be", b->name);
		return found(x, QCOW2_REF_BITMAP_TABLE, entry_off, VD_EBITMAP, &what, e);
	}
	if (is_impossible(b)) {
		vd_qcow2_bitmap_broken(x->s, &what, b->at, "the bitmap '%s' cannot be: %s", b->name, b->unusable);
		r = found(x, QCOW2_REF_BITMAP_TABLE, b->at, VD_EBITMAP, &what, e);
		if (r < 0)
			return r;
	}
	r = tell_area(x, QCOW2_REF_BITMAP_TABLE, b->table_off, (uint64_t)b->table_size * 8, entry_off, e);
	for (uint64_t first = 0, n; first < b->table_size && r == 0; first += n) {
		n = vd_min_u64(b->table_size - first, sizeof(words) / 8);
		r = vd_qcow2_bitmap_words(x->s, b, first, n, words, e);
		for (uint64_t i = 0; i < n && r == 0; i++)
			r = visit_bitmap_word(x, b, first + i, words[i], e);
	}
	return r;
}

/* Without the autoclear bit somebody wrote who does not know bitmaps, and may have given their space away. */
static int visit_bitmaps(struct visitor *x, struct vd_error *e)
{
	const struct vd_qcow2 *s = x->s;
	struct vd_qcow2_bitmaps *list = NULL;
	struct vd_error what;
	int r;

	if (!s->n_bitmaps || !(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	r = tell_area(x, QCOW2_REF_BITMAP_DIR, s->bitmaps_off, s->bitmaps_len, s->bitmaps_at, e);
	if (r < 0)
		return r;
	r = vd_qcow2_bitmaps_read(s, &list, &what);
	if (r < 0)
		return found(x, QCOW2_REF_BITMAP_DIR, s->bitmaps_at, r, &what, e);
	for (size_t i = 0; i < list->n && r == 0; i++)
		r = visit_bitmap(x, &list->at[i], e);
	vd_qcow2_bitmaps_free(list);
	return r;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

int vd_qcow2_visit(const struct vd_qcow2 *s, struct vd_qcow2_visit *v, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	struct visitor x = { .s = s, .v = v, .host_end = atomic_load(&s->host_end) };
	int r = vd_alloc(s->cluster_size, 1, &raw, e);

	x.raw = raw;
	if (r == 0)
		r = tell_area(&x, QCOW2_REF_HEADER, 0, s->header_end, NONE, e);
	if (r == 0)
		r = tell_area(&x, QCOW2_REF_KEY_AREA, s->key_area_off, s->key_area_len, s->key_area_at, e);
	if (r == 0)
		r = visit_refcounts(&x, e);
	if (r == 0)
		r = visit_bitmaps(&x, e);
	if (r == 0)
		r = visit_views(&x, e);
	free(x.batch);
	return r;
}
