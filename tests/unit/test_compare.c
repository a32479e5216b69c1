/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a comparison finds, in which order, of which sizes, and what it need not read. */
#include <errno.h>
#include <unistd.h>

#include "libvdisk/base/checked.h"
#include "tests/support/model.h"
#include "tests/support/targets.h"

#define MIB ((uint64_t)1 << 20)
#define TIB ((uint64_t)1 << 40)
#define raw (&vd_format_raw)
#define qcow2 (&vd_format_qcow2)

static struct vd_compare_report report_of(struct vd_image *a, struct vd_image *b, unsigned flags)
{
	const struct vd_job job = { .struct_size = sizeof(job), .n_threads = 4 };
	struct vd_compare_report report = { .struct_size = sizeof(report), .b_failed = true };
	struct vd_error e;

	expect_ok(vd_image_compare(a, b, flags, &job, &report, &e), &e);
	assert_false(report.b_failed);
	return report;
}

static void copies_of_every_kind_are_the_same(void **state)
{
	struct vd_image *src, *other;
	struct model m;

	(void)state;
	model_init(&m, 5 * MIB, 2);
	disk_make(raw, "d", m.size, NULL);
	src = disk_open(raw, "d", VD_OPEN_WRITE);
	model_write(&m, src, MIB / 2, MIB);
	model_fill(&m, src, 3 * MIB + 17, MIB, 3);
	for (size_t i = 0; i < n_targets; i++) {
		struct vd_compare_report r;

		target_copy(&targets[i], src, "o", 0, 2);
		other = target_open(&targets[i], "o");
		r = report_of(src, other, 0);
		assert_true(r.same && !r.size_differs && !r.has_offset);
		disk_close(other);
	}
	disk_close(src);
	model_free(&m);
}

/* ---- differences -------------------------------------------------------------------------------------- */

static void the_first_byte_that_differs_is_named(void **state)
{
	static const uint64_t places[][2] = {
		/* where one differs; where another one does, too */
		{ 0, 0 }, { 1, 9 * MIB - 1 }, { 9 * MIB - 1, 9 * MIB - 1 }, { 256 * 1024 - 1, 256 * 1024 },
		{ 5 * MIB + 77, 5 * MIB + 78 }, { 3 * MIB, 8 * MIB },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		for (int round = 0; round < 5; round++) {
			struct vd_image *a, *b;
			struct vd_compare_report r;

			disk_put_raw("a", 9 * MIB, 0x33);
			disk_put_raw("b", 9 * MIB, 0x33);
			a = disk_open(raw, "a", 0);
			b = disk_open(raw, "b", VD_OPEN_WRITE);
			disk_write(b, places[i][0], 1, 0x34);
			disk_write(b, places[i][1], 1, 0x35);
			r = report_of(a, b, 0);
			assert_true(!r.same && r.has_offset && !r.size_differs);
			assert_int_equal(r.offset, places[i][0]);
			disk_close(a);
			disk_close(b);
		}
}

/* A host on which reading takes its time, most of all behind the first 256 KiB. */
static int read_slowly(struct vd_wrap *w, struct vd_op *op, struct vd_error *e)
{
	(void)w;
	(void)e;
	if (op->kind == VD_OP_READ)
		usleep(op->off < 256 * 1024 ? 5000 : 20000);
	return 0;
}

static struct vd_image *open_slow(struct vd_wrap *w, const char *name)
{
	const struct vd_open_opts opts = disk_open_opts(raw, 0);
	struct vd_image *img = NULL;
	struct vd_error e;

	vd_wrap_init(w, disks.host);
	w->before = read_slowly;
	expect_ok(vd_image_open_on(&w->host, raw, name, &opts, &img, &e), &e);
	return img;
}

/* What another worker is busy with is neither waited for in vain nor allowed to be the answer. */
static void a_difference_ends_the_reading_and_stays_the_answer(void **state)
{
	const struct vd_fault_plan count = { .kinds = VD_OP_READ };
	struct vd_compare_report r;
	struct vd_wrap wrap = { 0 };
	struct vd_image *a, *b;

	(void)state;
	disk_put_raw("a", 64 * MIB, 1);
	disk_put_raw("b", 64 * MIB, 2);
	a = open_slow(&wrap, "a");
	b = disk_open(raw, "b", 0);
	vd_fault_arm(disks.fault, &count);
	r = report_of(a, b, 0);
	assert_true(r.has_offset);
	assert_int_equal(r.offset, 0);
	assert_in_range(vd_fault_seen(disks.fault), 2, 100);
	vd_fault_arm(disks.fault, NULL);
	disk_close(a);
	disk_close(b);
}

static void data_against_a_hole_is_looked_at(void **state)
{
	struct vd_image *a, *b;
	struct vd_compare_report r;

	(void)state;
	disk_make(raw, "a", 4 * MIB, NULL);
	disk_make(qcow2, "b", 4 * MIB, NULL);
	a = disk_open(raw, "a", VD_OPEN_WRITE);
	b = disk_open(qcow2, "b", VD_OPEN_WRITE);
	disk_write(a, 2 * MIB, MIB, 0);
	assert_true(report_of(a, b, 0).same);
	disk_write(b, 3 * MIB - 5, 2, 1);
	r = report_of(a, b, 0);
	assert_true(!r.same && r.has_offset);
	assert_int_equal(r.offset, 3 * MIB - 5);
	disk_close(a);
	disk_close(b);
}

/* ---- sizes -------------------------------------------------------------------------------------------- */

static void disks_of_two_sizes(void **state)
{
	static const struct { uint8_t tail; unsigned flags; bool same, has_offset; } table[] = {
		{ 0, 0, false, false },
		{ 0, VD_COMPARE_IGNORE_TRAILING_ZEROS, true, false },
		{ 1, 0, false, true },
		{ 1, VD_COMPARE_IGNORE_TRAILING_ZEROS, false, true },
	};

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		bool swap = i % 2;
		struct vd_image *a, *b;
		struct vd_compare_report r;

		disk_put_raw("a", 2 * MIB + 5, 0x33);
		disk_put_raw("b", 3 * MIB, 0x33);
		a = disk_open(raw, "a", 0);
		b = disk_open(raw, "b", VD_OPEN_WRITE);
		disk_write(b, 2 * MIB + 5, MIB - 5, 0);
		disk_write(b, 2 * MIB + 9000, 1, table[i / 2].tail);
		r = swap ? report_of(b, a, table[i / 2].flags) : report_of(a, b, table[i / 2].flags);
		assert_true(r.size_differs);
		assert_int_equal(r.same, table[i / 2].same);
		assert_int_equal(r.has_offset, table[i / 2].has_offset);
		assert_int_equal(r.offset, r.has_offset ? 2 * MIB + 9000 : 0);
		disk_close(a);
		disk_close(b);
	}
}

static void empty_disks_are_the_same(void **state)
{
	struct vd_image *a, *b;

	(void)state;
	disk_put_raw("a", 0, 0);
	disk_put_raw("b", 0, 0);
	a = disk_open(raw, "a", 0);
	b = disk_open(raw, "b", 0);
	assert_true(report_of(a, b, 0).same);
	disk_close(a);
	disk_close(b);
}

/* ---- what is read ------------------------------------------------------------------------------------- */

static struct vd_image *make_huge(const char *name, uint64_t place)
{
	struct vd_image *img;

	disk_make(qcow2, name, TIB, NULL);
	img = disk_open(qcow2, name, VD_OPEN_WRITE);
	disk_write(img, place, 1, 1);
	return img;
}

static void what_both_tables_call_zeros_is_not_read(void **state)
{
	struct vd_image *a = make_huge("a", TIB / 2), *b = make_huge("b", TIB / 2);
	const struct vd_fault_plan count = { .kinds = VD_OP_READ };

	(void)state;
	vd_fault_arm(disks.fault, &count);
	assert_true(report_of(a, b, 0).same);
	/* The one piece on either side, and what tables were not in memory. */
	assert_in_range(vd_fault_seen(disks.fault), 2, 20);
	vd_fault_arm(disks.fault, NULL);
	disk_close(a);
	disk_close(b);
}

/* ---- failures ----------------------------------------------------------------------------------------- */

static void the_side_that_cannot_be_read_is_named(void **state)
{
	static const char *const names[] = { "a", "b" };

	(void)state;
	for (int side = 0; side < 2; side++) {
		const struct vd_fault_plan plan = { .kinds = VD_OP_READ, .nth = 2, .err = EIO, .only = names[side] };
		struct vd_compare_report r = { .struct_size = sizeof(r) };
		struct vd_image *a, *b;
		struct vd_error e;

		disk_put_raw("a", 4 * MIB, 7);
		disk_put_raw("b", 4 * MIB, 7);
		a = disk_open(raw, "a", 0);
		b = disk_open(raw, "b", 0);
		vd_fault_arm(disks.fault, &plan);
		expect_failure(vd_image_compare(a, b, 0, NULL, &r, &e), VD_EIO, &e, "read number 2");
		assert_int_equal(r.b_failed, side);
		assert_false(r.same);
		vd_fault_arm(disks.fault, NULL);
		disk_close(a);
		disk_close(b);
	}
}

/* Breaks the compressed cluster that holds the guest offset. */
static void damage(const char *name, uint64_t off)
{
	struct vd_image *img = disk_open(qcow2, name, 0);
	struct vd_io *io = NULL;
	struct vd_extent x;
	uint64_t host_off;
	struct vd_error e;
	size_t n;

	expect_ok(vd_image_extents(img, off, 1, &x, 1, &n, &e), &e);
	assert_true(x.flags & VD_EXTENT_PACKED);
	host_off = x.host_off;
	disk_close(img);
	expect_ok(disks.mem->open(disks.mem, name, VD_IO_WRITE, &io, &e), &e);
	expect_ok(vd_io_pwrite(io, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, host_off, &e), &e);
	expect_ok(vd_io_close(io, &e), &e);
}

/* A reader from the start meets what comes first, and so does whoever asks many threads. */
static void what_comes_first_counts(void **state)
{
	struct vd_image *a, *b;

	(void)state;
	disk_put_raw("a", 4 * MIB, 7);
	a = disk_open(raw, "a", VD_OPEN_WRITE);
	target_copy(target_named("qcow2 deflate"), a, "b", 0, 2);
	damage("b", 2 * MIB);
	b = disk_open(qcow2, "b", 0);
	for (int round = 0; round < 10; round++) {
		struct vd_compare_report r = { .struct_size = sizeof(r) };
		struct vd_error e;

		disk_write(a, 3 * MIB, 1, 8);
		expect_failure(vd_image_compare(a, b, 0, NULL, &r, &e), VD_ECORRUPT, &e, "compressed");
		assert_true(r.b_failed && !r.has_offset);
		disk_write(a, MIB, 1, 8);
		r = report_of(a, b, 0);
		assert_true(r.has_offset && !r.same);
		assert_int_equal(r.offset, MIB);
		disk_write(a, MIB, 1, 7);
	}
	disk_close(a);
	disk_close(b);
}

static void an_overlay_without_its_parent_is_refused(void **state)
{
	struct vd_compare_report r = { .struct_size = sizeof(r) };
	struct vd_image *a, *b;
	struct vd_error e;

	(void)state;
	disk_make(qcow2, "p", MIB, NULL);
	disk_make(qcow2, "a", MIB, "p");
	a = disk_open(qcow2, "a", VD_OPEN_METADATA);
	b = disk_open(qcow2, "p", 0);
	expect_failure(vd_image_compare(a, b, 0, NULL, &r, &e), VD_EREFERENCE, &e, "was not opened");
	assert_false(r.b_failed);
	expect_failure(vd_image_compare(b, a, 0, NULL, &r, &e), VD_EREFERENCE, &e, "was not opened");
	assert_true(r.b_failed);
	disk_close(a);
	disk_close(b);
}

static int cancel(void *ctx, const struct vd_progress *p)
{
	assert_string_equal(p->phase, "compare");
	++*(int *)ctx;
	return 1;
}

static void a_comparison_can_be_cancelled(void **state)
{
	int n_calls = 0;
	const struct vd_job job = { .struct_size = sizeof(job), .progress = cancel, .ctx = &n_calls };
	struct vd_compare_report r = { .struct_size = sizeof(r) };
	struct vd_image *a, *b;
	struct vd_error e;

	(void)state;
	disk_put_raw("a", 4 * MIB, 7);
	disk_put_raw("b", 4 * MIB, 7);
	a = disk_open(raw, "a", 0);
	b = disk_open(raw, "b", 0);
	expect_failure(vd_image_compare(a, b, 0, &job, &r, &e), VD_ECANCELLED, &e, "cancelled");
	assert_int_equal(n_calls, 1);
	assert_false(r.same);
	r.struct_size--;
	expect_failure(vd_image_compare(a, b, 0, NULL, &r, &e), VD_EARG, &e, "struct vd_compare_report");
	disk_close(a);
	disk_close(b);
}

#define test(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(copies_of_every_kind_are_the_same),
		test(the_first_byte_that_differs_is_named),
		test(a_difference_ends_the_reading_and_stays_the_answer),
		test(data_against_a_hole_is_looked_at),
		test(disks_of_two_sizes),
		test(empty_disks_are_the_same),
		test(what_both_tables_call_zeros_is_not_read),
		test(the_side_that_cannot_be_read_is_named),
		test(what_comes_first_counts),
		test(an_overlay_without_its_parent_is_refused),
		test(a_comparison_can_be_cancelled),
	};

	return cmocka_run_group_tests_name("compare", tests, NULL, NULL);
}
