/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Flushes of many threads at once: what they share, and what a failure means to each of them. */
#include <errno.h>
#include <pthread.h>

#include "libvdisk/base/alloc.h"
#include "tests/support/latency.h"
#include "tests/support/disks.h"

#define SIZE (64u << 20)
#define BLOCK 4096
#define N_THREADS 16
#define ROUNDS 4

static struct vd_latency slow;
static struct vd_image *img;

static void open_slow(unsigned flush_us)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, VD_OPEN_WRITE);
	struct vd_error e;

	disk_make(&vd_format_qcow2, "d", SIZE, NULL);
	slow = (struct vd_latency){ 0 };
	vd_latency_init(&slow, disks.host);
	expect_ok(vd_image_open_on(&slow.wrap.host, &vd_format_qcow2, "d", &opts, &img, &e), &e);
	disk_write(img, 0, 1, 1);
	disk_flush(img);
	slow.flush_us = flush_us;
}

struct worker {
	pthread_t thread;
	unsigned number, n_rounds;
	uint64_t first;                 /* cluster of all threads' first round */
	int result;
	struct vd_error e;
};

/* Each write is the first in its cluster. */
static void *write_and_flush(void *arg)
{
	struct worker *w = arg;
	uint8_t block[BLOCK];

	memset(block, (int)w->number + 1, sizeof(block));
	for (unsigned i = 0; i < w->n_rounds && w->result == 0; i++) {
		w->result = vd_image_pwrite(img, block, BLOCK, (w->first + i * N_THREADS + w->number) * 65536, &w->e);
		if (w->result == 0)
			w->result = vd_image_flush(img, &w->e);
	}
	return NULL;
}

static struct worker workers[N_THREADS];

static void run_workers(unsigned n, unsigned n_rounds, uint64_t first)
{
	for (unsigned i = 0; i < n; i++) {
		workers[i] = (struct worker){ .number = i, .n_rounds = n_rounds, .first = first };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, write_and_flush, &workers[i]), 0);
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(workers[i].thread, NULL);
}

/* How many flushes of the file the 64 take: two a commit. */
static size_t count_flushes(uint64_t first)
{
	uint64_t tick = vd_record_tick(disks.record);

	run_workers(N_THREADS, ROUNDS, first);
	for (unsigned i = 0; i < N_THREADS; i++)
		expect_ok(workers[i].result, &workers[i].e);
	return disks_count(VD_OP_FLUSH, tick);
}

/*
 * Five commits serve 64 calls: a leader waits a moment for those whom the last one has served. Without that patience it
 * takes eight, with half of the threads in each; and 35 where those who were served queue up behind the next. On a
 * busy machine a thread may be late, so the best of some tries counts.
 */
static void threads_that_flush_share_commits(void **state)
{
	size_t least = SIZE_MAX;

	(void)state;
	open_slow(20000);
	for (int i = 0; i < 5 && least > 14; i++) {
		size_t n = count_flushes(1 + i * N_THREADS * ROUNDS);

		least = n < least ? n : least;
	}
	assert_in_range(least, 2, 14);
	slow.flush_us = 0;
	for (unsigned i = 0; i < ROUNDS * N_THREADS; i++)
		disk_expect(img, (i + 1) * 65536, BLOCK, i % N_THREADS + 1);
	disk_close(img);
}

static void a_failed_commit_fails_all_who_wait(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_FLUSH, .nth = 1, .err = EIO, .for_ever = true };

	(void)state;
	open_slow(20000);
	vd_fault_arm(disks.fault, &plan);
	run_workers(N_THREADS, 1, 1);
	vd_fault_arm(disks.fault, NULL);
	for (unsigned i = 0; i < N_THREADS; i++)
		assert_true(workers[i].result == VD_EIO || workers[i].result == VD_EPOISONED);
	assert_int_equal(vd_image_flush(img, NULL), VD_EPOISONED);
	vd_image_abort(img);
}

/* Nothing was written yet, so the next one may try again. */
static void want_of_memory_harms_no_later_flush(void **state)
{
	struct vd_error e;

	(void)state;
	open_slow(0);
	disk_write(img, SIZE / 2, BLOCK, 2);
	vd_alloc_fail_after(0);
	expect_failure(vd_image_flush(img, &e), VD_ENOMEM, &e, "memory");
	vd_alloc_fail_after(-1);
	run_workers(N_THREADS, 1, 1);
	for (unsigned i = 0; i < N_THREADS; i++)
		expect_ok(workers[i].result, &workers[i].e);
	disk_expect(img, SIZE / 2, BLOCK, 2);
	disk_close(img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(threads_that_flush_share_commits, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_failed_commit_fails_all_who_wait, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(want_of_memory_harms_no_later_flush, disks_start, disks_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
