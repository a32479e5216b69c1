/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files of which only some are open: none is lost, none is changed for another, no failure is forgotten. */
#include <stdio.h>

#include "libvdisk/io/pool.h"
#include "tests/support/disks.h"

#define N_FILES 20
#define OPEN_MAX 4

struct fixture {
	struct vd_pool *pool;
	struct vd_io *files[N_FILES];
};

static const char *name_of(unsigned i)
{
	static char name[8];

	snprintf(name, sizeof(name), "f%u", i);
	return name;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct vd_error e;

	disks_start(NULL);
	expect_ok(vd_pool_new(disks.host, OPEN_MAX, &f->pool, &e), &e);
	for (unsigned i = 0; i < N_FILES; i++) {
		expect_ok(vd_mem_put(disks.mem, name_of(i), "x", 1, &e), &e);
		expect_ok(vd_pool_open(f->pool, name_of(i), VD_IO_WRITE, &f->files[i], &e), &e);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < N_FILES; i++)
		vd_io_abort(f->files[i]);
	vd_pool_free(f->pool);
	free(f);
	return disks_stop(NULL);
}

static void every_file_is_read_and_written_whatever_is_open(void **state)
{
	struct fixture *f = *state;
	struct vd_error e;
	uint64_t size;

	for (unsigned i = 0; i < 200; i++) {
		uint32_t value = i, back = ~i;
		struct vd_io *io = f->files[i * 7 % N_FILES];

		expect_ok(vd_io_pwrite(io, &value, sizeof(value), 4 * i, &e), &e);
		expect_ok(vd_io_pread(io, &back, sizeof(back), 4 * i, &e), &e);
		assert_int_equal(back, value);
		expect_ok(vd_io_size(io, &size, &e), &e);
		assert_int_equal(size, 4 * i + 4);
	}
}

/* The recorder's host refuses a file that is open for writing already: more than OPEN_MAX are never open. */
static void no_more_than_the_limit_are_open(void **state)
{
	unsigned n_open = 0;
	(void)state;

	for (unsigned i = 0; i < N_FILES; i++) {
		struct vd_io *io;
		int r = disks.host->open(disks.host, name_of(i), VD_IO_WRITE, &io, NULL);

		if (r == VD_EBUSY)
			n_open++;
		else
			vd_io_abort(io);
	}
	assert_int_equal(n_open, OPEN_MAX);
}

static void what_was_written_is_durable_before_the_close(void **state)
{
	struct fixture *f = *state;
	unsigned before = vd_mem_flushes(disks.mem, "f0");
	struct vd_error e;
	char c;

	expect_ok(vd_io_pwrite(f->files[0], "y", 1, 0, &e), &e);
	for (unsigned i = 1; i <= OPEN_MAX; i++)
		expect_ok(vd_io_pread(f->files[i], &c, 1, 0, &e), &e);
	assert_int_equal(vd_mem_flushes(disks.mem, "f0"), before + 1);
}

static void a_file_put_in_its_place_is_refused(void **state)
{
	struct fixture *f = *state;
	struct vd_error e;
	char c;

	/* f0 is closed by now: the later ones took its room. */
	expect_ok(disks.host->unlink(disks.host, "f0", &e), &e);
	expect_ok(vd_mem_put(disks.mem, "f0", "z", 1, &e), &e);
	expect_failure(vd_io_pread(f->files[0], &c, 1, 0, &e), VD_EIO, &e, "replaced");
}

static void a_missing_file_is_told_when_it_is_added(void **state)
{
	struct fixture *f = *state;
	struct vd_error e;
	struct vd_io *io;

	expect_failure(vd_pool_open(f->pool, "none", 0, &io, &e), VD_ENOENT, &e, "none");
}

int main(void)
{
#define WITH_POOL(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_POOL(every_file_is_read_and_written_whatever_is_open),
		WITH_POOL(no_more_than_the_limit_are_open),
		WITH_POOL(what_was_written_is_durable_before_the_close),
		WITH_POOL(a_file_put_in_its_place_is_refused),
		WITH_POOL(a_missing_file_is_told_when_it_is_added),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
