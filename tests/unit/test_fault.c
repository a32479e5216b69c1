/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fault injector and the delays do what their plans say and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <time.h>

#include "libvdisk/io/mem.h"
#include "tests/support/fault.h"
#include "tests/support/latency.h"

struct fixture {
	struct vd_host *mem;
	struct vd_fault *fault;
	struct vd_host *host;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || vd_mem_host_new(&f->mem, NULL) < 0 || vd_fault_new(f->mem, &f->fault, NULL) < 0 ||
	    vd_mem_put(f->mem, "a", "0123456789", 10, NULL) < 0)
		return -1;
	f->host = vd_fault_host(f->fault);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vd_fault_free(f->fault);
	vd_mem_host_free(f->mem);
	free(f);
	return 0;
}

static struct vd_io *open_io(struct vd_host *h)
{
	struct vd_io *io = NULL;

	assert_int_equal(h->open(h, "a", VD_IO_WRITE, &io, NULL), 0);
	return io;
}

static void without_a_plan_nothing_fails(void **state)
{
	struct fixture *f = *state;
	struct vd_io *io = open_io(f->host);
	uint64_t size, len;
	bool is_data;
	char buf[10];

	assert_int_equal(vd_io_pwrite(io, "ab", 2, 0, NULL), 0);
	assert_int_equal(vd_io_pread(io, buf, 10, 0, NULL), 0);
	assert_memory_equal(buf, "ab23456789", 10);
	assert_int_equal(vd_io_truncate(io, 20, NULL), 0);
	assert_int_equal(vd_io_size(io, &size, NULL), 0);
	assert_int_equal(size, 20);
	assert_int_equal(vd_io_extent(io, 0, &is_data, &len, NULL), 0);
	assert_int_equal(len, 20);
	assert_int_equal(vd_io_allocated(io, &size, NULL), 0);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	assert_int_equal(vd_io_close(io, NULL), 0);
	assert_int_equal(vd_fault_seen(f->fault), 0);
	assert_int_equal(vd_mem_flushes(f->mem, "a"), 1);
}

static void the_nth_fails_once(void **state)
{
	struct fixture *f = *state;
	const struct vd_fault_plan plan = { .kinds = VD_OP_WRITE, .nth = 2, .err = ENOSPC };
	struct vd_io *io = open_io(f->host);
	struct vd_error e = { 0 };

	vd_fault_arm(f->fault, &plan);
	assert_int_equal(vd_io_pwrite(io, "a", 1, 0, &e), 0);
	assert_int_equal(vd_io_flush(io, &e), 0);
	assert_int_equal(vd_io_pwrite(io, "b", 1, 0, &e), VD_ENOSPC);
	assert_string_equal(e.message, "a: write number 2 was made to fail: No space left on device");
	assert_int_equal(vd_io_pwrite(io, "c", 1, 0, &e), 0);
	assert_int_equal(vd_fault_seen(f->fault), 3);
	assert_int_equal(vd_fault_fired(f->fault), 1);
	vd_io_abort(io);
}

static void for_ever_is_for_ever(void **state)
{
	struct fixture *f = *state;
	const struct vd_fault_plan plan = { .kinds = VD_OP_FLUSH | VD_OP_WRITE, .nth = 2, .err = EIO, .for_ever = true };
	struct vd_io *io = open_io(f->host);

	vd_fault_arm(f->fault, &plan);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	assert_int_equal(vd_io_pwrite(io, "b", 1, 0, NULL), VD_EIO);
	assert_int_equal(vd_io_flush(io, NULL), VD_EIO);
	vd_fault_arm(f->fault, NULL);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	vd_io_abort(io);
}

static void a_failing_write_writes_nothing_or_half(void **state)
{
	struct fixture *f = *state;
	struct vd_fault_plan plan = { .kinds = VD_OP_WRITE, .nth = 1, .err = EIO };
	struct vd_io *io = open_io(f->host);
	char buf[10];

	vd_fault_arm(f->fault, &plan);
	assert_int_equal(vd_io_pwrite(io, "xxxx", 4, 0, NULL), VD_EIO);
	assert_int_equal(vd_io_pread(io, buf, 10, 0, NULL), 0);
	assert_memory_equal(buf, "0123456789", 10);
	plan.half_done = true;
	vd_fault_arm(f->fault, &plan);
	assert_int_equal(vd_io_pwrite(io, "xxxx", 4, 0, NULL), VD_EIO);
	assert_int_equal(vd_io_pread(io, buf, 10, 0, NULL), 0);
	assert_memory_equal(buf, "xx23456789", 10);
	vd_io_abort(io);
}

static void only_the_named_file_fails(void **state)
{
	struct fixture *f = *state;
	const struct vd_fault_plan plan = { .kinds = VD_OP_ANY, .nth = 1, .err = EIO, .for_ever = true, .only = ".data" };
	struct vd_io *io;

	vd_fault_arm(f->fault, &plan);
	assert_int_equal(f->host->open(f->host, "x.data", VD_IO_CREATE, &io, NULL), VD_EIO);
	assert_false(f->mem->exists(f->mem, "x.data"));
	io = open_io(f->host);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	vd_io_abort(io);
}

static void every_kind_can_fail(void **state)
{
	struct fixture *f = *state;
	struct vd_fault_plan plan = { .nth = 1, .err = EIO, .for_ever = true };
	struct vd_host *h = f->host;
	struct vd_io *io, *other;
	uint64_t n;
	bool is_data;
	char c;

	for (plan.kinds = 1; plan.kinds <= VD_OP_UNLINK; plan.kinds *= 2) {
		const unsigned k = plan.kinds;

		vd_fault_arm(f->fault, NULL);
		io = open_io(h);
		vd_fault_arm(f->fault, &plan);
		assert_int_equal(vd_io_pread(io, &c, 1, 0, NULL) < 0, k == VD_OP_READ);
		assert_int_equal(vd_io_pwrite(io, "0", 1, 0, NULL) < 0, k == VD_OP_WRITE);
		assert_int_equal(vd_io_flush(io, NULL) < 0, k == VD_OP_FLUSH);
		assert_int_equal(vd_io_truncate(io, 10, NULL) < 0, k == VD_OP_TRUNCATE);
		assert_int_equal(vd_io_punch(io, 9, 1, NULL) < 0, k == VD_OP_PUNCH || k == VD_OP_SIZE);
		assert_int_equal(vd_io_extent(io, 0, &is_data, &n, NULL) < 0, k == VD_OP_EXTENT);
		assert_int_equal(vd_io_close(io, NULL) < 0, k == VD_OP_CLOSE);
		assert_int_equal(h->open(h, "none", 0, &other, NULL), k == VD_OP_OPEN ? VD_EIO : VD_ENOENT);
		assert_int_equal(h->rename(h, "none", "x", true, NULL), k == VD_OP_RENAME ? VD_EIO : VD_ENOENT);
		assert_int_equal(h->unlink(h, "none", NULL), k == VD_OP_UNLINK ? VD_EIO : VD_ENOENT);
	}
}

static void latency_sleeps_before_what_it_was_told(void **state)
{
	struct fixture *f = *state;
	struct vd_latency slow = { .flush_us = 50000 };
	struct timespec a, b, c;
	struct vd_io *io;

	vd_latency_init(&slow, f->mem);
	io = open_io(&slow.wrap.host);
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	slow.flush_us = 0;
	for (int i = 0; i < 100; i++)
		assert_int_equal(vd_io_pwrite(io, "x", 1, 0, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &c);
	assert_true((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec >= 50000000L);
	assert_true(c.tv_sec - b.tv_sec < 5);
	vd_io_abort(io);
}

int main(void)
{
#define WITH_FAULT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_FAULT(without_a_plan_nothing_fails),
		WITH_FAULT(the_nth_fails_once),
		WITH_FAULT(for_ever_is_for_ever),
		WITH_FAULT(a_failing_write_writes_nothing_or_half),
		WITH_FAULT(only_the_named_file_fails),
		WITH_FAULT(every_kind_can_fail),
		WITH_FAULT(latency_sleeps_before_what_it_was_told),
	};

	return cmocka_run_group_tests_name("fault", tests, NULL, NULL);
}
