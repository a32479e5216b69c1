/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The set flushes what is not durable, once, in order, and never claims more than it knows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "libvdisk/io/mem.h"
#include "libvdisk/io/set.h"
#include "tests/support/fault.h"
#include "tests/support/latency.h"
#include "tests/support/record.h"

struct fixture {
	struct vd_host *mem;
	struct vd_latency slow;
	struct vd_record *rec;
	struct vd_fault *fault; /* outermost: the recorder sees what the host was really asked */
	struct vd_set *set;
};

/* A gate for names in memory: all but "evil". */
static int test_gate(void *ctx, enum vd_reference_kind kind, const char *image, const char *name, const char *format,
		     char *path, size_t path_len, struct vd_error *e)
{
	(void)ctx;
	(void)kind;
	(void)image;
	(void)format;
	if (!strcmp(name, "evil"))
		return vd_fail(e, VD_EREFERENCE, "not that one");
	snprintf(path, path_len, "%s", name);
	return 0;
}

static struct vd_set *new_set(struct fixture *f, bool open_references)
{
	struct vd_host *h = vd_fault_host(f->fault);
	const struct vd_set_opts opts = { .host = h, .io_flags = VD_IO_WRITE, .gate = test_gate,
					  .open_references = open_references };
	struct vd_set *set = NULL;
	struct vd_io *io;

	assert_int_equal(h->open(h, "image", VD_IO_WRITE, &io, NULL), 0);
	assert_int_equal(vd_set_new(&opts, io, &set, NULL), 0);
	return set;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || vd_mem_host_new(&f->mem, NULL) < 0 || vd_mem_put(f->mem, "image", "i", 1, NULL) < 0 ||
	    vd_mem_put(f->mem, "data", "d", 1, NULL) < 0)
		return -1;
	vd_latency_init(&f->slow, f->mem);
	if (vd_record_new(&f->slow.wrap.host, &f->rec, NULL) < 0 ||
	    vd_fault_new(vd_record_host(f->rec), &f->fault, NULL) < 0)
		return -1;
	f->set = new_set(f, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vd_set_abort(f->set);
	vd_fault_free(f->fault);
	vd_record_free(f->rec);
	vd_mem_host_free(f->mem);
	free(f);
	return 0;
}

static uint32_t add_data(struct fixture *f)
{
	uint32_t index = 0;

	assert_int_equal(vd_set_add(f->set, VD_REF_DATA_FILE, "data", "raw", &index, NULL), 0);
	return index;
}

static size_t n_flushes(struct fixture *f)
{
	return vd_record_count(f->rec, VD_OP_FLUSH, 0);
}

static void only_written_files_are_flushed_and_once(void **state)
{
	struct fixture *f = *state;
	uint32_t data = add_data(f);

	assert_int_equal(data, 1);
	assert_int_equal(vd_set_count(f->set), 2);
	assert_int_equal(vd_set_flush(f->set, NULL), 0);
	assert_int_equal(n_flushes(f), 0);
	assert_int_equal(vd_set_pwrite(f->set, data, "x", 1, 0, NULL), 0);
	assert_int_equal(vd_set_pwrite(f->set, data, "y", 1, 9, NULL), 0);
	assert_int_equal(vd_set_flush(f->set, NULL), 0);
	assert_int_equal(vd_set_flush(f->set, NULL), 0);
	assert_int_equal(n_flushes(f), 1);
	assert_int_equal(vd_mem_flushes(f->mem, "data"), 1);
	assert_int_equal(vd_set_punch(f->set, data, 0, 1, NULL), 0);
	assert_int_equal(vd_io_truncate(vd_set_io(f->set, 0), 100, NULL), 0);
	assert_int_equal(vd_set_flush(f->set, NULL), 0);
	assert_int_equal(vd_mem_flushes(f->mem, "data"), 2);
	assert_int_equal(vd_mem_flushes(f->mem, "image"), 1);
}

static void the_image_is_flushed_after_what_its_tables_name(void **state)
{
	struct fixture *f = *state;
	uint32_t data = add_data(f);
	const struct vd_event *first = NULL, *ev;

	assert_int_equal(vd_set_pwrite(f->set, 0, "x", 1, 0, NULL), 0);
	assert_int_equal(vd_set_pwrite(f->set, data, "x", 1, 0, NULL), 0);
	assert_int_equal(vd_set_flush(f->set, NULL), 0);
	for (size_t i = 0; !first && (ev = vd_record_event(f->rec, i)); i++)
		if (ev->kind == VD_OP_FLUSH)
			first = ev;
	assert_non_null(first);
	assert_int_equal(first->file, 1);
}

static void a_failed_flush_is_never_made_good(void **state)
{
	struct fixture *f = *state;
	const struct vd_fault_plan plan = { .kinds = VD_OP_FLUSH, .nth = 1, .err = EIO };
	struct vd_error e = { 0 };

	assert_int_equal(vd_set_pwrite(f->set, 0, "x", 1, 0, NULL), 0);
	vd_fault_arm(f->fault, &plan);
	assert_int_equal(vd_set_flush(f->set, &e), VD_EIO);
	assert_int_equal(vd_set_flush(f->set, &e), VD_EPOISONED);
	assert_non_null(strstr(e.message, "image: an earlier flush failed"));
	assert_int_equal(n_flushes(f), 0);
}

static void a_failed_write_still_makes_the_file_dirty(void **state)
{
	struct fixture *f = *state;
	const struct vd_fault_plan plan = { .kinds = VD_OP_WRITE, .nth = 1, .err = ENOSPC, .half_done = true };

	vd_fault_arm(f->fault, &plan);
	assert_int_equal(vd_set_pwrite(f->set, 0, "xy", 2, 0, NULL), VD_ENOSPC);
	assert_int_equal(vd_set_flush(f->set, NULL), 0);
	assert_int_equal(n_flushes(f), 1);
}

static void *flush_in_thread(void *arg)
{
	struct fixture *f = arg;

	return vd_set_flush(f->set, NULL) ? f : NULL;
}

/* A write that ends while a flush is under way is not covered by it. */
static void a_write_during_a_flush_needs_the_next_one(void **state)
{
	struct fixture *f = *state;
	uint64_t before;
	pthread_t thread;
	void *failed;

	assert_int_equal(vd_set_pwrite(f->set, 0, "x", 1, 0, NULL), 0);
	before = vd_record_tick(f->rec);
	f->slow.flush_us = 300000;
	assert_int_equal(pthread_create(&thread, NULL, flush_in_thread, f), 0);
	while (vd_record_tick(f->rec) == before)
		sched_yield();
	assert_int_equal(vd_set_pwrite(f->set, 0, "y", 1, 0, NULL), 0);
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
	f->slow.flush_us = 0;
	assert_int_equal(n_flushes(f), 1);
	assert_int_equal(vd_set_flush(f->set, NULL), 0);
	assert_int_equal(n_flushes(f), 2);
}

static void flushes_that_wait_share_the_next_one(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[8];
	void *failed;

	assert_int_equal(vd_set_pwrite(f->set, 0, "x", 1, 0, NULL), 0);
	f->slow.flush_us = 100000;
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, flush_in_thread, f), 0);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	assert_int_equal(n_flushes(f), 1);
}

static void the_gate_is_asked_and_obeyed(void **state)
{
	struct fixture *f = *state;
	struct vd_error e = { 0 };
	uint32_t index;
	char path[32];

	assert_int_equal(vd_set_add(f->set, VD_REF_BACKING, "evil", NULL, &index, &e), VD_EREFERENCE);
	assert_string_equal(e.message, "not that one");
	assert_int_equal(vd_set_resolve(f->set, VD_REF_BACKING, "evil", NULL, path, sizeof(path), &e), VD_EREFERENCE);
	assert_int_equal(vd_set_resolve(f->set, VD_REF_BACKING, "data", NULL, path, sizeof(path), &e), 0);
	assert_string_equal(path, "data");
	assert_int_equal(vd_set_add(f->set, VD_REF_BACKING, "absent", NULL, &index, &e), VD_ENOENT);
	assert_non_null(strstr(e.message, "image: a file that it needs: absent"));
	assert_int_equal(vd_set_count(f->set), 1);
}

static void a_file_named_twice_is_refused(void **state)
{
	struct fixture *f = *state;
	struct vd_error e = { 0 };
	struct vd_io *again;
	uint32_t index;

	add_data(f);
	assert_int_equal(f->mem->open(f->mem, "data", VD_IO_FORCE_SHARE, &again, NULL), 0);
	assert_int_equal(vd_set_adopt(f->set, again, &index, &e), VD_ECORRUPT);
	assert_string_equal(e.message, "image: the image names the same file twice: data");
	vd_io_abort(again);
}

static void a_file_that_is_only_named_cannot_be_read(void **state)
{
	struct fixture *f = *state;
	struct vd_error e = { 0 };
	uint32_t index;
	char c;

	vd_set_abort(f->set);
	f->set = new_set(f, false);
	assert_int_equal(vd_set_add(f->set, VD_REF_DATA_FILE, "evil", NULL, &index, &e), 0);
	assert_string_equal(vd_set_name(f->set, index), "evil");
	assert_null(vd_set_io(f->set, index));
	assert_int_equal(vd_set_pread(f->set, index, &c, 1, 0, &e), VD_EREFERENCE);
	assert_int_equal(vd_set_pwrite(f->set, index, &c, 1, 0, &e), VD_EREFERENCE);
	assert_int_equal(vd_set_pread(f->set, 77, &c, 1, 0, &e), VD_EREFERENCE);
	assert_int_equal(vd_set_flush(f->set, &e), 0);
}

static void closing_reports_the_first_failure_and_closes_all(void **state)
{
	struct fixture *f = *state;
	const struct vd_fault_plan plan = { .kinds = VD_OP_CLOSE, .nth = 1, .err = EIO };
	struct vd_error e = { 0 };
	struct vd_set *set = f->set;

	add_data(f);
	vd_fault_arm(f->fault, &plan);
	f->set = NULL;
	assert_int_equal(vd_set_close(set, &e), VD_EIO);
	assert_non_null(strstr(e.message, "data: close"));
	assert_int_equal(vd_fault_seen(f->fault), 2);
}

static void more_files_than_fit_are_refused(void **state)
{
	struct fixture *f = *state;
	struct vd_error e = { 0 };
	uint32_t index;

	vd_set_abort(f->set);
	f->set = new_set(f, false);
	for (unsigned i = 1; i < VD_SET_MAX; i++)
		assert_int_equal(vd_set_add(f->set, VD_REF_EXTENT, "x", NULL, &index, &e), 0);
	assert_int_equal(vd_set_add(f->set, VD_REF_EXTENT, "x", NULL, &index, &e), VD_EUNSUPPORTED);
}

int main(void)
{
#define WITH_SET(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_SET(only_written_files_are_flushed_and_once),
		WITH_SET(the_image_is_flushed_after_what_its_tables_name),
		WITH_SET(a_failed_flush_is_never_made_good),
		WITH_SET(a_failed_write_still_makes_the_file_dirty),
		WITH_SET(a_write_during_a_flush_needs_the_next_one),
		WITH_SET(flushes_that_wait_share_the_next_one),
		WITH_SET(the_gate_is_asked_and_obeyed),
		WITH_SET(a_file_named_twice_is_refused),
		WITH_SET(a_file_that_is_only_named_cannot_be_read),
		WITH_SET(closing_reports_the_first_failure_and_closes_all),
		WITH_SET(more_files_than_fit_are_refused),
	};

	return cmocka_run_group_tests_name("set", tests, NULL, NULL);
}
