/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * core/meta against plain byte arrays: seeded histories of reads, writes, forgetting and commits, with more of them in
 * the middle of loads and commits, and a judge of every write's order; then threads.
 */
#include "tests/support/meta_host.h"

#include <stdio.h>
#include <unistd.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define SPAN (64u << 10)                /* of each file that holds tables; payload lies behind */
#define PAGES_MAX (SPAN / PAGE)
#define CLEAN (-1)

/* What the cache must show, and what the host must hold. */
static struct {
	uint8_t now[N_FILES][SPAN], in_batch[N_FILES][SPAN];
	int rank[N_FILES][PAGES_MAX], batch_rank[N_FILES][PAGES_MAX];   /* or CLEAN */
	bool is_written[N_FILES][PAGES_MAX], is_durable[N_FILES][PAGES_MAX];    /* pages of the batch */
	bool has_payload[N_FILES];              /* not durable */
	unsigned n_flushes[N_FILES];            /* of this commit */
	struct vd_meta_batch *batch;
	bool is_reading, is_committing;
	uint32_t page_size;
	uint64_t random;
	const char *broken;                     /* the first rule that was */
} m;

static uint32_t rnd(uint32_t n)
{
	m.random ^= m.random << 13;
	m.random ^= m.random >> 7;
	m.random ^= m.random << 17;
	return (m.random >> 20) % n;
}

static void claim(bool holds, const char *rule)
{
	if (!holds && !m.broken)
		m.broken = rule;
}

static uint32_t n_pages(void)
{
	return SPAN / m.page_size;
}

/* ---- one step ----------------------------------------------------------------------------------------- */

static void step_read(void)
{
	uint8_t buf[SPAN];
	uint32_t file = rnd(N_FILES), off = rnd(SPAN), len = 1 + rnd(3000);
	unsigned flags = rnd(4) ? 0 : VD_META_NOWAIT;
	int r;

	/* Inside a page the newest is what counts, whatever is written while it loads; across pages only each part is. */
	len = vd_min_u64(len, rnd(2) ? SPAN - off : m.page_size - off % m.page_size);
	m.is_reading = len <= m.page_size - off % m.page_size && !m.is_committing;
	r = vd_meta_read(world.meta, file, off, buf, len, flags, NULL);
	m.is_reading = false;
	claim(r == 0 || (r == VD_EAGAIN && flags), "a read fails only for NOWAIT");
	claim(r < 0 || !memcmp(buf, m.now[file] + off, len), "a read shows the newest");
}

static void note_dirty(uint32_t file, uint32_t off, uint32_t len, int rank)
{
	for (uint32_t page = off / m.page_size; page <= (off + len - 1) / m.page_size; page++)
		if (m.rank[file][page] < rank)
			m.rank[file][page] = rank;
}

static void step_write(void)
{
	uint8_t buf[3000];
	uint32_t file = rnd(N_FILES), off = rnd(SPAN), len = 1 + rnd(sizeof(buf));
	int rank = rnd(VD_META_RANKS);

	if (!rnd(4)) {
		off = vd_round_down(off, m.page_size);
		len = m.page_size;
	}
	len = vd_min_u64(len, SPAN - off);
	for (uint32_t i = 0; i < len; i++)
		buf[i] = rnd(256);
	claim(vd_meta_write(world.meta, file, off, buf, len, rank, NULL) == 0, "a write succeeds");
	memcpy(m.now[file] + off, buf, len);
	note_dirty(file, off, len, rank);
}

static void some_pages(uint32_t *file, uint32_t *off, uint32_t *len)
{
	*file = rnd(N_FILES);
	*off = rnd(n_pages()) * m.page_size;
	*len = vd_min_u64((1 + rnd(4)) * m.page_size, SPAN - *off);
}

static void zero(uint32_t file, uint32_t off, uint32_t len)
{
	int rank = rnd(VD_META_RANKS);

	claim(vd_meta_zero(world.meta, file, off, len, rank, NULL) == 0, "zero succeeds");
	memset(m.now[file] + off, 0, len);
	note_dirty(file, off, len, rank);
}

static void step_zero(void)
{
	uint32_t file, off, len;

	some_pages(&file, &off, &len);
	zero(file, off, len);
}

/* The host's bytes show again; while a commit may still write them the range is given a new table at once. */
static void step_forget(void)
{
	uint32_t file, off, len;

	some_pages(&file, &off, &len);
	vd_meta_forget(world.meta, file, off, len);
	memcpy(m.now[file] + off, world.files[file]->bytes + off, len);
	for (uint32_t page = off / m.page_size; page < (off + len) / m.page_size; page++)
		m.rank[file][page] = CLEAN;
	if (m.batch)
		zero(file, off, len);
}

static void step_payload(void)
{
	uint32_t file = rnd(N_FILES);
	uint8_t byte = 0;

	if (m.batch)
		return;
	claim(vd_set_pwrite(world.set, file, &byte, 1, SPAN + rnd(SPAN), NULL) == 0, "payload is written");
	m.has_payload[file] = true;
}

/* ---- the judge ---------------------------------------------------------------------------------------- */

static void judge_page(uint32_t file, uint32_t page)
{
	int rank = m.batch_rank[file][page];

	claim(rank != CLEAN, "only pages of the snapshot are written");
	claim(!m.is_written[file][page], "a page is written once a commit");
	m.is_written[file][page] = true;
	if (world.meta->fresh)
		return;
	for (uint32_t f = 0; f < N_FILES; f++) {
		claim(rank == VD_RANK_OWNER || !m.has_payload[f], "payload is durable before a pointer is written");
		for (uint32_t p = 0; p < n_pages(); p++)
			claim(m.batch_rank[f][p] == CLEAN || m.batch_rank[f][p] >= rank || m.is_durable[f][p],
			      "lower ranks are durable before a higher one is written");
	}
}

static void random_step(void)
{
	static void (*const steps[])(void) = {
		step_read, step_read, step_read, step_read, step_write, step_write, step_write, step_zero, step_forget,
		step_payload,
	};

	steps[rnd(sizeof(steps) / sizeof(steps[0]))]();
}

static void judge(const struct host_op *op)
{
	if (op->kind == 'R') {
		/* What needs no load of its own overtakes the load of a reader. */
		if (m.is_reading && !rnd(4)) {
			m.is_reading = false;
			rnd(2) ? step_zero() : step_forget();
		}
		return;
	}
	if (op->kind == 'W' && op->off >= SPAN)
		return;
	claim(m.is_committing, "nothing is written but by a commit");
	for (uint64_t off = op->off; op->kind == 'W' && off < op->off + op->len; off += m.page_size)
		judge_page(op->file, off / m.page_size);
	if (op->kind == 'F') {
		memcpy(m.is_durable[op->file], m.is_written[op->file], sizeof(m.is_written[0]));
		m.has_payload[op->file] = false;
		m.n_flushes[op->file]++;
	}
	for (uint32_t i = rnd(4); i; i--)
		random_step();
}

static void step_snapshot(void)
{
	claim(vd_meta_snapshot(world.meta, &m.batch, NULL) == 0, "a snapshot succeeds");
	memcpy(m.in_batch, m.now, sizeof(m.now));
	memcpy(m.batch_rank, m.rank, sizeof(m.rank));
	for (uint32_t f = 0; f < N_FILES; f++)
		for (uint32_t p = 0; p < PAGES_MAX; p++)
			m.rank[f][p] = CLEAN;
	memset(m.is_written, 0, sizeof(m.is_written));
	memset(m.is_durable, 0, sizeof(m.is_durable));
	memset(m.n_flushes, 0, sizeof(m.n_flushes));
	claim(!vd_meta_is_dirty(world.meta), "a snapshot leaves nothing dirty");
}

static int step_commit(void)
{
	int r;

	host_clear_log();
	m.is_committing = true;
	r = vd_meta_commit(world.meta, m.batch, NULL);
	m.is_committing = false;
	m.batch = NULL;
	if (r < 0)
		return r;
	for (uint32_t f = 0; f < N_FILES; f++) {
		claim(!memcmp(world.files[f]->bytes, m.in_batch[f], SPAN), "the host holds the snapshot after a commit");
		claim(!m.has_payload[f], "payload is durable after a commit");
		claim(!memcmp(m.is_durable[f], m.is_written[f], sizeof(m.is_written[f])), "tables are durable after a commit");
		claim(m.n_flushes[f] <= (world.meta->fresh ? 1 : VD_META_RANKS), "a commit flushes at most so often");
	}
	return 0;
}

static void check_counts(void)
{
	const struct vd_meta *c = world.meta;
	size_t n_dirty = 0;

	for (uint32_t f = 0; f < N_FILES; f++)
		for (uint32_t p = 0; p < n_pages(); p++)
			n_dirty += m.rank[f][p] != CLEAN;
	claim(c->n_dirty == n_dirty, "the cache knows what is dirty");
	/* The page that was loaded last may be over the bound when all others are dirty. */
	claim(c->n_pages <= c->max_pages || c->n_clean <= 1, "clean pages yield to the bound");
}

/* ---- histories ---------------------------------------------------------------------------------------- */

struct history { uint64_t cache_bytes; bool fresh; uint32_t page_size; };

static void begin(const struct history *h, uint64_t seed)
{
	meta_start(h->cache_bytes, h->fresh);
	vd_meta_set_page_size(world.meta, h->page_size);
	memset(&m, 0, sizeof(m));
	m.page_size = h->page_size;
	m.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	for (uint32_t f = 0; f < N_FILES; f++) {
		memcpy(m.now[f], world.files[f]->bytes, SPAN);
		for (uint32_t p = 0; p < PAGES_MAX; p++)
			m.rank[f][p] = CLEAN;
	}
	world.hook = judge;
}

/* Until n steps are done, a rule is broken, or a commit fails. */
static int run(int n)
{
	int r = 0;

	for (int i = 0; i < n && !m.broken && r == 0; i++) {
		if (rnd(40))
			random_step();
		else if (!m.batch)
			step_snapshot();
		else
			r = step_commit();
		check_counts();
	}
	return r;
}

static const struct history histories[] = {
	{ 0, false, 512 }, { 0, true, 512 }, { 48 << 10, false, 512 }, { 1 << 20, false, 512 }, { 0, false, 2048 },
	{ 100 << 10, true, 1024 },
};
#define N_HISTORIES (sizeof(histories) / sizeof(histories[0]))

static void random_histories_agree_with_plain_bytes(void **state)
{
	for (uint64_t seed = 0; seed < 4 * N_HISTORIES; seed++) {
		begin(&histories[seed % N_HISTORIES], seed);
		assert_int_equal(run(2500), 0);
		if (!m.batch)
			step_snapshot();
		assert_int_equal(step_commit(), 0);
		if (m.broken)
			fail_msg("seed %d: %s", (int)seed, m.broken);
		meta_stop(state);
	}
}

static void check_readable(void)
{
	uint8_t buf[SPAN];

	for (uint32_t f = 0; f < N_FILES; f++) {
		claim(vd_meta_read(world.meta, f, 0, buf, SPAN, 0, NULL) == 0, "a poisoned cache is read");
		claim(!memcmp(buf, m.now[f], SPAN), "a poisoned cache shows the newest");
	}
	claim(host_count('W') + host_count('F') == 0, "a poisoned cache writes nothing");
}

static void random_failures_poison_and_lose_nothing_in_memory(void **state)
{
	for (uint64_t seed = 0; seed < 10 * N_HISTORIES; seed++) {
		begin(&histories[seed % N_HISTORIES], seed);
		assert_int_equal(run(rnd(1000)), 0);
		if (!m.batch)
			step_snapshot();
		world.fail_after = rnd(8);
		if (step_commit() < 0) {
			host_clear_log();
			check_readable();
		}
		if (m.broken)
			fail_msg("seed %d: %s", (int)seed, m.broken);
		meta_stop(state);
	}
}

/* ---- threads ------------------------------------------------------------------------------------------ */

/*
 * Every page holds one number many times. Pages below N_COUNTED are written with rising numbers, and published[] says
 * which one a reader that starts now must see at least; the others are zeroed and forgotten, too.
 */
#define N_COUNTED 48
#define N_STRESSED 64
#define WORDS (PAGE / 8)
#define N_READS 20000

static struct {
	pthread_mutex_t alloc;
	atomic_ulong published[N_STRESSED];
	atomic_int n_torn, n_stale, n_failed;
	atomic_bool is_over;
} s;

static void *stress_read(void *seed)
{
	uint64_t x = (uintptr_t)seed, words[WORDS];

	for (int i = 0; i < N_READS; i++) {
		unsigned page, first, n;
		uint64_t least;

		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		page = (x >> 33) % N_STRESSED;
		first = (x >> 40) % (WORDS - 1);
		n = 1 + (x >> 50) % (WORDS - 1 - first);
		least = s.published[page];
		if (vd_meta_read(world.meta, 0, page * PAGE + first * 8, words, n * 8, 0, NULL) < 0)
			s.n_failed++;
		for (unsigned k = 1; k < n; k++)
			s.n_torn += words[k] != words[0];
		s.n_stale += page < N_COUNTED && words[0] < least;
	}
	return NULL;
}

static void stress_change(unsigned page, uint64_t number, unsigned how)
{
	uint64_t words[WORDS];

	for (unsigned k = 0; k < WORDS; k++)
		words[k] = number;
	if (page >= N_COUNTED && how % 4 == 0)
		s.n_failed += vd_meta_zero(world.meta, 0, page * PAGE, PAGE, VD_RANK_OWNER, NULL) < 0;
	else if (page >= N_COUNTED && how % 4 == 1)
		vd_meta_forget(world.meta, 0, page * PAGE, PAGE);
	else    /* the whole page, or all of it that is looked at */
		s.n_failed += vd_meta_write(world.meta, 0, page * PAGE, words, (WORDS - how % 2) * 8, how % 4, NULL) < 0;
	s.published[page] = number;
}

static void *stress_write(void *seed)
{
	uint64_t x = (uintptr_t)seed;

	for (uint64_t number = 1; !s.is_over; number++) {
		vd_auto_unlock pthread_mutex_t *held = vd_locked(&s.alloc);

		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		stress_change((x >> 33) % N_STRESSED, s.published[(x >> 33) % N_STRESSED] + 1, x >> 50);
	}
	return NULL;
}

static void *stress_commit(void *unused)
{
	uint64_t least[N_COUNTED];

	while (!s.is_over) {
		struct vd_meta_batch *b;

		pthread_mutex_lock(&s.alloc);
		s.n_failed += vd_meta_snapshot(world.meta, &b, NULL) < 0;
		for (int i = 0; i < N_COUNTED; i++)
			least[i] = s.published[i];
		pthread_mutex_unlock(&s.alloc);
		s.n_failed += vd_meta_commit(world.meta, b, NULL) < 0;
		pthread_mutex_lock(&world.lock);
		for (int i = 0; i < N_COUNTED; i++)
			s.n_stale += memcmp(world.files[0]->bytes + i * PAGE, &least[i], 8) != 0;
		pthread_mutex_unlock(&world.lock);
	}
	return unused;
}

static void stress(uint64_t cache_bytes)
{
	pthread_t readers[3], writers[2], committer;

	meta_start(cache_bytes, false);
	memset(&s, 0, sizeof(s));
	pthread_mutex_init(&s.alloc, NULL);
	memset(world.files[0]->bytes, 0, FILE_SIZE);
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, stress_read, (void *)(i + 1)), 0);
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&writers[i], NULL, stress_write, (void *)(i + 11)), 0);
	assert_int_equal(pthread_create(&committer, NULL, stress_commit, NULL), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(readers[i], NULL);
	s.is_over = true;
	for (int i = 0; i < 2; i++)
		pthread_join(writers[i], NULL);
	pthread_join(committer, NULL);
	assert_int_equal(s.n_failed, 0);
	assert_int_equal(s.n_torn, 0);
	assert_int_equal(s.n_stale, 0);
}

static void threads_see_whole_and_newest_pages(void **state)
{
	(void)state;
	stress(0);
}

static void threads_see_whole_and_newest_pages_without_eviction(void **state)
{
	(void)state;
	stress(1 << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_histories_agree_with_plain_bytes),
		cmocka_unit_test(random_failures_poison_and_lose_nothing_in_memory),
		cmocka_unit_test_teardown(threads_see_whole_and_newest_pages, meta_stop),
		cmocka_unit_test_teardown(threads_see_whole_and_newest_pages_without_eviction, meta_stop),
	};

	return cmocka_run_group_tests_name("meta_random", tests, NULL, NULL);
}
