/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A copy that is watched, cancelled, or meets a failure of every operation in turn: it ends, says why, and leaves no file. */
#include <errno.h>
#include <pthread.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "tests/support/latency.h"
#include "tests/support/model.h"
#include "tests/support/targets.h"

#define MIB ((uint64_t)1 << 20)
#define raw (&vd_format_raw)
#define qcow2 (&vd_format_qcow2)

/* A raw source with data, zeros and a hole, that makes several pieces. */
static struct vd_image *make_source(uint64_t size)
{
	struct vd_image *img;
	struct model m;

	model_init(&m, size, 5);
	disk_make(raw, "d", size, NULL);
	img = disk_open(raw, "d", VD_OPEN_WRITE);
	for (uint64_t off = 0; off < size / 4 * 3; off += MIB / 2)
		model_write(&m, img, off, MIB / 3);
	disk_close(img);
	model_free(&m);
	return disk_open(raw, "d", 0);
}

static void expect_only_the_source(void)
{
	assert_string_equal(vd_mem_name(disks.mem, 0), "d");
	assert_null(vd_mem_name(disks.mem, 1));
}

/* ---- progress ----------------------------------------------------------------------------------------- */

struct watcher {
	pthread_t caller;
	uint64_t last, total;
	unsigned n_calls, cancel_at;    /* 0: never */
	bool is_wrong;                  /* cmocka's assertions do not belong in a callback */
};

static int watch(void *ctx, const struct vd_progress *p)
{
	struct watcher *w = ctx;

	if (!pthread_equal(pthread_self(), w->caller) || p->done < w->last || p->done > p->total ||
	    strcmp(p->phase, "convert") || (w->n_calls && p->total != w->total))
		w->is_wrong = true;
	w->last = p->done;
	w->total = p->total;
	return ++w->n_calls == w->cancel_at;
}

/* Copies to a host on which each write takes 20 ms. */
static int copy_slowly(struct vd_image *src, unsigned n_threads, struct watcher *w, struct vd_outcome *o,
		       struct vd_error *e)
{
	const struct vd_job job = { .struct_size = sizeof(job), .n_threads = n_threads, .progress = watch, .ctx = w };
	struct vd_latency slow = { 0 };
	struct vd_image *dst = NULL;
	int r;

	vd_latency_init(&slow, disks.host);
	expect_ok(target_create(target_named("qcow2"), &slow.wrap.host, "o", vd_image_size(src), &dst, e), e);
	slow.write_us = 20000;
	*w = (struct watcher){ .caller = pthread_self(), .cancel_at = w->cancel_at };
	o->struct_size = sizeof(*o);
	r = vd_image_copy(src, dst, false, &job, o, e);
	slow.write_us = 0;
	vd_image_abort(dst);
	return r;
}

static void progress_rises_to_the_total_in_the_callers_thread(void **state)
{
	struct vd_image *src = make_source(16 * MIB);
	struct watcher w = { 0 };
	struct vd_outcome o;
	struct vd_error e;

	(void)state;
	expect_ok(copy_slowly(src, 1, &w, &o, &e), &e);
	assert_false(w.is_wrong);
	assert_in_range(w.n_calls, 3, 100);
	assert_int_equal(w.total, 16 * MIB);
	assert_int_equal(w.last, w.total);
	disk_close(src);
}

static void a_short_copy_reports_its_end(void **state)
{
	struct vd_image *src = make_source(MIB);
	struct watcher w = { 0 };
	struct vd_outcome o;
	struct vd_error e;

	(void)state;
	expect_ok(copy_slowly(src, 4, &w, &o, &e), &e);
	assert_in_range(w.n_calls, 1, 5);
	assert_int_equal(w.last, MIB);
	disk_close(src);
}

static void a_cancel_ends_the_copy_soon(void **state)
{
	struct vd_image *src = make_source(64 * MIB);

	(void)state;
	for (unsigned n_threads = 1; n_threads <= 8; n_threads *= 2) {
		struct watcher w = { .cancel_at = 2 };
		struct vd_outcome o;
		struct vd_error e;

		expect_failure(copy_slowly(src, n_threads, &w, &o, &e), VD_ECANCELLED, &e, "cancelled");
		assert_int_equal(w.n_calls, 2);
		assert_true(o.done < 64 * MIB);
		assert_true(o.written > 0);
		expect_only_the_source();
	}
	disk_close(src);
}

/* ---- failures ----------------------------------------------------------------------------------------- */

static int copy_and_commit(struct vd_image *src, const struct target *t, struct vd_host *host, struct vd_error *e)
{
	const struct vd_job job = { .struct_size = sizeof(job), .n_threads = 3 };
	struct vd_outcome o = { .struct_size = sizeof(o) };
	struct vd_image *dst = NULL;
	int r = target_create(t, host, "o", vd_image_size(src) + 4096, &dst, e);

	if (r < 0)
		return r;
	r = vd_image_copy(src, dst, t->compresses, &job, &o, e);
	if (r == 0)
		r = vd_image_commit(dst, e);
	if (r < 0) {
		vd_image_abort(dst);
		return r;
	}
	return vd_image_close(dst, e);
}

static void sweep(const struct target *t, struct vd_fault_plan plan, int code)
{
	struct vd_image *src = make_source(4 * MIB);
	struct vd_error e;

	for (plan.nth = 1; ; plan.nth++) {
		int r;

		vd_fault_arm(disks.fault, &plan);
		r = copy_and_commit(src, t, disks.host, &e);
		if (!vd_fault_fired(disks.fault)) {
			expect_ok(r, &e);
			break;
		}
		vd_fault_arm(disks.fault, NULL);
		expect_failure(r, code, &e, "was made to fail");
		expect_only_the_source();
	}
	assert_true(plan.nth > 3);
	vd_fault_arm(disks.fault, NULL);
	disk_close(src);
	assert_int_equal(disks.mem->unlink(disks.mem, "o", NULL), 0);
	assert_int_equal(disks.mem->unlink(disks.mem, "d", NULL), 0);
}

static void a_read_that_fails_ends_the_copy(void **state)
{
	(void)state;
	sweep(target_named("raw"), (struct vd_fault_plan){ .kinds = VD_OP_READ, .err = EIO }, VD_EIO);
	sweep(target_named("qcow2 luks"), (struct vd_fault_plan){ .kinds = VD_OP_READ, .err = EIO, .only = "d" }, VD_EIO);
}

static void a_write_that_fails_ends_the_copy(void **state)
{
	static const struct vd_fault_plan plan = { .kinds = VD_OP_WRITE | VD_OP_TRUNCATE, .err = ENOSPC };

	(void)state;
	sweep(target_named("raw"), plan, VD_ENOSPC);
	sweep(target_named("toy"), plan, VD_ENOSPC);
	sweep(target_named("qcow2"), plan, VD_ENOSPC);
	sweep(target_named("qcow2 deflate"), plan, VD_ENOSPC);
	sweep(target_named("luks1"), plan, VD_ENOSPC);
}

static void a_disk_that_stays_full_ends_the_copy(void **state)
{
	static const struct vd_fault_plan plan = {
		.kinds = VD_OP_WRITE | VD_OP_TRUNCATE | VD_OP_FLUSH, .err = ENOSPC, .for_ever = true, .half_done = true,
	};

	(void)state;
	sweep(target_named("raw"), plan, VD_ENOSPC);
	sweep(target_named("qcow2 luks"), plan, VD_ENOSPC);
}

/* ---- reservations ------------------------------------------------------------------------------------- */

/* The toy driver, counting. */
static struct { unsigned reserved, published, cancelled; } count;

static int count_reserve(void *st, struct vd_resv *v, struct vd_error *e)
{
	int r = vd_format_toy.reserve(st, v, e);

	count.reserved += r == 0 && !v->in_place;
	return r;
}

static int count_publish(void *st, struct vd_resv *v, struct vd_error *e)
{
	count.published++;
	return vd_format_toy.publish(st, v, e);
}

static void count_cancel(void *st, struct vd_resv *v)
{
	count.cancelled++;
	vd_format_toy.cancel(st, v);
}

static void every_reservation_is_published_or_cancelled(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_WRITE, .err = EIO };
	struct vd_image *src = make_source(4 * MIB);
	struct vd_format counting = vd_format_toy;
	const struct target t = { .name = "toy", .format = &counting };
	struct vd_error e;

	(void)state;
	counting.reserve = count_reserve;
	counting.publish = count_publish;
	counting.cancel = count_cancel;
	for (plan.nth = 1; plan.nth == 1 || vd_fault_fired(disks.fault); plan.nth += 3) {
		memset(&count, 0, sizeof(count));
		vd_fault_arm(disks.fault, &plan);
		if (copy_and_commit(src, &t, disks.host, &e) == 0)
			assert_int_equal(count.cancelled, 0);
		assert_int_equal(count.reserved, count.published + count.cancelled);
	}
	assert_true(count.reserved > 10);
	vd_fault_arm(disks.fault, NULL);
	disk_close(src);
}

/* Tables of the source that cannot be read: the failure of the plan, not of a piece. */
static void a_table_that_cannot_be_read_ends_the_copy(void **state)
{
	const struct vd_fault_plan plan = { .kinds = VD_OP_READ, .nth = 1, .err = EIO };
	struct vd_image *src = make_source(4 * MIB);
	struct vd_error e;

	(void)state;
	target_copy(target_named("qcow2"), src, "q", 0, 2);
	disk_close(src);
	src = disk_open(qcow2, "q", 0);
	vd_fault_arm(disks.fault, &plan);
	expect_failure(copy_and_commit(src, target_named("raw"), disks.host, &e), VD_EIO, &e, "q: read number 1");
	vd_fault_arm(disks.fault, NULL);
	disk_close(src);
}

static void want_of_memory_ends_the_copy(void **state)
{
	static const char *const names[] = { "raw", "qcow2", "qcow2 zstd", "luks1" };
	struct vd_image *src = make_source(2 * MIB);
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct target *t = target_named(names[i]);
		int r = -1;

		expect_ok(copy_and_commit(src, t, disks.mem, &e), &e);
		assert_int_equal(disks.mem->unlink(disks.mem, "o", NULL), 0);
		for (long n = 0; r < 0; n++) {
			vd_alloc_fail_after(n);
			r = copy_and_commit(src, t, disks.mem, &e);
			vd_alloc_fail_after(-1);
			if (r == 0)
				break;
			assert_int_equal(r, VD_ENOMEM);
			assert_false(disks.mem->exists(disks.mem, "o"));
		}
		assert_int_equal(disks.mem->unlink(disks.mem, "o", NULL), 0);
	}
	disk_close(src);
}

#define test(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(progress_rises_to_the_total_in_the_callers_thread),
		test(a_short_copy_reports_its_end),
		test(a_cancel_ends_the_copy_soon),
		test(a_read_that_fails_ends_the_copy),
		test(a_write_that_fails_ends_the_copy),
		test(a_disk_that_stays_full_ends_the_copy),
		test(every_reservation_is_published_or_cancelled),
		test(a_table_that_cannot_be_read_ends_the_copy),
		test(want_of_memory_ends_the_copy),
	};

	return cmocka_run_group_tests_name("copy_faults", tests, NULL, NULL);
}
