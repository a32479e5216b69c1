/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bitmaps when the host or memory fails, at each operation in turn: the tables are sound, the disk is read, and a bitmap
 * that holds has what is new on the disk.
 */
#include "libvdisk/base/alloc.h"
#include "tests/support/bitmaps.h"
#include "tests/support/qcow2_check.h"

#include <errno.h>

#define qcow2 (&vd_format_qcow2)
#define SIZE (1u << 20)
#define X 100000                        /* where the work writes first, and second */
#define Y 600000
#define KINDS (VD_OP_READ | VD_OP_WRITE | VD_OP_FLUSH | VD_OP_TRUNCATE | VD_OP_SIZE)

static void make_base(void)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	o.cluster_size = 4096;
	o.flags = VD_CREATE_REPLACE;
	img = disk_create(qcow2, "d", &o);
	disk_write(img, 0, SIZE, 1);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	bitmap_make(img, "a", 512);
	bitmap_make(img, "b", 65536);
	disk_write(img, 0, 1000, 1);
	disk_close(img);
}

static int write_twos(struct vd_image *img, uint64_t off, struct vd_error *e)
{
	static const uint8_t twos[2000] = { [0 ... 1999] = 2 };

	return vd_image_pwrite(img, twos, sizeof(twos), off, e);
}

/* Goes on after failures, as a program may. */
static int work(struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(qcow2, VD_OPEN_WRITE);
	const char *const source = "b";
	struct vd_image *img = NULL;
	int first = vd_image_open_on(disks.host, qcow2, "d", &opts, &img, e), r;

	if (first < 0)
		return first;
#define GO_ON(call) do { r = call; first = first < 0 ? first : r; } while (0)
	GO_ON(write_twos(img, X, first < 0 ? NULL : e));
	GO_ON(vd_image_flush(img, first < 0 ? NULL : e));
	GO_ON(vd_bitmap_create(img, "c", 0, 0, first < 0 ? NULL : e));
	GO_ON(write_twos(img, Y, first < 0 ? NULL : e));
	GO_ON(vd_bitmap_merge(img, "a", NULL, &source, 1, first < 0 ? NULL : e));
	GO_ON(vd_image_resize(img, SIZE + 512, 0, first < 0 ? NULL : e));
	GO_ON(vd_bitmap_remove(img, "b", first < 0 ? NULL : e));
	GO_ON(write_twos(img, Y + 10000, first < 0 ? NULL : e));
	GO_ON(vd_image_close(img, first < 0 ? NULL : e));
#undef GO_ON
	return first;
}

static bool is_dirty(struct vd_image *img, const char *name, uint64_t at)
{
	struct vd_extent x;
	struct vd_error e;
	size_t n;

	expect_ok(vd_image_extents_since(img, name, at, 1, &x, 1, &n, &e), &e);
	return x.flags & VD_EXTENT_DIRTY;
}

static void expect_no_miss(struct vd_image *img, const char *name, uint64_t nth)
{
	const uint64_t places[] = { X, X + 1999, Y, Y + 1999, Y + 10000, Y + 11999 };
	struct vd_error e;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		uint8_t byte;

		expect_ok(vd_image_pread(img, &byte, 1, places[i], &e), &e);
		if (byte == 2 && !is_dirty(img, name, places[i]))
			fail_msg("failure %llu: bitmap '%s' misses the write at %llu", (unsigned long long)nth, name,
				 (unsigned long long)places[i]);
	}
	if (vd_image_size(img) > SIZE && !is_dirty(img, name, SIZE))
		fail_msg("failure %llu: bitmap '%s' misses what is new", (unsigned long long)nth, name);
}

static void expect_sound_after(uint64_t nth, size_t *n_usable)
{
	struct qcow2_verdict v = qcow2_check(disks.mem, "d");
	struct vd_bitmap *list;
	struct vd_image *img;
	struct vd_error e;
	size_t n;

	if (v.n_errors)
		fail_msg("failure %llu: %s", (unsigned long long)nth, v.first);
	img = disk_open(qcow2, "d", 0);
	expect_ok(vd_bitmap_list(img, &list, &n, &e), &e);
	for (size_t i = 0; i < n; i++) {
		if (list[i].unusable || !strcmp(list[i].name, "c"))
			continue;
		++*n_usable;
		expect_no_miss(img, list[i].name, nth);
	}
	vd_bitmap_list_free(list);
	disk_close(img);
}

static void sweep_host(bool for_ever, bool half_done)
{
	size_t n_usable = 0;

	for (uint64_t nth = 1;; nth++) {
		struct vd_fault_plan plan = { .kinds = KINDS, .nth = nth, .err = EIO, .for_ever = for_ever, .half_done = half_done };
		struct vd_error e;
		bool fired;
		int r;

		make_base();
		vd_fault_arm(disks.fault, &plan);
		r = work(&e);
		fired = vd_fault_fired(disks.fault);
		vd_fault_arm(disks.fault, NULL);
		expect_sound_after(nth, &n_usable);
		if (!fired) {
			expect_ok(r, &e);
			break;
		}
		if (r == 0)
			fail_msg("failure %llu was told nobody", (unsigned long long)nth);
	}
	assert_true(n_usable > 10);
}

static void one_operation_that_fails_makes_no_bitmap_wrong(void **state)
{
	(void)state;
	sweep_host(false, false);
}

static void a_host_that_is_gone_makes_no_bitmap_wrong(void **state)
{
	(void)state;
	sweep_host(true, true);
}

static void want_of_memory_makes_no_bitmap_wrong(void **state)
{
	size_t n_usable = 0;
	bool fired = true;

	(void)state;
	for (uint64_t nth = 0; fired; nth++) {
		struct vd_error e;

		make_base();
		vd_alloc_fail_after((long)nth);
		(void)work(&e);
		fired = vd_alloc_fail_after(-1) < 0;
		expect_sound_after(nth, &n_usable);
	}
	assert_true(n_usable > 100);
}

/* A device, or a disk, that is full: what is there stays as it is, and usable. */
static void a_full_host_leaves_bitmaps_as_they_were(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_TRUNCATE, .nth = 1, .err = ENOSPC, .for_ever = true };
	struct vd_image *img;
	struct vd_error e;
	int r = 0;

	(void)state;
	make_base();
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	vd_fault_arm(disks.fault, &plan);
	for (char name[] = "n0"; name[1] <= '9' && r == 0; name[1]++)
		r = vd_bitmap_create(img, name, 512, 0, &e);
	expect_failure(r, VD_ENOSPC, &e, "d");
	assert_string_equal(dirty_since(img, "a"), "0+1024");
	vd_fault_arm(disks.fault, NULL);
	bitmap_make(img, "c", 0);
	disk_close(img);
	assert_int_equal(qcow2_check(disks.mem, "d").n_errors, 0);
	assert_int_equal(qcow2_check(disks.mem, "d").n_leaks, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(one_operation_that_fails_makes_no_bitmap_wrong),
		T(a_host_that_is_gone_makes_no_bitmap_wrong),
		T(want_of_memory_makes_no_bitmap_wrong),
		T(a_full_host_leaves_bitmaps_as_they_were),
	};

	return cmocka_run_group_tests_name("bitmap faults", tests, NULL, NULL);
}
