/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Queues: completions, waiting, flushes, errors, ends; each by threads alone and, where the kernel lets us, by io_uring. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/queue.h"
#include "tests/support/latency.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define SIZE (4u << 20)
#define DEPTH 32
#define BLOCK 4096
#define LONG_MS 20000           /* what takes so long has gone wrong */
#define SHORT_MS 50             /* what has not happened by then is taken to wait */

static bool by_threads;         /* of the test that runs */
static uint8_t blocks[DEPTH][BLOCK];

static struct vd_queue *queue_on(struct vd_image *img, unsigned depth)
{
	struct vd_queue_opts opts = { .struct_size = sizeof(opts), .flags = by_threads ? VD_QUEUE_NO_URING : 0 };
	struct vd_queue *q = NULL;
	struct vd_error e;

	expect_ok(vd_queue_new(img, depth, &opts, &q, &e), &e);
	return q;
}

static void submit(struct vd_queue *q, const struct vd_request *reqs, size_t n)
{
	struct vd_error e;

	expect_ok(vd_queue_submit(q, reqs, n, &e), &e);
}

static void submit_one(struct vd_queue *q, enum vd_request_kind kind, void *buf, size_t len, uint64_t off)
{
	submit(q, &(struct vd_request){ kind, buf, len, off, buf, 0 }, 1);
}

/* Reaps exactly n, all of them good. */
static void finish(struct vd_queue *q, size_t n)
{
	struct vd_completion c;

	for (size_t i = 0; i < n; i++) {
		assert_int_equal(vd_queue_reap(q, &c, 1, 1, LONG_MS), 1);
		expect_ok(c.result, &c.error);
	}
	assert_int_equal(vd_queue_reap(q, &c, 1, 1, 0), 0);
}

/* ---- fixtures ------------------------------------------------------------------------------------------- */

/* A real, encrypted file, which the ring can read; block i of the first DEPTH is full of i. */
static struct vd_image *open_file(void)
{
	struct vd_create_opts opts = { .struct_size = sizeof(opts), .format = "qcow2", .size = SIZE, .kdf = { .iterations = 1000 } };
	struct vd_image *img = NULL;
	struct vd_error e;
	vd_auto_free uint8_t *bytes = malloc(SIZE / 2);

	for (size_t i = 0; i < SIZE / 2; i++)
		bytes[i] = i / BLOCK;
	expect_ok(vd_key_from_bytes("correct horse", 13, &opts.key, &e), &e);
	expect_ok(vd_image_create("q.qcow2", &opts, &img, &e), &e);
	expect_ok(vd_image_pwrite(img, bytes, SIZE / 2, 0, &e), &e);
	expect_ok(vd_image_commit(img, &e), &e);
	expect_ok(vd_image_close(img, &e), &e);
	expect_ok(vd_image_open("q.qcow2", &(struct vd_open_opts){ .struct_size = sizeof(struct vd_open_opts),
			.flags = VD_OPEN_WRITE, .keys = &opts.key, .n_keys = 1 }, &img, &e), &e);
	vd_key_free(opts.key);
	/* The tables are in memory from here on. */
	expect_ok(vd_image_pread(img, blocks[0], BLOCK, 0, &e), &e);
	return img;
}

static void close_file(struct vd_image *img)
{
	struct vd_error e;

	expect_ok(vd_image_close(img, &e), &e);
}

/* In memory, slow to write, flush and read. */
static struct vd_latency slow;

static struct vd_image *open_slow(unsigned us)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, VD_OPEN_WRITE);
	struct vd_image *img = NULL;
	struct vd_error e;

	disk_make(&vd_format_qcow2, "d", SIZE, NULL);
	slow = (struct vd_latency){ 0 };
	vd_latency_init(&slow, disks.host);
	expect_ok(vd_image_open_on(&slow.wrap.host, &vd_format_qcow2, "d", &opts, &img, &e), &e);
	disk_write(img, 0, SIZE / 2, 1);
	disk_flush(img);
	slow.read_us = slow.write_us = slow.flush_us = us;
	return img;
}

/* Reads in the ring take until something is written into the pipe; threads read memory as ever. */
static struct held {
	struct vd_wrap wrap;
	struct vd_image *img;
	struct vd_queue *q;
	int into;
} held;

static bool hold_reads(void)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, VD_OPEN_WRITE);
	struct vd_error e;
	int ends[2];

	disk_make(&vd_format_qcow2, "d", SIZE, NULL);
	held = (struct held){ 0 };
	vd_wrap_init(&held.wrap, disks.host);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	held.wrap.descriptor = ends[0];
	held.into = ends[1];
	expect_ok(vd_image_open_on(&held.wrap.host, &vd_format_qcow2, "d", &opts, &held.img, &e), &e);
	disk_write(held.img, 0, SIZE / 2, 1);
	disk_flush(held.img);
	held.q = queue_on(held.img, DEPTH);
	return vd_queue_has_ring(held.q);
}

static void let_read(size_t len)
{
	uint8_t bytes[BLOCK];

	memset(bytes, 7, sizeof(bytes));
	assert_int_equal(write(held.into, bytes, len), len);
}

static void end_hold(void)
{
	vd_queue_free(held.q);
	disk_close(held.img);
	close(held.wrap.descriptor);
	close(held.into);
}

/* ---- completions ---------------------------------------------------------------------------------------- */

static void each_request_completes_once_with_what_it_was_given(void **state)
{
	struct vd_image *img = open_file();
	struct vd_queue *q = queue_on(img, DEPTH);
	struct vd_request reqs[DEPTH];
	struct vd_completion c[DEPTH];
	unsigned seen[DEPTH] = { 0 };

	(void)state;
	for (size_t i = 0; i < DEPTH; i++)
		reqs[i] = (struct vd_request){ VD_REQUEST_READ, blocks[i], BLOCK, i * BLOCK, &seen[i], 0 };
	submit(q, reqs, DEPTH);
	assert_int_equal(vd_queue_reap(q, c, DEPTH, DEPTH, LONG_MS), DEPTH);
	for (size_t i = 0; i < DEPTH; i++) {
		expect_ok(c[i].result, &c[i].error);
		++*(unsigned *)c[i].user;
	}
	for (size_t i = 0; i < DEPTH; i++) {
		assert_int_equal(seen[i], 1);
		assert_int_equal(blocks[i][0], i);
		assert_int_equal(blocks[i][BLOCK - 1], i);
	}
	assert_int_equal(vd_queue_reap(q, c, DEPTH, 1, LONG_MS), 0);
	assert_int_equal(vd_queue_n_ring_reads(q), vd_queue_has_ring(q) ? DEPTH : 0);
	vd_queue_free(q);
	close_file(img);
}

static void reads_of_any_alignment_and_length_are_right(void **state)
{
	struct vd_image *img = open_file();
	struct vd_queue *q = queue_on(img, DEPTH);
	vd_auto_free uint8_t *want = malloc(SIZE), *got = malloc(SIZE);
	uint64_t chance = 1;
	struct vd_error e;

	(void)state;
	expect_ok(vd_image_pread(img, want, SIZE, 0, &e), &e);
	for (int i = 0; i < 300; i++) {
		uint64_t off = chance_below(&chance, SIZE), len = chance_below(&chance, i % 3 ? 9000 : 300000);

		if (i % 2) {
			off = vd_round_down(off, 512);
			len = vd_round_up(len, 512);
		}
		len = vd_min_u64(len, SIZE - off);
		memset(got, 0xee, len);
		submit_one(q, VD_REQUEST_READ, got, len, off);
		finish(q, 1);
		assert_memory_equal(got, want + off, len);
	}
	vd_queue_free(q);
	close_file(img);
}

static void a_full_queue_takes_none(void **state)
{
	struct vd_image *img = open_slow(1000);
	struct vd_queue *q = queue_on(img, 3);
	struct vd_request reqs[4];
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < 4; i++)
		reqs[i] = (struct vd_request){ VD_REQUEST_READ, blocks[i], BLOCK, i * BLOCK, NULL, 0 };
	expect_failure(vd_queue_submit(q, reqs, 4, &e), VD_EAGAIN, &e, "room for 3 requests, not for 4");
	submit(q, reqs, 2);
	expect_failure(vd_queue_submit(q, reqs + 2, 2, &e), VD_EAGAIN, &e, "room for 1");
	submit(q, reqs + 2, 1);
	finish(q, 3);
	/* What is reaped makes room. */
	submit(q, reqs, 3);
	finish(q, 3);
	reqs[1].kind = 99;
	expect_failure(vd_queue_submit(q, reqs, 2, &e), VD_EARG, &e, "request 1");
	finish(q, 0);
	vd_queue_free(q);
	disk_close(img);
}

static void errors_belong_to_the_request_that_failed(void **state)
{
	struct vd_image *img = open_file();
	struct vd_queue *q = queue_on(img, DEPTH);
	bool good = true, bad = false;
	struct vd_request reqs[] = {
		{ VD_REQUEST_READ, blocks[0], BLOCK, 0, &good, 0 },
		{ VD_REQUEST_READ, blocks[1], BLOCK, SIZE, &bad, 0 },
		{ VD_REQUEST_WRITE, blocks[2], BLOCK, SIZE - 1, &bad, 0 },
		{ VD_REQUEST_ZEROES, NULL, BLOCK, UINT64_MAX, &bad, 0 },
		{ VD_REQUEST_READ, blocks[4], BLOCK, BLOCK, &good, 0 },
	};
	struct vd_completion c[5];

	(void)state;
	submit(q, reqs, 5);
	assert_int_equal(vd_queue_reap(q, c, 5, 5, LONG_MS), 5);
	for (size_t i = 0; i < 5; i++) {
		if (*(bool *)c[i].user)
			expect_ok(c[i].result, &c[i].error);
		else
			expect_failure(c[i].result, VD_ERANGE, &c[i].error, "outside the disk");
	}
	vd_queue_free(q);
	close_file(img);
}

static void a_failing_disk_fails_the_request(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_READ, .nth = 1, .err = EIO };
	struct vd_image *img = open_slow(0);
	struct vd_queue *q = queue_on(img, 1);
	struct vd_completion c;

	(void)state;
	vd_fault_arm(disks.fault, &plan);
	submit_one(q, VD_REQUEST_READ, blocks[0], BLOCK, 0);
	assert_int_equal(vd_queue_reap(q, &c, 1, 1, LONG_MS), 1);
	expect_failure(c.result, VD_EIO, &c.error, "d");
	vd_fault_arm(disks.fault, NULL);
	submit_one(q, VD_REQUEST_READ, blocks[0], BLOCK, 0);
	finish(q, 1);
	vd_queue_free(q);
	disk_close(img);
}

/* Zeros in tables need no host I/O; a sector's part, a parent, a compressed cluster, a container take a thread. */
static void every_kind_of_image_works_through_a_queue(void **state)
{
	const struct variant *v = *state;
	struct model m;
	struct vd_image *img;
	struct vd_queue *q;

	model_init(&m, v->size, 5);
	if (!variant_make(v, &m)) {
		model_free(&m);
		skip();
	}
	img = variant_open(v, VD_OPEN_WRITE);
	q = queue_on(img, DEPTH);
	for (int i = 0; i < 40; i++) {
		uint64_t slice = v->size / 8, used = 0;

		for (uint64_t k = 0; k < 8; k++) {
			uint64_t off = k * slice + chance_below(&m.chance, slice / 2), len = 1 + chance_below(&m.chance, slice / 2);
			uint64_t die = chance_below(&m.chance, 8);

			memset(m.bytes + off, die < 2 ? 0 : chance_next(&m.chance), len);
			submit_one(q, die < 2 ? VD_REQUEST_ZEROES : VD_REQUEST_WRITE, m.bytes + off, len, off);
			used++;
		}
		submit_one(q, VD_REQUEST_FLUSH, NULL, 0, 0);
		finish(q, used + 1);
		model_check(&m, img, 0, v->size);
	}
	vd_queue_free(q);
	disk_close(img);
	if (peer_knows(v)) {
		peer_check(v, disks.mem, false);
		peer_compare(v, disks.mem, &m);
	}
	model_free(&m);
}

static void zeros_keep_their_space_and_discards_give_it_back(void **state)
{
	struct vd_image *img = open_file();
	struct vd_queue *q = queue_on(img, DEPTH);
	struct vd_run run;
	size_t one = 1;

	(void)state;
	submit(q, &(struct vd_request){ .kind = VD_REQUEST_ZEROES, .len = 65536, .flags = VD_ZERO_ALLOCATED }, 1);
	submit(q, &(struct vd_request){ .kind = VD_REQUEST_DISCARD, .off = 65536, .len = 65536 }, 1);
	finish(q, 2);
	disk_expect(img, 0, 131072, 0);
	assert_int_equal(img->format->map(img->state, 0, 1, 0, &run, &one, NULL), 0);
	assert_true(run.flags & VD_RUN_HOSTED);
	assert_int_equal(img->format->map(img->state, 65536, 1, 0, &run, &one, NULL), 0);
	assert_false(run.flags & VD_RUN_HOSTED);
	vd_queue_free(q);
	close_file(img);
}

/* ---- waiting -------------------------------------------------------------------------------------------- */

static bool is_readable(struct vd_queue *q, int timeout_ms)
{
	struct pollfd p = { .fd = vd_queue_poll_fd(q), .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1 && p.revents & POLLIN;
}

static void the_descriptor_is_readable_while_something_can_be_reaped(void **state)
{
	struct vd_image *img = open_file();
	struct vd_queue *q = queue_on(img, DEPTH);
	struct vd_completion c[2];

	(void)state;
	for (int round = 0; round < 3; round++) {
		assert_false(is_readable(q, 0));
		submit_one(q, VD_REQUEST_READ, blocks[0], BLOCK, 0);
		submit_one(q, VD_REQUEST_WRITE, blocks[1], BLOCK, BLOCK);
		assert_true(is_readable(q, LONG_MS));
		assert_true(is_readable(q, 0));
		assert_int_equal(vd_queue_reap(q, c, 1, 1, LONG_MS), 1);
		/* The second, as soon as it has ended. */
		assert_true(is_readable(q, LONG_MS));
		assert_int_equal(vd_queue_reap(q, c, 2, 0, 0), 1);
	}
	assert_false(is_readable(q, 0));
	vd_queue_free(q);
	close_file(img);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void reap_waits_as_long_as_it_is_told(void **state)
{
	struct vd_image *img = open_slow(1000000);
	struct vd_queue *q = queue_on(img, DEPTH);
	struct vd_completion c[4];
	uint64_t start = now_ms();

	(void)state;
	/* Nothing is under way: there is nothing to wait for. */
	assert_int_equal(vd_queue_reap(q, c, 4, 4, -1), 0);
	submit_one(q, VD_REQUEST_READ, blocks[0], BLOCK, 0);
	submit_one(q, VD_REQUEST_READ, blocks[1], BLOCK, BLOCK);
	assert_int_equal(vd_queue_reap(q, c, 4, 1, 0), 0);
	assert_int_equal(vd_queue_reap(q, c, 4, 1, SHORT_MS), 0);
	assert_true(now_ms() - start >= SHORT_MS);
	/* More than there are: all that is under way. */
	assert_int_equal(vd_queue_reap(q, c, 4, 3, -1), 2);
	assert_true(now_ms() - start >= 1000);
	vd_queue_free(q);
	disk_close(img);
}

/* ---- flushes -------------------------------------------------------------------------------------------- */

/* Every state after a crash, from the flush's end on, holds what had ended before it was submitted. */
static void flush_covers_what_had_ended(void **state)
{
	struct vd_image *img = open_slow(0);
	struct vd_queue *q = queue_on(img, DEPTH);
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, 0);
	struct vd_completion c[7];
	uint64_t tick;

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		memset(blocks[i], 0xa0 + i, BLOCK);
		submit_one(q, VD_REQUEST_WRITE, blocks[i], BLOCK, SIZE / 2 + i * 65536);
	}
	/* The last one has ended, too, but is not reaped. */
	assert_int_equal(vd_queue_reap(q, c, 7, 7, LONG_MS), 7);
	assert_true(is_readable(q, LONG_MS));
	submit_one(q, VD_REQUEST_FLUSH, NULL, 0, 0);
	finish(q, 2);
	tick = vd_record_tick(disks.record);
	vd_queue_free(q);
	for (size_t i = 0; i < vd_crash_count(disks.record, 2); i++) {
		struct vd_crash crash;
		struct vd_image *after;

		assert_int_equal(vd_crash_state(disks.record, 2, 1, i, &crash, NULL), 0);
		if (crash.tick >= tick) {
			assert_int_equal(vd_image_open_on(crash.host, &vd_format_qcow2, "d", &opts, &after, NULL), 0);
			for (size_t k = 0; k < 8; k++)
				disk_expect(after, SIZE / 2 + k * 65536, BLOCK, 0xa0 + k);
			vd_image_abort(after);
		}
		vd_mem_host_free(crash.host);
	}
	vd_image_abort(img);
}

static void flushes_under_way_together_share_one_another(void **state)
{
	struct vd_image *img = open_slow(20000);
	struct vd_queue *q = queue_on(img, DEPTH);
	uint64_t tick;

	(void)state;
	for (size_t i = 0; i < 16; i++)
		submit_one(q, VD_REQUEST_WRITE, blocks[i], BLOCK, i * BLOCK);
	finish(q, 16);
	tick = vd_record_tick(disks.record);
	for (size_t i = 0; i < 16; i++)
		submit_one(q, VD_REQUEST_FLUSH, NULL, 0, 0);
	finish(q, 16);
	assert_true(disks_count(VD_OP_FLUSH, tick) <= 8);
	vd_queue_free(q);
	disk_close(img);
}

/* ---- beside others -------------------------------------------------------------------------------------- */

static void the_shape_changes_though_nobody_reaps(void **state)
{
	struct vd_image *img = open_file();
	struct vd_queue *q = queue_on(img, DEPTH);
	struct vd_error e;

	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		char name[8] = { 'a' + round };

		for (size_t i = 0; i < DEPTH; i++) {
			memset(blocks[i], i, BLOCK);
			submit_one(q, i % 4 == 3 ? VD_REQUEST_WRITE : VD_REQUEST_READ, blocks[i], BLOCK, i * BLOCK);
		}
		expect_ok(vd_snapshot_create(img, name, &e), &e);
		expect_ok(vd_image_resize(img, SIZE + 65536 * (round + 1), 0, &e), &e);
		finish(q, DEPTH);
		for (size_t i = 0; i < DEPTH; i++)
			assert_int_equal(blocks[i][0], i);
	}
	vd_queue_free(q);
	close_file(img);
}

struct actor {
	pthread_t thread;
	bool (*act)(void);
	atomic_bool has_ended, is_good;
};

static void *act_in_thread(void *arg)
{
	struct actor *a = arg;

	a->is_good = a->act();
	a->has_ended = true;
	return NULL;
}

/* Begins the act, finds that it waits, ends the read in the ring, finds that it goes on. */
static void waits_for_the_read(bool (*act)(void))
{
	struct actor a = { .act = act };
	uint8_t got[BLOCK] = { 0 };

	submit_one(held.q, VD_REQUEST_READ, got, BLOCK, 0);
	assert_int_equal(vd_queue_n_ring_reads(held.q), 1);
	pthread_create(&a.thread, NULL, act_in_thread, &a);
	usleep(SHORT_MS * 1000);
	assert_false(a.has_ended);
	let_read(BLOCK);
	pthread_join(a.thread, NULL);
	assert_true(a.is_good);
	finish(held.q, 1);
	assert_int_equal(got[0], 7);
}

static bool free_its_cluster(void)
{
	return vd_image_write_zeroes(held.img, 0, 65536, 0, NULL) == 0 && vd_image_flush(held.img, NULL) == 0;
}

static bool take_snapshot(void)
{
	return vd_snapshot_create(held.img, "s", NULL) == 0;
}

static void a_cluster_is_not_reused_under_a_read(void **state)
{
	(void)state;
	if (hold_reads())
		waits_for_the_read(free_its_cluster);
	end_hold();
}

static void a_snapshot_waits_for_reads_under_way(void **state)
{
	(void)state;
	if (hold_reads())
		waits_for_the_read(take_snapshot);
	end_hold();
}

static void a_read_that_comes_back_short_is_done_again(void **state)
{
	uint8_t got[2 * BLOCK];

	(void)state;
	if (hold_reads()) {
		submit_one(held.q, VD_REQUEST_READ, got, sizeof(got), 0);
		let_read(100);
		finish(held.q, 1);
		assert_int_equal(vd_queue_n_ring_reads(held.q), 1);
		for (size_t i = 0; i < sizeof(got); i++)
			assert_int_equal(got[i], 1);
	}
	end_hold();
}

struct crowd {
	pthread_t thread;
	struct vd_queue *q;
	unsigned number;
	size_t n_reaped;
};

/* Whoever reaps a request frees its buffer. */
static size_t reap_some(struct vd_queue *q, size_t min)
{
	struct vd_completion done[4];
	size_t n = vd_queue_reap(q, done, 4, min, LONG_MS);

	for (size_t i = 0; i < n; i++)
		free(done[i].user);
	return n;
}

/* Reads and writes its own block through the common queue, and reaps whatever comes. */
static void *join_crowd(void *arg)
{
	struct crowd *c = arg;
	struct vd_error e;

	for (unsigned i = 0; i < 200; i++) {
		void *buf = memset(malloc(BLOCK), (int)c->number, BLOCK);
		struct vd_request req = { i % 16 ? VD_REQUEST_READ : VD_REQUEST_WRITE, buf, BLOCK, c->number * BLOCK, buf, 0 };

		while (vd_queue_submit(c->q, &req, 1, &e) < 0)
			c->n_reaped += reap_some(c->q, 1);
	}
	return NULL;
}

static void threads_share_a_queue(void **state)
{
	struct vd_image *img = open_file();
	struct vd_queue *q = queue_on(img, 3);
	struct crowd crowd[3];
	size_t n = 0, more;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		crowd[i] = (struct crowd){ .q = q, .number = i };
		pthread_create(&crowd[i].thread, NULL, join_crowd, &crowd[i]);
	}
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(crowd[i].thread, NULL);
		n += crowd[i].n_reaped;
	}
	while ((more = reap_some(q, 1)))
		n += more;
	assert_int_equal(n, 600);
	for (unsigned i = 0; i < 3; i++)
		disk_expect(img, i * BLOCK, BLOCK, i);
	vd_queue_free(q);
	close_file(img);
}

/* ---- the end -------------------------------------------------------------------------------------------- */

static void free_waits_for_what_is_under_way(void **state)
{
	struct vd_image *img = open_slow(20000);
	struct vd_queue *q = queue_on(img, DEPTH);

	(void)state;
	for (size_t i = 0; i < DEPTH; i++) {
		memset(blocks[i], 0x40 + i, BLOCK);
		submit_one(q, VD_REQUEST_WRITE, blocks[i], BLOCK, i * BLOCK);
	}
	vd_queue_free(q);
	slow.read_us = slow.write_us = slow.flush_us = 0;
	for (size_t i = 0; i < DEPTH; i++)
		disk_expect(img, i * BLOCK, BLOCK, 0x40 + i);
	disk_close(img);
	vd_queue_free(NULL);
}

static void what_a_queue_cannot_be_is_refused(void **state)
{
	struct vd_image *img = open_slow(0);
	struct vd_queue_opts opts = { .struct_size = 1 };
	struct vd_queue *q = NULL;
	struct vd_error e;

	(void)state;
	expect_failure(vd_queue_new(img, 0, NULL, &q, &e), VD_EARG, &e, "1 to 16384");
	expect_failure(vd_queue_new(img, VD_QUEUE_DEPTH_MAX + 1, NULL, &q, &e), VD_EARG, &e, "not 16385");
	expect_failure(vd_queue_new(img, 1, &opts, &q, &e), VD_EARG, &e, "struct_size is 1");
	disk_close(img);
}

/* Want of memory for the queue fails it; want of memory for its ring alone leaves it to threads. */
static void want_of_memory_makes_no_half_queue(void **state)
{
	struct vd_image *img = open_slow(0);
	struct vd_queue *q = NULL;
	struct vd_error e;
	int r = VD_ENOMEM;

	(void)state;
	for (long n = 0; r == VD_ENOMEM; n++) {
		vd_alloc_fail_after(n);
		r = vd_queue_new(img, 4, NULL, &q, &e);
		vd_alloc_fail_after(-1);
	}
	expect_ok(r, &e);
	submit_one(q, VD_REQUEST_READ, blocks[0], BLOCK, 0);
	finish(q, 1);
	vd_queue_free(q);
	disk_close(img);
}

/* From here on in this process. */
static bool forbid_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

static void where_io_uring_is_forbidden_threads_serve(void **state)
{
	struct vd_image *img = open_file();
	int status = -1;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		struct vd_queue *q = forbid_uring() ? queue_on(img, DEPTH) : NULL;
		struct vd_completion c;
		struct vd_request read = { VD_REQUEST_READ, blocks[5], BLOCK, 5 * BLOCK, NULL, 0 };

		_exit(!q || vd_queue_has_ring(q) || vd_queue_submit(q, &read, 1, NULL) || vd_queue_reap(q, &c, 1, 1, LONG_MS) != 1 ||
		      c.result || blocks[5][9] != 5);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	close_file(img);
}

/* ---- both ways ------------------------------------------------------------------------------------------ */

static void *folder;

static int start(void **state)
{
	return vd_tempdir_enter(&folder) < 0 ? -1 : disks_start(state);
}

static int stop(void **state)
{
	return disks_stop(state) < 0 ? -1 : vd_tempdir_leave(&folder);
}

static int run_all(const char *name)
{
#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, start, stop)
	const struct CMUnitTest tests[] = {
		CLAIM(each_request_completes_once_with_what_it_was_given),
		CLAIM(reads_of_any_alignment_and_length_are_right),
		CLAIM(a_full_queue_takes_none),
		CLAIM(errors_belong_to_the_request_that_failed),
		CLAIM(a_failing_disk_fails_the_request),
		CLAIM(zeros_keep_their_space_and_discards_give_it_back),
		CLAIM(the_descriptor_is_readable_while_something_can_be_reaped),
		CLAIM(reap_waits_as_long_as_it_is_told),
		CLAIM(flush_covers_what_had_ended),
		CLAIM(flushes_under_way_together_share_one_another),
		CLAIM(the_shape_changes_though_nobody_reaps),
		CLAIM(a_cluster_is_not_reused_under_a_read),
		CLAIM(a_snapshot_waits_for_reads_under_way),
		CLAIM(a_read_that_comes_back_short_is_done_again),
		CLAIM(threads_share_a_queue),
		CLAIM(free_waits_for_what_is_under_way),
		CLAIM(what_a_queue_cannot_be_is_refused),
		CLAIM(want_of_memory_makes_no_half_queue),
		CLAIM(where_io_uring_is_forbidden_threads_serve),
	};

	return _cmocka_run_group_tests(name, tests, sizeof(tests) / sizeof(tests[0]), NULL, NULL);
}

/* In memory, by threads whatever the kernel knows. */
static int run_variants(void)
{
	vd_auto_free struct CMUnitTest *tests = calloc(n_variants, sizeof(*tests));

	for (size_t i = 0; i < n_variants; i++)
		tests[i] = (struct CMUnitTest){ variants[i].name, every_kind_of_image_works_through_a_queue, start, stop,
						(void *)&variants[i] };
	return _cmocka_run_group_tests("queue kinds", tests, n_variants, NULL, NULL);
}

int main(void)
{
	int r = run_all("queue");

	by_threads = true;
	r |= run_all("queue by threads");
	return r | run_variants();
}
