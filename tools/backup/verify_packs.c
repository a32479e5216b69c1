/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Levels 1 to 3: packs by their ends, by their bytes, by their blobs, on all cores, each thread with one pack in memory. What is wrong is read a second
 * time before it is told. Which snapshots that hits is verify.c's.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup/check.h"
#include "backup/crew.h"
#include "backup/verify.h"
#include "backup/verify_state.h"
#include "fail.h"
#include "signals.h"
#include "ui.h"

#define PACK_MAX (256u << 20)           /* restic makes none beyond 128 MiB */
#define OBJECT_MAX (256u << 20)         /* what repo.c reads of an index */
#define TAIL_SIZE 4

struct pack {
	uint8_t id[ID_SIZE];
	uint64_t size;
	int64_t when;                   /* verified last */
};

/* How many blobs of each pack the index knows. */
struct known {
	uint8_t id[ID_SIZE];
	uint64_t n;
	bool is_there;
};

struct round {
	struct verify *v;
	enum verify_level level;
	struct pack *packs;
	size_t n, room;
	struct known *known;
	size_t n_known;
	atomic_size_t next;
	double end;
	uint64_t total, done;
	bool stop;
};

/* What one thread works with. */
struct desk {
	struct bench *bench;
	uint8_t *pack, *content;
	size_t pack_room, content_room;
};

/* What is wrong with one pack; it is told when a second look has found the same. */
struct finding {
	bool is_bad;
	enum verify_kind kind;
	bool is_whole;
	char text[256];
	struct blob *blobs;             /* that are lost, when the pack is not bad as a whole */
	size_t n_blobs, n_lost;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void note(struct finding *f, enum verify_kind kind, bool is_whole, const char *text)
{
	if (f->is_bad && f->is_whole)
		return;
	f->is_bad = true;
	f->kind = kind;
	f->is_whole = is_whole;
	snprintf(f->text, sizeof(f->text), "%.250s", text);
}

static uint8_t *room_for(uint8_t **at, size_t *room, size_t n)
{
	if (n > *room) {
		free(*at);
		*at = malloc(n);
		*room = n;
		if (!*at)
			ui_out_of_memory();
	}
	return *at;
}

/* ---- one pack ------------------------------------------------------------------------------------------- */

static int by_known(const void *a, const void *b)
{
	return memcmp(((const struct known *)a)->id, ((const struct known *)b)->id, ID_SIZE);
}

static struct known *known_of(const struct round *q, const uint8_t id[ID_SIZE])
{
	struct known key;

	memcpy(key.id, id, ID_SIZE);
	return q->n_known ? bsearch(&key, q->known, q->n_known, sizeof(key), by_known) : NULL;
}

/* All that the index says of the pack its header says, too. */
static void compare_with_index(struct round *q, const struct pack *p, const struct blob *blobs, size_t n, struct finding *f)
{
	const struct known *known = known_of(q, p->id);
	uint64_t same = 0, wanted = known ? known->n : 0;
	uint8_t pack[ID_SIZE];
	char text[128];
	struct blob b;

	for (size_t i = 0; i < n; i++)
		same += index_find(repo_index(q->v->repo), blobs[i].type, blobs[i].id, &b, pack) && !memcmp(pack, p->id, ID_SIZE) &&
			b.off == blobs[i].off && b.len == blobs[i].len && b.raw_len == blobs[i].raw_len;
	if (same >= wanted)
		return;
	snprintf(text, sizeof(text), "is another pack: %llu of %llu blobs are not those that the index knows", (unsigned long long)(wanted - same),
		 (unsigned long long)wanted);
	note(f, VERIFY_EXCHANGED, true, text);
}

static void open_blobs(struct desk *d, const struct blob *blobs, size_t n, struct finding *f)
{
	struct vd_error why;
	char text[224];

	for (size_t i = 0; i < n; i++) {
		room_for(&d->content, &d->content_room, blob_size(&blobs[i]) < BLOB_TREE_MAX ? blob_size(&blobs[i]) + 1 : 1);
		if (blob_open(d->bench, &blobs[i], d->pack + blobs[i].off, d->content, &why) == 0)
			continue;
		if (!f->blobs)
			f->blobs = calloc(n, sizeof(*f->blobs));
		if (!f->blobs)
			ui_out_of_memory();
		f->blobs[f->n_lost++] = blobs[i];
		snprintf(text, sizeof(text), "%zu of %zu blobs are lost: %.150s", f->n_lost, n, why.message);
		note(f, VERIFY_DAMAGED, false, text);
	}
	f->n_blobs = n;
}

static void judge_bytes(struct round *q, const struct pack *p, struct desk *d, struct finding *f)
{
	uint8_t id[ID_SIZE];
	struct blob *blobs = NULL;
	struct vd_error why;
	size_t n = 0;
	int r;

	if (q->level == VERIFY_PACKS) {
		id_of(d->pack, p->size, id);
		if (memcmp(id, p->id, ID_SIZE) != 0)
			note(f, VERIFY_DAMAGED, true, "its bytes are not those that its name says");
		return;
	}
	/* The header is inside of what is read already, and is not needed as it lay there any more. */
	r = pack_open_header(d->bench, "", d->pack, p->size, &blobs, &n, &why);
	if (r < 0) {
		note(f, VERIFY_DAMAGED, true, "its header does not hold");
		return;
	}
	compare_with_index(q, p, blobs, n, f);
	if (!f->is_bad)
		open_blobs(d, blobs, n, f);
	free(blobs);
}

/* VD_ECANCELLED alone is a failure: all else is found. */
static int look(struct round *q, const struct pack *p, struct desk *d, struct finding *f, struct vd_error *e)
{
	char name[ID_HEX_SIZE];
	struct blob *blobs = NULL;
	size_t n = 0;
	int r;

	*f = (struct finding){ 0 };
	id_show(p->id, name);
	if (p->size < SEAL_OVERHEAD + TAIL_SIZE || p->size > PACK_MAX) {
		note(f, p->size > PACK_MAX ? VERIFY_DAMAGED : VERIFY_SHORT, true, p->size > PACK_MAX ? "is larger than any pack" : "is too short for a pack");
		return 0;
	}
	if (q->level == VERIFY_PRESENCE) {
		r = pack_read_header(q->v->store, d->bench, name, p->size, &blobs, &n, e);
		if (r == 0)
			compare_with_index(q, p, blobs, n, f);
		free(blobs);
	} else {
		r = store_get(q->v->store, STORE_PACK, name, 0, room_for(&d->pack, &d->pack_room, p->size), p->size, e);
		if (r == 0)
			judge_bytes(q, p, d, f);
	}
	if (r == VD_ECANCELLED)
		return r;
	if (r == VD_EAUTH || r == VD_ECORRUPT)
		note(f, VERIFY_SHORT, true, "is truncated, or its end is damaged");
	else if (r < 0)
		note(f, VERIFY_UNREADABLE, true, e->message);
	return 0;
}

static void settle(struct round *q, const struct pack *p, const char *name, const struct finding *f)
{
	struct verify *v = q->v;

	verify_tell(v, f->kind, name, "pack %.8s: %s", name, f->text);
	if (v->repo && f->n_lost)
		index_add(v->bad, p->id, f->blobs, f->n_lost);
	verify_note_bad(v, p->id, f->is_whole);
}

static int verify_one(struct round *q, const struct pack *p, struct desk *d, struct vd_error *e)
{
	struct finding f, again;
	char name[ID_HEX_SIZE];
	int r = look(q, p, d, &f, e);

	id_show(p->id, name);
	if (r == 0 && f.is_bad) {
		r = look(q, p, d, &again, e);
		if (r == 0 && again.is_bad)
			settle(q, p, name, &again);
		else if (r == 0)
			verify_tell(q->v, VERIFY_FLAKY, name, "pack %.8s: %s; read again, it is sound: look after memory, cables, the server", name, f.text);
		free(again.blobs);
		f.is_bad = r < 0 || again.is_bad;
	}
	free(f.blobs);
	if (r == 0 && !f.is_bad && q->v->state && q->level >= VERIFY_PACKS)
		verify_state_note(q->v->state, p->id, q->level, time(NULL));
	return r;
}

/* ---- all of them ---------------------------------------------------------------------------------------- */

static int count(struct round *q, const struct pack *p, struct vd_error *e)
{
	struct verify *v = q->v;
	struct vd_progress progress = { "verify", 0, q->total };
	int r = 0;

	pthread_mutex_lock(&v->mutex);
	q->done += p->size;
	progress.done = q->done;
	if (q->level >= VERIFY_PACKS) {
		v->packs_read++;
		v->bytes_read += p->size;
	}
	if (v->job.progress)
		r = v->job.progress(v->job.ctx, &progress);
	pthread_mutex_unlock(&v->mutex);
	return r ? fail(e, VD_ECANCELLED, "stopped") : signals_check(e);
}

static int work(void *ctx, unsigned who, struct vd_error *e)
{
	struct round *q = ctx;
	struct desk d = { 0 };
	size_t i;
	int r = q->v->repo ? bench_new(repo_key(q->v->repo), &d.bench, e) : 0;

	(void)who;
	while (r == 0 && !__atomic_load_n(&q->stop, __ATOMIC_RELAXED) && (!q->end || now() < q->end)) {
		i = atomic_fetch_add(&q->next, 1);
		if (i >= q->n)
			break;
		r = verify_one(q, &q->packs[i], &d, e);
		if (r == 0)
			r = count(q, &q->packs[i], e);
	}
	bench_free(d.bench);
	free(d.pack);
	free(d.content);
	return r;
}

static int add_pack(void *ctx, const char *name, uint64_t size)
{
	struct round *q = ctx;
	struct pack *p;

	if (q->n == q->room) {
		q->room = q->room ? 2 * q->room : 256;
		q->packs = reallocarray(q->packs, q->room, sizeof(*q->packs));
		if (!q->packs)
			ui_out_of_memory();
	}
	p = &q->packs[q->n++];
	*p = (struct pack){ .size = size };
	id_read(name, p->id);
	if (q->v->state)
		p->when = verify_state_when(q->v->state, p->id, q->level);
	q->total += size;
	return 0;
}

static int by_age(const void *a, const void *b)
{
	const struct pack *x = a, *y = b;

	return x->when != y->when ? (x->when < y->when ? -1 : 1) : memcmp(x->id, y->id, ID_SIZE);
}

static int count_blob(void *ctx, size_t pack, const struct blob *b)
{
	(void)b;
	((struct round *)ctx)->known[pack].n++;
	return 0;
}

/* The same pack may be in several index files: its counts are put together. */
static void learn_index(struct round *q)
{
	struct index *x = repo_index(q->v->repo);
	size_t n = index_packs(x), kept = 0;

	q->known = calloc(n + 1, sizeof(*q->known));
	if (!q->known)
		ui_out_of_memory();
	for (size_t i = 0; i < n; i++)
		memcpy(q->known[i].id, index_pack(x, i), ID_SIZE);
	index_each(x, count_blob, q);
	if (n)
		qsort(q->known, n, sizeof(*q->known), by_known);
	for (size_t i = 0; i < n; i++) {
		if (kept && !by_known(&q->known[kept - 1], &q->known[i]))
			q->known[kept - 1].n += q->known[i].n;
		else
			q->known[kept++] = q->known[i];
	}
	q->n_known = kept;
}

/* Packs that the index relies on, and nobody has. */
static void tell_missing(struct round *q)
{
	char name[ID_HEX_SIZE];

	for (size_t i = 0; i < q->n; i++) {
		struct known *k = known_of(q, q->packs[i].id);

		if (k)
			k->is_there = true;
	}
	for (size_t i = 0; i < q->n_known; i++) {
		if (q->known[i].is_there || !q->known[i].n)
			continue;
		id_show(q->known[i].id, name);
		verify_tell(q->v, VERIFY_MISSING, name, "pack %.8s: is not there; %llu blobs are in it", name, (unsigned long long)q->known[i].n);
		verify_note_bad(q->v, q->known[i].id, true);
	}
}

static int run_round(struct verify *v, enum verify_level level, struct vd_error *e)
{
	struct round q = { .v = v, .level = level };
	int r = store_list(v->store, STORE_PACK, add_pack, &q, e);

	if (r == 0) {
		if (q.n)
			qsort(q.packs, q.n, sizeof(*q.packs), by_age);
		if (v->repo)
			learn_index(&q);
		if (level == VERIFY_PRESENCE)
			tell_missing(&q);
		v->packs = q.n;
		q.end = v->budget && level >= VERIFY_PACKS ? now() + v->budget : 0;
		r = crew_run(v->threads, work, &q, &q.stop, e);
	}
	free(q.packs);
	free(q.known);
	return r;
}

/* ---- level 1 -------------------------------------------------------------------------------------------- */

static int pass_on(void *ctx, const struct check_fault *f)
{
	struct verify *v = ctx;

	/* What is about packs the headers tell better. */
	if (f->kind != CHECK_PACK && f->kind != CHECK_SHORT)
		verify_tell(v, f->is_harmless ? VERIFY_UNNAMED : VERIFY_CHECK, "", "%s", f->text);
	return 0;
}

static int look_at_end(void *ctx, const char *name, uint64_t size)
{
	struct verify *v = ctx;
	uint8_t tail[TAIL_SIZE];
	struct vd_error why;
	uint64_t len;

	v->packs++;
	if (size < SEAL_OVERHEAD + TAIL_SIZE || store_get(v->store, STORE_PACK, name, size - TAIL_SIZE, tail, TAIL_SIZE, &why) < 0) {
		verify_tell(v, VERIFY_SHORT, name, "pack %.8s: its end is not there", name);
		return signals_stop() ? VD_ECANCELLED : 0;
	}
	len = (uint64_t)tail[0] | (uint64_t)tail[1] << 8 | (uint64_t)tail[2] << 16 | (uint64_t)tail[3] << 24;
	if (len < SEAL_OVERHEAD || len > size - TAIL_SIZE)
		verify_tell(v, VERIFY_SHORT, name, "pack %.8s: is truncated, or its end is damaged", name);
	return signals_stop() ? VD_ECANCELLED : 0;
}

int verify_presence(struct verify *v, struct vd_error *e)
{
	struct check_report report;
	int r;

	if (!v->repo) {
		v->packs = 0;
		r = store_list(v->store, STORE_PACK, look_at_end, v, e);
		return r == VD_ECANCELLED ? signals_check(e) : r;
	}
	r = check_run(v->repo, pass_on, v, &v->job, &report, e);
	v->snapshots = report.snapshots;
	return r < 0 ? r : run_round(v, VERIFY_PRESENCE, e);
}

/* ---- small objects -------------------------------------------------------------------------------------- */

struct objects {
	struct verify *v;
	enum store_kind kind;
	struct vd_error *e;
};

static int judge_object(void *ctx, const char *name, uint64_t size)
{
	struct objects *o = ctx;
	struct vd_error why = { 0 };
	uint8_t id[ID_SIZE], wanted[ID_SIZE], *bytes;
	bool holds = false;
	int r = VD_ECORRUPT;

	o->v->snapshots += o->kind == STORE_SNAPSHOT;
	if (size > OBJECT_MAX) {
		verify_tell(o->v, VERIFY_OBJECT, name, "%.8s has %llu bytes, which is too much", name, (unsigned long long)size);
		return 0;
	}
	bytes = malloc(size + 1);
	if (!bytes)
		ui_out_of_memory();
	id_read(name, wanted);
	for (int i = 0; i < 2 && !holds && r != VD_ECANCELLED; i++) {
		r = store_get(o->v->store, o->kind, name, 0, bytes, size, &why);
		if (r == 0)
			id_of(bytes, size, id);
		holds = r == 0 && !memcmp(id, wanted, ID_SIZE);
	}
	free(bytes);
	if (r == VD_ECANCELLED)
		return signals_check(o->e);
	if (!holds)
		verify_tell(o->v, VERIFY_OBJECT, name, "%s %.8s: %s",
			    o->kind == STORE_SNAPSHOT ? "snapshot" : o->kind == STORE_INDEX ? "index" : "key", name,
			    r < 0 ? why.message : "its bytes are not those that its name says");
	return 0;
}

int verify_packs(struct verify *v, enum verify_level level, struct vd_error *e)
{
	static const enum store_kind kinds[] = { STORE_KEY, STORE_SNAPSHOT, STORE_INDEX };
	int r = 0;

	v->snapshots = 0;
	for (size_t i = 0; r == 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct objects o = { v, kinds[i], e };

		r = store_list(v->store, kinds[i], judge_object, &o, e);
	}
	return r < 0 ? r : run_round(v, level, e);
}
