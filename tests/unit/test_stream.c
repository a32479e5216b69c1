/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How finished ranges go to storage and out of memory. The system call is this file's own, to be watched and to fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "libvdisk/io/io.h"
#include "libvdisk/io/stream.h"
#include "tests/support/tempdir.h"

#define MIB ((uint64_t)1 << 20)
#define SPAN (4 * MIB)
#define CALLS 64

static struct {
	pthread_mutex_t lock;
	size_t n;
	struct { uint64_t from, to; bool waits; } calls[CALLS];
	int fail_at, err;               /* from this call on, from 1; 0: none */
} kernel = { .lock = PTHREAD_MUTEX_INITIALIZER };

int sync_file_range(int fd, off_t off, off_t len, unsigned flags)
{
	bool fails;

	(void)fd;
	pthread_mutex_lock(&kernel.lock);
	if (kernel.n < CALLS) {
		kernel.calls[kernel.n].from = (uint64_t)off;
		kernel.calls[kernel.n].to = (uint64_t)(off + len);
		kernel.calls[kernel.n].waits = flags & SYNC_FILE_RANGE_WAIT_AFTER;
	}
	kernel.n++;
	fails = kernel.fail_at && kernel.n >= (size_t)kernel.fail_at;
	pthread_mutex_unlock(&kernel.lock);
	if (fails)
		errno = kernel.err;
	return fails ? -1 : 0;
}

static int start(void **state)
{
	kernel.n = 0;
	kernel.fail_at = 0;
	return vd_tempdir_enter(state);
}

static struct vd_io *make_file(void)
{
	struct vd_io *io = NULL;

	assert_int_equal(vd_host_os()->open(vd_host_os(), "f", VD_IO_CREATE, &io, NULL), 0);
	return io;
}

static void storing_starts_with_each_span_and_ends_with_a_later_one(void **state)
{
	struct vd_stream s;

	(void)state;
	vd_stream_init(&s);
	for (uint64_t off = 0; off < (VD_STREAM_DEPTH + 2) * SPAN; off += MIB)
		assert_int_equal(vd_stream_add(&s, -1, off, MIB), 0);
	assert_int_equal(kernel.n, VD_STREAM_DEPTH + 2 + 2);
	for (uint64_t i = 0, call = 0; i < VD_STREAM_DEPTH + 2; i++, call++) {
		assert_int_equal(kernel.calls[call].from, i * SPAN);
		assert_int_equal(kernel.calls[call].to, (i + 1) * SPAN);
		assert_false(kernel.calls[call].waits);
		if (i < VD_STREAM_DEPTH)
			continue;
		call++;
		assert_int_equal(kernel.calls[call].from, (i - VD_STREAM_DEPTH) * SPAN);
		assert_int_equal(kernel.calls[call].to, (i - VD_STREAM_DEPTH + 1) * SPAN);
		assert_true(kernel.calls[call].waits);
	}
	vd_stream_fini(&s);
}

static void pieces_in_any_order_make_one_span(void **state)
{
	static const uint64_t order[] = { 3, 0, 5, 1 };
	struct vd_stream s;

	(void)state;
	vd_stream_init(&s);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(kernel.n, 0);
		assert_int_equal(vd_stream_add(&s, -1, order[i] * MIB, MIB), 0);
	}
	assert_int_equal(kernel.n, 1);
	assert_int_equal(kernel.calls[0].from, 0);
	assert_int_equal(kernel.calls[0].to, 6 * MIB);
	vd_stream_fini(&s);
}

/* The kernel tells a failure once; whoever was told has to pass it on. */
static void a_failure_to_store_fails_what_follows(void **state)
{
	static const int errors[][2] = { { EIO, VD_EIO }, { ENOSPC, VD_ENOSPC } };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct vd_io *io = make_file();

		kernel.n = 0;
		kernel.fail_at = VD_STREAM_DEPTH + 2;
		kernel.err = errors[i][0];
		for (uint64_t n = 0; n < VD_STREAM_DEPTH + 1; n++) {
			assert_int_equal(vd_io_pwrite(io, "x", 1, n * SPAN, NULL), 0);
			assert_int_equal(vd_io_flush(io, NULL), 0);
			vd_io_finished(io, n * SPAN, SPAN);
		}
		assert_int_equal(vd_io_pwrite(io, "x", 1, 0, NULL), errors[i][1]);
		assert_int_equal(vd_io_flush(io, NULL), errors[i][1]);
		vd_io_abort(io);
		assert_int_equal(vd_host_os()->unlink(vd_host_os(), "f", NULL), 0);
	}
}

static void a_host_without_the_call_does_without(void **state)
{
	static const int errors[] = { ENOSYS, EINVAL, ESPIPE };
	struct vd_io *io = make_file();

	(void)state;
	kernel.fail_at = 1;
	for (int i = 0; i < 3; i++) {
		kernel.err = errors[i];
		for (uint64_t n = 0; n < 2 * VD_STREAM_DEPTH; n++)
			vd_io_finished(io, n * SPAN, SPAN);
		assert_int_equal(vd_io_pwrite(io, "x", 1, 0, NULL), 0);
		assert_int_equal(vd_io_flush(io, NULL), 0);
	}
	assert_int_equal(vd_io_close(io, NULL), 0);
}

static void *add_many(void *arg)
{
	struct vd_io *io = arg;

	for (uint64_t i = 0; i < 1000; i++)
		vd_io_finished(io, i * MIB, MIB);
	return NULL;
}

static void many_threads_finish_ranges(void **state)
{
	struct vd_io *io = make_file();
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, io), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(kernel.n, 2 * 1000 - VD_STREAM_DEPTH);
	assert_int_equal(vd_io_close(io, NULL), 0);
}

#define test(f) cmocka_unit_test_setup_teardown(f, start, vd_tempdir_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(storing_starts_with_each_span_and_ends_with_a_later_one),
		test(pieces_in_any_order_make_one_span),
		test(a_failure_to_store_fails_what_follows),
		test(a_host_without_the_call_does_without),
		test(many_threads_finish_ranges),
	};

	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
