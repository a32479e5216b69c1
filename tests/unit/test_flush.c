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
		w->result = vd_image_pwrite(img, block, BLOCK, ((uint64_t)i * N_THREADS + w->number + 1) * 65536, &w->e);
		if (w->result == 0)
			w->result = vd_image_flush(img, &w->e);
	}
	return NULL;
}

static struct worker workers[N_THREADS];

static void run_workers(unsigned n, unsigned n_rounds)
{
	for (unsigned i = 0; i < n; i++) {
		workers[i] = (struct worker){ .number = i, .n_rounds = n_rounds };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, write_and_flush, &workers[i]), 0);
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(workers[i].thread, NULL);
}

/*
 * While one commit runs, half of the threads gather for the next: some eight commits of two flushes each, where 64 would
 * be one for each call. Forty is what comes of it when those whom a commit has served have to queue up behind it.
 */
static void threads_that_flush_share_commits(void **state)
{
	uint64_t tick;

	(void)state;
	open_slow(20000);
	tick = vd_record_tick(disks.record);
	run_workers(N_THREADS, ROUNDS);
	for (unsigned i = 0; i < N_THREADS; i++)
		expect_ok(workers[i].result, &workers[i].e);
	assert_in_range(disks_count(VD_OP_FLUSH, tick), 2, 32);
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
	run_workers(N_THREADS, 1);
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
	run_workers(N_THREADS, 1);
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
