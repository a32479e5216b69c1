/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mends a disk: of what hosted sparse extents hold twice the one by the other, and what a crash left. What is wrong, the
 * check has told; what nothing names, vmdk_check.c gives back.
 *
 *  M1  The guest reads what it read before: vd_vmdk_pair() decides by what reading decides by.
 *  M2  Entries of tables are put right where they are: each is good whether the others happen or not.
 *  M3  A table that one directory lost is made anew at the end of the file, as its twin is, and durable before the directory
 *      names it. So is a directory, before the header names that.
 *  M4  Where something stays broken, the file neither grows nor shrinks: what nothing names may be what was lost, and what
 *      leads past the end of the file would lead to something.
 *  M5  That the disk was not closed cleanly decides M1, so it is forgotten last.
 */
#include "formats/vmdk/vmdk_shape.h"
#include "formats/vmdk/vmdk_visit.h"

#define ENTRY 4

struct mend {
	struct vd_vmdk *s;
	struct vd_vmdk_extent *x;
	struct vd_check *c;
	uint64_t end;                   /* where new tables come */
};

static uint64_t table_len(const struct vd_vmdk_sparse *sp)
{
	return vd_round_up(sp->entries * (uint64_t)ENTRY, VMDK_SECTOR);
}

static uint64_t entries_used(const struct vd_vmdk_sparse *sp, uint64_t index)
{
	return (vd_min_u64(sp->capacity - index * sp->span, sp->span) - 1) / sp->grain + 1;
}

static int put_bytes(struct mend *m, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	m->c->report->changed = true;
	return vd_set_pwrite(m->s->set, m->x->file, buf, len, off, e);
}

/* ---- entries --------------------------------------------------------------------------------------------- */

/* n entries of both tables, which fit into a piece. */
static int mend_piece(struct mend *m, const uint64_t *off, uint64_t n, struct vd_error *e)
{
	uint8_t raw[2][VMDK_BATCH * ENTRY];
	bool changes[2] = { false, false };
	int r = 0;

	for (int i = 0; i < 2 && r == 0; i++)
		r = vd_set_pread(m->s->set, m->x->file, raw[i], n * ENTRY, off[i], e);
	for (uint64_t k = 0; k < n * ENTRY && r == 0; k += ENTRY) {
		uint32_t entry[2] = { vd_get_le32(raw[0] + k), vd_get_le32(raw[1] + k) }, right;

		if (entry[0] == entry[1] || !vd_vmdk_pair(m->x, entry[0], entry[1], &right))
			continue;
		for (int i = 0; i < 2; i++) {
			changes[i] |= entry[i] != right;
			vd_put_le32(raw[i] + k, right);
		}
	}
	for (int i = 0; i < 2 && r == 0; i++)
		if (changes[i])
			r = put_bytes(m, raw[i], n * ENTRY, off[i], e);
	return r;
}

static int mend_entries(struct mend *m, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &m->x->sp;
	int r = 0;

	for (uint64_t i = 0; i < sp->n_tables && sp->rgd_off && r == 0; i++) {
		uint64_t off[2], left = entries_used(sp, i);

		r = m->c->progress(m->c, i, sp->n_tables, e);
		if (r < 0 || vd_vmdk_table(m->s, m->x, i, false, 0, &off[0], NULL) < 0 ||
		    vd_vmdk_table(m->s, m->x, i, true, 0, &off[1], NULL) < 0 || !off[0] || !off[1])
			continue;
		for (uint64_t n; left && r == 0; left -= n) {
			n = vd_min_u64(left, VMDK_BATCH);
			r = mend_piece(m, off, n, e);
			off[0] += n * ENTRY;
			off[1] += n * ENTRY;
		}
	}
	vd_meta_forget_all(m->s->meta);
	return r < 0 ? r : vd_set_flush(m->s->set, e);
}

/* ---- directories ----------------------------------------------------------------------------------------- */

static int take_space(struct mend *m, uint64_t len, uint64_t *off, struct vd_error *e)
{
	*off = m->end;
	m->end += len;
	if (m->end / VMDK_SECTOR <= UINT32_MAX)
		return 0;
	return vd_fail(e, VD_ENOSPC, "%s has no room left that its tables can name: 2 TiB", vd_set_name(m->s->set, m->x->file));
}

/* A directory that is nowhere gets a place; it names nothing yet, and the header does not know of it. */
static int make_directory(struct mend *m, struct vd_vmdk_header_change *h, struct vd_error *e)
{
	struct vd_vmdk_sparse *sp = &m->x->sp;
	uint64_t len = vd_round_up(sp->n_tables * ENTRY, VMDK_SECTOR), off;
	int r;

	if (!sp->lost_first && !sp->lost_second)
		return 0;
	r = take_space(m, len, &off, e);
	if (r == 0)
		r = vd_io_truncate(vd_set_io(m->s->set, m->x->file), m->end, e);
	if (r < 0)
		return r;
	m->c->report->changed = true;
	sp->rgd_off = sp->lost_first ? sp->gd_off : off;
	sp->gd_off = sp->lost_first ? off : sp->gd_off;
	sp->lost_first = sp->lost_second = false;
	sp->areas[sp->n_areas++] = (struct vd_vmdk_area){ off, off + len };
	h->gd_off = sp->gd_off;
	h->rgd_off = sp->rgd_off;
	return 0;
}

/* Which of the two directories has no table where its twin has one: *missing, or -1. */
static int find_missing(struct mend *m, uint64_t index, int *missing, uint64_t *twin, struct vd_error *e)
{
	uint64_t off[2] = { 0, 0 };

	*missing = -1;
	for (int i = 0; i < 2; i++) {
		int r = vd_vmdk_table(m->s, m->x, index, i, 0, &off[i], e);

		if (r < 0 && r != VD_ECORRUPT)
			return r;
		off[i] = r < 0 ? 0 : off[i];
	}
	if (!off[0] == !off[1])
		return 0;
	*missing = off[0] ? 1 : 0;
	*twin = off[!*missing];
	return 0;
}

/* What lies behind the last entry that counts need not be part of the table. */
static int copy_table(struct mend *m, uint64_t index, uint64_t from, uint64_t to, struct vd_error *e)
{
	uint8_t raw[VMDK_GTES_MAX * ENTRY] = { 0 };
	int r = vd_set_pread(m->s->set, m->x->file, raw, entries_used(&m->x->sp, index) * ENTRY, from, e);

	return r < 0 ? r : put_bytes(m, raw, table_len(&m->x->sp), to, e);
}

static int link_table(struct mend *m, uint64_t index, int set, uint64_t off, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &m->x->sp;
	uint8_t raw[ENTRY];

	vd_put_le32(raw, off / VMDK_SECTOR);
	return put_bytes(m, raw, sizeof(raw), (set ? sp->rgd_off : sp->gd_off) + index * ENTRY, e);
}

/* Makes what is missing, durably; or, the second time, names it: places come in the same order. */
static int make_tables(struct mend *m, bool links, struct vd_error *e)
{
	int r = 0;

	for (uint64_t i = 0; i < m->x->sp.n_tables && m->x->sp.rgd_off && r == 0; i++) {
		uint64_t twin, off;
		int set;

		r = find_missing(m, i, &set, &twin, e);
		if (r < 0 || set < 0)
			continue;
		r = take_space(m, table_len(&m->x->sp), &off, e);
		if (r == 0)
			r = links ? link_table(m, i, set, off, e) : copy_table(m, i, twin, off, e);
	}
	vd_meta_forget_all(m->s->meta);
	return r < 0 ? r : vd_set_flush(m->s->set, e);
}

/* ---- the header ------------------------------------------------------------------------------------------ */

/* Where grains lie, and where everything ends. */
struct bounds {
	uint64_t first, end;
};

static int note_bounds(struct vd_vmdk_visit *v, const struct vd_vmdk_ref *ref, struct vd_error *e)
{
	struct bounds *b = v->ctx;

	(void)e;
	if (ref->kind == VMDK_REF_DATA)
		b->first = vd_min_u64(b->first, ref->host_off);
	b->end = vd_max_u64(b->end, ref->host_off + ref->len);
	return 0;
}

static int no_fault(struct vd_vmdk_visit *v, const struct vd_vmdk_fault *f, struct vd_error *e)
{
	(void)v;
	(void)f;
	(void)e;
	return 0;
}

static int find_bounds(struct mend *m, struct bounds *b, struct vd_error *e)
{
	struct vd_vmdk_visit v = {
		.s = m->s, .ctx = b, .file = m->x->file, .take = note_bounds, .fault = no_fault,
	};

	*b = (struct bounds){ UINT64_MAX, atomic_load(&m->x->sp.host_end) };
	return vd_vmdk_visit(&v, e);
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

/* Grains begin at the first that there is, or where the next one comes. */
static uint64_t right_overhead(const struct mend *m, const struct bounds *b)
{
	return vd_min_u64(b->first, vd_round_up(m->end, m->x->sp.grain));
}

/* The last grain may be cut short by the end of the file: what is new comes behind all of it. */
static int mend_tables(struct mend *m, struct vd_error *e)
{
	struct vd_vmdk_sparse *sp = &m->x->sp;
	struct vd_vmdk_header_change h = { 0 };
	struct bounds bounds;
	bool is_past = vd_vmdk_overhead_is_past(m->s, m->x);
	uint64_t tables;
	int r = find_bounds(m, &bounds, e);

	m->end = vd_round_up(bounds.end, VMDK_SECTOR);
	if (r == 0)
		r = make_directory(m, &h, e);
	tables = m->end;
	if (r == 0)
		r = make_tables(m, false, e);
	m->end = tables;
	if (r == 0)
		r = make_tables(m, true, e);
	if (is_past)
		h.overhead = sp->overhead = right_overhead(m, &bounds);
	if (r == 0 && (is_past || m->end > bounds.end)) {
		m->end = vd_round_up(m->end, sp->grain);
		r = vd_io_truncate(vd_set_io(m->s->set, m->x->file), m->end, e);
		atomic_store(&sp->host_end, m->end);
	}
	if (r < 0 || !(h.gd_off || h.overhead))
		return r;
	m->c->report->changed = true;
	return vd_vmdk_header_write(m->s, m->x->file, &h, e);
}

static int forget_unclean(struct mend *m, struct vd_error *e)
{
	int r;

	if (!m->x->sp.unclean || !vd_vmdk_can_be_clean(m->s, m->x))
		return 0;
	m->c->report->changed = true;
	r = vd_vmdk_mark_unclean(m->s, m->x, false, e);
	if (r == 0)
		r = vd_set_flush(m->s->set, e);
	m->x->sp.unclean = r < 0;
	return r;
}

static int for_extents(struct vd_vmdk *s, struct vd_check *c, int (*act)(struct mend *m, struct vd_error *e),
		       struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->n_extents && r == 0; i++) {
		struct mend m = { .s = s, .x = &s->extents[i], .c = c };

		if (m.x->sp.grain && vd_vmdk_is_mendable(s, m.x))
			r = act(&m, e);
	}
	return r;
}

int vd_vmdk_mend(void *st, enum vd_repair repair, struct vd_check *c, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	int r = 0;

	if (repair == VD_REPAIR_ALL)
		r = for_extents(s, c, mend_entries, e);
	if (r == 0 && repair == VD_REPAIR_ALL && !c->report->not_mendable)
		r = for_extents(s, c, mend_tables, e);
	if (r == 0 && !c->report->not_mendable)
		r = vd_vmdk_give_back(s, c, e);
	for (size_t i = 0; i < s->n_extents && r == 0; i++)
		r = forget_unclean(&(struct mend){ .s = s, .x = &s->extents[i], .c = c }, e);
	return r;
}
