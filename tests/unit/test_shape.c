/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who may change an image's shape, on which handles, and what others see meanwhile. */
#include <pthread.h>

#include "libvdisk/base/checked.h"
#include "tests/support/model.h"
#include "tests/support/qcow2_check.h"

#define SIZE (1u << 20)

static const struct vd_format *const qcow2 = &vd_format_qcow2;

static void snapshot(struct vd_image *img, const char *name)
{
	struct vd_error e;

	expect_ok(vd_snapshot_create(img, name, &e), &e);
}

static size_t n_snapshots(struct vd_image *img)
{
	struct vd_snapshot *list;
	struct vd_error e;
	size_t n;

	expect_ok(vd_snapshot_list(img, &list, &n, &e), &e);
	vd_snapshot_list_free(list);
	return n;
}

static void readers_change_nothing(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(qcow2, "d", SIZE, NULL);
	img = disk_open(qcow2, "d", 0);
	expect_failure(vd_snapshot_create(img, "a", &e), VD_EREADONLY, &e, "reading only");
	expect_failure(vd_image_resize(img, 2 * SIZE, 0, &e), VD_EREADONLY, &e, "reading only");
	assert_int_equal(n_snapshots(img), 0);
	disk_close(img);
}

static void control_changes_the_shape_and_writes_no_payload(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(qcow2, "d", SIZE, NULL);
	img = disk_open(qcow2, "d", VD_OPEN_CONTROL);
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EREADONLY, &e, "shape only");
	expect_failure(vd_image_write_zeroes(img, 0, 1, 0, &e), VD_EREADONLY, &e, "shape only");
	snapshot(img, "a");
	expect_ok(vd_image_resize(img, 2 * SIZE, 0, &e), &e);
	assert_int_equal(vd_image_size(img), 2 * SIZE);
	disk_close(img);
}

static void images_being_made_keep_their_shape(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img = disk_create(qcow2, "d", &opts);
	struct vd_error e;

	(void)state;
	expect_failure(vd_snapshot_create(img, "a", &e), VD_EARG, &e, "after the commit");
	vd_image_abort(img);
}

static void formats_without_snapshots_say_so(void **state)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_toy, 0);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(&vd_format_toy, "d", SIZE, NULL);
	img = disk_open(&vd_format_toy, "d", VD_OPEN_WRITE);
	expect_failure(vd_snapshot_create(img, "a", &e), VD_EUNSUPPORTED, &e, "no snapshots");
	expect_failure(vd_image_resize(img, 2 * SIZE, 0, &e), VD_EUNSUPPORTED, &e, "cannot be changed");
	disk_close(img);
	opts.snapshot = "a";
	expect_failure(vd_image_open_on(disks.host, &vd_format_toy, "d", &opts, &img, &e), VD_EUNSUPPORTED, &e, "no snapshots");
}

static void snapshots_are_only_read(void **state)
{
	struct vd_open_opts opts = disk_open_opts(qcow2, VD_OPEN_WRITE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(qcow2, "d", SIZE, NULL);
	opts.snapshot = "a";
	expect_failure(vd_image_open_on(disks.host, qcow2, "d", &opts, &img, &e), VD_EARG, &e, "only read");
	opts.flags = 0;
	expect_failure(vd_image_open_on(disks.host, qcow2, "d", &opts, &img, &e), VD_ENOENT, &e, "d: the image has no snapshot 'a'");
}

static void smaller_needs_the_flag(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(qcow2, "d", SIZE, NULL);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_resize(img, SIZE / 2, 0, &e), VD_EARG, &e, "would be lost");
	expect_failure(vd_image_resize(img, SIZE + 1, 0, &e), VD_EARG, &e, "whole sectors");
	expect_failure(vd_image_resize(img, UINT64_MAX - 511, 0, &e), VD_EARG, &e, "too large");
	expect_failure(vd_image_resize(img, UINT64_C(1) << 60, 0, &e), VD_EARG, &e, "too large");
	expect_ok(vd_image_resize(img, SIZE / 2, VD_RESIZE_SHRINK, &e), &e);
	expect_failure(vd_image_pread(img, &e, 1, SIZE / 2, &e), VD_ERANGE, &e, "outside");
	disk_close(img);
}

/* Without the key zeros would go out in clear. */
static void a_tail_in_ciphertext_needs_the_key(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE + 512);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	opts.kdf.iterations = 1000;
	expect_ok(vd_key_from_bytes("k", 1, &opts.key, &e), &e);
	img = disk_create(qcow2, "d", &opts);
	disk_write(img, 0, SIZE + 512, 7);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_CONTROL);
	expect_failure(vd_image_resize(img, 2 * SIZE, 0, &e), VD_ENOKEY, &e, "takes the key");
	snapshot(img, "a");
	expect_ok(vd_image_resize(img, SIZE, VD_RESIZE_SHRINK, &e), &e);
	expect_ok(vd_image_resize(img, 2 * SIZE, 0, &e), &e);
	disk_close(img);
	vd_key_free(opts.key);
}

/* ---- beside others -------------------------------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	struct vd_image *img;
	uint64_t start;
	uint8_t value;
	bool failed;
};

/* What a thread wrote into its own part, it reads, whatever is made of the image meanwhile. */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint8_t buf[9000];

	for (int i = 0; i < 60 && !w->failed; i++) {
		uint64_t off = w->start + (uint64_t)i * 977 % (SIZE / 4 - sizeof(buf));

		memset(buf, w->value + i, sizeof(buf));
		w->failed = vd_image_pwrite(w->img, buf, sizeof(buf), off, NULL) < 0;
		memset(buf, 0, sizeof(buf));
		w->failed |= vd_image_pread(w->img, buf, sizeof(buf), off, NULL) < 0;
		for (size_t k = 0; k < sizeof(buf); k++)
			w->failed |= buf[k] != (uint8_t)(w->value + i);
	}
	return NULL;
}

static void readers_and_writers_go_on_beside_acts(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct worker workers[3] = { 0 };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	opts.cluster_size = 4096;
	img = disk_create(qcow2, "d", &opts);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	for (int i = 0; i < 3; i++) {
		workers[i] = (struct worker){ .img = img, .start = i * (SIZE / 4), .value = i * 70 };
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (int i = 0; i < 12; i++) {
		snapshot(img, "a");
		expect_ok(vd_image_resize(img, SIZE + 4096 * (i % 3), VD_RESIZE_SHRINK, &e), &e);
		expect_ok(vd_snapshot_delete(img, "a", &e), &e);
	}
	for (int i = 0; i < 3; i++) {
		pthread_join(workers[i].thread, NULL);
		assert_false(workers[i].failed);
	}
	disk_close(img);
	assert_int_equal(qcow2_check(disks.mem, "d").n_errors, 0);
	assert_int_equal(qcow2_check(disks.mem, "d").n_leaks, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(readers_change_nothing),
		T(control_changes_the_shape_and_writes_no_payload),
		T(images_being_made_keep_their_shape),
		T(formats_without_snapshots_say_so),
		T(snapshots_are_only_read),
		T(smaller_needs_the_flag),
		T(a_tail_in_ciphertext_needs_the_key),
		T(readers_and_writers_go_on_beside_acts),
	};

	return cmocka_run_group_tests_name("shape", tests, NULL, NULL);
}
