/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* core/space: what is released comes out once and as it went in, and nobody reads what a waiter has seen the end of. */
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

/* The source itself: one test puts a reader between the two steps of vd_space_enter(). */
#include "libvdisk/core/space.c"

static struct vd_space *space;

static int start(void **state)
{
	(void)state;
	return vd_space_new(&space, NULL);
}

static int stop(void **state)
{
	(void)state;
	vd_alloc_fail_after(-1);
	vd_space_free(space);
	return 0;
}

/* ---- the quarantine ----------------------------------------------------------------------------------- */

static void release_n(uint64_t first, size_t n)
{
	for (uint64_t i = first; i < first + n; i++)
		vd_space_release(space, (struct vd_range){ .file = i % 3, .host_off = i * 4096, .len = 4096 });
}

static void check_batch(struct vd_space_batch b, uint64_t first, size_t n)
{
	assert_int_equal(b.n, n);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(b.ranges[i].host_off, (first + i) * 4096);
		assert_int_equal(b.ranges[i].len, 4096);
		assert_int_equal(b.ranges[i].file, (first + i) % 3);
	}
	free(b.ranges);
}

static void ranges_come_out_once_and_as_they_went_in(void **state)
{
	(void)state;
	check_batch(vd_space_take(space), 0, 0);
	release_n(0, 1000);
	check_batch(vd_space_take(space), 0, 1000);
	check_batch(vd_space_take(space), 0, 0);
	release_n(7, 1);
	check_batch(vd_space_take(space), 7, 1);
}

static void what_is_put_back_is_taken_again(void **state)
{
	struct vd_space_batch b;

	(void)state;
	release_n(10, 20);
	b = vd_space_take(space);
	release_n(0, 10);
	vd_space_put_back(space, b);
	check_batch(vd_space_take(space), 0, 30);
	vd_space_put_back(space, vd_space_take(space));
	check_batch(vd_space_take(space), 0, 0);
}

static void ranges_still_held_are_freed_with_the_space(void **state)
{
	(void)state;
	release_n(0, 100);      /* the leak checker is the judge */
}

static void want_of_memory_leaks_the_range_only(void **state)
{
	(void)state;
	release_n(0, 16);
	vd_alloc_fail_after(0);
	release_n(99, 1);
	release_n(16, 4);
	check_batch(vd_space_take(space), 0, 20);
}

/* ---- readers ------------------------------------------------------------------------------------------ */

static atomic_bool has_returned;

static void *wait_for_readers(void *unused)
{
	vd_space_wait_readers(space);
	has_returned = true;
	return unused;
}

static pthread_t start_waiter(void)
{
	pthread_t waiter;

	has_returned = false;
	assert_int_equal(pthread_create(&waiter, NULL, wait_for_readers, NULL), 0);
	usleep(20000);
	return waiter;
}

static void waiting_for_nobody_returns(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++) {
		vd_space_leave(space, vd_space_enter(space));
		vd_space_wait_readers(space);
	}
}

static void waiter_waits_for_each_reader_of_before(void **state)
{
	unsigned first, second;
	pthread_t waiter;

	(void)state;
	/* After any number of turns. */
	for (int turns = 0; turns < 4; turns++) {
		first = vd_space_enter(space);
		second = vd_space_enter(space);
		waiter = start_waiter();
		assert_false(has_returned);
		vd_space_leave(space, second);
		usleep(20000);
		assert_false(has_returned);
		vd_space_leave(space, first);
		pthread_join(waiter, NULL);
		vd_space_wait_readers(space);
	}
}

/* A reader chooses its phase, a whole wait goes by, and only then it is counted. */
static void reader_counted_late_is_waited_for(void **state)
{
	unsigned phase = space->phase & 1;
	pthread_t waiter;

	(void)state;
	vd_space_wait_readers(space);
	space->slots[5].readers[phase]++;
	waiter = start_waiter();
	assert_false(has_returned);
	vd_space_leave(space, 5 * 2 + phase);
	pthread_join(waiter, NULL);
}

/* The same, between the two turns of one wait: here the waiter need not wait, the next one must. */
static void reader_counted_between_two_turns_is_waited_for(void **state)
{
	(void)state;
	for (unsigned phase = 0; phase < 2; phase++) {
		pthread_t waiter;

		space->slots[9].readers[phase]++;
		waiter = start_waiter();
		assert_false(has_returned);
		vd_space_leave(space, 9 * 2 + phase);
		pthread_join(waiter, NULL);
	}
}

/* From here on there is always one reader at least, in one and the same slot. */
static void later_readers_do_not_hold_up_a_waiter(void **state)
{
	unsigned ticket = vd_space_enter(space);
	pthread_t waiter = start_waiter();

	(void)state;
	for (int i = 0; i < 2000 && !has_returned; i++) {
		unsigned next = vd_space_enter(space);

		vd_space_leave(space, ticket);
		ticket = next;
		usleep(1000);
	}
	assert_true(has_returned);
	vd_space_leave(space, ticket);
	pthread_join(waiter, NULL);
}

static void *leave_all(void *tickets)
{
	for (int i = 0; i < 200; i++)
		vd_space_leave(space, ((unsigned *)tickets)[i]);
	return NULL;
}

static void reader_may_leave_from_another_thread(void **state)
{
	unsigned tickets[200];
	pthread_t other;

	(void)state;
	for (int i = 0; i < 200; i++)
		tickets[i] = vd_space_enter(space);
	assert_int_equal(pthread_create(&other, NULL, leave_all, tickets), 0);
	vd_space_wait_readers(space);
	pthread_join(other, NULL);
	for (int i = 0; i < SLOTS; i++)
		assert_int_equal(space->slots[i].readers[0] | space->slots[i].readers[1], 0);
}

/* ---- threads ------------------------------------------------------------------------------------------ */

#define N_OBJECTS 8
#define N_TURNS 2000

static struct {
	atomic_uint current;            /* the object that readers find */
	bool is_gone[N_OBJECTS];        /* plain, so that a sanitizer sees whoever is not kept apart */
	atomic_uint n_seen_gone;
	atomic_bool is_over;
} shared;

static void *read_current(void *unused)
{
	while (!shared.is_over) {
		unsigned ticket = vd_space_enter(space);
		unsigned object = shared.current;

		for (int i = 0; i < 20; i++)
			shared.n_seen_gone += shared.is_gone[object];
		vd_space_leave(space, ticket);
	}
	return unused;
}

/* Readers overlap all the time: a waiter that waited for an instant without any would never return. */
static void readers_never_see_what_was_waited_for(void **state)
{
	pthread_t readers[4];

	(void)state;
	memset(&shared, 0, sizeof(shared));
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_current, NULL), 0);
	for (unsigned turn = 0; turn < N_TURNS; turn++) {
		unsigned old = shared.current;

		shared.is_gone[(old + 1) % N_OBJECTS] = false;
		shared.current = (old + 1) % N_OBJECTS;
		vd_space_wait_readers(space);
		shared.is_gone[old] = true;
	}
	shared.is_over = true;
	for (int i = 0; i < 4; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(shared.n_seen_gone, 0);
}

static void *wait_often(void *unused)
{
	for (int i = 0; i < 500; i++)
		vd_space_wait_readers(space);
	return unused;
}

static void several_may_wait_at_once(void **state)
{
	pthread_t readers[2], waiters[3];

	(void)state;
	memset(&shared, 0, sizeof(shared));
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_current, NULL), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&waiters[i], NULL, wait_often, NULL), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(waiters[i], NULL);
	shared.is_over = true;
	for (int i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
}

#define ON_SPACE(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_SPACE(ranges_come_out_once_and_as_they_went_in),
		ON_SPACE(what_is_put_back_is_taken_again),
		ON_SPACE(ranges_still_held_are_freed_with_the_space),
		ON_SPACE(want_of_memory_leaks_the_range_only),
		ON_SPACE(waiting_for_nobody_returns),
		ON_SPACE(waiter_waits_for_each_reader_of_before),
		ON_SPACE(reader_counted_late_is_waited_for),
		ON_SPACE(reader_counted_between_two_turns_is_waited_for),
		ON_SPACE(later_readers_do_not_hold_up_a_waiter),
		ON_SPACE(reader_may_leave_from_another_thread),
		ON_SPACE(readers_never_see_what_was_waited_for),
		ON_SPACE(several_may_wait_at_once),
	};

	return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
