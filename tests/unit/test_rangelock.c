/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* core/rangelock: those that overlap wait, in the order of their coming; others do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The source itself: only its queue tells for sure that a thread has come. */
#include "libvdisk/core/rangelock.c"

static struct vd_rangelock *lock;

static int start(void **state)
{
	(void)state;
	return vd_rangelock_new(&lock, NULL);
}

static int stop(void **state)
{
	(void)state;
	vd_rangelock_free(lock);
	return 0;
}

/* A thread that takes a range, notes when it got it, and keeps it until it is told. */
struct taker {
	pthread_t thread;
	uint64_t off, len;
	atomic_int got;                 /* 0: not yet; else its place in the order */
	atomic_bool may_go;
};

static atomic_int n_got;

static void *take(void *arg)
{
	struct taker *t = arg;
	struct vd_rangehold h;

	vd_rangelock_acquire(lock, &h, t->off, t->len);
	t->got = ++n_got;
	while (!t->may_go)
		usleep(1000);
	vd_rangelock_release(&h);
	return NULL;
}

static size_t queue_length(void)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&lock->lock);
	size_t n = 0;

	for (struct vd_rangehold *h = lock->first; h; h = h->next)
		n++;
	return n;
}

/* Returns when it has its place in the queue. */
static void start_taker(struct taker *t, uint64_t off, uint64_t len)
{
	size_t before = queue_length();

	memset(t, 0, sizeof(*t));
	t->off = off;
	t->len = len;
	assert_int_equal(pthread_create(&t->thread, NULL, take, t), 0);
	while (queue_length() == before)
		usleep(100);
}

static bool gets(const struct taker *t)
{
	for (int i = 0; i < 10000 && !t->got; i++)
		usleep(1000);
	return t->got;
}

static bool waits(const struct taker *t)
{
	usleep(10000);
	return !t->got;
}

static void end_taker(struct taker *t)
{
	t->may_go = true;
	pthread_join(t->thread, NULL);
}

static void overlapping_ranges_wait_and_others_do_not(void **state)
{
	static const struct { uint64_t off, len; bool waits; } cases[] = {
		{ 0, 100, false }, { 200, 1, false }, { 201, UINT64_MAX, false }, { 100, 1, true }, { 199, 1, true },
		{ 0, 101, true }, { 199, 100, true }, { 120, 10, true }, { 0, UINT64_MAX, true }, { 150, UINT64_MAX, true },
	};
	struct vd_rangehold h;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct taker t;

		vd_rangelock_acquire(lock, &h, 100, 100);
		start_taker(&t, cases[i].off, cases[i].len);
		assert_true(cases[i].waits ? waits(&t) : gets(&t));
		vd_rangelock_release(&h);
		end_taker(&t);
	}
}

/* From an offset whose end would wrap, a range reaches to the end. */
static void range_at_the_end_of_offsets_is_held(void **state)
{
	struct vd_rangehold h;
	struct taker t;

	(void)state;
	vd_rangelock_acquire(lock, &h, UINT64_MAX - 10, 100);
	start_taker(&t, UINT64_MAX - 5, 3);
	assert_true(waits(&t));
	vd_rangelock_release(&h);
	end_taker(&t);
}

static void large_range_is_served_before_small_ones_that_came_later(void **state)
{
	struct taker large, small, elsewhere;
	struct vd_rangehold h;

	(void)state;
	vd_rangelock_acquire(lock, &h, 0, 1);
	start_taker(&large, 0, 100);
	start_taker(&small, 50, 1);     /* free but for the one that waits */
	start_taker(&elsewhere, 100, 1);
	assert_true(gets(&elsewhere));
	assert_true(waits(&large));
	assert_true(waits(&small));
	vd_rangelock_release(&h);
	end_taker(&large);
	end_taker(&small);
	end_taker(&elsewhere);
	assert_true(large.got < small.got);
}

static void waiter_waits_for_all_in_its_range(void **state)
{
	struct vd_rangehold first, second;
	struct taker t;

	(void)state;
	vd_rangelock_acquire(lock, &first, 0, 10);
	vd_rangelock_acquire(lock, &second, 10, 10);
	start_taker(&t, 0, 20);
	vd_rangelock_release(&first);
	assert_true(waits(&t));
	vd_rangelock_release(&second);
	end_taker(&t);
}

static void release_wakes_all_that_may_go(void **state)
{
	struct taker takers[4];
	struct vd_rangehold h;

	(void)state;
	vd_rangelock_acquire(lock, &h, 0, 100);
	for (int i = 0; i < 4; i++)
		start_taker(&takers[i], i * 10, 10);
	vd_rangelock_release(&h);
	for (int i = 0; i < 4; i++)
		assert_true(gets(&takers[i]));
	for (int i = 0; i < 4; i++)
		end_taker(&takers[i]);
}

/* ---- threads ------------------------------------------------------------------------------------------ */

#define N_CELLS 64
#define N_TAKES 3000

static unsigned cells[N_CELLS];         /* plain: a sanitizer sees who is not kept apart */
static atomic_uint n_added;

static void *add_to_cells(void *seed)
{
	uint64_t x = (uintptr_t)seed;

	for (int i = 0; i < N_TAKES; i++) {
		struct vd_rangehold h;
		unsigned from, len;

		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		from = (x >> 33) % N_CELLS;
		len = 1 + (x >> 45) % (i % 50 ? 4 : N_CELLS);
		len = len > N_CELLS - from ? N_CELLS - from : len;
		vd_rangelock_acquire(lock, &h, from, len);
		for (unsigned c = from; c < from + len; c++)
			cells[c]++;
		vd_rangelock_release(&h);
		n_added += len;
	}
	return NULL;
}

static void holders_are_alone_in_their_range(void **state)
{
	pthread_t threads[6];
	unsigned sum = 0;

	(void)state;
	memset(cells, 0, sizeof(cells));
	n_added = 0;
	for (uintptr_t i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_to_cells, (void *)(i + 1)), 0);
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < N_CELLS; i++)
		sum += cells[i];
	assert_int_equal(sum, n_added);
}

#define ON_LOCK(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_LOCK(overlapping_ranges_wait_and_others_do_not),
		ON_LOCK(range_at_the_end_of_offsets_is_held),
		ON_LOCK(large_range_is_served_before_small_ones_that_came_later),
		ON_LOCK(waiter_waits_for_all_in_its_range),
		ON_LOCK(release_wakes_all_that_may_go),
		ON_LOCK(holders_are_alone_in_their_range),
	};

	return cmocka_run_group_tests_name("rangelock", tests, NULL, NULL);
}
