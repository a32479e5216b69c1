/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scrubbing on free: a marker that the guest wrote is searched for in the bytes of the host's file, after every way in
 * which its cluster becomes free, and in what a loss of power right after the call would leave.
 */
#include <errno.h>

#include "formats/qcow2/qcow2_shape.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/model.h"
#include "tests/support/qcow2_check.h"

#define CS 4096u
#define SIZE (256 * CS)                 /* more than one L2 table of one window, below */
#define MARKER "a secret that must not survive! "
#define MARKER_LEN (sizeof(MARKER) - 1)

static const struct vd_format *const qcow2 = &vd_format_qcow2;

static void mark(struct vd_image *img, uint64_t off, uint64_t len)
{
	vd_auto_free uint8_t *buf = malloc(len);
	struct vd_error e;

	for (uint64_t i = 0; i < len; i++)
		buf[i] = MARKER[i % MARKER_LEN];
	expect_ok(vd_image_pwrite(img, buf, len, off, &e), &e);
}

static size_t count_markers(struct vd_host *host, const char *name)
{
	vd_auto_free uint8_t *bytes = NULL;
	struct vd_io *io = NULL;
	struct vd_error e;
	uint64_t size;
	size_t n = 0;

	expect_ok(host->open(host, name, VD_IO_FORCE_SHARE, &io, &e), &e);
	expect_ok(vd_io_size(io, &size, &e), &e);
	bytes = malloc(size);
	expect_ok(vd_io_pread(io, bytes, size, 0, &e), &e);
	vd_io_abort(io);
	for (const uint8_t *at = bytes; (at = memmem(at, size - (at - bytes), MARKER, MARKER_LEN)); at += MARKER_LEN)
		n++;
	return n;
}

/* What is there now, and what would be if power were lost now. */
static void expect_no_marker(void)
{
	struct vd_crash c;
	struct vd_error e;
	size_t last = vd_crash_count(disks.record, 0) - 1;

	assert_int_equal(count_markers(disks.mem, "d"), 0);
	expect_ok(vd_crash_state(disks.record, 0, 1, last, &c, &e), &e);
	assert_int_equal(c.variant, 1);
	assert_int_equal(count_markers(c.host, "d"), 0);
	vd_mem_host_free(c.host);
}

static void create(unsigned flags, struct vd_key *key)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	opts.cluster_size = flags & VD_CREATE_EXTENDED_L2 ? 4 * CS : CS;
	opts.flags = flags;
	opts.key = key;
	opts.kdf.iterations = 1000;
	img = disk_create(qcow2, "d", &opts);
	disk_commit(img);
	disk_close(img);
}

static struct vd_image *make(unsigned flags)
{
	create(flags, NULL);
	return disk_open(qcow2, "d", VD_OPEN_WRITE | VD_OPEN_SCRUB_FREED);
}

static void expect_sound(bool may_leak)
{
	struct qcow2_verdict v = qcow2_check(disks.mem, "d");

	if (v.n_errors)
		fail_msg("%s", v.first);
	if (!may_leak)
		assert_int_equal(v.n_leaks, 0);
}

/* A disk whose markers only the snapshot "s" has any more. */
static struct vd_image *make_snapshot(unsigned flags)
{
	struct vd_image *img = make(flags);
	struct vd_error e;

	mark(img, 0, SIZE - 3 * CS);
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	disk_write(img, 0, SIZE, 7);
	disk_close(img);
	assert_true(count_markers(disks.mem, "d") > 0);
	return disk_open(qcow2, "d", VD_OPEN_CONTROL | VD_OPEN_SCRUB_FREED);
}

/* ---- acts ----------------------------------------------------------------------------------------------- */

static const unsigned kinds[] = { 0, VD_CREATE_COMPAT_V2, VD_CREATE_EXTENDED_L2 };

static void deleting_a_snapshot_leaves_nothing_of_it(void **state)
{
	struct vd_error e;

	for (size_t i = 0; i < 2 * sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct vd_image *img;

		disks_start(state);
		vd_qcow2_window = i % 2 ? 64 : 8u << 20;
		img = make_snapshot(kinds[i / 2]);
		expect_ok(vd_snapshot_delete(img, "s", &e), &e);
		expect_no_marker();
		disk_close(img);
		expect_sound(false);
		img = disk_open(qcow2, "d", 0);
		disk_expect(img, 0, SIZE, 7);
		disk_close(img);
		disks_stop(state);
	}
	vd_qcow2_window = 8u << 20;
}

static void going_back_to_a_snapshot_leaves_nothing_of_the_disk(void **state)
{
	struct vd_error e;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct vd_image *img;

		disks_start(state);
		img = make(kinds[i]);
		disk_write(img, 0, SIZE / 2, 7);
		expect_ok(vd_snapshot_create(img, "s", &e), &e);
		mark(img, SIZE / 4, SIZE / 2);
		expect_ok(vd_snapshot_apply(img, "s", &e), &e);
		expect_no_marker();
		disk_expect(img, 0, SIZE / 2, 7);
		disk_expect(img, SIZE / 2, SIZE / 2, 0);
		disk_close(img);
		expect_sound(false);
		disks_stop(state);
	}
}

static void shrinking_leaves_nothing_past_the_end(void **state)
{
	struct vd_error e;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct vd_image *img;

		disks_start(state);
		img = make(kinds[i]);
		mark(img, CS + 512, SIZE - CS - 512);
		disk_close(img);
		img = disk_open(qcow2, "d", VD_OPEN_CONTROL | VD_OPEN_SCRUB_FREED);
		/* In the middle of a cluster, whose rest keeps nothing either. */
		expect_ok(vd_image_resize(img, CS + 512, VD_RESIZE_SHRINK, &e), &e);
		expect_no_marker();
		disk_close(img);
		expect_sound(false);
		disks_stop(state);
	}
}

static void the_rest_of_the_last_cluster_is_overwritten_without_being_asked(void **state)
{
	struct vd_image *img = make(0);
	struct vd_error e;

	(void)state;
	mark(img, 512, CS - 512);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_CONTROL);
	expect_ok(vd_image_resize(img, 512, VD_RESIZE_SHRINK, &e), &e);
	expect_no_marker();
	disk_close(img);
}

static void the_rest_of_a_cluster_that_a_snapshot_has_too_stays(void **state)
{
	struct vd_image *img = make(0);
	struct vd_open_opts opts = disk_open_opts(qcow2, 0);
	struct vd_error e;

	(void)state;
	disk_write(img, 0, SIZE, 9);
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	expect_ok(vd_image_resize(img, 512, VD_RESIZE_SHRINK, &e), &e);
	disk_close(img);
	opts.snapshot = "s";
	expect_ok(vd_image_open_on(disks.host, qcow2, "d", &opts, &img, &e), &e);
	disk_expect(img, 0, SIZE, 9);
	disk_close(img);
	expect_sound(false);
}

/* With the key the rest of the last cluster reads as zeros when the disk grows again, whoever makes it grow. */
static void an_encrypted_rest_is_encrypted_zeros(void **state)
{
	struct vd_key *key = NULL;
	struct vd_open_opts o = disk_open_opts(qcow2, VD_OPEN_WRITE);
	struct vd_image *img;
	struct vd_run run;
	uint8_t raw[512];
	struct vd_error e;
	size_t one = 1;

	(void)state;
	expect_ok(vd_key_from_bytes("k", 1, &key, &e), &e);
	create(0, key);
	o.keys = &key;
	o.n_keys = 1;
	expect_ok(vd_image_open_on(disks.host, qcow2, "d", &o, &img, &e), &e);
	disk_write(img, 0, CS, 7);
	expect_ok(vd_image_resize(img, 512, VD_RESIZE_SHRINK, &e), &e);
	expect_ok(qcow2->map(img->state, 0, 512, 0, &run, &one, &e), &e);
	expect_ok(vd_set_pread(img->set, 0, raw, 512, run.host_off + 1024, &e), &e);
	expect_ok(vd_layer_decrypt(&img->layer, raw, 512, 1024, run.host_off + 1024, &e), &e);
	for (size_t i = 0; i < 512; i++)
		assert_int_equal(raw[i], 0);
	disk_close(img);
	vd_key_free(key);
}

/* ---- writes --------------------------------------------------------------------------------------------- */

static void zeros_and_discards_leave_nothing_after_a_flush(void **state)
{
	struct vd_error e;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct vd_image *img;

		disks_start(state);
		img = make(kinds[i]);
		mark(img, 0, SIZE);
		/* Pieces of clusters too, and those that keep their space. */
		disk_zero(img, 0, 17 * CS + 100);
		expect_ok(vd_image_write_zeroes(img, 17 * CS + 100, 100 * CS, VD_ZERO_ALLOCATED, &e), &e);
		disk_zero(img, 117 * CS + 100, 3 * CS - 100);
		expect_ok(vd_image_discard(img, 120 * CS, SIZE - 120 * CS, &e), &e);
		disk_flush(img);
		expect_no_marker();
		disk_expect(img, 0, SIZE, 0);
		disk_close(img);
		expect_sound(false);
		disks_stop(state);
	}
}

static void without_the_flag_old_bytes_stay(void **state)
{
	struct vd_image *img = make(0);

	(void)state;
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	mark(img, 0, SIZE);
	disk_zero(img, 0, SIZE);
	disk_close(img);
	assert_true(count_markers(disks.mem, "d") > 0);
}

static void data_files_are_overwritten_not_punched(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;
	struct vd_error e;
	uint64_t tick;

	(void)state;
	opts.data_file = "x";
	img = disk_create(qcow2, "d", &opts);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE | VD_OPEN_SCRUB_FREED);
	mark(img, 0, SIZE);
	tick = vd_record_tick(disks.record);
	disk_zero(img, 0, SIZE / 2);
	expect_ok(vd_image_discard(img, SIZE / 2, SIZE / 2, &e), &e);
	disk_flush(img);
	assert_int_equal(count_markers(disks.mem, "x"), 0);
	assert_int_equal(disks_count(VD_OP_PUNCH, tick), 0);
	disk_expect(img, 0, SIZE, 0);
	disk_close(img);
}

/* A write that fails leaves what it had written already in a cluster that nobody got. */
static void a_write_taken_back_leaves_nothing(void **state)
{
	struct vd_image *img = make(0);
	vd_auto_free uint8_t *buf = malloc(SIZE);
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < SIZE; i++)
		buf[i] = MARKER[i % MARKER_LEN];
	disk_write(img, 0, 1, 1);
	disk_flush(img);
	vd_fault_arm(disks.fault,
		     &(struct vd_fault_plan){ .kinds = VD_OP_WRITE, .nth = 1, .err = ENOSPC, .half_done = true });
	expect_failure(vd_image_pwrite(img, buf, SIZE / 2, SIZE / 2, &e), VD_ENOSPC, &e, "made to fail");
	vd_fault_arm(disks.fault, NULL);
	assert_true(count_markers(disks.mem, "d") > 0);
	disk_flush(img);
	expect_no_marker();
	disk_close(img);
	expect_sound(false);
}

/* ---- failing -------------------------------------------------------------------------------------------- */

static void a_scrub_that_fails_says_that_the_act_has_happened(void **state)
{
	struct vd_image *img = make_snapshot(0);
	struct vd_snapshot *list;
	struct vd_error e;
	uint64_t n;
	size_t n_left;

	(void)state;
	/* The last write of the act is of its second pass. */
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_WRITE });
	expect_ok(vd_snapshot_delete(img, "s", &e), &e);
	n = vd_fault_seen(disks.fault);
	vd_fault_arm(disks.fault, NULL);
	disk_close(img);
	disks_stop(state);
	disks_start(state);
	img = make_snapshot(0);
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_WRITE, .nth = n - 3, .err = EIO });
	expect_failure(vd_snapshot_delete(img, "s", &e), VD_EPOISONED, &e, "the change has happened");
	vd_fault_arm(disks.fault, NULL);
	vd_image_abort(img);
	expect_sound(true);
	img = disk_open(qcow2, "d", 0);
	expect_ok(vd_snapshot_list(img, &list, &n_left, &e), &e);
	assert_int_equal(n_left, 0);
	vd_snapshot_list_free(list);
	disk_expect(img, 0, SIZE, 7);
	disk_close(img);
}

static void readers_have_nothing_to_scrub(void **state)
{
	struct vd_open_opts o = disk_open_opts(qcow2, VD_OPEN_SCRUB_FREED);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	disk_make(qcow2, "d", SIZE, NULL);
	expect_failure(vd_image_open_on(disks.host, qcow2, "d", &o, &img, &e), VD_EARG, &e, "frees nothing");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deleting_a_snapshot_leaves_nothing_of_it),
		cmocka_unit_test(going_back_to_a_snapshot_leaves_nothing_of_the_disk),
		cmocka_unit_test(shrinking_leaves_nothing_past_the_end),
		T(the_rest_of_the_last_cluster_is_overwritten_without_being_asked),
		T(the_rest_of_a_cluster_that_a_snapshot_has_too_stays),
		T(an_encrypted_rest_is_encrypted_zeros),
		cmocka_unit_test(zeros_and_discards_leave_nothing_after_a_flush),
		T(without_the_flag_old_bytes_stay),
		T(data_files_are_overwritten_not_punched),
		T(a_write_taken_back_leaves_nothing),
		T(a_scrub_that_fails_says_that_the_act_has_happened),
		T(readers_have_nothing_to_scrub),
	};

	return cmocka_run_group_tests_name("scrub", tests, NULL, NULL);
}
