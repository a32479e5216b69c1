/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Decides which chunks are read, and reads them with a crew. Storing is writer.c's. */
#include "backup/content.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup/crew.h"
#include "fail.h"
#include "signals.h"
#include "ui.h"

#define STRIDE (1u << 20)       /* a thread takes as much at a time */
#define EXTENTS 256
#define TELL_EVERY_NS 100000000

enum state { CHUNK_READ, CHUNK_ZERO, CHUNK_SAME };

struct content {
	struct writer *w;
	struct vd_image *img;
	uint64_t size;                  /* of the image */
	uint32_t chunk;
	const struct changes *changes;
	const struct vd_job *job;
	uint64_t total, done;           /* done: atomic */
	struct timespec told;
	uint8_t zero_id[ID_SIZE];
	uint8_t *buffers[CREW_MAX];
	struct content_counts counts;
};

/* One call of content_read(). */
struct reading {
	struct content *c;
	uint64_t off, len, n;
	uint8_t *state;
	uint8_t (*ids)[ID_SIZE];
	uint64_t next;                  /* atomic */
	uint32_t per_turn;              /* chunks */
	bool stop;
};

static uint64_t per_turn(const struct content *c)
{
	return c->chunk >= STRIDE ? 1 : STRIDE / c->chunk;
}

int content_new(struct writer *w, struct vd_image *img, uint32_t chunk, const struct changes *changes, const struct vd_job *job, uint64_t total,
		struct content **out, struct vd_error *e)
{
	struct content *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		ui_out_of_memory();
	*c = (struct content){ .w = w, .img = img, .size = vd_image_size(img), .chunk = chunk, .changes = changes, .job = job, .total = total };
	for (unsigned i = 0; i < writer_threads(w); i++) {
		c->buffers[i] = calloc(per_turn(c), chunk);
		if (!c->buffers[i])
			ui_out_of_memory();
	}
	/* The one chunk of zeros that all holes share. */
	r = writer_add(w, 0, BLOB_DATA, c->buffers[0], chunk, c->zero_id, e);
	if (r < 0) {
		content_free(c);
		return r;
	}
	*out = c;
	return 0;
}

void content_free(struct content *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < CREW_MAX; i++)
		free(c->buffers[i]);
	free(c);
}

struct content_counts content_counts(const struct content *c)
{
	return c->counts;
}

/* From one thread at a time. */
static int tell(struct content *c, struct vd_error *e)
{
	struct vd_progress p = { "backup", __atomic_load_n(&c->done, __ATOMIC_RELAXED), c->total };
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if ((now.tv_sec - c->told.tv_sec) * 1000000000L + now.tv_nsec - c->told.tv_nsec < TELL_EVERY_NS)
		return 0;
	c->told = now;
	p.done = p.done > p.total ? p.total : p.done;
	if (!c->job->progress || !c->job->progress(c->job->ctx, &p))
		return 0;
	return signals_stop() ? signals_check(e) : fail(e, VD_ECANCELLED, "stopped");
}

/* ---- which are read ------------------------------------------------------------------------------------- */

/* In a container, what holds nothing reads as noise. */
static bool reads_as_zeros(const struct vd_extent *x)
{
	return x->flags & VD_EXTENT_ZERO || (x->flags & VD_EXTENT_HOLE && !(x->flags & VD_EXTENT_ENCRYPTED));
}

/* All chunks are zeros until an extent says otherwise. */
static int mark_zeros(struct reading *g, struct vd_error *e)
{
	struct content *c = g->c;
	uint64_t end = g->off + g->len < c->size ? g->off + g->len : c->size, at = g->off;
	struct vd_extent x[EXTENTS];
	size_t n;

	memset(g->state, CHUNK_ZERO, g->n);
	while (at < end) {
		int r = vd_image_extents(c->img, at, end - at, x, EXTENTS, &n, e);

		if (r == 0)
			r = signals_check(e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++) {
			uint64_t first = (x[i].off - g->off) / c->chunk, last = (x[i].off + x[i].len - 1 - g->off) / c->chunk;

			if (!reads_as_zeros(&x[i]))
				memset(g->state + first, CHUNK_READ, last - first + 1);
		}
		at = x[n - 1].off + x[n - 1].len;
	}
	return 0;
}

/* What nobody wrote to has the base's ids, as long as the repository has them. */
static void mark_same(struct reading *g, const uint8_t (*base)[ID_SIZE])
{
	struct content *c = g->c;
	struct index *x = repo_index(writer_repo(c->w));

	for (uint64_t i = 0; i < g->n;) {
		uint64_t off = g->off + i * c->chunk;
		struct change_range next;
		uint64_t first, last;

		changes_next(c->changes, off, &next);
		first = !next.len || next.off >= g->off + g->len ? g->n : (next.off - g->off) / c->chunk;
		for (; i < first; i++) {
			struct blob b;
			uint8_t pack[ID_SIZE];

			if (!memcmp(base[i], c->zero_id, ID_SIZE) || index_find(x, BLOB_DATA, base[i], &b, pack)) {
				memcpy(g->ids[i], base[i], ID_SIZE);
				g->state[i] = CHUNK_SAME;
			}
		}
		if (i >= g->n)
			break;
		last = (next.off + next.len - 1 - g->off) / c->chunk;
		i = last + 1 > i ? last + 1 : i + 1;
	}
}

bool content_is_same(const struct content *c, uint64_t off, uint64_t len)
{
	struct change_range next;

	if (!c->changes)
		return false;
	changes_next(c->changes, off, &next);
	return !next.len || next.off >= off + len;
}

/* ---- reading -------------------------------------------------------------------------------------------- */

static bool is_zeros(const uint8_t *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

static size_t length_of(const struct reading *g, uint64_t i)
{
	uint64_t off = i * g->c->chunk;

	return g->len - off < g->c->chunk ? (size_t)(g->len - off) : g->c->chunk;
}

/* Past the end of the image there is nothing to read. */
static int read_run(const struct reading *g, uint8_t *buf, uint64_t first, size_t n, struct vd_error *e)
{
	struct content *c = g->c;
	uint64_t off = g->off + first * c->chunk;
	size_t have = off >= c->size ? 0 : c->size - off < n ? (size_t)(c->size - off) : n;

	memset(buf + have, 0, n - have);
	return have ? vd_image_pread(c->img, buf, have, off, e) : 0;
}

static int store_chunk(const struct reading *g, unsigned who, uint64_t i, const uint8_t *buf, struct vd_error *e)
{
	size_t n = length_of(g, i);

	if (n == g->c->chunk && is_zeros(buf, n)) {
		memcpy(g->ids[i], g->c->zero_id, ID_SIZE);
		return 0;
	}
	return writer_add(g->c->w, who, BLOB_DATA, buf, n, g->ids[i], e);
}

/* Chunks [first, end), those side by side that are to be read in one piece. */
static int do_turn(struct reading *g, unsigned who, uint64_t first, uint64_t end, struct vd_error *e)
{
	struct content *c = g->c;

	for (uint64_t i = first; i < end;) {
		uint64_t run = i;
		size_t bytes = 0;
		int r;

		while (run < end && g->state[run] == CHUNK_READ)
			bytes += length_of(g, run++);
		if (run == i) {
			i++;
			continue;
		}
		r = read_run(g, c->buffers[who], i, bytes, e);
		for (uint64_t k = i; k < run && r == 0; k++)
			r = store_chunk(g, who, k, c->buffers[who] + (k - i) * c->chunk, e);
		if (r < 0)
			return r;
		__atomic_fetch_add(&c->counts.read, bytes, __ATOMIC_RELAXED);
		i = run;
	}
	return 0;
}

static int work(void *ctx, unsigned who, struct vd_error *e)
{
	struct reading *g = ctx;
	struct content *c = g->c;

	while (!__atomic_load_n(&g->stop, __ATOMIC_RELAXED)) {
		uint64_t first = __atomic_fetch_add(&g->next, g->per_turn, __ATOMIC_RELAXED), end = first + g->per_turn;
		int r;

		if (first >= g->n)
			return 0;
		end = end > g->n ? g->n : end;
		r = do_turn(g, who, first, end, e);
		__atomic_fetch_add(&c->done, (end - first) * c->chunk, __ATOMIC_RELAXED);
		if (r == 0 && who == 0)
			r = tell(c, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static void count(const struct reading *g)
{
	for (uint64_t i = 0; i < g->n; i++) {
		if (g->state[i] == CHUNK_ZERO)
			g->c->counts.zero += length_of(g, i);
		else if (g->state[i] == CHUNK_SAME)
			g->c->counts.same += length_of(g, i);
	}
}

int content_read(struct content *c, uint64_t off, uint64_t len, const uint8_t (*base)[ID_SIZE], uint8_t (*ids)[ID_SIZE], struct vd_error *e)
{
	struct reading g = { .c = c, .off = off, .len = len, .n = content_chunks(len, c->chunk), .ids = ids, .per_turn = (uint32_t)per_turn(c) };
	int r;

	if (!len)
		return 0;
	g.state = malloc(g.n);
	if (!g.state)
		ui_out_of_memory();
	r = mark_zeros(&g, e);
	/* The last chunk is of another length, and its zeros have another name. */
	if (r == 0 && length_of(&g, g.n - 1) != c->chunk)
		g.state[g.n - 1] = CHUNK_READ;
	for (uint64_t i = 0; i < g.n && r == 0; i++)
		if (g.state[i] == CHUNK_ZERO)
			memcpy(ids[i], c->zero_id, ID_SIZE);
	if (r == 0 && c->changes && base)
		mark_same(&g, base);
	if (r == 0)
		r = crew_run(writer_threads(c->w), work, &g, &g.stop, e);
	if (r == 0)
		count(&g);
	free(g.state);
	return r;
}

int content_skip(struct content *c, uint64_t len, struct vd_error *e)
{
	c->counts.same += len;
	c->done += len;
	return tell(c, e);
}
