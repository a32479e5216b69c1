/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk moved inside its image, by VHD and VHDX: what it reads then and after it went back, what qemu reads, what is
 * refused, and that space is given out only past the end where that is asked. Crashes are tests/crash/shape.c's.
 */
#include "tests/support/qcow2_bytes.h"

#include "formats/vhd/vhd.h"
#include "formats/vhdx/vhdx.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/shape.h"
#include "tests/support/hostwalk.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define MIB UINT64_C(1048576)

static int run_shift(struct vd_image *img, const void *arg, struct vd_error *e)
{
	return img->format->shift(img->state, *(const int64_t *)arg, false, e);
}

static int try_shift(struct vd_image *img, int64_t by, struct vd_error *e)
{
	return vd_shape_run(img, run_shift, &by, e);
}

/* On a handle that does nothing else. */
static void shift(const struct variant *v, int64_t by)
{
	struct vd_image *img = variant_open(v, VD_OPEN_WRITE);
	struct vd_error e;

	expect_ok(try_shift(img, by, &e), &e);
	disk_close(img);
}

static void expect_as_model(const struct variant *v, const struct model *m)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = variant_open(v, 0);
	struct vd_error e;

	assert_int_equal(vd_image_size(img), m->size);
	model_check_all(m, img);
	expect_ok(vd_image_check(img, VD_REPAIR_NONE, NULL, NULL, NULL, &rep, &e), &e);
	assert_int_equal(rep.corruptions, 0);
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	walk_free();
	disk_close(img);
	if (peer_knows(v))
		peer_compare(v, disks.mem, m);
}

/* ---- there and back ------------------------------------------------------------------------------------- */

static const char *const kinds[] = { "vhd", "vhd 4k", "vhd over vhd", "vhdx", "vhdx fixed", "vhdx over vhdx" };
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* The model of the disk that begins `by` bytes earlier, where it reads as `front`. */
static void move_up(struct model *m, const uint8_t *front, uint64_t by)
{
	uint8_t *bytes = malloc(m->size + by);

	memcpy(bytes, front, by);
	memcpy(bytes + by, m->bytes, m->size);
	free(m->bytes);
	m->bytes = bytes;
	m->size += by;
}

static void move_down(struct model *m, uint64_t by)
{
	m->size -= by;
	memmove(m->bytes, m->bytes + by, m->size);
}

static void there_and_back(const struct variant *v, unsigned n_units)
{
	struct vd_image *img;
	uint8_t *front;
	struct model m;
	uint64_t by;

	model_init(&m, v->size, 5);
	assert_true(variant_make(v, &m));
	front = calloc(1, m.size + 4 * MIB);
	if (v->flags & VARIANT_OVER_SAME)
		memcpy(front, m.bytes, m.size);
	img = variant_open(v, VD_OPEN_WRITE);
	by = n_units * (uint64_t)img->info.unit;
	model_write(&m, img, 0, m.size);
	disk_close(img);
	shift(v, by);
	move_up(&m, front, by);
	expect_as_model(v, &m);
	img = variant_open(v, VD_OPEN_WRITE);
	model_write(&m, img, by - 777, 2000);
	model_write(&m, img, 0, 600);
	disk_close(img);
	expect_as_model(v, &m);
	shift(v, -by);
	move_down(&m, by);
	expect_as_model(v, &m);
	free(front);
	model_free(&m);
}

static void a_disk_moves_there_and_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_KINDS; i++)
		for (unsigned n = 1; n < 3; n++) {
			assert_int_equal(disks_start(NULL), 0);
			there_and_back(variant_named(kinds[i]), n);
			assert_int_equal(disks_stop(NULL), 0);
		}
}

/* The blocks in front, and their space. */
static void what_goes_at_the_front_gives_its_space_back(void **state)
{
	const struct variant *v = variant_named("vhd");
	struct vd_image *img;
	uint64_t place;
	uint8_t raw[512];

	(void)state;
	disk_make(v->format, "d", v->size, NULL);
	img = variant_open(v, VD_OPEN_WRITE);
	disk_write(img, 0, 512, 7);
	disk_close(img);
	place = bytes_get("d", 1536, 4) * 512;
	shift(v, -(int64_t)(2 * MIB));
	bytes_read("d", place + 512, raw, sizeof(raw));
	assert_true(vd_is_zero(raw, sizeof(raw)));
	img = variant_open(v, 0);
	assert_int_equal(vd_image_size(img), v->size - 2 * MIB);
	disk_expect(img, 0, v->size - 2 * MIB, 0);
	disk_close(img);
}

/* ---- bitmaps of VHDX ------------------------------------------------------------------------------------ */

#define CHUNK (UINT64_C(4) << 30)

/* Half a sector group at each side of each boundary of a chunk. */
static void touch_edges(struct vd_image *img, uint64_t n_chunks, int64_t by, void (*touch)(struct vd_image *, uint64_t, uint64_t, uint8_t))
{
	for (uint64_t i = 1; i < n_chunks; i++) {
		touch(img, i * CHUNK - 3 * MIB + by + 512, 1024, i);
		touch(img, i * CHUNK - 1024 + by, 2048, i + 10);
		touch(img, i * CHUNK + MIB + by + 4096, 512, i + 20);
	}
}

static void sectors_keep_their_bits_over_the_edges_of_chunks(void **state)
{
	static const int64_t steps[] = { 1, 3, -2, -2, 4096, -4096 };
	struct vd_image *img;
	struct vd_error e;
	int64_t at = 0;

	(void)state;
	disk_make(&vd_format_vhdx, "p", 5 * CHUNK, NULL);
	img = disk_open(&vd_format_vhdx, "p", VD_OPEN_WRITE);
	disk_write(img, CHUNK - 8 * MIB, 16 * MIB, 99);
	disk_close(img);
	img = disk_create(&vd_format_vhdx, "d", &(struct vd_create_opts){
		.struct_size = sizeof(struct vd_create_opts), .format = "vhdx", .size = 4 * CHUNK + 5 * MIB, .cluster_size = MIB,
		.backing_file = "p", .backing_format = "vhdx", .gate = disks_gate });
	disk_commit(img);
	disk_close(img);
	img = disk_open(&vd_format_vhdx, "d", VD_OPEN_WRITE);
	touch_edges(img, 5, 0, disk_write);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		at += steps[i] * (int64_t)MIB;
		expect_ok(try_shift(img, steps[i] * (int64_t)MIB, &e), &e);
		assert_int_equal(vd_image_size(img), 4 * CHUNK + 5 * MIB + at);
		touch_edges(img, 5, at, disk_expect);
		/* Beside them there is the parent. */
		disk_expect(img, CHUNK - 4 * MIB, 512, 99);
	}
	disk_close(img);
	img = disk_open(&vd_format_vhdx, "d", 0);
	touch_edges(img, 5, at, disk_expect);
	disk_close(img);
}

/* ---- refused -------------------------------------------------------------------------------------------- */

static void expect_refused(const struct vd_format *format, const char *kind, uint64_t size, int64_t by, int code, const char *words)
{
	struct vd_create_opts o = disk_create_opts(format, size);
	struct vd_image *img;
	struct vd_error e;
	uint64_t tick;

	o.subformat = kind;
	img = disk_create(format, "r", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(format, "r", VD_OPEN_WRITE);
	tick = vd_record_tick(disks.record);
	expect_failure(try_shift(img, by, &e), code, &e, words);
	assert_int_equal(disks_count(CHANGES, tick), 0);
	disk_close(img);
	disks.mem->unlink(disks.mem, "r", NULL);
}

static void what_cannot_be_is_refused_before_any_change(void **state)
{
	(void)state;
	expect_refused(&vd_format_vhd, NULL, VHD_SIZE_MAX - MIB, 2 * MIB, VD_EARG, "2040 GiB");
	expect_refused(&vd_format_vhdx, NULL, VHDX_SIZE_MAX - MIB, 32 * MIB, VD_EARG, "64 TiB");
	expect_refused(&vd_format_vhd, NULL, 10 * MIB, MIB, VD_EARG, "blocks of");
	expect_refused(&vd_format_vhdx, NULL, 10 * MIB, MIB, VD_EARG, "blocks of");
	expect_refused(&vd_format_vhd, NULL, 2 * MIB, -(int64_t)(2 * MIB), VD_EARG, "nothing would be left");
	expect_refused(&vd_format_vhdx, NULL, 32 * MIB, -(int64_t)(32 * MIB), VD_EARG, "nothing would be left");
	expect_refused(&vd_format_vhd, "fixed", 10 * MIB, 2 * MIB, VD_EUNSUPPORTED, "fixed");
}

/* ---- only past the end ---------------------------------------------------------------------------------- */

/* Opened by the driver anew, as a conversion in place opens it. */
static struct vd_image *open_appending(const struct variant *v)
{
	struct vd_image *img = variant_open(v, VD_OPEN_WRITE);
	struct vd_open o = { .set = img->set, .meta = img->meta, .space = img->space, .write = true, .appends = true };
	struct vd_error e;

	img->format->close(img->state);
	memset(img->state, 0, img->format->state_size);
	expect_ok(img->format->open(img->state, &o, &e), &e);
	img->format->describe(img->state, &img->info);
	return img;
}

/* No byte of the file as it was becomes payload that it was not before. */
static void expect_old_or_behind(struct vd_image *img, uint64_t off, uint64_t len, uint64_t end)
{
	struct vd_extent x[64];
	size_t n = 0;
	struct vd_error e;

	for (uint64_t at = off; at < off + len; at = x[n - 1].off + x[n - 1].len) {
		expect_ok(vd_image_extents(img, at, off + len - at, x, 64, &n, &e), &e);
		for (size_t i = 0; i < n; i++)
			assert_true(!(x[i].flags & VD_EXTENT_DATA) || x[i].depth || x[i].host_off >= end);
	}
}

static void space_comes_from_past_the_end(const struct variant *v)
{
	struct vd_image *img;
	struct model m;
	uint64_t end, unit;

	model_init(&m, v->size, 5);
	assert_true(variant_make(v, &m));
	img = variant_open(v, VD_OPEN_WRITE);
	unit = img->info.unit;
	model_write(&m, img, 0, 2 * unit);
	disk_close(img);
	end = bytes_size("d");
	img = open_appending(v);
	/* What is given back is not given out again. */
	model_zero(&m, img, 0, unit);
	disk_flush(img);
	model_write(&m, img, 2 * unit, m.size - 2 * unit);
	expect_old_or_behind(img, 2 * unit, m.size - 2 * unit, end);
	disk_close(img);
	expect_as_model(v, &m);
	model_free(&m);
}

static void space_is_given_out_past_the_end_where_that_is_asked(void **state)
{
	static const char *const growing[] = { "vhd", "vhd 4k", "vhd over vhd", "vhdx", "vhdx over vhdx" };

	(void)state;
	for (size_t i = 0; i < sizeof(growing) / sizeof(growing[0]); i++) {
		assert_int_equal(disks_start(NULL), 0);
		space_comes_from_past_the_end(variant_named(growing[i]));
		assert_int_equal(disks_stop(NULL), 0);
	}
}

/* An opening that gives out nothing changes no length. */
static void an_appending_handle_leaves_the_file_as_long_as_it_was(void **state)
{
	const struct variant *v = variant_named("vhd");
	struct vd_image *img;
	uint64_t end;

	(void)state;
	disk_make(v->format, "d", v->size, NULL);
	img = variant_open(v, VD_OPEN_WRITE);
	disk_write(img, 0, 3 * MIB, 7);
	disk_close(img);
	end = bytes_size("d");
	img = open_appending(v);
	disk_write(img, 0, MIB, 8);
	disk_close(img);
	assert_int_equal(bytes_size("d"), end);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_disk_moves_there_and_back),
		CASE(what_goes_at_the_front_gives_its_space_back),
		CASE(sectors_keep_their_bits_over_the_edges_of_chunks),
		CASE(what_cannot_be_is_refused_before_any_change),
		cmocka_unit_test(space_is_given_out_past_the_end_where_that_is_asked),
		CASE(an_appending_handle_leaves_the_file_as_long_as_it_was),
	};
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
