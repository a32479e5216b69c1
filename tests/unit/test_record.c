/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The recorder logs what happens, and its crash states keep what was flushed and lose what they may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

#include "libvdisk/io/mem.h"
#include "tests/support/fault.h"
#include "tests/support/latency.h"
#include "tests/support/record.h"
#include "tests/support/tempdir.h"

#define N_RANDOM 40
#define SEED 7

struct fixture {
	struct vd_host *mem;
	struct vd_latency slow;
	struct vd_fault *fault;
	struct vd_record *rec;
	struct vd_host *host;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || vd_mem_host_new(&f->mem, NULL) < 0 || vd_mem_put(f->mem, "old", "base", 4, NULL) < 0)
		return -1;
	vd_latency_init(&f->slow, f->mem);
	if (vd_fault_new(&f->slow.wrap.host, &f->fault, NULL) < 0 ||
	    vd_record_new(vd_fault_host(f->fault), &f->rec, NULL) < 0)
		return -1;
	f->host = vd_record_host(f->rec);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vd_record_free(f->rec);
	vd_fault_free(f->fault);
	vd_mem_host_free(f->mem);
	free(f);
	return 0;
}

static struct vd_io *open_io(struct fixture *f, const char *name, unsigned flags)
{
	struct vd_io *io = NULL;

	assert_int_equal(f->host->open(f->host, name, flags, &io, NULL), 0);
	return io;
}

static void put_at(struct vd_io *io, char c, size_t len, uint64_t off)
{
	char buf[4096];

	memset(buf, c, sizeof(buf));
	assert_int_equal(vd_io_pwrite(io, buf, len, off, NULL), 0);
}

static struct vd_crash crash(struct fixture *f, size_t index)
{
	struct vd_crash c = { 0 };

	assert_int_equal(vd_crash_state(f->rec, N_RANDOM, SEED, index, &c, NULL), 0);
	return c;
}

static size_t cut_index(size_t cut, unsigned variant)
{
	return cut * (2 + N_RANDOM) + variant;
}

/* The file's size and bytes in that state; -1: it has no such name. */
static long content(struct vd_crash *c, const char *name, char *buf, size_t len)
{
	struct vd_io *io;
	uint64_t size;

	if (c->host->open(c->host, name, 0, &io, NULL) < 0)
		return -1;
	assert_int_equal(vd_io_size(io, &size, NULL), 0);
	assert_int_equal(vd_io_pread(io, buf, len, 0, NULL), 0);
	vd_io_abort(io);
	return (long)size;
}

static void operations_are_logged_in_order(void **state)
{
	struct fixture *f = *state;
	static const unsigned want[] = { VD_OP_OPEN, VD_OP_WRITE, VD_OP_FLUSH, VD_OP_TRUNCATE, VD_OP_PUNCH,
					 VD_OP_RENAME, VD_OP_UNLINK };
	struct vd_io *io = open_io(f, "a", VD_IO_CREATE);
	uint64_t tick;
	char c;

	put_at(io, 'x', 10, 5);
	assert_int_equal(vd_io_pread(io, &c, 1, 5, NULL), 0);
	tick = vd_record_tick(f->rec);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	assert_int_equal(vd_io_truncate(io, 8, NULL), 0);
	assert_int_equal(vd_io_punch(io, 5, 100, NULL), 0);
	assert_int_equal(f->host->rename(f->host, "a", "b", false, NULL), 0);
	assert_int_equal(f->host->unlink(f->host, "b", NULL), 0);
	vd_io_abort(io);
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		assert_int_equal(vd_record_event(f->rec, i)->kind, want[i]);
	assert_null(vd_record_event(f->rec, 7));
	assert_int_equal(vd_record_event(f->rec, 1)->off, 5);
	assert_memory_equal(vd_record_event(f->rec, 1)->data, "xxxxxxxxxx", 10);
	assert_int_equal(vd_record_event(f->rec, 4)->len, 3); /* what lies past the end is left out */
	assert_string_equal(vd_record_event(f->rec, 5)->to, "b");
	assert_int_equal(vd_record_count(f->rec, VD_OP_ANY, 0), 7);
	assert_int_equal(vd_record_count(f->rec, VD_OP_FLUSH | VD_OP_WRITE, tick), 1);
}

static void what_was_flushed_is_in_every_later_state(void **state)
{
	struct fixture *f = *state;
	struct vd_io *io = open_io(f, "a", VD_IO_CREATE);
	uint64_t durable;
	char buf[2048], want[1024];

	put_at(io, 'A', 1024, 0);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	durable = vd_record_tick(f->rec);
	put_at(io, 'B', 1024, 1024);
	vd_io_abort(io);
	memset(want, 'A', sizeof(want));
	for (size_t i = 0; i < vd_crash_count(f->rec, N_RANDOM); i++) {
		struct vd_crash c = crash(f, i);

		if (c.tick >= durable) {
			assert_true(content(&c, "a", buf, sizeof(buf)) >= 1024);
			assert_memory_equal(buf, want, sizeof(want));
		}
		vd_mem_host_free(c.host);
	}
}

/* Each sector of a write that was not flushed is seen old and new, and never anything else. */
static void unflushed_writes_are_torn_by_sectors(void **state)
{
	struct fixture *f = *state;
	struct vd_io *io = open_io(f, "a", VD_IO_CREATE);
	unsigned seen_old[4] = { 0 }, seen_new[4] = { 0 };
	char buf[2048];

	put_at(io, 'A', 2048, 0);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	put_at(io, 'B', 1536, 256);
	vd_io_abort(io);
	for (unsigned v = 0; v < 2 + N_RANDOM; v++) {
		struct vd_crash c = crash(f, cut_index(4, v));

		assert_int_equal(content(&c, "a", buf, sizeof(buf)), 2048);
		for (int s = 0; s < 4; s++) {
			char at = buf[s * 512 + 256 * (s == 0)];

			assert_true(at == 'A' || at == 'B');
			seen_old[s] += at == 'A';
			seen_new[s] += at == 'B';
		}
		assert_int_equal(buf[0], 'A');
		vd_mem_host_free(c.host);
	}
	for (int s = 0; s < 4; s++)
		assert_true(seen_old[s] && seen_new[s]);
}

/* The earlier write may be there and the later not; the later may be there and the earlier not. */
static void unflushed_writes_arrive_in_any_order(void **state)
{
	struct fixture *f = *state;
	struct vd_io *io = open_io(f, "a", VD_IO_CREATE);
	bool only_first = false, only_second = false;
	char buf[1024];

	put_at(io, 'A', 512, 0);
	put_at(io, 'B', 512, 512);
	vd_io_abort(io);
	for (unsigned v = 2; v < 2 + N_RANDOM; v++) {
		struct vd_crash c = crash(f, cut_index(3, v));

		content(&c, "a", buf, sizeof(buf));
		only_first |= buf[0] == 'A' && buf[512] == 0;
		only_second |= buf[0] == 0 && buf[512] == 'B';
		vd_mem_host_free(c.host);
	}
	assert_true(only_first);
	assert_true(only_second);
}

static void the_first_two_variants_are_all_and_the_least(void **state)
{
	struct fixture *f = *state;
	struct vd_io *io = open_io(f, "a", VD_IO_CREATE);
	struct vd_crash c;
	char buf[8];

	put_at(io, 'A', 4, 0);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	put_at(io, 'B', 4, 4);
	assert_int_equal(vd_io_truncate(io, 6, NULL), 0);
	vd_io_abort(io);
	c = crash(f, cut_index(5, 0));
	assert_int_equal(content(&c, "a", buf, 8), 6);
	assert_memory_equal(buf, "AAAABB\0\0", 8);
	vd_mem_host_free(c.host);
	c = crash(f, cut_index(5, 1));
	assert_int_equal(content(&c, "a", buf, 8), 4);
	assert_int_equal(c.cut, 5);
	assert_int_equal(c.variant, 1);
	vd_mem_host_free(c.host);
	c = crash(f, cut_index(0, 0));
	assert_int_equal(content(&c, "a", buf, 8), -1);
	vd_mem_host_free(c.host);
}

static void the_same_seed_gives_the_same_state(void **state)
{
	struct fixture *f = *state;
	struct vd_io *io = open_io(f, "a", VD_IO_CREATE);
	static char one[4096], two[4096];

	put_at(io, 'A', 4096, 0);
	vd_io_abort(io);
	for (unsigned v = 2; v < 10; v++) {
		struct vd_crash a = crash(f, cut_index(2, v)), b = crash(f, cut_index(2, v));

		assert_int_equal(content(&a, "a", one, 4096), content(&b, "a", two, 4096));
		assert_memory_equal(one, two, 4096);
		vd_mem_host_free(a.host);
		vd_mem_host_free(b.host);
	}
}

static void files_from_before_keep_their_content_and_names_move(void **state)
{
	struct fixture *f = *state;
	struct vd_io *old = open_io(f, "old", VD_IO_WRITE), *io = open_io(f, "new", VD_IO_CREATE);
	struct vd_crash c;
	char buf[4];

	put_at(old, 'Z', 1, 0);
	put_at(io, 'N', 4, 0);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	assert_int_equal(f->host->rename(f->host, "new", "old", true, NULL), 0);
	vd_io_abort(io);
	vd_io_abort(old);
	c = crash(f, cut_index(4, 1));
	assert_int_equal(content(&c, "old", buf, 4), 4);
	assert_memory_equal(buf, "base", 4);
	assert_int_equal(content(&c, "new", buf, 4), 4);
	vd_mem_host_free(c.host);
	c = crash(f, cut_index(5, 1));
	assert_int_equal(content(&c, "new", buf, 4), -1);
	assert_int_equal(content(&c, "old", buf, 4), 4);
	assert_memory_equal(buf, "NNNN", 4);
	vd_mem_host_free(c.host);
}

static void *flush_slowly(void *arg)
{
	return vd_io_flush(arg, NULL) ? arg : NULL;
}

/* A write that ends while the flush is under way is not among what the flush made durable. */
static void a_flush_covers_only_what_ended_before_it_began(void **state)
{
	struct fixture *f = *state;
	struct vd_io *io = open_io(f, "a", VD_IO_CREATE);
	struct vd_crash c;
	pthread_t thread;
	uint64_t before;
	void *failed;
	char buf[8];

	put_at(io, 'A', 4, 0);
	before = vd_record_tick(f->rec);
	f->slow.flush_us = 200000;
	assert_int_equal(pthread_create(&thread, NULL, flush_slowly, io), 0);
	while (vd_record_tick(f->rec) == before)
		sched_yield();
	put_at(io, 'B', 4, 4);
	pthread_join(thread, &failed);
	assert_null(failed);
	vd_io_abort(io);
	c = crash(f, cut_index(4, 1));
	assert_int_equal(content(&c, "a", buf, 8), 4);
	vd_mem_host_free(c.host);
}

static void a_failed_flush_makes_nothing_durable(void **state)
{
	struct fixture *f = *state;
	const struct vd_fault_plan plan = { .kinds = VD_OP_FLUSH, .nth = 1, .err = EIO };
	struct vd_io *io = open_io(f, "a", VD_IO_CREATE);
	struct vd_crash c;
	char buf[4];

	put_at(io, 'A', 4, 0);
	vd_fault_arm(f->fault, &plan);
	assert_int_equal(vd_io_flush(io, NULL), VD_EIO);
	vd_io_abort(io);
	c = crash(f, cut_index(3, 1));
	assert_int_equal(content(&c, "a", buf, 4), 0);
	vd_mem_host_free(c.host);
}

static void states_are_saved_as_real_files(void **state)
{
	struct fixture *f = *state;
	struct vd_io *io = open_io(f, "folder/a", VD_IO_CREATE);
	struct vd_crash c;
	void *dir = NULL;
	struct stat st;

	put_at(io, 'A', 4, 1 << 20);
	vd_io_abort(io);
	c = crash(f, cut_index(2, 0));
	assert_int_equal(vd_tempdir_enter(&dir), 0);
	assert_int_equal(vd_crash_save(c.host, ".", NULL), 0);
	assert_int_equal(vd_crash_save(c.host, ".", NULL), 0);
	assert_int_equal(stat("a", &st), 0);
	assert_int_equal(st.st_size, (1 << 20) + 4);
	assert_int_equal(vd_tempdir_leave(&dir), 0);
	vd_mem_host_free(c.host);
}

int main(void)
{
#define WITH_RECORD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_RECORD(operations_are_logged_in_order),
		WITH_RECORD(what_was_flushed_is_in_every_later_state),
		WITH_RECORD(unflushed_writes_are_torn_by_sectors),
		WITH_RECORD(unflushed_writes_arrive_in_any_order),
		WITH_RECORD(the_first_two_variants_are_all_and_the_least),
		WITH_RECORD(the_same_seed_gives_the_same_state),
		WITH_RECORD(files_from_before_keep_their_content_and_names_move),
		WITH_RECORD(a_flush_covers_only_what_ended_before_it_began),
		WITH_RECORD(a_failed_flush_makes_nothing_durable),
		WITH_RECORD(states_are_saved_as_real_files),
	};

	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
