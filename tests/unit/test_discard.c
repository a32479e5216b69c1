/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a discard gives back and what it leaves, and zeros that keep their space, on each kind of image. */
#include <errno.h>

#include "tests/support/model.h"
#include "tests/support/qcow2_check.h"

#define KIB 1024u
#define CS (64 * KIB)                   /* cluster of the images here */
#define SUB (CS / 32)
#define SIZE (16 * CS)

static const struct vd_format *const qcow2 = &vd_format_qcow2;
static const struct vd_format *const raw = &vd_format_raw;

/* The image "d" with 7 in each byte, open for writing; `below`: a raw parent "p" of 9 in each. */
static struct vd_image *make(struct vd_create_opts opts, bool below)
{
	struct vd_image *img;

	if (below) {
		disk_put_raw("p", SIZE, 9);
		opts.backing_file = "p";
		opts.backing_format = "raw";
	}
	opts.cluster_size = CS;
	img = disk_create(qcow2, "d", &opts);
	disk_write(img, 0, SIZE, 7);
	disk_commit(img);
	disk_close(img);
	return disk_open(qcow2, "d", VD_OPEN_WRITE);
}

static struct vd_image *make_plain(unsigned flags, bool below)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);

	opts.flags = flags;
	return make(opts, below);
}

static void end(struct vd_image *img)
{
	struct qcow2_verdict v;

	disk_close(img);
	v = qcow2_check(disks.mem, "d");
	if (v.n_errors || v.n_leaks)
		fail_msg("%u errors, %u leaks: %s", v.n_errors, v.n_leaks, v.first);
}

static void discard(struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_error e;

	expect_ok(vd_image_discard(img, off, len, &e), &e);
}

static struct vd_run map_at(struct vd_image *img, uint64_t off)
{
	struct vd_run run;
	struct vd_error e;
	size_t n = 1;

	expect_ok(img->format->map(img->state, off, 1, 0, &run, &n, &e), &e);
	return run;
}

static uint64_t allocated(struct vd_image *img)
{
	struct vd_info i = { .struct_size = sizeof(i) };
	struct vd_error e;

	expect_ok(vd_image_info(img, &i, &e), &e);
	return i.actual_size;
}

/* ---- qcow2 ---------------------------------------------------------------------------------------------- */

static void whole_clusters_are_given_back_to_the_host(void **state)
{
	struct vd_image *img = make_plain(0, false);
	uint64_t before = allocated(img);

	(void)state;
	discard(img, CS / 2, 5 * CS);
	disk_expect(img, 0, CS, 7);
	disk_expect(img, CS, 4 * CS, 0);
	disk_expect(img, 5 * CS, CS, 7);
	assert_true(map_at(img, 2 * CS).where == VD_ZERO && !map_at(img, 2 * CS).flags);
	/* Not before the tables that say so are durable. */
	assert_true(allocated(img) == before);
	disk_flush(img);
	assert_true(allocated(img) <= before - 4 * CS);
	end(img);
}

static void the_last_cluster_is_whole_where_the_disk_ends_in_it(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE + 512);
	struct vd_image *img = make(opts, false);

	(void)state;
	disk_write(img, SIZE, 512, 7);
	discard(img, SIZE, 512);
	disk_expect(img, SIZE, 512, 0);
	end(img);
}

static void what_is_below_never_shows(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, 2 * SIZE);
	struct vd_image *img;

	(void)state;
	disk_put_raw("p", 2 * SIZE, 9);
	opts.backing_file = "p";
	opts.backing_format = "raw";
	img = make(opts, false);
	discard(img, SIZE - CS, 2 * CS);
	disk_expect(img, SIZE - CS, 2 * CS, 0);
	disk_expect(img, SIZE + CS, CS, 9);
	end(img);
}

static void version_2_has_holes_but_not_over_a_parent(void **state)
{
	struct vd_image *img = make_plain(VD_CREATE_COMPAT_V2, false);

	(void)state;
	discard(img, 0, 2 * CS);
	disk_expect(img, 0, 2 * CS, 0);
	assert_int_equal(map_at(img, 0).where, VD_HOLE);
	end(img);
	disk_close(disk_open(qcow2, "d", 0));
	assert_int_equal(disks.host->unlink(disks.host, "d", NULL), 0);
	img = make_plain(VD_CREATE_COMPAT_V2, true);
	discard(img, 0, 2 * CS);
	disk_expect(img, 0, SIZE, 7);
	end(img);
}

static void a_snapshot_keeps_what_the_disk_gives_up(void **state)
{
	struct vd_open_opts opts = disk_open_opts(qcow2, 0);
	struct vd_image *img = make_plain(0, false);
	struct vd_error e;

	(void)state;
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	discard(img, 0, SIZE);
	disk_expect(img, 0, SIZE, 0);
	end(img);
	opts.snapshot = "s";
	expect_ok(vd_image_open_on(disks.host, qcow2, "d", &opts, &img, &e), &e);
	disk_expect(img, 0, SIZE, 7);
	disk_close(img);
}

static void subclusters_are_discarded_and_the_last_takes_the_cluster(void **state)
{
	struct vd_image *img = make_plain(VD_CREATE_EXTENDED_L2, false);

	(void)state;
	discard(img, SUB + 1, 3 * SUB);
	disk_expect(img, 0, 2 * SUB, 7);
	disk_expect(img, 2 * SUB, 2 * SUB, 0);
	disk_expect(img, 4 * SUB, SUB, 7);
	assert_int_equal(map_at(img, 2 * SUB).flags & VD_RUN_HOSTED, VD_RUN_HOSTED);
	discard(img, 0, 2 * SUB);
	discard(img, 4 * SUB, CS - 4 * SUB);
	assert_true(map_at(img, 0).where == VD_ZERO && !map_at(img, 0).flags);
	end(img);
}

static void space_kept_under_zeros_is_given_back_too(void **state)
{
	struct vd_image *img = make_plain(0, false);
	struct vd_error e;

	(void)state;
	expect_ok(vd_image_write_zeroes(img, 0, SIZE, VD_ZERO_ALLOCATED, &e), &e);
	assert_int_equal(map_at(img, 0).flags, VD_RUN_HOSTED);
	/* Plain zeros are there already. */
	disk_zero(img, 0, SIZE);
	assert_int_equal(map_at(img, 0).flags, VD_RUN_HOSTED);
	discard(img, 0, SIZE);
	assert_int_equal(map_at(img, 0).flags, 0);
	end(img);
}

/* ---- zeros that keep their space ------------------------------------------------------------------------ */

static void zeros_keep_the_space_they_have(void **state)
{
	struct vd_image *img = make_plain(0, true);
	uint64_t place = map_at(img, CS).host_off;
	struct vd_error e;

	(void)state;
	expect_ok(vd_image_write_zeroes(img, CS / 2, 3 * CS, VD_ZERO_ALLOCATED, &e), &e);
	disk_expect(img, CS / 2, 3 * CS, 0);
	disk_expect(img, 0, CS / 2, 7);
	assert_true(map_at(img, CS).where == VD_ZERO && map_at(img, CS).host_off == place);
	disk_write(img, CS, 1, 5);
	assert_true(map_at(img, CS).where == VD_DATA && map_at(img, CS).host_off == place);
	disk_expect(img, CS + 1, CS - 1, 0);
	end(img);
}

static void zeros_get_space_where_there_is_none(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE + 1000);
	struct vd_image *img;
	struct vd_error e;
	uint64_t place;

	(void)state;
	disk_put_raw("p", SIZE, 9);
	opts.backing_file = "p";
	opts.backing_format = "raw";
	img = disk_create(qcow2, "d", &opts);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	expect_ok(vd_image_write_zeroes(img, 0, vd_image_size(img), VD_ZERO_ALLOCATED, &e), &e);
	disk_expect(img, 0, vd_image_size(img), 0);
	place = map_at(img, SIZE + 999).host_off;
	assert_true(place && map_at(img, SIZE).where == VD_ZERO && map_at(img, SIZE).flags == VD_RUN_HOSTED);
	disk_write(img, SIZE, 1000, 3);
	assert_true(map_at(img, SIZE + 999).host_off == place);
	end(img);
}

static void zeros_do_not_write_into_a_snapshot(void **state)
{
	struct vd_image *img = make_plain(0, false);
	uint64_t place = map_at(img, 0).host_off;
	struct vd_error e;

	(void)state;
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	expect_ok(vd_image_write_zeroes(img, 0, SIZE, VD_ZERO_ALLOCATED, &e), &e);
	assert_true(map_at(img, 0).flags == VD_RUN_HOSTED && map_at(img, 0).host_off != place);
	expect_ok(vd_snapshot_apply(img, "s", &e), &e);
	disk_expect(img, 0, SIZE, 7);
	end(img);
}

static void want_of_space_for_zeros_changes_nothing(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img = disk_create(qcow2, "d", &opts);
	struct vd_error e;

	(void)state;
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	disk_write(img, 0, 1, 1);
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_TRUNCATE, .nth = 1, .err = ENOSPC });
	expect_failure(vd_image_write_zeroes(img, 4 * CS, CS, VD_ZERO_ALLOCATED, &e), VD_ENOSPC, &e, "made to fail");
	vd_fault_arm(disks.fault, NULL);
	expect_ok(vd_image_write_zeroes(img, 4 * CS, CS, VD_ZERO_ALLOCATED, &e), &e);
	expect_failure(vd_image_write_zeroes(img, 0, 1, 64, &e), VD_EARG, &e, "unknown flags");
	end(img);
}

/* ---- flat files and containers -------------------------------------------------------------------------- */

static void raw_files_get_holes(void **state)
{
	struct vd_image *img;
	uint64_t before;

	(void)state;
	disk_put_raw("d", SIZE, 7);
	img = disk_open(raw, "d", VD_OPEN_WRITE);
	before = allocated(img);
	discard(img, CS, 4 * CS);
	disk_expect(img, CS, 4 * CS, 0);
	disk_expect(img, 5 * CS, CS, 7);
	assert_true(allocated(img) <= before - 4 * CS);
	vd_fault_arm(disks.fault,
		     &(struct vd_fault_plan){ .kinds = VD_OP_PUNCH, .nth = 1, .err = EOPNOTSUPP, .for_ever = true });
	discard(img, 0, SIZE);
	disk_expect(img, 5 * CS, CS, 7);
	disk_close(img);
}

static void zeros_in_raw_can_keep_their_space(void **state)
{
	struct vd_image *img;
	struct vd_error e;
	uint64_t before;

	(void)state;
	disk_put_raw("d", SIZE, 7);
	img = disk_open(raw, "d", VD_OPEN_WRITE);
	before = allocated(img);
	expect_ok(vd_image_write_zeroes(img, 0, SIZE, VD_ZERO_ALLOCATED, &e), &e);
	disk_expect(img, 0, SIZE, 0);
	assert_true(allocated(img) == before);
	disk_close(img);
}

static void data_files_get_holes(void **state)
{
	for (unsigned flags = 0; flags <= VD_CREATE_DATA_FILE_RAW; flags += VD_CREATE_DATA_FILE_RAW) {
		struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
		struct vd_image *img, *data;
		uint64_t before;

		opts.data_file = "x";
		opts.flags = flags | VD_CREATE_REPLACE;
		img = make(opts, false);
		before = allocated(img);
		discard(img, CS, 4 * CS);
		disk_expect(img, 0, CS, 7);
		disk_expect(img, CS, 4 * CS, 0);
		disk_zero(img, 8 * CS, CS);
		assert_true(allocated(img) <= before - 5 * CS);
		end(img);
		data = disk_open(raw, "x", 0);
		disk_expect(data, CS, 4 * CS, 0);
		disk_expect(data, 8 * CS, CS, 0);
		disk_expect(data, 5 * CS, CS, 7);
		disk_close(data);
	}
	(void)state;
}

static struct vd_image *make_container(struct vd_key **key)
{
	struct vd_create_opts opts = disk_create_opts(raw, SIZE);
	struct vd_open_opts o = disk_open_opts(raw, VD_OPEN_WRITE);
	struct vd_image *img;
	struct vd_error e;

	expect_ok(vd_key_from_bytes("k", 1, key, &e), &e);
	opts.key = *key;
	opts.kdf.iterations = 1000;
	img = disk_create(raw, "d", &opts);
	disk_write(img, 0, SIZE, 7);
	disk_commit(img);
	disk_close(img);
	o.keys = key;
	o.n_keys = 1;
	o.format = "luks";
	expect_ok(vd_image_open_on(disks.host, raw, "d", &o, &img, &e), &e);
	return img;
}

static void containers_keep_what_is_discarded_and_never_get_holes(void **state)
{
	struct vd_key *key;
	struct vd_image *img = make_container(&key);
	uint64_t tick = vd_record_tick(disks.record);

	(void)state;
	discard(img, 0, SIZE);
	assert_int_equal(disks_count(CHANGES, tick), 0);
	disk_expect(img, 0, SIZE, 7);
	disk_zero(img, 0, SIZE);
	disk_expect(img, 0, SIZE, 0);
	assert_int_equal(disks_count(VD_OP_PUNCH, tick), 0);
	disk_close(img);
	vd_key_free(key);
}

static void ranges_and_handles_are_judged(void **state)
{
	struct vd_image *img = make_plain(0, false);
	struct vd_error e;

	(void)state;
	expect_failure(vd_image_discard(img, SIZE, 1, &e), VD_ERANGE, &e, "outside the disk");
	discard(img, SIZE, 0);
	disk_close(img);
	img = disk_open(qcow2, "d", 0);
	expect_failure(vd_image_discard(img, 0, 1, &e), VD_EREADONLY, &e, "reading only");
	disk_close(img);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(whole_clusters_are_given_back_to_the_host),
		T(the_last_cluster_is_whole_where_the_disk_ends_in_it),
		T(what_is_below_never_shows),
		T(version_2_has_holes_but_not_over_a_parent),
		T(a_snapshot_keeps_what_the_disk_gives_up),
		T(subclusters_are_discarded_and_the_last_takes_the_cluster),
		T(space_kept_under_zeros_is_given_back_too),
		T(zeros_keep_the_space_they_have),
		T(zeros_get_space_where_there_is_none),
		T(zeros_do_not_write_into_a_snapshot),
		T(want_of_space_for_zeros_changes_nothing),
		T(raw_files_get_holes),
		T(zeros_in_raw_can_keep_their_space),
		T(data_files_get_holes),
		T(containers_keep_what_is_discarded_and_never_get_holes),
		T(ranges_and_handles_are_judged),
	};

	return cmocka_run_group_tests_name("discard", tests, NULL, NULL);
}
