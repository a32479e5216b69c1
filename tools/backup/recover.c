/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Takes chunks in turns of a few MiB; what of a turn lies side by side in a pack is read in one piece. */
#include "backup/recover.h"

#include <stdlib.h>
#include <string.h>

#include "backup/crew.h"
#include "fail.h"
#include "signals.h"
#include "ui.h"

#define TURN_BYTES (8u << 20)
#define TURN_CHUNKS 256
#define SPAN_MAX (8u << 20)             /* read at once */
#define GAP_MAX (128u << 10)            /* read in vain rather than in two pieces */
#define N_ZEROS 8

/* A chunk that has to be fetched. */
struct wanted {
	struct blob b;
	uint8_t pack[ID_SIZE];
	uint64_t off;                   /* in the node */
};

struct recovering {
	struct recovery *v;
	const struct node *n;
	uint64_t at;                    /* of the node, in the image */
	uint64_t *offs;                 /* of chunk i in the node; one more for the end */
	uint64_t next;                  /* atomic */
	struct {
		uint8_t id[ID_SIZE];
		size_t size;
	} zeros[N_ZEROS];
	bool stop;
};

/* One thread's. */
struct hand {
	struct recovering *g;
	struct bench *bench;
	uint8_t *content;
	struct wanted wanted[TURN_CHUNKS];
	size_t n_wanted;
};

/* ---- lengths -------------------------------------------------------------------------------------------- */

static int find_chunk(const struct recovering *g, uint64_t i, struct blob *b, uint8_t pack[ID_SIZE], struct vd_error *e)
{
	char hex[ID_HEX_SIZE];

	if (index_find(repo_index(g->v->repo), BLOB_DATA, g->n->content[i], b, pack) && blob_size(b) && blob_size(b) <= BLOB_DATA_MAX)
		return 0;
	id_show(g->n->content[i], hex);
	return fail(e, VD_ECORRUPT, "%s: its chunk %.8s is in no index, or too large", g->n->name, hex);
}

static int measure(struct recovering *g, struct vd_error *e)
{
	uint64_t off = 0;
	struct blob b = { 0 };

	g->offs = calloc(g->n->n_content + 1, sizeof(*g->offs));
	if (!g->offs)
		ui_out_of_memory();
	for (size_t i = 0; i < g->n->n_content; i++) {
		uint8_t pack[ID_SIZE];
		/* Zeros by the thousand are one chunk. */
		bool is_again = i && !memcmp(g->n->content[i], g->n->content[i - 1], ID_SIZE);
		int r = is_again ? 0 : find_chunk(g, i, &b, pack, e);

		if (r < 0)
			return r;
		g->offs[i] = off;
		off += blob_size(&b);
	}
	g->offs[g->n->n_content] = off;
	return off == g->n->size ? 0 : fail(e, VD_ECORRUPT, "%s: its chunks have %llu bytes, and it should have %llu", g->n->name,
					    (unsigned long long)off, (unsigned long long)g->n->size);
}

static size_t length_of(const struct recovering *g, uint64_t i)
{
	return (size_t)(g->offs[i + 1] - g->offs[i]);
}

/* Lengths that zeros come in: ours, and restic's shortest and longest. The first chunk's and the most likely ones. */
static void know_zeros(struct recovering *g)
{
	size_t sizes[N_ZEROS] = { g->n->n_content ? length_of(g, 0) : 4096, 256u << 10, 512u << 10, 1u << 20, 2u << 20, 4u << 20, 8u << 20, 4096 };
	uint8_t *zeros = calloc(1, BLOB_DATA_MAX);

	if (!zeros)
		ui_out_of_memory();
	for (size_t i = 0; i < N_ZEROS; i++) {
		g->zeros[i].size = sizes[i];
		id_of(zeros, sizes[i], g->zeros[i].id);
	}
	free(zeros);
}

static bool is_known_zeros(const struct recovering *g, uint64_t i)
{
	for (size_t k = 0; k < N_ZEROS; k++)
		if (length_of(g, i) == g->zeros[k].size && !memcmp(g->n->content[i], g->zeros[k].id, ID_SIZE))
			return true;
	return false;
}

static bool is_zeros(const uint8_t *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* ---- into the image ------------------------------------------------------------------------------------- */

/* How much of [off, off + n) of the node lies in the image. */
static size_t inside(const struct recovering *g, uint64_t off, size_t n)
{
	uint64_t size = vd_image_size(g->v->to), at = g->at + off;

	return at >= size ? 0 : size - at < n ? (size_t)(size - at) : n;
}

static bool has_already(struct hand *h, uint64_t i, bool zeros)
{
	struct recovering *g = h->g;
	size_t n = length_of(g, i), have = inside(g, g->offs[i], n);
	uint8_t id[ID_SIZE];
	struct vd_error ignored;

	memset(h->content + have, 0, n - have);
	if (have && vd_image_pread(g->v->to, h->content, have, g->at + g->offs[i], &ignored) < 0)
		return false;
	if (zeros)
		return is_zeros(h->content, n);
	id_of(h->content, n, id);
	return !memcmp(id, g->n->content[i], ID_SIZE);
}

static int put(struct hand *h, uint64_t off, const uint8_t *content, size_t n, struct vd_error *e)
{
	struct recovering *g = h->g;
	size_t have = inside(g, off, n);

	if (have < n && !is_zeros(content + have, n - have))
		return fail(e, VD_ECORRUPT, "%s: it holds more than the disk has room for", g->n->name);
	__atomic_fetch_add(&g->v->written, have, __ATOMIC_RELAXED);
	return have ? vd_image_pwrite(g->v->to, content, have, g->at + off, e) : 0;
}

static int put_zeros(struct hand *h, uint64_t off, uint64_t n, struct vd_error *e)
{
	struct recovering *g = h->g;
	uint64_t size = vd_image_size(g->v->to), at = g->at + off;

	if (at >= size)
		return 0;
	n = size - at < n ? size - at : n;
	__atomic_fetch_add(&g->v->zeros, n, __ATOMIC_RELAXED);
	return vd_image_write_zeroes(g->v->to, at, n, 0, e);
}

/* ---- from the store ------------------------------------------------------------------------------------- */

static int open_chunk(struct hand *h, const struct wanted *x, const uint8_t *sealed, struct vd_error *e)
{
	char pack[ID_HEX_SIZE], id[ID_HEX_SIZE];
	int r = blob_open(h->bench, &x->b, sealed, h->content, e);

	if (r == 0)
		return put(h, x->off, h->content, blob_size(&x->b), e);
	id_show(x->pack, pack);
	id_show(x->b.id, id);
	return fail(e, r, "%s: chunk %.8s of pack %.8s: %s", h->g->n->name, id, pack, strdupa(e->message));
}

/* By itself, when it was not well among others: what memory or a cable has spoilt is well the second time. */
static int fetch_again(struct hand *h, const struct wanted *x, const char *pack, struct vd_error *e)
{
	uint8_t *sealed = bench_room(h->bench, x->b.len);
	int r = store_get(repo_store(h->g->v->repo), STORE_PACK, pack, x->b.off, sealed, x->b.len, e);

	return r < 0 ? r : open_chunk(h, x, sealed, e);
}

static int fetch_span(struct hand *h, const struct wanted *x, size_t n, uint64_t from, uint64_t to, struct vd_error *e)
{
	uint8_t *span = bench_room(h->bench, to - from);
	char pack[ID_HEX_SIZE];
	size_t failed = n;
	int r;

	id_show(x->pack, pack);
	r = store_get(repo_store(h->g->v->repo), STORE_PACK, pack, from, span, to - from, e);
	for (size_t i = 0; i < n && r == 0; i++) {
		r = open_chunk(h, &x[i], span + (x[i].b.off - from), e);
		failed = r < 0 ? i : failed;
	}
	if (r != VD_EAUTH && !(r == VD_ECORRUPT && failed < n))
		return r;
	r = 0;
	for (size_t i = failed; i < n && r == 0; i++)
		r = fetch_again(h, &x[i], pack, e);
	return r;
}

static int by_place(const void *a, const void *b)
{
	const struct wanted *x = a, *y = b;
	int c = memcmp(x->pack, y->pack, ID_SIZE);

	return c ? c : x->b.off < y->b.off ? -1 : x->b.off > y->b.off;
}

static int fetch_wanted(struct hand *h, struct vd_error *e)
{
	struct wanted *x = h->wanted;

	qsort(x, h->n_wanted, sizeof(*x), by_place);
	for (size_t i = 0, k; i < h->n_wanted; i = k) {
		uint64_t from = x[i].b.off, to = from + x[i].b.len;
		int r;

		for (k = i + 1; k < h->n_wanted && !memcmp(x[k].pack, x[i].pack, ID_SIZE); k++) {
			uint64_t end = (uint64_t)x[k].b.off + x[k].b.len;

			if (x[k].b.off > to + GAP_MAX || end - from > SPAN_MAX)
				break;
			to = end > to ? end : to;
		}
		r = fetch_span(h, &x[i], k - i, from, to, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- turns ---------------------------------------------------------------------------------------------- */

static int want(struct hand *h, uint64_t i, struct vd_error *e)
{
	struct recovering *g = h->g;
	struct wanted *x = &h->wanted[h->n_wanted];

	if (g->v->only_differing && has_already(h, i, false)) {
		__atomic_fetch_add(&g->v->same, length_of(g, i), __ATOMIC_RELAXED);
		return 0;
	}
	x->off = g->offs[i];
	h->n_wanted++;
	return find_chunk(g, i, &x->b, x->pack, e);
}

static int do_turn(struct hand *h, uint64_t first, uint64_t end, struct vd_error *e)
{
	struct recovering *g = h->g;
	int r = 0;

	h->n_wanted = 0;
	for (uint64_t i = first; i < end && r == 0;) {
		uint64_t run = i;

		while (run < end && is_known_zeros(g, run) && !(g->v->only_differing && has_already(h, run, true)))
			run++;
		if (run > i) {
			r = put_zeros(h, g->offs[i], g->offs[run] - g->offs[i], e);
			i = run;
		} else if (is_known_zeros(g, i)) {
			__atomic_fetch_add(&g->v->same, length_of(g, i), __ATOMIC_RELAXED);
			i++;
		} else {
			r = want(h, i++, e);
		}
	}
	return r < 0 ? r : fetch_wanted(h, e);
}

/* As many chunks as make a few MiB, but zeros cost nothing. */
static uint64_t end_of_turn(const struct recovering *g, uint64_t first)
{
	size_t per = length_of(g, first) ? TURN_BYTES / length_of(g, first) : 1;

	per = per < 1 ? 1 : per > TURN_CHUNKS ? TURN_CHUNKS : per;
	return first + per < g->n->n_content ? first + per : g->n->n_content;
}

static int tell(struct recovering *g, struct vd_error *e)
{
	struct recovery *v = g->v;
	struct vd_progress p = { v->phase, __atomic_load_n(&v->done, __ATOMIC_RELAXED), v->total };

	p.done = p.done > p.total ? p.total : p.done;
	if (!v->job.progress || !v->job.progress(v->job.ctx, &p))
		return 0;
	return signals_stop() ? signals_check(e) : fail(e, VD_ECANCELLED, "stopped");
}

static bool take_turn(struct recovering *g, uint64_t *first, uint64_t *end)
{
	*first = __atomic_load_n(&g->next, __ATOMIC_RELAXED);
	do {
		if (*first >= g->n->n_content || __atomic_load_n(&g->stop, __ATOMIC_RELAXED))
			return false;
		*end = end_of_turn(g, *first);
	} while (!__atomic_compare_exchange_n(&g->next, first, *end, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return true;
}

static int work(void *ctx, unsigned who, struct vd_error *e)
{
	struct hand *h = calloc(1, sizeof(*h));
	struct recovering *g = ctx;
	uint64_t first, end;
	int r;

	if (!h)
		ui_out_of_memory();
	h->g = g;
	h->content = malloc(BLOB_DATA_MAX);
	if (!h->content)
		ui_out_of_memory();
	r = bench_new(repo_key(g->v->repo), &h->bench, e);
	while (r == 0 && take_turn(g, &first, &end)) {
		r = do_turn(h, first, end, e);
		__atomic_fetch_add(&g->v->done, g->offs[end] - g->offs[first], __ATOMIC_RELAXED);
		if (r == 0 && who == 0)
			r = tell(g, e);
	}
	bench_free(h->bench);
	free(h->content);
	free(h);
	return r;
}

int recover_node(struct recovery *v, const struct node *n, uint64_t at, struct vd_error *e)
{
	struct recovering *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		ui_out_of_memory();
	*g = (struct recovering){ .v = v, .n = n, .at = at };
	r = measure(g, e);
	if (r == 0) {
		know_zeros(g);
		r = crew_run(crew_size(v->threads), work, g, &g->stop, e);
	}
	free(g->offs);
	free(g);
	return r;
}

int recover_disk(struct recovery *v, const struct disk_base *disk, struct vd_error *e)
{
	int r = 0;

	for (uint32_t i = 0; i < disk->facts.n_parts && r == 0; i++) {
		struct tree holder = { 0 };
		struct node *n;

		r = disk_load_part(v->repo, disk, i, &holder, &n, e);
		if (r == 0)
			r = recover_node(v, n, i * disk->facts.part, e);
		tree_free(&holder);
	}
	return r;
}
