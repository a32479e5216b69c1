/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 when the host or memory fails, at each operation in turn: the image is sound, holds what was flushed, and
 * no step of the driver forgets to hand the failure on.
 */
#include "tests/support/qcow2_bytes.h"
#include "tests/support/qcow2_check.h"

#include <errno.h>

#include "libvdisk/base/alloc.h"

#define qcow2 (&vd_format_qcow2)
#define MIB (UINT64_C(1) << 20)
#define SIZE (4 * MIB)
#define CS UINT64_C(4096)

/* Small clusters and wide counts, so that blocks are added on the way; half of it written, some of it shared. */
static void make_base(void)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;
	uint64_t entry, host, block;

	disks.mem->unlink(disks.mem, "x", NULL);
	o.cluster_size = CS;
	o.refcount_bits = 64;
	img = disk_create(qcow2, "x", &o);
	disk_write(img, 0, 8 * CS, 1);
	disk_commit(img);
	disk_close(img);
	entry = bytes_l2_entry("x", 0);
	host = bytes_get("x", entry, 8) & UINT64_C(0x00fffffffffffe00);
	block = bytes_get("x", bytes_get("x", 48, 8), 8);
	bytes_put("x", entry, 8, host);
	bytes_put("x", block + host / CS * 8, 8, 2);
}

/* All kinds of changes; *flushed: how many of the two flushes were acknowledged. */
static int work(int *flushed, struct vd_error *e)
{
	static const uint8_t twos[300000] = { [0 ... 299999] = 2 };
	struct vd_open_opts opts = disk_open_opts(qcow2, VD_OPEN_WRITE);
	struct vd_image *img = NULL;
	int r, c;

	*flushed = 0;
	opts.cache_bytes = 1;
	r = vd_image_open_on(disks.host, qcow2, "x", &opts, &img, e);
	if (r < 0)
		return r;
	r = vd_image_pwrite(img, twos, 100, 50, e);
	if (r == 0)
		r = vd_image_pwrite(img, twos, sizeof(twos), 2 * MIB - 1000, e);
	if (r == 0)
		r = vd_image_flush(img, e);
	*flushed += r == 0;
	if (r == 0)
		r = vd_image_write_zeroes(img, CS, 4 * CS, 0, e);
	if (r == 0)
		r = vd_image_pwrite(img, twos, sizeof(twos), 3 * MIB, e);
	if (r == 0)
		r = vd_image_flush(img, e);
	*flushed += r == 0;
	c = vd_image_close(img, r < 0 ? NULL : e);
	return r < 0 ? r : c;
}

static void expect_sound_after(int flushed, uint64_t nth)
{
	struct qcow2_verdict v = qcow2_check(disks.mem, "x");
	struct vd_image *img;

	if (v.n_errors)
		fail_msg("failure %llu: %s", (unsigned long long)nth, v.first);
	img = disk_open(qcow2, "x", 0);
	if (flushed) {
		disk_expect(img, 0, 50, 1);
		disk_expect(img, 50, 100, 2);
		disk_expect(img, 150, CS - 150, 1);
		disk_expect(img, 2 * MIB - 1000, 300000, 2);
	}
	disk_expect(img, 5 * CS, 3 * CS, 1);
	if (flushed > 1) {
		disk_expect(img, CS, 4 * CS, 0);
		disk_expect(img, 3 * MIB, 300000, 2);
	}
	disk_close(img);
}

static void sweep(struct vd_fault_plan plan)
{
	struct vd_error e;
	int flushed;

	for (plan.nth = 1;; plan.nth++) {
		bool fired;
		int r;

		make_base();
		vd_fault_arm(disks.fault, &plan);
		r = work(&flushed, &e);
		fired = vd_fault_fired(disks.fault);
		vd_fault_arm(disks.fault, NULL);
		if (!fired)
			break;
		assert_true(r < 0 && e.message[0]);
		expect_sound_after(flushed, plan.nth);
	}
	assert_int_equal(flushed, 2);
	assert_true(plan.nth > 5);
}

static void every_failed_write_leaves_a_sound_image(void **state)
{
	(void)state;
	sweep((struct vd_fault_plan){ .kinds = VD_OP_WRITE, .err = ENOSPC });
	sweep((struct vd_fault_plan){ .kinds = VD_OP_WRITE, .err = EIO, .half_done = true, .for_ever = true });
}

static void every_failed_read_flush_or_growth_leaves_a_sound_image(void **state)
{
	(void)state;
	sweep((struct vd_fault_plan){ .kinds = VD_OP_READ | VD_OP_SIZE | VD_OP_TRUNCATE, .err = EIO });
	sweep((struct vd_fault_plan){ .kinds = VD_OP_FLUSH | VD_OP_TRUNCATE, .err = EIO, .for_ever = true });
}

static void want_of_memory_leaves_a_sound_image(void **state)
{
	int flushed = 0, r = -1;
	struct vd_error e;

	(void)state;
	for (long n = 0; r < 0; n++) {
		make_base();
		vd_alloc_fail_after(n);
		r = work(&flushed, &e);
		vd_alloc_fail_after(-1);
		if (r < 0)
			expect_failure(r, VD_ENOMEM, &e, "");
		expect_sound_after(flushed, n);
	}
	assert_int_equal(flushed, 2);
}

static int create(struct vd_error *e)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img = NULL;
	int r, c;

	o.data_file = "data";
	r = vd_image_create_on(disks.host, qcow2, "x", &o, &img, e);
	if (r < 0)
		return r;
	r = vd_image_pwrite(img, "hello", 5, MIB, e);
	if (r == 0)
		r = vd_image_commit(img, e);
	c = vd_image_close(img, r < 0 ? NULL : e);
	return r < 0 ? r : c;
}

static void a_creation_that_fails_leaves_nothing(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_READ | VD_OP_WRITE | VD_OP_TRUNCATE | VD_OP_FLUSH | VD_OP_SIZE, .err = EIO };
	struct vd_error e;

	(void)state;
	for (plan.nth = 1;; plan.nth++) {
		int r;

		vd_fault_arm(disks.fault, &plan);
		r = create(&e);
		if (!vd_fault_fired(disks.fault))
			break;
		vd_fault_arm(disks.fault, NULL);
		assert_true(r < 0);
		assert_false(disks.mem->exists(disks.mem, "x"));
		assert_null(vd_mem_name(disks.mem, 0));
	}
	vd_fault_arm(disks.fault, NULL);
	assert_true(plan.nth > 5);
	expect_sound("x");
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(every_failed_write_leaves_a_sound_image),
		T(every_failed_read_flush_or_growth_leaves_a_sound_image),
		T(want_of_memory_leaves_a_sound_image),
		T(a_creation_that_fails_leaves_nothing),
	};
#undef T

	return cmocka_run_group_tests(tests, NULL, NULL);
}
