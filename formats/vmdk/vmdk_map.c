/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers where guest bytes are: extent by extent, tables in batches, neighbours joined. Runs beside a writer (keeps V3). */
#include "formats/vmdk/vmdk.h"

#define GRAINS_MAX (1u << 20)           /* looked at in one call, some milliseconds: who asks for more calls again */
#define LONE_FRAME 4                    /* without markers a grain begins with its size alone */

struct walk {
	struct vd_vmdk *s;
	unsigned flags, meta_flags;
	uint64_t at, end;               /* guest bytes still to describe */
	struct vd_run *runs;
	size_t cap, n;
	bool is_full;                   /* the next piece needs a run more than there are */
	uint64_t n_grains;              /* looked at */
};

static bool joins(const struct vd_run *a, const struct vd_run *b)
{
	return a->where == b->where && a->where != VD_PACKED &&
	       (a->where != VD_DATA || (a->file == b->file && a->host_off + a->host_len == b->host_off));
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

static void add_nothing(struct walk *w, uint64_t end, enum vd_where where)
{
	add(w, &(struct vd_run){ .guest_off = w->at, .len = end - w->at, .where = where });
}

static void add_data(struct walk *w, uint64_t end, uint32_t file, uint64_t host_off)
{
	uint64_t len = end - w->at;

	add(w, &(struct vd_run){
		.guest_off = w->at, .len = len, .where = VD_DATA, .file = file, .host_off = host_off, .host_len = len,
	});
}

/* ---- flat ------------------------------------------------------------------------------------------------ */

/* Holes of the host file are holes of the disk, but a parent does not show through. */
static int walk_flat(struct walk *w, const struct vd_vmdk_extent *x, uint64_t end, struct vd_error *e)
{
	enum vd_where hole = w->s->has_parent ? VD_ZERO : VD_HOLE;
	struct vd_io *io = vd_set_io(w->s->set, x->file);

	if (w->flags & VD_MAP_TO_READ || !io) {
		add_data(w, end, x->file, x->host_off + (w->at - x->start));
		return 0;
	}
	while (w->at < end && !w->is_full) {
		uint64_t host_off = x->host_off + (w->at - x->start), len;
		bool is_data;
		int r = vd_io_extent(io, host_off, &is_data, &len, e);

		if (r < 0)
			return r;
		len = vd_min_u64(len, end - w->at);
		if (is_data)
			add_data(w, w->at + len, x->file, host_off);
		else
			add_nothing(w, w->at + len, hole);
	}
	return 0;
}

/* ---- tables ---------------------------------------------------------------------------------------------- */

static void add_packed(struct walk *w, const struct vd_vmdk_extent *x, uint64_t grain_off, uint64_t host_off,
		       uint64_t end)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t left = atomic_load(&sp->host_end) - host_off, inside = x->end - grain_off;

	add(w, &(struct vd_run){
		.guest_off = w->at, .len = end - w->at, .where = VD_PACKED, .codec = VD_CODEC_ZLIB, .file = x->file,
		.frame = sp->flags & VMDK_FLAG_MARKERS ? VMDK_MARKER_LEN : LONE_FRAME,
		.host_off = host_off, .host_len = vd_min_u64(left, vd_vmdk_packed_max(sp)),
		.unit_off = grain_off, .unit_len = sp->grain,
		/* Some writers pack of the last grain only what the disk has. */
		.unit_least = inside < sp->grain ? inside : 0,
	});
}

/* The grain begins at grain_off; its part from w->at to `end`. */
static void add_grain(struct walk *w, const struct vd_vmdk_extent *x, const struct vd_vmdk_grain *g, uint64_t grain_off,
		      uint64_t end)
{
	end = vd_min_u64(end, grain_off + x->sp.grain);
	if (g->where == VD_DATA)
		add_data(w, end, x->file, g->host_off + (w->at - grain_off));
	else if (g->where == VD_PACKED)
		add_packed(w, x, grain_off, g->host_off, end);
	else
		add_nothing(w, end, g->where);
}

/* Tables that do not exist are passed over together. */
static int walk_absent(struct walk *w, const struct vd_vmdk_extent *x, uint64_t end, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t index = (w->at - x->start) / sp->span, n;
	uint64_t wanted = (end - 1 - x->start) / sp->span - index + 1;
	int r = vd_vmdk_tables_absent(w->s, x, index, wanted, w->meta_flags, &n, e);

	if (r == 0 && n)
		add_nothing(w, vd_min_u64(end, x->start + (index + n) * sp->span), VD_HOLE);
	return r;
}

/* Grains of one table, at most a batch. */
static int walk_batch(struct walk *w, const struct vd_vmdk_extent *x, uint64_t end, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	struct vd_vmdk_grain grains[VMDK_BATCH];
	uint64_t first = vd_round_down(w->at - x->start, sp->grain);
	uint64_t table_end = vd_round_down(first, sp->span) + sp->span;
	uint64_t n = (vd_min_u64(end - x->start, table_end) - first - 1) / sp->grain + 1;
	int r;

	n = vd_min_u64(n, VMDK_BATCH);
	r = vd_vmdk_grains(w->s, x, first, n, w->meta_flags, grains, e);
	for (uint64_t i = 0; i < n && r == 0 && !w->is_full; i++)
		add_grain(w, x, &grains[i], x->start + first + i * sp->grain, end);
	w->n_grains += n;
	return r;
}

static int walk_tables(struct walk *w, const struct vd_vmdk_extent *x, uint64_t end, struct vd_error *e)
{
	while (w->at < end && !w->is_full && w->n_grains < GRAINS_MAX) {
		uint64_t before = w->at;
		int r = (w->at - x->start) % x->sp.span == 0 ? walk_absent(w, x, end, e) : 0;

		if (r == 0 && w->at == before && !w->is_full)
			r = walk_batch(w, x, end, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- extents --------------------------------------------------------------------------------------------- */

static int no_access(const struct walk *w, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	vd_fail(e, VD_EACCESS, "%s: the disk's descriptor forbids access to bytes %" PRIu64 " to %" PRIu64 " (NOACCESS)",
		w->s->name, x->start, x->end);
	return vd_hint(e, VD_EACCESS, "ask for other parts of the disk alone");
}

static int walk_extent(struct walk *w, struct vd_error *e)
{
	const struct vd_vmdk_extent *x = vd_vmdk_extent_at(w->s, w->at);
	uint64_t end = vd_min_u64(w->end, x->end);

	if (x->access == VMDK_NOACCESS)
		return no_access(w, x, e);
	if (x->kind == VMDK_ZERO) {
		add_nothing(w, end, VD_ZERO);
		return 0;
	}
	if (x->kind == VMDK_FLAT)
		return walk_flat(w, x, end, e);
	if (!x->sp.grain)
		return vd_fail(e, VD_EREFERENCE, "%s: the tables are in '%s', which was not opened", w->s->name,
			       vd_set_name(w->s->set, x->file));
	return walk_tables(w, x, end, e);
}

int vd_vmdk_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n,
		struct vd_error *e)
{
	struct walk w = {
		.s = st, .flags = flags, .meta_flags = flags & VD_MAP_NOWAIT ? VD_META_NOWAIT : 0,
		.at = off, .end = off + len, .runs = runs, .cap = *n,
	};
	int r = 0;

	if (w.s->is_streaming)
		return vd_fail(e, VD_EUNSUPPORTED, "%s is being written: a stream is read when it is complete", w.s->name);
	while (w.at < w.end && !w.is_full && w.n_grains < GRAINS_MAX && r == 0)
		r = walk_extent(&w, e);
	/* What was found before the trouble is an answer: who wants more asks again from there. */
	if (r < 0 && !w.n)
		return r;
	*n = w.n;
	return 0;
}

int vd_vmdk_frame(void *st, struct vd_run *r, struct vd_bytes head, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	const struct vd_vmdk_extent *x = vd_vmdk_extent_at(s, r->unit_off);
	uint64_t lba = (r->unit_off - x->start) / VMDK_SECTOR;
	uint32_t size;

	if (head.len < r->frame + 2u)
		return vd_vmdk_corrupt(s, r->file, e, r->host_off, "the file is cut off: the grain of guest offset %" PRIu64
				       " would end behind it", r->unit_off);
	if (r->frame == VMDK_MARKER_LEN && vd_get_le64(head.p) != lba)
		return vd_vmdk_corrupt(s, r->file, e, r->host_off, "the grain of sector %" PRIu64 " is marked as that of %" PRIu64,
				       lba, vd_get_le64(head.p));
	size = vd_get_le32(head.p + r->frame - 4);
	if (size < 2 || size > head.len - r->frame)
		return vd_vmdk_corrupt(s, r->file, e, r->host_off, "a compressed grain claims %" PRIu32 " bytes, there are at most %zu",
				       size, head.len - r->frame);
	r->host_len = r->frame + size;
	r->codec = vd_vmdk_codec_of(head.p + r->frame);
	return 0;
}
