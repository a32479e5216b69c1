/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takes pieces of data through the ciphers: batch by batch, on all cores, with what a crash needs in the journal first.
 *
 * M1  Journal: a batch's ciphertext is durable in a record before the first byte of it is written in place.
 * M2  Checksum: of each sector of the batch its first bytes as ciphertext are durable, by which a sector tells whether it
 *     was written before the crash; that takes sectors that are written whole or not at all.
 * M3  None, and a disk that moves: the record, which is a cursor then, follows the data. A disk that moves keeps the source
 *     of a batch untouched until the cursor is durable, since a batch is no longer than it moves; that is as safe as M1.
 * M4  Of three batches one is read and turned while the one before gets its record, and the one before that is put in place.
 *     A record is only written over when its batch is in place, durably.
 */
#include "libvdisk/core/inplace.h"

#include <stdlib.h>
#include <time.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/base/workers.h"
#include "libvdisk/core/job.h"
#include "libvdisk/crypto/random.h"

#define SECTOR VD_JOURNAL_SECTOR
#define LEAST_BATCH (1u << 20)

uint64_t vd_mover_batch = VD_JOURNAL_BATCH;

enum safety { WITH_DATA, WITH_MARKS, CURSOR_AFTER };

#define N_BATCHES 3

struct batch {
	struct vd_mover *m;
	struct vd_work work;
	bool is_busy;                   /* with the two below */
	struct vd_record rec;           /* its arrays have room for a whole batch */
	uint8_t *now;                   /* the bytes as they are to be, chunk by chunk */
	uint8_t *cipher;                /* the side that is ciphertext: `now`, or a copy of what was there */
	uint8_t *marks;
	uint64_t *at;                   /* where each chunk's bytes begin */
	uint64_t len;
};

struct task {
	struct vd_work work;
	struct vd_mover *m;
	uint32_t i;
};

struct vd_mover {
	struct vd_inplace *p;
	enum safety safety;
	bool keeps_old;                 /* the target is plain: records have what was there */
	uint64_t limit;                 /* bytes of a batch */
	struct batch all[N_BATCHES], *b;        /* b is being filled */
	struct vd_workers *workers;
	struct task *tasks;
	pthread_mutex_t lock;           /* all below */
	pthread_cond_t done;
	uint32_t n_left;                /* tasks */
	bool is_recording, is_placing;
	int result;
	struct vd_error error;
	uint64_t started_ns, moved;     /* for the limit of speed */
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- the ciphers ---------------------------------------------------------------------------------------- */

static int turn(const struct vd_inplace *p, bool back, uint8_t *buf, size_t len, uint64_t unit, struct vd_error *e)
{
	const struct vd_journal_state *s = &p->j->state;
	struct vd_diskcipher *from = p->cipher[back], *to = p->cipher[!back];
	size_t from_sector = back ? s->to_sector : s->from_sector, to_sector = back ? s->from_sector : s->to_sector;
	int r = from ? vd_diskcipher_decrypt(from, buf, len, unit, from_sector, e) : 0;

	return r < 0 || !to ? r : vd_diskcipher_encrypt(to, buf, len, unit, to_sector, e);
}

int vd_inplace_turn(const struct vd_inplace *p, void *buf, size_t len, uint64_t unit, struct vd_error *e)
{
	return turn(p, p->j->state.is_back, buf, len, unit, e);
}

/* ---- making and freeing --------------------------------------------------------------------------------- */

static enum safety safety_of(const struct vd_journal_state *s)
{
	if (s->moves || s->resilience == VD_RESILIENCE_NONE)
		return CURSOR_AFTER;
	return s->resilience == VD_RESILIENCE_JOURNAL ? WITH_DATA : WITH_MARKS;
}

static int batch_init(struct vd_mover *m, struct batch *b, struct vd_error *e)
{
	int r = vd_alloc(VD_JOURNAL_CHUNKS, sizeof(*b->rec.chunks), &b->rec.chunks, e);

	b->m = m;
	if (r == 0)
		r = vd_alloc(VD_JOURNAL_CHUNKS, sizeof(*b->rec.tags), &b->rec.tags, e);
	if (r == 0)
		r = vd_alloc(VD_JOURNAL_CHUNKS, sizeof(*b->at), &b->at, e);
	if (r == 0)
		r = vd_alloc_buffer(m->limit, &b->now, e);
	b->cipher = b->now;
	if (r == 0 && m->keeps_old)
		r = vd_alloc_buffer(m->limit, &b->cipher, e);
	if (r == 0 && m->safety == WITH_MARKS)
		r = vd_alloc_buffer(m->limit / SECTOR * VD_JOURNAL_MARK, &b->marks, e);
	return r;
}

static void batch_fini(const struct vd_mover *m, struct batch *b)
{
	if (b->now)
		vd_wipe(b->now, m->limit);
	if (b->cipher != b->now)
		free(b->cipher);
	free(b->now);
	free(b->marks);
	free(b->at);
	free(b->rec.chunks);
	free(b->rec.tags);
}

static uint64_t batch_limit(const struct vd_inplace *p)
{
	const struct vd_journal_state *s = &p->j->state;
	uint64_t limit = vd_min_u64(vd_mover_batch, vd_round_up(vd_max_u64(s->total, 1), LEAST_BATCH));

	/* What is not in the journal has to be at its source yet. */
	if (s->moves)
		limit = vd_min_u64(limit, s->payload_off);
	/* So that a slow one is steady, and can be stopped. */
	if (p->opts->bytes_per_second)
		limit = vd_min_u64(limit, vd_max_u64(LEAST_BATCH, vd_round_down(p->opts->bytes_per_second / 4, LEAST_BATCH)));
	return limit;
}

int vd_mover_new(struct vd_inplace *p, struct vd_mover **out, struct vd_error *e)
{
	struct vd_mover *m = NULL;
	int r = vd_alloc(1, sizeof(*m), &m, e);

	if (r < 0)
		return r;
	m->p = p;
	m->safety = safety_of(&p->j->state);
	m->keeps_old = !p->cipher[!p->j->state.is_back];
	m->limit = batch_limit(p);
	m->b = &m->all[0];
	m->started_ns = now_ns();
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->done, NULL);
	for (int i = 0; i < N_BATCHES && r == 0; i++)
		r = batch_init(m, &m->all[i], e);
	if (r == 0)
		r = vd_alloc(VD_JOURNAL_CHUNKS, sizeof(*m->tasks), &m->tasks, e);
	if (r == 0)
		r = vd_workers_new(vd_job_threads(p->job) + 2, &m->workers, e);
	if (r < 0)
		vd_mover_free(m);
	else
		*out = m;
	return r;
}

void vd_mover_free(struct vd_mover *m)
{
	if (!m)
		return;
	vd_workers_free(m->workers);
	for (int i = 0; i < N_BATCHES; i++)
		batch_fini(m, &m->all[i]);
	pthread_cond_destroy(&m->done);
	pthread_mutex_destroy(&m->lock);
	free(m->tasks);
	free(m);
}

/* ---- reading and turning -------------------------------------------------------------------------------- */

static void take_marks(uint8_t *marks, const uint8_t *bytes, uint64_t len)
{
	for (uint64_t i = 0; i < len / SECTOR; i++)
		memcpy(marks + i * VD_JOURNAL_MARK, bytes + i * SECTOR, VD_JOURNAL_MARK);
}

/* The part of the payload that is chunk i's, once its bytes are there. */
static struct vd_bytes payload_part(struct vd_mover *m, uint32_t i)
{
	struct batch *b = m->b;
	uint64_t len = b->rec.chunks[i].len, at = b->at[i];

	if (m->safety == WITH_DATA)
		return (struct vd_bytes){ b->cipher + at, len };
	take_marks(b->marks + at / SECTOR * VD_JOURNAL_MARK, b->cipher + at, len);
	return (struct vd_bytes){ b->marks + at / SECTOR * VD_JOURNAL_MARK, len / SECTOR * VD_JOURNAL_MARK };
}

static int prepare(struct vd_mover *m, uint32_t i, struct vd_error *e)
{
	struct batch *b = m->b;
	const struct vd_chunk *c = &b->rec.chunks[i];
	uint8_t *now = b->now + b->at[i];
	int r = vd_set_pread(m->p->img->set, c->file, now, c->len, c->src, e);

	if (r < 0)
		return r;
	if (m->keeps_old)
		memcpy(b->cipher + b->at[i], now, c->len);
	r = vd_inplace_turn(m->p, now, c->len, c->unit, e);
	if (r < 0 || m->safety == CURSOR_AFTER)
		return r;
	return vd_journal_tag(m->p->j, b->rec.salt, i, payload_part(m, i), b->rec.tags[i], e);
}

/* Under the lock: the first failure counts. */
static void note_failure(struct vd_mover *m, int r, const struct vd_error *e)
{
	if (m->result < 0 || r == 0)
		return;
	m->result = r;
	m->error = *e;
}

static void run_task(struct vd_work *w)
{
	struct task *t = (struct task *)w;
	struct vd_mover *m = t->m;
	struct vd_error e = { 0 };
	int r = prepare(m, t->i, &e);

	pthread_mutex_lock(&m->lock);
	note_failure(m, r, &e);
	m->n_left--;
	pthread_cond_broadcast(&m->done);
	pthread_mutex_unlock(&m->lock);
}

static void prepare_all(struct vd_mover *m)
{
	uint32_t n = m->b->rec.n_chunks;

	m->n_left = n;
	for (uint32_t i = 0; i < n; i++) {
		m->tasks[i] = (struct task){ .work = { .run = run_task }, .m = m, .i = i };
		vd_workers_add(m->workers, &m->tasks[i].work);
	}
	pthread_mutex_lock(&m->lock);
	while (m->n_left)
		pthread_cond_wait(&m->done, &m->lock);
	pthread_mutex_unlock(&m->lock);
}

/* ---- committing ----------------------------------------------------------------------------------------- */

static int write_in_place(struct vd_mover *m, struct batch *b, struct vd_error *e)
{
	struct vd_set *set = m->p->img->set;
	int r = 0;

	for (uint32_t i = 0, n; i < b->rec.n_chunks && r == 0; i += n) {
		const struct vd_chunk *c = &b->rec.chunks[i];
		uint64_t len = c->len;

		/* Neighbours in one go. */
		for (n = 1; i + n < b->rec.n_chunks && c[n].file == c->file && c[n].dst == c->dst + len; n++)
			len += c[n].len;
		r = vd_set_pwrite(set, c->file, b->now + b->at[i], len, c->dst, e);
	}
	return r < 0 ? r : vd_set_flush(set, e);
}

/* What has to be durable before the batch is put in place. */
static int record(struct vd_mover *m, struct batch *b, struct vd_error *e)
{
	struct vd_record *rec = &b->rec;
	int r = 0;

	rec->has_marks = m->safety == WITH_MARKS;
	rec->payload = rec->has_marks ? b->marks : b->cipher;
	rec->payload_len = rec->has_marks ? b->len / SECTOR * VD_JOURNAL_MARK : b->len;
	if (m->safety == CURSOR_AFTER)
		return 0;
	if (atomic_exchange(&m->p->scrubbed, false))
		r = vd_set_flush(m->p->img->set, e);
	return r < 0 ? r : vd_journal_write_record(m->p->j, rec, e);
}

static int place(struct vd_mover *m, struct batch *b, struct vd_error *e)
{
	int r = write_in_place(m, b, e);

	if (r < 0 || m->safety != CURSOR_AFTER)
		return r;
	b->rec.n_chunks = 0;
	b->rec.payload_len = 0;
	return vd_journal_write_record(m->p->j, &b->rec, e);
}

/* Takes the stage when it is free; false after a failure of any batch, and then nothing is to be done. */
static bool begin_stage(struct vd_mover *m, bool *stage)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);

	while (*stage)
		pthread_cond_wait(&m->done, &m->lock);
	*stage = m->result == 0;
	return *stage;
}

static void end_stage(struct vd_mover *m, bool *stage, int r, const struct vd_error *e)
{
	pthread_mutex_lock(&m->lock);
	note_failure(m, r, e);
	*stage = false;
	pthread_cond_broadcast(&m->done);
	pthread_mutex_unlock(&m->lock);
}

/* The recorder is let go only when the placer is taken: so the record after next finds its place free. */
static void run_commit(struct vd_work *w)
{
	struct batch *b = (struct batch *)((char *)w - offsetof(struct batch, work));
	struct vd_mover *m = b->m;
	struct vd_error e = { 0 };
	int r = record(m, b, &e);
	bool goes_on = r == 0 && begin_stage(m, &m->is_placing);

	end_stage(m, &m->is_recording, r, &e);
	if (goes_on) {
		r = place(m, b, &e);
		end_stage(m, &m->is_placing, r, &e);
	}
	pthread_mutex_lock(&m->lock);
	b->rec.n_chunks = 0;
	b->len = 0;
	b->is_busy = false;
	pthread_cond_broadcast(&m->done);
	pthread_mutex_unlock(&m->lock);
}

static int result_of(struct vd_mover *m, struct vd_error *e)
{
	if (m->result < 0 && e)
		*e = m->error;
	return m->result;
}

/* A batch that is free to be filled. */
static struct batch *next_batch(struct vd_mover *m)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);

	for (;;) {
		for (int i = 0; i < N_BATCHES; i++)
			if (!m->all[i].is_busy)
				return &m->all[i];
		pthread_cond_wait(&m->done, &m->lock);
	}
}

static int wait_for_all(struct vd_mover *m, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);

	for (int i = 0; i < N_BATCHES; i++)
		while (m->all[i].is_busy)
			pthread_cond_wait(&m->done, &m->lock);
	return result_of(m, e);
}

/* Sleeps until so many bytes are due; the one who stops it does not wait long. */
static int keep_pace(struct vd_mover *m, struct vd_error *e)
{
	uint64_t rate = m->p->opts->bytes_per_second, due;
	int r = 0;

	if (!rate)
		return 0;
	due = m->started_ns + (uint64_t)((double)m->moved / (double)rate * 1e9);
	while (r == 0 && now_ns() < due) {
		struct timespec t = { .tv_nsec = (long)vd_min_u64(due - now_ns(), 100000000) };

		nanosleep(&t, NULL);
		r = vd_inplace_progress(m->p, e);
	}
	return r;
}

/* The batch that was filled is turned, and its commit begins. */
static int turn_batch(struct vd_mover *m, struct vd_error *e)
{
	struct batch *b = m->b;
	int r;

	if (!b->rec.n_chunks)
		return 0;
	r = vd_random(b->rec.salt, sizeof(b->rec.salt), e);
	if (r < 0)
		return r;
	prepare_all(m);
	if (!begin_stage(m, &m->is_recording))
		return result_of(m, e);
	m->moved += b->len;
	m->p->report->converted += b->len;
	m->p->at_file = b->rec.cursor_file;
	m->p->at = b->rec.cursor;
	b->is_busy = true;
	b->work = (struct vd_work){ .run = run_commit };
	vd_workers_add(m->workers, &b->work);
	m->b = next_batch(m);
	r = vd_inplace_progress(m->p, e);
	return r < 0 ? r : keep_pace(m, e);
}

uint64_t vd_mover_piece(const struct vd_mover *m)
{
	return vd_min_u64(VD_MOVER_CHUNK, m->limit);
}

int vd_mover_add(struct vd_mover *m, const struct vd_chunk *c, uint64_t cursor, struct vd_error *e)
{
	struct batch *b = m->b;
	int r = 0;

	if (b->len + c->len > m->limit || b->rec.n_chunks == VD_JOURNAL_CHUNKS)
		r = turn_batch(m, e);
	if (r < 0)
		return r;
	b = m->b;
	b->at[b->rec.n_chunks] = b->len;
	b->rec.chunks[b->rec.n_chunks++] = *c;
	b->len += c->len;
	b->rec.cursor_file = c->file;
	b->rec.cursor = cursor;
	b->rec.is_born = m->p->j->state.is_born;
	return 0;
}

int vd_mover_stop(struct vd_mover *m, int why, struct vd_error *e)
{
	struct vd_inplace *p = m->p;
	int r = wait_for_all(m, e);

	if (r == 0)
		r = vd_set_flush(p->img->set, e);
	if (r < 0)
		return r;
	p->j->state.cursor_file = p->at_file;
	p->j->state.cursor = p->at;
	p->j->state.record = p->j->n_records;
	r = vd_journal_write_state(p->j, e);
	return r < 0 ? r : why;
}

int vd_mover_end(struct vd_mover *m, struct vd_error *e)
{
	int r = turn_batch(m, e), w = wait_for_all(m, r < 0 ? NULL : e);

	return r < 0 ? r : w;
}

/* ---- after a crash -------------------------------------------------------------------------------------- */

/* Sectors that are as they were before the batch are turned; `plain_target`: marks say how they were, else how they are to be. */
static int replay_marks(struct vd_inplace *p, const struct vd_chunk *c, const uint8_t *marks, uint8_t *buf, struct vd_error *e)
{
	bool plain_target = !p->cipher[!p->j->state.is_back];
	int r = vd_set_pread(p->img->set, c->file, buf, c->len, c->src, e);

	for (uint32_t at = 0; at < c->len && r == 0; at += SECTOR) {
		bool has = !memcmp(buf + at, marks + at / SECTOR * VD_JOURNAL_MARK, VD_JOURNAL_MARK);

		if (has == plain_target)
			r = vd_inplace_turn(p, buf + at, SECTOR, c->unit + at / SECTOR, e);
	}
	return r < 0 ? r : vd_set_pwrite(p->img->set, c->file, buf, c->len, c->dst, e);
}

static int replay_data(struct vd_inplace *p, const struct vd_chunk *c, const uint8_t *bytes, uint8_t *buf, struct vd_error *e)
{
	int r = 0;

	memcpy(buf, bytes, c->len);
	if (!p->cipher[!p->j->state.is_back])
		r = vd_inplace_turn(p, buf, c->len, c->unit, e);
	return r < 0 ? r : vd_set_pwrite(p->img->set, c->file, buf, c->len, c->dst, e);
}

static int replay_one(struct vd_inplace *p, const struct vd_record *rec, struct vd_error *e)
{
	struct vd_journal_state *s = &p->j->state;
	vd_auto_free uint8_t *buf = NULL;
	const uint8_t *payload = rec->payload;
	int r = vd_alloc_buffer(VD_MOVER_CHUNK, &buf, e);

	for (uint32_t i = 0; i < rec->n_chunks && r == 0; i++) {
		const struct vd_chunk *c = &rec->chunks[i];

		if (c->len > VD_MOVER_CHUNK)
			return vd_fail(e, VD_ECORRUPT, "%s: a record has a piece of %u bytes", p->j->path, c->len);
		r = (rec->has_marks ? replay_marks : replay_data)(p, c, payload, buf, e);
		payload += vd_record_part(rec, c);
	}
	if (r == 0)
		r = vd_set_flush(p->img->set, e);
	vd_wipe(buf, VD_MOVER_CHUNK);
	s->cursor_file = rec->cursor_file;
	s->cursor = rec->cursor;
	s->is_born = rec->is_born;
	return r;
}

int vd_mover_replay(struct vd_inplace *p, struct vd_error *e)
{
	int r = 0;

	for (unsigned i = 0; i < 2 && r == 0; i++) {
		struct vd_record rec = { 0 };
		bool got;

		r = vd_journal_read_record(p->j, i, &rec, &got, e);
		if (r == 0 && got)
			r = replay_one(p, &rec, e);
		vd_record_fini(&rec);
	}
	p->j->state.record = p->j->n_records;
	return r < 0 ? r : vd_journal_write_state(p->j, e);
}
