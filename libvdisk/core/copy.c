/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies a disk on all cores: which piece comes next, what of it is zeros, who writes when. How a piece is read and
 * written is read.c's and write.c's.
 *
 * A worker takes the next piece of the source that is not known to be zeros, reads it (which decrypts and unpacks),
 * finds zeros in it, packs it if asked, waits for its turn, reserves space, passes the turn on, then encrypts, writes
 * and publishes while others do the same with their pieces.
 *
 * K1  Pieces are cut by the tables and fixed boundaries alone, and space is reserved in the order of the pieces: the
 *     output does not depend on the number of workers or on who is faster.
 * K2  Whoever has taken a piece takes his turn and passes it on, whatever fails meanwhile: nobody waits for good.
 * K3  A worker holds one piece, its packed form and the list of its parts; memory does not grow with the disk.
 * K4  What is written in order (a stream) is reserved and written part by part while it is one's turn, and after a failure
 *     not at all: there is no way back to what was left out.
 */
#include "libvdisk/core/image.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/core/incoming.h"
#include "libvdisk/core/job.h"
#include "libvdisk/core/walk.h"
#include "libvdisk/io/sink.h"

#define PIECE (1u << 20)                /* a piece, unless a unit on either side is larger */
#define MEMORY (96u << 20)              /* all workers' buffers; beside the table caches it keeps the whole below 256 MiB */
#define PUNCH_GRANULE 65536             /* where zeros cost a call each, shorter ones are written with their neighbours */
#define GAP 65536                       /* shorter holes of the source are read as zeros: cheaper than a piece of its own */
#define ZERO_PIECE ((uint64_t)256 << 20) /* zeros made by one call: a cancel waits for no more */

/* What has to be done so that a range of the destination reads as zeros. */
enum zeros {
	ZEROS_ARE_THERE,                /* nothing: it is fresh and has nothing below */
	ZEROS_BY_CALL,                  /* vd_write_zeroes(): a parent shows through, or a device holds old bytes */
	ZEROS_ARE_DATA,                 /* write them: in a container what was never written decrypts to noise */
};

struct piece {
	uint64_t off, len;              /* len 0: there are no more */
	uint64_t ticket;
	uint64_t again;                 /* bytes that were passed over as zeros, and come after all */
	bool is_zero;
};

/* Whose turn it is to reserve. At most n tickets wait at a time, so each has a condition to itself. */
struct turns {
	pthread_mutex_t lock;
	pthread_cond_t *conds;
	unsigned n;
	uint64_t now;
};

struct copy {
	struct vd_image *src, *dst;
	struct vd_incoming *in;         /* instead of src */
	struct vd_intake_rules rules;
	bool packs, wipes;
	enum zeros zeros;
	uint32_t granule;               /* zeros are looked for in units of this */
	size_t piece_max;
	bool in_order;                  /* what is reserved is written before anybody reserves more (K4) */
	bool has_failed;                /* in order: whoever has the turn */
	struct vd_crew crew;
	struct turns turns;
	atomic_uint_fast64_t written;
	/* The plan. */
	pthread_mutex_t plan;
	struct vd_walk walk;
	uint64_t at, n_tickets, packed_in_clear;
};

/* A part of a piece that is written as one. */
struct part {
	uint64_t off, len;
	uint8_t *bytes;                 /* plain or packed; NULL: zeros, to be made by a call */
	uint64_t packed_len;
};

struct store {
	struct vd_resv resv;
	uint8_t *bytes;
};

struct worker {
	struct copy *c;
	struct vd_intake intake;        /* of a source that comes */
	uint8_t *buf, *packed;
	struct part *parts;
	struct store *stores;           /* one a part, and more where a driver serves a part in pieces */
	size_t n_parts, n_stores, max_stores;
};

/* ---- turns ------------------------------------------------------------------------------------------------ */

static int turns_init(struct turns *t, unsigned n, struct vd_error *e)
{
	int r = vd_alloc(n, sizeof(*t->conds), &t->conds, e);

	if (r < 0)
		return r;
	pthread_mutex_init(&t->lock, NULL);
	for (t->n = 0; t->n < n; t->n++)
		pthread_cond_init(&t->conds[t->n], NULL);
	return 0;
}

static void turns_fini(struct turns *t)
{
	while (t->n)
		pthread_cond_destroy(&t->conds[--t->n]);
	pthread_mutex_destroy(&t->lock);
	free(t->conds);
}

static void take_turn(struct turns *t, uint64_t ticket)
{
	pthread_mutex_lock(&t->lock);
	while (t->now != ticket)
		pthread_cond_wait(&t->conds[ticket % t->n], &t->lock);
	pthread_mutex_unlock(&t->lock);
}

static void pass_turn(struct turns *t)
{
	pthread_mutex_lock(&t->lock);
	t->now++;
	pthread_cond_signal(&t->conds[t->now % t->n]);
	pthread_mutex_unlock(&t->lock);
}

/* ---- the plan --------------------------------------------------------------------------------------------- */

static bool skips(const struct copy *c, const struct vd_extent *x)
{
	return c->zeros != ZEROS_ARE_DATA && vd_extent_is_zero(x);
}

/* Up to where the zeros that begin here need not be read; c->at: nowhere. Whole granules, or up to the end of the disk. */
static uint64_t zeros_until(const struct copy *c, const struct vd_extent *x)
{
	uint64_t end = vd_min_u64(vd_extent_end(x), c->dst->size);

	if (!skips(c, x))
		return c->at;
	return end < c->dst->size ? vd_max_u64(vd_round_down(end, c->granule), c->at) : end;
}

static bool is_packed_in_clear(const struct copy *c, const struct vd_extent *x)
{
	const struct vd_image *img = c->src;

	while (img->depth < x->depth)
		img = img->parent;
	return (x->flags & VD_EXTENT_PACKED) && img->layer.encryption && !img->layer.is_container;
}

/* Data from c->at to the next boundary, or to zeros that are worth leaving out. */
static int plan_data(struct copy *c, struct piece *p, struct vd_error *e)
{
	uint64_t limit = vd_min_u64(vd_round_down(c->at, c->piece_max) + c->piece_max, c->dst->size);
	uint64_t gap = vd_max_u64(GAP, c->granule), end = c->at;

	while (end < limit) {
		struct vd_extent x;
		uint64_t part_end;
		int r = vd_walk_to(&c->walk, end, &x, e);

		if (r < 0)
			return r;
		if (skips(c, &x) && vd_extent_end(&x) - end >= gap)
			break;
		part_end = vd_min_u64(vd_extent_end(&x), limit);
		if (is_packed_in_clear(c, &x))
			c->packed_in_clear += part_end - end;
		end = part_end;
	}
	p->off = c->at;
	p->len = vd_min_u64(vd_round_up(end, c->granule), limit) - c->at;
	return 0;
}

/* What comes next, with a ticket if there is something. */
static int plan_next(struct copy *c, struct piece *p, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&c->plan);
	int r = 0;

	*p = (struct piece){ 0 };
	while (c->at < c->dst->size && !p->len) {
		struct vd_extent x;
		uint64_t end;

		r = vd_walk_to(&c->walk, c->at, &x, e);
		if (r < 0)
			return r;
		end = zeros_until(c, &x);
		if (end == c->at) {
			r = plan_data(c, p, e);
			if (r < 0)
				return r;
			end = p->off + p->len;
		} else if (c->zeros == ZEROS_BY_CALL) {
			end = vd_min_u64(end, c->at + ZERO_PIECE);
			*p = (struct piece){ .off = c->at, .len = end - c->at, .is_zero = true };
		} else {
			atomic_fetch_add(&c->crew.done, end - c->at);
		}
		c->at = end;
	}
	if (p->len)
		p->ticket = c->n_tickets++;
	return 0;
}

/* Zeros up to `end`, where nothing came, if they have to be made. */
static void plan_gap(struct copy *c, struct piece *p, uint64_t end)
{
	bool by_call = c->zeros == ZEROS_BY_CALL;
	uint64_t max = by_call ? ZERO_PIECE : c->piece_max;

	if (c->zeros == ZEROS_ARE_THERE) {
		atomic_fetch_add(&c->crew.done, end - c->at);
		c->at = end;
		return;
	}
	*p = (struct piece){ .off = c->at, .len = vd_min_u64(end - c->at, max), .is_zero = by_call };
	c->at += p->len;
}

/* The same of what comes, which the worker takes along. */
static int plan_incoming(struct worker *w, struct piece *p, struct vd_error *e)
{
	struct copy *c = w->c;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&c->plan);
	uint64_t next;
	int r = vd_incoming_ahead(c->in, &c->rules, &next, e);

	*p = (struct piece){ 0 };
	w->intake.n_runs = w->intake.len = 0;
	if (r < 0)
		return r;
	if (vd_min_u64(next, c->dst->size) > c->at)
		plan_gap(c, p, vd_min_u64(next, c->dst->size));
	if (!p->len && next != UINT64_MAX) {
		r = vd_incoming_take(c->in, &c->rules, &w->intake, e);
		if (r < 0)
			return r;
		*p = (struct piece){ .off = w->intake.off, .len = w->intake.len };
		if (p->off < c->at)
			p->again = vd_min_u64(p->len, c->at - p->off);
		c->at = vd_max_u64(c->at, p->off + p->len);
	}
	if (p->len)
		p->ticket = c->n_tickets++;
	return 0;
}

/* ---- one piece -------------------------------------------------------------------------------------------- */

/* Past the source's end there are zeros; so there are past the piece's, up to the end of its last unit. */
static int read_piece(struct worker *w, const struct piece *p, struct vd_error *e)
{
	struct vd_image *src = w->c->src;
	uint64_t size = src ? src->size : p->off + w->intake.len;
	size_t inside = p->off >= size ? 0 : vd_min_u64(p->len, size - p->off);

	memset(w->buf + inside, 0, vd_round_up(p->len, w->c->granule) - inside);
	if (!src)
		return vd_incoming_unpack(w->c->in, &w->intake, w->buf, e);
	return inside ? vd_image_pread(src, w->buf, inside, p->off, e) : 0;
}

static void add_part(struct worker *w, const struct part *new)
{
	struct part *last = w->n_parts ? &w->parts[w->n_parts - 1] : NULL;
	bool continues = last && last->off + last->len == new->off && !last->packed_len && !new->packed_len &&
			 !last->bytes == !new->bytes;

	if (continues)
		last->len += new->len;
	else
		w->parts[w->n_parts++] = *new;
}

/* Packs the unit at `bytes`, if that makes it smaller, to *used in the worker's other buffer. */
static int pack(struct worker *w, struct part *part, size_t *used, struct vd_error *e)
{
	size_t len = 0;
	int r = vd_write_pack(w->c->dst, part->bytes, part->len, part->off, w->packed + *used, &len, e);

	if (r < 0 || !len)
		return r;
	part->bytes = w->packed + *used;
	part->packed_len = len;
	*used += len;
	return 0;
}

/* Divides what was read into parts to write, leaving out zeros where they need not be written. */
static int divide(struct worker *w, const struct piece *p, struct vd_error *e)
{
	struct copy *c = w->c;
	size_t used = 0;
	int r = 0;

	for (size_t at = 0; at < p->len && r == 0; at += c->granule) {
		size_t len = vd_min_u64(c->granule, p->len - at);
		struct part part = { .off = p->off + at, .len = len, .bytes = w->buf + at };

		if (c->zeros != ZEROS_ARE_DATA && vd_is_zero(part.bytes, len)) {
			if (c->zeros == ZEROS_ARE_THERE)
				continue;
			part.bytes = NULL;
		} else if (c->packs) {
			r = pack(w, &part, &used, e);
		}
		add_part(w, &part);
	}
	return r;
}

static int prepare(struct worker *w, const struct piece *p, struct vd_error *e)
{
	int r;

	w->n_parts = 0;
	if (p->is_zero) {
		add_part(w, &(struct part){ .off = p->off, .len = p->len });
		return 0;
	}
	r = read_piece(w, p, e);
	return r < 0 ? r : divide(w, p, e);
}

static int add_store(struct worker *w, const struct store *s, struct vd_error *e)
{
	if (w->n_stores == w->max_stores) {
		size_t more = w->max_stores * 2 + 16;
		int r = vd_realloc(&w->stores, more, sizeof(*w->stores), e);

		if (r < 0)
			return r;
		w->max_stores = more;
	}
	w->stores[w->n_stores++] = *s;
	return 0;
}

static int reserve_part(struct worker *w, const struct part *part, struct vd_error *e)
{
	struct vd_image *dst = w->c->dst;
	uint64_t covered = 0;

	if (!part->bytes)
		return vd_write_zeroes(dst, part->off, part->len, 0, e);
	while (covered < part->len) {
		struct store s = {
			.resv = {
				.off = part->off + covered + dst->layer.payload_off, .len = part->len - covered,
				.packed_len = part->packed_len,
			},
			.bytes = part->bytes + covered,
		};
		int r = vd_write_reserve(dst, &s.resv, e);

		if (r < 0)
			return r;
		r = add_store(w, &s, e);
		if (r < 0) {
			vd_write_cancel(dst, &s.resv);
			return r;
		}
		covered += s.resv.covered;
	}
	return 0;
}

/* The part of the work that goes in the order of the disk (K1). */
static int reserve(struct worker *w, struct vd_error *e)
{
	int r = 0;

	w->n_stores = 0;
	for (size_t i = 0; i < w->n_parts && r == 0; i++)
		r = reserve_part(w, &w->parts[i], e);
	return r;
}

/* Every reservation ends here: completed, or cancelled once something has failed. */
static int complete(struct worker *w, int r, struct vd_error *e)
{
	struct copy *c = w->c;

	for (size_t i = 0; i < w->n_stores; i++) {
		struct vd_resv *v = &w->stores[i].resv;

		if (r < 0 || vd_crew_is_stopped(&c->crew)) {
			vd_write_cancel(c->dst, v);
			continue;
		}
		r = vd_write_complete_scratch(c->dst, v, w->stores[i].bytes, e);
		if (r < 0)
			continue;
		atomic_fetch_add(&c->written, v->packed_len ? v->packed_len : v->covered);
		vd_set_finished(c->dst->set, v->file, v->host_off, v->packed_len ? v->packed_len : v->fill_len);
	}
	return r;
}

static int reserve_then_complete(struct worker *w, const struct piece *p, int r, struct vd_error *e)
{
	struct copy *c = w->c;

	w->n_stores = 0;
	take_turn(&c->turns, p->ticket);
	if (r == 0 && !vd_crew_is_stopped(&c->crew))
		r = reserve(w, e);
	pass_turn(&c->turns);
	return complete(w, r, e);
}

/* Keeps K4. */
static int complete_in_turn(struct worker *w, const struct piece *p, int r, struct vd_error *e)
{
	struct copy *c = w->c;

	take_turn(&c->turns, p->ticket);
	for (size_t i = 0; i < w->n_parts && r == 0 && !c->has_failed && !vd_crew_is_stopped(&c->crew); i++) {
		w->n_stores = 0;
		r = complete(w, reserve_part(w, &w->parts[i], e), e);
	}
	c->has_failed |= r < 0;
	pass_turn(&c->turns);
	return r;
}

static int copy_piece(struct worker *w, const struct piece *p, struct vd_error *e)
{
	struct copy *c = w->c;
	int r = prepare(w, p, e);

	r = c->in_order ? complete_in_turn(w, p, r, e) : reserve_then_complete(w, p, r, e);
	if (r == 0)
		r = vd_write_relieve(c->dst, e);
	if (r == 0)
		atomic_fetch_add(&c->crew.done, p->len - p->again);
	return r;
}

/* ---- the workers ------------------------------------------------------------------------------------------ */

static int worker_init(struct worker *w, struct copy *c, struct vd_error *e)
{
	int r;

	*w = (struct worker){ .c = c };
	r = vd_alloc_buffer(c->piece_max, &w->buf, e);
	if (r == 0)
		r = vd_alloc(c->piece_max / c->granule, sizeof(*w->parts), &w->parts, e);
	if (r == 0 && c->in)
		r = vd_intake_init(&w->intake, c->in, c->piece_max, e);
	if (r == 0 && c->packs)
		r = vd_alloc_buffer(c->piece_max / c->granule * vd_write_pack_room(c->dst), &w->packed, e);
	return r;
}

static void worker_fini(struct worker *w)
{
	if (w->buf && w->c->wipes)
		vd_wipe(w->buf, w->c->piece_max);
	if (w->intake.bytes && w->c->wipes)
		vd_wipe(w->intake.bytes, w->intake.room);
	free(w->buf);
	free(w->packed);
	free(w->parts);
	free(w->stores);
	vd_intake_fini(&w->intake);
}

static int work(void *ctx, struct vd_error *e)
{
	struct copy *c = ctx;
	struct worker w;
	struct piece p;
	int r = worker_init(&w, c, e);

	while (r == 0 && !vd_crew_is_stopped(&c->crew)) {
		r = c->in ? plan_incoming(&w, &p, e) : plan_next(c, &p, e);
		if (r < 0 || !p.len)
			break;
		r = copy_piece(&w, &p, e);
	}
	worker_fini(&w);
	return r;
}

static unsigned n_workers(const struct copy *c, const struct vd_job *job)
{
	uint64_t each = c->piece_max * (c->packs + (c->in ? 1 : 0) + 1);

	return vd_min_u64(vd_job_threads(job), vd_max_u64(MEMORY / each, 1));
}

/* ---- the job ---------------------------------------------------------------------------------------------- */

static int judge(const struct copy *c, bool compress, struct vd_error *e)
{
	const struct vd_image *dst = c->dst;
	uint64_t size = c->src ? c->src->size : vd_incoming_size(c->in);

	if (c->src == dst || !dst->fresh)
		return vd_fail(e, VD_EARG, "%s: a disk is copied into a new image that is not yet committed", dst->path);
	if (dst->size < size)
		return vd_fail(e, VD_EARG, "%s has %llu bytes, too few for the %llu of %s", dst->path,
			       (unsigned long long)dst->size, (unsigned long long)size,
			       c->src ? c->src->path : vd_incoming_name(c->in));
	/* A container is ciphertext before it is packed; a format that encrypts itself packs in clear. */
	if (compress && dst->layer.encryption && !(dst->layer.is_container && dst->info.packs)) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: compressed and encrypted together is not possible", dst->path);
		return vd_hint(e, VD_EUNSUPPORTED, "leave out one of them: compressed clusters would be stored in clear");
	}
	if (compress && !dst->info.packs)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: %s does not compress", dst->path, dst->format->name);
	return 0;
}

static bool is_on_device(const struct vd_image *img)
{
	return vd_set_io(img->set, 0)->is_device;
}

static enum zeros zeros_of(const struct vd_image *dst)
{
	if (dst->layer.is_container)
		return ZEROS_ARE_DATA;
	/* A format with tables says of itself what is a hole; raw has none, and a device may hold anything. */
	if (dst->parent || (dst->info.unit <= 1 && is_on_device(dst)))
		return ZEROS_BY_CALL;
	return ZEROS_ARE_THERE;
}

static bool has_cipher(const struct vd_image *img)
{
	for (; img; img = img->parent)
		if (img->layer.cipher)
			return true;
	return false;
}

/* Where zeros are made, or units packed, a part that comes late would find its place taken. */
static void shape_intake(struct copy *c)
{
	c->rules = (struct vd_intake_rules){
		.align = c->packs ? c->granule : 1, .size = c->dst->size,
		.in_order = c->packs || c->zeros != ZEROS_ARE_THERE || c->dst->sink,
	};
	c->rules.piece_max = vd_incoming_piece(c->in, PIECE, c->rules.align);
	c->piece_max = vd_round_up(c->rules.piece_max, c->granule);
}

static void shape(struct copy *c)
{
	const struct vd_format_info *i = &c->dst->info;

	c->zeros = zeros_of(c->dst);
	/* What comes is not cut where units of the output are: nobody else may be at work on the same one. */
	c->in_order = i->packs_only || c->dst->sink || c->in;
	c->wipes = has_cipher(c->src) || has_cipher(c->dst);
	if (c->packs)
		c->granule = i->unit;
	else
		c->granule = vd_max_u64(i->fill_unit, c->zeros == ZEROS_BY_CALL ? PUNCH_GRANULE : VD_COPY_GRANULE);
	if (c->in)
		shape_intake(c);
	else
		c->piece_max = vd_round_up(vd_walk_piece(c->src, PIECE), c->granule);
	c->crew = (struct vd_crew){ .phase = "convert", .total = c->dst->size, .work = work, .ctx = c };
}

/* With the destination held against all others: its range lock is taken once for the whole disk. */
static int run(struct copy *c, const struct vd_job *job, struct vd_error *e)
{
	struct vd_rangehold hold;
	unsigned n = n_workers(c, job);
	int r = turns_init(&c->turns, n, e);

	if (r < 0)
		return r;
	pthread_mutex_init(&c->plan, NULL);
	pthread_rwlock_rdlock(&c->dst->control);
	vd_rangelock_acquire(c->dst->ranges, &hold, 0, UINT64_MAX);
	if (c->dst->sink)
		vd_sink_obey(c->dst->sink, &c->crew.stopped);
	r = vd_crew_run(&c->crew, n, job, e);
	if (c->dst->sink)
		vd_sink_obey(c->dst->sink, NULL);
	vd_rangelock_release(&hold);
	pthread_rwlock_unlock(&c->dst->control);
	pthread_mutex_destroy(&c->plan);
	turns_fini(&c->turns);
	return r;
}

static void tell(const struct copy *c, struct vd_outcome *o)
{
	if (!o)
		return;
	o->done = atomic_load(&c->crew.done);
	o->written = atomic_load(&c->written);
	o->packed_in_clear = c->packed_in_clear;
	o->changed = o->done && (is_on_device(c->dst) || c->dst->sink);
}

static int copy(const struct copy *of, bool compress, const struct vd_job *job, struct vd_outcome *outcome,
		struct vd_error *e)
{
	vd_auto_free struct copy *c = NULL;
	int r = vd_job_check(job, e);

	if (r == 0)
		r = vd_job_clear_outcome(outcome, e);
	if (r == 0)
		r = judge(of, compress, e);
	if (r == 0)
		r = vd_memdup(of, sizeof(*of), &c, e);
	if (r < 0)
		return r;
	c->packs = compress || c->dst->info.packs_only;
	shape(c);
	r = c->in ? vd_incoming_begin(c->in, &c->crew.stopped, e) : vd_walk_start(&c->walk, c->src, e);
	if (r == 0)
		r = vd_write_start(c->dst, e);
	if (r == 0)
		r = run(c, job, e);
	if (c->in)
		vd_incoming_pause(c->in);
	tell(c, outcome);
	return r;
}

VD_PUBLIC int vd_image_copy(struct vd_image *src, struct vd_image *dst, bool compress, const struct vd_job *job,
			    struct vd_outcome *outcome, struct vd_error *e)
{
	return copy(&(struct copy){ .src = src, .dst = dst }, compress, job, outcome, e);
}

VD_PUBLIC int vd_incoming_copy(struct vd_incoming *in, struct vd_image *dst, bool compress, const struct vd_job *job,
			       struct vd_outcome *outcome, struct vd_error *e)
{
	return copy(&(struct copy){ .in = in, .dst = dst }, compress, job, outcome, e);
}
