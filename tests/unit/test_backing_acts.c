/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rebase, flatten and commit, case by case: what they refuse, what they leave alone, what a stop or a failure leaves. */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "tests/support/chain.h"
#include "tests/support/qcow2_check.h"

#define SIZE (1u << 20)
#define qcow2 (&vd_format_qcow2)
#define raw (&vd_format_raw)

static struct chain c;

static int start(void **state)
{
	chain_init(&c, 1);
	return disks_start(state);
}

static int stop(void **state)
{
	chain_free(&c);
	return disks_stop(state);
}

/* ---- short forms ------------------------------------------------------------------------------------------ */

static int rebase(struct vd_image *img, const char *name, const char *format, unsigned flags, const struct vd_job *job,
		  struct vd_outcome *outcome, struct vd_error *e)
{
	struct vd_rebase_opts o = {
		.struct_size = sizeof(o), .flags = flags, .backing_file = name, .backing_format = format, .gate = disks_gate,
		.keys = &c.key, .n_keys = 1,
	};

	return vd_backing_rebase(img, &o, job, outcome, e);
}

static int commit(struct vd_image *img, unsigned depth, unsigned flags, const struct vd_job *job, struct vd_error *e)
{
	struct vd_commit_opts o = {
		.struct_size = sizeof(o), .flags = flags, .depth = depth, .gate = disks_gate, .keys = &c.key, .n_keys = 1,
	};

	return vd_backing_commit(img, &o, job, NULL, e);
}

/* An overlay of a raw file of one value. */
static struct vd_image *open_overlay(const char *name, const char *parent, uint8_t value)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	disk_put_raw(parent, SIZE, value);
	o.backing_file = parent;
	o.backing_format = "raw";
	img = disk_create(qcow2, name, &o);
	disk_commit(img);
	disk_close(img);
	return disk_open(qcow2, name, VD_OPEN_WRITE);
}

static uint64_t sum_file(const char *name)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325), size;
	struct vd_io *io;
	uint8_t *bytes;

	assert_int_equal(disks.mem->open(disks.mem, name, 0, &io, NULL), 0);
	assert_int_equal(vd_io_size(io, &size, NULL), 0);
	bytes = malloc(size + 1);
	assert_int_equal(vd_io_pread(io, bytes, size, 0, NULL), 0);
	for (uint64_t i = 0; i < size; i++)
		sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
	free(bytes);
	vd_io_abort(io);
	return sum;
}

/* ---- rebase ----------------------------------------------------------------------------------------------- */

static void first_parent_does_not_show_through(void **state)
{
	static const unsigned flags[] = { 0, VD_CREATE_COMPAT_V2, VD_CREATE_EXTENDED_L2 };

	(void)state;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
		struct vd_image *img;
		struct vd_error e;

		o.flags = flags[i] | VD_CREATE_REPLACE;
		disk_put_raw("r", 2 * SIZE, 7);
		img = disk_create(qcow2, "d", &o);
		disk_commit(img);
		disk_close(img);
		img = disk_open(qcow2, "d", VD_OPEN_WRITE);
		disk_write(img, 1000, 10, 5);
		expect_ok(rebase(img, "r", "raw", 0, NULL, NULL, &e), &e);
		disk_expect(img, 0, 1000, 0);
		disk_expect(img, 1010, SIZE - 1010, 0);
		disk_close(img);
		img = disk_open(qcow2, "d", 0);
		assert_string_equal(vd_image_parent(img)->path, "r");
		disk_expect(img, 1000, 10, 5);
		disk_expect(img, 1010, SIZE - 1010, 0);
		disk_close(img);
	}
}

/* The same file, but another disk: its tables are not its content. */
static void one_file_in_two_formats_is_two_disks(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(qcow2, "p", SIZE, NULL);
	img = disk_open(qcow2, "p", VD_OPEN_WRITE);
	disk_write(img, 0, SIZE, 9);
	disk_close(img);
	o.backing_file = "p";
	o.backing_format = "qcow2";
	img = disk_create(qcow2, "d", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	expect_ok(rebase(img, "p", "raw", 0, NULL, NULL, &e), &e);
	disk_expect(img, 0, SIZE, 9);
	disk_close(img);
}

static void what_is_the_same_is_not_taken_over(void **state)
{
	struct vd_outcome outcome = { .struct_size = sizeof(outcome) };
	struct vd_image *img = open_overlay("d", "r", 3);
	struct vd_error e;

	(void)state;
	disk_put_raw("other", SIZE, 3);
	expect_ok(rebase(img, "other", "raw", 0, NULL, &outcome, &e), &e);
	assert_int_equal(outcome.written, 0);
	assert_int_equal(outcome.done, SIZE);
	assert_true(outcome.changed);
	disk_expect(img, 0, SIZE, 3);
	disk_close(img);
}

static void unsafe_looks_at_neither(void **state)
{
	struct vd_open_opts o = disk_open_opts(qcow2, VD_OPEN_CONTROL);
	struct vd_image *img = open_overlay("d", "r", 3);
	struct vd_info info = { .struct_size = sizeof(info) };
	struct vd_error e;
	uint8_t byte;

	(void)state;
	/* On a handle that has the old one open, that one is gone afterwards. */
	expect_ok(rebase(img, "nowhere", "qcow2", VD_REBASE_UNSAFE, NULL, NULL, &e), &e);
	expect_failure(vd_image_pread(img, &byte, 1, 0, &e), VD_EREFERENCE, &e, "not opened");
	disk_close(img);
	expect_ok(vd_image_open_on(disks.host, qcow2, "d", &o, &img, &e), &e);
	expect_ok(vd_image_info(img, &info, &e), &e);
	assert_string_equal(info.backing_file, "nowhere");
	expect_failure(rebase(img, "r", "raw", 0, NULL, NULL, &e), VD_EREADONLY, &e, "shape only");
	expect_ok(rebase(img, "r", "raw", VD_REBASE_UNSAFE, NULL, NULL, &e), &e);
	disk_close(img);
	img = disk_open(qcow2, "d", 0);
	disk_expect(img, 0, SIZE, 3);
	disk_close(img);
}

static void refused_rebase_changes_nothing(void **state)
{
	struct vd_image *img = open_overlay("d", "r", 3);
	uint64_t before;
	struct vd_error e;

	(void)state;
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	disk_close(img);
	before = sum_file("d");
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	expect_failure(rebase(img, NULL, NULL, 0, NULL, NULL, &e), VD_EUNSUPPORTED, &e, "snapshots");
	expect_failure(rebase(img, "r", NULL, 0, NULL, NULL, &e), VD_EARG, &e, "format");
	expect_failure(rebase(img, "nowhere", "raw", 0, NULL, NULL, &e), VD_ENOENT, &e, "nowhere");
	expect_failure(rebase(img, "r", "qcow2", 0, NULL, NULL, &e), VD_ECORRUPT, &e, "qcow2");
	expect_failure(rebase(img, "d", "qcow2", 0, NULL, NULL, &e), VD_EBUSY, &e, "d");
	disk_expect(img, 0, SIZE, 3);
	disk_close(img);
	assert_int_equal(sum_file("d"), before);
}

static void bitmap_does_not_see_a_flatten(void **state)
{
	struct vd_image *img = open_overlay("d", "r", 3);
	struct vd_bitmap *list;
	struct vd_error e;
	size_t n;

	(void)state;
	expect_ok(vd_bitmap_create(img, "b", 65536, 0, &e), &e);
	disk_write(img, 0, 1, 9);
	expect_ok(rebase(img, NULL, NULL, 0, NULL, NULL, &e), &e);
	disk_close(img);
	img = disk_open(qcow2, "d", 0);
	expect_ok(vd_bitmap_list(img, &list, &n, &e), &e);
	assert_int_equal(n, 1);
	assert_null(list[0].unusable);
	assert_int_equal(list[0].dirty_bytes, 65536);
	vd_bitmap_list_free(list);
	disk_close(img);
}

/* ---- keys ------------------------------------------------------------------------------------------------- */

static void encrypted_content_is_not_stored_in_clear_unasked(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	chain_add(&c, chain_kind_named("qcow2 luks"), -1);
	chain_add(&c, chain_kind_named("qcow2"), 0);
	chain_add(&c, chain_kind_named("qcow2 luks"), 1);
	img = chain_open(&c, 1, VD_OPEN_WRITE);
	expect_failure(rebase(img, NULL, NULL, 0, NULL, NULL, &e), VD_EARG, &e, "in clear");
	/* It stays the parent: nothing is taken over. */
	expect_ok(rebase(img, "l0", "qcow2", 0, NULL, NULL, &e), &e);
	disk_close(img);
	img = chain_open(&c, 2, VD_OPEN_WRITE);
	expect_failure(commit(img, 1, 0, NULL, &e), VD_EARG, &e, "in clear");
	expect_ok(commit(img, 2, 0, NULL, &e), &e);
	disk_close(img);
	chain_check(&c, 2);
}

static void base_without_its_key_is_read_again(void **state)
{
	struct vd_commit_opts o = { .struct_size = sizeof(o), .gate = disks_gate };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	chain_add(&c, chain_kind_named("qcow2 luks"), -1);
	chain_add(&c, chain_kind_named("qcow2"), 0);
	img = chain_open(&c, 1, VD_OPEN_WRITE);
	expect_failure(vd_backing_commit(img, &o, NULL, NULL, &e), VD_ENOKEY, &e, "l0");
	disk_close(img);
	chain_check(&c, 1);
}

/* ---- commit ----------------------------------------------------------------------------------------------- */

static void refused_commit_changes_nothing(void **state)
{
	struct vd_open_opts o = disk_open_opts(qcow2, VD_OPEN_CONTROL);
	struct vd_image *img = open_overlay("d", "r", 3);
	uint64_t before, below = sum_file("r");
	struct vd_error e;

	(void)state;
	expect_failure(commit(img, 2, 0, NULL, &e), VD_EARG, &e, "2 levels");
	disk_close(img);
	expect_ok(vd_image_open_on(disks.host, qcow2, "d", &o, &img, &e), &e);
	expect_failure(commit(img, 1, 0, NULL, &e), VD_EREFERENCE, &e, "not opened");
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	disk_close(img);
	before = sum_file("d");
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	expect_failure(commit(img, 1, VD_COMMIT_KEEP, NULL, &e), VD_EUNSUPPORTED, &e, "snapshots");
	disk_expect(img, 0, SIZE, 3);
	disk_close(img);
	img = disk_open(raw, "r", VD_OPEN_WRITE);
	expect_failure(commit(img, 1, 0, NULL, &e), VD_EARG, &e, "no backing file");
	disk_close(img);
	assert_int_equal(sum_file("d"), before);
	assert_int_equal(sum_file("r"), below);
}

static void handle_goes_on_after_a_commit(void **state)
{
	struct vd_image *img = open_overlay("d", "r", 3);
	struct vd_error e;

	(void)state;
	disk_write(img, 0, SIZE / 2, 5);
	expect_ok(commit(img, 1, 0, NULL, &e), &e);
	disk_expect(img, 0, SIZE / 2, 5);
	disk_write(img, 100, 100, 6);
	expect_ok(commit(img, 1, 0, NULL, &e), &e);
	disk_expect(img, 100, 100, 6);
	/* The base is not written but by commits. */
	expect_failure(vd_image_pwrite(vd_image_parent(img), "x", 1, 0, &e), VD_EREADONLY, &e, "reading only");
	disk_close(img);
	img = disk_open(raw, "r", 0);
	disk_expect(img, 0, 100, 5);
	disk_expect(img, 100, 100, 6);
	disk_expect(img, SIZE / 2, SIZE / 2, 3);
	disk_close(img);
}

static void emptied_overlay_gives_its_room_back(void **state)
{
	struct vd_image *img = open_overlay("d", "r", 3);
	struct vd_io *io;
	struct vd_error e;
	uint64_t size;

	(void)state;
	disk_write(img, 0, SIZE, 5);
	expect_ok(commit(img, 1, 0, NULL, &e), &e);
	disk_close(img);
	assert_int_equal(disks.mem->open(disks.mem, "d", 0, &io, NULL), 0);
	assert_int_equal(vd_io_size(io, &size, NULL), 0);
	vd_io_abort(io);
	assert_in_range(size, 4 * 65536, 6 * 65536);
	assert_int_equal(qcow2_check(disks.mem, "d").n_leaks, 0);
}

static bool file_has(const char *name, const uint8_t *mark, size_t len)
{
	struct vd_io *io;
	uint64_t size;
	uint8_t *bytes;
	bool found;

	assert_int_equal(disks.mem->open(disks.mem, name, 0, &io, NULL), 0);
	assert_int_equal(vd_io_size(io, &size, NULL), 0);
	bytes = malloc(size + 1);
	assert_int_equal(vd_io_pread(io, bytes, size, 0, NULL), 0);
	found = memmem(bytes, size, mark, len);
	free(bytes);
	vd_io_abort(io);
	return found;
}

/* A snapshot of before would do, but is refused: a bitmap made afterwards keeps the file long. */
static void what_is_emptied_is_scrubbed_on_demand(void **state)
{
	uint8_t mark[64];

	(void)state;
	memset(mark, 0xa7, sizeof(mark));
	for (int scrubs = 0; scrubs < 2; scrubs++) {
		struct vd_open_opts o = disk_open_opts(qcow2, VD_OPEN_WRITE | (scrubs ? VD_OPEN_SCRUB_FREED : 0));
		const char *name = scrubs ? "d2" : "d1";
		struct vd_image *img = open_overlay(name, scrubs ? "r2" : "r1", 3);
		struct vd_error e;

		disk_write(img, 0, SIZE, 0xa7);
		disk_flush(img);
		expect_ok(vd_bitmap_create(img, "b", 0, 0, &e), &e);
		disk_close(img);
		expect_ok(vd_image_open_on(disks.host, qcow2, name, &o, &img, &e), &e);
		expect_ok(commit(img, 1, 0, NULL, &e), &e);
		disk_expect(img, 0, SIZE, 0xa7);
		disk_close(img);
		assert_int_equal(file_has(name, mark, sizeof(mark)), !scrubs);
	}
}

/* ---- stopping --------------------------------------------------------------------------------------------- */

static int stop_at_once(void *ctx, const struct vd_progress *p)
{
	(void)ctx;
	(void)p;
	return 1;
}

static void cancelled_job_leaves_the_disk(void **state)
{
	struct vd_job job = { .struct_size = sizeof(job), .progress = stop_at_once };
	struct vd_image *img = open_overlay("d", "r", 3);
	struct vd_error e;
	int r;

	(void)state;
	disk_write(img, 0, 1000, 5);
	disk_put_raw("other", SIZE, 4);
	/* The one report that is certain comes when all is copied. */
	r = rebase(img, "other", "raw", 0, &job, NULL, &e);
	assert_true(r == 0 || r == VD_ECANCELLED);
	disk_expect(img, 0, 1000, 5);
	disk_expect(img, 1000, SIZE - 1000, 3);
	r = commit(img, 1, 0, &job, &e);
	assert_true(r == 0 || r == VD_ECANCELLED);
	disk_expect(img, 1000, SIZE - 1000, 3);
	disk_close(img);
	img = disk_open(qcow2, "d", 0);
	disk_expect(img, 0, 1000, 5);
	disk_expect(img, 1000, SIZE - 1000, 3);
	disk_close(img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_parent_does_not_show_through, start, stop),
		cmocka_unit_test_setup_teardown(one_file_in_two_formats_is_two_disks, start, stop),
		cmocka_unit_test_setup_teardown(what_is_the_same_is_not_taken_over, start, stop),
		cmocka_unit_test_setup_teardown(unsafe_looks_at_neither, start, stop),
		cmocka_unit_test_setup_teardown(refused_rebase_changes_nothing, start, stop),
		cmocka_unit_test_setup_teardown(bitmap_does_not_see_a_flatten, start, stop),
		cmocka_unit_test_setup_teardown(encrypted_content_is_not_stored_in_clear_unasked, start, stop),
		cmocka_unit_test_setup_teardown(base_without_its_key_is_read_again, start, stop),
		cmocka_unit_test_setup_teardown(refused_commit_changes_nothing, start, stop),
		cmocka_unit_test_setup_teardown(handle_goes_on_after_a_commit, start, stop),
		cmocka_unit_test_setup_teardown(emptied_overlay_gives_its_room_back, start, stop),
		cmocka_unit_test_setup_teardown(what_is_emptied_is_scrubbed_on_demand, start, stop),
		cmocka_unit_test_setup_teardown(cancelled_job_leaves_the_disk, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
