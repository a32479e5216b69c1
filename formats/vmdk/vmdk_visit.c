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
		uint64_t at, bool is_mended, const struct vd_error *what, struct vd_error *e)
{
	struct vd_vmdk_fault f = {
		.kind = what->code == VD_EIO ? VD_FOUND_UNREADABLE : kind, .file = x->file, .entry_off = entry_off,
		.guest_off = x->start + at, .n = 1, .is_mended = is_mended, .what = what,
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

/* How many of n entries two tables have otherwise. */
static int compare_tables(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t index, uint64_t first,
			  uint64_t second, uint64_t n, struct vd_error *e)
{
	uint8_t a[VMDK_BATCH * 4], b[VMDK_BATCH * 4];
	struct vd_error what = { 0 };
	uint64_t n_wrong = 0;

	for (uint64_t i = 0, part; i < n; i += part) {
		int r;

		part = vd_min_u64(n - i, VMDK_BATCH);
		r = vd_meta_read(v->s->meta, x->file, first + 4 * i, a, 4 * part, 0, &what);
		if (r == 0)
			r = vd_meta_read(v->s->meta, x->file, second + 4 * i, b, 4 * part, 0, &what);
		if (r < 0)
			return tell(v, x, VD_FOUND_UNREADABLE, second, index * x->sp.span, true, &what, e);
		for (uint64_t k = 0; k < part; k++)
			n_wrong += memcmp(a + 4 * k, b + 4 * k, 4) != 0;
	}
	if (!n_wrong)
		return 0;
	vd_fail_at(&what, VD_ECORRUPT, second, "%s: the redundant grain table of guest offset %" PRIu64 " says something else in %"
		   PRIu64 " entries", vd_set_name(v->s->set, x->file), x->start + index * x->sp.span, n_wrong);
	return tell(v, x, VD_FOUND_CONTRADICTION, second, index * x->sp.span, true, &what, e);
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

/* Both tables of one directory entry, and the grains. */
static int visit_table(struct vd_vmdk_visit *v, const struct vd_vmdk_extent *x, uint64_t index, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t off[2] = { 0, 0 }, begin = index * sp->span, used;
	int r = 0;

	for (int second = 0; second <= (sp->rgd_off != 0) && r == 0; second++) {
		struct vd_error what = { 0 };
		uint64_t at = (second ? sp->rgd_off : sp->gd_off) + index * sp->entry_size;

		r = vd_vmdk_table(v->s, x, index, second, 0, &off[second], &what);
		if (r == 0) {
			r = take_table(v, x, index, second, off[second], e);
			continue;
		}
		off[second] = 0;
		r = is_fault(r) ? tell(v, x, VD_FOUND_TABLE, at, begin, second || sp->rgd_off, &what, e) :
		    vd_fail(e, r, "%s", what.message);
	}
	if (r < 0 || !(off[0] || off[1]))
		return r;
	used = (vd_min_u64(sp->capacity - begin, sp->span) - 1) / sp->grain + 1;
	if (v->compares && off[0] && off[1])
		r = compare_tables(v, x, index, off[0], off[1], used, e);
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
