/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Goes through the headers and tables of each extent and tells what they lead to. Grains are found as vmdk_table.c finds
 * them, by the redundant tables where the first are damaged; each damage is told, and ends nothing.
 */
#include "formats/vmdk/vmdk_visit.h"

static int take(struct vd_vmdk_visit *v, enum vd_vmdk_ref_kind kind, uint32_t file, uint64_t off, uint64_t used,
		uint64_t len, struct vd_error *e)
{
	struct vd_vmdk_ref ref = {
		.kind = kind, .file = file, .host_off = off, .len = len, .used = used, .guest_off = UINT64_MAX,
		.entry_off = UINT64_MAX,
	};

	return len ? v->take(v, &ref, e) : 0;
}

static uint64_t sectors_of(uint64_t len)
{
	return vd_round_up(len, VMDK_SECTOR);
}

/* Bad luck with storage or memory is the visit's end; bad tables are not. */
static bool is_fault(int r)
{
	return r == VD_ECORRUPT || r == VD_EIO;
}

static int tell(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, enum vd_finding_kind kind, uint64_t entry_off,
		uint64_t at, bool can_mend, const struct vd_error *what, struct vd_error *e)
{
	struct vd_vmdk_fault f = {
		.kind = what->code == VD_EIO ? VD_FOUND_UNREADABLE : kind, .file = x->file, .entry_off = entry_off,
		.guest_off = at == UINT64_MAX ? at : x->start + at, .n = 1, .what = what,
		.can_mend = can_mend && vd_vmdk_is_mendable(v->s, x),
	};

	return v->fault(v, &f, e);
}

/* ---- grains ----------------------------------------------------------------------------------------------- */

static int take_grain(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t at, uint64_t entry_off,
		      const struct vd_vmdk_grain *g, struct vd_error *e)
{
	uint64_t grain = x->sp.grain, disk = x->end - x->start;
	struct vd_vmdk_ref ref = {
		.kind = VMDK_REF_DATA, .file = x->file, .host_off = g->host_off, .len = grain, .guest_off = x->start + at,
		.used = at < disk ? vd_min_u64(grain, disk - at) : 0, .entry_off = entry_off,
	};
	uint8_t head[VMDK_MARKER_LEN];
	uint32_t frame = x->sp.flags & VMDK_FLAG_MARKERS ? VMDK_MARKER_LEN : 4;
	int r;

	if (g->where == VD_DATA)
		return v->take(v, &ref, e);
	r = vd_set_pread(v->s->set, x->file, head, frame, g->host_off, e);
	if (r < 0)
		return r;
	ref.kind = VMDK_REF_PACKED;
	ref.used = frame + vd_get_le32(head + frame - 4);
	ref.len = sectors_of(ref.used);
	return v->take(v, &ref, e);
}

/* Entries of one table, a batch. Those that make no sense are told, and the grains that the others' words stand for taken. */
static int visit_batch(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t at, uint64_t n,
		       uint64_t entry_off, struct vd_error *e)
{
	struct vd_vmdk_grain grains[VMDK_BATCH];
	struct vd_error what = { 0 };
	int r = vd_vmdk_grains(v->s, x, at, n, 0, grains, &what);

	if (r == 0) {
		for (uint64_t i = 0; i < n && r == 0; i++)
			if (grains[i].where == VD_DATA || grains[i].where == VD_PACKED)
				r = take_grain(v, x, at + i * x->sp.grain, entry_off + i * x->sp.entry_size, &grains[i], e);
		return r;
	}
	if (!is_fault(r))
		return vd_fail(e, r, "%s", what.message);
	if (n == 1)
		return tell(v, x, VD_FOUND_OUTSIDE, entry_off, at, false, &what, e);
	/* Which one it was shows when they are asked one by one. */
	for (uint64_t i = 0; i < n; i++) {
		r = visit_batch(v, x, at + i * x->sp.grain, 1, entry_off + i * x->sp.entry_size, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- two sets -------------------------------------------------------------------------------------------- */

bool vd_vmdk_is_mendable(const struct vd_vmdk *s, const struct vd_vmdk_extent *x)
{
	return x->kind == VMDK_SPARSE && vd_vmdk_can_be_clean(s, x);
}

bool vd_vmdk_can_be_clean(const struct vd_vmdk *s, const struct vd_vmdk_extent *x)
{
	return x->access == VMDK_RW && (x->kind == VMDK_SPARSE || x->kind == VMDK_COWD) &&
	       !(x->sp.flags & VMDK_FLAG_COMPRESSED) && !vd_set_io(s->set, x->file)->is_device;
}

bool vd_vmdk_pair(const struct vd_vmdk_extent *x, uint32_t first, uint32_t second, uint32_t *right)
{
	struct vd_vmdk_grain a, b;
	bool has_first = vd_vmdk_decode(x, first, &a), has_second = vd_vmdk_decode(x, second, &b);

	*right = has_first ? first : second;
	if (!has_first || !has_second || b.where != VD_DATA || first == second)
		return has_first || has_second;
	return a.where == VD_ZERO || (a.where == VD_HOLE && x->sp.unclean);
}

struct pairs {
	uint64_t n_wrong, n_lost;
};

static int tell_pairs(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t index, uint64_t second,
		      const struct pairs *p, struct vd_error *e)
{
	const char *name = vd_set_name(v->s->set, x->file);
	uint64_t at = index * x->sp.span;
	struct vd_error what;
	int r = 0;

	if (p->n_wrong) {
		vd_fail_at(&what, VD_ECORRUPT, second, "%s: the redundant grain table of guest offset %" PRIu64
			   " says something else in %" PRIu64 " entries", name, x->start + at, p->n_wrong);
		r = tell(v, x, VD_FOUND_CONTRADICTION, second, at, true, &what, e);
	}
	if (r < 0 || !p->n_lost)
		return r;
	vd_fail_at(&what, VD_ECORRUPT, second, "%s: the redundant grain table of guest offset %" PRIu64 " names %" PRIu64
		   " grains that the first does not: one of them lost its content", name, x->start + at, p->n_lost);
	return tell(v, x, VD_FOUND_CONTRADICTION, second, at, false, &what, e);
}

/* What makes no sense in either is told with the grains. */
static void compare_entries(const struct vd_vmdk_extent *x, const uint8_t *a, const uint8_t *b, uint64_t n, struct pairs *p)
{
	struct vd_vmdk_grain ignored;

	for (uint64_t k = 0; k < n; k++) {
		uint32_t first = vd_get_le32(a + 4 * k), second = vd_get_le32(b + 4 * k), right;

		if (first == second)
			continue;
		if (vd_vmdk_pair(x, first, second, &right))
			p->n_wrong++;
		else
			p->n_lost += vd_vmdk_decode(x, first, &ignored);
	}
}

static int compare_tables(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t index, const uint64_t *off,
			  uint64_t n, struct vd_error *e)
{
	uint8_t a[VMDK_BATCH * 4], b[VMDK_BATCH * 4];
	struct vd_error what = { 0 };
	struct pairs p = { 0 };

	for (uint64_t i = 0, part; i < n; i += part) {
		int r;

		part = vd_min_u64(n - i, VMDK_BATCH);
		r = vd_meta_read(v->s->meta, x->file, off[0] + 4 * i, a, 4 * part, 0, &what);
		if (r == 0)
			r = vd_meta_read(v->s->meta, x->file, off[1] + 4 * i, b, 4 * part, 0, &what);
		if (r < 0)
			return tell(v, x, VD_FOUND_UNREADABLE, off[1], index * x->sp.span, false, &what, e);
		compare_entries(x, a, b, part, &p);
	}
	return tell_pairs(v, x, index, off[1], &p, e);
}

/* ---- tables ----------------------------------------------------------------------------------------------- */

static int take_table(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t index, bool redundant,
		      uint64_t off, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t size = sp->entries * (uint64_t)sp->entry_size;
	struct vd_vmdk_ref ref = {
		.kind = redundant ? VMDK_REF_RGT : VMDK_REF_GT, .file = x->file, .host_off = off, .used = size,
		.len = sectors_of(size), .guest_off = x->start + index * sp->span,
		.entry_off = (redundant ? sp->rgd_off : sp->gd_off) + index * sp->entry_size,
	};
	uint8_t marker[VMDK_SECTOR];
	int r;

	if (!off)
		return 0;
	r = v->take(v, &ref, e);
	if (r < 0 || !(sp->flags & VMDK_FLAG_MARKERS))
		return r;
	r = vd_set_pread(v->s->set, x->file, marker, sizeof(marker), off - VMDK_SECTOR, e);
	if (r < 0 || vd_get_le32(marker + 8) || vd_get_le32(marker + 12) != VMDK_MARKER_GT)
		return r;
	return take(v, VMDK_REF_HEADER, x->file, off - VMDK_SECTOR, VMDK_SECTOR, VMDK_SECTOR, e);
}

/* One of the two tables of a directory entry. A place that makes no sense is no place, and told in `what`. */
static int find_table(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t index, bool second, uint64_t *off,
		      struct vd_error *what, struct vd_error *e)
{
	int r = vd_vmdk_table(v->s, x, index, second, 0, off, what);

	if (r == 0)
		return take_table(v, x, index, second, *off, e);
	*off = 0;
	return is_fault(r) ? 0 : vd_fail(e, r, "%s", what->message);
}

/* Both; off 0: it is nowhere. What is broken or missing the other one mends. */
static int find_tables(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t index, uint64_t *off,
		       struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	int n = 1 + (sp->rgd_off != 0), r = 0;
	struct vd_error what[2] = { 0 };

	for (int i = 0; i < n && r == 0; i++)
		r = find_table(v, x, index, i, &off[i], &what[i], e);
	for (int i = 0; i < n && r == 0; i++) {
		if (!what[i].code && !off[i] && off[!i])
			vd_fail(&what[i], VD_ECORRUPT, "%s: of the two grain directories one names no table for guest offset %"
				PRIu64, vd_set_name(v->s->set, x->file), x->start + index * sp->span);
		if (what[i].code)
			r = tell(v, x, VD_FOUND_TABLE, (i ? sp->rgd_off : sp->gd_off) + index * sp->entry_size,
				 index * sp->span, off[!i], &what[i], e);
	}
	return r;
}

/* Both tables of one directory entry, and the grains. */
static int visit_table(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t index, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t off[2] = { 0, 0 }, begin = index * sp->span, used;
	int r = find_tables(v, x, index, off, e);

	if (r < 0 || !(off[0] || off[1]))
		return r;
	used = (vd_min_u64(sp->capacity - begin, sp->span) - 1) / sp->grain + 1;
	if (v->compares && off[0] && off[1])
		r = compare_tables(v, x, index, off, used, e);
	for (uint64_t i = 0, n; i < used && r == 0; i += n) {
		n = vd_min_u64(used - i, VMDK_BATCH);
		r = visit_batch(v, x, begin + i * sp->grain, n, (off[0] ? off[0] : off[1]) + i * sp->entry_size, e);
	}
	return r;
}

static int visit_tables(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;

	for (uint64_t i = 0, absent; i < sp->n_tables; i++) {
		struct vd_error what = { 0 };
		int r = vd_vmdk_tables_absent(v->s, x, i, sp->n_tables - i, 0, &absent, &what);

		if (r < 0)
			return tell(v, x, VD_FOUND_UNREADABLE, sp->gd_off, i * sp->span, false, &what, e);
		i += absent;
		if (i < sp->n_tables)
			r = visit_table(v, x, i, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- what the header says -------------------------------------------------------------------------------- */

static int tell_header(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t at, const char *words,
		       struct vd_error *e)
{
	struct vd_error what = { 0 };

	vd_fail_at(&what, VD_ECORRUPT, at, "%s: %s", vd_set_name(v->s->set, x->file), words);
	return tell(v, x, VD_FOUND_TABLE, at, UINT64_MAX, true, &what, e);
}

bool vd_vmdk_overhead_is_past(const struct vd_vmdk *s, const struct vd_vmdk_extent *x)
{
	uint64_t size;

	return vd_io_size(vd_set_io(s->set, x->file), &size, NULL) == 0 && x->sp.overhead > size;
}

static int judge_header(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	int r = 0;

	if (x->kind != VMDK_SPARSE || x->sp.flags & VMDK_FLAG_COMPRESSED)
		return 0;
	if (x->sp.lost_first)
		r = tell_header(v, x, VMDK_AT_GD, "the grain directory cannot be where the header says", e);
	if (r == 0 && x->sp.lost_second)
		r = tell_header(v, x, VMDK_AT_RGD, "the redundant grain directory cannot be where the header says", e);
	if (r == 0 && vd_vmdk_overhead_is_past(v->s, x))
		r = tell_header(v, x, VMDK_AT_OVERHEAD, "the header says that grains begin past the end of the file", e);
	return r;
}

/* ---- extents ---------------------------------------------------------------------------------------------- */

static int take_directory(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, enum vd_vmdk_ref_kind kind,
			  uint64_t off, struct vd_error *e)
{
	uint64_t len = x->sp.n_tables * x->sp.entry_size;

	return off ? take(v, kind, x->file, off, len, sectors_of(len), e) : 0;
}

/* Marker of the directory, marker of the footer, footer, end of the stream: what is at the end, if it is there. */
static int take_stream_end(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	uint64_t end = vd_round_down(atomic_load(&x->sp.host_end), VMDK_SECTOR);
	uint8_t raw[4];
	int r = end < 4 * VMDK_SECTOR ? 0 : vd_set_pread(v->s->set, x->file, raw, sizeof(raw), end - 2 * VMDK_SECTOR, e);

	if (r < 0 || end < 4 * VMDK_SECTOR || vd_get_le32(raw) != VMDK_MAGIC)
		return r;
	r = take(v, VMDK_REF_HEADER, x->file, end - 3 * VMDK_SECTOR, 3 * VMDK_SECTOR, 3 * VMDK_SECTOR, e);
	if (r == 0 && x->sp.gd_off > VMDK_SECTOR)
		r = take(v, VMDK_REF_HEADER, x->file, x->sp.gd_off - VMDK_SECTOR, VMDK_SECTOR, VMDK_SECTOR, e);
	return r;
}

static int take_se_parts(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	static const enum vd_vmdk_ref_kind kinds[VMDK_SE_PARTS] = {
		VMDK_REF_HEADER, VMDK_REF_SE_JOURNAL, VMDK_REF_SE_JOURNAL, VMDK_REF_SE_MAP, VMDK_REF_SE_MAP,
	};
	int r = 0;

	for (int i = 0; i < VMDK_SE_PARTS && r == 0; i++) {
		uint64_t len = x->sp.se_parts[i].end - x->sp.se_parts[i].off;

		r = take(v, kinds[i], x->file, x->sp.se_parts[i].off, len, len, e);
	}
	return r;
}

static int visit_sparse(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t header = x->kind == VMDK_COWD ? VMDK_COWD_HEADER_LEN : VMDK_HEADER_LEN;
	int r = take(v, VMDK_REF_HEADER, x->file, 0, header, header, e);

	if (r == 0 && sp->desc_len)
		r = take(v, VMDK_REF_DESCRIPTOR, x->file, sp->desc_off, vd_min_u64(v->s->text_len, sp->desc_len), sp->desc_len, e);
	if (r == 0)
		r = take_directory(v, x, sp->lost_first ? VMDK_REF_RGD : VMDK_REF_GD, sp->gd_off, e);
	if (r == 0)
		r = take_directory(v, x, VMDK_REF_RGD, sp->rgd_off, e);
	if (r == 0 && sp->flags & VMDK_FLAG_MARKERS)
		r = take_stream_end(v, x, e);
	if (r == 0)
		r = take_se_parts(v, x, e);
	if (r == 0)
		r = judge_header(v, x, e);
	return r < 0 ? r : visit_tables(v, x, e);
}

static int visit_extent(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	struct vd_vmdk_ref ref = {
		.kind = VMDK_REF_DATA, .file = x->file, .host_off = x->host_off, .len = x->end - x->start,
		.used = x->end - x->start, .guest_off = x->start, .entry_off = UINT64_MAX,
	};

	if (x->kind == VMDK_ZERO || x->access == VMDK_NOACCESS || (v->file != UINT32_MAX && v->file != x->file))
		return 0;
	if (x->kind == VMDK_FLAT)
		return v->take(v, &ref, e);
	if (x->sp.grain)
		return visit_sparse(v, x, e);
	return vd_fail(e, VD_EREFERENCE, "%s: the tables are in '%s', which was not opened", v->s->name,
		       vd_set_name(v->s->set, x->file));
}

int vd_vmdk_visit(struct vd_vmdk_visit *v, struct vd_error *e)
{
	struct vd_vmdk *s = v->s;
	uint64_t size = 0;
	int r = 0;

	if (!s->is_embedded && !s->is_lone_extent && (v->file == UINT32_MAX || !v->file)) {
		r = vd_io_size(vd_set_io(s->set, 0), &size, e);
		if (r == 0)
			r = take(v, VMDK_REF_DESCRIPTOR, 0, 0, vd_min_u64(s->text_len, size), size, e);
	}
	for (size_t i = 0; i < s->n_extents && r == 0; i++)
		r = visit_extent(v, &s->extents[i], e);
	return r;
}
