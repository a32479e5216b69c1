/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What can be changed of an image in place, what is refused untouched, and that the disk stays what it is. */
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/qcow2_shape.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/model.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/qcow2_check.h"

#define SIZE (1u << 20)
#define CS 4096u

static const struct vd_format *const qcow2 = &vd_format_qcow2;
static struct model m;

static int start(void **state)
{
	model_init(&m, SIZE, 1);
	return disks_start(state);
}

static int stop(void **state)
{
	model_free(&m);
	return disks_stop(state);
}

/* A disk with data, zero clusters of both kinds, and holes; a snapshot "s" if asked. */
static struct vd_image *make_with(struct vd_create_opts opts, bool snapshot)
{
	struct vd_image *img;
	struct vd_error e;

	opts.cluster_size = opts.flags & VD_CREATE_EXTENDED_L2 ? 4 * CS : CS;
	img = disk_create(qcow2, "d", &opts);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	model_write(&m, img, 0, SIZE / 2);
	if (snapshot)
		expect_ok(vd_snapshot_create(img, "s", &e), &e);
	model_write(&m, img, SIZE / 4, SIZE / 2);
	return img;
}

static struct vd_image *make(unsigned flags, bool snapshot)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);

	opts.flags = flags;
	return make_with(opts, snapshot);
}

static void end(struct vd_image *img)
{
	model_check_all(&m, img);
	disk_close(img);
	expect_sound("d");
	assert_int_equal(qcow2_check(disks.mem, "d").n_leaks, 0);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	model_check_all(&m, img);
	model_write(&m, img, SIZE / 8, SIZE / 2);
	disk_close(img);
	expect_sound("d");
}

static int amend(struct vd_image *img, struct vd_amend_opts o, struct vd_error *e)
{
	o.struct_size = sizeof(o);
	return vd_image_amend(img, &o, e);
}

static struct vd_info info(struct vd_image *img)
{
	struct vd_info i = { .struct_size = sizeof(i) };
	struct vd_error e;

	expect_ok(vd_image_info(img, &i, &e), &e);
	return i;
}

/* The second flush counts out what the first one let go. */
static void flush_all(struct vd_image *img)
{
	disk_flush(img);
	disk_flush(img);
}

/* Refused, with no byte of the file changed. */
#define expect_refused(img, opts, code, words)                                                                       \
	do {                                                                                                         \
		struct vd_error e_;                                                                                  \
		uint64_t tick_;                                                                                      \
		flush_all(img);                                                                                      \
		tick_ = vd_record_tick(disks.record);                                                                \
		expect_failure(amend(img, (struct vd_amend_opts)opts, &e_), code, &e_, words);                       \
		assert_int_equal(disks_count(CHANGES, tick_), 0);                                                    \
	} while (0)
#define OPTS(...) { __VA_ARGS__ }

/* ---- version -------------------------------------------------------------------------------------------- */

static void version_2_becomes_3(void **state)
{
	struct vd_image *img = make(VD_CREATE_COMPAT_V2, true);
	struct vd_error e;

	(void)state;
	expect_ok(amend(img, (struct vd_amend_opts){ .compat = 3, .lazy_refcounts = VD_ON }, &e), &e);
	assert_true(info(img).qcow2_version == 3 && info(img).lazy_refcounts);
	assert_int_equal(bytes_get("d", 100, 4), QCOW2_OWN_LENGTH);
	model_zero(&m, img, 0, CS * 3);
	end(img);
}

static void version_3_becomes_2_with_holes_for_zero_clusters(void **state)
{
	struct vd_image *img = make(VD_CREATE_LAZY_REFCOUNTS, false);
	struct vd_error e;

	(void)state;
	model_zero(&m, img, CS, 20 * CS);
	model_zero_allocated(&m, img, 40 * CS, 20 * CS);
	expect_ok(amend(img, (struct vd_amend_opts){ .compat = 2 }, &e), &e);
	assert_true(info(img).qcow2_version == 2 && !info(img).lazy_refcounts);
	end(img);
	/* And there is no trace of version 3 where a reader of version 2 looks for extensions. */
	assert_int_equal(bytes_get("d", 4, 4), 2);
	assert_int_equal(bytes_get("d", QCOW2_V2_LENGTH, 8), 0);
}

static void there_and_back_keeps_names(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("p", SIZE, 9);
	memset(m.bytes, 9, SIZE);
	opts.backing_file = "p";
	opts.backing_format = "raw";
	img = make_with(opts, true);
	for (uint32_t version = 2; version <= 3; version++) {
		expect_ok(amend(img, (struct vd_amend_opts){ .compat = version }, &e), &e);
		assert_int_equal(info(img).qcow2_version, version);
		assert_string_equal(info(img).backing_file, "p");
		assert_string_equal(info(img).backing_format, "raw");
	}
	expect_ok(amend(img, (struct vd_amend_opts){ .backing_format = "qcow2" }, &e), &e);
	assert_string_equal(info(img).backing_format, "qcow2");
	expect_ok(amend(img, (struct vd_amend_opts){ .backing_format = "raw" }, &e), &e);
	end(img);
}

static void what_version_2_cannot_say_is_named(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img = make(VD_CREATE_EXTENDED_L2, false);

	(void)state;
	expect_refused(img, OPTS(.compat = 2), VD_EUNSUPPORTED, "extended L2");
	disk_close(img);
	opts.flags = VD_CREATE_REPLACE;
	opts.compression = VD_COMPRESSION_ZSTD;
	img = make_with(opts, false);
	expect_refused(img, OPTS(.compat = 2), VD_EUNSUPPORTED, "zstd");
	disk_close(img);
	opts.compression = VD_COMPRESSION_NONE;
	opts.refcount_bits = 8;
	img = make_with(opts, false);
	expect_refused(img, OPTS(.compat = 2), VD_EUNSUPPORTED, "another width");
	expect_refused(img, OPTS(.compat = 2, .refcount_bits = 16, .lazy_refcounts = VD_ON), VD_EUNSUPPORTED, "no lazy");
	disk_close(img);
}

static void zero_clusters_that_cannot_become_holes_are_named(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img = make(0, false);
	struct vd_error e;

	(void)state;
	model_zero(&m, img, 0, CS);
	expect_ok(vd_snapshot_create(img, "z", &e), &e);
	expect_refused(img, OPTS(.compat = 2), VD_EUNSUPPORTED, "snapshot with zero clusters");
	disk_close(img);
	disk_put_raw("p", SIZE, 9);
	opts.flags = VD_CREATE_REPLACE;
	opts.backing_file = "p";
	opts.backing_format = "raw";
	img = make_with(opts, false);
	model_zero(&m, img, 0, CS);
	expect_refused(img, OPTS(.compat = 2), VD_EUNSUPPORTED, "over a backing file");
	disk_close(img);
}

/* ---- refcounts ------------------------------------------------------------------------------------------ */

static void refcounts_take_every_width(void **state)
{
	static const uint32_t widths[] = { 64, 2, 32, 4, 8, 16, 64, 16 };
	struct vd_image *img = make(0, true);
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
		vd_qcow2_window = i % 2 ? 64 : 8u << 20;
		expect_ok(amend(img, (struct vd_amend_opts){ .refcount_bits = widths[i] }, &e), &e);
		assert_int_equal(info(img).refcount_bits, widths[i]);
		model_write(&m, img, i * SIZE / 16, SIZE / 3);
		flush_all(img);
		expect_sound("d");
		assert_int_equal(qcow2_check(disks.mem, "d").n_leaks, 0);
	}
	vd_qcow2_window = 8u << 20;
	expect_ok(vd_snapshot_apply(img, "s", &e), &e);
	expect_ok(vd_snapshot_delete(img, "s", &e), &e);
	expect_ok(amend(img, (struct vd_amend_opts){ .refcount_bits = 1 }, &e), &e);
	expect_ok(vd_image_pread(img, m.bytes, SIZE, 0, &e), &e);
	end(img);
}

static void a_count_that_does_not_fit_is_refused(void **state)
{
	struct vd_image *img = make(0, true);

	(void)state;
	expect_refused(img, OPTS(.refcount_bits = 1), VD_EUNSUPPORTED, "2 owners");
	expect_refused(img, OPTS(.refcount_bits = 3), VD_EARG, "a power of two");
	expect_refused(img, OPTS(.compat = 4), VD_EARG, "2 or 3");
	expect_refused(img, OPTS(.data_file_raw = VD_ON), VD_EUNSUPPORTED, "by a word");
	expect_refused(img, OPTS(.backing_format = "raw"), VD_EARG, "no backing file");
	end(img);
}

/* Images with the bit are written with exact counts at every commit, so a crash needs no repair. */
static void lazy_refcounts_never_make_the_image_dirty(void **state)
{
	struct vd_image *img = make(VD_CREATE_LAZY_REFCOUNTS, false);
	struct vd_crash c;
	struct vd_error e;
	size_t n;

	(void)state;
	model_write(&m, img, 0, SIZE / 2);
	disk_flush(img);
	model_zero(&m, img, SIZE / 4, SIZE / 4);
	disk_flush(img);
	vd_image_abort(img);
	n = vd_crash_count(disks.record, 2);
	for (size_t i = 0; i < n; i += 7) {
		expect_ok(vd_crash_state(disks.record, 2, 1, i, &c, &e), &e);
		if (c.host->exists(c.host, "d")) {
			struct vd_io *io = NULL;
			uint8_t raw[8];

			expect_ok(c.host->open(c.host, "d", 0, &io, &e), &e);
			expect_ok(vd_io_pread(io, raw, sizeof(raw), 72, &e), &e);
			vd_io_abort(io);
			assert_int_equal(vd_get_be64(raw), 0);
			assert_int_equal(qcow2_check(c.host, "d").n_errors, 0);
		}
		vd_mem_host_free(c.host);
	}
}

/* ---- the rest ------------------------------------------------------------------------------------------- */

static void a_raw_data_file_can_stop_being_one(void **state)
{
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	opts.data_file = "x";
	opts.flags = VD_CREATE_DATA_FILE_RAW;
	img = make_with(opts, false);
	expect_ok(amend(img, (struct vd_amend_opts){ .data_file_raw = VD_ON }, &e), &e);
	expect_ok(amend(img, (struct vd_amend_opts){ .data_file_raw = VD_OFF }, &e), &e);
	assert_false(info(img).data_file_raw);
	model_zero(&m, img, 0, CS);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	assert_false(info(img).data_file_raw);
	expect_refused(img, OPTS(.data_file_raw = VD_ON), VD_EUNSUPPORTED, "by a word");
	model_check_all(&m, img);
	disk_close(img);
}

static void size_goes_along(void **state)
{
	struct vd_image *img = make(0, false);
	struct vd_error e;

	(void)state;
	expect_failure(amend(img, (struct vd_amend_opts){ .size = SIZE / 2 }, &e), VD_EARG, &e, "would be lost");
	expect_ok(amend(img, (struct vd_amend_opts){ .size = SIZE / 2, .flags = VD_RESIZE_SHRINK, .compat = 2 }, &e), &e);
	expect_ok(amend(img, (struct vd_amend_opts){ .size = SIZE, .compat = 3 }, &e), &e);
	assert_int_equal(vd_image_size(img), SIZE);
	memset(m.bytes + SIZE / 2, 0, SIZE / 2);
	end(img);
}

static void other_formats_have_a_size_only(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("d", SIZE, 7);
	img = disk_open(&vd_format_raw, "d", VD_OPEN_WRITE);
	expect_refused(img, OPTS(.compat = 3), VD_EUNSUPPORTED, "nothing but its size");
	expect_ok(amend(img, (struct vd_amend_opts){ .size = 2 * SIZE }, &e), &e);
	expect_failure(vd_image_amend(img, &(struct vd_amend_opts){ 0 }, &e), VD_EARG, &e, "struct_size");
	disk_close(img);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
	const struct CMUnitTest tests[] = {
		T(version_2_becomes_3),
		T(version_3_becomes_2_with_holes_for_zero_clusters),
		T(there_and_back_keeps_names),
		T(what_version_2_cannot_say_is_named),
		T(zero_clusters_that_cannot_become_holes_are_named),
		T(refcounts_take_every_width),
		T(a_count_that_does_not_fit_is_refused),
		T(lazy_refcounts_never_make_the_image_dirty),
		T(a_raw_data_file_can_stop_being_one),
		T(size_goes_along),
		T(other_formats_have_a_size_only),
	};

	return cmocka_run_group_tests_name("amend", tests, NULL, NULL);
}
