/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finds where a disk would read otherwise with other layers below it, and writes the content there. What is the same is
 * told by the tables where they can: zeros on both sides, or the same bytes of the same host file. Only else is it read.
 *
 * M1  What the layer that is written has already, of its own or from below, is not looked at.
 * M2  Ranges are handed out once, in ascending order. Looks at tables may be older than what workers wrote meanwhile, and
 *     then lead to a second copy of the same content, never to a range left out.
 */
#include "libvdisk/core/merge.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/core/job.h"
#include "libvdisk/core/walk.h"

#define PIECE (1u << 20)                /* a piece, unless a unit of any layer is larger */
#define MEMORY (96u << 20)              /* all workers' buffers */
#define GRANULE 4096                    /* compared, and tested for zeros, in units of this at least */
#define ZERO_PIECE ((uint64_t)256 << 20) /* zeros made by one call: a cancel waits for no more */

struct merge {
	struct vd_image *from, *to;
	struct vd_image *other;         /* what `to` would show without this work, but for M1; NULL: zeros */
	bool compares;
	uint64_t size, piece_max, granule;
	struct vd_crew crew;
	atomic_uint_fast64_t written;
	pthread_mutex_t lock;           /* on all below */
	struct vd_walk walk_from, walk_other;
	uint64_t at;
};

struct piece {
	uint64_t off, len;              /* len 0: there are no more */
	bool is_zero;
};

/* ---- what the tables tell ------------------------------------------------------------------------------- */

static struct vd_image *layer_of(struct vd_image *img, const struct vd_extent *x)
{
	while (img->depth < x->depth)
		img = img->parent;
	return img;
}

/* The file that an extent lies in; its name there is the very string that the extent has. */
static const struct vd_io *file_of(struct vd_image *img, const struct vd_extent *x)
{
	const struct vd_set *set = layer_of(img, x)->set;

	for (uint32_t i = 0; i < vd_set_count(set); i++)
		if (vd_set_name(set, i) == x->file)
			return vd_set_io(set, i);
	return NULL;
}

static bool is_one_file(const struct vd_io *a, const struct vd_io *b)
{
	return a && b && a->dev == b->dev && a->ino == b->ino;
}

bool vd_merge_is_same_file(const struct vd_image *a, const struct vd_image *b)
{
	return is_one_file(vd_set_io(a->set, 0), vd_set_io(b->set, 0));
}

/* The same bytes of the same file. A compressed unit that is cut differently is found out by reading. */
static bool are_same_bytes(const struct merge *m, const struct vd_extent *a, const struct vd_extent *b)
{
	bool is_packed = a->flags & VD_EXTENT_PACKED;

	if (a->flags != b->flags || !(a->flags & VD_EXTENT_DATA) || !a->file || !b->file)
		return false;
	if (is_packed ? a->host_off != b->host_off || a->off != b->off : a->host_off - a->off != b->host_off - b->off)
		return false;
	return is_one_file(file_of(m->from, a), file_of(m->other, b));
}

/* `to` has it already, or what lies below both. A hole that is said to be of a layer is past its parent's end. */
static bool has_it(const struct merge *m, const struct vd_extent *x)
{
	if (m->to != m->from)
		return x->depth >= m->to->depth;
	return x->depth == m->from->depth && !(x->flags & VD_EXTENT_HOLE);
}

/* The range from m->at up to *end is of one kind; *needed: there is something to do. */
static int look(struct merge *m, struct piece *p, bool *needed, struct vd_error *e)
{
	struct vd_extent a, b = { .len = UINT64_MAX, .flags = VD_EXTENT_ZERO };
	uint64_t end;
	int r = vd_walk_to(&m->walk_from, p->off + p->len, &a, e);

	if (r == 0 && m->other)
		r = vd_walk_to(&m->walk_other, p->off + p->len, &b, e);
	if (r < 0)
		return r;
	end = vd_min_u64(vd_min_u64(vd_extent_end(&a), vd_extent_end(&b)), m->size);
	*needed = !has_it(m, &a) && !(vd_extent_is_zero(&a) && vd_extent_is_zero(&b)) &&
		  !(m->other && are_same_bytes(m, &a, &b));
	p->is_zero = vd_extent_is_zero(&a);
	p->len = end - p->off;
	return 0;
}

/* Data goes on over neighbours that are data too, up to the piece's boundary. */
static int extend(struct merge *m, struct piece *p, struct vd_error *e)
{
	uint64_t limit = vd_min_u64(vd_round_down(p->off, m->piece_max) + m->piece_max, m->size);
	bool needed = true;
	int r = 0;

	if (p->is_zero)
		p->len = vd_min_u64(p->len, ZERO_PIECE);
	while (!p->is_zero && p->off + p->len < limit) {
		struct piece next = *p;

		r = look(m, &next, &needed, e);
		if (r < 0 || !needed || next.is_zero)
			break;
		p->len = next.len;
	}
	if (!p->is_zero)
		p->len = vd_min_u64(p->len, limit - p->off);
	return r;
}

static int plan_next(struct merge *m, struct piece *p, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);
	bool needed = false;
	int r = 0;

	*p = (struct piece){ 0 };
	while (m->at < m->size && !needed && r == 0) {
		*p = (struct piece){ .off = m->at };
		r = look(m, p, &needed, e);
		if (r == 0 && needed)
			r = extend(m, p, e);
		if (r == 0 && !needed)
			atomic_fetch_add(&m->crew.done, p->len);
		m->at = p->off + p->len;
	}
	if (!needed)
		p->len = 0;
	return r;
}

/* ---- one piece ------------------------------------------------------------------------------------------ */

enum kind { SAME, ZEROS, BYTES };

struct worker {
	struct merge *m;
	uint8_t *buf, *other;           /* of piece_max bytes each */
};

static enum kind kind_of(const struct worker *w, size_t at, size_t len)
{
	if (w->m->compares && !memcmp(w->buf + at, w->other + at, len))
		return SAME;
	return vd_is_zero(w->buf + at, len) ? ZEROS : BYTES;
}

static int store(const struct worker *w, const struct piece *p, size_t at, size_t len, enum kind kind, struct vd_error *e)
{
	struct merge *m = w->m;
	int r;

	if (kind == SAME)
		return 0;
	if (kind == ZEROS)
		return vd_zero(m->to, p->off + at, len, e);
	r = vd_write(m->to, w->buf + at, len, p->off + at, e);
	if (r == 0)
		atomic_fetch_add(&m->written, len);
	return r;
}

/* Granules lie at multiples of their size on the disk, so that no unit is filled for the sake of a part of it. */
static int store_all(const struct worker *w, const struct piece *p, struct vd_error *e)
{
	uint64_t granule = w->m->granule;
	enum kind kind = SAME;
	size_t begun = 0, n;
	int r = 0;

	for (size_t at = 0; at < p->len && r == 0; at += n) {
		enum kind k;

		n = vd_min_u64(granule - (p->off + at) % granule, p->len - at);
		k = kind_of(w, at, n);
		if (k == kind)
			continue;
		r = store(w, p, begun, at - begun, kind, e);
		begun = at;
		kind = k;
	}
	return r < 0 ? r : store(w, p, begun, p->len - begun, kind, e);
}

static int do_piece(const struct worker *w, const struct piece *p, struct vd_error *e)
{
	struct merge *m = w->m;
	int r;

	if (p->is_zero) {
		r = vd_zero(m->to, p->off, p->len, e);
	} else {
		r = vd_read(m->from, w->buf, p->len, p->off, e);
		if (r == 0 && m->compares)
			r = vd_read(m->other, w->other, p->len, p->off, e);
		if (r == 0)
			r = store_all(w, p, e);
	}
	if (r == 0)
		atomic_fetch_add(&m->crew.done, p->len);
	return r;
}

/* ---- the workers ---------------------------------------------------------------------------------------- */

static int work(void *ctx, struct vd_error *e)
{
	struct merge *m = ctx;
	struct worker w = { .m = m };
	struct piece p;
	int r = vd_alloc_buffer(2 * m->piece_max, &w.buf, e);

	w.other = w.buf + m->piece_max;
	while (r == 0 && !vd_crew_is_stopped(&m->crew)) {
		r = plan_next(m, &p, e);
		if (r < 0 || !p.len)
			break;
		r = do_piece(&w, &p, e);
	}
	if (w.buf)
		vd_wipe(w.buf, 2 * m->piece_max);
	free(w.buf);
	return r;
}

static int run(struct merge *m, const struct vd_job *job, struct vd_error *e)
{
	unsigned n = vd_min_u64(vd_job_threads(job), vd_max_u64(MEMORY / (2 * m->piece_max), 1));
	int r;

	pthread_mutex_init(&m->lock, NULL);
	r = vd_crew_run(&m->crew, n, job, e);
	pthread_mutex_destroy(&m->lock);
	return r;
}

int vd_merge_run(const struct vd_merge *what, const struct vd_job *job, struct vd_outcome *outcome, struct vd_error *e)
{
	vd_auto_free struct merge *m = NULL;
	int r = vd_alloc(1, sizeof(*m), &m, e);

	if (r < 0)
		return r;
	m->from = what->from;
	m->to = what->to;
	m->other = what->to == what->from ? what->below : what->to;
	/* Into a layer below, all that lies above it goes: whether it is the same there is not worth reading it. */
	m->compares = what->to == what->from && what->below;
	m->size = what->from->size;
	m->granule = vd_max_u64(GRANULE, what->to->info.fill_unit);
	m->piece_max = vd_round_up(vd_walk_piece(what->from, PIECE), m->granule);
	m->crew = (struct vd_crew){ .phase = what->phase, .total = m->size, .work = work, .ctx = m };
	r = vd_walk_start_held(&m->walk_from, m->from, e);
	if (r == 0 && m->other)
		r = vd_walk_start_held(&m->walk_other, m->other, e);
	if (r == 0)
		r = run(m, job, e);
	if (outcome) {
		outcome->done += atomic_load(&m->crew.done);
		outcome->written += atomic_load(&m->written);
	}
	return r;
}
